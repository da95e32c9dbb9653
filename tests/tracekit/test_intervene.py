"""Edits against plain forward hooks, id for id; in replay, composed, and on an adapter."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import steering
import torch
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tracekit.positions import require_tokens
from tracekit.provenance import read, stamp

NEW, LAYER = 10, 2


@pytest.fixture(scope="module")
def asked(tiny_llama: TransformersModel) -> xr.Dataset:
    return tk.encode(tiny_llama, steering.PROMPTS)


@pytest.fixture(scope="module")
def plain(tiny_llama: TransformersModel, asked: xr.Dataset) -> xr.Dataset:
    return tk.generate(tiny_llama, asked, max_new_tokens=NEW, progress=False)


@pytest.fixture(scope="module")
def vectors(tiny_llama: TransformersModel) -> xr.DataArray:
    return steering.unit_vectors(tiny_llama)


@pytest.fixture(scope="module")
def norm(tiny_llama: TransformersModel, plain: xr.Dataset) -> float:
    return steering.mean_norm(tiny_llama, plain, LAYER)


def _edited(kind: str, model: TransformersModel, vector: xr.DataArray, norm: float) -> tuple:
    values = vector.values
    if kind == "add":
        edit = tk.steer(model, vector, coefficient=2 * norm)
        return edit, steering.added(values, 2 * norm), steering.added(values, 1.0 * norm)
    if kind == "project out":
        edit = tk.ablate(model, vector)
        return edit, steering.projected_out(values), steering.projected_out(-np.roll(values, 1))
    low, high = 1.5 * norm, 2 * norm
    edit = tk.clamp(model, vector, low=low, high=high)
    return (
        edit,
        steering.clamped(values, low, high),
        steering.clamped(values, -2 * norm, -1.5 * norm),
    )


@pytest.mark.parametrize("kind", ["add", "project out", "clamp"])
def test_generation_equals_hooks_id_for_id(
    kind: str,
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    vectors: xr.DataArray,
    norm: float,
) -> None:
    edited, same, other = _edited(kind, tiny_llama, vectors.sel(layer=LAYER), norm)
    said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, progress=False))
    assert said == steering.hooked_ids(tiny_llama, asked, {LAYER: same}, -1, NEW)
    assert said != steering.hooked_ids(tiny_llama, asked, {LAYER: other}, -1, NEW)
    assert said != steering.response_ids(plain)
    unbatched = [
        tk.generate(edited, tk.encode(tiny_llama, [text]), max_new_tokens=NEW, progress=False)
        for text in steering.PROMPTS
    ]
    assert said == [steering.response_ids(run)[0] for run in unbatched]


def test_an_edit_at_every_layer_equals_hooks(
    tiny_llama: TransformersModel, asked: xr.Dataset, vectors: xr.DataArray, norm: float
) -> None:
    edited = tk.ablate(tiny_llama, vectors, tokens="all")
    said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, progress=False))
    acts = {n: steering.projected_out(vectors.sel(layer=n).values) for n in range(4)}
    assert said == steering.hooked_ids(tiny_llama, asked, acts, None, NEW)
    del acts[1]
    assert said != steering.hooked_ids(tiny_llama, asked, acts, None, NEW)


@pytest.mark.parametrize("kind", ["add", "project out", "clamp"])
def test_replay_of_a_steered_run_equals_what_generation_computed(
    kind: str, tiny_llama: TransformersModel, vectors: xr.DataArray, norm: float
) -> None:
    edited, _, _ = _edited(kind, tiny_llama, vectors.sel(layer=LAYER), norm)
    asked = tk.encode(tiny_llama, steering.PROMPTS)
    with tracked(tiny_llama, LAYER + 1) as during:
        runs = tk.generate(edited, asked, max_new_tokens=NEW, token_budget=4096, progress=False)
    # one left-padded batch, longest row first: the last column of every forward
    order = np.argsort(-runs.prompt_length.values, kind="stable")
    computed = np.stack([step[:, -1].numpy() for step in during], 1)[np.argsort(order)]
    replayed, unedited = (
        tk.capture(m, runs, [LAYER + 1], tokens="all", progress=False)
        .isel(layer=0)
        .sel(token=slice(-1, NEW - 2))
        .transpose("prompt", "token", "dim")
        .values
        for m in (edited, tiny_llama)
    )
    said = np.isfinite(replayed).all(-1)
    computed = computed[:, : said.shape[1]]
    assert said.sum(1).min() > 1
    scale = np.linalg.norm(computed, axis=-1)
    gap, off = (np.linalg.norm(x - computed, axis=-1) / scale for x in (replayed, unedited))
    assert gap[said].max() < 1e-4
    assert off[said].min() > 1e-4


class tracked:  # noqa: N801
    """What a block puts out in each forward, by a plain hook."""

    def __init__(self, model: TransformersModel, layer: int) -> None:
        self.block, self.seen = model._module.model.layers[layer], []

    def __enter__(self) -> list[torch.Tensor]:
        self.handle = self.block.register_forward_hook(
            lambda _, __, output: self.seen.append(output.detach().clone())
        )
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def test_ablation_leaves_nothing_along_the_vector_at_any_layer_or_position(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    edited = tk.ablate(tiny_llama, vectors, tokens="all")
    assert _along(edited, plain, vectors).max() < 1e-5
    assert _along(tiny_llama, plain, vectors).max() > 1e-2
    late = _along(tk.ablate(tiny_llama, vectors, tokens=slice(3, 5)), plain, vectors)
    assert late.sel(token=slice(3, 5)).max() < 1e-5
    assert float(late.sel(token=2).max()) > 1e-2


def _along(model: TransformersModel, runs: xr.Dataset, vectors: xr.DataArray) -> xr.DataArray:
    traces = tk.capture(model, runs, tokens="all", progress=False)
    norms = np.sqrt((traces**2).sum("dim", skipna=False))
    return abs(xr.dot(traces, vectors, dim="dim")) / norms


def test_steering_raises_the_projection_by_the_coefficient(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    vector = vectors.sel(layer=LAYER)
    edited = tk.steer(tiny_llama, vector, coefficient=3.5)
    before, after = (
        xr.dot(tk.capture(m, plain, [LAYER], progress=False), vector, dim="dim")
        for m in (tiny_llama, edited)
    )
    rise = (after - before).values
    np.testing.assert_allclose(rise[np.isfinite(rise)], 3.5, atol=1e-4)
    doubled = tk.capture(
        tk.steer(tiny_llama, 2 * vector, coefficient=3.5), plain, [LAYER], progress=False
    )
    rise = (xr.dot(doubled, vector, dim="dim") - before).values
    np.testing.assert_allclose(rise[np.isfinite(rise)], 7.0, atol=1e-4)


def test_mean_ablation_sets_the_component_by_layer(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    mean = xr.DataArray([1.0, -2.0], dims="layer", coords={"layer": [1, 3]})
    edited = tk.ablate(tiny_llama, vectors.sel(layer=[1, 3]), mean=mean)
    found = xr.dot(tk.capture(edited, plain, [1, 3], progress=False), vectors, dim="dim")
    np.testing.assert_allclose(found.sel(layer=1).max(), 1.0, atol=1e-4)
    np.testing.assert_allclose(found.sel(layer=3).min(), -2.0, atol=1e-4)


def test_clamp_keeps_what_is_within_and_moves_what_is_not(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    vector = vectors.sel(layer=LAYER)
    free = xr.dot(tk.capture(tiny_llama, plain, [LAYER], progress=False), vector, dim="dim")
    low, high = float(free.quantile(0.3)), float(free.quantile(0.7))
    edited = tk.clamp(tiny_llama, vector, low=low, high=high)
    held = xr.dot(tk.capture(edited, plain, [LAYER], progress=False), vector, dim="dim")
    np.testing.assert_allclose(held, free.clip(low, high), atol=1e-4)
    assert float(abs(held - free).max()) > 0.1


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


def test_patching_own_traces_changes_nothing_and_the_other_arms_reproduce_it(
    fresh_llama: TransformersModel, tiny_lora: Path
) -> None:
    model = fresh_llama
    runs = tk.generate(
        model, tk.encode(model, steering.PROMPTS), max_new_tokens=NEW, progress=False
    )
    everything = {"tokens": "all", "progress": False}
    clean = tk.capture(model, runs, **everything)
    with tk.adapter(model, str(tiny_lora)):
        organism = tk.capture(model, runs, **everything)
        own = tk.capture(tk.patch(model, organism), runs, **everything)
        other = tk.capture(tk.patch(model, clean), runs, **everything)
        early = tk.capture(tk.patch(model, clean, layers=[1]), runs, **everything)
        scores = tk.logprobs(tk.patch(model, clean), runs)
    assert float(abs(organism - clean).max()) > 0.1
    xr.testing.assert_equal(own.drop_attrs(), organism.drop_attrs())
    xr.testing.assert_equal(other.drop_attrs(), clean.drop_attrs())
    xr.testing.assert_equal(early.sel(layer=1).drop_attrs(), clean.sel(layer=1).drop_attrs())
    assert float(abs(early - clean).sel(layer=3).max()) > 0.1
    # logprobs makes other batches than capture, so rounding differs
    np.testing.assert_allclose(scores, tk.logprobs(model, runs), atol=1e-5)


def test_patch_acts_only_where_traces_have_values(
    tiny_llama: TransformersModel, plain: xr.Dataset
) -> None:
    traces = tk.capture(tiny_llama, plain, [LAYER], progress=False)
    moved = (traces + 7).assign_attrs(traces.attrs)
    moved.loc[{"prompt": "text/1", "token": 3}] = np.nan
    edited = tk.patch(tiny_llama, moved, tokens=slice(1, 4))
    found = tk.capture(edited, plain, [LAYER], progress=False) - traces
    row = found.isel(prompt=1, layer=0, dim=0)
    np.testing.assert_allclose(row.sel(token=[0, 1, 2, 3, 4, 5]), [0, 7, 7, 0, 7, 0], atol=1e-5)


def test_patch_refuses_what_is_not_the_same_ids(
    tiny_llama: TransformersModel, asked: xr.Dataset, plain: xr.Dataset
) -> None:
    traces = tk.capture(tiny_llama, plain, [LAYER], tokens="all", progress=False)
    other = plain.copy(deep=True)
    other.token_id.loc[{"token": 2}] = 17
    with pytest.raises(ValueError, match=r"token 2, the traces have the id \d+ and the run 17"):
        tk.capture(tk.patch(tiny_llama, traces), other, [LAYER], progress=False)
    with pytest.raises(ValueError, match=r"generated tokens \(label 0\)"):
        tk.generate(tk.patch(tiny_llama, traces), asked, max_new_tokens=3, progress=False)
    prompt = tk.patch(tiny_llama, traces, tokens=slice(None, -1))
    said = tk.generate(prompt, asked, max_new_tokens=NEW, progress=False)
    assert steering.response_ids(said) == steering.response_ids(plain)
    with pytest.raises(ValueError, match=r"traces of 1 prompts and none of 'text/1'"):
        tk.capture(tk.patch(tiny_llama, traces.isel(prompt=[0])), plain, progress=False)
    with pytest.raises(ValueError, match=r"have the dims \('prompt', 'layer', 'dim'\)"):
        tk.patch(tiny_llama, tk.capture(tiny_llama, plain, reduce="mean", progress=False))
    written = tk.capture(tiny_llama, plain, [LAYER], site="mlp", progress=False)
    with pytest.raises(ValueError, match="of the site 'mlp'"):
        tk.patch(tiny_llama, written)


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


BAD = {
    "dim": (lambda v: v.isel(dim=slice(8)).sel(layer=1), {}, r"8 dims .* has 32"),
    "depth": (
        lambda v: v.isel(layer=[0]).assign_coords(layer=[40]),
        {},
        r"layers \[40\] .* 0 to 3",
    ),
    "no such layer": (lambda v: v.sel(layer=[0, 1]), {"layers": [1, 2]}, r"\[2\] .* \[0, 1\]"),
    "no such block": (lambda v: v.sel(layer=1), {"layers": [4]}, r"\[4\] .* blocks 0 to 3"),
    "twice": (lambda v: v.sel(layer=1), {"layers": [2, 2]}, r"\[2, 2\]"),
    "no layer": (lambda v: v.sel(layer=1, drop=True), {}, r"layers="),
    "zero": (lambda v: v.sel(layer=1) * 0, {}, r"layer 1 has the norm 0"),
    "nan": (lambda v: v.sel(layer=1) * np.nan, {}, r"layer 1 has the norm nan"),
    "trait left": (
        lambda v: v.sel(layer=1).expand_dims(trait=["alignment/honesty"]),
        {},
        r"sel\(\{'trait': 'alignment/honesty'\}\)",
    ),
    "infinite": (lambda v: v.sel(layer=1), {"coefficient": np.inf}, r"coefficient=inf"),
    "tokens": (lambda v: v.sel(layer=1), {"tokens": "last"}, r"tokens='last'"),
    "backwards": (lambda v: v.sel(layer=1), {"tokens": slice(4, 2)}, r"slice\(4, 2"),
    "step": (lambda v: v.sel(layer=1), {"tokens": slice(0, 4, 2)}, r"no step"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_the_numbers(
    name: str, tiny_llama: TransformersModel, vectors: xr.DataArray
) -> None:
    spoil, given, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        tk.steer(tiny_llama, spoil(vectors), **{"coefficient": 1.0, **given})


def test_plain_arrays_and_tensors_act_at_the_layers_given(
    tiny_llama: TransformersModel, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    def moved(vector: object, layers: object) -> np.ndarray:
        edited = tk.steer(tiny_llama, vector, coefficient=3.0, layers=layers)
        return tk.capture(edited, plain, [0, LAYER], progress=False).values

    one, two = vectors.sel(layer=LAYER), vectors.sel(layer=[0, LAYER])
    expected = moved(one, None)
    for vector in (one.values, torch.tensor(one.values, requires_grad=True)):
        np.testing.assert_array_equal(moved(vector, LAYER), expected)
        np.testing.assert_array_equal(moved(vector, [LAYER]), expected)
    np.testing.assert_array_equal(moved(two.values, [0, LAYER]), moved(two, None))
    assert np.nanmax(abs(moved(two.values[::-1].copy(), [0, LAYER]) - moved(two, None))) > 0.1
    steer = inspect.unwrap(tk.steer)
    for vector, layers in ((one.values, None), (two.values, [1]), ([1.0, 2.0], 1), ("x", 1)):
        with pytest.raises(TypeError, match="an edit needs a DataArray"):
            steer(tiny_llama, vector, coefficient=1.0, layers=layers)
    with pytest.raises(ValueError, match=r"tokens=<DataArray of bool.*takes no mask"):
        inspect.unwrap(require_tokens)(plain.role == "user")


@pytest.mark.parametrize("size", [1e38, 1e30])
def test_values_that_become_infinite_are_refused(
    size: float, tiny_llama: TransformersModel, asked: xr.Dataset, vectors: xr.DataArray
) -> None:
    edited = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=size)
    message = r"steer \(edit 0, coefficient 1e\+3\d\) at layer 1 .* [1-4] rows, such as 'text/1'"
    for run in (
        lambda: tk.generate(edited, asked, max_new_tokens=3, progress=False),
        lambda: tk.generate(edited, asked, max_new_tokens=3, temperature=1.0, progress=False),
        lambda: tk.capture(edited, asked, progress=False),
    ):
        with pytest.raises(ValueError, match=message):
            run()
    large = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=1e10)
    tk.generate(large, asked, max_new_tokens=3, progress=False)


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
