"""Edits that act only where a projection is over a threshold, or at some steps."""

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
from tests.support.steering import LAYER, NEW

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def probe(vectors: xr.DataArray) -> xr.DataArray:
    return (3 * vectors).sel(layer=1)


@pytest.fixture(scope="module")
def threshold(tiny_llama: TransformersModel, plain: xr.Dataset, probe: xr.DataArray) -> float:
    """Between two values that the runs have: about half of the tokens are over it."""
    traces = tk.capture(tiny_llama, plain, [1], **QUIET)
    along = np.sort(xr.dot(traces, probe, dim="dim").values[plain.token_id.values[:, -11:] >= 0], 0)
    return float(along[len(along) // 2 :][:2].mean())


def hooks(
    probe: np.ndarray, over: float, edited: int, change: steering.Acts
) -> dict[int, steering.Acts]:
    """Hooks that read block 1 and change what a later one, or itself, puts out."""
    held: list[torch.Tensor] = []

    def read(value: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        held[:] = [(value @ torch.tensor(probe))[..., None] > over]
        return value if edited != 1 else change(value, acts & held[0])

    later = {edited: lambda value, acts: change(value, acts & held[0])}
    return {1: read, **(later if edited != 1 else {})}


@pytest.mark.parametrize("edited", [1, LAYER])
@pytest.mark.parametrize("kind", ["steer", "ablate", "clamp", "edit"])
def test_conditional_edits_equal_plain_hooks(
    kind: str,
    edited: int,
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    vectors: xr.DataArray,
    probe: xr.DataArray,
    threshold: float,
    norm: float,
) -> None:
    vector, condition = vectors.sel(layer=edited), tk.when(probe, above=threshold)
    given: dict[str, Any] = {"when": condition, "tokens": "all"}
    acts = {
        "steer": steering.added(vector.values, 8 * norm),
        "ablate": steering.projected_out(vector.values),
        "clamp": steering.clamped(vector.values, 2 * norm, 3 * norm),
        "edit": lambda value, where: torch.where(where, -value, value),
    }[kind]
    model = {
        "steer": lambda: tk.steer(tiny_llama, vector, coefficient=8 * norm, **given),
        "ablate": lambda: tk.ablate(tiny_llama, vector, **given),
        "clamp": lambda: tk.clamp(tiny_llama, vector, low=2 * norm, high=3 * norm, **given),
        "edit": lambda: tk.edit(tiny_llama, lambda v, n: -v, layers=edited, **given),
    }[kind]()
    said = steering.response_ids(tk.generate(model, asked, max_new_tokens=NEW, **QUIET))

    def hooked(over: float) -> list[list[int]]:
        made = hooks(probe.values, over, edited, acts)
        return steering.hooked_ids(tiny_llama, asked, made, None, NEW)

    assert said == hooked(threshold)
    if kind != "ablate":  # one component of 32 is too little to change these ids
        assert said != steering.response_ids(plain)
        assert said != hooked(-np.inf)
    assert tk.provenance(tk.generate(model, asked, max_new_tokens=1, **QUIET))["text"]["by"][
        "edits"
    ][0]["when"]["bounds"] == [threshold, "inf"]


def test_a_condition_acts_at_its_own_tokens(
    tiny_llama: TransformersModel,
    plain: xr.Dataset,
    vectors: xr.DataArray,
    probe: xr.DataArray,
    threshold: float,
) -> None:
    whole = {"tokens": "all", **QUIET}
    along = xr.dot(tk.capture(tiny_llama, plain, [1], **whole), probe, dim="dim")
    before = tk.capture(tiny_llama, plain, [LAYER], **whole)
    for bounds, want in (
        ({"above": threshold}, along > threshold),
        ({"below": threshold}, along < threshold),
        ({"above": threshold, "below": threshold + 9}, abs(along - threshold - 4.5) < 4.5),
        ({"above": tk.per_prompt(plain, [-np.inf, np.inf, threshold, np.inf])}, None),
    ):
        condition = tk.when(probe, **bounds)
        vector = vectors.sel(layer=LAYER)
        edited = tk.steer(tiny_llama, vector, coefficient=7.0, tokens="all", when=condition)
        rise = xr.dot(tk.capture(edited, plain, [LAYER], **whole) - before, vector, dim="dim")
        if want is None:
            over = xr.DataArray([-np.inf, np.inf, threshold, np.inf], dims="prompt")
            want = along > over
        there = (plain.token_id >= 0) & want.isel(layer=0)
        np.testing.assert_allclose(rise.isel(layer=0).fillna(0), 7.0 * there, atol=1e-3)


def test_steps_are_those_that_say_the_first_tokens_of_a_response(
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    vectors: xr.DataArray,
    norm: float,
) -> None:
    vector = vectors.sel(layer=LAYER)
    acts = {LAYER: steering.added(vector.values, 8 * norm)}
    width = asked.sizes["token"]

    def hooked(steps: slice) -> list[list[int]]:
        where = np.zeros((4, width + NEW), bool)
        where[:, width - 1 :][:, steps] = True
        return steering.hooked_ids(tiny_llama, asked, acts, where, NEW)

    condition = tk.when(steps=range(1, 4))
    edited = tk.steer(tiny_llama, vector, coefficient=8 * norm, tokens="all", when=condition)
    said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, **QUIET))
    assert said == hooked(slice(1, 4))
    assert said != hooked(slice(0, 3))
    assert [row[:1] for row in said] == [row[:1] for row in steering.response_ids(plain)]
    assert edited.tracekit_edits[0]["when"] == {"steps": [1, 4]}
    replayed = tk.logprobs(edited, plain) != tk.logprobs(tiny_llama, plain)
    moved = replayed.sel(token=slice(0, None)).any("prompt")
    assert int(moved.token[moved.argmax()]) == 1


def test_conditions_that_cannot_hold_are_refused(
    tiny_llama: TransformersModel, vectors: xr.DataArray, probe: xr.DataArray
) -> None:
    when = inspect.unwrap(tk.when)
    for given in ({}, {"vector": probe}, {"above": 1.0}, {"above": 1.0, "steps": range(3)}):
        with pytest.raises(ValueError, match=r"A projection needs a vector and a bound"):
            when(**given)
    for steps in (slice(0, 3), range(0), range(0, 9, 2), 3):
        with pytest.raises(TypeError, match=r"a range such as range\(10\)"):
            when(steps=steps)
    with pytest.raises(ValueError, match=r"dims \('layer', 'dim'\) and layer=None"):
        when(vectors, above=1.0)

    def act(layers: Any, **given: Any) -> None:
        tk.edit(tiny_llama, lambda value, n: value, layers=layers, **given)

    act([1, 2], when=tk.when(probe, above=1.0))
    with pytest.raises(ValueError, match=r"when= reads layer 1, .* Read at layer 0 or before"):
        act([0, 2], when=tk.when(probe, above=1.0))
    with pytest.raises(ValueError, match=r"when= reads layer 1, .* Read at layer 0 or before"):
        act([1], when=tk.when(probe, above=1.0), site="mlp")
    with pytest.raises(ValueError, match=r"has 16 dims and the residual stream"):
        act([1], when=tk.when(probe.isel(dim=slice(16)), above=1.0))
    with pytest.raises(ValueError, match=r"Layers \[9\]"):
        act([1], when=tk.when(probe.values, above=1.0, layer=9))


def test_the_embedding_is_read_though_no_edit_acts_there(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    every: dict[str, Any] = {"tokens": "all", **QUIET}
    vector = vectors.sel(layer=1)
    along = xr.dot(tk.capture(tiny_llama, plain, [-1], **every), vector, dim="dim").squeeze("layer")
    seen = np.unique(along.values[along.notnull().values].round(4))
    over = float(seen[len(seen) // 2 :][:2].mean())  # between two values, so no rounding decides
    gate = tk.when(vector.drop_vars("layer"), layer=-1, above=over)
    edited = tk.steer(tiny_llama, vector, coefficient=2.0, tokens="all", when=gate)
    moved = (tk.capture(m, plain, [1], **every).squeeze("layer") for m in (edited, tiny_llama))
    rise = xr.dot(next(moved) - next(moved), vector, dim="dim").where(along.notnull())
    there = along.notnull().values
    assert 0 < (along > over).sum() < there.sum()
    expected = 2.0 * (along > over).values[there]
    np.testing.assert_allclose(rise.values[there], expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"Layers \[-2\] .* -1 is the embedding output"):
        tk.steer(
            tiny_llama, vector, coefficient=2.0, when=tk.when(vector.values, layer=-2, above=over)
        )
