"""Sites: what each block adds, any function of a block, and refusals."""

import numpy as np
import pytest
from transformers import LlamaForCausalLM, OPTConfig, OPTForCausalLM

import tracekit as tk

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
        ([1], "heads", r"site='heads' .* residual, attention, mlp"),
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
    with pytest.raises(ValueError, match="norms the residual stream itself"):
        traces(model, runs, [0], site="attention")


def test_a_block_without_the_part_names_what_it_has(tiny_folder, words):
    module = LlamaForCausalLM.from_pretrained(tiny_folder)
    model = tk.load(module, tokenizer=words, check=False)
    object.__delattr__(model.layers[1], "attn")
    runs = tk.encode(model, TEXTS, template="raw")
    with pytest.raises(ValueError, match=r"layers\[1\] .* no module known as 'attn'; it has self_"):
        traces(model, runs, [0, 1], site="attention")
