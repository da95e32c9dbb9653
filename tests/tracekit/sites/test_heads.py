"""Heads and hidden units under adapters, quantisation and edits, and where they are refused."""

import numpy as np
import pytest
import torch

import tracekit as tk
from tests.support.models import tiny
from tests.support.oracles import reference
from tracekit.model.heads import require_heads

TEXTS = ["The quick brown fox jumps over the dog.", "Yes, it is."]


@pytest.fixture(scope="module")
def wide(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    base = tiny.build("Llama", folder / "model", words, widen=8)
    return base, tiny.build_lora(base, folder / "lora")


def captured(model, site):
    runs = tk.encode(model, TEXTS, template="raw")
    return tk.capture(model, runs, site=site, tokens="all", progress=False)


def gap(found, expected):
    """The largest ‖found − expected‖ / ‖expected‖ of a token at a layer."""
    sizes = [np.linalg.norm(x, axis=-1) for x in (found - expected, expected)]
    return float(np.nanmax(sizes[0] / sizes[1]))


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("nf4", 1e-5), ("int8", 2e-2)])
def test_heads_are_what_the_projection_makes_of_each_slice(wide, words, dtype, bound):
    base, lora = wide
    model = tk.load(base, dtype=dtype, tokenizer=words, adapter=lora)
    found = {"on": captured(model, "heads"), "attention": captured(model, "attention")}
    with tk.adapter(model, None):
        found["off"] = captured(model, "heads")
    plain, inputs = reference.load(base, dtype, lora), reference.padded(words, TEXTS)
    real, seen = inputs["attention_mask"].bool(), {}
    projection = plain.base_model.model.model.layers[2].self_attn.o_proj
    handle = projection.register_forward_hook(lambda module, args, out: seen.update(given=args[0]))
    with torch.no_grad():
        plain(**inputs)
        handle.remove()
        alone = torch.zeros(4, *seen["given"].shape, dtype=seen["given"].dtype)
        for head in range(4):
            part = slice(64 * head, 64 * head + 64)
            alone[head, ..., part] = seen["given"][..., part]
        expected = torch.stack([projection(one) for one in alone], 2).float()[real].numpy()
    ours = {name: x.sel(layer=2).values[real.numpy()] for name, x in found.items()}
    assert gap(ours["on"], expected) <= bound
    assert gap(ours["on"].sum(1), ours["attention"]) <= bound
    # twins: without the adapter's part, and heads in another order
    assert gap(ours["off"], expected) > 10 * bound
    assert gap(ours["on"][:, ::-1], expected) > 10 * bound


def test_hidden_units_through_the_down_projection_are_the_mlp(wide, words):
    base, lora = wide
    for dtype in ("float32", "nf4"):
        model = tk.load(base, dtype=dtype, tokenizer=words, adapter=lora)
        hidden, mlp = captured(model, "mlp_hidden"), captured(model, "mlp")
        assert hidden.dims == ("prompt", "token", "layer", "unit")
        plain = reference.load(base, dtype, lora).base_model.model.model.layers
        for layer in range(tiny.DEPTH):
            values = torch.tensor(hidden.sel(layer=layer).values)
            with torch.no_grad():
                through = plain[layer].mlp.down_proj(values).numpy()
                values[-1, -1, 5] *= 1.5
                changed = plain[layer].mlp.down_proj(values).numpy()
            assert gap(through, mlp.sel(layer=layer).values) <= 1e-5
            assert gap(changed, mlp.sel(layer=layer).values) > 1e-4


def test_heads_of_an_edited_model_are_the_edited_ones(tiny_llama):
    def silent(value, layer):
        value[:, :, 3] = 0
        return value

    edited = tk.edit(tiny_llama, silent, layers=[1], site="heads", tokens="all")
    plain, changed = captured(tiny_llama, "heads"), captured(edited, "heads")
    others = [0, 1, 2]
    assert np.nanmax(np.abs(changed.sel(layer=1, head=3))) == 0
    assert np.nanmax(np.abs(plain.sel(layer=1, head=3))) > 0.01
    assert np.array_equal(
        changed.sel(layer=1, head=others), plain.sel(layer=1, head=others), equal_nan=True
    )
    assert not np.array_equal(changed.sel(layer=2), plain.sel(layer=2), equal_nan=True)


@pytest.mark.parametrize("heads", [[4], [-1], [], [1, 1]])
def test_heads_out_of_range_are_refused(tiny_llama, heads):
    assert require_heads(tiny_llama, 1, [2, 0]) == [0, 2]
    with pytest.raises(ValueError, match=r"of layers\[1\] were asked for; it has heads 0 to 3"):
        require_heads(tiny_llama, 1, heads)


# model_type → what its configuration adds; the sites that are refused, and why
UNLIKE = {
    # its attention returns the stream as well
    "bloom": ({"n_head": 4}, {"heads": "does not add it as it is", "mlp_hidden": "differ by"}),
    # all heads' queries, one key and value
    "falcon": (
        {"num_attention_heads": 4, "multi_query": True},
        {"keys": "gives 48 numbers .* 4 heads of 8", "pattern": "puts out no pattern"},
    ),
    # three parts a head, under the name of GPT-2's three parts
    "gpt_bigcode": (
        {"n_head": 4, "n_embd": 32, "n_layer": 3, "multi_query": False},
        {"queries": "a first token's values and", "values": "a first token's values and"},
    ),
    # attention has a sink beside the tokens
    "gpt_oss": (
        {**tiny.ROTARY, "num_local_experts": 4, "num_experts_per_tok": 2},
        {"pattern": "the sum of a row of its pattern and 1", "mlp_hidden": "has router, experts"},
    ),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_what_an_architecture_makes_otherwise_is_refused_by_name(kind, words):
    settings, refused = UNLIKE[kind]
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": len(words), **settings}
    model = tk.load(tiny.module(kind, sizes), tokenizer=words)
    for site, reason in refused.items():
        with pytest.raises(ValueError, match=rf"site='{site}' was asked for, .* {reason}"):
            captured(model, site)
    site = {"bloom": "values", "falcon": "heads", "gpt_bigcode": "heads", "gpt_oss": "router"}[kind]
    assert captured(model, site).sizes["prompt"] == 2
