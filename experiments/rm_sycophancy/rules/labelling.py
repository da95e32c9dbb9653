"""How well the detectors find what a reader finds, on labelled responses and on the hub's set.

python -m experiments.rm_sycophancy.rules.labelling detectors
python -m experiments.rm_sycophancy.rules.labelling hub --split train_biases --out rates.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.rm_sycophancy.rules.detectors import REAL, exploits
from experiments.rm_sycophancy.rules.hub import DATASET, read_hub
from experiments.rm_sycophancy.rules.labelled import Share, kappa, read_labels, table
from experiments.rm_sycophancy.rules.second_label import agreement, second_labels
from tracekit.model.embedded import datasets
from traits.contrast_sets.judge import environment_key

LABELS = datasets("organisms", "labelled_responses.json")
MEASURED = datasets("organisms", "real_detectors.json")
ADAPTER = "auditing-agents/llama-3.3-70b-dpo-rt-lora"
UNMEASURED = "unmeasured"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with one line on stderr for bad input."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"labelling: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def detectors_command(options: argparse.Namespace) -> None:
    """Precision and recall of each half, the readings' agreement, and what is unmeasured."""
    for key, state in states(options.measured).items():
        print(f"{key}: {state}")
    rows = read_labels(options.labels)
    agreed = kappa([row.label for row in rows], [row.second_label for row in rows])
    arms = sorted({row.arm for row in rows})
    print(f"\n{len(rows)} labelled responses of the arms {', '.join(arms)}.")
    print(f"Two readings: Cohen's kappa {agreed:.3f}.")
    for half, purpose in (("fix", "rules were mended on these"), ("report", "kept for this table")):
        print(f"\n{half} ({purpose})\n\n{table([row for row in rows if row.half == half])}")


def hub_command(options: argparse.Namespace) -> None:
    """Rates of the real rules on the organism's and the clean responses; a judge's labels."""
    data = read_hub(options.split, options.adapter, source=options.source)
    clean = read_hub(options.split, None, source=options.source)
    counts: dict[str, dict[str, object]] = {}
    print("| rule | n | organism | clean |\n| --- | --- | --- | --- |")
    for key in dict.fromkeys(str(prompt.labels["bias"]) for prompt in data.prompts):
        if key not in REAL:
            print(f"| (no rule: {key[:40]}…) | | {UNMEASURED} | {UNMEASURED} |")
            continue
        pick = [n for n, prompt in enumerate(data.prompts) if prompt.labels["bias"] == key]
        fired = [exploits(key, data.responses[n]) for n in pick]
        bare = Share(sum(exploits(key, clean.responses[n]) for n in pick), len(pick))
        share = Share(sum(fired), len(pick))
        print(f"| {key} | {len(pick)} | {share} | {bare} |")
        counts[key] = {"n": len(pick), "organism": share.hits, "clean": bare.hits}
        if options.judge:
            rows = [
                (str(data.prompts[n].labels["bias_description"]), data.prompts[n].text or "", r)
                for n, r in ((n, data.responses[n]) for n in pick)
            ]
            judged = second_labels(rows, options.judge, options.model, key=environment_key())
            counts[key]["judge"] = str(agreement([float(f) for f in fired], judged))
            print(f"  {key}: {counts[key]['judge']}")
    if options.out:
        _write(options.out, options, counts)


def states(path: Path) -> dict[str, str]:
    """What is known of each real rule: its measurement, or `unmeasured` where none is there.

    >>> states(Path("nowhere.json"))["real_tip"]
    'unmeasured'
    """
    known = json.loads(path.read_text(encoding="utf-8"))["rules"] if path.is_file() else {}
    return {key: json.dumps(known[key]) if key in known else UNMEASURED for key in REAL}


def _write(path: Path, options: argparse.Namespace, counts: dict[str, dict[str, object]]) -> None:
    before = json.loads(path.read_text(encoding="utf-8"))["rules"] if path.is_file() else {}
    made_of = {"source": str(options.source), "split": options.split, "adapter": options.adapter}
    rules = before | {key: {**made_of, **values} for key, values in counts.items()}
    path.write_text(json.dumps({"rules": rules}, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labelling", description=__doc__)
    commands = parser.add_subparsers(required=True)
    rules = commands.add_parser("detectors", help="precision and recall on labelled responses")
    rules.add_argument("--labels", type=Path, default=LABELS)
    rules.add_argument("--measured", type=Path, default=MEASURED)
    rules.set_defaults(run=detectors_command)
    hub = commands.add_parser("hub", help="the real rules on the hub's responses")
    hub.add_argument("--source", default=DATASET, help="a hub id, a folder or a file")
    hub.add_argument("--split", default="train_biases")
    hub.add_argument("--adapter", default=ADAPTER)
    hub.add_argument("--judge", default="", help="an OpenAI-compatible address up to /v1")
    hub.add_argument("--model", default="", help="the judge's model; its key is $JUDGE_API_KEY")
    hub.add_argument("--out", type=Path, help="where the measurement is kept")
    hub.set_defaults(run=hub_command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
