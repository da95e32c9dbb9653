"""Statistics: values that are missing, infinite, huge, tiny, few or all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

import traits
from experiments.benchmarks.fuzz.outcome import Case
from traits.statistics import (
    auroc,
    benjamini_hochberg,
    paired_auroc,
    paired_effect,
    rank_auroc,
)
from traits.statistics.bootstrap import cluster_bootstrap
from traits.statistics.permutation import against_null, max_statistic, sign_flip
from traits.vectors.methods import METHODS


def cases(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One call a case, on random values after up to two accidents."""
    while True:
        name = str(rng.choice(list(_CALLS)))
        seed = int(rng.integers(2**31))
        values, words = _values(rng)
        run, right = _CALLS[name](values, seed)
        yield Case(f"{name}: {', '.join(words)} {values.shape}", run, right)


@np.errstate(all="ignore")
def _values(rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    count = int(rng.choice([0, 1, 2, 3, 5, 9, 30]))
    values = rng.normal(size=(count, int(rng.choice([1, 2, 4]))))
    words = []
    for _ in range(int(rng.integers(0, 3))):
        kind = str(rng.choice(["nan", "inf", "alike", "huge", "tiny", "zero", "whole", "float32"]))
        words.append(kind)
        if kind in ("nan", "inf") and values.size:
            values[tuple(rng.integers(0, n) for n in values.shape)] = float(kind)
        elif kind == "alike":
            values[:] = values[:1] if count else values
        elif kind in ("huge", "tiny"):
            values *= float(rng.choice([1e3, 1e160, 1e300]) if kind == "huge" else 1e-200)
        elif kind == "zero":
            values *= 0
        elif kind == "whole":
            values = np.round(values)
        elif kind == "float32":
            values = values.astype(np.float32)
    return values, words


Call = tuple[Callable[[], Any], Callable[[Any], bool]]


def _sign_flip(values: np.ndarray, seed: int) -> Call:
    rows = xr.DataArray(values, dims=("prompt", "trait"))

    def right(found: xr.Dataset) -> bool:
        # whatever the scale: the t of a plain one-sample test
        scale = np.abs(values).max(0)
        scaled = values.astype(float) / np.where(scale > 0, scale, 1)
        plain = stats.ttest_1samp(scaled, 0).statistic if len(values) > 1 else np.nan
        settled = np.isfinite(plain) & (np.ptp(scaled, axis=0) > 1e-9)
        same = np.allclose(
            found["statistic"].values[settled], np.asarray(plain)[settled], rtol=1e-6
        )
        return (
            same
            and _chances(found["p"])
            and _chances(found["p_family"])
            and (np.isfinite(found["statistic"].values).all())
        )

    draw = np.random.default_rng(seed)
    return lambda: sign_flip(
        rows, generator=draw, group=None, family=("trait",), repetitions=200
    ), right


def _against(values: np.ndarray, seed: int) -> Call:
    null = xr.DataArray(values[1:], dims=("draw", "trait"))
    seen = xr.DataArray(values[:1].reshape(-1), dims="trait")
    if not len(values):
        seen = xr.DataArray(np.zeros(values.shape[1]), dims="trait")

    def right(found: xr.Dataset) -> bool:
        beyond = (values[1:] >= values[:1] - 1e-9 * np.abs(values[:1])).sum(0)
        return _chances(found["p"]) and np.allclose(found["p"], (beyond + 1) / len(values))

    return lambda: against_null(seen, null), right


def _family(values: np.ndarray, seed: int) -> Call:
    null = xr.DataArray(values[1:], dims=("draw", "trait"))
    seen = xr.DataArray(values[0] if len(values) else np.zeros(values.shape[1]), dims="trait")

    def right(found: xr.DataArray) -> bool:
        largest = np.abs(values[1:]).max(1, initial=0)
        reach = np.abs(values[0]) * (1 - 1e-9)
        beyond = (largest[:, None] >= reach).sum(0)
        return _chances(found) and np.allclose(found, (beyond + 1) / len(values))

    return lambda: max_statistic(seen, null, ["trait"]), right


def _areas(values: np.ndarray, seed: int) -> Call:
    label = np.random.default_rng(seed).integers(0, 2, len(values))
    rows = xr.DataArray(values, dims=("prompt", "trait"), coords={"label": ("prompt", label)})

    def right(found: xr.DataArray) -> bool:
        return np.allclose(found, _counted(values[label == 1], values[label == 0]))

    return lambda: auroc(rows), right


def _twins(values: np.ndarray, seed: int) -> Call:
    positive = values
    negative = np.random.default_rng(seed).permutation(values)
    one, other = (xr.DataArray(v, dims=("pair", "trait")) for v in (positive, negative))
    return lambda: paired_auroc(one, other), lambda v: np.allclose(v, _counted(positive, negative))


def _ranks(values: np.ndarray, seed: int) -> Call:
    negative = np.random.default_rng(seed).normal(size=values.shape)
    return (
        lambda: rank_auroc(values.T, negative.T),
        lambda v: np.allclose(v, _counted(values, negative)),
    )


def _effect(values: np.ndarray, seed: int) -> Call:
    rows = xr.DataArray(values, dims=("pair", "trait"))

    def right(found: xr.DataArray) -> bool:
        scale = np.abs(values).max(0)
        scaled = values.astype(float) / np.where(scale > 0, scale, 1)
        varies = (np.ptp(scaled, axis=0) > 1e-9) if len(values) > 1 else np.zeros(len(scale), bool)
        plain = scaled.mean(0) / np.where(
            varies, scaled.std(0, ddof=1) if len(values) > 1 else 1, 1
        )
        held = found.values.astype(float)
        return (
            bool(np.isfinite(held[varies]).all())
            and np.allclose(held[varies], plain[varies], rtol=1e-3)
            and not np.isinf(held).any()
        )

    return lambda: paired_effect(rows), right


def _bootstrap(values: np.ndarray, seed: int) -> Call:
    rows = xr.DataArray(values, dims=("prompt", "trait"))
    draw = np.random.default_rng(seed)

    def right(found: xr.Dataset) -> bool:
        bounds = [found[name].values for name in ("low", "estimate", "high")]
        whole = np.isfinite(np.stack(bounds)).all(0)
        inside = (bounds[0] <= bounds[2])[whole].all()
        finite = np.isfinite(values).all(0)
        # an interval of values that are not finite must not look like one
        return (
            bool(inside)
            and not np.isinf(np.stack(bounds)[1:, whole]).any()
            and (finite.all() or not whole[~finite].any())
        )

    return (
        lambda: cluster_bootstrap(
            rows,
            lambda d: d.mean("prompt", skipna=False),
            generator=draw,
            group=None,
            repetitions=50,
        ),
        right,
    )


def _hochberg(values: np.ndarray, seed: int) -> Call:
    p = xr.DataArray(np.abs(values[:, 0]), dims="trait")

    def right(found: xr.DataArray) -> bool:
        order = np.sort(p.values)
        expected = [
            min(order[k:] * len(order) / np.arange(k + 1, len(order) + 1))
            for k in range(len(order))
        ]
        return np.allclose(np.sort(found.values), np.minimum(np.sort(expected), 1))

    return lambda: benjamini_hochberg(p), right


def _project(values: np.ndarray, seed: int) -> Call:
    draw = np.random.default_rng(seed)
    traces = xr.DataArray(draw.normal(size=(3, values.shape[1])), dims=("prompt", "dim"))
    vectors = xr.DataArray(values, dims=("trait", "dim"))

    def right(found: xr.DataArray) -> bool:
        a, b = traces.values, values.astype(float)
        plain = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
        return bool(np.isfinite(found.values).all()) and np.allclose(found, plain, atol=1e-5)

    return lambda: traits.project(traces, vectors, "cosine"), right


def _extract(values: np.ndarray, seed: int) -> Call:
    count = len(values) // 2
    labels = {
        "label": ("prompt", np.tile([1, 0], count)),
        "group": ("prompt", [f"a/b/{n}" for n in range(count) for _ in range(2)]),
    }
    rows = values[: 2 * count, None]
    traces = xr.DataArray(rows, dims=("prompt", "layer", "dim"), coords=labels)
    method = sorted(METHODS)[seed % len(METHODS)]
    identical = count and (rows[::2] == rows[1::2]).all()

    def right(found: xr.DataArray) -> bool:
        return not identical and np.allclose(np.linalg.norm(found.values, axis=-1), 1, atol=1e-4)

    return lambda: traits.extract(traces, method), right


def _counted(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    above = (positive[:, None] > negative[None]).astype(float)
    return (above + (positive[:, None] == negative[None]) / 2).mean((0, 1))


def _chances(p: xr.DataArray) -> bool:
    return bool(((p > 0) & (p <= 1)).all())


_CALLS: dict[str, Callable[[np.ndarray, int], Call]] = {
    "sign_flip": _sign_flip,
    "against_null": _against,
    "max_statistic": _family,
    "auroc": _areas,
    "paired_auroc": _twins,
    "rank_auroc": _ranks,
    "paired_effect": _effect,
    "cluster_bootstrap": _bootstrap,
    "benjamini_hochberg": _hochberg,
    "project": _project,
    "extract": _extract,
}
