"""Patching: another arm's traces in place of the model's own, on the same ids alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tests.support.steering import LAYER, NEW


def test_patching_own_traces_changes_nothing_and_the_other_arms_reproduce_it(
    fresh_llama: TransformersModel, tiny_lora: Path
) -> None:
    model = fresh_llama
    runs = tk.generate(
        model, tk.encode(model, steering.PROMPTS), max_new_tokens=NEW, progress=False
    )
    everything = {"tokens": "all", "progress": False}
    clean = tk.capture(model, runs, **everything)
    with tk.adapter(model, str(tiny_lora)):
        organism = tk.capture(model, runs, **everything)
        own = tk.capture(tk.patch(model, organism), runs, **everything)
        other = tk.capture(tk.patch(model, clean), runs, **everything)
        early = tk.capture(tk.patch(model, clean, layers=[1]), runs, **everything)
        scores = tk.logprobs(tk.patch(model, clean), runs)
    assert float(abs(organism - clean).max()) > 0.1
    xr.testing.assert_equal(own.drop_attrs(), organism.drop_attrs())
    xr.testing.assert_equal(other.drop_attrs(), clean.drop_attrs())
    xr.testing.assert_equal(early.sel(layer=1).drop_attrs(), clean.sel(layer=1).drop_attrs())
    assert float(abs(early - clean).sel(layer=3).max()) > 0.1
    # logprobs makes other batches than capture, so rounding differs
    np.testing.assert_allclose(scores, tk.logprobs(model, runs), atol=1e-5)


def test_patch_acts_only_where_traces_have_values(
    tiny_llama: TransformersModel, plain: xr.Dataset
) -> None:
    traces = tk.capture(tiny_llama, plain, [LAYER], progress=False)
    moved = (traces + 7).assign_attrs(traces.attrs)
    moved.loc[{"prompt": "text/1", "token": 3}] = np.nan
    edited = tk.patch(tiny_llama, moved, tokens=slice(1, 4))
    found = tk.capture(edited, plain, [LAYER], progress=False) - traces
    row = found.isel(prompt=1, layer=0, dim=0)
    np.testing.assert_allclose(row.sel(token=[0, 1, 2, 3, 4, 5]), [0, 7, 7, 0, 7, 0], atol=1e-5)


def test_patch_refuses_what_is_not_the_same_ids(
    tiny_llama: TransformersModel, asked: xr.Dataset, plain: xr.Dataset
) -> None:
    traces = tk.capture(tiny_llama, plain, [LAYER], tokens="all", progress=False)
    other = plain.copy(deep=True)
    other.token_id.loc[{"token": 2}] = 17
    with pytest.raises(ValueError, match=r"token 2, the traces have the id \d+ and the run 17"):
        tk.capture(tk.patch(tiny_llama, traces), other, [LAYER], progress=False)
    with pytest.raises(ValueError, match=r"generated tokens \(label 0\)"):
        tk.generate(tk.patch(tiny_llama, traces), asked, max_new_tokens=3, progress=False)
    prompt = tk.patch(tiny_llama, traces, tokens=slice(None, -1))
    said = tk.generate(prompt, asked, max_new_tokens=NEW, progress=False)
    assert steering.response_ids(said) == steering.response_ids(plain)
    with pytest.raises(ValueError, match=r"traces of 1 prompts and none of 'text/1'"):
        tk.capture(tk.patch(tiny_llama, traces.isel(prompt=[0])), plain, progress=False)
    with pytest.raises(ValueError, match=r"have the dims \('prompt', 'layer', 'dim'\)"):
        tk.patch(tiny_llama, tk.capture(tiny_llama, plain, reduce="mean", progress=False))
    projected = {"site": lambda block: block.attn.o_proj.output, "progress": False}
    written = tk.capture(tiny_llama, plain, [LAYER], **projected)
    with pytest.raises(ValueError, match="of the site '<lambda>"):
        tk.patch(tiny_llama, written)


@pytest.mark.parametrize("site", ["attention", "mlp"])
def test_what_a_block_adds_is_patched_too(
    tiny_llama: TransformersModel, plain: xr.Dataset, site: str
) -> None:
    written = tk.capture(tiny_llama, plain, [LAYER], site=site, tokens="all", progress=False)
    before = tk.capture(tiny_llama, plain, [LAYER], tokens="all", progress=False)
    own = tk.capture(tk.patch(tiny_llama, written), plain, [LAYER], tokens="all", progress=False)
    np.testing.assert_allclose(own, before, atol=1e-5)
    moved = tk.patch(tiny_llama, (written + 3).assign_attrs(written.attrs))
    after = tk.capture(moved, plain, [LAYER], tokens="all", progress=False)
    if site == "mlp":
        np.testing.assert_allclose(after, before + 3, atol=1e-4)
    assert float(abs(after - before).mean()) > 0.1
