"""Capture against the plain Hugging Face forward, of any tokens, in memory and on disk."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support import forwards
from tests.support.forwards import PROMPTS, QUIET, close
from tracekit.storage.provenance import read


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return forwards.encoded(tiny_llama)


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


@pytest.mark.parametrize("budget", [64, 4096])
def test_full_traces_are_the_plain_forward(
    tiny_llama: Any, runs: xr.Dataset, oracle: np.ndarray, budget: int
) -> None:
    traces = tk.capture(tiny_llama, runs, [0, 1, 2], tokens="all", token_budget=budget, **QUIET)
    assert traces.dims == ("prompt", "token", "layer", "dim")
    assert traces.dtype == np.float32
    close(traces, oracle)
    off = oracle.copy()
    off[4, np.flatnonzero(~np.isnan(off[4, :, 0, 0]))[0], 2, 5] += 0.1
    with pytest.raises(AssertionError):
        close(traces, off)


def test_tokens_keep_what_their_labels_say(tiny_llama: Any, runs: xr.Dataset) -> None:
    whole = tk.capture(tiny_llama, runs, [1], tokens="all", **QUIET)
    response = tk.capture(tiny_llama, runs, [1], **QUIET)
    assert int(response.token.min()) == -1
    assert int(response.token.max()) == int(runs.token.max())
    close(response, whole.sel(token=response.token))
    three = tk.capture(tiny_llama, runs, [1], tokens=slice(-2, 0), **QUIET)
    assert three.token.values.tolist() == [-2, -1, 0]
    close(three, whole.sel(token=slice(-2, 0)))
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


def test_a_responses_mean_is_of_its_own_tokens(
    tiny_llama: Any, runs: xr.Dataset, oracle: np.ndarray
) -> None:
    own = tk.capture(tiny_llama, runs, [0, 1, 2], reduce="mean", **QUIET)
    said = np.where(runs.token.values[:, None, None] >= 0, oracle, np.nan)
    close(own, np.nanmean(said, 1))
    with_prompt = np.where(runs.token.values[:, None, None] >= -1, oracle, np.nan)
    with pytest.raises(AssertionError):
        close(own, np.nanmean(with_prompt, 1))
    last = tk.capture(tiny_llama, runs, [0], tokens=slice(-1, -1), reduce="mean", **QUIET)
    close(last, oracle[:, runs.token.values == -1, :1].squeeze(1))
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
    close(memory, whole[:, columns])
    disk = tk.capture(tiny_llama, runs, [0, 1, 2], tokens=mask, path=tmp_path / "x", **QUIET)
    xr.testing.assert_identical(disk.sel(prompt=memory.prompt).compute(), memory)
    with pytest.raises(ValueError, match="other settings"):
        tk.capture(tiny_llama, runs, [0, 1, 2], tokens=~mask, path=tmp_path / "x", **QUIET)
    for wrong in (mask.astype(int), mask.isel(prompt=0, drop=True), mask.isel(prompt=slice(3))):
        with pytest.raises(ValueError, match=r"a mask is boolean, over|3 prompts and none called"):
            tk.capture(tiny_llama, runs, tokens=wrong, **QUIET)


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


def test_the_embedding_alone_needs_no_block(tiny_llama: Any, runs: xr.Dataset) -> None:
    tk.capture(tiny_llama, runs, [-1], tokens="all", **QUIET)  # and the proofs of a first use
    reached: list[int] = []
    hook = tiny_llama._module.model.layers[0].mlp.register_forward_hook(
        lambda *a: reached.append(1)
    )
    found = tk.capture(tiny_llama, runs, [-1], tokens="all", **QUIET)
    hook.remove()
    assert not reached
    table = tiny_llama._module.get_input_embeddings().weight.detach().numpy()
    real = runs.token_id.values >= 0
    np.testing.assert_array_equal(
        found.isel(layer=0).values[real], table[runs.token_id.values[real]]
    )
