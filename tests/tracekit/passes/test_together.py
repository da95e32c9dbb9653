"""Several captures of one forward against plain transformers, killed and gone on with, refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support import forwards
from tests.support.forwards import QUIET, close
from tracekit.passes import batching, forward, together

LAYERS = (0, 1, 2)
TRAITS = ("t/one", "t/two")


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return forwards.encoded(tiny_llama)


@pytest.fixture(scope="module")
def plain(tiny_llama: Any, runs: xr.Dataset) -> dict[str, np.ndarray]:
    """Blocks' outputs and MLPs' (prompt, token, layer, dim), and logprobs, each row by itself."""
    ids = runs.token_id.values
    model, width = tiny_llama._module, tiny_llama._module.config.hidden_size
    found = {
        name: np.full((*ids.shape, len(LAYERS), width), np.nan, np.float32)
        for name in ("residual", "mlp")
    }
    found["logprob"] = np.full(ids.shape, np.nan, np.float32)
    for n, row in enumerate(ids):
        real = row >= 0
        mlps: list[torch.Tensor] = []
        hooks = [
            model.model.layers[layer].mlp.register_forward_hook(
                lambda *a, into=mlps: into.append(a[2])
            )
            for layer in LAYERS
        ]
        with torch.no_grad():
            out = model(torch.tensor(row[real])[None], output_hidden_states=True)
        for hook in hooks:
            hook.remove()
        found["residual"][n, real] = torch.stack(out.hidden_states[1:-1], 2)[0]
        found["mlp"][n, real] = torch.stack(mlps, 2)[0]
        scores = out.logits[0, :-1].log_softmax(-1)
        later = np.flatnonzero(real)[1:]
        found["logprob"][n, later] = scores.gather(-1, torch.tensor(row[real])[1:, None])[:, 0]
    return found


def vectors(width: int) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(2, 3, width)).astype(np.float32)
    return xr.DataArray(
        values, {"trait": list(TRAITS), "layer": [0, 1, 2]}, ("trait", "layer", "dim")
    )


def parts_of(runs: xr.Dataset) -> xr.DataArray:
    """Three parts of a row: two that overlap, one that only some rows have."""
    axis = runs.token.values
    here = [(axis >= 0) & (axis < 2), axis >= 1, axis >= 4]
    mask = np.broadcast_to(np.stack(here), (runs.sizes["prompt"], 3, len(axis)))
    real = runs.token_id.transpose("prompt", "token").values >= 0
    coords = {"prompt": runs.prompt.values, "stretch": ["a", "b", "c"], "token": axis}
    return xr.DataArray(mask & real[:, None], coords, ("prompt", "stretch", "token"))


def requests(tiny_llama: Any, runs: xr.Dataset) -> dict[str, tk.Request]:
    width = tiny_llama._module.config.hidden_size
    return {
        "window": tk.Request(layers=[1, 2]),
        "everything": tk.Request(layers=LAYERS, tokens="all"),
        "along": tk.Request(vectors=vectors(width), transfer=True),
        "added": tk.Request(layers=[0, 2], site="mlp", tokens=[0]),
        "likely": tk.Request(site="logprob"),
        "means": tk.Request(layers=[2], reduce="mean"),
        "parts": tk.Request(layers=[0, 2], tokens=parts_of(runs), reduce="mean"),
        "largest": tk.Request(
            layers=[2], tokens=parts_of(runs), reduce=("largest", lambda values: values.amax(0))
        ),
    }


@pytest.fixture(scope="module")
def found(tiny_llama: Any, runs: xr.Dataset) -> dict[str, xr.DataArray]:
    # batches of two and three rows, so that places in a batch are not those of the whole
    return tk.capture_many(tiny_llama, runs, requests(tiny_llama, runs), token_budget=64, **QUIET)


def test_each_request_has_the_plain_forwards_values(found, plain, runs):
    close(found["everything"], plain["residual"])
    at = runs.token.values
    close(found["window"], plain["residual"][:, at >= -1][..., 1:, :])
    close(found["added"], plain["mlp"][:, at == 0][:, :, [0, 2]])
    close(found["likely"], plain["logprob"])
    along = np.einsum(
        "pnld,tld->pnlt", plain["residual"][:, at >= -1], vectors(plain["mlp"].shape[-1]).values
    )
    close(found["along"], along)
    norm = np.linalg.norm(plain["residual"][:, at >= -1], axis=-1)
    close(found["along"].norm, norm)
    off = plain["logprob"].copy()
    off[2, np.flatnonzero(np.isfinite(off[2]))[1]] += 0.01
    with pytest.raises(AssertionError):
        close(found["likely"], off)


def test_parts_of_a_row_are_means_of_their_own_tokens(found, plain, runs):
    mask = parts_of(runs).values
    expected = np.full((len(mask), 2, 3, plain["residual"].shape[-1]), np.nan)
    largest = np.full((len(mask), 1, 3, plain["residual"].shape[-1]), np.nan)
    for row, part in np.argwhere(mask.any(-1)):
        mine = plain["residual"][row, mask[row, part]]
        expected[row, :, part] = mine[:, [0, 2]].mean(0)
        largest[row, 0, part] = mine[:, 2].max(0)
    assert np.isnan(expected).any()  # some row has no third part
    assert found["parts"].dims == ("prompt", "layer", "stretch", "dim")
    assert found["parts"]["stretch"].values.tolist() == ["a", "b", "c"]
    close(found["parts"], expected)
    close(found["largest"], largest)
    moved = parts_of(runs).roll(token=1, roll_coords=False).values
    assert (moved != mask).any()
    means = plain["residual"][:, runs.token.values >= 0]
    close(found["means"][:, 0], np.nanmean(means, axis=1)[:, 2])


def test_each_is_what_capture_alone_gives(tiny_llama, runs, found):
    for name, request in requests(tiny_llama, runs).items():
        if name == "likely":
            alone = tk.logprobs(tiny_llama, runs)
        else:
            given = {k: v for k, v in vars(request).items() if v is not None}
            alone = tk.capture(tiny_llama, runs, token_budget=64, **given, **QUIET)
        xr.testing.assert_allclose(alone, found[name], rtol=2e-6, atol=2e-6)
        left = {k: v for k, v in tk.provenance(alone).items() if k != "batches"}
        mine = tk.provenance(found[name])
        assert {k: mine[k] for k in left} == left


def test_every_batch_goes_through_once(tiny_llama, runs, monkeypatch):
    passes = []
    handle = tiny_llama._module.register_forward_hook(lambda *a: passes.append(1))
    tk.capture_many(tiny_llama, runs, requests(tiny_llama, runs), token_budget=4096, **QUIET)
    handle.remove()
    lengths = (runs.token_id.values >= 0).sum(1).tolist()
    assert len(passes) == len(batching.plan(lengths, 4096)) < len(requests(tiny_llama, runs))


def test_without_likelihoods_the_forward_stops_where_nothing_more_is_asked(tiny_llama, runs):
    reached = []
    handle = tiny_llama._module.model.layers[-1].register_forward_hook(lambda *a: reached.append(1))
    some = {"a": tk.Request(layers=[0]), "b": tk.Request(layers=[1], tokens="all")}
    tk.capture_many(tiny_llama, runs, some, **QUIET)
    assert not reached
    tk.capture_many(tiny_llama, runs, {**some, "c": tk.Request(site="logprob")}, **QUIET)
    handle.remove()
    assert reached


def test_a_killed_run_goes_on_with_what_any_lacks(tiny_llama, runs, found, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "SOON", 0)  # a file a batch
    asked = requests(tiny_llama, runs)
    made = []
    traced = forward._trace

    def dies(works, rows, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(rows)
        return traced(works, rows, *rest)

    options = {"path": tmp_path / "many", "token_budget": 64, **QUIET}
    monkeypatch.setattr(forward, "_trace", dies)
    with pytest.raises(KeyboardInterrupt):
        tk.capture_many(tiny_llama, runs, asked, **options)
    shards = {name: sorted((tmp_path / "many" / name).glob("0*.nc")) for name in asked}
    assert {len(some) for some in shards.values()} == {1}  # the second was under way
    # one lost another shard: it alone is written again
    shards["likely"][0].unlink()
    before = {name: some[0].stat().st_mtime_ns for name, some in shards.items() if some[0].exists()}
    monkeypatch.setattr(forward, "_trace", traced)
    whole = tk.capture_many(tiny_llama, runs, asked, **options)
    for name, stamp in before.items():
        assert shards[name][0].stat().st_mtime_ns == stamp
    for name, array in found.items():
        order = array.sel(prompt=whole[name].prompt.values)
        np.testing.assert_array_equal(whole[name].values, order.values)
        alone = tk.open(tmp_path / "many" / name)
        np.testing.assert_array_equal(alone.values, order.values)
    assert xr.open_dataset(tmp_path / "many" / "likely" / "00000.nc")["logprob"].dims == (
        "prompt",
        "token",
    )


def test_some_lie_in_folders_and_the_rest_in_memory(tiny_llama, runs, found, tmp_path):
    asked = requests(tiny_llama, runs)
    places = {"window": tmp_path / "w", "likely": tmp_path / "deep" / "l"}
    stamps = []
    for _ in range(2):  # what is in memory needs every batch; what is there is not written again
        many = tk.capture_many(tiny_llama, runs, asked, path=places, token_budget=64, **QUIET)
        stamps.append({file: file.stat().st_mtime_ns for file in tmp_path.rglob("0*.nc")})
    assert stamps[0] == stamps[1]
    assert {file.parent for file in stamps[0]} == {*places.values()}
    for name, array in found.items():
        there = many[name].sel(prompt=array.prompt.values)
        np.testing.assert_array_equal(there.values, array.values)
    with pytest.raises(tk.InputError, match="'other', which is no request"):
        tk.capture_many(tiny_llama, runs, asked, path={"other": tmp_path / "o"}, **QUIET)


def test_other_requests_into_the_same_folder_are_refused(tiny_llama, runs, tmp_path):
    tk.capture_many(tiny_llama, runs, {"a": tk.Request(layers=[0])}, path=tmp_path, **QUIET)
    with pytest.raises(tk.InputError, match="other settings"):
        tk.capture_many(tiny_llama, runs, {"a": tk.Request(layers=[1])}, path=tmp_path, **QUIET)


def test_an_edited_model_is_read_as_it_is_edited(tiny_llama, runs):
    width = tiny_llama._module.config.hidden_size
    vector = vectors(width).isel(trait=0, layer=[1])
    edited = tk.steer(tiny_llama, vector, coefficient=3.0, tokens="all", transfer=True)
    asked = {"r": tk.Request(layers=[1, 2], tokens="all"), "p": tk.Request(site="logprob")}
    many = tk.capture_many(edited, runs, asked, **QUIET)
    xr.testing.assert_allclose(
        many["r"], tk.capture(edited, runs, [1, 2], tokens="all", **QUIET), atol=1e-5
    )
    xr.testing.assert_allclose(many["p"], tk.logprobs(edited, runs), atol=1e-5)
    assert float(abs(many["p"] - tk.logprobs(tiny_llama, runs)).max()) > 1e-3


PATTERN = tk.Request(layers=[0], site="pattern")
FUNCTION = tk.Request(layers=[0], site=("mine", lambda block: block.mlp.output))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "a dict of tk.Request"),
        ({"a/b": tk.Request()}, "'a/b'.*no path"),
        ({"a": tk.Request(layers=[99])}, "request 'a'.*99"),
        ({"a": tk.Request(), "p": PATTERN}, "'p'.*pattern.*alone"),
        ({"a": tk.Request(), "f": FUNCTION}, "'f' reads by a function"),
        ({"l": tk.Request(site="logprob", layers=[1])}, "'l'.*with layers"),
        ({"l": tk.Request(site="logprob", reduce="mean")}, "'l'.*with reduce"),
        ({"l": tk.Request(site="logprob", nonfinite="mark")}, "'l'.*with nonfinite"),
        ({"l": tk.Request(site="logprob", transfer=True)}, "'l'.*with transfer"),
        ({"r": tk.Request(transfer=True)}, "request 'r': transfer=True was given without"),
    ],
)
def test_what_cannot_be_asked_together_is_refused_by_name(tiny_llama, runs, asked, words):
    with pytest.raises(tk.InputError, match=f"(?s){words}"):
        tk.capture_many(tiny_llama, runs, asked, **QUIET)


def test_how_a_folder_is_written_needs_a_folder(tiny_llama, runs, tmp_path):
    asked = {"r": tk.Request(layers=[1]), "l": tk.Request(site="logprob")}
    for path in (None, {}):
        with pytest.raises(tk.InputError, match="writers=0 was given without path="):
            tk.capture_many(tiny_llama, runs, asked, path=path, writers=0, **QUIET)
    some = tk.capture_many(tiny_llama, runs, asked, path={"r": tmp_path}, writers=0, **QUIET)
    assert set(some) == {"r", "l"}


def test_a_request_is_a_request():
    with pytest.raises(tk.InputError, match=r"a dict of tk\.Request"):
        together._require_names({"a": {"layers": [0]}}, None)


def test_parts_need_reduce_and_a_token(tiny_llama, runs):
    mask = parts_of(runs)
    with pytest.raises(tk.InputError, match="without reduce="):
        tk.capture(tiny_llama, runs, [0], tokens=mask, **QUIET)
    nothing = mask.copy(data=np.zeros(mask.shape, bool))
    with pytest.raises(tk.InputError, match="keeps nothing of 9 prompts"):
        tk.capture(tiny_llama, runs, [0], tokens=nothing, reduce="mean", **QUIET)


@pytest.mark.parametrize("reduce", ["mean", ("first", lambda values: values[0])])
def test_rows_without_a_part_are_left_out(tiny_llama, runs, tmp_path, reduce):
    mask = parts_of(runs)
    some = np.isin(np.arange(len(mask)), [1, 2, 6])
    few = mask.copy(data=mask.values & some[:, None, None])
    options = {"reduce": reduce, "token_budget": 64, **QUIET}  # some batch has none of them
    made = tk.capture(tiny_llama, runs, [0, 2], tokens=few, **options)
    whole = tk.capture(tiny_llama, runs, [0, 2], tokens=mask, **options)
    assert made.prompt.values.tolist() == runs.prompt.values[some].tolist()
    np.testing.assert_array_equal(made.values, whole.values[some])
    with pytest.raises(tk.InputError, match="in 6 of 9 rows"):
        tk.capture(tiny_llama, runs, [0], tokens=few, path=tmp_path / "x", **options)
