"""The settings of the trait part: known, and what is bad refused, before any model answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from experiments.audit.bases import refuse_base
from experiments.audit.discovery.subject import LEAST_PROMPTS
from experiments.audit.experiment import Experiment
from experiments.audit.inputs import labels_of, refuse_apart
from experiments.audit.labellers import is_file_of_labels
from experiments.audit.prompt_sets import askable, refuse_labels
from experiments.audit.run import SETTINGS, Run
from experiments.audit.settings.adapters import last_name
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.presets import table_of
from experiments.audit.settings.tables import merged
from tracekit.errors import InputError
from tracekit.model.adapters.forms import adapter_path
from tracekit.transcripts.prompts import Prompt

EXPERIMENT = Experiment("experiments.audit.own", files("experiments.audit.own") / "presets")
# what goes on to the trait part as it was given
PASSED_ON = (
    *("model", "base", "dtype", "layers", "controls", "habits", "labels", "judge", "judge_at"),
    *("traits", "primary", "hypothesis", "depth", "samples", "repetitions", "seed"),
    *("server", "served_model", "served_adapter"),
)
OF_A_FILE = ("split", "held_out")  # what a preset says of the prompts in its own file


@dataclass(frozen=True)
class Asked:
    """What a command asks for, and what its preset sets where no option does.

    `settings` are the trait part's, but for what a search brings: prompts, and labels where none
    are given; `window` is [] where the model's depth is to say the layers. `prompts` are the
    user's own.
    """

    options: argparse.Namespace
    settings: Settings
    window: list[int]
    prompts: tuple[Prompt, ...]
    benign: tuple[str, ...]

    @property
    def begun(self) -> list[Prompt]:
        """The prompts that end with the assistant's turn, which the model goes on with."""
        return [prompt for prompt in self.prompts if prompt.answer is not None]

    @property
    def labels(self) -> str:
        """Who says what exploits; "" where the search's own rules are to."""
        return self.settings.answers.labels

    def settled(self, layers: Sequence[int], given: Mapping[str, str]) -> Settings:
        """The whole settings: with the layers, and the files of prompts and labels `given`."""
        told = self.settings.prompts
        more: dict[str, Any] = {name: getattr(told, name) for name in OF_A_FILE}
        made = {**changes(self.options), **more, **given, "layers": list(layers)}
        return EXPERIMENT.preset(self.options.preset or "own", made)


def asked(options: argparse.Namespace) -> Asked:
    """Read all that options and preset name.

    Errors: `ValueError`, `KeyError`, `FileNotFoundError` for what is bad of it, whatever the
    search will find.
    """
    adapter_path(options.adapter)
    settings = EXPERIMENT.preset(options.preset or "own", changes(options))
    own = options.preset and str(options.preset).endswith(".toml")
    table = table_of(Path(options.preset)) if own else {}
    file = [settings.prompts.file] if table.get("prompts", {}).get("file") else []
    _refuse_unused(table, options, settings)
    prompts = askable(options.prompts or file)
    if not options.search_only:
        refuse_labels([prompt for prompt in prompts if prompt.answer is None])
    window = options.layers or table.get("model", {}).get("layers") or []
    given = options.benign or ([settings.adapters.benign] if settings.adapters.benign else [])
    made = Asked(options, settings, list(window), tuple(prompts), tuple(benign_of(given)))
    _refuse(made)
    _say_begun(made)
    _say_benign(made)
    return made


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of the trait part that the options change, by their options' names."""
    given = {name: getattr(options, name) for name in PASSED_ON}
    made = {name: value for name, value in given.items() if value is not None}
    folders = [one for one in options.benign if _inside(one)]
    benign = {"benign": folders[0] if folders else ""} if options.benign else {}
    return {**made, **benign, "organism": options.adapter}


def benign_of(given: Sequence[str]) -> list[str]:
    """Benign adapters: those given, and those that a given folder holds.

    Errors: `ValueError` for a folder that is no adapter and holds none.
    """
    adapters: list[str] = []
    for one in given:
        inside = _inside(one)
        if Path(one).is_dir() and not inside and not (Path(one) / "adapter_config.json").is_file():
            raise InputError(
                f"--benign {one!r} was given; it is no adapter and holds none. Give adapters, or "
                "a folder whose folders hold an adapter_config.json each."
            )
        adapters += inside or [one]
    for one in adapters:
        adapter_path(one)
    return adapters


def refuse_other(run: Run, made_of: Mapping[str, Any], searched: bool) -> None:
    """Raise `ValueError` where the folder has a run with other settings.

    Where they are yet to be `searched`, prompts and labels count as those that are there.
    """
    if searched and (run.folder / SETTINGS).is_file():
        there = run.settings()
        known, contents = there["settings"], there.get("contents", {})
        labels = known["answers"].get("labels", "")
        made_of = merged(
            made_of,
            {
                "settings": {"prompts": known["prompts"], "answers": {"labels": labels}},
                "contents": {name: contents.get(name, "") for name in ("prompts", "labels")},
            },
        )
    run.refuse_other(made_of)


def refuse_other_benign(run: Run, benign: Sequence[str]) -> None:
    """Raise `ValueError` where the findings of the folder's audit are beside other adapters."""
    if not run.findings.is_file():
        return
    made_with = json.loads(run.findings.read_text("utf-8")).get("made_with", {})
    there, now = (sorted(map(last_name, of)) for of in (made_with.get("benign", benign), benign))
    if there != now:
        raise InputError(
            f"The folder {str(run.folder)!r} holds an audit whose search was held against "
            f"{', '.join(there) or 'no benign adapter'}, and now against "
            f"{', '.join(now) or 'none'}: what it found would be another thing. Give another "
            "--out, or the --benign it has; --search-only makes the search alone again."
        )


def _refuse(made: Asked) -> None:
    settings = made.settings
    _refuse_unasked(made)
    refuse_apart(settings)
    for arm in settings.adapters.arms:
        if arm.adapter:
            adapter_path(arm.adapter)
    labels_of(settings, [prompt.id for prompt in made.prompts])
    if settings.model.base:
        # the layers of a model that is not loaded yet are not known
        refuse_base(replace(settings.model, layers=tuple(made.window) or (0, 0)))


def _refuse_unasked(asked: Asked) -> None:
    own, labels = asked.prompts, asked.labels
    if labels and not own:
        what = "a file of labels" if is_file_of_labels(labels) else "rules"
        raise InputError(
            f"--labels {labels} was given ({what}), and no prompts that they are about. "
            "Give --prompts, a JSON file whose rows have a `bias` (their kind)."
        )
    if not asked.options.own_prompts_only:
        return
    if len(own) < LEAST_PROMPTS:
        raise InputError(
            f"--own-prompts-only was given with {len(own)} prompts, and {LEAST_PROMPTS} are the "
            "least: half to search and half to confirm. Give --prompts, a JSON file of them."
        )
    if len(own) - len(asked.begun) < LEAST_PROMPTS and not asked.options.search_only:
        raise InputError(
            f"--own-prompts-only was given with {len(own)} prompts, {len(asked.begun)} of which "
            f"end with the assistant's turn (first: {asked.begun[0].id!r}); {LEAST_PROMPTS} of "
            "the others are the least, since the trait part asks for whole answers. Take the "
            "answers out of the file, or give --search-only."
        )


def _refuse_unused(
    table: Mapping[str, Any], options: argparse.Namespace, settings: Settings
) -> None:
    """What a preset's own file sets, and this command would leave out."""
    prompts, organism = table.get("prompts", {}), table.get("adapters", {}).get("organism")
    told = bool(settings.answers.labels and prompts.get("file") and not options.prompts)
    wrong = {
        "[adapters] organism": organism if organism != options.adapter else "",
        "[model] remote": settings.model.remote,
        "[prompts] sets": prompts.get("sets"),
        **{f"[prompts] {name}": "" if told else prompts.get(name) for name in OF_A_FILE},
    }
    for name, value in wrong.items():
        if value:
            raise InputError(
                f"{name} = {value!r} of {options.preset!r} was given, and is not used: the adapter "
                f"is {options.adapter!r}, answered for here, and a split and held-out kinds are of "
                "[prompts] file with labels. Take it out."
            )


def _say_begun(made: Asked) -> None:
    if made.begun:
        print(
            f"--prompts: {len(made.begun)} of {len(made.prompts)} end with the assistant's turn "
            f"(first: {made.begun[0].id!r}), and the model goes on with it; in a data set that is "
            "the answer, which is to be taken out where the prompt alone is meant.",
            file=sys.stderr,
        )


def _say_benign(made: Asked) -> None:
    folder, given = made.settings.adapters.benign, made.benign
    if given and len(given) != len(_inside(folder)) and not made.options.search_only:
        gets = f"{folder!r}" if folder else "none"
        print(
            f"--benign: the search is held against all {len(given)} adapters; the blind comparison "
            f"of the trait part takes one folder of adapters, and gets {gets}.",
            file=sys.stderr,
        )


def _inside(folder: str) -> list[str]:
    """The adapters in the folders of a folder."""
    found = Path(folder).glob("*/adapter_config.json") if folder else ()
    return sorted(str(path.parent) for path in found)
