import numpy as np
import pytest
import xarray as xr
from scipy import stats

from traits.statistics import auroc
from traits.statistics.bootstrap import cluster_bootstrap


def mean(rows):
    return rows.mean("prompt")


def clusters(generator, simulations, count=40, rows=5):
    """Many simulated data sets side by side: skewed cluster effects with mean 1."""
    effect = generator.exponential(size=(simulations, count))
    noise = generator.normal(size=(simulations, count, rows))
    values = (effect[:, :, None] + noise).reshape(simulations, -1)
    group = np.repeat(np.arange(count), rows)
    return xr.DataArray(values, dims=("run", "prompt"), coords={"group": ("prompt", group)})


def coverage(found, truth=1.0):
    return float(((found["low"] <= truth) & (truth <= found["high"])).mean())


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_intervals_over_clusters_cover_and_over_rows_do_not(interval):
    generator = np.random.default_rng(0)
    data = clusters(generator, 800)
    over_groups = cluster_bootstrap(
        data, mean, generator=generator, repetitions=400, interval=interval
    )
    assert 0.92 < coverage(over_groups) < 0.98
    over_rows = cluster_bootstrap(data, mean, generator=generator, group=None, repetitions=400)
    assert coverage(over_rows) < 0.88
    assert over_groups.attrs["n"] == 40
    assert over_groups.attrs["unit"] == "group"


def test_both_intervals_agree_with_scipy():
    values = np.random.default_rng(3).exponential(size=25)
    data = xr.DataArray(values, dims="prompt")
    for name, method in (("percentile", "percentile"), ("bca", "BCa")):
        wanted = stats.bootstrap(
            (values,), np.mean, n_resamples=4000, method=method, rng=np.random.default_rng(1)
        ).confidence_interval
        found = cluster_bootstrap(
            data,
            mean,
            generator=np.random.default_rng(0),
            group=None,
            repetitions=4000,
            interval=name,
        )
        bounds = [found["low"].item(), found["high"].item()]
        np.testing.assert_allclose(bounds, wanted, atol=0.04)
        assert found["estimate"].item() == values.mean()
    plain = cluster_bootstrap(
        data, mean, generator=np.random.default_rng(0), group=None, repetitions=4000
    )
    assert found["high"].item() > plain["high"].item() + 0.03  # skewed: BCa is not percentile


def test_the_jackknife_of_strata_is_scipys():
    generator = np.random.default_rng(4)
    one, other = generator.exponential(size=15), generator.exponential(size=30)
    data = xr.DataArray(
        np.concatenate([one, other]),
        dims="prompt",
        coords={"bias": ("prompt", np.repeat(["a", "b"], [15, 30]))},
    )

    def gap(rows):
        bias = rows["bias"].values
        return xr.DataArray(rows.values[bias == "a"].mean() - rows.values[bias == "b"].mean())

    wanted = stats.bootstrap(
        (one, other),
        lambda a, b: a.mean() - b.mean(),
        vectorized=False,
        n_resamples=4000,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = cluster_bootstrap(
        data, gap, generator=generator, group=None, strata="bias", repetitions=4000, interval="bca"
    )
    np.testing.assert_allclose([found["low"].item(), found["high"].item()], wanted, atol=0.06)


def test_strata_keep_their_size_and_groups_their_rows():
    rows = {
        "group": ("prompt", [0, 0, 1, 2, 2, 2, 3]),
        "bias": ("prompt", ["a", "a", "a", "b", "b", "b", "b"]),
    }
    data = xr.DataArray(np.arange(7.0), dims="prompt", coords=rows)
    drawn = []

    def record(rows):
        drawn.append(rows)
        return rows.mean("prompt")

    cluster_bootstrap(
        data, record, generator=np.random.default_rng(0), strata="bias", repetitions=50
    )
    for sample in drawn:
        assert len(np.unique(sample["group"])) == 4
        groups = [set(sample.values[sample["group"].values == n]) for n in range(4)]
        assert all(found in ({0.0, 1.0}, {2.0}) for found in groups[:2])
        assert all(found in ({3.0, 4.0, 5.0}, {6.0}) for found in groups[2:])
    assert len({sample.values.tobytes() for sample in drawn}) > 10


def test_any_statistic_over_labels_can_be_drawn_again():
    generator = np.random.default_rng(0)
    rows = {"label": ("prompt", np.tile([1, 0], 30)), "group": ("prompt", np.repeat(range(30), 2))}
    scores = xr.DataArray(generator.normal(size=(60, 2)), dims=("prompt", "layer"), coords=rows)
    scores[::2, 1] += 2
    found = cluster_bootstrap(scores, auroc, generator=generator, repetitions=100)
    assert found["low"].sizes == {"layer": 2}
    assert found["low"][0] < 0.5 < found["low"][1]


def test_what_cannot_be_drawn_is_refused():
    data = xr.DataArray(np.arange(4.0), dims="prompt", coords={"group": ("prompt", [1, 1, 1, 1])})
    with pytest.raises(ValueError, match="at least 2 groups, and 'group' has 1"):
        cluster_bootstrap(data, mean, generator=np.random.default_rng(0))
    data = data.assign_coords(group=("prompt", [1, 1, 2, 2]), bias=("prompt", list("abaa")))
    with pytest.raises(ValueError, match="'bias' divides 1 of 2"):
        cluster_bootstrap(data, mean, generator=np.random.default_rng(0), strata="bias")
    with pytest.raises(ValueError, match="'studentised' was asked"):
        cluster_bootstrap(data, mean, generator=np.random.default_rng(0), interval="studentised")


@pytest.mark.parametrize("group", [None, "group"])
@pytest.mark.parametrize("strata", [None, "kind"])
def test_the_mean_by_name_is_that_of_a_function(group, strata):
    """Two ways: a product of matrices, and every draw's rows; groups of unlike sizes, holes."""
    generator = np.random.default_rng(0)
    sizes = [3, 1, 2, 4, 2, 3]
    labels = {
        "group": ("prompt", np.repeat([*"abcdef"], sizes)),
        "kind": ("prompt", np.repeat([*"xxyyyy"], sizes)),
        "prompt": np.arange(sum(sizes))[::-1],
    }
    values = generator.normal(size=(2, sum(sizes), 3))
    values[0, [0, 4, 5], 1] = np.nan
    data = xr.DataArray(values, labels, ("layer", "prompt", "trait"))
    for interval in ("percentile", "bca") if strata is None else ("percentile",):
        given = {"group": group, "strata": strata, "repetitions": 300, "interval": interval}
        found, wanted = (
            cluster_bootstrap(data, way, generator=np.random.default_rng(1), **given)
            for way in ("mean", mean)
        )
        xr.testing.assert_allclose(found, wanted, rtol=1e-12)
        assert found.attrs == wanted.attrs
    one = cluster_bootstrap(data, "mean", generator=np.random.default_rng(2), **given)
    assert not np.allclose(one["low"], wanted["low"])
    with pytest.raises(ValueError, match="'median' was asked for"):
        cluster_bootstrap(data, "median", generator=generator)


def test_infinite_values_are_drawn_as_they_were():
    data = xr.DataArray([1.0, np.inf, 2.0, 3.0], dims="prompt")
    given = {"group": None, "repetitions": 200}
    found, wanted = (
        cluster_bootstrap(data, way, generator=np.random.default_rng(1), **given)
        for way in ("mean", mean)
    )
    assert found.attrs["undefined"] == wanted.attrs["undefined"] > 0


@pytest.mark.parametrize("sizes", [[2] * 8, [3, 1, 2, 4, 2, 3]], ids=["alike", "unlike"])
def test_many_draws_at_a_time_are_those_of_one_at_a_time(sizes, monkeypatch):
    monkeypatch.setattr("traits.statistics.bootstrap.AT_ONCE", 2000)
    generator, group = np.random.default_rng(0), np.arange(len(sizes))
    labels = {"prompt": np.arange(sum(sizes)), "group": ("prompt", np.repeat(group, sizes))}
    data = xr.DataArray(generator.normal(size=(sum(sizes), 3)), labels, ("prompt", "layer"))
    seen = []

    def within(rows):
        seen.append("draw" in rows.dims)
        return (rows.max("prompt") - rows.mean("prompt")) * rows["group"].max()

    given = {"repetitions": 90}
    found, wanted = (
        cluster_bootstrap(data, within, generator=np.random.default_rng(1), many=many, **given)
        for many in (True, False)
    )
    xr.testing.assert_allclose(found, wanted, rtol=1e-12)
    # several blocks where groups are alike, else one draw a call
    assert sum(seen) == (18 if len(set(sizes)) == 1 else 0)
