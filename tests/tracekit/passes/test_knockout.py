"""Sites and heads that say nothing of the input: zero, a mean, another row's, against hooks."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tests.support.steering import NEW

QUIET = {"progress": False}
LAYERS = [1, 3]
# the module of a site, and whether its input is what is replaced
MODULES = {
    "attention": ("self_attn", False),
    "mlp": ("mlp", False),
    "mlp_hidden": ("mlp.down_proj", True),
    "heads": ("self_attn.o_proj", True),
}
HEADS = [(1, 0), (1, 3), (3, 2)]


def given(site: str) -> dict[str, Any]:
    return {"heads": HEADS} if site == "heads" else {"layers": LAYERS, "site": site}


def seen(model: TransformersModel, runs: xr.Dataset, site: str) -> dict[int, list[torch.Tensor]]:
    """The site's values, row by row without padding, by hooks on the transformers module."""
    part, before = MODULES[site]
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    kind = f"register_forward{'_pre' if before else ''}_hook"

    def keep(layer: int) -> Any:
        def hook(_: object, *values: Any) -> None:
            value = values[-1][0] if isinstance(values[-1], tuple) else values[-1]
            found[layer].append(value[0].clone())

        return hook

    blocks = model._module.model.layers
    handles = [getattr(blocks[n].get_submodule(part), kind)(keep(n)) for n in LAYERS]
    for ids in runs.token_id.values:
        with torch.no_grad():
            model._module(torch.tensor(ids[ids >= 0])[None].long())
    for handle in handles:
        handle.remove()
    return found


def replaced(site: str, layer: int, new: Any) -> steering.Acts:
    """`new(columns)` in the place of the site, or of its heads, where the hook acts."""
    steps: list[int] = [0]

    def act(value: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        columns = slice(steps[0], steps[0] + value.shape[1])
        steps[0] = columns.stop
        there = torch.ones(4, 1, dtype=torch.bool)
        if site == "heads":
            there = torch.tensor([(layer, head) in HEADS for head in range(4)])[:, None]
        apart = value.unflatten(-1, (4, -1))
        instead = torch.as_tensor(new(columns)).expand_as(value).unflatten(-1, (4, -1))
        return torch.where(acts[..., None] & there, instead, apart).reshape(value.shape)

    return act


def hooked(
    model: TransformersModel, asked: xr.Dataset, site: str, new: dict[int, Any]
) -> list[list[int]]:
    part, before = MODULES[site]
    hooks = {layer: replaced(site, layer, new[layer]) for layer in LAYERS}
    return steering.hooked_ids(model, asked, hooks, None, NEW, part, before)


@pytest.mark.parametrize("site", MODULES)
def test_zero_and_mean_equal_plain_hooks_id_for_id(
    site: str, tiny_llama: TransformersModel, asked: xr.Dataset, plain: xr.Dataset
) -> None:
    values = seen(tiny_llama, plain, site)
    means = {n: torch.stack([row.mean(0) for row in values[n]]).mean(0) for n in LAYERS}
    wanted = {
        "zero": {n: lambda _: torch.tensor(0.0) for n in LAYERS},
        "mean": {n: lambda _, n=n: means[n] for n in LAYERS},
        "other": {n: lambda _, n=n: means[n].flip(0) for n in LAYERS},
    }
    ids = {name: hooked(tiny_llama, asked, site, new) for name, new in wanted.items()}
    for to, reference in (("zero", None), ("mean", plain)):
        edited = tk.knock_out(tiny_llama, to=to, reference=reference, **given(site))
        said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, **QUIET))
        assert said == ids[to]
        if site in ("attention", "mlp"):
            assert said != steering.response_ids(plain)
        assert edited.tracekit_edits[0]["to"] == to
    assert ids["mean"] != ids["other"] or site != "mlp"


def test_what_attention_adds_is_the_projection_of_the_replaced_heads(
    tiny_llama: TransformersModel, plain: xr.Dataset
) -> None:
    # the ids of a random model are too blunt to tell two means of a head
    edited = tk.knock_out(tiny_llama, to="mean", reference=plain, heads=HEADS[:2])
    added = tk.capture(edited, plain, 1, site="attention", tokens="all", **QUIET)
    values, project = seen(tiny_llama, plain, "heads")[1], tiny_llama._module.model.layers[1]
    mean = torch.stack([row.mean(0) for row in values]).mean(0).unflatten(-1, (4, -1))

    def expected(mean: torch.Tensor, row: int) -> np.ndarray:
        heads = values[row].unflatten(-1, (4, -1)).clone()
        heads[:, [0, 3]] = mean[[0, 3]]
        with torch.no_grad():
            return project.self_attn.o_proj(heads.flatten(1)).numpy()

    for row, got in enumerate(added.isel(layer=0).values):
        real = got[plain.token_id.values[row] >= 0]
        np.testing.assert_allclose(real, expected(mean, row), atol=1e-5)
        assert abs(real - expected(mean.flip(-1), row)).max() > 1e-3


@pytest.mark.parametrize("site", ["attention", "heads"])
def test_resampling_takes_the_same_labels_of_another_row(
    site: str, tiny_llama: TransformersModel, asked: xr.Dataset
) -> None:
    two = asked.isel(prompt=[0, 1])
    values, lengths = seen(tiny_llama, two, site), two.prompt_length.values
    width = two.sizes["token"]

    def others(layer: int, order: list[int]) -> Any:
        def new(columns: slice) -> torch.Tensor:
            labels = np.arange(columns.start, columns.stop) - width
            taken = [np.clip(labels, -lengths[n], -1) + lengths[n] for n in order]
            return torch.stack([values[layer][n][t] for n, t in zip(order, taken, strict=True)])

        return new

    edited = tk.knock_out(tiny_llama, to="resample", reference=two, **given(site))
    said = tk.generate(edited, two, max_new_tokens=NEW, **QUIET)
    crossed, own = (
        hooked(tiny_llama, two, site, {n: others(n, order) for n in LAYERS})
        for order in ([1, 0], [0, 1])
    )
    assert steering.response_ids(said) == crossed
    assert site != "attention" or crossed != own
    alone = tk.generate(edited, two, max_new_tokens=NEW, token_budget=1, **QUIET)
    assert steering.response_ids(alone) == crossed


def test_the_draw_of_a_row_is_the_seeds_and_not_its_own(
    tiny_llama: TransformersModel, asked: xr.Dataset
) -> None:
    def scores(seed: int) -> xr.DataArray:
        edited = tk.knock_out(tiny_llama, 1, to="resample", reference=asked, seed=seed)
        return tk.logprobs(edited, asked)

    xr.testing.assert_equal(scores(0), scores(0))
    assert any(float(abs(scores(0) - scores(seed)).max()) > 1e-4 for seed in (1, 2, 3))


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        ({"heads": [(1, 4)]}, r"Heads \[4\] of layers\[1\] were asked for; it has heads 0 to 3"),
        ({"heads": [(1, 2), (1, 2)]}, r"Heads \[2, 2\]"),
        ({"heads": [(7, 0)]}, r"Layers \[7\] were asked for; this model has blocks 0 to 3"),
        ({"heads": [3]}, r"the head 3; heads are pairs \(layer, head\)"),
        ({"heads": []}, r"Layers \[\]"),
        ({"layers": [9]}, r"Layers \[9\]"),
        ({}, r"layers=None, site='attention' and heads=None; give the layers"),
        ({"layers": 1, "heads": [(1, 0)]}, r"give the layers of a whole site, or heads="),
        ({"layers": 1, "site": "pattern"}, r"site='pattern' was asked for; an edit acts at"),
        ({"layers": 1, "to": "median"}, r"to='median' was asked for; there are 'zero', 'mean'"),
        ({"layers": 1, "to": "mean"}, r"to='mean' without a reference="),
        ({"layers": 1, "reference": "runs"}, r"to='zero' with a reference="),
        ({"layers": 1, "to": "resample", "reference": "one"}, r"reference of one prompt"),
        ({"heads": [(1, 0)], "site": "mlp"}, r"heads= and site='mlp'; heads are attention's"),
        ({"layers": 1, "seed": 3}, r"seed=3 and reference_tokens=all; a seed is of 'resample'"),
        ({"layers": 1, "reference_tokens": "response"}, r"tokens are of a reference="),
    ],
)
def test_what_cannot_be_knocked_out_is_refused(
    asks: dict[str, Any], message: str, tiny_llama: TransformersModel, plain: xr.Dataset
) -> None:
    sets = {"runs": plain, "one": plain.isel(prompt=[0])}
    if "reference" in asks:
        asks = {**asks, "reference": sets[asks["reference"]]}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(tk.knock_out)(tiny_llama, **asks)
