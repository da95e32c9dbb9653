"""The methods of probes, and what each is given of one layer: rows, labels and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from tracekit.errors import InputError
from traits.probes.fitting.linear import LINEAR, Function, Rows, Solutions, by_function
from traits.probes.fitting.rows import Source, means, tokens_of
from traits.probes.fitting.table import of_array, of_tokens

Parameters = Mapping[str, np.ndarray]
NETWORKS = ("attention", "mlp")
METHODS = (*LINEAR, *NETWORKS)


@dataclass(frozen=True)
class Target:
    """One target's labels on the prompts that fit it: `rows` are their places in the traces.

    `token` is (prompt, token) of those rows where tokens are labelled.
    """

    rows: Int[np.ndarray, " prompt"]
    label: Float[np.ndarray, " prompt"]
    token: Float[np.ndarray, "prompt token"] | None
    balanced: bool


def solutions(
    method: str | Function,
    held: Source,
    layer: int,
    targets: Sequence[Target],
    inverse_penalty: Sequence[float],
    kind: str,
    generator: np.random.Generator,
) -> list[list[Parameters]]:
    """The parameters that a method makes of one layer: of each target, one an inverse penalty.

    The layer is read once for all targets, those of attention apart.
    """
    if method == "attention":
        return [_attention(held, layer, target, inverse_penalty) for target in targets]
    made: dict[int, list[Parameters]] = {}
    for places, rows in problems(held, layer, targets, kind):
        if method == "mlp":
            fitted = _mlp(rows, inverse_penalty, generator)
        elif callable(method):
            fitted = _as_parameters(by_function(method, rows))
        else:
            fitted = _as_parameters(LINEAR[method](rows, inverse_penalty))
        made |= dict(zip(places, fitted, strict=True))
    return [made[n] for n in range(len(targets))]


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
    rows: Rows, inverse_penalty: Sequence[float], generator: np.random.Generator
) -> list[list[Parameters]]:
    from traits.probes.networks.mlp import fit_mlp  # torch takes seconds

    values = rows.table.whole
    if values is None:
        raise InputError(
            f"The method 'mlp' was asked for, and the {rows.table.count} rows of "
            f"{rows.table.dim} dims do not fit into memory. Take fewer rows, or rows='mean'."
        )
    both = zip(rows.label == 1, rows.weight, strict=True)
    return [list(fit_mlp(values, *one, inverse_penalty, generator=generator)) for one in both]


def _as_parameters(solved: Solutions) -> list[list[Parameters]]:
    return [
        [{"weight": one.weight, "offset": np.asarray(one.offset)} for one in of_target]
        for of_target in solved
    ]


def problems(
    held: Source, layer: int, targets: Sequence[Target], kind: str
) -> Iterator[tuple[list[int], Rows]]:
    """The rows of one layer, once for all targets that have the same ones, and which these are."""
    rows = np.unique(np.concatenate([target.rows for target in targets]))
    label = np.full((len(targets), len(rows), held.real.shape[1]), np.nan)
    for own, target in zip(label, targets, strict=True):
        places = np.searchsorted(rows, target.rows)
        own[places] = target.label[:, None] if target.token is None else target.token
    if kind == "mean":
        table, place = of_array(means(held, layer, rows)), np.arange(len(rows))
        label = label[:, :, 0]
    else:
        kept = held.real.copy()
        kept[rows] &= ~np.isnan(label).all(0)
        place = np.repeat(np.arange(len(rows)), kept[rows].sum(1))
        table, label = of_tokens(held, layer, rows, kept), label[:, kept[rows]]
    known = ~np.isnan(label)
    alike: dict[bytes, list[int]] = {}
    for number, mask in enumerate(known):
        alike.setdefault(mask.tobytes(), []).append(number)
    for numbers in alike.values():
        mask = known[numbers[0]]
        some, here = label[numbers][:, mask], place[mask]
        # prompts weigh alike, however long they are
        weight = np.tile(1 / np.bincount(here)[here], (len(numbers), 1))
        both = [targets[n].balanced for n in numbers]
        if all(both):
            weight = np.stack([balanced(*one) for one in zip(weight, some, strict=True)])
        yield numbers, Rows(table.take(mask), some.astype(np.int64), weight, all(both))


def balanced(
    weight: Float[np.ndarray, " row"], label: Float[np.ndarray, " row"]
) -> Float[np.ndarray, " row"]:
    """Weights of the same sum in which both classes weigh the same.

    >>> balanced(np.ones(3), np.array([0.0, 1.0, 1.0])).tolist()
    [1.5, 0.75, 0.75]
    """
    made, total = weight.copy(), weight.sum()
    for value in (0, 1):
        made[label == value] *= total / (2 * weight[label == value].sum())
    return made
