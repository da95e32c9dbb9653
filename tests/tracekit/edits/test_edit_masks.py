"""Edits where a mask says so: at a text, role or turn, under the KV cache, or refused."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tests.support.steering import LAYER, NEW

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def vector(vectors: xr.DataArray) -> xr.DataArray:
    return vectors.sel(layer=LAYER)


def whole(mask: xr.DataArray) -> np.ndarray:
    """The mask over the prompts' columns and those that are generated."""
    return np.concatenate([mask.values, np.zeros((len(mask), NEW), bool)], 1)


def test_an_edit_at_a_mask_equals_hooks_under_the_cache(
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    vector: xr.DataArray,
    norm: float,
) -> None:
    last, every = tk.find(asked, role="user", turn=0, which="last"), asked.role == "user"
    added = {LAYER: steering.added(vector.values, 8 * norm)}
    hooked = [
        steering.hooked_ids(tiny_llama, asked, added, whole(mask), NEW) for mask in (last, every)
    ]
    for tokens, want in ((last, 0), (last[::-1].T, 0), (every & last, 0), (every, 1)):
        edited = tk.steer(tiny_llama, vector, coefficient=8 * norm, tokens=tokens)
        said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, **QUIET))
        assert said == hooked[want]
        assert said not in (hooked[1 - want], steering.response_ids(plain))
    alone = tk.generate(edited, asked, max_new_tokens=NEW, token_budget=1, **QUIET)
    assert steering.response_ids(alone) == said


def test_a_mask_by_hand_reaches_what_is_generated_and_nothing_beyond_its_labels(
    tiny_llama: TransformersModel, asked: xr.Dataset, vector: xr.DataArray, norm: float
) -> None:
    values = np.zeros((4, 5), bool)
    values[0, :2] = values[1, 2:4] = values[3, 4] = True
    named = asked.assign_coords(prompt=["a", "b", "c", "d"])
    mask = xr.DataArray(values, {"prompt": named.prompt.values, "token": np.arange(5)})
    columns = np.zeros((4, asked.sizes["token"] + NEW), bool)
    columns[:, asked.sizes["token"] :][:, :5] = values
    edited = tk.steer(tiny_llama, vector, coefficient=8 * norm, tokens=mask)
    said = steering.response_ids(tk.generate(edited, named, max_new_tokens=NEW, **QUIET))
    added = {LAYER: steering.added(vector.values, 8 * norm)}
    assert said == steering.hooked_ids(tiny_llama, asked, added, columns, NEW)
    assert said != steering.hooked_ids(tiny_llama, asked, added, columns[::-1].copy(), NEW)
    automatic = mask.assign_coords(prompt=asked.prompt.values)
    with pytest.raises(ValueError, match=r"names prompts by ids such as 'text/0'.*tk\.find"):
        tk.steer(tiny_llama, vector, coefficient=1.0, tokens=automatic)


def test_samples_share_their_prompts_mask(
    tiny_llama: TransformersModel, asked: xr.Dataset, vector: xr.DataArray
) -> None:
    mask = tk.find(asked, role="user", which="last")
    edited = tk.steer(tiny_llama, vector, coefficient=7.0, tokens=mask)
    runs = tk.generate(edited, asked, max_new_tokens=2, temperature=1.0, samples=2, **QUIET)
    kept = {"tokens": "all", **QUIET}
    before = tk.capture(tiny_llama, runs, [LAYER], **kept)
    rise = xr.dot(tk.capture(edited, runs, [LAYER], **kept) - before, vector, dim="dim")
    want = mask.isel(prompt=np.repeat(np.arange(4), 2)).reindex(token=runs.token, fill_value=False)
    np.testing.assert_allclose(rise.isel(layer=0).fillna(0), 7.0 * want, atol=1e-3)


def test_masks_of_other_prompts_are_refused(
    tiny_llama: TransformersModel, asked: xr.Dataset, plain: xr.Dataset, vector: xr.DataArray
) -> None:
    def run(mask: xr.DataArray, rows: xr.Dataset) -> xr.Dataset:
        edited = inspect.unwrap(tk.steer)(tiny_llama, vector, coefficient=1.0, tokens=mask)
        return tk.generate(edited, rows, max_new_tokens=2, **QUIET)

    longer = tk.encode(tiny_llama, [*steering.PROMPTS[:3], "List four very dark colours."])
    with pytest.raises(ValueError, match=r"prompt 'text/3' of \d+ tokens; the run's has \d+"):
        run(longer.role == "user", asked)
    other = tk.encode(tiny_llama, [steering.PROMPTS[0], "Where is Rome?"][1:])
    one = tk.encode(tiny_llama, steering.PROMPTS[:1])
    assert other.sizes == one.sizes
    with pytest.raises(ValueError, match=r"it knows the id \d+ and the run's \d+"):
        run(tk.find(other, role="user"), one)
    with pytest.raises(ValueError, match=r"has 2 prompts and none called 'text/[23]'"):
        run(tk.find(asked.isel(prompt=[0, 1]), role="user"), asked)
    with pytest.raises(ValueError, match=r"the run's is generated anew.*mask\.token < 0"):
        run(tk.find(plain, role="assistant"), asked)
    run(tk.find(plain, role="assistant", missing="none"), plain)
