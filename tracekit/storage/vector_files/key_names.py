"""What the keys of other tools' dictionaries say: a layer, a block's part, a trait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# what tools call a block's parts, and words in the names of modules
SITES = {
    **dict.fromkeys(("", "decoder_block", "residual", "resid_post", "resid_pre"), "residual"),
    **dict.fromkeys(("self_attn", "attn", "attention", "attn_out"), "attention"),
    **dict.fromkeys(("mlp", "mlp_out"), "mlp"),
}
# what a vector alone is called
WHOLE = ("vector", "direction", "steering_vector", "control_vector", "arr_0", "refusal_dir")
_PLAIN = {"", "l", "layer", "layers", "block", "blocks", "model", "transformer", "h", "direction"}
_PLAIN |= {"vector", "vectors", "steering", "resid", "residual", "decoder"}
_STATES = {"hidden_states", "hidden_state", "hidden"}
# models within models: gpt_neox.layers.3, model.language_model.layers.3
_MODELS = re.compile(r"\b(gpt_neox|language_model|text_model|base_model)\b")
_NUMBERED = re.compile(r"(?i)\b(layer|block|l)(\d+)")
_FROM_END = re.compile(r"(?i)(?:(?:layers?|blocks?|l)[._]?)?-\d+")
_OF_TRAIT = re.compile(r"(?i)(.+?)[.:/]((?:(?:layers?|blocks?|l)[._]?)?\d+)")


def place(key: Any) -> tuple[int, str] | None:
    """Layer and site's word of a key: 3, "3", "layer_3", "L3", "model.layers.3.mlp".

    >>> place("gpt_neox.layers.3.mlp"), place("kind.3")
    ((3, 'mlp'), None)
    """
    if isinstance(key, bool) or not isinstance(key, int | str):
        return None
    text = _NUMBERED.sub(r"\1_\2", _MODELS.sub("model", str(key)))
    text = text.replace("[", ".").replace("]", "").replace("_", ".")
    parts = re.split(r"[._]?(?<![0-9A-Za-z])(\d+)(?![0-9A-Za-z])[._]?", text)
    if len(parts) != 3:
        return None
    before, layer = parts[0].lower().replace(".", "_"), int(parts[1])
    after = parts[2].replace(".", "_").removeprefix("hook_")
    if before in _STATES:
        return layer - 1, after
    if not set(parts[0].lower().split(".")) <= _PLAIN:
        return None
    return (layer - 1 if after == "resid_pre" else layer), after


def from_end(key: Any) -> bool:
    """Whether a key counts layers from the end, as −1 of hidden states: no trait, and no place.

    >>> from_end("layer_-1"), from_end(-2), from_end("non-3")
    (True, True, False)
    """
    return _FROM_END.fullmatch(str(key)) is not None


def by_trait_first(content: Any) -> Any:
    """A dictionary with traits outside and layers inside, where its keys say both at all.

    >>> by_trait_first({"kind.3": 1, "kind.4": 2})
    {'kind': {'3': 1, '4': 2}}
    >>> by_trait_first({3: {"kind": 1}, 4: {"kind": 2}})
    {'kind': {3: 1, 4: 2}}
    """
    if not isinstance(content, Mapping):
        return content
    triples = _joined(content) or _nested(content)
    if not triples:
        return content
    traits: dict[str, dict[Any, Any]] = {}
    for trait, key, value in triples:
        traits.setdefault(trait, {})[key] = value
    return traits


def _joined(content: Mapping[Any, Any]) -> list[tuple[str, Any, Any]]:
    """Trait, place and value of keys such as "kind:layer_3" and "kind.3"."""
    if not all(isinstance(key, str) for key in content):
        return []
    if all(key.count(":") == 1 for key in content):
        return [(*key.split(":"), value) for key, value in content.items()]
    words = [_OF_TRAIT.fullmatch(key) if place(key) is None else None for key in content]
    pairs = zip(words, content.values(), strict=True)
    return [(word[1], word[2], value) for word, value in pairs if word] if all(words) else []


def _nested(content: Mapping[Any, Any]) -> list[tuple[str, Any, Any]]:
    """Trait, place and value of dictionaries of traits, each under its layer."""
    triples: list[tuple[str, Any, Any]] = []
    for key, inner in content.items():
        if place(key) is None or not isinstance(inner, Mapping):
            return []
        for trait, value in inner.items():
            named = isinstance(trait, str) and place(trait) is None and trait not in WHOLE
            if not named or isinstance(value, Mapping):
                return []
            triples.append((trait, key, value))
    return triples
