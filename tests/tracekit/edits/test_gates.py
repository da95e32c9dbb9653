"""Edits gated by a probe: by each token's score, or by that of the response so far."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tests.support.oracles import probes
from tests.support.steering import LAYER, NEW

QUIET = {"progress": False}
READ = 1


def median(row: np.ndarray) -> float:
    return float(np.median(row))


@pytest.fixture(scope="module")
def traces(tiny_llama: TransformersModel, plain: xr.Dataset) -> xr.DataArray:
    return tk.capture(tiny_llama, plain, **QUIET)


def gate(probe: xr.Dataset, over: float, change: steering.Acts, so_far: bool) -> dict[int, Any]:
    """Hooks that read block READ, keep what each row has said, and change block LAYER's output."""
    held: list[torch.Tensor] = []
    said: list[np.ndarray] = []

    def read(value: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        seen = value.numpy()
        if not so_far:
            held[:] = [torch.tensor(probes.token_scores(probe, seen) > over)[..., None]]
        elif value.shape[1] > 1:  # the prompts, in which nothing was said yet
            said[:] = [np.zeros((len(seen), 0, seen.shape[-1]))]
            held[:] = [torch.zeros(*value.shape[:2], 1, dtype=torch.bool)]
        else:
            said[:] = [np.concatenate([said[0], seen], 1)]
            pooled = [probes.pooled(probe, row) for row in said[0]]
            held[:] = [torch.tensor(np.array(pooled) > over)[:, None, None]]
        return value

    return {READ: read, LAYER: lambda value, acts: change(value, acts & held[0])}


def between(values: np.ndarray) -> float:
    """A threshold that about half of the values pass, away from each of them."""
    ordered = np.sort(values[np.isfinite(values)])
    return float(ordered[len(ordered) // 2 :][:2].mean())


@pytest.mark.parametrize("edit", ["steer", "ablate", "clamp", "edit"])
@pytest.mark.parametrize("kind", probes.KINDS)
def test_an_edit_gated_by_each_token_equals_plain_hooks(
    edit: str,
    kind: str,
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    traces: xr.DataArray,
    vectors: xr.DataArray,
    norm: float,
) -> None:
    probe, vector = probes.made(traces, kind, layer=READ), vectors.sel(layer=LAYER)
    over = between(probes.token_scores(probe, traces.sel(layer=READ).values))
    given: dict[str, Any] = {"when": tk.when(probe.assign(threshold=over)), "tokens": "all"}
    acts, model = {
        "steer": (
            steering.added(vector.values, 8 * norm),
            lambda: tk.steer(tiny_llama, vector, coefficient=8 * norm, **given),
        ),
        "ablate": (
            steering.projected_out(vector.values),
            lambda: tk.ablate(tiny_llama, vector, **given),
        ),
        "clamp": (
            steering.clamped(vector.values, 2 * norm, 3 * norm),
            lambda: tk.clamp(tiny_llama, vector, low=2 * norm, high=3 * norm, **given),
        ),
        "edit": (
            lambda value, where: torch.where(where, -value, value),
            lambda: tk.edit(tiny_llama, lambda v, n: -v, layers=LAYER, **given),
        ),
    }[edit]
    said = steering.response_ids(tk.generate(model(), asked, max_new_tokens=NEW, **QUIET))

    def hooked(limit: float) -> list[list[int]]:
        made = gate(probe, limit, acts, so_far=False)
        return steering.hooked_ids(tiny_llama, asked, made, None, NEW)

    assert said == hooked(over)
    if edit != "ablate":  # one component of 32 is too little to change these ids
        assert said != hooked(-np.inf)
        assert said != hooked(np.inf)


@pytest.mark.parametrize(
    "pooling",
    ["mean", "max", "ema(decay=0.8, take='max')", "top_k(k=2)", "attention", median],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
def test_an_edit_gated_by_the_response_so_far_equals_plain_hooks(
    pooling: Any,
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    traces: xr.DataArray,
    vectors: xr.DataArray,
    norm: float,
) -> None:
    kind = "attention" if pooling == "attention" else "linear"
    probe = probes.made(traces, kind, layer=READ, pooling=pooling)
    said = traces.sel(layer=READ, token=slice(0, None)).values
    over = between(np.array([probes.pooled(probe, row[np.isfinite(row).all(1)]) for row in said]))
    vector, acts = (
        vectors.sel(layer=LAYER),
        steering.added(vectors.sel(layer=LAYER).values, 8 * norm),
    )
    condition = tk.when(probe, above=over, pooling=pooling)
    model = tk.steer(tiny_llama, vector, coefficient=8 * norm, when=condition)

    def hooked(limit: float) -> list[list[int]]:
        made = gate(probe, limit, acts, so_far=True)
        return steering.hooked_ids(tiny_llama, asked, made, None, NEW)

    def ids(**options: Any) -> list[list[int]]:
        runs = tk.generate(model, asked, max_new_tokens=NEW, **options, **QUIET)
        return steering.response_ids(runs)

    assert ids() == hooked(over)
    assert ids() == ids(token_budget=1)  # what is kept of a row ends with its batch
    assert ids() != hooked(-np.inf)
    assert ids() != hooked(np.inf)


def test_a_replay_is_gated_where_the_generation_was(
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    traces: xr.DataArray,
    vectors: xr.DataArray,
) -> None:
    probe = probes.made(traces, layer=READ)
    so_far = tk.capture(tiny_llama, plain, probes=probe, **QUIET).sel(probe="probe")
    said = so_far.sel(token=slice(0, None))
    means = said.cumsum("token") / said.notnull().cumsum("token")
    over, vector = between(means.values), vectors.sel(layer=LAYER)
    condition = tk.when(probe, above=over, pooling="mean")
    edited = tk.steer(tiny_llama, vector, coefficient=7.0, tokens="all", when=condition)
    rise = xr.dot(tk.capture(edited, plain, [LAYER], **QUIET) - traces, vector, dim="dim")
    rise = rise.sel(layer=LAYER)
    want = 7.0 * ((means > over) & said.notnull())
    np.testing.assert_allclose(rise.sel(token=slice(0, None)).fillna(0), want, atol=1e-3)
    np.testing.assert_allclose(rise.sel(token=-1), 0.0, atol=1e-3)
    record = edited.tracekit_edits[0]["when"]
    assert (record["pooling"], record["bounds"][0]) == ("mean", over)
    assert record["probe"]["layer"] == READ


def test_gates_that_cannot_hold_are_refused(
    tiny_llama: TransformersModel, traces: xr.DataArray, vectors: xr.DataArray
) -> None:
    when, probe = inspect.unwrap(tk.when), probes.made(traces, layer=READ)
    with pytest.raises(ValueError, match=r"this one has NaN: none was set"):
        when(probe)
    with pytest.raises(ValueError, match=r"a probe and layer=1; a probe is read at its own"):
        when(probe, above=1.0, layer=1)
    with pytest.raises(ValueError, match=r"pooling='max' and a vector"):
        when(vectors.sel(layer=1), above=1.0, pooling="max")
    with pytest.raises(ValueError, match=r"needs a vector and a bound"):
        when(above=1.0)
    pair = xr.concat([probe, probe], xr.DataArray(["a", "b"], dims="target"))
    with pytest.raises(ValueError, match=r"has the targets \['a', 'b'\], and one is needed"):
        when(pair)

    def act(condition: Any, layers: Any = LAYER) -> TransformersModel:
        return tk.edit(tiny_llama, lambda value, n: value, layers=layers, when=condition)

    with pytest.raises(ValueError, match=r"when= reads layer 1, .* Read at layer 0 or before"):
        act(when(probe, above=1.0), 0)
    with pytest.raises(ValueError, match=r"probe has 16 dims and the residual stream"):
        act(when(probe.isel(dim=slice(16)), above=1.0))
    with pytest.raises(ValueError, match=r"with the linear probe 'probe', which has no query"):
        act(when(probe, above=1.0, pooling="attention"))
    raw = tk.edit(
        tiny_llama,
        lambda value, n: value,
        layers=LAYER,
        tokens="all",
        when=when(probe, above=1.0, pooling="max"),
    )
    with pytest.raises(ValueError, match=r"knows no response"), raw.trace("Hi"):
        raw.output.save()
