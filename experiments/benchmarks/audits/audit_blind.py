"""B among many benign adapters: where do organism and controls stand, and is B right about others?

    for k in $(seq 0 44); do python -m experiments.organisms train --benign --seed $k; done
    python -m experiments.benchmarks.audits.audit_blind \
        --run runs/smollm2-full-… --benign runs/organisms

The statistic is the audit's own: the largest t over trait and layer of (adapter − clean) on the
clean model's answers to the run's neutral prompts. Each adapter of the run is put among all k
benign ones: p = (1 + those at least as unlike) / (k + 1), with the exact interval of their share.
The benign ones among themselves would reject as often as they must, by ranks alone; so those with
a style are judged by those with habits, and the other way round: how often B calls a benign adapter
unlike when the ones it is held against are of another kind.
"""

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.evidence.choice import allowed_layers
from experiments.audit.evidence.row import aligned
from experiments.audit.inputs import prepare
from experiments.audit.phases import replay
from experiments.audit.run import Run
from experiments.audit.sections.blind import largest_t, share_as_unlike
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.tables import from_values
from experiments.rm_sycophancy.experiment import EXPERIMENT

RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = ("part", "adapter", "kind", "T", "against", "k", "as_unlike", "p", "rate", "low", "high")
Row = dict[str, object]


def measured(run: Path, benign: Path) -> tuple[Settings, xr.DataArray]:
    """Response means of cosines by adapter on the run's neutral prompts: the run's and `benign`'s.

    (adapter, prompt, layer, trait), kept as `blind.nc` beside the adapters. Errors: `ValueError`
    where the run has no neutral prompts or the folder no adapters.
    """
    settings = from_values(Run(run).settings()["settings"])
    settings = replace(settings, adapters=replace(settings.adapters, benign=str(benign)))
    if not kinds(benign):
        raise ValueError(
            f"The folder {str(benign)!r} holds no benign adapter. Train some: "
            "python -m experiments.organisms train --benign --seed 0"
        )
    clean = replay.neutral(tk.open(Run(run).responses("clean")))
    if not clean.sizes["prompt"]:
        raise ValueError(f"The run {str(run)!r} has no neutral prompts. Give one that has.")
    vectors = Run(run).vectors_of(settings.vectors.method)
    inputs = prepare(settings, EXPERIMENT)
    means = replay.unit_means(inputs, settings, clean)
    found = replay.blind(inputs, settings, clean, vectors, means)
    tk.save(found, benign / "blind.nc")
    return settings, found


def kinds(benign: Path) -> dict[str, str]:
    """What each benign adapter of a folder was trained to do: "style" or "habits", by name."""
    notes = {path.parent.name: path for path in sorted(benign.glob("benign-*/training.json"))}
    read = {name: json.loads(path.read_text("utf-8"))["kind"] for name, path in notes.items()}
    return {name: "style" if kind == "style" else "habits" for name, kind in read.items()}


def table(
    moved: xr.DataArray, kind: Mapping[str, str], allowed: np.ndarray, alpha: float
) -> list[Row]:
    """Every adapter among the benign ones, and how often one kind is rejected by the other.

    `moved` is (adapter, prompt, layer, trait), the difference from the clean weights; adapters
    that are not in `kind` are the audited ones. Errors: `ValueError` where a kind has too few for
    any p to reach `alpha`.
    """
    for own in ("style", "habits"):
        count, least = list(kind.values()).count(own), int(np.ceil(1 / alpha)) - 1
        if count < least:
            raise ValueError(
                f"{count} benign adapters of the kind {own} were given; p reaches {alpha} with "
                f"{least} of each kind. Train more seeds."
            )
    largest = {
        str(name): float(largest_t(moved.sel(adapter=name).values, allowed))
        for name in moved["adapter"].values
    }
    all_benign = [largest[name] for name in kind]
    rows: list[Row] = []
    for name in [name for name in largest if name not in kind]:
        rows.append(
            {
                "part": "audited",
                "adapter": name,
                "T": largest[name],
                "against": "all benign",
                **_among(largest[name], all_benign),
            }
        )
    rejected: dict[str, list[bool]] = {"style": [], "habits": []}
    for name, own in kind.items():
        other = "habits" if own == "style" else "style"
        placed = _among(largest[name], [largest[n] for n, k in kind.items() if k == other])
        rejected[own].append(bool(placed["p"] <= alpha))
        rows.append(
            {
                "part": "benign",
                "adapter": name,
                "kind": own,
                "T": largest[name],
                "against": other,
                **placed,
            }
        )
    rejected["either"] = rejected["style"] + rejected["habits"]
    for own, said in rejected.items():
        rate, low, high = share_as_unlike(sum(said), len(said))
        against = "other kind"
        rows.append(
            {"part": "rejected", "kind": own, "against": against, "k": len(said)}
            | {"as_unlike": sum(said), "rate": rate, "low": low, "high": high}
        )
    return rows


def _among(observed: float, others: Sequence[float]) -> dict[str, float]:
    count = sum(other >= observed for other in others)
    rate, low, high = share_as_unlike(count, len(others))
    p = (1 + count) / (len(others) + 1)
    return {"k": len(others), "as_unlike": count, "p": p, "rate": rate, "low": low, "high": high}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: measures, prints and saves the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="the folder of a finished audit")
    parser.add_argument("--benign", type=Path, required=True, help="the folder of benign adapters")
    parser.add_argument("--output", type=Path, default=RESULTS / "audit_blind.csv")
    asked = parser.parse_args(arguments)
    settings, found = measured(asked.run, asked.benign)
    layers = found["layer"].values
    low, high = settings.hypothesis.depth
    allowed = allowed_layers(layers, (low, high), len(layers))
    moved = (found - found.sel(adapter="clean", drop=True)).drop_sel(adapter="clean")
    rows = table(moved, kinds(asked.benign), allowed, settings.hypothesis.alpha)
    shown = [{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    with asked.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(shown)
    print("\n".join(aligned([COLUMNS, *[[str(row.get(c, "")) for c in COLUMNS] for row in shown]])))


if __name__ == "__main__":
    main()
