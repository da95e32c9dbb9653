"""Patching one prompt's traces into another by a map, against plain hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support.oracles import one_by_one, reference

TARGETS = ["Today Mary saw John, and then Mary", "Now Tom met Ann."]
SOURCES = ["Ann saw Tom in the old town of Rome", "We saw John and Mary by the sea"]
Labels = list[tuple[int, int]]


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return tk.encode(tiny_llama, TARGETS, template="raw")


@pytest.fixture(scope="module")
def sources(tiny_llama: Any) -> xr.Dataset:
    texts = [tk.Prompt(f"source/{n}", text=text) for n, text in enumerate(SOURCES)]
    return tk.encode(tiny_llama, texts, template="raw")


def captured(model: Any, runs: xr.Dataset, site: str = "residual") -> xr.DataArray:
    return tk.capture(model, runs, [1], site=site, tokens="all", progress=False)


def rows_of(runs: xr.Dataset) -> list[list[int]]:
    return [[i for i in row if i >= 0] for row in runs.token_id.values.tolist()]


def last_logits(model: Any, runs: xr.Dataset) -> list[torch.Tensor]:
    metric = lambda logits: logits[:, 17] - logits[:, 23]
    row = tk.activation_patching(model, runs, runs, metric=metric, layers=[0], tokens=[-1])
    return row.unpatched.values


def plain(
    theirs: Any,
    runs: xr.Dataset,
    sources: xr.Dataset,
    site: str,
    pairs: list[list[tuple[int, int]]],
) -> list[float]:
    found = []
    for n, labels in enumerate(pairs):
        ids, others = (
            [i for i in r.token_id.values[n].tolist() if i >= 0] for r in (runs, sources)
        )
        stored = one_by_one.values(theirs, others, site, 1)
        columns = [(len(ids) + a, len(others) + b) for a, b in labels]
        score = lambda logits: logits[17] - logits[23]
        found.append(one_by_one.patched(theirs, ids, stored, site, 1, columns, score))
    return found


@pytest.mark.parametrize("site", ["residual", "attention", "mlp"])
def test_labels_go_where_the_map_says(
    tiny_llama: Any, tiny_folder: Path, runs: xr.Dataset, sources: xr.Dataset, site: str
) -> None:
    traces = captured(tiny_llama, sources, site)
    pairs = {"text/0": "source/0", "text/1": "source/1"}
    edited = tk.patch(tiny_llama, traces, at=[-3, -1], source=[-2, -4], prompts=pairs)
    theirs, labels = reference.load(tiny_folder), [(-3, -2), (-1, -4)]
    expected = plain(theirs, runs, sources, site, [labels, labels])
    np.testing.assert_allclose(last_logits(edited, runs), expected, atol=1e-5)
    other = plain(theirs, runs, sources, site, [[(-3, -4), (-1, -2)]] * 2)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(last_logits(edited, runs), other, atol=1e-4)


def test_masks_pair_prompts_in_order_and_tokens_one_by_one(
    tiny_llama: Any, tiny_folder: Path, runs: xr.Dataset, sources: xr.Dataset
) -> None:
    where = [tk.find(runs, "Mary", missing="none") | tk.find(runs, "Ann", missing="none")]
    where += [tk.find(sources, name, which="last") for name in ("saw",)]
    last = where[0].copy(data=where[0].values & (where[0].cumsum("token") == 1).values)
    edited = tk.patch(tiny_llama, captured(tiny_llama, sources), at=last, source=where[1])
    labels = [
        [(int(mask.token[mask.values[n]][0]), int(other.token[other.values[n]][0]))]
        for n, (mask, other) in enumerate([(last, where[1])] * 2)
    ]
    expected = plain(reference.load(tiny_folder), runs, sources, "residual", labels)
    np.testing.assert_allclose(last_logits(edited, runs), expected, atol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(last_logits(tiny_llama, runs), expected, atol=1e-4)


def test_it_holds_while_generating_and_for_samples_of_a_prompt(
    tiny_llama: Any, runs: xr.Dataset, sources: xr.Dataset
) -> None:
    traces = captured(tiny_llama, sources.isel(prompt=[0]))
    edited = tk.patch(tiny_llama, traces, at=[-1], source=[-2])
    drawn = {"samples": 2, "temperature": 1.0, "seed": 0, "progress": False}
    said = tk.generate(edited, runs, max_new_tokens=5, **drawn)
    again = tk.capture(edited, said, [1], tokens=slice(-1, -1), progress=False)
    value = traces.sel(token=-2, layer=1).values[0]
    for row in again.sel(token=-1, layer=1).values:
        np.testing.assert_allclose(row, value, atol=1e-6)
    bare = tk.capture(tiny_llama, said, [1], tokens=slice(-1, -1), progress=False)
    assert float(abs(bare - again).max()) > 0.1


def test_maps_that_do_not_fit_are_refused_with_both_lengths(
    tiny_llama: Any, runs: xr.Dataset, sources: xr.Dataset
) -> None:
    traces = captured(tiny_llama, sources)
    mask = tk.find(runs, "Mary", missing="none")

    def refused(match: str, **given: Any) -> None:
        with pytest.raises(ValueError, match=match):
            tk.capture(tk.patch(tiny_llama, traces, **given), runs, [1], progress=False)

    refused(r"at 1 tokens from 2 of its source", at=[-1], source=[-2, -1])
    refused(r"'text/0' is to be patched at 2 tokens from 1", at=mask, source=[-1])
    pair = {"text/0": "source/0"}
    refused(r"tokens \[-99\] of 'source/0'", at=[-1], source=[-99], prompts=pair)
    refused(r"names a token twice", at=[-1, -1], source=[-2, -1])
    refused(r"none for 'text/0'", at=[-1], source=[-1])
    refused(
        r"none for 'text/0' \(it looked for 'x'\)", at=[-1], source=[-1], prompts={"text/0": "x"}
    )
    refused(r"at= names 1 prompts and the traces have 2", at=mask[[0]], source=[-2, -1])
    refused(r"needs at= and source=, and no tokens=", at=[-1])
    refused(r"needs at= and source=, and no tokens=", at=[-1], source=[-1], tokens=[-1])
    refused(r"source='response' was given; a map names each token", at=[-1], source="response")
    queries = tk.capture(tiny_llama, runs, [1], site=lambda b: b.attn.q_proj.output, progress=False)
    with pytest.raises(ValueError, match="of the site"):
        tk.patch(tiny_llama, queries, at=[-1], source=[-1])


def test_the_record_says_which_token_goes_where(
    tiny_llama: Any, runs: xr.Dataset, sources: xr.Dataset, tmp_path: Path
) -> None:
    traces = captured(tiny_llama, sources.isel(prompt=[0]))

    def patched(at: list[int], source: list[int]) -> Any:
        return tk.patch(tiny_llama, traces, at=at, source=source)

    one, other = patched([-3, -1], [-2, -5]), patched([-3, -1], [-5, -2])
    turned = patched([-1, -3], [-5, -2])
    first = tk.capture(one, runs, [2], path=tmp_path / "x", progress=False).compute()
    with pytest.raises(tk.InputError, match="edits"):
        tk.capture(other, runs, [2], path=tmp_path / "x", progress=False)
    # the same pairs, listed in another order
    again = tk.capture(turned, runs, [2], path=tmp_path / "x", progress=False).compute()
    xr.testing.assert_identical(first, again)
    straight = tk.capture(turned, runs, [2], progress=False)
    np.testing.assert_allclose(straight.sel(prompt=first.prompt), first, atol=1e-5)
