"""Everything a run needs of the outside world, read and checked before any phase begins."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import xarray as xr
from tqdm import tqdm

import tracekit as tk
from experiments.audit import foreseen, processes
from experiments.audit.bases import refuse_base
from experiments.audit.elsewhere.sources import check_files
from experiments.audit.experiment import Experiment
from experiments.audit.label_files import Labels, read_labels
from experiments.audit.labellers import is_file_of_labels, labeller_from
from experiments.audit.labels import Labeller, decides, labelled, with_spans
from experiments.audit.phases import questions
from experiments.audit.prompt_sets import read
from experiments.audit.settings.adapters import Arm
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.validity import check_benign
from tracekit.errors import InputError
from tracekit.model.sites import check_layers
from tracekit.transcripts.encode import context_length, ids_of
from tracekit.transcripts.tensors import lengths
from traits import ContrastSet, available

REMOTE: Mapping[str, bool | str] = {"ndif": True, "local": "local"}


@dataclass(frozen=True)
class Inputs:
    """What the phases work on: the settings, the prompts and the contrast sets.

    `model` (no adapter on) is loaded when it is first needed, and `asked` are the prompts as its
    transcripts: a base of its own is loaded, used and dropped before, so that one card holds one
    70B at a time. `load` is what else `tk.load` is given; `loaded` is the model where it is at
    hand already. Answers are labelled by the file
    `labels`, by the `labeller` that the settings name instead, or else by the experiment.
    """

    settings: Settings
    prompts: tuple[tk.Prompt, ...]
    contrasts: tuple[ContrastSet, ...]
    load: Mapping[str, Any]
    experiment: Experiment
    labels: Labels | None
    labeller: Labeller | None = None
    loaded: Any = None

    @cached_property
    def model(self) -> Any:
        """The model, once all that the phases will use of it is checked."""
        settings, given = self.settings, self.settings.model
        if given.base:
            gc.collect()  # it was used before, and makes room: its modules refer in circles
        options = {"dtype": given.dtype, "revision": given.revision or None, **self.load}
        model = tk.load(given.name, **options) if self.loaded is None else self.loaded
        check_layers(model, given.window, "residual")
        # an answer is asked about, or another's span put into it
        new = settings.answers.max_new_tokens
        more = max(questions.room(model), new) if settings.adapters.organism else 0
        refuse_long(model, tk.encode(model, self.prompts), new + more)
        for arm in (arm for arm in reversed(settings.adapters.arms) if arm.adapter):
            with tk.adapter(model, arm.adapter):
                pass
        return model

    @cached_property
    def asked(self) -> xr.Dataset:
        """The prompts as transcripts."""
        return tk.encode(self.model, self.prompts)

    def labelled(self, arm: Arm, runs: xr.Dataset) -> xr.Dataset:
        """An arm's answers with what exploits in them."""
        if self.labels is not None:
            return with_spans(runs, self.model.tokenizer, self.labels.spans(arm.name, runs))
        labeller = self.labeller or self.experiment.labeller_of(arm.role)
        return labelled(runs, self.model.tokenizer, labeller)

    def decides(self, kind: str) -> bool:
        """Whether answers to prompts of a kind can be labelled."""
        if self.labels is None:
            return decides(self.labeller or self.experiment.labeller, kind)
        here = {prompt.id for prompt in self.prompts if prompt.labels["bias"] == kind}
        return any(self.labels.about(name) for name in here)

    def base(self) -> Any:
        """The model that vectors come from: loaded for the caller alone, if it is another one."""
        settings = self.settings
        if not settings.model.base:
            return self.model
        options = {"dtype": settings.model.dtype, "revision": settings.model.base_revision or None}
        return tk.load(settings.model.base, **{**options, **self.load})


def prepare(
    settings: Settings,
    experiment: Experiment,
    load: Mapping[str, Any] | None = None,
    loaded: Any = None,
) -> Inputs:
    """Check all that the phases will use; with a base of its own, what needs no weights first.

    `loaded` is the model of the settings, with no adapter on, where it is at hand already.

    Errors: `ValueError`, `KeyError`, `FileNotFoundError` for a trait, method, prompt file, model,
    base, adapter or layer that does not exist or does not fit, for a prompt that is too long.
    """
    inputs = replace(checked(settings, experiment, load), loaded=loaded)
    lines = foreseen.undecidable(inputs.prompts, settings, inputs.decides)
    for line in lines if processes.is_first() else ():
        tqdm.write(f"undecidable in this run: {line}", file=sys.stderr)
    if settings.model.base:
        refuse_base(settings.model)
    else:
        _ = inputs.model
    return inputs


def checked(
    settings: Settings, experiment: Experiment, load: Mapping[str, Any] | None = None
) -> Inputs:
    """What can be checked without a model: prompts, contrast sets, benign adapters, traits."""
    contrasts = refuse_apart(settings)
    remote = settings.model.remote
    options = {**({"remote": REMOTE[remote]} if remote else {}), **(load or {})}
    prompts = tuple(read(settings.prompts, experiment.hub))
    labels, labeller = labels_of(settings, [prompt.id for prompt in prompts])
    return Inputs(settings, prompts, contrasts, options, experiment, labels, labeller)


def refuse_apart(settings: Settings) -> tuple[ContrastSet, ...]:
    """What can be checked without a model and without prompts; the contrast sets."""
    contrasts = tuple(settings.vectors.contrasts.values())
    check_benign(settings)
    _refuse_primary(settings)
    check_files(settings.answers)
    return contrasts


def labels_of(settings: Settings, prompts: Sequence[str]) -> tuple[Labels | None, Labeller | None]:
    """The file of labels that settings name, held against prompts and arms; or the labeller."""
    answers, given = settings.answers, settings.answers.labels
    if given and is_file_of_labels(given):
        labels = read_labels(given)
        labels.refuse_others(prompts, answers.samples, settings.arms)
        return labels, None
    return None, labeller_from(given, answers) if given else None


def refuse_long(model: Any, asked: xr.Dataset, more: int) -> None:
    """Raise `ValueError` when a prompt and `more` new tokens outgrow the model's context."""
    limit, sizes = context_length(model), lengths(asked)
    longest = int(sizes.argmax())
    if sizes[longest] + more > limit:
        raise InputError(
            f"The prompt {ids_of(asked)[longest]!r} has {sizes[longest]} tokens; with the "
            f"{more} of a response and what is asked after it, it outgrows this model's context of "
            f"{limit}. Shorten it, leave it out, or give a smaller --max-new-tokens."
        )


def _refuse_primary(settings: Settings) -> None:
    known = [*settings.vectors.names, *(name for name in available(None))]
    named = settings.hypothesis.primary
    unknown = [name for name in named if name not in known]
    if unknown:
        raise InputError(
            f"primary={list(named)} was given; {', '.join(unknown)} is no trait "
            f"of this run and none that is shipped. There are {', '.join(dict.fromkeys(known))}."
        )
