"""The methods of extraction: functions of two sides to a vector, each oriented by the pairs."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from tracekit.errors import InputError

Pairs = Float[np.ndarray, "pair layer dim"]
# the negative side, which has as many rows as the positive one unless the rows have no twins
Twins = Float[np.ndarray, "twin layer dim"]
Vector = Float[np.ndarray, "layer dim"]
Method = Callable[[Pairs, Twins], Vector]
# values a side, from which layers are fitted beside one another
LARGE = 1 << 22


def mean_diff(positive: Pairs, negative: Twins) -> Vector:
    """The mean of the pair differences, at every layer; of the sides, where they have no twins.

    Takes and returns residual units, any scale. Source: Turner et al. 2023, Panickssery et al.
    2023 (contrastive activation addition).

    >>> mean_diff(np.ones((8, 2, 3)), np.zeros((8, 2, 3))).shape
    (2, 3)
    """
    if len(positive) != len(negative):
        means = (side.mean(axis=0, dtype=np.float64) for side in (positive, negative))
        return np.subtract(*means)
    return (positive - negative).mean(axis=0, dtype=np.float64)


def probe(positive: Pairs, negative: Twins, *, inverse_penalty: float = 1.0) -> Vector:
    """The weights of an L2-penalised logistic regression on standardised dims, at every layer.

    Equal to `make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty))` with the
    scaling divided out of the weights. The weights lie in the span of the data, so the fit is
    made there, in `2 pairs` coordinates instead of `dim`. Source: Alain & Bengio 2016.

    >>> generator = np.random.default_rng(0)
    >>> probe(*generator.normal(size=(2, 8, 2, 3))).shape
    (2, 3)
    """
    label = np.repeat([1, 0], [len(positive), len(negative)])
    both = np.concatenate([positive, negative])
    return _by_layer(lambda k: _logistic(both[:, k], label, inverse_penalty), positive)


def whitened(positive: Pairs, negative: Twins) -> Vector:
    """The mean difference whitened by the within-side covariance (LDA), at every layer.

    Each side's covariance of standardised dims is shrunk towards the identity by as much as
    Ledoit and Wolf's formula says: equal to `LinearDiscriminantAnalysis("lsqr",
    shrinkage="auto")`, but solved in `2 pairs` equations instead of `dim`, which is exact because
    the covariance is diagonal outside the span of the data. At least two pairs. Source: Ledoit &
    Wolf 2004.

    >>> generator = np.random.default_rng(0)
    >>> whitened(*generator.normal(size=(2, 8, 2, 3))).shape
    (2, 3)
    """
    return _by_layer(lambda k: discriminant(positive[:, k], negative[:, k]), positive)


def first_component(positive: Pairs, negative: Twins) -> Vector:
    """The first principal component of the pair differences, at every layer.

    About zero and not about their mean, so that it does not matter which twin is called
    positive; the sign comes from the pairs afterwards. Source: Zou et al. 2023 (RepE).

    >>> first_component(np.ones((8, 2, 3)), np.zeros((8, 2, 3))).shape
    (2, 3)
    """
    differences = np.moveaxis(positive.astype(np.float64) - negative, 1, 0)
    _, left = np.linalg.eigh(differences @ differences.transpose(0, 2, 1))
    components = np.einsum("kn,knd->kd", left[..., -1], differences)
    return oriented(components, positive, negative)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "mean_diff": mean_diff,
        "probe": probe,
        "whitened": whitened,
        "first_component": first_component,
    }
)


def fitted(method: Method, positive: Pairs, negative: Twins) -> Vector:
    """What a method makes of two sides, once it has the shape that it must have: (layer, dim).

    Errors: `ValueError` for any other: a transposed one would pass for directions.

    >>> fitted(mean_diff, np.ones((8, 2, 3)), np.zeros((8, 2, 3))).shape
    (2, 3)
    """
    vector = np.asarray(method(positive, negative))
    wanted = positive.shape[1:]
    if vector.shape != wanted:
        raise InputError(
            f"The method {getattr(method, '__name__', repr(method))!r} gave values of shape "
            f"{vector.shape} for sides of {positive.shape}; a vector a layer is due: {wanted}, "
            "(layer, dim). Return one row a layer."
        )
    return vector


def oriented(vector: Vector, positive: Pairs, negative: Twins) -> Vector:
    """The vector, or minus it, so that the positive side projects higher on average.

    Methods orient themselves, so that a null made of shuffled pairs is oriented by those.

    >>> oriented(np.array([[-1.0, 0.0]]), np.ones((4, 1, 2)), np.zeros((4, 1, 2))).tolist()
    [[1.0, -0.0]]
    """
    along = np.einsum("kd,kd->k", mean_diff(positive, negative), vector)
    return vector * np.where(along < 0, -1.0, 1.0)[:, None]


def _by_layer(fit: Callable[[int], np.ndarray], side: Pairs) -> Vector:
    layers = range(side.shape[1])
    if side.size < LARGE:
        return np.stack([fit(k) for k in layers])
    # most of a fit is one pass after another over the data, which BLAS's own threads do not share
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(fit, layers)))


def _logistic(
    data: Float[np.ndarray, "row dim"], label: np.ndarray, inverse_penalty: float
) -> Float[np.ndarray, "dim"]:
    data, scale = centred(data)
    data /= scale
    inside, outward = spanned(data)
    model = LogisticRegression(C=inverse_penalty, solver="newton-cholesky", tol=1e-8)
    return outward(model.fit(inside, label).coef_[0]) / scale


def spanned(
    data: Float[np.ndarray, "row dim"],
) -> tuple[Float[np.ndarray, "row direction"], Callable[[np.ndarray], np.ndarray]]:
    """Rows in the span of the data where that is smaller, and weights there back among the dims.

    >>> inside, outward = spanned(np.ones((2, 5)))
    >>> inside.shape[1], outward(np.ones(inside.shape[1])).shape
    (1, (5,))
    """
    if data.shape[0] >= data.shape[1]:
        return data, lambda weight: weight
    value, left = np.linalg.eigh(data @ data.T)
    kept = value > value[-1] * len(value) * np.finfo(np.float64).eps
    singular, left = np.sqrt(value[kept]), left[:, kept]
    return left * singular, lambda weight: data.T @ (left @ (weight / singular))


def discriminant(
    positive: Float[np.ndarray, "_positive dim"],
    negative: Float[np.ndarray, "_negative dim"],
    share: float = 0.5,
) -> Float[np.ndarray, "dim"]:
    """The difference of means whitened by the shrunk covariance within the sides.

    `share` is the prior of the positive side, by which its covariance counts too.

    >>> draw = np.random.default_rng(0)
    >>> discriminant(draw.normal(size=(8, 3)), draw.normal(size=(6, 3))).shape
    (3,)
    """
    diagonal, rows = np.zeros(positive.shape[1]), []
    for side, prior in ((positive, share), (negative, 1 - share)):
        deviations, scale = centred(side)
        standard = deviations / scale
        small = standard @ standard.T if len(side) < len(scale) else standard.T @ standard
        fourth = np.square(np.einsum("rd,rd->r", standard, standard)).mean()
        shrunk, level = shrinkage(small / len(side), fourth, len(side), len(scale))
        diagonal += shrunk * level * scale**2 * prior
        deviations *= np.sqrt((1 - shrunk) * prior / len(side))
        rows.append(deviations)
    low_rank = np.concatenate(rows)  # covariance = diag(diagonal) + low_rank.T @ low_rank
    difference = positive.mean(axis=0, dtype=np.float64) - negative.mean(axis=0, dtype=np.float64)
    if len(low_rank) >= len(difference):
        return np.linalg.solve(np.diag(diagonal) + low_rank.T @ low_rank, difference)
    scaled = low_rank / diagonal
    inner = np.eye(len(low_rank)) + scaled @ low_rank.T
    return difference / diagonal - scaled.T @ np.linalg.solve(inner, scaled @ difference)


def shrinkage(
    products: Float[np.ndarray, "some some"], fourth: float, count: int, dim: int | None = None
) -> tuple[float, float]:
    """Ledoit and Wolf's shrinkage of a covariance towards the identity, and the identity's level.

    `products` are the covariance of `count` standardised rows, or the products of rows over
    `count`, which have the same trace and norm (`dim` then says how many dims there are);
    `fourth` is the mean of the rows' squared lengths, squared.

    >>> shrinkage(np.eye(3), 9.0, 10)
    (0.0, 1.0)
    """
    dim = len(products) if dim is None else dim
    level = float(np.trace(products, dtype=np.float64)) / dim
    second = float(np.einsum("ij,ij->", products, products, dtype=np.float64))
    distance = (second - dim * level**2) / dim
    error = min((fourth - second) / (dim * count), distance)
    return (error / distance if error > 0 else 0.0), level


def centred(
    data: Float[np.ndarray, "row dim"],
) -> tuple[Float[np.ndarray, "row dim"], Float[np.ndarray, "dim"]]:
    """A float64 copy less its mean, and its standard deviation (1 where there is none).

    >>> [part.tolist() for part in centred(np.array([[1.0, 7.0], [3.0, 7.0]]))]
    [[[-1.0, 0.0], [1.0, 0.0]], [1.0, 1.0]]
    """
    # in place: at 8,192 dims every further copy costs as much as the products
    data = data.astype(np.float64)
    data -= data.mean(axis=0)
    scale = np.sqrt(np.einsum("rd,rd->d", data, data) / len(data))
    scale[scale == 0] = 1.0
    return data, scale
