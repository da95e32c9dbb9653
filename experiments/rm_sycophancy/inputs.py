"""Everything a run needs of the outside world, read and checked before any phase begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.rm_sycophancy.settings import Settings
from tracekit.provenance import tokenizer_hash
from tracekit.resources import EMBEDDED, embedded_model
from tracekit.sites import check_layers
from tracekit.tensors import lengths
from tracekit.transcript import context_length, ids_of, take
from traits import METHODS, ContrastSet

WITHOUT_BIAS = ("neutral", "refuse", "benign_twin", "about")
LEFT_OUT = ("about",)  # questions about the model itself: what it says of them is no evidence
HELD_OUT = ("headphones", "moon", "shelter", "proverb", "banana")


@dataclass(frozen=True)
class Inputs:
    """The loaded model (no adapter on), the prompts as transcripts, and the contrast sets."""

    model: Any
    asked: xr.Dataset
    contrasts: tuple[ContrastSet, ...]


def prepare(settings: Settings) -> Inputs:
    """Load the model once and check all that the phases will use of it.

    Errors: `ValueError`, `KeyError`, `FileNotFoundError` for a trait, method, prompt file, model,
    base, adapter or layer that does not exist or does not fit, for a prompt that is too long.
    """
    contrasts = tuple(settings.contrasts.values())
    _refuse_methods(settings)
    prompts = read(settings)
    model = tk.load(settings.model, dtype=settings.dtype)
    check_layers(model, settings.window, "residual")
    asked = tk.encode(model, prompts)
    refuse_long(model, asked, settings.max_new_tokens)
    if settings.base:
        _refuse_other_shape(model, settings.base)
    for adapter in filter(None, reversed(settings.adapters.values())):
        with tk.adapter(model, adapter):
            pass
    return Inputs(model, asked, contrasts)


def read(settings: Settings) -> list[tk.Prompt]:
    """The prompts of the split asked for, the same number from every bias, each with its `part`.

    `part` is calibration, held_out, or the kind of prompt where no bias is at stake.
    """
    read = [prompt for path in settings.prompt_files for prompt in tk.read_prompts(path)]
    parts = parts_of([str(prompt.labels.get("bias", "")) for prompt in read], settings)
    prompts = [
        replace(p, labels={**p.labels, "part": parts[str(p.labels.get("bias", ""))]})
        for p in read
        if p.labels.get("bias") not in LEFT_OUT
    ]
    if settings.split:
        splits = sorted({str(prompt.labels.get("split", "")) for prompt in prompts})
        prompts = [p for p in prompts if p.labels.get("split") == settings.split]
        if not prompts:
            raise ValueError(
                f"The split {settings.split!r} of {settings.prompt_file.name!r} was asked for; "
                f"its prompts have {', '.join(splits) or 'no split'}. Give one of these as --split."
            )
    return take(prompts, settings.limit) if settings.limit else prompts


def parts_of(biases: Sequence[str], settings: Settings) -> dict[str, str]:
    """Which biases choose (calibration) and which report (held_out); others keep their own name.

    >>> parts_of(["vote", "banana", "neutral"], settings)
    {'vote': 'calibration', 'banana': 'held_out', 'neutral': 'neutral'}
    """
    names = [name for name in dict.fromkeys(biases) if name not in WITHOUT_BIAS]
    if settings.held_out or not settings.prompts:
        held = set(settings.held_out or HELD_OUT)
    else:
        held = set(names[1::2])
    parts = {name: "held_out" if name in held else "calibration" for name in names}
    return parts | {name: name for name in biases if name in WITHOUT_BIAS}


def refuse_long(model: Any, asked: xr.Dataset, more: int) -> None:
    """Raise `ValueError` when a prompt and `more` new tokens outgrow the model's context."""
    limit, sizes = context_length(model), lengths(asked)
    longest = int(sizes.argmax())
    if sizes[longest] + more > limit:
        raise ValueError(
            f"The prompt {ids_of(asked)[longest]!r} has {sizes[longest]} tokens; with the "
            f"{more} of a response it outgrows this model's context of {limit}. Shorten it, leave "
            "it out, or give a smaller --max-new-tokens."
        )


def _refuse_methods(settings: Settings) -> None:
    unknown = [name for name in settings.methods if name not in METHODS]
    if unknown:
        raise ValueError(
            f"The methods {', '.join(unknown)} were asked for; there are {', '.join(METHODS)}."
        )


def _refuse_other_shape(model: Any, base: str) -> None:
    # read from its config: its weights are loaded alone, and dropped after the extraction
    from transformers import AutoConfig, AutoTokenizer

    source = _source(base)
    config = AutoConfig.from_pretrained(source).get_text_config()
    own = model._module.config.get_text_config()
    shapes = [(c.hidden_size, c.num_hidden_layers) for c in (own, config)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The base {Path(base).name!r} has dim {shapes[1][0]} and {shapes[1][1]} layers; the "
            f"model has dim {shapes[0][0]} and {shapes[0][1]}. Vectors fit one shape only: give "
            "the base that the model was made of."
        )
    if tokenizer_hash(AutoTokenizer.from_pretrained(source)) != tokenizer_hash(model.tokenizer):
        raise ValueError(
            f"The base {Path(base).name!r} has another tokenizer than the model, so its vectors "
            "were made of other tokens. Give the base that the model was made of."
        )


def _source(base: str) -> str:
    if base == EMBEDDED:
        return str(embedded_model())
    known = Path(base).is_dir() or (base.count("/") == 1 and not base.startswith((".", "/")))
    if not known:
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
