"""Probes through files, scikit-learn and tables, back with the scores that they had."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import tracekit as tk
import traits
from traits.probes.record import read, written

PROMPTS, DIM = 30, 12


@pytest.fixture
def traces() -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(PROMPTS, 2, DIM)).astype(np.float32)
    coords = {
        "prompt": [f"set/{n}" for n in range(PROMPTS)],
        "layer": [3, 4],
        "group": ("prompt", [f"g/{n}" for n in range(PROMPTS)]),
    }
    made = xr.DataArray(values, coords, ("prompt", "layer", "dim"))
    return tk.stamp(made, {"weights": "w", "ids": "i", "model": "m"})


@pytest.fixture
def label(traces) -> xr.DataArray:
    values = np.stack([np.arange(PROMPTS) % 2, np.arange(PROMPTS) % 3 == 0], 1)
    coords = {"prompt": traces.prompt, "target": ["odd", "third"]}
    return xr.DataArray(values, coords, ("prompt", "target"))


def test_a_probe_of_several_targets_comes_back_from_safetensors(traces, label, tmp_path):
    probe = traits.fit(traces, label, inverse_penalty=0.1)
    probe["threshold"][:] = [0.25, -1.5]
    path = traits.write_probe(probe, tmp_path / "probe.safetensors")
    again = traits.read_probe(path)
    assert traits.score(again, traces).equals(traits.score(probe, traces))
    assert again.threshold.equals(probe.threshold)
    assert read(again).digest == read(probe).digest
    assert tk.provenance(again) == tk.provenance(probe)
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["layers"]) == probe.layer.values.tolist()
    other = probe.assign(weight=probe.weight + 1e-3)
    assert not traits.score(again, traces).equals(traits.score(other, traces))


def test_a_network_comes_back_from_safetensors(tmp_path):
    draw = np.random.default_rng(1)
    shapes = {"hidden_weight": (5, DIM), "hidden_offset": (5,), "weight": (5,), "offset": ()}
    given = {name: draw.normal(size=(1, *shape)) for name, shape in shapes.items()}
    probe = written(given, [3], None, {"method": "mlp", "pooling": "top_k(k=2)"}, {})
    again = traits.read_probe(traits.write_probe(probe, tmp_path / "mlp.safetensors"))
    assert again.identical(probe)


def test_a_direction_of_another_tool_needs_its_layer(traces, tmp_path):
    direction = np.arange(DIM, dtype=np.float32)
    torch.save(torch.tensor(direction), tmp_path / "direction.pt")
    torch.save(
        {"weight": torch.tensor(direction[None]), "bias": torch.tensor([2.0])}, tmp_path / "b.pt"
    )
    save_file({"weight": direction}, tmp_path / "direction.safetensors")
    for name, offset in (("direction.pt", 0.0), ("b.pt", 2.0), ("direction.safetensors", 0.0)):
        probe = traits.read_probe(tmp_path / name, layer=4)
        expected = traces.sel(layer=4).values @ direction + offset
        np.testing.assert_allclose(traits.score(probe, traces), expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(tk.InputError, match="needs layer="):
            traits.read_probe(tmp_path / name)
    torch.save(torch.ones(2, DIM), tmp_path / "two.pt")
    with pytest.raises(tk.InputError, match="holds one direction"):
        traits.read_probe(tmp_path / "two.pt", layer=4)


def test_a_pipeline_out_scores_as_the_probe(traces, label):
    probe = traits.fit(traces, label.sel(target="odd"), inverse_penalty=0.1, layers=3)
    pipeline = traits.to_sklearn(probe)
    rows = traces.sel(layer=3).values
    np.testing.assert_allclose(
        pipeline.decision_function(rows), traits.score(probe, traces), atol=1e-5
    )
    assert (
        pipeline.predict(rows).tolist()
        == (traits.score(probe, traces) > 0).astype(int).values.tolist()
    )
    with pytest.raises(tk.InputError, match="one linear probe"):
        traits.to_sklearn(traits.fit(traces, label, inverse_penalty=0.1))


def test_a_pipeline_in_scores_as_it_did(traces, label):
    rows, truth = traces.sel(layer=3).values.astype(float), label.sel(target="odd").values
    model = make_pipeline(StandardScaler(), PCA(5), LogisticRegression()).fit(rows, truth)
    probe = traits.from_sklearn(model, layer=3, traces=traces)
    scores = traits.score(probe, traces)
    np.testing.assert_allclose(scores, model.decision_function(rows), atol=1e-5)
    assert read(probe).source["weights"] == "w"
    model[-1].intercept_ += 0.01
    assert np.abs(scores - model.decision_function(rows)).max() > 1e-3


def test_what_is_no_linear_model_of_two_classes_is_refused(traces, label):
    rows, truth = traces.sel(layer=3).values.astype(float), label.sel(target="odd").values
    bent = make_pipeline(FunctionTransformer(np.abs), LogisticRegression()).fit(rows, truth)
    with pytest.raises(tk.InputError, match="no linear map"):
        traits.from_sklearn(bent, layer=3)
    three = LogisticRegression().fit(rows, np.arange(PROMPTS) % 3)
    for model in (three, LogisticRegression(), PCA(2).fit(rows)):
        with pytest.raises(tk.InputError, match="two classes"):
            traits.from_sklearn(model, layer=3)


def test_a_table_of_scores_has_prompts_labels_and_texts(traces, label, tmp_path):
    probe = traits.fit(traces, label, inverse_penalty=0.1)
    scores = traits.score(probe, traces)
    texts = [f"answer, {n}" for n in range(PROMPTS)]
    path = tmp_path / "scores.csv"
    made = traits.scores_table(
        scores, label.isel(prompt=slice(None, None, -1)), texts=texts, path=path
    )
    assert list(made.columns) == ["prompt", "target", "group", "label", "text", "score"]
    row = made[(made.prompt == "set/9") & (made.target == "third")].iloc[0]
    assert (row.label, row.text, row.group) == (1, "answer, 9", "g/9")
    assert row.score == scores.sel(prompt="set/9", target="third").item()
    again = pd.read_csv(path)
    assert again.text.tolist() == made.text.tolist()
    np.testing.assert_allclose(again.score, made.score, rtol=1e-6)
    one = traits.scores_table(scores.sel(target="odd"), label.sel(target="odd"))
    assert list(one.columns) == ["prompt", "group", "label", "score"]
    with pytest.raises(tk.InputError, match="do not match"):
        traits.scores_table(scores, label.isel(prompt=slice(5)))
    with pytest.raises(tk.InputError, match="No text was given"):
        traits.scores_table(scores, texts={"set/0": "one"})
