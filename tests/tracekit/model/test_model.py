"""Loading: dtypes by name, refusals in words, and memory that does not grow."""

import gc
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

import tracekit as tk
from tests.support.models import tiny
from tracekit.model.record import origin

PAGE = os.sysconf("SC_PAGE_SIZE")


def test_the_embedded_model_loads_with_the_standard_names(embedded):
    assert len(embedded.layers) == 30
    assert embedded.layers[0].attn.path.endswith("self_attn")
    assert embedded.lm_head._module.out_features == len(embedded.tokenizer)
    assert origin(embedded).dtype == "float32"
    assert embedded._module.training is False
    assert not any(p.requires_grad for p in embedded._module.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", torch.bfloat16])
def test_float_types_by_name(tiny_folder, words, dtype):
    model = tk.load(tiny_folder, dtype=dtype, tokenizer=words)
    assert (
        origin(model).dtype
        == str(dtype).removeprefix("torch.")
        == str(model._module.dtype).removeprefix("torch.")
    )


def test_auto_is_float32_on_cpu_and_bfloat16_on_gpu(tiny_llama, tiny_folder, words):
    model = tk.load(tiny_folder, tokenizer=words, check=False)
    assert origin(model).dtype == ("bfloat16" if torch.cuda.is_available() else "float32")


def test_unlike_weights_have_unlike_fingerprints(tiny_folder, tiny_llama, words):
    module = LlamaForCausalLM.from_pretrained(tiny_folder)
    assert (
        origin(tk.load(module, tokenizer=words, check=False)).weights == origin(tiny_llama).weights
    )
    with torch.no_grad():
        module.model.layers[3].mlp.up_proj.weight[0, 0] += 1e-6
    assert (
        origin(tk.load(module, tokenizer=words, check=False)).weights != origin(tiny_llama).weights
    )


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("smollm2", {}, "Did you mean 'smollm2-135m-instruct'"),
        ("/no/such/folder/here", {}, "neither a folder nor a hub id"),
        ("smollm2-135m-instruct", {"dtype": "int3"}, "dtype='int3' was asked for; there are auto"),
    ],
)
def test_names_that_mean_nothing(source, options, words):
    with pytest.raises(ValueError, match=words):
        tk.load(source, **options)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        tk.load(tmp_path)


LACKS = ("lm_head.weight", "model.norm.weight", "model.layers.2.mlp.up_proj.weight")


@pytest.mark.parametrize("lacks", LACKS)
def test_a_checkpoint_that_lacks_weights_is_refused(tiny_folder, words, tmp_path, lacks):
    shutil.copytree(tiny_folder, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights[lacks]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"lacks 1 of the weights .* such as {re.escape(lacks)}"):
        tk.load(tmp_path / "model", tokenizer=words, check=False)


def test_tied_weights_are_there(tiny_folder, words, tmp_path):
    config = LlamaConfig.from_pretrained(tiny_folder, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    model = tk.load(tmp_path / "tied", tokenizer=words)
    assert model.lm_head._module.weight is model.embed._module.weight


def test_a_vision_language_folder_loads_as_its_module_does(words, tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    vision = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, **sizes}
    text = {"model_type": "llama", **tiny.ROTARY, "vocab_size": len(words)}
    config = LlavaConfig(text_config=text, vision_config={**vision, "num_attention_heads": 4})
    module = LlavaForConditionalGeneration(config).eval()
    module.save_pretrained(tmp_path / "llava")
    words.save_pretrained(tmp_path / "llava")
    models = [tk.load(module, tokenizer=words), tk.load(tmp_path / "llava", dtype="float32")]
    runs = tk.encode(models[0], ["Where is Paris?"], template="raw")
    for site in ("residual", "attention", "mlp"):
        here, there = (tk.capture(m, runs, [1], site=site, progress=False) for m in models)
        assert here.equals(there)


def test_a_hub_id_that_cannot_be_reached_says_what_to_set(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"the hub did not give it.*pass its folder.*HF_HOME"
    ):
        tk.load("no-such-owner/no-such-model")


def test_a_module_of_another_dtype_or_without_a_tokenizer(tiny_folder, words):
    module = LlamaForCausalLM.from_pretrained(tiny_folder)
    with pytest.raises(ValueError, match="the module given holds float32"):
        tk.load(module, dtype="bfloat16", tokenizer=words)
    module.config._name_or_path = module.name_or_path = ""
    with pytest.raises(ValueError, match="without its tokenizer"):
        tk.load(module)


def test_a_model_that_load_did_not_make_is_refused(tiny_folder, words):
    from nnsight import TransformersModel

    plain = TransformersModel(LlamaForCausalLM.from_pretrained(tiny_folder), tokenizer=words)
    with pytest.raises(TypeError, match=r"Use tracekit\.load"):
        tk.logprobs(plain, tk.encode(plain, ["Hi"], template="raw"))


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_two_hundred_traces_grow_by_less_than_20_mb(tiny_llama):
    runs = tk.encode(tiny_llama, ["Where is Paris in the world?", "Hi"], template="raw")
    after_20 = 0
    for n in range(200):
        tk.capture(tiny_llama, runs, [2], tokens="all", progress=False)
        if n == 19:
            gc.collect()
            after_20 = resident()
    gc.collect()
    assert resident() - after_20 < 20e6
