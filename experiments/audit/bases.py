"""Whether a base of its own fits the model that its vectors are for, by configurations alone."""

from __future__ import annotations

from pathlib import Path

from experiments.audit.settings.groups import Model
from tracekit.errors import InputError
from tracekit.model.embedded import EMBEDDED, embedded_model, is_hub_id
from tracekit.storage.identity import vocabulary_hash


def refuse_base(model: Model) -> None:
    """Raise `ValueError` for a base of another shape or vocabulary than the model's.

    `FileNotFoundError` where the hub does not give a configuration.
    """
    # from configurations: the weights of either are loaded alone
    from transformers import AutoConfig, AutoTokenizer

    here = _source(model.name) if model.name != EMBEDDED else str(embedded_model())
    there = _source(model.base)
    sides = ((here, model.revision), (there, model.base_revision))
    try:
        own, config = (
            AutoConfig.from_pretrained(name, revision=pin or None).get_text_config()
            for name, pin in sides
        )
        words = [AutoTokenizer.from_pretrained(name, revision=pin or None) for name, pin in sides]
    except OSError as error:
        raise FileNotFoundError(
            f"The model {model.name!r} with the base {model.base!r} was asked for, and the "
            f"hub did not give their configurations: {str(error).splitlines()[0]} Both are gated: "
            "accept their licence on the hub and set HF_TOKEN, or give local folders."
        ) from error
    deepest = own.num_hidden_layers - 1
    if model.window[-1] > deepest:
        raise InputError(
            f"layers={list(model.layers)} was given; the model has the blocks 0 to {deepest}."
        )
    shapes = [(c.hidden_size, c.num_hidden_layers) for c in (own, config)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"The base {Path(model.base).name!r} has dim {shapes[1][0]} and {shapes[1][1]} "
            f"layers; the model has dim {shapes[0][0]} and {shapes[0][1]}. Vectors fit one shape "
            "only: give the base that the model was made of."
        )
    if vocabulary_hash(words[0]) != vocabulary_hash(words[1]):
        raise InputError(
            f"The base {Path(model.base).name!r} has another vocabulary than the model, so its "
            "vectors were made of other tokens. Give the base that the model was made of."
        )


def _source(base: str) -> str:
    if base == EMBEDDED:
        return str(embedded_model())
    if not (Path(base).is_dir() or is_hub_id(base)):
        raise InputError(
            f"The base {base!r} is neither a folder nor a hub id (owner/name). "
            f"The embedded one is {EMBEDDED!r}."
        )
    return base
