"""Every architecture against plain transformers + peft, bare and with a LoRA, at every site."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig, MambaForCausalLM

import tracekit as tk
from tests.support.models import tiny
from tests.support.oracles import reference

TEXTS = ("The quick brown fox jumps over the dog.", "Yes, it is.", "No")


def ours(model, runs, site):
    traces = tk.capture(model, runs, site=site, tokens="all", progress=False)
    flat = traces.stack(place=("prompt", "token")).dropna("place", how="all")
    return {n: torch.as_tensor(flat.sel(layer=n).values.T) for n in traces.layer.values.tolist()}


def theirs(folder, words, lora=None, change=None):
    model = reference.load(folder, lora=lora)
    if change is not None:
        change(model)
    return reference.read(model, reference.padded(words, TEXTS))


def largest_gap(model, expected, sites=("residual", "attention", "mlp")):
    runs = tk.encode(model, TEXTS, template="raw")
    return max(
        reference.gap(value, expected[site, layer])
        for site in sites
        for layer, value in ours(model, runs, site).items()
    )


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_every_site_equals_plain_transformers(name, words, tmp_path):
    folder = tiny.build(name, tmp_path / "model", words)
    lora = tiny.build_lora(folder, tmp_path / "lora")
    model = tk.load(folder, dtype="float32", tokenizer=words, adapter=lora)
    adapted, bare = theirs(folder, words, lora), theirs(folder, words)
    assert largest_gap(model, adapted) <= 1e-6
    with tk.adapter(model, None):
        assert largest_gap(model, bare) <= 1e-6
        # the twin: the adapter's effect is far above the bound
        assert largest_gap(model, adapted, ("residual",)) > 1e-3


def test_one_perturbed_weight_shows(tiny_llama, tiny_folder, words):
    def nudge(model):
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight[3, 5] += 1e-2

    assert largest_gap(tiny_llama, theirs(tiny_folder, words)) <= 1e-6
    assert largest_gap(tiny_llama, theirs(tiny_folder, words, change=nudge)) > 1e-6


@pytest.mark.parametrize("field", ["input_ids", "attention_mask"])
def test_one_perturbed_token_or_mask_entry_shows(tiny_llama, tiny_folder, words, field):
    made = reference.padded(words, TEXTS)
    plain = reference.load(tiny_folder)
    straight = reference.read(plain, made)
    if field == "input_ids":
        made[field][1, -2] += 1
    else:
        # the first real token of the second row taken for padding
        made[field][1, -made[field][1].sum()] = 0
    runs = tk.encode(tiny_llama, TEXTS, template="raw")
    values = ours(tiny_llama, runs, "residual")[2]
    assert reference.gap(values, straight["residual", 2]) <= 1e-6
    changed = reference.read(plain, made)["residual", 2]
    if field == "attention_mask":
        at = int(made[field][0].sum())
        values = torch.cat([values[:at], values[at + 1 :]])
    assert reference.gap(values, changed) > 1e-3


def test_the_embedding_is_layer_minus_one(tiny_llama, tiny_folder, words):
    expected = theirs(tiny_folder, words)["residual", -1]
    runs = tk.encode(tiny_llama, TEXTS, template="raw")
    traces = tk.capture(tiny_llama, runs, [-1], tokens="all", progress=False)
    flat = traces.stack(place=("prompt", "token")).dropna("place", how="all").isel(layer=0)
    assert np.array_equal(flat.values.T, expected.numpy())


@pytest.mark.parametrize("kind", ["biogpt", "bloom"])
def test_an_unknown_architecture_is_named_by_its_structure(kind, words):
    heads = {"biogpt": {"num_attention_heads": 4, "intermediate_size": 48}, "bloom": {"n_head": 4}}
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": len(words), **heads[kind]}
    config = AutoConfig.for_model(kind, **sizes)
    module = AutoModelForCausalLM.from_config(config)
    model = tk.load(module, tokenizer=words)
    assert len(model.layers) == 3
    assert model.embed._module is module.get_input_embeddings()
    assert model.lm_head._module is module.get_output_embeddings()
    last = {"biogpt": "biogpt.layer_norm", "bloom": "transformer.ln_f"}[kind]
    assert model.norm._module is module.get_submodule(last)
    runs = tk.encode(model, ["Hello there"], template="raw")
    if kind == "biogpt":
        traces = tk.capture(model, runs, [1], site="attention", tokens="all", progress=False)
        assert traces.sizes["dim"] == 32
    else:
        # BLOOM's attention returns its input as well: the residual stream is right, the site is not
        with pytest.raises(ValueError, match="the block does not add it as it is"):
            tk.capture(model, runs, [1], site="attention", progress=False)


def two_lists(words):
    config = MambaConfig(hidden_size=32, num_hidden_layers=3, vocab_size=len(words), state_size=4)
    module = MambaForCausalLM(config)
    module.backbone.spare = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    return module


def test_a_structure_that_does_not_settle_names_what_to_pass(words):
    with pytest.raises(
        ValueError, match=r"no module known as layers.*backbone.layers \(3\).*rename="
    ):
        tk.load(two_lists(words), tokenizer=words)
    with pytest.raises(ValueError, match=r"At backbone.layer of the given rename= it has nothing"):
        tk.load(two_lists(words), tokenizer=words, rename={"backbone.layer": "layers"})


def test_where_the_blocks_are_given_the_structure_says_the_rest(words):
    module = two_lists(words)
    model = tk.load(module, tokenizer=words, rename={"backbone.layers": "layers"})
    assert model.layers[1]._module is module.backbone.layers[1]
    assert model.embed._module is module.get_input_embeddings()
    assert model.norm._module is module.backbone.norm_f
    assert model.lm_head._module is module.get_output_embeddings()
    runs = tk.encode(model, ["Hello there"], template="raw")
    traces = tk.capture(model, runs, [0, 1], tokens="all", progress=False)
    seen = []
    handle = module.backbone.layers[1].register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        module(torch.as_tensor(runs.token_id.values))
    handle.remove()
    straight = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert reference.gap(torch.as_tensor(traces.sel(layer=1).values), straight) <= 1e-6
    assert reference.gap(torch.as_tensor(traces.sel(layer=0).values), straight) > 1e-3
