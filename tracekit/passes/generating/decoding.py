"""How the next token is chosen: by what is asked for, never by what a checkpoint says unasked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from tracekit.errors import InputError

# what changes the logits by the ids that are there already: padding would count as ids
READING_IDS = (
    "bad_words_ids",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "sequence_bias",
)
CHANGING_LOGITS = (
    *READING_IDS,
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "forced_eos_token_id",
    "min_new_tokens",
    "suppress_tokens",
)
SAMPLING = ("epsilon_cutoff", "eta_cutoff", "min_p", "top_h", "top_k", "top_p", "typical_p")
# the defaults that say nothing about the choice of a token, and that a given length replaces
_LENGTHS = ("max_length", "min_length")


def require_decoding(
    asked: Mapping[str, Any], temperature: float, arguments: Iterable[str] = ()
) -> None:
    """Errors: `ValueError` for settings that do nothing here, or that no file can hold.

    `arguments` are the caller's own, which a misspelt name may have meant too.
    """
    for name, value in asked.items():
        if name not in (*CHANGING_LOGITS, *SAMPLING):
            near = difflib.get_close_matches(name, [*CHANGING_LOGITS, *SAMPLING, *arguments], 1)
            raise InputError(
                f"{name}={value!r} was asked for; a generation is one row of tokens a prompt, each "
                f"drawn from the logits, with {', '.join(sorted((*CHANGING_LOGITS, *SAMPLING)))}. "
                + (f"Did you mean {near[0]!r}?" if near else "Leave it out.")
            )
        if name in SAMPLING and temperature == 0:
            raise InputError(
                f"{name}={value!r} was asked for at temperature 0, where it changes nothing: the "
                "likeliest token is taken. Give temperature=1.0 to sample."
            )
    try:
        json.dumps(dict(asked))
    except TypeError as error:
        raise InputError(
            f"{dict(asked)} was asked for, which the provenance cannot hold ({error}). Use "
            "numbers, strings and lists of them."
        ) from error


def require_amounts(
    max_new_tokens: int, temperature: float, samples: int, asked: Mapping[str, Any]
) -> None:
    """Errors: `ValueError` for numbers out of range, or of which one leaves another no effect."""
    if asked.get("min_new_tokens", 0) > max_new_tokens:
        raise InputError(
            f"min_new_tokens={asked['min_new_tokens']} and max_new_tokens={max_new_tokens} were "
            "asked for; the first must not be above the second."
        )
    if max_new_tokens < 1 or samples < 1 or temperature < 0:
        raise InputError(
            f"max_new_tokens={max_new_tokens}, samples={samples}, temperature={temperature} were "
            "asked for; the first two must be at least 1 and the last not negative."
        )
    if samples > 1 and temperature == 0:
        raise InputError(
            f"samples={samples} at temperature 0 would be {samples} times the same text. "
            "Give temperature=1.0, or samples=1."
        )


def end_ids(model: Any) -> list[int]:
    """The ids that end a response: the checkpoint's, or else its tokenizer's."""
    ends = getattr(model._module.generation_config, "eos_token_id", None)
    if ends is None:
        ends = model.tokenizer.eos_token_id
    listed = ends if isinstance(ends, list | tuple) else [ends]
    return sorted({int(end) for end in listed if end is not None})


def config(
    model: Any, max_new_tokens: int, temperature: float, asked: Mapping[str, Any]
) -> GenerationConfig:
    """A whole configuration of transformers: the argmax, or a draw from softmax(logits / T).

    Of the checkpoint's own it has the ids that begin, end and pad a text, nothing else.
    """
    ends, tokenizer = end_ids(model), model.tokenizer
    pad = next((i for i in (tokenizer.pad_token_id, *ends) if i is not None), 0)
    sampled = {"temperature": float(temperature), "top_k": 0, "top_p": 1.0} if temperature else {}
    made = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        # a forward a token, whose steps edits can count
        use_cache=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends or None,
        pad_token_id=pad,
        **{**sampled, **asked},
    )
    # said in full: on a server, what is left open is filled in from the checkpoint
    defaults = GenerationConfig._get_default_generation_params()
    made.update(**{k: v for k, v in defaults.items() if k not in _LENGTHS}, defaults_only=True)
    return made


@contextmanager
def only(module: torch.nn.Module, made: GenerationConfig) -> Iterator[None]:
    """`made` in place of the module's own configuration, which transformers mixes into any other.

    >>> with only(model._module, config(model, 20, 0.0, {})):
    ...     model._module.generation_config.max_new_tokens
    20
    """
    before = module.generation_config
    module.generation_config = made  # type: ignore[assignment]
    try:
        yield
    finally:
        module.generation_config = before
