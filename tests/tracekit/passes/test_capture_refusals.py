"""What a capture refuses: requests that do not fit, values that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support import forwards
from tests.support.forwards import QUIET
from tracekit.storage.provenance import read


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return forwards.encoded(tiny_llama)


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


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"layers": [2, 9]}, r"Layers \[9\] were asked for; this model has blocks 0 to 3"),
        ({"tokens": "answer"}, r"tokens='answer' was asked for; there are 'response'"),
        ({"tokens": slice(50, 60)}, r"keeps nothing of 9 prompts"),
        ({"reduce": "median"}, r"reduce='median' was asked for; there is 'mean'"),
        ({"round_to": "float16"}, r"round_to='float16'"),
        ({"transfer": True}, r"transfer=True was given without vectors= or probes="),
        ({"writers": 0}, r"writers=0 was given without path=: nothing is written"),
        ({"compression": "zlib"}, r"compression='zlib' was given without path="),
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


def test_a_budget_that_is_no_number_of_tokens_is_refused(tiny_llama):
    runs = tk.encode(tiny_llama, ["Hi"])
    with pytest.raises(tk.InputError, match="token_budget=-5 was asked for"):
        tk.capture(tiny_llama, runs, tokens="all", token_budget=-5, progress=False)


def test_double_precision_is_captured_and_read(tiny_folder, words):
    model = tk.load(tiny_folder, dtype="float64", tokenizer=words)
    runs = tk.encode(model, ["Hi"], ["there"])
    assert np.isfinite(tk.capture(model, runs, [1], progress=False).values).all()
    ids = torch.tensor(runs.token_id.values).long()
    with torch.no_grad():
        theirs = model._module(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
    ours = tk.logprobs(model, runs).values[0, 1:]
    np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-5)


def test_rows_joined_with_holes_say_how_to_join_them(tiny_llama):
    sets = [tk.encode(tiny_llama, [tk.Prompt(t, text=t)]) for t in ("Hi", "A longer one")]
    joined = xr.concat(sets, "prompt", join="outer")
    with pytest.raises(TypeError, match="fill_value="):
        tk.capture(tiny_llama, joined, [1], tokens="all", progress=False)
    holes = {"token_id": -1, "role": "pad", "token_text": ""}
    joined = xr.concat(sets, "prompt", join="outer", fill_value=holes)
    both = tk.capture(tiny_llama, joined, [1], tokens="all", progress=False)
    for one in sets:
        alone = tk.capture(tiny_llama, one, [1], tokens="all", progress=False)
        row = both.sel(prompt=alone.prompt).dropna("token", how="all")
        np.testing.assert_allclose(row, alone.dropna("token", how="all"), atol=1e-5)


@pytest.mark.parametrize("dim", ["prompt", "token"])
def test_one_row_without_its_dim_says_how_to_keep_it(tiny_llama: Any, runs: Any, dim: str) -> None:
    one = runs.isel({dim: 0})
    metric = tk.logit_difference(tiny_llama, " cat", " mat")
    passes: list[Any] = [
        lambda: tk.capture(tiny_llama, one, **QUIET),
        lambda: tk.logprobs(tiny_llama, one),
        lambda: tk.generate(tiny_llama, one, **QUIET),
        lambda: tk.gradients(tiny_llama, one, metric=metric),
        lambda: tk.measure(tiny_llama, one, metric),
        lambda: tk.next_tokens(tiny_llama, one),
        lambda: tk.sweep(one, [1.0]),
        lambda: tk.find(one, "a"),
    ]
    for run in passes:
        with pytest.raises(tk.InputError, match=rf"lost the dim '{dim}'.*\.isel\({dim}=\[0\]\)"):
            run()
