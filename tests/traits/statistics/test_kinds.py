"""Intervals for kinds of prompt that were not asked: coverage, with today's narrower twin."""

from functools import partial

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from experiments.benchmarks.audits import audit_coverage
from traits.statistics import auroc, cluster_bootstrap, over_kinds, stages


@pytest.mark.parametrize("kinds", [3, 6, 12])
@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_the_interval_covers_with_and_without_spread_between_kinds(
    kinds: int, spread: float
) -> None:
    rates = {
        row["interval"]: float(str(row["rate"]))
        for row in audit_coverage.coverage(kinds, spread, runs=200, draws=200)
    }
    # 95 % of 200: outside 0.90 to 0.99 in one run of 250
    assert 0.90 <= rates[audit_coverage.OTHER] <= 0.99
    if spread:
        # what is conditional on these kinds misses the others'
        assert rates[audit_coverage.OUTCOMES] < 0.85


def table(areas_of: np.ndarray, generator: np.random.Generator) -> xr.DataArray:
    """Twelve prompts a kind, whose scores rise by these."""
    kind, label = np.repeat(np.arange(len(areas_of)), 12), np.tile([1, 0], 6 * len(areas_of))
    scores = generator.normal(size=(len(kind), 2)) + (areas_of[kind] * label)[:, None]
    coords = {"bias": ("prompt", kind), "label": ("prompt", label)}
    return xr.DataArray(scores, coords, ("prompt", "trait"))


def test_few_kinds_have_the_t_interval_of_their_statistics() -> None:
    rows = table(np.arange(5.0), np.random.default_rng(0))
    generator = np.random.default_rng(0)
    found = over_kinds(rows, auroc, generator=generator, group=None)
    alone = np.stack([auroc(rows.isel(prompt=rows["bias"] == kind)).values for kind in range(5)])
    reach = stats.t.ppf(0.975, 4) * alone.std(axis=0, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(found["estimate"], alone.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found["high"], alone.mean(axis=0) + reach, atol=1e-12)
    np.testing.assert_allclose(found["low"], alone.mean(axis=0) - reach, atol=1e-12)
    assert (found.attrs["kinds"], found.attrs["method"]) == (5, "t")
    one = rows.copy()
    one[0] += 9
    again = over_kinds(one, auroc, generator=generator, group=None)
    assert not np.allclose(again["high"], found["high"], atol=1e-6)


def test_many_kinds_are_drawn_in_two_stages_and_wider_than_their_prompts_alone() -> None:
    rows = table(np.linspace(-1.0, 3.0, 10), np.random.default_rng(1))
    draw = partial(np.random.default_rng, 2)
    found = over_kinds(rows, auroc, generator=draw(), group=None, repetitions=40)
    assert found.attrs["method"] == "two-stage bootstrap-t"
    alone = cluster_bootstrap(
        rows,
        partial(auroc, within="bias"),
        generator=draw(),
        group=None,
        strata="bias",
        repetitions=40,
    )
    assert (found["high"] - found["low"] > 1.5 * (alone["high"] - alone["low"])).all()
    assert (found["low"] < found["estimate"]).all()


def test_too_few_kinds_and_kinds_that_say_nothing_are_refused() -> None:
    rows, generator = table(np.zeros(2), np.random.default_rng(0)), np.random.default_rng(0)
    with pytest.raises(ValueError, match="over 2 kinds of prompt was asked for; it needs 3"):
        over_kinds(rows, auroc, generator=generator, group=None)
    with pytest.raises(ValueError, match="the statistic of 1 is not finite"):
        stages(np.array([0.5, np.nan, 0.6]), None, generator)
    with pytest.raises(ValueError, match=r"level 2\.0 over 3 kinds"):
        stages(np.array([0.5, 0.4, 0.6]), None, generator, level=2.0)
    # a draw with a single outcome is passed over
    replicates = np.tile(np.array([0.4, np.nan, 0.6]), (10, 1)) + np.linspace(0, 0.1, 10)[:, None]
    assert np.isfinite(stages(np.linspace(0.5, 0.6, 10), replicates, generator, 50)).all()


def test_a_kind_of_one_prompt_is_the_same_in_every_draw() -> None:
    generator = np.random.default_rng(0)
    kind = np.concatenate([np.repeat(np.arange(10), 4), [10, 10]])
    coords = {"bias": ("prompt", kind), "group": ("prompt", np.arange(42) // 2)}
    rows = xr.DataArray(generator.normal(size=42), coords, "prompt")
    given = {"generator": np.random.default_rng(1), "repetitions": 3000}
    found = over_kinds(rows, "mean", **given)
    assert found.attrs == {"kinds": 11, "method": "two-stage bootstrap-t", "level": 0.95}
    by_kind = rows.groupby("bias").mean().values
    assert abs(found["estimate"] - by_kind.mean()) < 1e-12
    assert found["low"] < found["estimate"] < found["high"]
    # without noise of their own, kinds are all that is drawn
    still = rows.copy(data=by_kind[kind])
    alone = over_kinds(still, "mean", **given)
    drawn = by_kind[np.random.default_rng(2).integers(11, size=(3000, 11))]
    t = (drawn.mean(axis=1) - by_kind.mean()) / (drawn.std(axis=1, ddof=1) / np.sqrt(11))
    error = by_kind.std(ddof=1) / np.sqrt(11)
    bounds = by_kind.mean() - np.quantile(t, [0.975, 0.025]) * error
    np.testing.assert_allclose([alone["low"], alone["high"]], bounds, atol=0.4 * error)
    function = over_kinds(rows, lambda drawn: drawn.mean("prompt"), **given | {"repetitions": 30})
    assert np.isfinite(function["high"])
