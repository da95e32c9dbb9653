"""Differences: only between arrays that may be compared, aligned exactly, overrides recorded."""

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tracekit.storage.provenance import MUST_AGREE, read, stamp


@pytest.fixture(scope="module")
def arms(tiny_llama, tiny_lora):
    runs = tk.encode(tiny_llama, ["Where is Paris?", "Hi", "Yes it is"], template="raw")
    bare = tk.capture(tiny_llama, runs, [1, 2], tokens="all", progress=False)
    with tk.adapter(tiny_llama, tiny_lora):
        adapted = tk.capture(tiny_llama, runs, [1, 2], tokens="all", progress=False)
    return adapted, bare


def test_the_adapter_may_differ(arms):
    adapted, bare = arms
    result = tk.difference(adapted, bare)
    assert np.array_equal(result.values, adapted.values - bare.values, equal_nan=True)
    assert float(abs(result).max()) > 1e-2
    made = read(result)["difference"]
    assert [made[0]["adapter"]["name"], made[1]["adapter"]] == ["tiny-lora", None]
    assert read(result)["weights"] == read(bare)["weights"]


@pytest.mark.parametrize("field", MUST_AGREE)
def test_each_field_that_must_agree_is_named(arms, field):
    adapted, bare = arms
    other = stamp(bare, {**read(bare), field: "something else"})
    with pytest.raises(ValueError, match=f"differ in {field}: .* against 'something else'"):
        tk.difference(adapted, other)
    result = tk.difference(adapted, other, override=(field,))
    assert read(result)["override"] == {field: [read(adapted).get(field), "something else"]}


def test_no_override_is_recorded_where_none_was_needed(arms):
    assert "override" not in read(tk.difference(*arms, override=("batches",)))


def test_arrays_that_do_not_know_their_weights_are_refused(arms):
    unknown = [stamp(x, {k: v for k, v in read(x).items() if k != "weights"}) for x in arms]
    with pytest.raises(ValueError, match="differ in weights: None against None"):
        tk.difference(*unknown)


def test_an_unknown_override_and_missing_provenance(arms):
    adapted, bare = arms
    with pytest.raises(KeyError, match="override names"):
        tk.difference(adapted, bare, override=("colour",))
    with pytest.raises(ValueError, match="carries no provenance"):
        tk.difference(adapted, xr.zeros_like(bare).drop_attrs())


def test_labels_align_exactly_or_not_at_all(arms):
    adapted, bare = arms
    with pytest.raises(ValueError, match="layer: 1 labels only in the first, 0 in the other"):
        tk.difference(adapted, bare.sel(layer=[2]))
    shuffled = bare.isel(prompt=[2, 0, 1])
    expected = tk.difference(adapted, bare)
    assert tk.difference(adapted, shuffled).equals(expected)
    moved = bare.copy(data=bare.values[[2, 0, 1]])
    assert not tk.difference(adapted, moved).equals(expected)


def test_one_plan_under_two_budgets_is_one_plan(tiny_llama, arms):
    runs = tk.encode(tiny_llama, ["Where is Paris?", "Hi", "Yes it is"], template="raw")
    options = {"layers": [1, 2], "tokens": "all", "progress": False}
    wide, narrow = (tk.capture(tiny_llama, runs, token_budget=n, **options) for n in (900, 800))
    assert read(wide)["batches"] != read(narrow)["batches"]
    assert float(abs(tk.difference(wide, narrow)).max()) == 0
    alone = tk.capture(tiny_llama, runs, token_budget=1, **options)
    with pytest.raises(ValueError, match="differ in batches"):
        tk.difference(wide, alone)


def test_means_over_other_tokens_are_not_compared(tiny_llama):
    runs = tk.encode(tiny_llama, ["Where is Paris?", "Hi"], [" It is here.", " Yes, it is so."])
    options = {"layers": [1], "reduce": "mean", "progress": False}
    own = tk.capture(tiny_llama, runs, **options)
    early = tk.capture(tiny_llama, runs, tokens=slice(0, 1), **options)
    with pytest.raises(ValueError, match="differ in tokens: '0:None:None' against '0:1:None'"):
        tk.difference(own, early)
    assert float(abs(tk.difference(own, early, override=("tokens",))).max()) > 0
    tk.difference(own, tk.capture(tiny_llama, runs, tokens="response", **options))


def test_a_norm_keeps_holes(arms):
    adapted, bare = arms
    shift = tk.difference(adapted, bare)
    size = tk.norm(shift)
    expected = np.sqrt((shift.values.astype(float) ** 2).sum(-1))
    assert np.isnan(expected).any()
    np.testing.assert_allclose(size, expected, rtol=1e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(size, np.nan_to_num(expected), rtol=1e-6)
    assert read(size) == read(shift)
    with pytest.raises(ValueError, match=r"norm over dim was asked for; .* \('prompt', 'token'"):
        tk.norm(size)
