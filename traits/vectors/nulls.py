"""Directions that are no trait's: shuffled twins, matched noise, components, random bands."""

import hashlib
from collections.abc import Iterator

import numpy as np
import xarray as xr
from jaxtyping import Float

from tracekit.errors import InputError
from tracekit.storage.provenance import read, stamp
from traits.vectors.methods import Method, Pairs, Vector, oriented
from traits.vectors.projection import require_kin

AT_ONCE = 16  # draws of one product of matrices


def shuffled_pairs(method: Method, *, generator: np.random.Generator) -> Method:
    """`method` on pairs whose twins are exchanged at random: what it finds where nothing is.

    The same exchanges at every layer, so that the null keeps the dependence between layers. The
    result is oriented by the exchanged pairs, which keeps it exchangeable with the true fit when
    there is no effect. Source: sign-flip permutation.

    >>> from traits.vectors.methods import mean_diff
    >>> null = shuffled_pairs(mean_diff, generator=np.random.default_rng(0))
    >>> null(np.ones((8, 2, 3)), np.zeros((8, 2, 3))).shape
    (2, 3)
    """

    def shuffled(positive: Pairs, negative: Pairs) -> Vector:
        swap = generator.integers(0, 2, size=len(positive)).astype(bool)[:, None, None]
        return method(np.where(swap, negative, positive), np.where(swap, positive, negative))

    return shuffled


def covariance_matched(
    *, generator: np.random.Generator, samples: Float[np.ndarray, "sample layer dim"] | None = None
) -> Method:
    """A random direction drawn from N(0, C), C the covariance of activations.

    C is that of both sides of the pairs about their own means, or of `samples` about theirs: for
    instance differences between two models on the same ids. One draw of the weights for all
    layers, not oriented by the pairs. Isotropic directions would miss the massive dims and call
    noise significant (with three such dims in 89 % of simulated runs; this null in 5 %).

    >>> null = covariance_matched(generator=np.random.default_rng(0))
    >>> draw = np.random.default_rng(1)
    >>> null(*draw.normal(size=(2, 8, 2, 3))).shape
    (2, 3)
    """

    def matched(positive: Pairs, negative: Pairs) -> Vector:
        return next(matched_draws(positive, negative, generator, 1, samples))

    return matched


def matched_draws(
    positive: Pairs,
    negative: Pairs,
    generator: np.random.Generator,
    draws: int,
    samples: Float[np.ndarray, "_sample _layer _dim"] | None = None,
) -> Iterator[Vector]:
    """`draws` directions of `covariance_matched`, of the same sides.

    >>> draw = np.random.default_rng(1)
    >>> len([*matched_draws(*draw.normal(size=(2, 8, 2, 3)), draw, 5)])
    5
    """
    if samples is not None:
        _check_fit(samples.shape[1:], positive.shape[1:])
    sides = (positive, negative) if samples is None else (samples,)
    rows = np.concatenate([side - side.mean(axis=0, dtype=np.float64) for side in sides])
    yield from _drawn(rows, generator, draws)


def random_directions(
    vector: xr.DataArray, count: int, *, covariance: xr.DataArray | None = None, seed: int = 0
) -> xr.DataArray:
    """Random directions in a vector's place, for its null: (direction, dim).

    `vector` is (dim), or (layer, dim) for (direction, layer, dim); at each layer every direction
    has its norm. They are drawn from N(0, C), C the covariance of `covariance` (…, dim), such as
    traces (prompt, token, layer, dim) of the texts that are steered, about its mean; holes are
    left out, and one draw of the weights is for all layers. Without it they are isotropic, which
    misses the massive dims: a null too mild. Labels are `random/0`, `random/1`, …; together with
    the vector they are what `steer` takes, one a row, so that a dose–response and its band are
    one generation.

    Errors: `ValueError` for other dims, for a covariance of another width, site or depth, without
    the vector's layers, or of fewer than two rows.

    >>> vector = vectors.sel(trait="alignment/sycophancy", layer=12)
    >>> null = random_directions(vector, 5, covariance=traces)
    >>> bank = xr.concat([vector.expand_dims(direction=["own"]), null], "direction")
    >>> asked = tk.sweep(tk.encode(model, prompts), [-4.0, 4.0], direction=bank.direction)
    >>> tk.steer(model, bank, coefficient=asked.coefficient).tracekit_edits[0]["kind"]
    'steer'
    """
    layered, generator = _layered(vector), np.random.default_rng(seed)
    made: dict[str, object] = {"seed": seed}
    if covariance is None:
        drawn = generator.normal(size=(count, *layered.shape))
    else:
        require_kin(covariance, vector)
        rows = _rows(covariance, layered)
        made["covariance"] = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        rows = rows - rows.mean(axis=0, dtype=np.float64)
        drawn = np.stack([*_drawn(rows, generator, count)])
    norm = np.linalg.norm(layered.values.astype(float), axis=-1, keepdims=True)
    drawn *= norm / np.linalg.norm(drawn, axis=-1, keepdims=True)
    coords = {**vector.coords, "direction": [f"random/{n}" for n in range(count)]}
    dims = ("direction", *(dim for dim in ("layer", "dim") if dim in vector.dims))
    values = (drawn if "layer" in vector.dims else drawn[:, 0]).astype(np.float32)
    own = read(vector) if "provenance" in vector.attrs else None
    found = xr.DataArray(values, coords, dims=dims, name=vector.name)
    return stamp(found, {"random": made, "source": own})


def _drawn(
    rows: Float[np.ndarray, "sample layer dim"], generator: np.random.Generator, draws: int
) -> Iterator[Vector]:
    """Draws from the covariance of centred rows."""
    flat = rows.reshape(len(rows), -1)
    for start in range(0, draws, AT_ONCE):
        weights = generator.normal(size=(min(AT_ONCE, draws - start), len(rows)))
        yield from (weights / np.sqrt(len(rows)) @ flat).reshape(-1, *rows.shape[1:])


def _layered(vector: xr.DataArray) -> xr.DataArray:
    if set(vector.dims) - {"layer"} != {"dim"}:
        raise InputError(
            f"The vector has the dims {vector.dims}; random directions are made like one vector, "
            "(dim) or (layer, dim). Choose one with .sel, such as .sel(trait=…)."
        )
    if "layer" not in vector.dims:
        vector = vector.expand_dims("layer")
    return vector.transpose("layer", "dim")


def _rows(covariance: xr.DataArray, layered: xr.DataArray) -> Float[np.ndarray, "sample layer dim"]:
    """The rows without holes, at the layers of the vector."""
    if "layer" not in covariance.dims:
        covariance = covariance.expand_dims("layer")
    if {"layer"} <= set(layered.coords) & set(covariance.coords):
        wanted, there = (of["layer"].values.tolist() for of in (layered, covariance))
        if not set(wanted) <= set(there):
            raise InputError(
                f"The vector has the layers {wanted} and the covariance {there}. Capture the "
                "vector's layers."
            )
        covariance = covariance.sel(layer=wanted)
    outer = [dim for dim in covariance.dims if dim not in ("layer", "dim")]
    rows = covariance.transpose(*outer, "layer", "dim").values
    rows = rows.reshape(-1, *rows.shape[len(outer) :])
    rows = rows[np.isfinite(rows).all((1, 2))]
    if rows.shape[1:] != layered.shape or len(rows) < 2:
        raise InputError(
            f"The covariance has {len(rows)} rows of (layer, dim) {rows.shape[1:]} and the vector "
            f"{layered.shape}. Give at least two rows of the same layers of the same model."
        )
    return rows


def principal_component(number: int) -> Method:
    """The `number`-th principal component (from 1) of the activations, both sides together.

    Oriented by the pairs: what a direction of large variance reaches without being fitted.

    >>> draw = np.random.default_rng(1)
    >>> principal_component(2)(*draw.normal(size=(2, 8, 2, 3))).shape
    (2, 3)
    """

    def component(positive: Pairs, negative: Pairs) -> Vector:
        both = np.moveaxis(np.concatenate([positive, negative]).astype(np.float64), 1, 0)
        both = both - both.mean(axis=1, keepdims=True)
        if not 1 <= number <= min(both.shape[1:]):
            raise InputError(
                f"Principal component {number} was asked for; {both.shape[1]} rows of dim "
                f"{both.shape[2]} have {min(both.shape[1:])}. Ask for one of them."
            )
        _, left = np.linalg.eigh(both @ both.transpose(0, 2, 1))
        return oriented(np.einsum("kn,knd->kd", left[..., -number], both), positive, negative)

    return component


def _check_fit(samples: tuple[int, ...], pairs: tuple[int, ...]) -> None:
    if samples != pairs:
        raise InputError(
            f"The samples have (layer, dim) {samples} and the pairs have {pairs}. "
            "Take the covariance from the same layers of the same model."
        )
