"""Nulls of a probe: through its own choice, on its own parts, by groups; their size and power."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

import traits
from traits.probes.judging.null_fits import exchanged, probe_nulls
from traits.vectors.nulls import random_directions

PROMPTS, TOKENS, LAYERS, DIM = 72, 5, [2, 3], 6


def planted(effect=0.0, seed=0, tokens=TOKENS, dim=0, scale=1.0):
    """Noise in groups of two; at layer 3 a dim of some scale carries the label."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(PROMPTS, tokens, 2, DIM))
    label = draw.permutation(np.arange(PROMPTS) % 2)
    values[label == 1, :, 1, dim] += effect
    values[..., dim] *= scale
    coords = {
        "prompt": [f"a/{n}" for n in range(PROMPTS)],
        "group": ("prompt", [f"g/{n // 2}" for n in range(PROMPTS)]),
        "label": ("prompt", label),
        "token": np.arange(tokens),
        "layer": LAYERS,
    }
    return xr.DataArray(values.astype(np.float32), coords, ("prompt", "token", "layer", "dim"))


def fit(traces, **settings):
    settings = {"pooling": ["mean", "max"], "inverse_penalty": [0.01, 1.0], **settings}
    return traits.fit(traces, "label", generator=np.random.default_rng(0), **settings)


def report_area(probe, traces, label=None):
    rows = probe["part"].values == "report"
    truth = traces["label"].values if label is None else label
    return roc_auc_score(truth[rows], traits.score(probe, traces).values[rows])


def test_groups_are_exchanged_whole_and_turned_round():
    names = np.repeat(["b", "a", "c", "d"], 2)
    orders = [exchanged(names, np.random.default_rng(seed)) for seed in range(30)]
    for order in orders:
        assert sorted(order) == list(range(8))
        assert (names[order][::2] == names[order][1::2]).all()
    twins = np.tile([1, 0], 4)
    assert len({tuple(twins[order]) for order in orders}) > 8
    uneven = exchanged(np.array(["a", "b", "b", "b"]), np.random.default_rng(0))
    assert sorted(uneven) == [0, 1, 2, 3]


def test_a_shuffled_draw_is_a_fit_on_labels_in_another_order_judged_on_the_true_ones():
    traces = planted(0.5)
    probe = fit(traces)
    null = probe_nulls(
        probe,
        traces,
        "label",
        nulls=["shuffled labels"],
        draws=6,
        generator=np.random.default_rng(7),
    )
    generator, truth = np.random.default_rng(7), traces["label"].values
    rows = np.flatnonzero(probe["part"].values == "fit")
    for draw in null.isel(null=0):
        label = truth.copy()
        label[rows] = label[rows[exchanged(traces["group"].values[rows], generator)]]
        given = xr.DataArray(label, {"prompt": traces["prompt"]}, "prompt")
        other = traits.fit(
            traces,
            given,
            pooling=["mean", "max"],
            inverse_penalty=[0.01, 1.0],
            part=probe["part"],
        )
        assert draw.item() == pytest.approx(report_area(other, traces), abs=1e-12)
        assert (draw["layer"].item(), draw["pooling"].item()) == (
            other["layer"].item(),
            other.attrs["pooling"],
        )
    # the twin: the probe itself is none of the draws
    assert np.abs(null - report_area(probe, traces)).min() > 1e-3


def test_a_random_direction_is_one_of_the_covariance_of_the_rows_of_fit_at_each_layer():
    traces = planted(0.5)
    probe = fit(traces, pooling="mean", layers=3, inverse_penalty=0.1)
    null = probe_nulls(
        probe,
        traces,
        "label",
        nulls=["covariance-matched"],
        draws=8,
        generator=np.random.default_rng(3),
    )
    means = traces.sel(layer=3).mean("token")
    part, truth = probe["part"].values, traces["label"].values
    seed = int(np.random.default_rng(3).integers(2**31, size=1)[0])
    drawn = random_directions(
        means[0].drop_vars(means[0].coords), 8, covariance=means[part == "fit"], seed=seed
    )
    scores = (means @ drawn.reset_coords(drop=True)).values
    for value, score in zip(null.values[0], scores.T, strict=True):
        side = roc_auc_score(truth[part == "fit"], score[part == "fit"]) < 0.5
        area = roc_auc_score(truth[part == "report"], score[part == "report"])
        assert value == pytest.approx(1 - area if side else area, abs=1e-12)


def test_a_label_that_nearly_every_direction_reads_is_no_finding():
    medians = []
    for scale in (30.0, 1.0):
        traces = planted(1.0, scale=scale)
        generator = np.random.default_rng(0)
        null = probe_nulls(fit(traces), traces, "label", draws=30, generator=generator)
        medians.append(null.median("draw"))
    assert medians[0].sel(null="covariance-matched") > 0.88
    assert medians[1].sel(null="covariance-matched") < 0.82


def test_the_size_of_the_nulls_on_noise():
    rejected = {"shuffled labels": 0, "covariance-matched": 0}
    for seed in range(30):
        traces = planted(seed=seed, tokens=1)
        probe = fit(traces, method="mean_diff", pooling="mean")
        null = probe_nulls(probe, traces, "label", draws=9, generator=np.random.default_rng(seed))
        area = xr.DataArray(report_area(probe, traces))
        for name in rejected:
            p = traits.statistics.against_null(area, null.sel(null=name))["p"]
            rejected[name] += int(p <= 0.2)
    low, high = binom.interval(0.998, 30, 0.2)
    assert all(low <= count <= high for count in rejected.values()), rejected


def test_each_target_has_its_own_nulls_of_the_same_orders():
    traces = planted(1.0)
    labels = xr.concat([traces["label"], 1 - traces["label"]], "target").T
    labels = labels.assign_coords(target=["own", "other"]).reset_coords(drop=True)
    probe = traits.fit(traces, labels, generator=np.random.default_rng(0))
    null = probe_nulls(probe, traces, labels, draws=4, generator=np.random.default_rng(0))
    assert null.dims == ("null", "draw", "target")
    shuffled = null.sel(null="shuffled labels")
    np.testing.assert_allclose(shuffled.sel(target="own"), shuffled.sel(target="other"), atol=1e-9)


@pytest.mark.parametrize("method", ["attention", "mlp"])
def test_networks_have_nulls_too(method):
    traces = planted(1.0)
    pooling = "attention" if method == "attention" else "max"
    probe = fit(traces, method=method, pooling=pooling, inverse_penalty=0.1)
    null = probe_nulls(probe, traces, "label", draws=3, generator=np.random.default_rng(0))
    assert null.shape == (2, 3)
    assert ((null >= 0) & (null <= 1)).all()
    assert len(np.unique(null)) > 3


def test_labels_of_tokens_are_shuffled_in_runs():
    traces = planted()
    token = np.zeros((PROMPTS, TOKENS))
    token[:, 2:4] = 1.0
    values = traces.copy()
    values[:, 2:4, 1, 0] += 3.0
    labels = xr.DataArray(token, {k: traces[k] for k in ("prompt", "token")}, ("prompt", "token"))
    probe = traits.fit(values, labels, generator=np.random.default_rng(0))
    null = probe_nulls(probe, values, labels, draws=10, generator=np.random.default_rng(0))
    shuffled = null.sel(null="shuffled labels")
    assert abs(shuffled.mean() - 0.5) < 0.25
    assert probe["selection"].max() > shuffled.max()


def test_bad_input_is_refused():
    traces, generator = planted(1.0), np.random.default_rng(0)
    probe = fit(traces)
    with pytest.raises(ValueError, match="The nulls \\['placebo'\\] were asked for in 3 draws"):
        probe_nulls(probe, traces, "label", nulls=["placebo"], draws=3, generator=generator)
    with pytest.raises(ValueError, match="the traces have 70; 2 are only in one of both"):
        probe_nulls(probe, traces[:70], "label", generator=generator)
    report = probe["part"].values == "report"
    one = traces["label"].where(xr.DataArray(~report, dims="prompt"), 1)
    with pytest.raises(ValueError, match="The part 'report' has 0 prompts labelled 0"):
        probe_nulls(probe, traces, one, generator=generator)
    own = traits.fit(
        traces, "label", method=lambda values, label, weight: values[label == 1].mean(0)
    )
    with pytest.raises(ValueError, match="Give the function as method="):
        probe_nulls(own, traces, "label", generator=generator)
