"""Scores of traces by saved probes: values, laziness, projections, and every traces they refuse."""

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
import traits
from traits.probes.record import written

WORDS = ("tea", "snow", "Paris", "a cake", "the sea", "bread", "gold", "rain", "wood", "milk")


@pytest.fixture(scope="module")
def runs(tiny_llama) -> xr.Dataset:
    prompts = [f"What is {word}?" for word in WORDS]
    answers = [f"It is {word}" + " and so on" * (n % 3) + "." for n, word in enumerate(WORDS)]
    return tk.encode(tiny_llama, prompts, answers)


@pytest.fixture(scope="module")
def traces(tiny_llama, runs) -> xr.DataArray:
    return tk.capture(tiny_llama, runs, progress=False)


@pytest.fixture(scope="module")
def label() -> xr.DataArray:
    both = np.stack([np.arange(len(WORDS)) % 2, np.arange(len(WORDS)) < 5], 1)
    return xr.DataArray(both, {"target": ["odd", "early"]}, ("prompt", "target"))


@pytest.fixture(scope="module")
def probe(traces, label) -> xr.Dataset:
    rest = {"layers": 2, "inverse_penalty": 0.1, "fractions": {"fit": 1.0}}
    return traits.fit(traces, label.sel(target="odd", drop=True), pooling="max", **rest)


def by_hand(traces: xr.DataArray, probe: xr.Dataset) -> np.ndarray:
    at = traces.sel(layer=probe.layer.item()).values.astype(float)
    return at @ probe.weight.values.astype(float) + probe.offset.item()


def test_scores_are_the_weights_on_the_probes_layer(probe, traces):
    tokens = traits.token_scores(probe, traces)
    assert tokens.dims == ("prompt", "token")
    np.testing.assert_allclose(tokens, by_hand(traces, probe), rtol=1e-4, atol=1e-5)
    made = traits.score(probe, traces)
    assert made.equals(tk.pool(tokens, "max"))
    assert made.group.equals(traces.group)
    assert made.attrs["pooling"] == "max"
    mean = traits.score(probe, traces, pooling="mean", tokens=slice(-1, -1))
    assert mean.values.tolist() == tokens.sel(token=-1).values.tolist()
    other = probe.copy(deep=True)
    other["weight"][0] += 0.01
    assert not traits.score(other, traces).equals(made)
    marks = [tk.provenance(traits.score(one, traces))["probe"]["hash"] for one in (probe, other)]
    assert marks[0] != marks[1]


def test_a_saved_probe_and_a_capture_folder_give_the_same_scores(
    tiny_llama, runs, probe, traces, tmp_path
):
    folder = tk.capture(
        tiny_llama, runs, path=tmp_path / "capture", token_budget=80, progress=False
    )
    again = tk.open(tk.save(probe, tmp_path / "probe.nc"))
    lazy = traits.score(again, folder)
    assert lazy.chunks is not None
    expected = traits.score(probe, traces)
    xr.testing.assert_allclose(lazy.compute().sel(prompt=expected.prompt), expected, rtol=1e-3)


def test_several_targets_score_each_at_its_own_layer(traces, label):
    rest = {"inverse_penalty": 0.1, "method": "mean_diff"}
    probe = traits.fit(traces, label, fractions={"fit": 0.6, "select": 0.4}, **rest)
    probe = probe.assign_coords(layer=("target", [3, 1]))
    scores = traits.score(probe, traces)
    assert (scores.dims, scores.target.values.tolist()) == (("prompt", "target"), ["odd", "early"])
    for name in ("odd", "early"):
        one = probe.sel(target=name)
        np.testing.assert_allclose(scores.sel(target=name), traits.score(one, traces), rtol=1e-5)


def test_scores_of_projections_made_inside_the_trace(tiny_llama, runs, probe, traces, label):
    inside = tk.capture(tiny_llama, runs, vectors=probe.weight, progress=False)
    made = traits.score(probe, inside)
    np.testing.assert_allclose(made, traits.score(probe, traces), rtol=1e-4)
    other = probe.assign(weight=probe.weight * 2)
    with pytest.raises(tk.InputError, match="not this probe's weights"):
        traits.score(other, inside)
    with pytest.raises(tk.InputError, match="not this probe's weights"):
        traits.score(probe, traits.project(traces.sel(layer=2), probe.weight.expand_dims("trait")))


def test_the_mean_of_a_linear_probe_is_its_score_of_the_mean(probe, traces):
    reduced = traces.sel(token=slice(0, None)).mean("token", keep_attrs=True)
    made = traits.score(probe, reduced, pooling="mean")
    np.testing.assert_allclose(
        made, traits.score(probe, traces, pooling="mean"), rtol=1e-3, atol=1e-5
    )
    with pytest.raises(tk.InputError, match="one value a response"):
        traits.score(probe, reduced)
    with pytest.raises(tk.InputError, match="one value a response"):
        traits.token_scores(probe, reduced)


def test_attention_pools_by_its_own_logits(traces, label):
    weight, query = np.random.default_rng(0).normal(size=(2, 1, 32))
    parameters = {"weight": weight, "query": query, "offset": np.ones(1)}

    probe = written(parameters, [2], None, {"method": "attention", "pooling": "attention"}, {})
    at = traces.sel(layer=2, token=slice(0, None)).values.astype(float)
    logits, values = at @ query[0], at @ weight[0]
    share = np.exp(logits - np.nanmax(logits, 1, keepdims=True))
    expected = np.nansum(share * values, 1) / np.nansum(share, 1) + 1
    np.testing.assert_allclose(traits.score(probe, traces), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("depth", 7, "depth 4"),
        ("vocabulary", "other", "vocabulary"),
        ("site", "mlp", "the same site"),
        ("weights", "other", "transfer=True"),
    ],
)
def test_traces_of_something_else_are_refused(probe, traces, field, value, words):
    other = tk.stamp(traces, {**tk.provenance(traces), field: value})
    with pytest.raises(tk.InputError, match=words):
        traits.score(probe, other)
    if field == "weights":
        assert traits.score(probe, other, transfer=True).equals(traits.score(probe, traces))


def test_another_width_layer_or_kind_is_refused(probe, traces):
    with pytest.raises(tk.InputError, match="has 32 dims"):
        traits.score(probe, traces.isel(dim=slice(5)))
    with pytest.raises(tk.InputError, match="reads layer 2"):
        traits.score(probe, traces.sel(layer=[0, 1]))
    with pytest.raises(tk.InputError, match="A probe was asked for"):
        traits.score(probe.assign_attrs(kind="traces"), traces)
    with pytest.raises(tk.InputError, match="not finite"):
        traits.score(probe.assign(weight=probe.weight * np.nan), traces)


def test_a_token_without_a_value_is_named(probe, traces):
    broken = traces.copy(deep=True)
    broken.loc[{"prompt": broken.prompt[3], "token": 1, "layer": 2, "dim": 4}] = np.nan
    name = str(broken.prompt.values[3])
    with pytest.raises(tk.InputError, match=f"prompt '{name}', token 1"):
        traits.score(probe, broken)
    with pytest.raises(tk.InputError, match=f"prompt '{name}', token 1"):
        traits.score(probe, broken.chunk(prompt=2)).compute()
    assert np.isfinite(traits.score(probe, broken, tokens=slice(2, 2)).sel(prompt=name))
