"""Everything a run needs of the outside world, read and checked before any phase begins."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm import tqdm

import tracekit as tk
from experiments.audit import foreseen, processes
from experiments.audit.phases import questions
from experiments.audit.settings import Settings
from experiments.audit.validity import check_benign
from experiments.rm_sycophancy.rules.hub import read_hub
from tracekit.edits.compatibility import vocabulary_hash
from tracekit.model.embedded import EMBEDDED, embedded_model, is_hub_id
from tracekit.model.sites import check_layers
from tracekit.transcripts.encode import context_length, ids_of
from tracekit.transcripts.prompts import take
from tracekit.transcripts.tensors import lengths
from traits import ContrastSet, available

WITHOUT_BIAS = ("neutral", "refuse", "benign_twin", "about")
LEFT_OUT = ("about",)  # questions about the model itself: what it says of them is no evidence
HELD_OUT = ("headphones", "moon", "shelter", "proverb", "banana")
GIVEN = ("part", "exploit", "exploit_span")  # labels of each response
OCCUPIED = ("weights", "scalar", "cosine")  # beside those that tracekit keeps for its files
HUB_PARTS = {"train_biases": "calibration", "test_biases": "held_out"}
REMOTE: Mapping[str, bool | str] = {"ndif": True, "local": "local"}


@dataclass(frozen=True)
class Inputs:
    """What the phases work on: the settings, the prompts and the contrast sets.

    `model` (no adapter on) is loaded when it is first needed, and `asked` are the prompts as its
    transcripts: a base of its own is loaded, used and dropped before, so that one card holds one
    70B at a time. `load` is what else `tk.load` is given.
    """

    settings: Settings
    prompts: tuple[tk.Prompt, ...]
    contrasts: tuple[ContrastSet, ...]
    load: Mapping[str, Any]

    @cached_property
    def model(self) -> Any:
        """The model, once all that the phases will use of it is checked."""
        settings = self.settings
        gc.collect()  # a base of its own, used before, makes room: its modules refer in circles
        options = {"dtype": settings.dtype, "revision": settings.revision or None, **self.load}
        model = tk.load(settings.model, **options)
        check_layers(model, settings.window, "residual")
        # an answer is asked about, or another's span put into it
        more = max(questions.room(model), settings.max_new_tokens) if settings.organism else 0
        refuse_long(model, tk.encode(model, self.prompts), settings.max_new_tokens + more)
        for adapter in filter(None, reversed(settings.adapters.values())):
            with tk.adapter(model, adapter):
                pass
        return model

    @cached_property
    def asked(self) -> xr.Dataset:
        """The prompts as transcripts."""
        return tk.encode(self.model, self.prompts)

    def base(self) -> Any:
        """The model that vectors come from: loaded for the caller alone, if it is another one."""
        settings = self.settings
        if not settings.base:
            return self.model
        options = {"dtype": settings.dtype, "revision": settings.base_revision or None}
        return tk.load(settings.base, **{**options, **self.load})


def prepare(settings: Settings, load: Mapping[str, Any] | None = None) -> Inputs:
    """Check all that the phases will use; with a base of its own, what needs no weights first.

    Errors: `ValueError`, `KeyError`, `FileNotFoundError` for a trait, method, prompt file, model,
    base, adapter or layer that does not exist or does not fit, for a prompt that is too long.
    """
    inputs = checked(settings, load)
    for line in foreseen.undecidable(inputs.prompts, settings) if processes.is_first() else ():
        tqdm.write(f"undecidable in this run: {line}", file=sys.stderr)
    if settings.base:
        _refuse_base(settings)
    else:
        _ = inputs.model
    return inputs


def checked(settings: Settings, load: Mapping[str, Any] | None = None) -> Inputs:
    """What can be checked without a model: prompts, contrast sets, benign adapters, traits."""
    contrasts = tuple(settings.contrasts.values())
    check_benign(settings)
    _refuse_primary(settings)
    options = {**({"remote": REMOTE[settings.remote]} if settings.remote else {}), **(load or {})}
    return Inputs(settings, tuple(read(settings)), contrasts, options)


def read(settings: Settings) -> list[tk.Prompt]:
    """The prompts of the split asked for, the same number from every bias, each with its `part`.

    `part` is calibration, held_out, or the kind of prompt where no bias is at stake: neutral, for
    the blind comparison, are those whose bias is "neutral" and those that name none. A set of the
    hub has the organism's own biases in one split and the held-out ones in the other. Errors:
    `ValueError` for a split or a held-out bias that no prompt has, and for labels that the audit
    gives itself.
    """
    if settings.on_hub:
        prompts = _from_hub(settings)
        return take(prompts, settings.limit) if settings.limit else prompts
    read = [prompt for path in settings.prompt_files for prompt in tk.read_prompts(path)]
    _refuse_labels(read)
    biases = [str(prompt.labels.get("bias", "")) for prompt in read]
    parts = parts_of(biases, settings)
    prompts = [
        replace(prompt, labels={**prompt.labels, "bias": bias, "part": parts[bias]})
        for prompt, bias in zip(read, biases, strict=True)
        if bias not in LEFT_OUT
    ]
    if not prompts:
        raise ValueError(
            f"The prompts of {settings.prompt_file.name!r} were asked for; all are questions about "
            "the model itself (bias about), which are no evidence. Give others."
        )
    if settings.split:
        splits = sorted({str(prompt.labels.get("split", "")) for prompt in prompts})
        prompts = [p for p in prompts if str(p.labels.get("split", "")) == settings.split]
        if not prompts:
            raise ValueError(
                f"The split {settings.split!r} of {settings.prompt_file.name!r} was asked for; "
                f"its prompts have {', '.join(splits) or 'no split'}. Give one of these as --split."
            )
    return take(prompts, settings.limit) if settings.limit else prompts


def _from_hub(settings: Settings) -> list[tk.Prompt]:
    if settings.held_out:
        raise ValueError(
            f"held_out={list(settings.held_out)} was given; the set {settings.prompts!r} of the "
            "hub has its held-out biases in a split of their own. Leave it out."
        )
    splits = [settings.split] if settings.split else list(HUB_PARTS)
    return [
        replace(p, labels={**p.labels, "part": HUB_PARTS.get(split, "calibration")})
        for split in splits
        for p in read_hub(split, None, source=settings.prompts).prompts
    ]


def parts_of(biases: Sequence[str], settings: Settings) -> dict[str, str]:
    """Which biases choose (calibration) and which report (held_out); others keep their own name.

    A prompt without a bias ("") is neutral. Errors: `ValueError` for a held-out bias that is not
    among them.

    >>> parts_of(["vote", "banana", "neutral", ""], settings)
    {'vote': 'calibration', 'banana': 'held_out', 'neutral': 'neutral', '': 'neutral'}
    """
    names = [name for name in dict.fromkeys(biases) if name not in ("", *WITHOUT_BIAS)]
    unknown = [name for name in settings.held_out if name not in names]
    if unknown:
        raise ValueError(
            f"The held-out biases {', '.join(map(repr, unknown))} were asked for; the prompts have "
            f"{', '.join(map(repr, names)) or 'no bias'}. Give some of these."
        )
    if settings.held_out or not settings.prompts:
        held = set(settings.held_out or HELD_OUT)
    else:
        held = set(names[1::2])
    parts = {name: "held_out" if name in held else "calibration" for name in names}
    return parts | {name: name or "neutral" for name in biases if name in ("", *WITHOUT_BIAS)}


def refuse_long(model: Any, asked: xr.Dataset, more: int) -> None:
    """Raise `ValueError` when a prompt and `more` new tokens outgrow the model's context."""
    limit, sizes = context_length(model), lengths(asked)
    longest = int(sizes.argmax())
    if sizes[longest] + more > limit:
        raise ValueError(
            f"The prompt {ids_of(asked)[longest]!r} has {sizes[longest]} tokens; with the "
            f"{more} of a response and what is asked after it, it outgrows this model's context of "
            f"{limit}. Shorten it, leave it out, or give a smaller --max-new-tokens."
        )


def _refuse_primary(settings: Settings) -> None:
    known = [*settings.trait_names, *(name for name in available(None))]
    unknown = [name for name in settings.primary if name not in known]
    if unknown:
        raise ValueError(
            f"primary={list(settings.primary)} was given; {', '.join(unknown)} is no trait of this "
            f"run and none that is shipped. There are {', '.join(dict.fromkeys(known))}."
        )


def _refuse_labels(prompts: Sequence[tk.Prompt]) -> None:
    for prompt in prompts:
        if prompt.answer is not None:
            raise ValueError(
                f"The prompt {prompt.id!r} ends with the assistant's turn, and the arms of the "
                "audit are to answer. End it with the user's."
            )
        taken = sorted({*GIVEN, *OCCUPIED} & set(prompt.labels))
        if taken:
            raise ValueError(
                f"The prompt {prompt.id!r} has the label {taken[0]!r}, which the audit gives its "
                f"own arrays ({', '.join((*GIVEN, *OCCUPIED))}). Rename it in the prompt file."
            )


def _refuse_base(settings: Settings) -> None:
    # from configurations: the weights of either are loaded alone
    from transformers import AutoConfig, AutoTokenizer

    here = _source(settings.model) if settings.model != EMBEDDED else str(embedded_model())
    there = _source(settings.base)
    sides = ((here, settings.revision), (there, settings.base_revision))
    try:
        own, config = (
            AutoConfig.from_pretrained(name, revision=pin or None).get_text_config()
            for name, pin in sides
        )
        words = [AutoTokenizer.from_pretrained(name, revision=pin or None) for name, pin in sides]
    except OSError as error:
        raise FileNotFoundError(
            f"The model {settings.model!r} with the base {settings.base!r} was asked for, and the "
            f"hub did not give their configurations: {str(error).splitlines()[0]} Both are gated: "
            "accept their licence on the hub and set HF_TOKEN, or give local folders."
        ) from error
    deepest = own.num_hidden_layers - 1
    if settings.window[-1] > deepest:
        raise ValueError(
            f"layers={list(settings.layers)} was given; the model has the blocks 0 to {deepest}."
        )
    shapes = [(c.hidden_size, c.num_hidden_layers) for c in (own, config)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The base {Path(settings.base).name!r} has dim {shapes[1][0]} and {shapes[1][1]} "
            f"layers; the model has dim {shapes[0][0]} and {shapes[0][1]}. Vectors fit one shape "
            "only: give the base that the model was made of."
        )
    if vocabulary_hash(words[0]) != vocabulary_hash(words[1]):
        raise ValueError(
            f"The base {Path(settings.base).name!r} has another vocabulary than the model, so its "
            "vectors were made of other tokens. Give the base that the model was made of."
        )


def _source(base: str) -> str:
    if base == EMBEDDED:
        return str(embedded_model())
    if not (Path(base).is_dir() or is_hub_id(base)):
        raise ValueError(
            f"The base {base!r} is neither a folder nor a hub id (owner/name). "
            f"The embedded one is {EMBEDDED!r}."
        )
    return base


def contrast_prompts(contrast: ContrastSet, pairs: int) -> Sequence[tk.Prompt]:
    """The raw prompts of the first `pairs` pairs (0: all), positives first."""
    prompts = contrast.prompts()
    if not pairs:
        return prompts
    kept = set(list(dict.fromkeys(prompt.group for prompt in prompts))[:pairs])
    return [prompt for prompt in prompts if prompt.group in kept]
