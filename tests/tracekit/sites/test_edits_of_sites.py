"""An edit by function at every site that can be put back, on kinds of architecture, id for id."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tracekit as tk
from tests.support import steering
from tests.support.models import tiny
from tests.support.oracles import inside, reference
from tracekit.errors import InputError

NEW, LAYERS = 5, (1, 3)
# norms after each part; fused projections and Conv1D; tokens in one row; experts
SAMPLE = ("Gemma2", "GPT-2", "OPT", "Mixtral")
# what a block does not have under that name
LACKING = {("Mixtral", "mlp_hidden")}
SITES = ("residual", "attention", "mlp", "heads", "mlp_hidden")
POST_NORMED = ("gemma2", "gemma3_text", "olmo2")


def edited(value: torch.Tensor, layer: int) -> torch.Tensor:
    return (layer + 1) * value.flip(-1).tanh() - value


@pytest.fixture(scope="module", params=SAMPLE)
def known(request: Any, words: Any, tmp_path_factory: Any) -> tuple[str, Any]:
    folder = tiny.build(request.param, tmp_path_factory.mktemp("models") / "model", words)
    return request.param, tk.load(folder, dtype="float32", tokenizer=words)


def module(kind: str, site: str) -> tuple[str, bool]:
    """The path in a block of what a site is in transformers, and whether its input is."""
    output, down = inside.PROJECTIONS.get(kind, inside.ELSEWHERE)
    normed = {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
    parts = {
        "residual": ("", False),
        "attention": (output.rpartition(".")[0], False),
        "mlp": (down.rpartition(".")[0] or down, False),
        "heads": (output, True),
        "mlp_hidden": (down, True),
    }
    if kind in POST_NORMED and site in normed:
        return normed[site], False
    return parts[site]


@pytest.mark.parametrize("site", SITES)
def test_an_edit_equals_a_plain_hook(known: tuple[str, Any], site: str) -> None:
    name, model = known
    asked = tk.encode(model, steering.PROMPTS, template="raw")
    plain = tk.generate(model, asked, max_new_tokens=NEW, progress=False)
    if (name, site) in LACKING:
        with pytest.raises(InputError, match=rf"site='{site}' was asked for"):
            tk.edit(model, edited, layers=LAYERS, site=site)
        return
    ours = tk.edit(model, edited, layers=LAYERS, site=site)
    kind = model._module.config.model_type
    part, before = module(kind, site)

    def hooked(turn: int) -> list[list[int]]:
        def at(layer: int) -> steering.Acts:
            def act(value: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
                apart = value.unflatten(-1, (tiny.HEADS, -1)) if site == "heads" else value
                new = edited(apart, layer).roll(turn, -1).reshape(value.shape)
                return torch.where(acts, new, value)

            return act

        hooks = {layer: at(layer) for layer in LAYERS}
        blocks = reference.WHERE.get(kind, reference.ELSEWHERE)[0]
        return steering.hooked_ids(model, asked, hooks, -1, NEW, part, before, blocks)

    said = steering.response_ids(tk.generate(ours, asked, max_new_tokens=NEW, progress=False))
    assert said == hooked(0)
    assert said != steering.response_ids(plain)
    assert said != hooked(1)
