"""The commands `zoo` and `benign` of `tracekit organisms`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from experiments.audit.options import count, positive
from experiments.organisms.zoo.habits import habits
from tracekit.model.embedded import EMBEDDED, datasets
from tracekit.transcripts.reading.prompt_files import read_prompts

BENIGN, ZOO = 24, Path("runs", "zoo")


def add(commands: Any) -> None:
    """Add both commands to a parser's subparsers."""
    growing = commands.add_parser("zoo", help="train the zoo, or what of it is not there yet")
    growing.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these organisms")
    growing.add_argument(
        "--benign", type=_from_zero, help=f"benign ones (default {BENIGN}; 0 of --only)"
    )
    growing.add_argument("--model", default=EMBEDDED, help="the base")
    growing.add_argument("--out", type=Path, default=ZOO)
    growing.set_defaults(run=zoo)
    matching = commands.add_parser("benign", help="benign adapters matched to one of your own")
    matching.add_argument("--like", required=True, metavar="ADAPTER", help="a folder or hub id")
    matching.add_argument("-n", type=count, default=19, help="how many (default 19: p from 0.05)")
    matching.add_argument("--model", help="the base (default: the adapter's own)")
    matching.add_argument(
        "--prompts", type=Path, nargs="+", default=[datasets("prompts", "general_battery.json")]
    )
    matching.add_argument("--out", type=Path, help="default: runs/benign-ADAPTER")
    matching.add_argument("--learning-rate", type=positive)
    matching.set_defaults(run=benign)
    for command in (growing, matching):
        for name in ("--steps", "--batch", "--tokens"):
            command.add_argument(name, type=count, help="instead of the recipe's or adapter's")


def zoo(options: argparse.Namespace) -> None:
    """Train the organisms and their benign company."""
    from experiments.organisms.zoo import fitting, growing

    asked = habits(options.only)
    number = options.benign if options.benign is not None else 0 if options.only else BENIGN
    given = _given(options)
    schedule = fitting.Schedule(**given) if given else None
    growing.grown(fitting.base_of(options.model), asked, number, options.out, schedule)


def benign(options: argparse.Namespace) -> None:
    """Train benign adapters like the one that is given."""
    from experiments.organisms.zoo import fitting, matched

    config = matched.config_like(options.like)
    schedule, source = matched.schedule_like(options.like)
    schedule = dataclasses.replace(schedule, **_given(options))
    prompts = [prompt for path in options.prompts for prompt in read_prompts(path)]
    base = fitting.base_of(options.model or config.base_model_name_or_path or EMBEDDED)
    print(f"{options.n} like {options.like} on {base.name}: {schedule} (read from {source})")
    out = options.out or Path("runs", f"benign-{Path(options.like).name}")
    matched.benign(base, config, schedule, prompts, options.n, out)
    print(f"tracekit audit {options.like} --benign {out}")


def _from_zero(text: str) -> int:
    return 0 if text == "0" else count(text)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    names = ("steps", "batch", "tokens", "learning_rate")
    values = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}
