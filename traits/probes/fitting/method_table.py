"""The methods of probes, and what each is given of one layer: rows, labels and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tracekit.errors import InputError
from traits.probes.fitting.linear import LINEAR, Function, Rows, by_function
from traits.probes.fitting.rows import Source, means, tokens_of

Parameters = Mapping[str, np.ndarray]
NETWORKS = ("attention", "mlp")
METHODS = (*LINEAR, *NETWORKS)


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
    kind: str,
    generator: np.random.Generator,
) -> list[Parameters]:
    """The parameters that a method makes of one layer, a set for each inverse penalty."""
    if method == "attention":
        return _attention(held, layer, target, inverse_penalty)
    given = _rows(held, layer, target, kind)
    if method == "mlp":
        return _mlp(given, inverse_penalty, generator)
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


def _attention(
    held: Source, layer: int, target: Target, inverse_penalty: Sequence[float]
) -> list[Parameters]:
    from traits.probes.networks.attention import fit_attention  # torch takes seconds

    if target.token is not None:
        raise InputError(
            "The method 'attention' was asked for with labels of tokens; it learns by itself "
            "which tokens of a response count. Label the prompts, or take another method."
        )
    values = tokens_of(held, layer, target.rows, held.real)
    response = np.repeat(np.arange(len(target.rows)), held.real[target.rows].sum(1))
    weight = np.ones(len(target.rows))
    weight = balanced(weight, target.label) if target.balanced else weight
    return list(fit_attention(values, response, target.label == 1, weight, inverse_penalty))


def _mlp(
    given: Rows, inverse_penalty: Sequence[float], generator: np.random.Generator
) -> list[Parameters]:
    from traits.probes.networks.mlp import fit_mlp  # torch takes seconds

    label = given.label == 1
    return list(fit_mlp(given.values, label, given.weight, inverse_penalty, generator=generator))


def _rows(held: Source, layer: int, target: Target, kind: str) -> Rows:
    if kind == "mean":
        values, label = means(held, layer, target.rows), target.label
        weight = np.ones(len(label))
    else:
        kept, label = _labelled(held, target)
        values = tokens_of(held, layer, target.rows, kept)
        own = kept[target.rows]
        # prompts weigh alike, however long they are
        weight = np.repeat(1 / np.maximum(own.sum(1), 1), own.sum(1))
    weight = balanced(weight, label) if target.balanced else weight
    return Rows(values, label.astype(np.int64), weight, target.balanced)


def _labelled(held: Source, target: Target) -> tuple[Bool[np.ndarray, "all token"], np.ndarray]:
    """Which tokens of the traces are rows, and the labels of those of this target, in order."""
    kept = held.real.copy()
    if target.token is None:
        return kept, np.repeat(target.label, kept[target.rows].sum(1))
    kept[target.rows] &= ~np.isnan(target.token)
    return kept, target.token[kept[target.rows]]


def balanced(
    weight: Float[np.ndarray, row], label: Float[np.ndarray, row]
) -> Float[np.ndarray, row]:
    """Weights of the same sum in which both classes weigh the same.

    >>> balanced(np.ones(3), np.array([0.0, 1.0, 1.0])).tolist()
    [1.5, 0.75, 0.75]
    """
    made, total = weight.copy(), weight.sum()
    for value in (0, 1):
        made[label == value] *= total / (2 * weight[label == value].sum())
    return made
