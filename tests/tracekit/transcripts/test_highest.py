"""The largest values with the words around them."""

import numpy as np
import pytest
import xarray as xr

import tracekit as tk


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, ["One?", "A longer two?"], responses=["Yes.", "No, three."])


def ours(runs, seed=0):
    draw = np.random.default_rng(seed).normal(size=runs.token_id.shape)
    array = xr.DataArray(draw, runs.token_id.coords, runs.token_id.dims)
    return array.where(runs.token_id >= 0)


def test_values_places_and_words_are_those_of_a_plain_sort(runs):
    array = ours(runs)
    found = tk.highest(array, 5, context=2)
    flat = sorted(
        (
            (value, prompt, token)
            for prompt in range(2)
            for token, value in enumerate(array.values[prompt])
            if not np.isnan(value)
        ),
        reverse=True,
    )[:5]
    assert found.value.values.tolist() == [value for value, _, _ in flat]
    assert found.prompt.values.tolist() == [str(runs.prompt.values[p]) for _, p, _ in flat]
    assert found.token.values.tolist() == [int(runs.token.values[t]) for _, _, t in flat]
    for text, (_, prompt, token) in zip(found.text.values, flat, strict=True):
        words = runs.token_text.values[prompt].astype(str)
        low = max(token - 2, 0)
        said = (
            "".join(words[low:token]) + f"[{words[token]}]" + "".join(words[token + 1 : token + 3])
        )
        assert text == said
    assert tk.highest(-array, 5).value.values.tolist() != found.value.values.tolist()


def test_words_of_a_part_come_from_the_whole(runs):
    some = ours(runs).sel(token=[0])
    alone, whole = tk.highest(some, 2), tk.highest(some, 2, transcripts=runs)
    assert all(text.startswith("[") for text in alone.text.values)
    assert not any(text.startswith("[") for text in whole.text.values)
    assert alone.value.values.tolist() == whole.value.values.tolist()
    # fewer than asked for are all there are
    assert tk.highest(some, 99).sizes["top"] == 2
    assert tk.highest(some.expand_dims(layer=[3]), 1).value.item() == alone.value.values[0]


def test_tokens_in_any_order_have_their_own_words(runs):
    array = ours(runs)
    expected = tk.highest(array, 5, context=2)
    for order in (slice(None, None, -1), np.random.default_rng(0).permutation(array.token.size)):
        found = tk.highest(array.isel(token=order), 5, context=2)
        assert found.text.values.tolist() == expected.text.values.tolist()
        assert found.token.values.tolist() == expected.token.values.tolist()


def test_other_dims_no_words_and_no_count_are_refused(runs):
    array = ours(runs)
    with pytest.raises(tk.InputError, match=r"over .*'layer'.*\.sel\(layer="):
        tk.highest(array.expand_dims(layer=[1, 2]))
    with pytest.raises(tk.InputError, match="transcripts="):
        tk.highest(array.drop_vars("token_text"))
    with pytest.raises(tk.InputError, match="asked for 0 places"):
        tk.highest(array, 0)
