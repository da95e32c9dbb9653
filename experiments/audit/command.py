"""The command of an experiment: its phases in one run folder, steering, and the plan before.

Phases in order: extract, respond, capture, replay, project, analyse; `run` does all that have not
finished. `project` and `analyse` need no model, and no preset when `--out` names a run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.audit import log, processes
from experiments.audit.experiment import Experiment
from experiments.audit.inputs import Inputs, prepare
from experiments.audit.options import WINDOW, Parser, exit_code, floats, names, window
from experiments.audit.phases import (
    activations,
    analysis,
    extraction,
    projections,
    replay,
    response,
)
from experiments.audit.plan import planning, room
from experiments.audit.run import Run, default_folder
from experiments.audit.settings.contents import described
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.tables import ADDRESSES, from_values
from experiments.audit.steering import study
from tracekit.errors import InputError
from traits.contrast_sets.judge import KEY, without_credentials

WITH_MODEL: dict[str, Callable[..., list[Path]]] = {
    "extract": extraction.run,
    "respond": response.run,
    "capture": activations.run,
    "replay": replay.run,
}
WITHOUT_MODEL: dict[str, Callable[..., list[Path]]] = {
    "project": projections.run,
    "analyse": analysis.run,
}
PHASES = (*WITH_MODEL, *WITHOUT_MODEL)
OF_AN_ORGANISM = ("replay", "analyse")
COUNTS = {
    "limit": "so many prompts",
    "pairs": "so many pairs of each contrast set",
    "samples": "answers to each prompt",
    "max-new-tokens": "of an answer",
    "repetitions": "draws of each interval and p",
    "seed": "of all draws",
}
NOT_SETTINGS = ("phase", "preset", "out", "tensor_parallel", "data_parallel", "debug")


def main(
    experiment: Experiment,
    words: str,
    arguments: Sequence[str] | None = None,
    program: str = "",
) -> int:
    """Run one phase or all; `words` is the help's text, `program` how it was called.

    Returns 0, or 2 with one line on stderr for bad input or a path that fails.

    `--debug` lets the error through instead, with its traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)

    def dispatch(given: Sequence[str]) -> None:
        if given and given[0] == "steer":
            study.main(experiment, given[1:])
        elif given and given[0] == "plan":
            planning.main(experiment, given[1:], program)
        else:
            work(experiment, command_line(experiment, words, program).parse_args(given))

    return exit_code(program or experiment.name, given, dispatch)


def work(experiment: Experiment, options: argparse.Namespace) -> None:
    """Do the phases asked for, in one folder."""
    settings, made_of, folder = chosen(experiment, options)
    load, copies = processes.how_to_load(options), processes.copies(options)
    audit(experiment, settings, made_of, folder, options.phase, load, copies)


def audit(
    experiment: Experiment,
    settings: Settings,
    made_of: Mapping[str, Any],
    folder: Path,
    phase: str = "run",
    load: Mapping[str, Any] | None = None,
    copies: int = 1,
    loaded: Any = None,
) -> None:
    """One phase, or those of `run` that have not finished; `made_of` are the settings described.

    `load` is what else the model is loaded with, in `copies` processes; `loaded` is the model
    where the caller has it.
    """
    Run(folder).refuse_other(made_of)
    wanted = _wanted(phase, settings)
    pending = _pending(folder, wanted, everything=phase != "run")
    _refuse_gap(folder, wanted, _phases(settings))
    needs_model = bool(set(pending) & set(WITH_MODEL))
    if needs_model:
        held = 0 if loaded is None else sum(p.nbytes for p in loaded._module.parameters())
        room.refuse_small(settings, folder, copies, experiment.hub, held)
    inputs = prepare(settings, experiment, load, loaded) if needs_model else None
    if processes.is_first():
        Run(folder).claim(made_of)
    for name in wanted:
        if name in WITHOUT_MODEL:
            processes.leave()  # what needs no model is done by the first alone, as long as it takes
        if name in pending:
            _do(name, folder, settings, inputs)
        elif processes.is_first():
            tqdm.write(f"{name}: finished before, in {folder}", file=sys.stderr)
    processes.leave()
    if "analyse" in wanted and processes.is_first():
        print(Run(folder).table.read_text("utf-8") + f"Run folder: {folder}")


def _do(phase: str, folder: Path, settings: Settings, inputs: Inputs | None) -> None:
    if not processes.is_first():
        if phase in WITH_MODEL:
            WITH_MODEL[phase](folder, settings, inputs)
        return
    with log.following(folder, phase, PHASES.index(phase) + 1, len(PHASES)):
        made = (
            WITH_MODEL[phase](folder, settings, inputs)
            if phase in WITH_MODEL
            else WITHOUT_MODEL[phase](folder, settings)
        )
        Run(folder).finish(phase, made)


def _phases(settings: Settings) -> tuple[str, ...]:
    there = bool(settings.adapters.organism)
    return tuple(phase for phase in PHASES if there or phase not in OF_AN_ORGANISM)


def _wanted(phase: str, settings: Settings) -> tuple[str, ...]:
    every = _phases(settings)
    if phase == "run":
        return every
    if phase not in every:
        raise InputError(
            f"{phase} was asked for in a run without an organism, so there is nothing to "
            "audit. Give --organism, or use its vectors and clean arm as they are."
        )
    return (phase,)


def chosen(
    experiment: Experiment, options: argparse.Namespace
) -> tuple[Settings, dict[str, Any], Path]:
    """The settings that the options mean, what they stand for, and the run's folder."""
    if options.preset is None:
        if options.out is None or options.phase not in WITHOUT_MODEL:
            raise InputError(
                f"{options.phase} was asked for without a preset. Give --preset smollm2 "
                f"({' and '.join(WITHOUT_MODEL)} also take --out with the folder of a run)."
            )
        made_of = Run(options.out).settings()
        return from_values(made_of["settings"]), made_of, options.out
    given = {name: value for name, value in vars(options).items() if value is not None}
    changes = {name: given[name] for name in given if name not in NOT_SETTINGS}
    _say_left_out(changes)
    settings = experiment.preset(options.preset, changes)
    made_of = described(settings)
    return settings, made_of, options.out or default_folder(made_of)


def _say_left_out(changes: Mapping[str, Any]) -> None:
    for name in ADDRESSES:
        address = str(changes.get(name) or "")
        if without_credentials(address) != address:
            tqdm.write(
                f"{name}: what the address carries of credentials is left out; give the key as "
                f"${KEY}",
                file=sys.stderr,
            )


def _pending(folder: Path, wanted: Sequence[str], everything: bool) -> list[str]:
    """The phases to do; once one is, all later ones are, since they read what it writes."""
    if everything:
        return list(wanted)
    done = [Run(folder).has_finished(phase) for phase in wanted]
    return list(wanted[done.index(False) :]) if not all(done) else []


def _refuse_gap(folder: Path, wanted: Sequence[str], every: Sequence[str]) -> None:
    before = every[: every.index(wanted[0])]
    lacking = [phase for phase in before if not Run(folder).has_finished(phase)]
    if lacking:
        raise InputError(
            f"{wanted[0]} was asked for; {', '.join(lacking)} has not finished in {str(folder)!r}. "
            f"Do that first, or use run."
        )


def command_line(
    experiment: Experiment, words: str = "", program: str = ""
) -> argparse.ArgumentParser:
    """What the command takes."""
    parser = Parser(
        prog=program or f"python -m {experiment.module}",
        description=words,
    )
    parser.add_argument("phase", choices=(*PHASES, "run"))
    parser.add_argument("--preset", help="a shipped preset, such as smollm2, or a TOML file")
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/<preset>-<hash>)")
    parser.add_argument("--model", help="a hub id, a folder, or the embedded model's name")
    parser.add_argument("--base", help="the model that vectors come from (default: the same)")
    parser.add_argument("--organism", help="the adapter under audit")
    parser.add_argument("--control", help='the control adapter ("" for none)')
    parser.add_argument("--controls", type=names, help="further controls: a,style=b,…")
    parser.add_argument("--habits", help="an adapter with open, benign habits")
    parser.add_argument("--benign", help="a folder of benign adapters, for the blind comparison")
    parser.add_argument("--held-out", type=names, help="biases to report on: a,b")
    parser.add_argument("--judge-at", help="an OpenAI-compatible address (and --judge, the model)")
    parser.add_argument("--judge", help="the name of its model")
    parser.add_argument("--temperature", type=float, help="of answers (default: preset)")
    parser.add_argument("--dtype", help="auto, float32, bfloat16, nf4, …")
    parser.add_argument("--prompts", help="a JSON file of prompts")
    parser.add_argument("--labels", help="who exploits: JSON, CSV, TOML rules, or module:function")
    parser.add_argument("--primary", type=names, help="traits that the hypothesis is about: a,b")
    parser.add_argument("--hypothesis", help="it, in words, fixed before the run")
    parser.add_argument("--pooling", help="how a response's tokens are scored: mean, max, last, …")
    parser.add_argument("--depth", type=floats, help="0.2,0.75: where a layer may be chosen")
    parser.add_argument(
        "--from", type=names, help="answers of an engine: a.jsonl,clean=b.jsonl (the organism's, …)"
    )
    parser.add_argument("--server", help="an OpenAI-compatible address that answers for arms")
    parser.add_argument("--served-model", help="what the model without adapter is called there")
    parser.add_argument(
        "--served-adapter", type=names, help="and with: the organism's, or arm=name"
    )
    parser.add_argument("--split", help="only prompts of this split")
    parser.add_argument("--traits", type=names, help="a,b (default: preset)")
    parser.add_argument("--evaluation", help="of the traits' vectors: quick or full")
    parser.add_argument("--layers", type=window, help=WINDOW)
    parser.add_argument("--remote", help="ndif, or local: its rehearsal here")
    processes.add_arguments(parser)
    for name, words in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"{words} (default: preset)")
    return parser
