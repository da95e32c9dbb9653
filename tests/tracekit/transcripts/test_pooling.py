"""Poolings against their slow definitions, lazily, and token by token in torch."""

import dask.array
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import tracekit as tk
from tracekit.transcripts.pooling import WAYS
from tracekit.transcripts.running import Running

POOLINGS = [
    *(tk.Pooling(way) for way in WAYS),
    tk.Pooling("rolling_max", width=3),
    tk.Pooling("rolling_max", width=1),
    tk.Pooling("top_k", k=1),
    tk.Pooling("top_k", k=40),
    tk.Pooling("softmax", temperature=0.1),
    tk.Pooling("ema", decay=0.0),
    tk.Pooling("ema", take="last"),
    tk.Pooling(np.median),
]


def slow(row: np.ndarray, pooling: tk.Pooling, logits: np.ndarray) -> float:
    """The definition, of one row without holes."""
    get = pooling.options.get
    if not len(row):
        return np.nan
    if pooling.function is not None:
        return float(pooling.function(row))
    if pooling.way == "rolling_max":
        width = get("width")
        ends = range(width, len(row) + 1)
        return max((row[n - width : n].mean() for n in ends), default=row.mean())
    if pooling.way == "top_k":
        return np.sort(row)[-get("k") :].mean()
    if pooling.way in ("softmax", "attention"):
        logits = row / get("temperature") if pooling.way == "softmax" else logits
        weight = np.exp(logits - logits.max())
        return float((weight * row).sum() / weight.sum())
    if pooling.way == "ema":
        means = pd.Series(row).ewm(alpha=1 - get("decay")).mean()
        return float(means.max() if get("take") == "max" else means.iloc[-1])
    return float({"mean": np.mean, "max": np.max, "last": lambda x: x[-1]}[pooling.way](row))


@pytest.fixture
def scores() -> xr.DataArray:
    """Two probes; padding on both sides, a hole inside, a short row, an empty row."""
    draw = np.random.default_rng(0)
    values = draw.normal(3.0, 2.0, size=(6, 24, 2))
    values[0, :5] = values[1, 15:] = values[2, 9] = values[3, 6:] = values[5] = np.nan
    coords = {"prompt": [f"a/{n}" for n in range(6)], "token": np.arange(-4, 20)}
    return xr.DataArray(values, coords, ("prompt", "token", "probe"), name="projection")


@pytest.fixture
def logits(scores) -> xr.DataArray:
    return scores.copy(data=np.random.default_rng(1).normal(size=scores.shape) * 3)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_a_pooling_is_its_definition_over_the_tokens_that_are_there(scores, logits, pooling):
    given = {"attention": logits} if pooling.way == "attention" else {}
    made = tk.pool(scores, pooling, **given)
    assert made.dims == ("prompt", "probe")
    assert made.prompt.values.tolist() == scores.prompt.values.tolist()
    response = scores.sel(token=slice(0, None))
    for row, probe in np.ndindex(6, 2):
        values = response.values[row, :, probe]
        there = ~np.isnan(values)
        near = logits.sel(token=slice(0, None)).values[row, :, probe]
        expected = slow(values[there], pooling, near[there])
        assert made.values[row, probe] == pytest.approx(expected, rel=1e-10, nan_ok=True)
    changed = scores.copy(deep=True)
    changed.values[2, :, 0] += 1e-3
    assert not made.equals(tk.pool(changed, pooling, **given))


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_lazy_scores_stay_lazy_and_have_the_same_values(scores, logits, pooling):
    lazy = scores.copy(data=dask.array.from_array(scores.values, (2, 7, 2)))
    given = {"attention": logits} if pooling.way == "attention" else {}
    made = tk.pool(lazy, pooling, **given)
    assert made.chunks is not None
    xr.testing.assert_allclose(made.compute(), tk.pool(scores, pooling, **given), rtol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_token_by_token_it_is_the_pooling_of_each_prefix(scores, logits, pooling):
    running, attends = Running(pooling), pooling.way == "attention"
    for last in range(scores.sizes["token"]):
        step, near = (torch.tensor(of.values[:, last]) for of in (scores, logits))
        made = running.step(step, near) if attends else running.step(step)
        part = {"token": slice(None, last + 1)}
        given = {"attention": logits.isel(part)} if attends else {}
        expected = tk.pool(scores.isel(part), pooling, tokens="all", **given)
        np.testing.assert_allclose(made.numpy(), expected.values, rtol=1e-9)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(made.numpy() + 1e-6, expected.values, rtol=1e-9)


def test_which_tokens_is_said_by_the_grammar_of_captures(scores):
    last = tk.pool(scores, tokens=slice(-1, -1))
    assert last.equals(scores.sel(token=-1).drop_vars("token"))
    mask = xr.zeros_like(scores.isel(probe=0), dtype=bool)
    mask.loc[dict(token=[2, 3])] = True
    both = tk.pool(scores, "max", tokens=mask)
    assert both.equals(scores.sel(token=[2, 3]).max("token"))
    assert not both.equals(tk.pool(scores, "max"))


def test_scores_keep_their_precision_and_attributes(scores):
    marked = tk.stamp(scores.astype(np.float32), {"weights": "w", "ids": "i"})
    made = tk.pool(marked, "ema")
    assert (made.dtype, made.name) == (np.float32, "projection")
    assert tk.provenance(made)["weights"] == "w"


@pytest.mark.parametrize("pooling", POOLINGS[:-1], ids=str)
def test_a_text_is_read_back(pooling):
    assert tk.Pooling.read(str(pooling)) == pooling
    assert hash(tk.Pooling.read(str(pooling))) == hash(pooling)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("median", "there are mean, max"),
        ("top_k(3)", "there are mean, max"),
        ("top_k(k=__import__('os'))", "there are mean, max"),
        ("top_k(width=3)", "its options are k"),
        ("mean(k=3)", "its options are none"),
        ("top_k(k=0)", "a whole number of at least 1"),
        ("top_k(k=True)", "a whole number of at least 1"),
        ("rolling_max(width=2.5)", "a whole number of at least 1"),
        ("softmax(temperature=0)", "a number over 0"),
        ("ema(decay=1.0)", "from 0 to below 1"),
        ("ema(take='mean')", "'max' or 'last'"),
        ("function:median", "there are mean, max"),
        ("attention", "attention probe"),
    ],
)
def test_what_is_no_pooling_is_refused(scores, asked, words):
    with pytest.raises(tk.InputError, match=words):
        tk.pool(scores, asked)


def test_a_function_that_gives_no_number_and_scores_without_tokens_are_refused(scores):
    with pytest.raises(tk.InputError, match=r"gave values of shape"):
        tk.pool(scores, np.cumsum)
    with pytest.raises(tk.InputError, match="over the dim 'token'"):
        tk.pool(scores.isel(token=0))
