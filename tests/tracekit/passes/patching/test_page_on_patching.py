"""The snippets of docs/patching.md run, on a model of random weights."""

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

import tracekit as tk

SHALLOW = {"layers=[10, 20]": "layers=[1, 2]", "[10]": "[1]", "[20]": "[2]", "layer=20": "layer=2"}
WORDS = ((" Mary", " John"), (" Tom", " Emma"))
PAGE = (Path(__file__).parents[4] / "docs" / "patching.md").read_text("utf-8")


def test_the_snippets_run_one_after_the_other(
    tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib.use("Agg")
    monkeypatch.setattr(tk, "load", lambda _name: tiny_llama)
    space: dict[str, Any] = {}
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) == 5
    for snippet in snippets:
        for here, there in SHALLOW.items():
            snippet = snippet.replace(here, there)
        exec(snippet, space)
    share, interval = space["share"], space["interval"]
    np.testing.assert_allclose(interval["estimate"], share.mean("prompt"))
    inside = (interval["low"] <= interval["estimate"]) & (interval["estimate"] <= interval["high"])
    assert bool(inside.all())
    assert float((interval["high"] - interval["low"]).max()) > 0
    assert space["names"].target_token.values.ravel().tolist() == [-4, -4]
    _require_path(space, tiny_llama)


def _require_path(space: dict[str, Any], model: Any) -> None:
    """The path to the logits, and the one through an MLP, by adding up the blocks' own outputs."""
    plain = model._module
    for row in range(2):
        parts, stream = {}, {}
        for name in ("clean", "corrupted"):
            ids = space[name].token_id.values[row]
            parts[name], stream[name] = _outputs(plain, torch.tensor(ids[ids >= 0])[None])
        moved = parts["clean"]["attn"][1] - parts["corrupted"]["attn"][1]
        words = [model.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in WORDS[row]]

        def margin(residual: torch.Tensor, words: list[int] = words) -> float:
            logits = plain.lm_head(plain.model.norm(residual))
            return float(logits[words[0]] - logits[words[1]])

        last = stream["corrupted"]["last"]
        assert space["direct"].values[row] == pytest.approx(margin(last + moved), abs=1e-4)
        block = plain.model.layers[2]
        before = stream["corrupted"]["middle"]
        heard = [block.mlp(block.post_attention_layernorm(x)) for x in (before + moved, before)]
        through = _after(plain, space["corrupted"].token_id.values[row], heard[0])
        assert space["through"].values[row] == pytest.approx(margin(through), abs=1e-4)
        assert abs(margin(last + moved) - margin(last)) > 1e-3
        assert (heard[0] - heard[1]).abs().max() > 1e-4


@torch.no_grad()
def _outputs(plain: Any, ids: torch.Tensor) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """At the last token: what each attention adds, the stream into block 2's MLP, and the last."""
    attn: list[torch.Tensor] = []
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        layer.self_attn.register_forward_hook(lambda *call: attn.append(call[2][0][0, -1]))
        for layer in plain.model.layers
    ]
    norm, last = plain.model.layers[2].post_attention_layernorm, plain.model.norm
    hooks.append(norm.register_forward_pre_hook(lambda _, x: seen.update(middle=x[0][0, -1])))
    hooks.append(last.register_forward_pre_hook(lambda _, x: seen.update(last=x[0][0, -1])))
    plain(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return {"attn": attn}, seen


@torch.no_grad()
def _after(plain: Any, row: np.ndarray, heard: torch.Tensor) -> torch.Tensor:
    """The last residual when block 2's MLP says `heard` at the last token, all else running on."""
    seen: dict[str, torch.Tensor] = {}

    def put(module: Any, given: Any, output: torch.Tensor) -> torch.Tensor:
        new = output.clone()
        new[0, -1] = heard
        return new

    hooks = [
        plain.model.layers[2].mlp.register_forward_hook(put),
        plain.model.norm.register_forward_pre_hook(lambda _, x: seen.update(last=x[0][0, -1])),
    ]
    plain(input_ids=torch.tensor(row[row >= 0])[None])
    for hook in hooks:
        hook.remove()
    return seen["last"]
