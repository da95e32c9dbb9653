"""Edits by a function of one's own: equal to a plain hook under the KV cache, left-padded."""

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
from tests.support.steering import LAYER, NEW

QUIET = {"progress": False}
MODULES = {
    "residual": "",
    "attention": "self_attn",
    "mlp": "mlp",
    "heads": "self_attn.o_proj",
    "mlp_hidden": "mlp.down_proj",
}
HEADS = 4


def flipped(value: torch.Tensor, layer: int) -> torch.Tensor:
    """Not linear, and other at each layer."""
    return (layer + 1) * value.flip(-1).tanh() - value


def hooked(
    model: TransformersModel, asked: xr.Dataset, first: int | None, site: str, scale: float = 1.0
) -> list[list[int]]:
    def at(layer: int) -> steering.Acts:
        def act(value: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
            apart = value.unflatten(-1, (HEADS, -1)) if site == "heads" else value
            return torch.where(acts, scale * flipped(apart, layer).reshape(value.shape), value)

        return act

    hooks = {layer: at(layer) for layer in (1, LAYER)}
    part, before = MODULES[site], site in ("heads", "mlp_hidden")
    return steering.hooked_ids(model, asked, hooks, first, NEW, part, before)


@pytest.mark.parametrize("site", MODULES)
@pytest.mark.parametrize(("tokens", "first"), [(slice(-1, None), -1), ("all", None)])
def test_an_edit_by_function_equals_a_plain_hook_id_for_id(
    tokens: Any,
    first: int | None,
    site: str,
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
) -> None:
    edited = tk.edit(tiny_llama, flipped, layers=[LAYER, 1], site=site, tokens=tokens)
    said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, **QUIET))
    assert said == hooked(tiny_llama, asked, first, site)
    assert said != steering.response_ids(plain)
    assert said != hooked(tiny_llama, asked, first, site, scale=1.3)


def test_what_a_function_does_to_other_positions_has_no_effect(
    tiny_llama: TransformersModel, plain: xr.Dataset
) -> None:
    def spoiling(value: torch.Tensor, layer: int) -> torch.Tensor:
        value.mul_(2)
        return value

    doubled = tk.edit(tiny_llama, spoiling, layers=LAYER, tokens=[0, 2])
    a, b = (tk.capture(m, plain, [LAYER], tokens="all", **QUIET) for m in (tiny_llama, doubled))
    chosen = a.token.isin([0, 2])
    np.testing.assert_allclose(b.where(chosen), 2 * a.where(chosen), rtol=1e-6)
    xr.testing.assert_equal(
        b.where(~chosen & (b.token < 2)).drop_attrs(), a.where(~chosen & (a.token < 2)).drop_attrs()
    )


def test_an_edit_is_recorded_by_what_its_function_computes(
    tiny_llama: TransformersModel, asked: xr.Dataset
) -> None:
    def scaled(amount: float) -> Any:
        return lambda value, layer: amount * value

    def recorded(function: Any, **given: Any) -> dict[str, Any]:
        edited = tk.edit(tiny_llama, function, **{"layers": 1, **given})
        runs = tk.generate(edited, asked, max_new_tokens=1, **QUIET)
        return tk.provenance(runs)["text"]["by"]["edits"][0]

    one, two = recorded(scaled(1.0)), recorded(scaled(2.0))
    assert one["function"] != two["function"]
    assert recorded(scaled(1.0)) == one
    assert {k: one[k] for k in ("kind", "layers", "tokens")} == {
        "kind": "edit",
        "layers": [1],
        "tokens": "-1:None",
    }
    named = recorded(("halved", scaled(0.5)), site="mlp", tokens="all")
    assert (named["function"], named["site"], named["tokens"]) == ("halved", "mlp", "all")


def test_functions_of_another_shape_or_of_values_that_are_not_finite_are_refused(
    tiny_llama: TransformersModel, asked: xr.Dataset
) -> None:
    def run(function: Any) -> None:
        edited = tk.edit(tiny_llama, ("mine", function), layers=1)
        tk.generate(edited, asked, max_new_tokens=2, **QUIET)

    with pytest.raises(ValueError, match=r"edit mine returned the shape \(4, 52\) for .*4, 52, 32"):
        run(lambda value, layer: value.sum(-1))
    with pytest.raises(TypeError, match=r"edit mine returned a NoneType for values of shape"):
        run(lambda value, layer: None)
    with pytest.raises(ValueError, match=r"edit \(edit 0, function mine\) at layer 1 made values"):
        run(lambda value, layer: value / 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"site": "pattern"}, r"site='pattern' was asked for; an edit acts at one of residual"),
        ({"layers": [9]}, r"Layers \[9\] were asked for; this model has blocks 0 to 3"),
        ({"layers": []}, r"Layers \[\]"),
        ({"tokens": "last"}, r"tokens='last'"),
        ({"function": 3}, r"function=3 was asked for"),
    ],
)
def test_what_the_model_lacks_is_refused(
    given: dict[str, Any], message: str, tiny_llama: TransformersModel
) -> None:
    asked = {"function": flipped, "layers": 1, **given}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(tk.edit)(tiny_llama, asked.pop("function"), **asked)
