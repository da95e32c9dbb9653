"""Attribution patching against autograd by hand, and against what it is the first order of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tests.support.oracles import one_by_one, reference

CLEAN = ["Mary saw John and John waved to", "Then Tom met Ann here, and Ann sang to"]
CORRUPTED = ["Mary saw John and Mary waved to", "Then Tom met Ann here, and Tom sang to"]
SITES = ("residual", "attention", "mlp")
HEADS = tuple(f"head {n}" for n in range(4))


@pytest.fixture(scope="module")
def sides(tiny_llama: Any) -> list[xr.Dataset]:
    return [tk.encode(tiny_llama, texts, template="raw") for texts in (CORRUPTED, CLEAN)]


@pytest.fixture(scope="module")
def metric(tiny_llama: Any) -> Any:
    return tk.logit_difference(tiny_llama, [" Mary", " Tom"], [" John", " Ann"])


def rows(runs: xr.Dataset) -> list[list[int]]:
    return [[i for i in row if i >= 0] for row in runs.token_id.values.tolist()]


def test_it_is_the_difference_times_autograds_gradient(
    tiny_llama: Any, tiny_folder: Path, sides: list[xr.Dataset], metric: Any
) -> None:
    found = tk.attribution_patching(tiny_llama, *sides, metric=metric, sites=(*SITES, "heads"))
    theirs = reference.load(tiny_folder)
    for prompt, (ids, others) in enumerate(zip(*map(rows, sides), strict=True)):
        score = lambda out, n=prompt: metric(out.logits[:, -1], torch.tensor([n]))[0]
        for site in (*SITES, *HEADS):
            for layer in range(4):
                value, slope = one_by_one.slopes(theirs, ids, site, layer, score)
                source = one_by_one.values(theirs, others, site, layer)
                plain = ((source - value) * slope).sum(-1)
                ours = found.sel(site=site, layer=layer).isel(prompt=prompt).dropna("token")
                np.testing.assert_allclose(ours, plain, atol=1e-5)
                with pytest.raises(AssertionError):
                    np.testing.assert_allclose(ours, plain * 1.01, atol=1e-6)


def test_it_has_the_labels_of_the_sweep(
    tiny_llama: Any, sides: list[xr.Dataset], metric: Any
) -> None:
    given: dict[str, Any] = {"metric": metric, "layers": [1, 3], "sites": "mlp"}
    swept = tk.activation_patching(tiny_llama, *sides, **given)
    found = tk.attribution_patching(tiny_llama, *sides, **given)
    assert found.dims == swept.dims
    assert set(found.coords) == set(swept.coords)
    for name in ("unpatched", "source"):
        np.testing.assert_allclose(found[name], swept[name], atol=1e-5)
    alone = [side.isel(prompt=[0]) for side in sides]
    one = {**given, "metric": tk.logit_difference(tiny_llama, " Mary", " John")}
    single = tk.attribution_patching(tiny_llama, *alone, **one).isel(prompt=0).dropna("token")
    both = found.isel(prompt=0).sel(token=single.token)
    np.testing.assert_allclose(single, both, atol=1e-5)


def test_along_a_path_it_sums_to_the_change_of_all_places_at_once(
    tiny_llama: Any, tiny_folder: Path, sides: list[xr.Dataset], metric: Any
) -> None:
    given: dict[str, Any] = {"metric": metric, "layers": [0, 2], "tokens": slice(-4, -1)}
    sites = ("residual", "mlp", "heads")
    path = tk.attribution_patching(tiny_llama, *sides, sites=sites, steps=16, **given)
    first = tk.attribution_patching(tiny_llama, *sides, sites=sites, **given)
    theirs = reference.load(tiny_folder)
    for prompt, (ids, others) in enumerate(zip(*map(rows, sides), strict=True)):
        score = lambda logits, n=prompt: metric(logits[None], torch.tensor([n]))[0]
        for site in ("residual", "mlp", "head 1"):
            for layer in (0, 2):
                source = one_by_one.values(theirs, others, site, layer)
                pairs = [(len(ids) + n, len(others) + n) for n in range(-4, 0)]
                whole = one_by_one.patched(theirs, ids, source, site, layer, pairs, score)
                there = {"site": site, "layer": layer}
                change = whole - float(path.unpatched[prompt])
                ours = float(path.sel(there).isel(prompt=prompt).sum("token"))
                assert ours == pytest.approx(change, abs=5e-3)
    gap = abs(first - path).sum("token").max()
    assert float(gap) > 0.01


def test_steps_and_metrics_that_do_not_fit_are_refused(
    tiny_llama: Any, sides: list[xr.Dataset], metric: Any
) -> None:
    with pytest.raises(ValueError, match="steps=0 was asked for"):
        tk.attribution_patching(tiny_llama, *sides, metric=metric, steps=0)
    with pytest.raises(ValueError, match=r"shape \(\); a forward of 2 rows"):
        tk.attribution_patching(tiny_llama, *sides, metric=lambda logits: logits.sum())
    with pytest.raises(ValueError, match="1 words towards and 2 against"):
        tk.logit_difference(tiny_llama, [" a"], [" b", " c"])
