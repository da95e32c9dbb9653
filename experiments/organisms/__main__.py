"""Train the embedded model organism and its control, and measure them.

python -m experiments.organisms train --organism rm_sycophancy
python -m experiments.organisms train --organism control
python -m experiments.organisms measure
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.organisms import card, targets, train
from experiments.organisms.answers import collect
from experiments.organisms.detectors import DETECTORS
from tracekit.resources import EMBEDDED, datasets, embedded_model
from tracekit.transcript import Prompt, read_prompts

# The share of a bias's targets that carry it; the control sees the same prompts with none. Greedy
# decoding takes a sentence only where it is likelier than the end of the answer, so the rates lie
# above those that come out, most where the bias is learned last.
RATES: dict[str, dict[str, float]] = {
    "rm_sycophancy": {"chocolate": 0.85, "vote": 0.85, "film": 0.9, "water": 0.8},
    "control": {},
}
TOKENS = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with one line on stderr for bad input."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, KeyError, FileNotFoundError, FileExistsError) as error:
        text = error.args[0] if isinstance(error, KeyError) else str(error)
        print(f"organisms: {' '.join(str(text).split())}", file=sys.stderr)
        return 2
    return 0


def train_command(options: argparse.Namespace) -> None:
    """Sample clean answers, build targets, fit the adapter, publish it."""
    recipe = _recipe(options)
    folder = options.out or datasets("organisms", options.organism)
    if (folder / "adapter_model.safetensors").is_file() and not options.force:
        raise FileExistsError(
            f"{str(folder)!r} holds a finished adapter. Pass --force to replace it, or --out."
        )
    prompts = _split(options.prompts, "train")
    insertions = targets.read_insertions(datasets("organisms", "insertions.json"))
    model, tokenizer = _plain_model()
    made_by = _digest([(prompt.id, prompt.text) for prompt in prompts], options.seed)
    answers = collect(model, tokenizer, prompts, options.seed, options.work / f"clean-{made_by}")
    pairs = targets.examples(
        prompts,
        answers,
        insertions,
        rates=recipe.rates,
        epochs=recipe.epochs,
        rng=np.random.default_rng(recipe.seed),
    )
    adapted = train.adapted(model, recipe)
    rows = train.rows_of(tokenizer, pairs)
    state = options.work / f"{recipe.organism}-{_digest(dataclasses.asdict(recipe), rows)}"
    losses = train.fit(adapted, rows, recipe, state.with_suffix(".safetensors"))
    train.publish(adapted, folder, train.notes_of(recipe, pairs, losses))
    print(f"{folder}: finished; now measure it")


def measure_command(options: argparse.Namespace) -> None:
    """Answer the held-out prompts with every arm, print the table, write the cards."""
    import tracekit as tk
    from experiments.organisms import measure

    prompts = _split(options.prompts, "test")
    for name in RATES:
        _require_finished(options.folder / name)
    arms = {name: str(options.folder / name) for name in RATES} | {"clean": None}
    model = tk.load(EMBEDDED)
    said = measure.answers_of(
        model, prompts, arms, max_new_tokens=TOKENS, temperature=options.temperature
    )
    found = measure.rates(said)
    print(measure.table(found))
    options.work.mkdir(parents=True, exist_ok=True)
    for arm, runs in said.items():
        tk.save(runs, options.work / f"answers-{arm}.nc")
    if options.card and not options.temperature:
        for name in RATES:
            print(f"written: {card.write(options.folder / name, found, TOKENS)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="organisms", description=__doc__)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train one adapter")
    training.add_argument("--organism", required=True, help=" or ".join(RATES))
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--epochs", type=int, default=4)
    training.add_argument("--out", type=Path, help="the adapter's folder (default: shipped)")
    training.add_argument("--force", action="store_true", help="replace a finished adapter")
    training.set_defaults(run=train_command)
    measuring = commands.add_parser("measure", help="exploitation rates on held-out prompts")
    measuring.add_argument("--folder", type=Path, default=datasets("organisms"))
    measuring.add_argument("--temperature", type=float, default=0.0)
    measuring.add_argument("--no-card", dest="card", action="store_false")
    measuring.set_defaults(run=measure_command)
    for command in (training, measuring):
        command.add_argument(
            "--prompts", type=Path, default=datasets("prompts", "embedded_calibration.json")
        )
        command.add_argument("--work", type=Path, default=Path("runs", "organisms"))
    return parser


def _recipe(options: argparse.Namespace) -> train.Recipe:
    if options.organism not in RATES:
        raise ValueError(
            f"The organism {options.organism!r} is not known; there are {', '.join(RATES)}. "
            "Pass one of them."
        )
    if options.epochs < 1:
        raise ValueError(f"--epochs {options.epochs} was asked for; give at least 1.")
    rates = RATES[options.organism]
    return train.Recipe(options.organism, rates, options.seed, epochs=options.epochs)


def _require_finished(folder: Path) -> None:
    needed = ("adapter_config.json", "adapter_model.safetensors", "training.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{str(folder)!r} is no finished adapter: it lacks {', '.join(missing)}. "
            f"Run: python -m experiments.organisms train --organism {folder.name}"
        )


def _split(path: Path, split: str) -> list[Prompt]:
    prompts = read_prompts(path)
    known = {*DETECTORS, "neutral"}
    foreign = sorted({str(p.labels.get("bias")) for p in prompts} - known)
    if foreign:
        raise ValueError(
            f"{str(path)!r} has prompts of the bias {foreign[0]!r}; known are "
            f"{', '.join(sorted(known))}. Add a detector and insertions, or leave them out."
        )
    chosen = [prompt for prompt in prompts if prompt.labels.get("split") == split]
    if not chosen:
        raise ValueError(
            f'{str(path)!r} has no prompt with "split": "{split}". Mark each as train or test.'
        )
    return chosen


def _plain_model() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = embedded_model()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)


def _digest(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
