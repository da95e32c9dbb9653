"""Which tokens: one grammar, the same in a capture, in gradients and in edits."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tests.support import steering
from tracekit.storage.provenance import read
from tracekit.transcripts.selection import Selection, kept_tokens, recorded, require_tokens

QUIET: dict[str, Any] = {"progress": False}
CHOICES: dict[str, Any] = {
    "response": lambda runs: runs.token >= -1,
    "prompt": lambda runs: runs.token < 0,
    "all": lambda runs: runs.token > -1000,
    "labels": lambda runs: runs.token.isin([-2, 0, 3]),
    "stepped": lambda runs: runs.token.isin([-3, -1, 1]),
}
GIVEN: dict[str, Any] = {"labels": [-2, 0, 3], "stepped": slice(-3, 2, 2)}


@pytest.mark.parametrize("name", CHOICES)
def test_captures_gradients_and_edits_mean_the_same_tokens(
    name: str, tiny_llama: Any, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    tokens = GIVEN.get(name, name)
    want = (CHOICES[name](plain) & (plain.token_id >= 0)).transpose("prompt", "token")
    traces = tk.capture(tiny_llama, plain, [2], tokens=tokens, **QUIET)
    slopes = tk.gradients(tiny_llama, plain, [2], tokens=tokens, towards=" cat", against=" mat")
    whole = tk.capture(tiny_llama, plain, [2], tokens="all", **QUIET)
    steered = tk.steer(tiny_llama, vectors.sel(layer=2), coefficient=9.0, tokens=tokens)
    moved = abs(tk.capture(steered, plain, [2], tokens="all", **QUIET) - whole).max("dim") > 1
    masked = tk.capture(tiny_llama, plain, [2], tokens=want, **QUIET)
    for values in (traces, slopes, masked):
        chosen = values.notnull().all("dim").isel(layer=0).reindex(token=want.token)
        np.testing.assert_array_equal(chosen.fillna(value=False).astype(bool), want)
    np.testing.assert_array_equal(moved.isel(layer=0), want)
    by_mask = tk.steer(tiny_llama, vectors.sel(layer=2), coefficient=9.0, tokens=want)
    again = abs(tk.capture(by_mask, plain, [2], tokens="all", **QUIET) - whole).max("dim") > 1
    np.testing.assert_array_equal(again.isel(layer=0), want)


def test_the_forms_in_provenance_are_those_of_before(
    tiny_llama: Any, plain: xr.Dataset, vectors: xr.DataArray
) -> None:
    assert [recorded(t) for t in ("response", slice(0, 4), slice(None))] == [
        "response",
        "0:4:None",
        "None:None:None",
    ]
    assert recorded([3, -1, 3]) == "labels:-1,3"
    mask = tk.find(plain, role="user")
    assert recorded(mask) == recorded(mask.isel(prompt=slice(None, None, -1)).T)
    assert recorded(mask) == recorded(plain.role == "user") != recorded(~mask)
    forms = {"response": "-1:None", "all": "all"}
    for tokens, form in [*forms.items(), (slice(0, None), "0:None"), (mask, recorded(mask))]:
        edited = tk.steer(tiny_llama, vectors.sel(layer=1), coefficient=1.0, tokens=tokens)
        assert edited.tracekit_edits[0]["tokens"] == form


def test_labels_that_no_row_has_and_masks_of_other_prompts_are_refused(
    tiny_llama: Any, plain: xr.Dataset
) -> None:
    with pytest.raises(ValueError, match=r"no row has the labels \[99\], they are within"):
        kept_tokens(plain, [0, 99])
    other = tk.encode(tiny_llama, [*steering.PROMPTS[:3], "List five colours that go on a wall."])
    with pytest.raises(ValueError, match=r"none called 'text/0'"):
        kept_tokens(plain, tk.find(plain, role="user").isel(prompt=[1, 2, 3]))
    with pytest.raises(ValueError, match=r"every label of the transcripts"):
        kept_tokens(plain, tk.find(other, role="user"))
    late = tk.find(plain, role="user").copy()
    late.found_id[1] += 1
    with pytest.raises(ValueError, match=r"prompt 'text/1', token -\d+, it knows the id \d+ and"):
        kept_tokens(plain, late)


@pytest.mark.parametrize(
    "tokens",
    [
        "last",
        3,
        None,
        [],
        [0.5],
        ["a"],
        np.zeros((2, 2), int),
        slice("a", None),
        slice(4, 2),
        slice(0, 9, -1),
        slice(None, 9, 2),
        xr.DataArray([[True]], dims=("prompt", "token")),
        xr.DataArray([[1]], {"prompt": ["a"], "token": [0]}),
        xr.DataArray([[True, True]], {"prompt": ["a"], "token": [0, 0]}),
        xr.DataArray([True], {"prompt": ["a"]}),
    ],
)
def test_what_the_grammar_has_not_is_refused(tokens: Any) -> None:
    with pytest.raises(ValueError, match=r"tokens=|mask is boolean"):
        inspect.unwrap(require_tokens)(tokens)


def test_a_selection_says_which_labels_any_row_may_have(plain: xr.Dataset) -> None:
    axis = plain.token.values
    mask = tk.find(plain, role="assistant")
    assert axis[Selection(mask).labels(axis)].min() == 0
    assert axis[Selection([0, 2]).labels(axis)].tolist() == [0, 2]


def test_a_capture_that_a_mask_began_goes_on(
    tiny_llama: Any, plain: xr.Dataset, tmp_path: Any
) -> None:
    mask = plain.role == "user"
    first = tk.capture(tiny_llama, plain, [1], tokens=mask, path=tmp_path / "x", **QUIET)
    found = tk.find(plain, role="user")
    again = tk.capture(tiny_llama, plain, [1], tokens=found, path=tmp_path / "x", **QUIET)
    xr.testing.assert_identical(first.compute(), again.compute())
    assert read(first)["tokens"] == recorded(found)
