"""Rows of traces and what is said of them go together by prompt id, whatever the ids are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression

import tracekit as tk
import traits

LABEL = xr.DataArray(np.arange(60) % 2, dims="prompt")
HOW: dict[str, Any] = {"groups": None, "resamples": 9}


def traces() -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(60, 2, 6)) + LABEL.values[:, None, None]
    coords = {"prompt": np.arange(10, 70), "layer": [3, 7]}
    return xr.DataArray(values.astype(np.float32), coords, ("prompt", "layer", "dim"))


def test_numbers_as_ids_are_those_that_the_probe_keeps_as_text():
    probe = traits.fit(traces(), LABEL, groups=None)
    draw = np.random.default_rng(0)
    nulls = traits.probe_nulls(probe, traces(), LABEL, groups=None, draws=3, generator=draw)
    assert nulls.notnull().all()
    named = traces().assign_coords(prompt=traces()["prompt"].astype(str))
    how: dict[str, Any] = {**HOW, "draws": 2, "train_sizes": [0.5, 1.0]}
    curves = [
        traits.learning_curve(one, LABEL, generator=np.random.default_rng(0), **how)
        for one in (traces(), named)
    ]
    assert curves[0].equals(curves[1])


def test_labels_without_ids_are_not_laid_on_rows_in_the_order_of_batches(tiny_llama, tmp_path):
    nouns = [f"the {'very ' * (n % 3)}old river {n}" for n in range(20)]
    texts = [f"I {verb} {noun}." for noun in nouns for verb in ("love", "hate")]
    label = xr.DataArray(np.arange(40) % 2, dims="prompt")
    runs = tk.encode(tiny_llama, texts, template="raw")
    how: dict[str, Any] = {"tokens": slice(-4, -1), "progress": False, "token_budget": 60}
    memory = tk.capture(tiny_llama, runs, [2], **how)
    disk = tk.capture(tiny_llama, runs, [2], path=tmp_path / "capture", **how)
    assert disk["prompt"].values.tolist() != memory["prompt"].values.tolist()
    of: dict[str, Any] = {"groups": None, "tokens": "all", "inverse_penalty": 0.1}
    probe = traits.fit(memory, label, **of)
    named = label.assign_coords(prompt=runs["prompt"].values)
    for one in (disk, disk.load(), tmp_path / "capture"):
        with pytest.raises(tk.InputError, match=r"The labels have no prompt ids.*order of its bat"):
            traits.fit(one, label, **of)
        part = xr.DataArray(np.repeat(["fit", "report"], 20), dims="prompt")
        with pytest.raises(tk.InputError, match=r"The part have no prompt ids"):
            traits.fit(one, named, part=part, **of)
        assert traits.fit(one, named, **of)["prompt"].size == 40
    draw = np.random.default_rng(0)
    given = disk, traits.score(probe, disk)
    for one in given:
        with pytest.raises(tk.InputError, match=r"The labels have no prompt ids"):
            traits.evaluate_probe(probe, one, label, generator=draw, **HOW)
        found = traits.evaluate_probe(probe, one, named, generator=draw, **HOW)
        assert found["n"].sum() == (probe["part"] == "report").sum()


def test_a_part_of_another_name_is_reported_on_and_texts_are_no_labels():
    names = np.repeat(["fit", "select", "test"], [30, 14, 16])
    part = xr.DataArray(names, {"prompt": np.arange(10, 70)}, "prompt")
    probe = traits.fit(traces(), LABEL, groups=None, part=part)
    draw = np.random.default_rng(0)
    found = traits.evaluate_probe(probe, traces(), LABEL, generator=draw, **HOW)
    assert found["n"].values.tolist() == [8, 8]
    words = xr.DataArray(np.where(LABEL == 1, "yes", "no"), dims="prompt")
    with pytest.raises(tk.InputError, match=r"The labels are <U3 .*labels == 'x'"):
        traits.evaluate_probe(probe, traces(), words, generator=draw, **HOW)


def test_a_pipeline_is_a_probe_of_the_site_that_its_traces_have(tmp_path: Path):
    rows = traces().sel(layer=[3])
    made = {"model": "m", "weights": "w", "depth": 9, "vocabulary": "v"}
    mlp, residual = (tk.stamp(rows, {**made, "site": site}) for site in ("mlp", "residual"))
    model = LogisticRegression().fit(rows.values[:, 0], LABEL.values)
    probe = traits.from_sklearn(model, layer=3, traces=mlp)
    assert traits.score(probe, mlp).sizes["prompt"] == 60
    with pytest.raises(tk.InputError, match="the same site"):
        traits.score(probe, residual)
    assert tk.provenance(traits.from_sklearn(model, layer=3, site="mlp"))["site"] == "mlp"
    assert tk.provenance(traits.from_sklearn(model, layer=3))["site"] == "residual"
    with pytest.raises(tk.InputError, match="site='residual', and its traces are of 'mlp'"):
        traits.from_sklearn(model, layer=3, traces=mlp, site="residual")
