"""What a method of probes is given, at one layer and for one target, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int

from tracekit.errors import InputError
from tracekit.transcripts.pooling import Pooling
from traits.probes import rows as row
from traits.probes.linear import LINEAR, Function, Rows, by_function
from traits.probes.rows import Source

Parameters = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sequences:
    """Responses as a method of whole responses has them.

    `values` are float32 with zeros in holes, `mask` where a token counts; `label` is 1 or 0 a
    prompt, `token_label` 1, 0 or NaN a token where tokens are labelled. `weight` has the mean 1;
    both classes weigh the same where that was asked for. `pooling` is what will pool the scores.
    """

    values: Float[np.ndarray, "prompt token dim"]
    mask: Bool[np.ndarray, "prompt token"]
    label: Int[np.ndarray, prompt]
    token_label: Float[np.ndarray, "prompt token"] | None
    weight: Float[np.ndarray, prompt]
    pooling: Pooling


# a solution for each inverse penalty: weight, offset and what else `record.DIMS` names
OfSequences = Callable[[Sequences, Sequence[float], np.random.Generator], list[Parameters]]


def _attention(
    sequences: Sequences, inverse_penalty: Sequence[float], generator: np.random.Generator
) -> list[Parameters]:
    from traits.probes.attention import attention  # torch takes seconds

    return attention(sequences, inverse_penalty, generator)


def _mlp(
    sequences: Sequences, inverse_penalty: Sequence[float], generator: np.random.Generator
) -> list[Parameters]:
    from traits.probes.mlp import mlp  # torch takes seconds

    return mlp(sequences, inverse_penalty, generator)


OF_SEQUENCES: Mapping[str, OfSequences] = MappingProxyType({"attention": _attention, "mlp": _mlp})
METHODS = (*LINEAR, *OF_SEQUENCES)


@dataclass(frozen=True)
class Target:
    """One target's labels on the prompts that fit it: `rows` are their places in the traces.

    `token` is (prompt, token) of those rows where tokens are labelled.
    """

    rows: Int[np.ndarray, prompt]
    label: Float[np.ndarray, prompt]
    token: Float[np.ndarray, "prompt token"] | None
    balanced: bool


def solutions(
    method: str | Function,
    held: Source,
    layer: int,
    target: Target,
    inverse_penalty: Sequence[float],
    *,
    kind: str,
    pooling: Pooling,
    generator: np.random.Generator,
) -> list[Parameters]:
    """The parameters that a method makes of one layer, a set for each inverse penalty."""
    if isinstance(method, str) and method in OF_SEQUENCES:
        made = _sequences(held, layer, target, pooling)
        return OF_SEQUENCES[method](made, inverse_penalty, generator)
    given = _rows(held, layer, target, kind)
    if callable(method):
        fitted = by_function(method, given)
    else:
        fitted = LINEAR[method](given, inverse_penalty)
    return [{"weight": one.weight, "offset": np.asarray(one.offset)} for one in fitted]


def require_method(method: str | Function) -> None:
    """Errors: `ValueError` for a name that is no method's."""
    if isinstance(method, str) and method not in METHODS:
        raise InputError(
            f"The method {method!r} was asked for; there are {', '.join(METHODS)}. Give one of "
            "these, or a function (values, labels, weights) -> weights over (dim)."
        )


def _rows(held: Source, layer: int, target: Target, kind: str) -> Rows:
    if kind == "mean":
        values, label = row.means(held, layer, target.rows), target.label
        weight = np.ones(len(label))
    else:
        kept, label = _labelled(held, target)
        values = row.tokens_of(held, layer, target.rows, kept)
        own = kept[target.rows]
        # prompts weigh alike, however long they are
        weight = np.repeat(1 / np.maximum(own.sum(1), 1), own.sum(1))
    weight = _balanced(weight, label) if target.balanced else weight
    return Rows(values, label.astype(np.int64), weight, target.balanced)


def _labelled(held: Source, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of the traces are rows, and the labels of those of this target, in order."""
    kept = held.real.copy()
    if target.token is None:
        return kept, np.repeat(target.label, kept[target.rows].sum(1))
    kept[target.rows] &= ~np.isnan(target.token)
    return kept, target.token[kept[target.rows]]


def _balanced(weight: np.ndarray, label: np.ndarray) -> np.ndarray:
    made, total = weight.copy(), weight.sum()
    for value in (0, 1):
        made[label == value] *= total / (2 * weight[label == value].sum())
    return made


def _sequences(held: Source, layer: int, target: Target, pooling: Pooling) -> Sequences:
    values, mask = row.padded(held, layer, target.rows)
    weight = np.ones(len(target.rows))
    weight = _balanced(weight, target.label) if target.balanced else weight
    label = target.label.astype(np.int64)
    return Sequences(values, mask, label, target.token, weight, pooling)
