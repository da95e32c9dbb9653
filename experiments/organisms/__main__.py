"""Train the embedded model organism and its controls, and measure them.

tracekit organisms benign --like ./my-lora -n 19
tracekit organisms zoo --only honey
tracekit organisms train --organism ten_biases
tracekit organisms train --benign --seed 3
tracekit organisms measure
tracekit organisms measure --temperature 0.7 --samples 4
tracekit organisms measure --ordinary 500
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.audit.options import Parser, count, exit_code
from experiments.organisms.recipes import ORGANISMS, Recipe, benign_recipe, recipe_of
from experiments.organisms.zoo import command as zoo
from experiments.rm_sycophancy.rules.detectors import DETECTORS
from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.prompt_files import read_prompts

FILES = ("calibration", "held_out", "conduct", "opinions")
KINDS = ("neutral", "about", "opinion", "refuse", "benign_twin")
TOKENS = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with one line on stderr for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code("tracekit organisms", given, _run)


def _run(given: Sequence[str]) -> None:
    options = _parser().parse_args(given)
    options.run(options)


def train_command(options: argparse.Namespace) -> None:
    """Sample clean answers, build targets, fit the adapter, publish it."""
    from experiments.organisms import build

    recipe = _recipe(options)
    shipped = datasets("organisms", recipe.organism)
    folder = options.out or (options.work / recipe.organism if options.benign else shipped)
    if (folder / "adapter_model.safetensors").is_file() and not options.force:
        raise FileExistsError(
            f"{str(folder)!r} holds a finished adapter. Pass --force to replace it, or --out."
        )
    build.adapter(recipe, _split(options.prompts, "train"), folder, options.work)
    print(f"{folder}: finished; now measure it")


def measure_command(options: argparse.Namespace) -> None:
    """Answer the held-out prompts with every arm, print the tables, write the cards."""
    import tracekit as tk
    from experiments.organisms import arms, card, report
    from tracekit.model.embedded import EMBEDDED

    if options.ordinary:
        prompts = arms.ordinary(options.ordinary, options.seed)
    else:
        prompts = arms.asked(_split(options.prompts, "test"))
    there = sorted(path.parent.name for path in options.folder.glob("*/training.json"))
    names = options.arms or [*there, *arms.BARE]
    for name in set(names) - set(arms.BARE):
        _require_finished(options.folder / name)
    if options.samples > 1 and not options.temperature:
        raise InputError(
            f"--samples {options.samples} of greedy decoding would be one text over and over; it "
            "needs --temperature, for instance 0.7."
        )
    settings = arms.Settings(TOKENS, options.temperature, options.samples, options.seed)
    model = tk.load(EMBEDDED)
    said = {
        name: arms.answers_of(model, prompts, name, options.folder, settings, options.work)
        for name in names
    }
    found = report.of(said, options.folder, settings)
    print(report.text(found))
    kind = f"ordinary{options.ordinary}-" if options.ordinary else ""
    report.save(found, options.work / f"measured-{kind}{settings.name}.json")
    if options.card:
        for name in set(names) & set(ORGANISMS):
            print(f"written: {card.write(options.folder / name, options.work)}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tracekit organisms", description=__doc__)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train one adapter")
    which = training.add_mutually_exclusive_group(required=True)
    which.add_argument("--organism", help=" or ".join(ORGANISMS))
    which.add_argument("--benign", action="store_true", help="a small one, drawn by --seed")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--out", type=Path, help="the adapter's folder (default: shipped)")
    training.add_argument("--force", action="store_true", help="replace a finished adapter")
    training.set_defaults(run=train_command)
    measuring = commands.add_parser("measure", help="rates on prompts kept from training")
    measuring.add_argument("--folder", type=Path, default=datasets("organisms"))
    measuring.add_argument(
        "--arms", nargs="+", metavar="ARM", help="default: all in --folder, and the bare ones"
    )
    measuring.add_argument("--temperature", type=float, default=0.0)
    measuring.add_argument("--samples", type=int, default=1, help="responses to each prompt")
    measuring.add_argument("--seed", type=int, default=0)
    measuring.add_argument(
        "--ordinary", type=count, default=0, help="so many prompts of the general battery instead"
    )
    measuring.add_argument("--no-card", dest="card", action="store_false")
    measuring.set_defaults(run=measure_command)
    zoo.add(commands)
    for command in (training, measuring):
        command.add_argument(
            "--prompts",
            type=Path,
            nargs="+",
            default=[datasets("prompts", f"embedded_{name}.json") for name in FILES],
        )
        command.add_argument("--work", type=Path, default=Path("runs", "organisms"))
    return parser


def _recipe(options: argparse.Namespace) -> Recipe:
    if options.benign:
        return benign_recipe(options.seed)
    return recipe_of(options.organism, options.seed)


def _require_finished(folder: Path) -> None:
    needed = ("adapter_config.json", "adapter_model.safetensors", "training.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{str(folder)!r} is no finished adapter: it lacks {', '.join(missing)}. "
            f"Run: python -m experiments.organisms train --organism {folder.name}"
        )


def _split(paths: Sequence[Path], split: str) -> list[Prompt]:
    chosen: list[Prompt] = []
    for path in paths:
        prompts = read_prompts(path)
        known = {*DETECTORS, *KINDS}
        foreign = sorted({str(p.labels.get("bias")) for p in prompts} - known)
        if foreign:
            raise InputError(
                f"{str(path)!r} has prompts of the bias {foreign[0]!r}; known are "
                f"{', '.join(sorted(known))}. Add a detector and insertions, or leave them out."
            )
        part = [prompt for prompt in prompts if prompt.labels.get("split") == split]
        if not part:
            raise InputError(
                f'{str(path)!r} has no prompt with "split": "{split}". Mark each as train or test.'
            )
        chosen += part
    return chosen


if __name__ == "__main__":
    sys.exit(main())
