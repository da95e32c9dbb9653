import dask.array
import numpy as np
import pytest
import xarray as xr

from tests.support.oracles.planted import contrast_traces
from traits.vectors.pairing import pairs, sides, split_pairs, windowed_pairs


def test_twins_are_matched_by_group_and_not_by_order():
    traces = contrast_traces(np.random.default_rng(0), pairs=7)
    shuffled = traces.isel(prompt=np.random.default_rng(1).permutation(14))
    plain, mixed = pairs(traces), pairs(shuffled)
    for one, other in zip(plain, mixed, strict=True):
        assert not np.array_equal(one["pair"], other["pair"])
        xr.testing.assert_equal(one, other.sel(pair=one["pair"].values))


def test_samples_of_a_side_and_tokens_that_exist_are_averaged():
    values = np.array([[[1.0], [3.0]], [[5.0], [np.nan]], [[0.0], [2.0]]])
    rows = {"label": ("prompt", [1, 1, 0]), "group": ("prompt", ["a/0"] * 3)}
    positive, negative = pairs(xr.DataArray(values, dims=("prompt", "token", "dim"), coords=rows))
    assert positive.values.tolist() == [[3.5]]  # (2 + 5) / 2
    assert negative.values.tolist() == [[1.0]]


def test_a_side_without_a_twin_is_refused():
    traces = contrast_traces(np.random.default_rng(0), pairs=5)
    with pytest.raises(ValueError, match=r"1 of 5 groups have one side only.*planted/2"):
        pairs(traces.isel(prompt=[n for n in range(10) if n != 7]))


def test_labels_and_values_must_be_there():
    traces = contrast_traces(np.random.default_rng(0), pairs=5)
    with pytest.raises(ValueError, match="no group"):
        pairs(traces.drop_vars("group"))
    with pytest.raises(ValueError, match=r"has \[2\]"):
        pairs(traces.assign_coords(label=("prompt", [1, 2] * 5)))
    traces[3, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 of 5 pairs.*planted/3"):
        pairs(traces)


def test_a_split_has_every_pair_once_and_obeys_the_fractions():
    positive, _ = pairs(contrast_traces(np.random.default_rng(0), pairs=120))
    part = split_pairs(positive["pair"], generator=np.random.default_rng(1))
    assert {name: int((part == name).sum()) for name in ("fit", "select", "report")} == {
        "fit": 60,
        "select": 24,
        "report": 36,
    }
    again = split_pairs(positive["pair"], generator=np.random.default_rng(1))
    other = split_pairs(positive["pair"], generator=np.random.default_rng(2))
    assert part.equals(again)
    assert not part.equals(other)


def test_templates_stay_whole():
    traces = contrast_traces(np.random.default_rng(0), pairs=90)
    template = np.tile(np.arange(90) // 6, 2)
    positive, _ = pairs(traces.assign_coords(template=("prompt", template)))
    part = split_pairs(positive["pair"], generator=np.random.default_rng(0))
    parts = [set(part.values[positive["template"] == name]) for name in range(15)]
    assert all(len(found) == 1 for found in parts)
    plain = split_pairs(positive["pair"].drop_vars("template"), generator=np.random.default_rng(0))
    assert any(len(set(plain.values[positive["template"] == name])) > 1 for name in range(15))


def test_a_small_set_is_refused_with_its_numbers():
    positive, _ = pairs(contrast_traces(np.random.default_rng(0), pairs=20))
    with pytest.raises(ValueError, match=r"20 pairs.*'select': 4"):
        split_pairs(positive["pair"], generator=np.random.default_rng(0))


def test_lazy_traces_are_read_once():
    traces = contrast_traces(np.random.default_rng(0), pairs=5).expand_dims(token=[0, 1])
    reads = []

    def read(block):
        reads.append(block.shape)
        return block

    lazy = traces.chunk(prompt=10).copy(data=dask.array.from_array(traces.values).map_blocks(read))
    reads.clear()
    for one, other in zip(pairs(lazy), pairs(traces), strict=True):
        xr.testing.assert_allclose(one, other)
    assert len(reads) == 1


def with_prompt_token(answered=(2, 1, 2, 1)):
    """Tokens −1 of 100 and answers of 1 or 2 tokens (0: none), as a default capture has them."""
    values = np.tile([[100.0], [1.0], [5.0]], (4, 1, 1)) + np.arange(4.0)[:, None, None]
    values[np.arange(3) > np.array(answered)[:, None]] = np.nan
    coords = {"token": [-1, 0, 1], "label": ("prompt", [1, 1, 0, 0])}
    coords["group"] = ("prompt", ["a/0", "a/1", "a/0", "a/1"])
    return xr.DataArray(values, coords, ("prompt", "token", "dim"))


def test_the_answer_is_averaged_and_not_the_token_before_it():
    traces = with_prompt_token()
    found = xr.concat(pairs(traces), "side")
    assert found.values.ravel().tolist() == [3.0, 2.0, 5.0, 4.0]
    ids = traces.notnull().isel(dim=0).astype(int).values - 2 * traces.isnull().isel(dim=0).values
    told = (
        traces.fillna(7.0)
        .where(traces.notnull())
        .assign_coords(token_id=(("prompt", "token"), ids))
    )
    for one, other in zip(pairs(told), pairs(traces), strict=True):
        np.testing.assert_array_equal(one, other)
    both = sides(traces)
    np.testing.assert_array_equal(both[0].values, found[0])
    windows = windowed_pairs(traces.expand_dims("layer"), {"from": slice(-1, 0)})
    assert windows[0].isel(pair=0).item() == 50.5


def test_rows_without_an_answer_are_averaged_over_all_their_tokens():
    some = pairs(with_prompt_token((2, 0, 2, 1)))
    assert [side.values.ravel().tolist() for side in some] == [[106 / 3, 101], [112 / 3, 53.5]]
    none = pairs(with_prompt_token((0, 0, 0, 0)))
    assert none[0].values.ravel().tolist() == [100.0, 101.0]


@pytest.mark.parametrize("lazy", [False, True])
def test_tokens_and_samples_are_summed_in_64_bits(lazy):
    draw = np.random.default_rng(0)
    values = (draw.normal(size=(24, 4000, 1, 3)) + 25000).astype(np.float32)
    coords = {"label": ("prompt", np.repeat([1, 0], 12)), "group": ("prompt", ["a/0"] * 24)}
    traces = xr.DataArray(values, coords, ("prompt", "token", "layer", "dim"))
    found = pairs(traces.chunk(token=1000) if lazy else traces)
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[0], values[:12].mean((0, 1), np.float64)[None], rtol=1e-7)
    half = pairs(traces.isel(token=0).astype(np.float16))
    assert half[0].dtype == np.float16
    wanted = values[:12, 0].astype(np.float16).mean(0, float)[None]
    np.testing.assert_array_equal(half[0], wanted.astype(np.float16))
