"""A sweep of patches against plain hooks, one forward for every place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import PreTrainedTokenizerBase

import tracekit as tk
from tests.support.models import tiny
from tests.support.oracles import one_by_one, reference

CLEAN = ["Mary saw John and John waved to", "Then Tom met Ann here, and Ann sang to"]
CORRUPTED = ["Mary saw John and Mary waved to", "Then Tom met Ann here, and Tom sang to"]
TOWARDS, AGAINST = [" Mary", " Tom"], [" John", " Ann"]
SITES = ("residual", "attention", "mlp")


def encoded(model: Any, texts: list[str]) -> xr.Dataset:
    return tk.encode(model, texts, template="raw")


def rows(runs: xr.Dataset) -> list[list[int]]:
    return [[i for i in row if i >= 0] for row in runs.token_id.values.tolist()]


def expected(
    theirs: Any, runs: xr.Dataset, sources: xr.Dataset, found: xr.DataArray, metric: Any
) -> xr.DataArray:
    """`found` with the value of a plain hook in every place."""
    plain = found.copy(data=np.full(found.shape, np.nan))
    for prompt, (ids, others) in enumerate(zip(rows(runs), rows(sources), strict=True)):
        for site in found.site.values:
            for layer in found.layer.values:
                stored = one_by_one.values(theirs, others, site, int(layer))
                for place, there in enumerate(found.isel(site=0, layer=0, prompt=prompt).values):
                    if np.isnan(there):
                        continue
                    at = found.isel(prompt=prompt, token=place)
                    pair = [
                        (len(ids) + int(at.target_token), len(others) + int(at.source_token)),
                    ]
                    score = lambda logits, n=prompt: metric(logits[None], torch.tensor([n]))[0]
                    where = {"site": site, "layer": layer}
                    plain[{"prompt": prompt, "token": place}].loc[where] = one_by_one.patched(
                        theirs, ids, stored, site, int(layer), pair, score
                    )
    return plain


@pytest.fixture(scope="module")
def sides(tiny_llama: Any) -> tuple[xr.Dataset, xr.Dataset]:
    return encoded(tiny_llama, CORRUPTED), encoded(tiny_llama, CLEAN)


@pytest.fixture(scope="module")
def metric(tiny_llama: Any) -> Any:
    return tk.logit_difference(tiny_llama, TOWARDS, AGAINST)


@pytest.fixture(scope="module")
def found(tiny_llama: Any, sides: tuple[xr.Dataset, xr.Dataset], metric: Any) -> xr.DataArray:
    return tk.activation_patching(tiny_llama, *sides, metric=metric, sites=SITES)


def test_each_place_is_that_of_a_plain_hook(
    tiny_folder: Path, sides: tuple[xr.Dataset, xr.Dataset], found: xr.DataArray, metric: Any
) -> None:
    theirs = reference.load(tiny_folder)
    plain = expected(theirs, *sides, found, metric)
    assert found.dims == ("site", "layer", "token", "prompt")
    assert found.sizes["token"] == max(map(len, rows(sides[0])))
    np.testing.assert_allclose(found, plain, atol=1e-5)
    # every layer and site carries something: the next one's value is another
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, plain.roll(layer=1), atol=1e-2)
    for side, name in zip(sides, ("unpatched", "source"), strict=True):
        for prompt, ids in enumerate(rows(side)):
            logits = theirs(input_ids=torch.tensor([ids])).logits[:, -1].detach()
            own = float(metric(logits, torch.tensor([prompt]))[0])
            assert float(found[name][prompt]) == pytest.approx(own, abs=1e-5)


def test_heads_are_patched_one_by_one(
    tiny_llama: Any, tiny_folder: Path, sides: tuple[xr.Dataset, xr.Dataset], metric: Any
) -> None:
    given: dict[str, Any] = {"metric": metric, "layers": [0, 2], "tokens": slice(-3, -1)}
    found = tk.activation_patching(tiny_llama, *sides, sites=["heads", "mlp"], **given)
    assert found.site.values.tolist() == ["head 0", "head 1", "head 2", "head 3", "mlp"]
    plain = expected(reference.load(tiny_folder), *sides, found, metric)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, plain.roll(site=1), atol=1e-3)


def test_both_directions_are_one_line_and_the_last_place_carries_all(
    tiny_llama: Any, sides: tuple[xr.Dataset, xr.Dataset], found: xr.DataArray, metric: Any
) -> None:
    noised = tk.activation_patching(tiny_llama, *sides[::-1], metric=metric, layers=[1, 3])
    assert noised.unpatched.values == pytest.approx(found.source.values, abs=1e-5)
    for one in (found, noised):
        share = (one - one.unpatched) / (one.source - one.unpatched)
        last = share.sel(site="residual", layer=3, token=-1)
        np.testing.assert_allclose(last, 1, atol=1e-4)
        assert float(abs(share.sel(site="residual", layer=1, token=-1) - 1).max()) > 0.01


def test_the_plan_of_forwards_does_not_matter(
    tiny_llama: Any, sides: tuple[xr.Dataset, xr.Dataset], found: xr.DataArray, metric: Any
) -> None:
    for budget in (1, 60, 100_000):
        again = tk.activation_patching(
            tiny_llama, *sides, metric=metric, sites="mlp", layers=[1, 3], token_budget=budget
        )
        np.testing.assert_allclose(again, found.sel(again.coords.indexes), atol=1e-5)


def test_masks_pair_tokens_of_prompts_that_are_not_of_one_length(
    tiny_llama: Any, tiny_folder: Path, metric: Any
) -> None:
    runs = encoded(tiny_llama, ["Today Mary saw John and", "Tom met Ann here, and Ann"])
    sources = encoded(tiny_llama, ["John saw Mary, and", "So then Ann met Tom and Tom"])
    masks = [tk.find(runs, re.compile("Mary|Tom")), tk.find(sources, re.compile("John|Ann"))]
    chosen = {"tokens": masks[0], "source_tokens": masks[1]}
    found = tk.activation_patching(tiny_llama, runs, sources, metric=metric, layers=[0], **chosen)
    assert found.token.values.tolist() == list(range(found.sizes["token"]))
    plain = expected(reference.load(tiny_folder), runs, sources, found, metric)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, plain.roll(prompt=1), atol=1e-2)


@pytest.mark.parametrize("name", ["GPT-2", "Gemma2", "OLMo2", "Mixtral"])
def test_other_architectures(name: str, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = tiny.build(name, tmp_path / "model", words)
    model = tk.load(folder, dtype="float32", tokenizer=words)
    runs, sources = encoded(model, CORRUPTED[:1]), encoded(model, CLEAN[:1])
    metric = tk.logit_difference(model, TOWARDS[0], AGAINST[0])
    found = tk.activation_patching(
        model, runs, sources, metric=metric, layers=[1, 2], tokens=slice(-3, -1), sites=SITES
    )
    plain = expected(reference.load(folder), runs, sources, found, metric)
    np.testing.assert_allclose(found, plain, atol=2e-5)
    assert float(abs(plain - plain.roll(token=1)).max()) > 1e-3


def test_edits_and_adapters_stay_on(
    tiny_llama: Any,
    tiny_folder: Path,
    tiny_lora: Path,
    sides: tuple[xr.Dataset, xr.Dataset],
    metric: Any,
) -> None:
    with tk.adapter(tiny_llama, str(tiny_lora)):
        found = tk.activation_patching(tiny_llama, *sides, metric=metric, layers=[2])
    theirs = reference.load(tiny_folder, lora=tiny_lora)
    np.testing.assert_allclose(found, expected(theirs, *sides, found, metric), atol=1e-5)
    plain = reference.load(tiny_folder)
    vector = np.random.default_rng(0).normal(size=32).astype(np.float32)
    steered = tk.steer(tiny_llama, vector, coefficient=2.0, layers=[1], tokens="all")
    found = tk.activation_patching(steered, *sides, metric=metric, layers=[0, 2])
    moved = lambda value: value + 2.0 * torch.from_numpy(vector)
    with one_by_one.changed(plain, 1, "residual", moved):
        edited = expected(plain, *sides, found, metric)
    np.testing.assert_allclose(found, edited, atol=1e-4)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, expected(plain, *sides, found, metric), atol=1e-3)


def test_a_probe_and_own_ids_are_metrics_too(
    tiny_llama: Any, tiny_folder: Path, sides: tuple[xr.Dataset, xr.Dataset]
) -> None:
    theirs, direction = reference.load(tiny_folder), np.eye(32, dtype=np.float32)[3]
    probe = xr.DataArray(direction, dims="dim", coords={"layer": 2})
    found = tk.activation_patching(tiny_llama, *sides, metric=probe, layers=[1, 2], sites=SITES[:2])
    ids, others = (rows(side)[0] for side in sides)
    for site in SITES[:2]:
        stored = one_by_one.values(theirs, others, site, 1)

        def change(value: torch.Tensor, new: torch.Tensor = stored) -> torch.Tensor:
            return torch.cat([value[:, :-3], new[None, [-3]], value[:, -2:]], 1)

        with one_by_one.changed(theirs, 1, site, change):
            there = one_by_one.values(theirs, ids, "residual", 2)
        place = {"site": site, "layer": 1, "token": -3}
        assert float(found.sel(place)[0]) == pytest.approx(float(there[-1, 3]), abs=1e-5)
        assert float(found.sel(place)[0]) != pytest.approx(float(found.unpatched[0]), abs=1e-4)
    source = one_by_one.values(theirs, others, "residual", 2)
    last = found.sel(site="residual", layer=2, token=-1)[0]
    assert float(last) == pytest.approx(float(source[-1, 3]), abs=1e-5)
    answered = [
        tk.encode(tiny_llama, texts, ["Yes, it is.", "No."]) for texts in (CLEAN, CORRUPTED)
    ]
    scores = tk.activation_patching(
        tiny_llama, *answered, metric="logprob", layers=[1], tokens=[-1]
    )
    whole = tk.logprobs(tiny_llama, answered[0]).sel(token=slice(0, None)).sum("token")
    np.testing.assert_allclose(scores.unpatched, whole, atol=1e-4)
    assert float(abs(scores - scores.unpatched).max()) > 1e-3


def test_a_model_whose_blocks_hand_on_more_is_run_whole(
    fresh_llama: Any, tiny_folder: Path, sides: tuple[xr.Dataset, xr.Dataset], metric: Any
) -> None:
    theirs = reference.load(tiny_folder)
    for blocks in (fresh_llama._module.model.layers, theirs.model.layers):
        seen: list[torch.Tensor] = []
        # block 3 reads what block 0 put out, which a forward that begins later would not have
        blocks[0].register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        blocks[3].register_forward_hook(lambda _m, _i, out, seen=seen: out + seen[-1])
    found = tk.activation_patching(fresh_llama, *sides, metric=metric, layers=[1, 2])
    np.testing.assert_allclose(found, expected(theirs, *sides, found, metric), atol=1e-5)


def test_a_result_is_saved_and_opened(found: xr.DataArray, tmp_path: Path) -> None:
    path = tk.save(found, tmp_path / "patched.nc")
    xr.testing.assert_identical(tk.open(path).load(), found)
    assert tk.provenance(found)["activation_patching"]["metric"].startswith("logit_difference")


def test_what_does_not_fit_is_refused_with_what_is_there(
    tiny_llama: Any, sides: tuple[xr.Dataset, xr.Dataset], metric: Any
) -> None:
    model, (runs, sources) = tiny_llama, sides
    longer = encoded(model, [f"Well, {text}" for text in CLEAN])

    def refused(match: str, *given: Any, **settings: Any) -> None:
        with pytest.raises(ValueError, match=match):
            tk.activation_patching(model, *(given or sides), **{"metric": metric, **settings})

    refused(r"patched at 8 tokens from 10 of its source", runs, longer)
    refused(r"2 runs .* 1 sources", runs, sources.isel(prompt=[0]))
    refused(r"patched at 1 tokens from 2", tokens=[-1], source_tokens=[-2, -1])
    refused(r"labels \[5\]", tokens=[5])
    refused(r"blocks 0 to 3", layers=[9])
    refused(r"blocks 0 to 3", layers=[-1])
    refused(r"sites=\['queries'\]", sites=["queries"])
    refused(r"shape \(\); a forward of 2 rows", metric=lambda logits: logits.sum())
    refused(r"shape \(2, \d+\); a forward of 2 rows", metric=lambda logits: logits)
    refused(r"3 pairs of words, and the transcripts 2", metric=three_pairs(model))
    refused(r"'logprob' sums .* such as 'text/0'", metric="logprob")
    refused(r"only word is 'logprob'", metric="accuracy")


def three_pairs(model: Any) -> Any:
    return tk.logit_difference(model, [" a", " b", " c"], [" d", " e", " f"])


def test_labels_are_paired_in_the_order_they_are_listed(
    tiny_llama: Any, tiny_folder: Path, sides: tuple[xr.Dataset, xr.Dataset], metric: Any
) -> None:
    given: dict[str, Any] = {"metric": metric, "layers": [1], "tokens": [-3, -1]}
    theirs = reference.load(tiny_folder)
    # crossed, and one source into two places
    for pairs in ([-2, -5], [-2, -2]):
        found = tk.activation_patching(tiny_llama, *sides, source_tokens=pairs, **given)
        at, source = (
            found[name].transpose("prompt", "token") for name in ("target_token", "source_token")
        )
        assert (at.values.tolist(), source.values.tolist()) == ([[-3, -1]] * 2, [pairs] * 2)
        plain = expected(theirs, *sides, found, metric)
        np.testing.assert_allclose(found, plain, atol=1e-4)
    turned = tk.activation_patching(
        tiny_llama, *sides, **{**given, "tokens": [-1, -3]}, source_tokens=[-5, -2]
    )
    turned = turned.source_token.transpose("prompt", "token")
    assert turned.values.tolist() == [[-2, -5]] * 2
    with pytest.raises(tk.InputError, match="each of tokens once"):
        tk.activation_patching(
            tiny_llama, *sides, **{**given, "tokens": [-1, -1]}, source_tokens=[-1, -2]
        )
