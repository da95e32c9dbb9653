"""Probes scored inside the trace: what plain numpy makes of captured traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import forwards
from tests.support.forwards import QUIET
from tests.support.oracles import probes
from tracekit.passes import products as passes

POOLINGS = (
    "mean",
    "max",
    "last",
    "rolling_max(width=3)",
    "top_k(k=2)",
    "softmax(temperature=1.0)",
    "ema(decay=0.8, take='max')",
)


def median(row: np.ndarray) -> float:
    """A pooling that needs a row's scores all at once."""
    return float(np.median(row))


@pytest.fixture(scope="module")
def runs(tiny_llama: TransformersModel) -> xr.Dataset:
    return forwards.encoded(tiny_llama)


@pytest.fixture(scope="module")
def traces(tiny_llama: TransformersModel, runs: xr.Dataset) -> xr.DataArray:
    return tk.capture(tiny_llama, runs, **QUIET)


@pytest.fixture(scope="module")
def several(traces: xr.DataArray) -> dict[str, xr.Dataset]:
    """Of every kind, at unequal layers in no order, of every pooling."""
    made = {
        f"linear, {pooling}": probes.made(traces, layer=3 - n % 4, seed=n, pooling=pooling)
        for n, pooling in enumerate((*POOLINGS, median))
    }
    made["attention"] = probes.made(traces, "attention", layer=1)
    made["mlp"] = probes.made(traces, "mlp", layer=0, pooling="max", threshold=0.5)
    return made


def by_numpy(
    probe: xr.Dataset, traces: xr.DataArray, runs: xr.Dataset
) -> tuple[np.ndarray, list[float]]:
    """Token scores (prompt, token) and pooled ones, of traces."""
    residuals = traces.sel(layer=int(probe.layer))
    said = residuals.sel(token=slice(0, None)).values
    pooled = [probes.pooled(probe, row[np.isfinite(row).all(1)]) for row in said]
    return probes.token_scores(probe, residuals.values), pooled


def test_scores_in_the_trace_are_those_of_captured_traces(
    tiny_llama: TransformersModel,
    runs: xr.Dataset,
    traces: xr.DataArray,
    several: dict[str, xr.Dataset],
) -> None:
    scores = tk.capture(tiny_llama, runs, probes=several, **QUIET)
    assert scores.dims == ("prompt", "token", "probe")
    assert scores.probe.values.tolist() == list(several)
    assert scores.layer.values.tolist() == [int(one.layer) for one in several.values()]
    for name, probe in several.items():
        want, pooled = by_numpy(probe, traces, runs)
        one = scores.sel(probe=name)
        np.testing.assert_allclose(one, want, atol=1e-4, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(one.pooled, pooled, atol=1e-4, rtol=1e-4, err_msg=name)
        # the twin: one number of the probe is another
        other, moved = by_numpy(probe.assign(offset=probe.offset + 0.01), traces, runs)
        assert np.nanmax(np.abs(one - other)) > 5e-3
        assert np.abs(one.pooled - moved).max() > 5e-3


def test_scores_go_to_a_folder_and_go_on_where_they_stopped(
    tmp_path: Path,
    tiny_llama: TransformersModel,
    runs: xr.Dataset,
    several: dict[str, xr.Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {"probes": several, "token_budget": 60, **QUIET}
    whole = tk.capture(tiny_llama, runs, **options)
    path, shards = tmp_path / "scores", passes.shards

    def killed(work: Any, plan: Any) -> Any:
        for n, batch in enumerate(shards(work, plan)):
            if n == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(passes, "shards", killed)
    with pytest.raises(KeyboardInterrupt):
        tk.capture(tiny_llama, runs, path=path, **options)
    assert len(list(path.glob("*.nc"))) == 2
    monkeypatch.undo()
    there = tk.capture(tiny_llama, runs, path=path, **options).sel(prompt=whole.prompt)
    xr.testing.assert_equal(there.load(), whole)
    assert there.attrs == whole.attrs
    xr.testing.assert_equal(tk.open(tk.save(whole, tmp_path / "whole.nc")), whole)
    first = next(iter(several))
    other = {**several, first: several[first].assign(offset=1.0)}
    with pytest.raises(ValueError, match=r"holds a capture with other settings \(probes"):
        tk.capture(tiny_llama, runs, path=path, **{**options, "probes": other})


def test_a_probe_alone_a_list_and_targets_are_probes(
    tiny_llama: TransformersModel, runs: xr.Dataset, traces: xr.DataArray
) -> None:
    pair = [probes.made(traces, layer=n, seed=n) for n in (1, 2)]
    both = tk.capture(tiny_llama, runs, probes=pair, **QUIET)
    assert both.probe.values.tolist() == ["0", "1"]
    targets = xr.concat(
        pair, xr.DataArray(["lies", "tips"], dims="target"), combine_attrs="override"
    )
    for given, names in ((targets, ["lies", "tips"]), ({"a": targets}, ["a/lies", "a/tips"])):
        scores = tk.capture(tiny_llama, runs, probes=given, **QUIET)
        assert scores.probe.values.tolist() == names
        np.testing.assert_array_equal(scores.values, both.values)
    one = tk.capture(tiny_llama, runs, probes=pair[1], **QUIET)
    np.testing.assert_array_equal(one.sel(probe="probe"), both.sel(probe="1"))
    prompts = tk.capture(tiny_llama, runs, probes=pair[1], tokens="prompt", **QUIET)
    assert bool(prompts.pooled.isnull().all())
    assert tk.provenance(one)["probes"]["probe"]["layer"] == 2


def test_probes_of_another_model_layer_or_tokenizer_are_refused(
    tiny_llama: TransformersModel, runs: xr.Dataset, traces: xr.DataArray
) -> None:
    probe = probes.made(traces)

    def refused(match: str, given: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            tk.capture(tiny_llama, runs, probes=given, **options, **QUIET)

    def source(**changed: Any) -> xr.Dataset:
        made = tk.provenance(probe)
        return tk.stamp(probe, {**made, "source": {**made["source"], **changed}})

    refused(r"probe has 16 dims and the residual stream", probe.isel(dim=slice(16)))
    refused(r"blocks 0 to 3: it comes from a deeper model", probe.assign_coords(layer=7))
    refused(r"reads layer 2, and was fitted on traces of the layers \[1\]", source(layers=[1]))
    refused(r"and the vocabulary other", source(vocabulary="other"))
    refused(r"which has 9 blocks", source(depth=9))
    refused(r"fitted at site='mlp'", source(site="mlp"))
    refused(r"The probe was made with .* Pass transfer=True", source(weights="others"))
    moved = tk.capture(tiny_llama, runs, probes=source(weights="o"), transfer=True, **QUIET)
    assert tk.provenance(moved)["probes"]["probe"]["transfer"] is True
    refused(r"not finite of it is: offset", probe.assign(offset=np.nan))
    refused(r"lacks offset", probe.drop_vars("offset"))
    refused(r"which traits\.fit did not make", probe.assign_attrs(kind="vector"))
    refused(r"give at least one", [])
    refused(r"probes= and layers: a probe reads", probe, layers=[1])
    refused(r"probes= and site, round_to", probe, site="mlp", round_to="bfloat16")
