"""The tokens that a probe reads: those that it was fitted on, in every place that scores it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
import traits

WORDS = ("tea", "snow", "Paris", "a cake", "the sea", "bread", "gold", "rain", "wood", "milk")
HOW: dict[str, Any] = {"groups": None, "inverse_penalty": 0.1, "fractions": {"fit": 1.0}}
ODD = xr.DataArray(np.arange(len(WORDS)) % 2, dims="prompt")
QUIET: dict[str, Any] = {"progress": False}


def last(values: torch.Tensor) -> torch.Tensor:
    return values[-1]


@pytest.fixture(scope="module")
def runs(tiny_llama) -> xr.Dataset:
    prompts = [tk.Prompt(f"w/{n}", text=f"What is {word}?") for n, word in enumerate(WORDS)]
    answers = [f"It is {word}" + " and so on" * (n % 3) + "." for n, word in enumerate(WORDS)]
    return tk.encode(tiny_llama, prompts, answers)


@pytest.fixture(scope="module")
def whole(tiny_llama, runs) -> xr.DataArray:
    return tk.capture(tiny_llama, runs, [2], tokens="all", **QUIET)


def inside(model: Any, runs: xr.Dataset, probe: xr.Dataset, **how: Any) -> xr.DataArray:
    captured = tk.capture(model, runs, probes=probe, **how, **QUIET)
    return captured.pooled.squeeze("probe", drop=True)


def test_a_probe_of_means_reads_the_tokens_of_their_capture(tiny_llama, runs, whole):
    flat = tk.capture(tiny_llama, runs, [2], tokens="all", reduce="mean", **QUIET)
    probe = traits.fit(flat, ODD, **HOW)
    assert (probe.attrs["tokens"], probe.attrs["pooling"]) == ("all", "mean")
    expected = traits.score(probe, flat).values
    for probe_of in (probe, probe.assign_attrs(tokens="0:None:None")):  # as once recorded
        np.testing.assert_allclose(traits.score(probe_of, whole), expected, rtol=1e-3, atol=1e-4)
        made = inside(tiny_llama, runs, probe_of)
        np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-4)
    response = tk.capture(tiny_llama, runs, [2], reduce="mean", **QUIET)
    with pytest.raises(tk.InputError, match=r"reads the tokens 'all'.*over '0:None:None'"):
        traits.score(probe, response)
    assert traits.score(probe, response, tokens=slice(0, None)).notnull().all()


def test_a_probe_of_values_reduced_otherwise_is_of_those_alone(tiny_llama, runs, whole):
    flat = tk.capture(tiny_llama, runs, [2], reduce=last, **QUIET)
    probe = traits.fit(flat, ODD, **HOW)
    name = tk.provenance(flat)["reduce"]
    assert probe.attrs["pooling"] == traits.score(probe, flat).attrs["pooling"] == name
    means = tk.capture(tiny_llama, runs, [2], reduce="mean", **QUIET)
    with pytest.raises(tk.InputError, match=r"'last:\w+' was asked for.*their mean over tokens"):
        traits.score(probe, means)
    for probe_of in (probe, probe.assign_attrs(pooling="mean")):  # as once recorded
        with pytest.raises(tk.InputError, match=r"pooling 'last:\w+' was asked for"):
            traits.score(probe_of, whole)
        with pytest.raises(tk.InputError, match=r"pooling 'last:\w+' was asked for"):
            inside(tiny_llama, runs, probe_of)
    made = traits.score(probe, whole, pooling="last")
    np.testing.assert_allclose(made, traits.score(probe, flat), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tokens", ["all", "prompt", slice(-5, -1)])
def test_all_tokens_that_a_probe_reads_are_captured_or_due(tiny_llama, runs, whole, tokens):
    probe = traits.fit(whole, ODD, tokens=tokens, **HOW)
    scores = traits.score(probe, whole)
    np.testing.assert_allclose(inside(tiny_llama, runs, probe), scores, rtol=1e-3, atol=1e-4)
    few = tk.capture(tiny_llama, runs, [2], **QUIET)
    with pytest.raises(tk.InputError, match=r"captured with tokens='response', lack \d+"):
        traits.score(probe, few)
    with pytest.raises(tk.InputError, match=r"captured with tokens='all', lack \d+"):
        traits.score(probe, whole.sel(token=slice(-1, None)))
    probe["threshold"] = scores.median()
    told = {"draws": 20, "generator": np.random.default_rng(0)}
    moved = traits.portability(probe, tiny_llama, tiny_llama, runs, labels=ODD, **told)
    np.testing.assert_allclose(moved["score_a"], scores, rtol=1e-3, atol=1e-4)


def test_a_probe_of_a_capture_of_few_tokens_reads_no_others(tiny_llama, runs, whole):
    few = tk.capture(tiny_llama, runs, [2], **QUIET)
    probe = traits.fit(few, ODD, tokens="all", **HOW)
    assert probe.attrs["tokens"] == "-1:None:None"
    expected = traits.score(probe, few)
    np.testing.assert_allclose(traits.score(probe, whole), expected, rtol=1e-3, atol=1e-4)
    cut = tk.capture(tiny_llama, runs, [2], tokens=slice(0, 2), **QUIET)
    with pytest.raises(tk.InputError, match=r"lack 2 of these labels \(first: -1\)"):
        traits.score(probe, cut)
    assert traits.fit(cut, ODD, **HOW).attrs["tokens"] == "0:2:None"


def test_labels_of_tokens_are_kept_whole_and_masks_asked_for_again(
    tiny_llama, runs, whole, tmp_path: Path
):
    draw, label = np.random.default_rng(0), np.arange(40) % 2
    values = draw.normal(size=(40, 60, 1, 4)) + 0.0
    values[:, :40, 0, 0] += 2 * label[:, None]
    coords = {"prompt": [f"a/{n}" for n in range(40)], "token": np.arange(-50, 10), "layer": [3]}
    traces = xr.DataArray(values, coords, ("prompt", "token", "layer", "dim"))
    truth, tokens = xr.DataArray(label, dims="prompt"), list(range(-50, -10))
    probe = traits.fit(traces, truth, groups=None, tokens=tokens)
    again = traits.read_probe(traits.write_probe(probe, tmp_path / "probe.safetensors"))
    for one in (probe, again):
        assert traits.score(one, traces).equals(traits.score(probe, traces, tokens=tokens))
    mask = xr.zeros_like(traces.isel(layer=0, dim=0, drop=True), dtype=bool)
    mask[:, :40] = True
    masked = traits.fit(traces, truth, groups=None, tokens=mask)
    with pytest.raises(tk.InputError, match="known by a hash alone"):
        traits.score(masked, traces)
    how: dict[str, Any] = {"groups": None, "resamples": 9, "tokens": mask}
    with pytest.raises(tk.InputError, match="known by a hash alone"):
        traits.evaluate_probe(masked, traces, truth, resamples=9, generator=draw)
    found = traits.evaluate_probe(masked, traces, truth, generator=draw, **how)
    assert found["estimate"].sel(measure="auroc") == 1
    curve = traits.learning_curve(
        traces, truth, train_sizes=[0.5, 1.0], draws=2, generator=draw, **how
    )
    assert (curve["test_score"] > 0.9).all()
    other = traces.assign_coords(prompt=[f"b/{n}" for n in range(40)])
    named = xr.concat([mask, mask.assign_coords(prompt=other["prompt"])], "prompt")
    sets = {"a": (traces, truth), "b": (other, truth)}
    table = traits.transfer_matrix(sets, generator=draw, **{**how, "tokens": named})
    assert (table["auroc"] > 0.9).all()
