"""Edited models beside others: composed, captured, traced raw, with an adapter, known by record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tests.support.steering import LAYER
from tracekit.storage.provenance import read, stamp


def test_edits_compose_in_order_and_leave_the_original(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    vector = vectors.sel(layer=LAYER)

    def along(model: TransformersModel) -> np.ndarray:
        found = xr.dot(tk.capture(model, plain, [LAYER], progress=False), vector, dim="dim").values
        return found[np.isfinite(found)]

    before = along(tiny_llama)
    steered_last = tk.steer(tk.ablate(tiny_llama, vector), vector, coefficient=3.0)
    ablated_last = tk.ablate(tk.steer(tiny_llama, vector, coefficient=3.0), vector)
    np.testing.assert_allclose(along(steered_last), 3.0, atol=1e-4)
    np.testing.assert_allclose(along(ablated_last), 0.0, atol=1e-4)
    np.testing.assert_array_equal(along(tiny_llama), before)
    edits = read(tk.capture(steered_last, plain, [LAYER], progress=False))["edits"]
    assert [edit["kind"] for edit in edits] == ["ablate", "steer"]
    assert edits[1]["coefficient"] == 3.0
    assert read(tk.capture(tiny_llama, plain, [LAYER], progress=False))["edits"] == []


@pytest.mark.parametrize(("read_at", "edit_at"), [(0, 3), (3, 0), (1, 1)])
def test_capture_before_and_after_the_edited_layer(
    read_at: int,
    edit_at: int,
    tiny_llama: TransformersModel,
    plain: xr.Dataset,
    vectors: xr.DataArray,
) -> None:
    edited = tk.steer(tiny_llama, vectors.sel(layer=edit_at), coefficient=5.0)
    a, b = (tk.capture(m, plain, [read_at], progress=False) for m in (tiny_llama, edited))
    moved = float(abs(a - b).max())
    assert moved == 0 if read_at < edit_at else moved > 0.1
    if read_at >= edit_at:
        attention = tk.capture(edited, plain, [read_at], site="attention", progress=False)
        assert bool(np.isfinite(attention.sel(token=-1)).all())


def test_switching_the_adapter_off_on_an_edited_copy(
    fresh_llama: TransformersModel, tiny_lora: Path, vectors: xr.DataArray
) -> None:
    runs = tk.encode(fresh_llama, steering.PROMPTS[:2])
    with tk.adapter(fresh_llama, str(tiny_lora)):
        edited = tk.steer(fresh_llama, vectors.sel(layer=1), coefficient=2.0)
        on = tk.capture(edited, runs, progress=False)
        with tk.adapter(edited, None):
            off = tk.capture(edited, runs, progress=False)
        again = tk.capture(edited, runs, progress=False)
    bare = tk.capture(
        tk.steer(fresh_llama, vectors.sel(layer=1), coefficient=2.0), runs, progress=False
    )
    assert float(abs(on - off).max()) > 0.1
    xr.testing.assert_equal(on.drop_attrs(), again.drop_attrs())
    xr.testing.assert_equal(off.drop_attrs(), bare.drop_attrs())


def test_a_plain_nnsight_edit_goes_on_working_and_is_recorded(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    steered = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=2.0)
    with steered.edit() as (_, both):
        both.layers[2].output = both.layers[2].output * 0
    traces = tk.capture(both, plain, [2], progress=False)
    assert float(abs(traces).max()) == 0
    assert [edit["kind"] for edit in read(traces)["edits"]] == ["steer", "custom"]


def test_a_vector_of_other_weights_needs_transfer(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    here = read(tk.capture(tiny_llama, plain, [LAYER], progress=False))
    vector = stamp(vectors.sel(layer=LAYER), {"trait": "t", "source": here})
    assert tk.steer(tiny_llama, vector, coefficient=1.0).tracekit_edits[0] == {
        "kind": "steer",
        "vector": tk.steer(tiny_llama, vector, coefficient=2.0).tracekit_edits[0]["vector"],
        "layers": [LAYER],
        "tokens": "-1:None",
        "coefficient": 1.0,
        "source": here["weights"],
    }
    other = stamp(vector, {"source": {**here, "weights": "feedfeedfeedfeed", "model": "base"}})
    for edit in (
        lambda **k: tk.steer(tiny_llama, other, coefficient=1.0, **k),
        lambda **k: tk.ablate(tiny_llama, other, **k),
        lambda **k: tk.clamp(tiny_llama, other, high=1.0, **k),
    ):
        with pytest.raises(ValueError, match=r"base \(float32, weights feedfeed.*transfer=True"):
            edit()
        made = edit(transfer=True).tracekit_edits[0]
        assert made["transfer"] is True
        assert made["source_model"] == "base"
    # the end-of-turn id may differ between a base and its instruct model, the vocabulary not
    ends = stamp(vector, {"source": {**here, "tokenizer": "0123456789abcdef"}})
    assert tk.steer(tiny_llama, ends, coefficient=1.0).tracekit_edits
    words = stamp(vector, {"source": {**here, "vocabulary": "0123456789abcdef"}})
    old = {name: value for name, value in here.items() if name != "vocabulary"}
    tokens = stamp(vector, {"source": {**old, "tokenizer": "0123456789abcdef"}})
    deep = stamp(vector, {"source": {**here, "depth": 80}})
    for wrong, message in (
        (words, "the vocabulary 0123"),
        (tokens, "the tokenizer 0123"),
        (deep, "80 blocks; .* has 4"),
    ):
        with pytest.raises(ValueError, match=message):
            tk.steer(tiny_llama, wrong, coefficient=1.0, transfer=True)


def test_label_positions_in_a_raw_trace_are_refused(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    edited = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=1.0)
    inputs = tk.inputs(plain)
    with pytest.raises(ValueError, match=r"labels -1:None ran in a raw"), edited.trace(inputs):
        edited.layers[2].output.save()


@pytest.mark.filterwarnings("ignore:.*the loop asked for a step the run did not make")
def test_every_token_works_in_a_raw_trace(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    everywhere = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=1.0, tokens="all")
    with everywhere.trace(tk.inputs(plain)):
        hidden = everywhere.layers[2].output.save()
    traced = tk.label(hidden, plain, layer=2)
    captured = tk.capture(everywhere, plain, [2], tokens="all", progress=False)
    # one batch against capture's own, so rounding differs
    np.testing.assert_allclose(traced.values, captured.isel(layer=0).values, atol=1e-4)
    plainly = tk.capture(tiny_llama, plain, [2], tokens="all", progress=False)
    assert np.nanmax(abs(traced.values - plainly.isel(layer=0).values)) > 1e-2


def test_a_remote_model_is_refused(tiny_folder: Path, vectors: xr.DataArray) -> None:
    remote = tk.load(str(tiny_folder), remote=True)
    with pytest.raises(ValueError, match="edits do not travel"):
        tk.steer(remote, vectors.sel(layer=1), coefficient=1.0)


def test_a_steered_capture_never_passes_as_clean(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray, tmp_path: Path
) -> None:
    tk.capture(tiny_llama, plain, [1], path=tmp_path / "arm", progress=False)
    edited = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=1.0)
    with pytest.raises(ValueError, match="edits"):
        tk.capture(edited, plain, [1], path=tmp_path / "arm", progress=False)
    saved = json.dumps(read(tk.generate(edited, plain, max_new_tokens=1, progress=False))["text"])
    assert '"kind": "steer"' in saved
