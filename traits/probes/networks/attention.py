"""The attention probe: one query says which tokens of a response count, one direction how much."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from tracekit.errors import InputError
from traits.probes.networks.optimising import (
    Parameters,
    in_float32,
    minimised,
    refuse_rows,
    standardised,
)

Rows = Float[np.ndarray, "row dim"]


def fit_attention(
    rows: Rows,
    response: Int[np.ndarray, "row"],
    label: Bool[np.ndarray, "response"],
    weight: Float[np.ndarray, "response"],
    inverse_penalties: Sequence[float],
) -> list[Parameters]:
    """Attention probes of labelled responses, one for each inverse penalty.

    The score of a response is sum_t softmax_t(query · x_t) (weight · x_t) + offset over its
    tokens, the log-odds of its label. Minimised is, in dims standardised over the rows,
    `inverse_penalty` × (the sum of `weight` × log loss) + (|query|² + |weight|²) / 2, as in
    scikit-learn's `LogisticRegression`, which a query of zero makes it: the mean's. By torch's
    LBFGS on the full batch from one start (the difference of the labels' means, which attends to
    itself), so that nothing is drawn. `rows` are all tokens (residual units) and `response` the
    number of the response of each. Returns `query` (dim), `weight` (dim) and `offset` for rows in
    their own units, float32. Raises ValueError for values that are not finite, a response without
    tokens, or labels all alike. Source: Hewitt et al. 2024; probelab's attention probe.

    >>> draw = np.random.default_rng(0)
    >>> response, label = np.repeat(np.arange(20), 5), np.arange(20) % 2 == 1
    >>> rows = draw.normal(size=(100, 8)).astype(np.float32)
    >>> [found] = fit_attention(rows, response, label, np.ones(20), [0.1])
    >>> found["query"].shape, found["weight"].shape, found["offset"].shape
    ((8,), (8,), ())
    """
    refuse_rows(rows, label[response], weight[response])
    places = token_places(response, len(label))
    standard, centre, scale = standardised(rows, np.ones(len(rows)))
    starts = [_start(standard, places, label, weight), np.zeros(())]
    tokens, index = torch.from_numpy(standard), torch.from_numpy(places)
    sign, share = torch.from_numpy(2.0 * label - 1), torch.from_numpy(weight.astype(float))
    total = float(weight.sum())

    def objective(directions: torch.Tensor, offset: torch.Tensor, inverse: float) -> torch.Tensor:
        scores = pooled(tokens, index, directions, offset)
        # of one size whatever the penalty, since the solver's tolerances are absolute
        return penalised_loss(scores, sign, share * inverse, directions) / total / inverse

    probes = []
    for inverse in inverse_penalties:
        directions, offset = minimised(partial(objective, inverse=inverse), starts)
        query, value = directions.T / scale
        probe = {"query": query, "weight": value, "offset": offset - value @ centre}
        probes.append(in_float32(probe))
    return probes


def pooled(
    tokens: torch.Tensor, places: torch.Tensor, directions: torch.Tensor, offset: torch.Tensor
) -> torch.Tensor:
    """The score of each response: `tokens` (row, dim), `directions` (dim, [query, value]).

    `places` (response, token) are the rows of each response, −1 in holes.

    >>> tokens, places = torch.eye(3), torch.tensor([[0, 1], [2, -1]])
    >>> pooled(tokens, places, torch.ones(3, 2), torch.zeros(())).tolist()
    [1.0, 1.0]
    """
    # products in the rows' own precision, which are most of the time; what follows in double
    both = (tokens @ directions.to(tokens.dtype)).to(directions.dtype)[places]
    attended = both[..., 0].masked_fill(places < 0, -torch.inf).softmax(dim=1)
    return (attended * both[..., 1]).sum(dim=1) + offset


def penalised_loss(
    scores: torch.Tensor, sign: torch.Tensor, share: torch.Tensor, directions: torch.Tensor
) -> torch.Tensor:
    """The weighted log loss of scores whose label is the sign (1 or −1), and half the squares.

    >>> penalised_loss(torch.zeros(2), torch.ones(2), torch.zeros(2), torch.ones(2)).item()
    1.0
    """
    loss = torch.nn.functional.softplus(-sign * scores)
    return (share * loss).sum() + directions.square().sum() / 2


def token_places(response: Int[np.ndarray, "row"], count: int) -> Int[np.ndarray, "response token"]:
    """The rows of each response in their order, −1 after its last.

    >>> token_places(np.array([0, 1, 1]), 2).tolist()
    [[0, -1], [1, 2]]
    """
    sizes = np.bincount(response, minlength=count)
    if not sizes.all():
        raise InputError(
            f"{(sizes == 0).sum()} of {count} responses have no tokens to attend to. Leave these "
            "responses out, or take tokens that each has."
        )
    order = np.argsort(response, kind="stable")
    places = np.full((count, int(sizes.max())), -1)
    places[np.arange(places.shape[1]) < sizes[:, None]] = order
    return places


def _start(
    standard: Rows,
    places: Int[np.ndarray, "response token"],
    label: Bool[np.ndarray, "response"],
    weight: Float[np.ndarray, "response"],
) -> Float[np.ndarray, "dim 2"]:
    """The difference of the labels' means twice, its products with tokens of deviation 1."""
    share = np.where(label, 1.0, -1.0) * weight
    for side in (label, ~label):
        share[side] /= weight[side].sum()
    exists = places >= 0
    each = np.zeros(len(standard), np.float32)
    each[places[exists]] = np.repeat(share / exists.sum(axis=1), exists.sum(axis=1))
    difference = (each @ standard).astype(float)
    spread = (standard @ difference.astype(np.float32)).std(dtype=np.float64)
    return np.stack([difference, difference], axis=1) / (spread or 1.0)
