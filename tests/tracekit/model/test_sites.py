"""Sites: what each block adds, any function of a block, and refusals."""

import numpy as np
import pytest
import torch
from transformers import (
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

import tracekit as tk
from tests.support.models import tiny
from tracekit.model import sites

TEXTS = ["Where is Paris in the world?", "Yes"]


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, TEXTS, template="raw")


def traces(model, runs, layers=None, **options):
    return tk.capture(model, runs, layers, tokens="all", progress=False, **options)


def test_input_plus_attention_plus_mlp_is_the_output(tiny_llama, runs):
    stream = traces(tiny_llama, runs, range(-1, 4)).values
    added = traces(tiny_llama, runs, site="attention").values
    added = added + traces(tiny_llama, runs, site="mlp").values
    assert np.nanmax(np.abs(stream[:, :, :-1] + added - stream[:, :, 1:])) < 1e-4
    assert np.nanmax(np.abs(stream[:, :, :-1] - stream[:, :, 1:])) > 0.1


def test_any_function_of_the_block_is_a_site(tiny_llama, runs):
    block = tiny_llama.layers[1]
    for width, site in (
        (32, lambda block: block.attn.q_proj.output),
        (16, lambda block: block.attn.k_proj.output),
        (48, lambda block: block.mlp.down_proj.input),
    ):
        found = traces(tiny_llama, runs, [1], site=site)
        assert found.sizes["dim"] == width
        with tiny_llama.trace(tk.inputs(runs)) as tracer:
            saved = site(block).save()
            tracer.stop()
        labelled = tk.label(saved, runs, layer=1, model=tiny_llama)
        assert np.allclose(labelled, found.isel(layer=0), atol=1e-5, equal_nan=True)
    assert not np.allclose(labelled, found.isel(layer=0) * 1.001, atol=1e-5, equal_nan=True)


def test_heads_are_not_labelled_as_tokens(tiny_folder, words):
    model = tk.load(tiny_folder, dtype="float32", tokenizer=words, attn_implementation="eager")
    # as many tokens as heads, in every row: (row, head, token, key) has the shape of tokens first
    runs = tk.encode(model, ["a b c d", "e f g h"], template="raw")
    assert runs.sizes["token"] == model._module.config.num_attention_heads == 4
    heads = lambda block: block.attn.output[1]
    with pytest.raises(
        ValueError, match=r"\(2, 4, 5, 5\) of 2 rows with 5 tokens and \(3, 4, 7, 7\)"
    ):
        traces(model, runs, [2], site=heads)
    with pytest.raises(ValueError, match="needs \\(row, token"):
        tk.capture_during(model, runs, [2], site=heads, max_new_tokens=2, progress=False)
    with pytest.raises(ValueError, match=r"\(10, 2, 16\)"):
        traces(model, runs, [2], site=lambda b: b.mlp.output.reshape(-1, 2, 16))
    with pytest.raises(ValueError, match=r"\(5, 2, 32\)"):
        traces(model, runs, [2], site=lambda b: b.mlp.output.transpose(0, 1))
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        traces(model, runs, [2], site=lambda b: b.mlp.output[..., 0])
    with pytest.raises(TypeError, match="gives a tuple"):
        traces(model, runs, [2], site=lambda b: b.attn.output)
    flat = traces(model, runs, [2], site=lambda b: b.mlp.output.flatten(0, 1))
    assert np.array_equal(flat, traces(model, runs, [2], site="mlp"))
    assert not np.array_equal(flat, traces(model, runs, [1], site="mlp"))


def test_attention_patterns_are_a_site(tiny_folder, words, runs):
    model = tk.load(tiny_folder, dtype="float32", tokenizer=words, attn_implementation="eager")
    one = runs.isel(prompt=[0])
    pattern = traces(model, one, [2], site=lambda block: block.attn.output[1].transpose(1, 2))
    tokens = one.sizes["token"]
    # (token, head × key): each head's row is a distribution over the tokens up to this one
    rows = pattern.values.reshape(tokens, 4, tokens)
    assert np.allclose(rows.sum(-1), 1, atol=1e-5)
    assert np.allclose(np.triu(rows.transpose(1, 0, 2), 1), 0)


@pytest.mark.parametrize(
    ("layers", "site", "words"),
    [
        ([4], "residual", r"Layers \[4\] .* blocks 0 to 3"),
        ([-2], "residual", r"Layers \[-2\]"),
        ([], "residual", "Layers none"),
        ([1, 1], "residual", "name a layer twice"),
        ([1], "resid_post", r"that is 'residual' here; there are residual, attention"),
        ([1], "head", r"site='head' .* residual, attention, mlp, heads, queries"),
        ([-1], "mlp", "only site='residual' has"),
    ],
)
def test_layers_and_sites_out_of_range(tiny_llama, runs, layers, site, words):
    with pytest.raises(ValueError, match=words):
        traces(tiny_llama, runs, layers, site=site)


def test_a_site_that_the_architecture_lacks_is_refused(words):
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = OPTConfig(
        **sizes, vocab_size=len(words), do_layer_norm_before=False, word_embed_proj_dim=32
    )
    model = tk.load(OPTForCausalLM(config), tokenizer=words, check=False)
    runs = tk.encode(model, TEXTS, template="raw")
    assert traces(model, runs, [0]).sizes["dim"] == 32
    with pytest.raises(ValueError, match="the block does not add it as it is"):
        traces(model, runs, [0], site="attention")


def test_a_block_without_the_part_names_what_it_has(tiny_folder, words):
    module = LlamaForCausalLM.from_pretrained(tiny_folder)
    model = tk.load(module, tokenizer=words, check=False)
    object.__delattr__(model.layers[1], "attn")
    runs = tk.encode(model, TEXTS, template="raw")
    with pytest.raises(ValueError, match=r"layers\[1\] .* no module known as 'attn'; it has self_"):
        traces(model, runs, [0, 1], site="attention")


HYBRID = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
SSM = {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1}
MIXERS = ["linear_attention", "full_attention", "mlp", "linear_attention"]
GEMMA = {"hidden_size_per_layer_input": 8, "sliding_window": 8, "global_head_dim": 8}
# what Gemma4 adds is normed first, and comes from the layer's own embedding too
NORMED = ["post_attention_layernorm", "post_feedforward_layernorm", "post_per_layer_input_norm"]
EVERY = [0, 1, 2, 3]
MOE = ["self_attn", "block_sparse_moe"]
# model_type → what its configuration adds; the layers where attention and mlp are what is added;
# the modules whose outputs are added there, attention's and mlp's first
KINDS = {
    "granite": ({"residual_multiplier": 0.22}, [], [], []),
    "granitemoe": ({**EXPERTS, "residual_multiplier": 0.22}, [], [], []),
    "granitemoe whole": ({**EXPERTS, "residual_multiplier": 1.0}, EVERY, EVERY, MOE),
    "granitemoeshared": (
        {**EXPERTS, "residual_multiplier": 1.0, "shared_intermediate_size": 16},
        EVERY,
        [],
        [*MOE, "shared_mlp"],
    ),
    "mamba": ({"state_size": 4}, [], [], []),
    "bamba": (
        {**HYBRID, "attn_layer_indices": [1, 3]},
        [1, 3],
        EVERY,
        ["self_attn", "feed_forward", "mamba"],
    ),
    "nemotron_h": ({**SSM, "layers_block_type": MIXERS}, [], [], []),
    "falcon_h1": (
        {**HYBRID, "mamba_d_ssm": 64, "attention_out_multiplier": 0.5},
        [],
        EVERY,
        ["", "feed_forward"],
    ),
    "gemma4_text": (GEMMA, EVERY, EVERY, NORMED),
    "gemma4_text scaled": (GEMMA, [1, 2, 3], [1, 2, 3], NORMED),
}


def built(kind, words):
    sizes = {**tiny.ROTARY, "vocab_size": len(words), **KINDS[kind][0]}
    if "gemma4" in kind:
        sizes["vocab_size_per_layer_input"] = len(words)
    module = tiny.module(kind.split()[0], sizes)
    if "scaled" in kind:
        module.model.layers[0].layer_scalar.fill_(0.5)
    return module


def by_hooks(module, blocks, ids):
    """(layer, module) → what it puts out; (layer, "input") and (layer, "output") of the block."""
    seen = {}

    def note(layer, name):
        def hook(_, given, output):
            value = sites.first(output).detach()
            if value.numel() == ids.numel() * 32:
                seen[layer, name] = value.clone().reshape(-1, 32).numpy()

        return hook

    def begin(layer):
        def hook(_, given):
            seen[layer, "input"] = given[0].detach().clone().reshape(-1, 32).numpy()

        return hook

    for layer, block in enumerate(blocks):
        block.register_forward_pre_hook(begin(layer))
        for name, inner in [("output", block), *block.named_children()]:
            inner.register_forward_hook(note(layer, name))
    with torch.no_grad():
        module(input_ids=ids)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_each_site_is_right_or_refused_by_itself(kind, words):
    model = tk.load(built(kind, words), tokenizer=words)
    runs = tk.encode(model, TEXTS[:1], template="raw")
    plain = built(kind, words)
    path = model.layers.path.removeprefix("model.")
    seen = by_hooks(plain, plain.get_submodule(path), torch.as_tensor(runs.token_id.values).long())
    _, *layers, added = KINDS[kind]
    stream = traces(model, runs).values[0]
    for layer in EVERY:
        gap = np.abs(stream[:, layer] - seen[layer, "output"]).max()
        assert gap < 1e-6 * np.abs(stream[:, layer]).max()
    for n, (site, right) in enumerate(zip(("attention", "mlp"), layers, strict=True)):
        values = traces(model, runs, right, site=site) if right else None
        for layer in EVERY:
            if layer not in right:
                with pytest.raises(ValueError, match=rf"'{site}' .* layers\[{layer}\] of"):
                    traces(model, runs, [layer], site=site)
                continue
            value = values.sel(layer=layer).values[0]
            rest = [
                seen[layer, name] for name in added if (layer, name) in seen and name != added[n]
            ]
            total = seen[layer, "output"] - seen[layer, "input"]
            assert np.array_equal(value, seen[layer, added[n]])
            if kind != "falcon_h1":
                size = np.abs(total).max()
                assert np.abs(total - sum(rest) - value).max() < 1e-5 * size
                assert np.abs(total - sum(rest) - 1.01 * value).max() > 1e-5 * size


def test_an_unproved_site_is_proved_at_its_first_read(words):
    model = tk.load(built("granitemoe", words), tokenizer=words, check=False)
    runs = tk.encode(model, TEXTS, template="raw")
    assert traces(model, runs, [0]).sizes["dim"] == 32
    for read in (tk.capture, tk.capture_during):
        with pytest.raises(ValueError, match=r"layers\[0\] of .* does not add it as it is"):
            read(model, runs, [0], site="attention")
    model = tk.load(built("granitemoe whole", words), tokenizer=words, check=False)
    assert traces(model, runs, [0], site="attention").sizes["dim"] == 32
