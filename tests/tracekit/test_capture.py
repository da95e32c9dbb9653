"""Capture against the plain Hugging Face forward, in every mode, in memory and on disk."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tracekit import asked
from tracekit.provenance import read, stamp

PROMPTS = [f"Question {n}: " + "why " * (5 * n % 13) for n in range(9)]
RESPONSES = ["Because " + "so " * (7 * n % 11) for n in range(9)]
QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return tk.encode(tiny_llama, PROMPTS, responses=RESPONSES)


@pytest.fixture(scope="module")
def oracle(tiny_llama: Any, runs: xr.Dataset) -> np.ndarray:
    """(prompt, token, layer, dim) of every real token, each row alone and unpadded, by HF."""
    ids = runs.token_id.values
    depth, width = len(tiny_llama.layers), tiny_llama._module.config.hidden_size
    found = np.full((*ids.shape, depth - 1, width), np.nan, np.float32)
    for n, row in enumerate(ids):
        with torch.no_grad():
            out = tiny_llama._module(torch.tensor(row[row >= 0])[None], output_hidden_states=True)
        # the last hidden state is normed, so the last block is left out
        found[n, row >= 0] = torch.stack(out.hidden_states[1:-1], 2)[0]
    return found


def _close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("budget", [64, 4096])
def test_full_traces_are_the_plain_forward(
    tiny_llama: Any, runs: xr.Dataset, oracle: np.ndarray, budget: int
) -> None:
    traces = tk.capture(tiny_llama, runs, [0, 1, 2], tokens="all", token_budget=budget, **QUIET)
    assert traces.dims == ("prompt", "token", "layer", "dim")
    assert traces.dtype == np.float32
    _close(traces, oracle)
    off = oracle.copy()
    off[4, np.flatnonzero(~np.isnan(off[4, :, 0, 0]))[0], 2, 5] += 0.1
    with pytest.raises(AssertionError):
        _close(traces, off)


def test_tokens_keep_what_their_labels_say(tiny_llama: Any, runs: xr.Dataset) -> None:
    whole = tk.capture(tiny_llama, runs, [1], tokens="all", **QUIET)
    response = tk.capture(tiny_llama, runs, [1], **QUIET)
    assert int(response.token.min()) == -1
    assert int(response.token.max()) == int(runs.token.max())
    _close(response, whole.sel(token=response.token))
    three = tk.capture(tiny_llama, runs, [1], tokens=slice(-2, 0), **QUIET)
    assert three.token.values.tolist() == [-2, -1, 0]
    _close(three, whole.sel(token=slice(-2, 0)))
    assert np.isnan(response.values[response.token_id.values < 0]).all()
    assert (response.role.values[response.token_id.values < 0] == "pad").all()


@pytest.mark.parametrize("writers", [0, 2])
def test_the_disk_gives_what_the_memory_has(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, writers: int
) -> None:
    memory = tk.capture(tiny_llama, runs, token_budget=128, **QUIET)
    disk = tk.capture(
        tiny_llama, runs, token_budget=128, path=tmp_path / "x", writers=writers, **QUIET
    )
    assert disk.chunks is not None
    xr.testing.assert_identical(disk.sel(prompt=memory.prompt).compute(), memory)
    plain = xr.open_mfdataset(
        str(tmp_path / "x" / "*.nc"), combine="nested", concat_dim="prompt", join="exact"
    )
    np.testing.assert_array_equal(plain[memory.name].sel(prompt=memory.prompt), memory)


def test_transcripts_from_a_file_go_through_writer_processes(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    again = tk.open(tk.save(runs, tmp_path / "runs.nc"))
    disk = tk.capture(tiny_llama, again, [1], path=tmp_path / "x", writers=1, **QUIET)
    memory = tk.capture(tiny_llama, runs, [1], **QUIET)
    xr.testing.assert_identical(disk.sel(prompt=memory.prompt).compute(), memory)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_projecting_inside_the_trace_is_projecting_afterwards(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, where: str
) -> None:
    traces = tk.capture(tiny_llama, runs, [0, 2, 3], **QUIET)
    values = np.random.default_rng(0).standard_normal((3, 4, traces.sizes["dim"]))
    vectors = xr.DataArray(
        values.astype(np.float32),
        dims=("trait", "layer", "dim"),
        coords={"trait": ["a/x", "a/y", "b/x"], "layer": range(4)},
    )
    path = tmp_path / "p" if where == "disk" else None
    found = tk.capture(tiny_llama, runs, [0, 2, 3], vectors=vectors, path=path, **QUIET)
    assert found.dims == ("prompt", "token", "layer", "trait")
    found = found.sel(prompt=traces.prompt)
    chosen = vectors.sel(layer=[0, 2, 3])
    expected = xr.dot(traces, chosen, dim="dim").transpose(*found.dims)
    norm = np.sqrt((traces**2).sum("dim", skipna=False))
    size = float(np.nanmax(norm) * np.sqrt((chosen**2).sum("dim")).max())
    np.testing.assert_allclose(found, expected, atol=1e-5 * size)
    np.testing.assert_allclose(found.norm, norm, rtol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, expected.roll(trait=1), atol=1e-5 * size)


def test_vectors_of_other_weights_need_transfer(tiny_llama: Any, runs: xr.Dataset) -> None:
    made = read(tk.capture(tiny_llama, runs, [0], **QUIET))
    vectors = xr.DataArray(
        np.ones((1, 1, 32), np.float32),
        dims=("trait", "layer", "dim"),
        coords={"trait": ["a/x"], "layer": [0]},
    )
    own = tk.capture(tiny_llama, runs, vectors=stamp(vectors, {"source": made}), **QUIET)
    assert read(own)["vectors_from"] == {"source": made["weights"]}
    other = stamp(vectors, {"source": {**made, "weights": "feedfeedfeedfeed", "model": "base"}})
    with pytest.raises(ValueError, match=r"base \(float32, weights feedfeed.*transfer=True"):
        tk.capture(tiny_llama, runs, vectors=other, **QUIET)
    moved = tk.capture(tiny_llama, runs, vectors=other, transfer=True, **QUIET)
    assert read(moved)["vectors_from"]["transfer"] is True
    np.testing.assert_array_equal(moved, own)
    deep = stamp(vectors, {"source": {**made, "depth": 80}})
    with pytest.raises(ValueError, match="80 blocks"):
        tk.capture(tiny_llama, runs, vectors=deep, transfer=True, **QUIET)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_reducing_inside_the_trace_is_reducing_afterwards(
    tiny_llama: Any, runs: xr.Dataset, tmp_path: Path, where: str
) -> None:
    path = tmp_path if where == "disk" else None
    traces = tk.capture(tiny_llama, runs, tokens=slice(0, None), **QUIET)
    inside = {"tokens": slice(0, None), **QUIET}
    mean = tk.capture(tiny_llama, runs, reduce="mean", path=path and path / "m", **inside)
    most = tk.capture(
        tiny_llama, runs, reduce=lambda x: x.amax(0), path=path and path / "x", **inside
    )
    assert mean.dims == most.dims == ("prompt", "layer", "dim")
    assert {"group", "prompt_length"} <= set(mean.coords)
    _close(mean.sel(prompt=traces.prompt), traces.mean("token"))
    _close(most.sel(prompt=traces.prompt), traces.max("token"))
    with pytest.raises(AssertionError):
        _close(most.sel(prompt=traces.prompt), traces.mean("token"))


def test_a_responses_mean_is_of_its_own_tokens(
    tiny_llama: Any, runs: xr.Dataset, oracle: np.ndarray
) -> None:
    own = tk.capture(tiny_llama, runs, [0, 1, 2], reduce="mean", **QUIET)
    said = np.where(runs.token.values[:, None, None] >= 0, oracle, np.nan)
    _close(own, np.nanmean(said, 1))
    with_prompt = np.where(runs.token.values[:, None, None] >= -1, oracle, np.nan)
    with pytest.raises(AssertionError):
        _close(own, np.nanmean(with_prompt, 1))
    last = tk.capture(tiny_llama, runs, [0], tokens=slice(-1, -1), reduce="mean", **QUIET)
    _close(last, oracle[:, runs.token.values == -1, :1].squeeze(1))
    prompts = tk.encode(tiny_llama, PROMPTS)
    with pytest.raises(
        ValueError, match=r"keeps nothing of 9 prompts.*slice\(-1, -1\) is the last"
    ):
        tk.capture(tiny_llama, prompts, reduce="mean", **QUIET)


def test_a_boolean_array_chooses_tokens(
    tiny_llama: Any, runs: xr.Dataset, oracle: np.ndarray, tmp_path: Path
) -> None:
    mask = (runs.role == "user") | ((runs.role == "assistant") & (runs.token % 2 == 0))
    shuffled = mask.isel(prompt=slice(None, None, -1)).transpose("token", "prompt")
    places = mask.transpose("prompt", "token").values
    whole = np.where(places[..., None, None], oracle, np.nan)
    memory = tk.capture(tiny_llama, runs, [0, 1, 2], tokens=shuffled, **QUIET)
    columns = np.isin(runs.token, memory.token)
    assert not places[:, ~columns].any()
    _close(memory, whole[:, columns])
    disk = tk.capture(tiny_llama, runs, [0, 1, 2], tokens=mask, path=tmp_path / "x", **QUIET)
    xr.testing.assert_identical(disk.sel(prompt=memory.prompt).compute(), memory)
    with pytest.raises(ValueError, match="other settings"):
        tk.capture(tiny_llama, runs, [0, 1, 2], tokens=~mask, path=tmp_path / "x", **QUIET)
    for wrong in (mask.astype(int), mask.isel(prompt=0, drop=True), mask.isel(prompt=slice(3))):
        with pytest.raises(ValueError, match="a mask is boolean, over"):
            tk.capture(tiny_llama, runs, tokens=wrong, **QUIET)


@pytest.mark.parametrize(
    "tokens", [np.ones((9, 4), bool), [0, 1], 3, None, slice("a", "b"), slice(0.5, 2)]
)
def test_other_tokens_are_refused(tiny_llama: Any, runs: xr.Dataset, tokens: Any) -> None:
    with pytest.raises(ValueError, match=r"was asked for; there are 'response', 'all', slices"):
        inspect.unwrap(asked.kept_tokens)(runs, tokens)


def test_one_layer_is_a_number(tiny_llama: Any, runs: xr.Dataset) -> None:
    several = tk.capture(tiny_llama, runs, [2], **QUIET)
    for one in (2, np.int64(2), np.array([2]), xr.DataArray(2)):
        xr.testing.assert_identical(
            inspect.unwrap(tk.capture)(tiny_llama, runs, one, **QUIET), several
        )
    for wrong in (2.0, "all", [True, False], [[1, 2]], ["1"]):
        with pytest.raises(TypeError, match="give a block's index such as 12"):
            inspect.unwrap(tk.capture)(tiny_llama, runs, wrong, **QUIET)


def test_rounding_to_bfloat16_is_torchs_and_recorded(tiny_llama: Any, runs: xr.Dataset) -> None:
    exact = tk.capture(tiny_llama, runs, [1], **QUIET)
    rounded = tk.capture(tiny_llama, runs, [1], round_to="bfloat16", **QUIET)
    expected = torch.as_tensor(exact.values).bfloat16().float().numpy()
    np.testing.assert_array_equal(rounded.values, expected)
    assert not np.array_equal(exact.values, expected, equal_nan=True)
    assert read(rounded)["round_to"] == "bfloat16"


def test_a_site_may_be_a_function_of_the_block(tiny_llama: Any, runs: xr.Dataset) -> None:
    site = lambda block: block.mlp.output
    found = tk.capture(tiny_llama, runs, [2], site=site, **QUIET)
    np.testing.assert_array_equal(found, tk.capture(tiny_llama, runs, [2], site="mlp", **QUIET))


@pytest.fixture
def planted(fresh_llama: Any, runs: xr.Dataset) -> Any:
    """A model whose block 2 gives infinity at the token of prompt 5 with label 1."""
    victim = int(runs.token_id.sel(token=1).values[5])
    embed, mlp = fresh_llama._module.model.embed_tokens, fresh_llama._module.model.layers[2].mlp
    seen: dict[str, torch.Tensor] = {}
    inner, outer = embed.forward, mlp.forward

    def remember(ids: torch.Tensor) -> torch.Tensor:
        seen["last"] = ids == victim
        return inner(ids)

    def overflow(x: torch.Tensor) -> torch.Tensor:
        out = outer(x)
        return out.masked_fill(seen["last"][..., None], float("inf"))

    embed.forward, mlp.forward = remember, overflow
    return fresh_llama


@pytest.mark.parametrize("mode", ["full", "mean", "vectors", "disk"])
def test_infinity_stops_the_run_and_names_its_place(
    planted: Any, runs: xr.Dataset, tmp_path: Path, mode: str
) -> None:
    vectors = xr.DataArray(
        np.ones((1, 4, 32), np.float32),
        dims=("trait", "layer", "dim"),
        coords={"trait": ["a/x"], "layer": range(4)},
    )
    how: dict[str, Any] = {
        "full": {},
        "mean": {"reduce": "mean"},
        "vectors": {"vectors": vectors},
        "disk": {"path": tmp_path / "x"},
    }[mode]
    ids = runs.token_id.values
    victim = int(runs.token_id.sel(token=1).values[5])
    kept = (ids == victim) & (runs.token.values >= -1)
    rows = {str(runs.prompt.values[n]) for n in np.argwhere(kept)[:, 0]}
    with pytest.raises(ValueError, match=r"not finite .*prompt '.*', token \d+, layer 2 ") as error:
        tk.capture(planted, runs, [1, 2], **how, **QUIET)
    named = str(error.value).split("prompt '")[1].split("'")[0]
    token = int(str(error.value).split("token ")[1].split(",")[0])
    assert named in rows
    assert int(runs.token_id.sel(prompt=named, token=token)) == victim
    tk.capture(planted, runs, [1], **QUIET)


def test_infinity_is_kept_where_it_was_asked_to_be_marked(planted: Any, runs: xr.Dataset) -> None:
    marked = tk.capture(planted, runs, [1, 2], nonfinite="mark", **QUIET)
    assert np.isinf(marked.sel(layer=2)).any()
    assert not np.isinf(marked.sel(layer=1)).any()
    assert read(marked)["nonfinite"] == "mark"


def test_a_batch_that_does_not_fit_is_split_inside_a_trace(
    fresh_llama: Any, runs: xr.Dataset, tmp_path: Path
) -> None:
    expected = tk.capture(fresh_llama, runs, [1, 3], **QUIET)
    mlp = fresh_llama._module.model.layers[2].mlp
    inner, sizes = mlp.forward, []

    def full(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return inner(x)

    mlp.forward = full
    found = tk.capture(fresh_llama, runs, [1, 3], path=tmp_path / "x", **QUIET)
    assert max(sizes) > 2
    _close(found.sel(prompt=expected.prompt), expected)


@pytest.mark.parametrize("budget", [60, 4096])
def test_generating_shows_what_the_replay_shows(tiny_llama: Any, budget: int) -> None:
    prompts = tk.encode(tiny_llama, PROMPTS[:4])
    settings = {"max_new_tokens": 6, "token_budget": budget, **QUIET}
    runs, traces = tk.capture_during(tiny_llama, prompts, [0, 3], **settings)
    xr.testing.assert_identical(runs, tk.generate(tiny_llama, prompts, **settings))
    replay = tk.capture(tiny_llama, runs, [0, 3], **QUIET)
    lengths = (runs.token_id.sel(token=slice(0, None)) >= 0).sum("token").values
    steps = (~np.isnan(traces.isel(layer=0, dim=0))).sum("token").values
    np.testing.assert_array_equal(steps, lengths)  # the last prompt token, and all but the last
    assert read(traces)["during"] == "generation"
    assert read(traces)["edits"] == []
    expected = replay.sel(token=traces.token).where(traces.token_id >= 0)
    np.testing.assert_allclose(traces, expected, atol=2e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(traces, expected.roll(token=1), atol=2e-5)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"layers": [2, 9]}, r"Layers \[9\] were asked for; this model has blocks 0 to 3"),
        ({"tokens": "answer"}, r"tokens='answer' was asked for; there are 'response'"),
        ({"tokens": slice(50, 60)}, r"keeps nothing of 9 prompts"),
        ({"reduce": "median"}, r"reduce='median' was asked for; there is 'mean'"),
        ({"round_to": "float16"}, r"round_to='float16'"),
        ({"compression": "gzip"}, r"compression='gzip' was asked for; there are none, zlib"),
    ],
)
def test_what_does_not_fit_is_refused(
    tiny_llama: Any, runs: xr.Dataset, how: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        tk.capture(tiny_llama, runs, **how, **QUIET)


def test_vectors_of_another_width_or_other_layers_are_refused(
    tiny_llama: Any, runs: xr.Dataset
) -> None:
    vectors = xr.DataArray(
        np.ones((1, 2, 8), np.float32),
        dims=("trait", "layer", "dim"),
        coords={"trait": ["a/x"], "layer": [0, 1]},
    )
    with pytest.raises(ValueError, match=r"8 dims and the residual stream of .* has 32"):
        tk.capture(tiny_llama, runs, vectors=vectors, **QUIET)
    wide = xr.DataArray(
        np.ones((1, 2, 32), np.float32), dims=vectors.dims, coords=dict(vectors.coords)
    )
    with pytest.raises(ValueError, match=r"Layers \[3\] .* not in the array, which has \[0, 1\]"):
        tk.capture(tiny_llama, runs, [0, 3], vectors=wide, **QUIET)
    with pytest.raises(ValueError, match="both given"):
        tk.capture(tiny_llama, runs, [0], vectors=wide, reduce="mean", **QUIET)
