"""The MLP probe: one hidden layer on rows, which are tokens or means of responses."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from sklearn.neural_network import MLPClassifier

from traits.probes.networks.optimising import Parameters, in_float32, refuse_rows, standardised

Rows = Float[np.ndarray, "row dim"]
UNITS = 32
FEW = 4096  # rows up to which the whole batch is cheap, and LBFGS the better solver
BATCH = 200
PASSES = 20


def fit_mlp(
    rows: Rows,
    label: Bool[np.ndarray, "row"],
    weight: Float[np.ndarray, "row"],
    inverse_penalties: Sequence[float],
    *,
    generator: np.random.Generator,
    units: int = UNITS,
) -> list[Parameters]:
    """Probes of one hidden layer, one for each inverse penalty: scikit-learn's `MLPClassifier`.

    The score of a row is weight · relu(hidden_weight x + hidden_offset) + offset, the log-odds of
    its label. Minimised is, in dims standardised over the weighted rows, the sum of `weight` ×
    log loss, plus half the squares of both layers over `inverse_penalty`: on up to 4,096 rows by
    LBFGS, on more (tokens) by 20 passes of Adam. `generator` draws the start and the order, the
    same for each penalty. Returns `hidden_weight` (unit, dim), `hidden_offset` (unit), `weight`
    (unit) and `offset` for rows in their own units, float32. Raises ValueError for values that
    are not finite, or labels all alike.

    >>> draw = np.random.default_rng(0)
    >>> rows, label = draw.normal(size=(40, 8)), np.arange(40) % 2 == 1
    >>> [found] = fit_mlp(rows, label, np.ones(40), [0.1], generator=draw)
    >>> found["hidden_weight"].shape, found["weight"].shape
    ((32, 8), (32,))
    """
    refuse_rows(rows, label, weight)
    seed = int(generator.integers(2**31))
    standard, centre, scale = standardised(rows, weight)
    probes = []
    for inverse in inverse_penalties:
        # a state and not a seed, by which each pass would have one order
        network = _network(len(rows), units, inverse, np.random.RandomState(seed))
        probes.append(_unscaled(_trained(network, standard, label, weight), centre, scale))
    return probes


def _network(
    count: int, units: int, inverse_penalty: float, state: np.random.RandomState
) -> MLPClassifier:
    if count <= FEW:
        options = {"solver": "lbfgs", "max_iter": 1000, "alpha": 1 / inverse_penalty}
    else:
        # Adam's penalty is that of each batch: in a pass it would count once a batch
        share = BATCH / count
        options = {"solver": "adam", "batch_size": BATCH, "alpha": share / inverse_penalty}
    return MLPClassifier((units,), random_state=state, **options)


def _trained(
    network: MLPClassifier, rows: Rows, label: np.ndarray, weight: np.ndarray
) -> MLPClassifier:
    if network.solver == "lbfgs":
        return network.fit(rows, label, weight)
    for _ in range(PASSES):
        network.partial_fit(rows, label, weight, classes=[False, True])
    return network


def _unscaled(network: MLPClassifier, centre: np.ndarray, scale: np.ndarray) -> Parameters:
    (hidden, last), (offsets, offset) = network.coefs_, network.intercepts_
    hidden = hidden.T.astype(float) / scale
    probe = {
        "hidden_weight": hidden,
        "hidden_offset": offsets - hidden @ centre,
        "weight": last[:, 0],
        "offset": offset[0],
    }
    return in_float32(probe)
