"""Probes against scikit-learn's pipelines on the same matrix; what is chosen, kept and refused."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tracekit as tk
import traits

PROMPTS, TOKENS, LAYERS = 60, 9, [4, 5, 6]


def traces(dim: int = 20, effect: float = 1.0) -> xr.DataArray:
    """Noise with holes and prompt tokens; at layer 5 the first dim carries the label."""
    draw = np.random.default_rng(dim)
    values = draw.normal(2.0, 3.0, size=(PROMPTS, TOKENS, len(LAYERS), dim)).astype(np.float32)
    values[1::2, :, 1, 0] += 3 * effect
    values[:7, 6:] = np.nan
    ids = np.where(np.isnan(values[:, :, 0, 0]), -1, 7).astype(np.int32)
    coords = {
        "prompt": [f"a/{n}" for n in range(PROMPTS)],
        "token": np.arange(-2, TOKENS - 2),
        "layer": LAYERS,
        "token_id": (("prompt", "token"), ids),
        "group": ("prompt", [f"g/{n // 2}" for n in range(PROMPTS)]),
        "label": ("prompt", np.arange(PROMPTS) % 2),
    }
    made = xr.DataArray(values, coords, ("prompt", "token", "layer", "dim"))
    return tk.stamp(made, {"weights": "w", "ids": "i", "model": "m", "tokenizer": "t"})


def logistic(values: np.ndarray, label: np.ndarray, weight: np.ndarray, penalty: float):
    classifier = LogisticRegression(C=penalty, class_weight="balanced", tol=1e-10, max_iter=10_000)
    pipeline = make_pipeline(StandardScaler(), classifier)
    return pipeline.fit(values.astype(np.float64), label, logisticregression__sample_weight=weight)


def mean_rows(held: xr.DataArray, rows: np.ndarray) -> np.ndarray:
    return held.sel(token=slice(0, None), layer=5).mean("token").values[rows]


@pytest.mark.parametrize("dim", [8, 100])
def test_logistic_of_means_is_scikit_learns_pipeline(dim):
    held = traces(dim)
    probe = traits.fit(held, "label", layers=5, inverse_penalty=0.1)
    rows = probe.part.values == "fit"
    expected = logistic(mean_rows(held, rows), held.label.values[rows], np.ones(rows.sum()), 0.1)
    every = mean_rows(held, np.ones(PROMPTS, bool)).astype(np.float64)
    scores = every @ probe.weight.values + probe.offset.item()
    np.testing.assert_allclose(scores, expected.decision_function(every), atol=1e-5)
    other = traits.fit(held, "label", layers=5, inverse_penalty=0.11)
    scores = every @ other.weight.values + other.offset.item()
    assert np.abs(scores - expected.decision_function(every)).max() > 1e-4


def test_logistic_of_tokens_lets_prompts_weigh_alike():
    held = traces()
    probe = traits.fit(held, "label", layers=5, inverse_penalty=0.1, rows="tokens")
    part = held.sel(token=slice(0, None), layer=5).isel(prompt=probe.part.values == "fit")
    flat = part.stack(row=("prompt", "token")).transpose("row", "dim")
    there = ~np.isnan(flat.values[:, 0])
    weight = 1 / (part.isel(dim=0).notnull().sum("token")).values
    weight = np.repeat(weight, part.sizes["token"])[there]
    label = np.repeat(part.label.values, part.sizes["token"])[there]
    for value in (0, 1):
        weight[label == value] *= weight.sum() / weight[label == value].sum() / 2
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-10, max_iter=9999))
    values = flat.values[there].astype(np.float64)
    half = part.sizes["prompt"] / 2
    for value in (0, 1):
        weight[label == value] *= half / weight[label == value].sum()
    pipeline.fit(values, label, logisticregression__sample_weight=weight)
    scores = values @ probe.weight.values + probe.offset.item()
    np.testing.assert_allclose(scores, pipeline.decision_function(values), atol=1e-5)


def test_mean_diff_has_its_zero_between_the_means():
    held = traces()
    probe = traits.fit(held, "label", layers=5, method="mean_diff")
    rows = probe.part.values == "fit"
    values, label = mean_rows(held, rows), held.label.values[rows]
    ends = [values[label == one].mean(0) for one in (0, 1)]
    np.testing.assert_allclose(probe.weight, ends[1] - ends[0], atol=1e-5)
    assert probe.offset.item() == pytest.approx(-(ends[1] - ends[0]) @ (ends[1] + ends[0]) / 2)


def test_the_choice_is_made_on_its_own_part():
    held = traces()
    probe = traits.fit(held, "label", pooling=["mean", "max"], method="mean_diff")
    assert probe.layer.item() == 5
    select = probe.part.values == "select"
    chosen = probe.selection.values[(probe.candidate_layer == 5).values]
    token = held.sel(token=slice(0, None), layer=5).isel(prompt=select)
    scores = xr.dot(token.fillna(0), probe.weight, dim="dim") + probe.offset
    scores = scores.where(token.isel(dim=0).notnull())
    expected = [
        roc_auc_score(held.label[select], tk.pool(scores, way).values) for way in ("mean", "max")
    ]
    np.testing.assert_allclose(chosen, expected, atol=1e-12)
    shuffled = held.copy(deep=True)
    report = np.flatnonzero(probe.part.values == "report")
    shuffled.values[report] = shuffled.values[report[::-1]] * 2
    again = traits.fit(shuffled, "label", pooling=["mean", "max"], method="mean_diff")
    assert again.drop_attrs().equals(probe.drop_attrs())


def test_a_saved_probe_is_read_by_another_process_without_tracekit(tmp_path):
    probe = traits.fit(traces(), "label")
    path = tk.save(probe, tmp_path / "probe.nc")
    assert tk.open(path).identical(probe)
    assert tk.provenance(probe)["source"]["weights"] == "w"
    code = (
        "import sys, xarray; d = xarray.open_dataset(sys.argv[1]); assert 'tracekit' not in "
        "sys.modules; print(d.weight.sizes['dim'], d.layer.item(), d.attrs['method'])"
    )
    command = [sys.executable, "-c", code, str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["20", "5", "logistic"]


@pytest.mark.parametrize("rows", ["mean", "tokens"])
def test_a_captures_folder_gives_the_probe_of_the_traces(tiny_llama, tmp_path, rows, monkeypatch):
    words = ("tea", "snow", "Paris", "cake", "sea", "bread", "gold", "rain", "wood", "milk") * 2
    answers = [f"{word}" + " and so on" * (n % 3) + "." for n, word in enumerate(words)]
    runs = tk.encode(tiny_llama, [f"What is {word}?" for word in words], answers)
    rest = {"layers": [1, 2], "progress": False}
    held = tk.capture(tiny_llama, runs, **rest)
    tk.capture(tiny_llama, runs, path=tmp_path / "capture", token_budget=100, **rest)
    label = xr.DataArray(np.arange(20) % 2, {"prompt": held.prompt}, "prompt")
    part = xr.DataArray(np.repeat(["fit", "select"], 10), {"prompt": held.prompt}, "prompt")
    settings = {"part": part, "groups": None, "method": "ridge", "rows": rows}
    expected = traits.fit(held, label, **settings)
    # rows that do not fit into memory are read again at each pass
    monkeypatch.setattr("traits.probes.fitting.table.MEMORY", 0)
    made = traits.fit(tmp_path / "capture", label, **settings)
    assert made.layer.item() == expected.layer.item()
    np.testing.assert_allclose(made.selection, expected.selection, atol=1e-12)
    scale = np.abs(expected.weight).max().item()
    np.testing.assert_allclose(made.weight, expected.weight, atol=1e-4 * scale)
    assert traits.fit(held, label, **settings, layers=1).layer.item() == 1
