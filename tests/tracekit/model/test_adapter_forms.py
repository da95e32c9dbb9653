"""Every field of a LoRA's configuration: plain peft's logits, or a refusal and the base's bits."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig

import tracekit as tk
from tests.support.models import adapter_forms as forms
from tests.support.models import tiny
from tests.support.oracles import reference
from tracekit.model.adapters.layers import tuner_layers

TEXTS = ("Where is Paris in the world?", "Hi")
ROWS = [(field, value, due) for field, rows in forms.FORMS.items() for value, due in rows]


@pytest.fixture(scope="module")
def base(words, tmp_path_factory):
    """Qwen2 has biases, which a Llama lacks."""
    return tiny.build("Qwen2", tmp_path_factory.mktemp("forms") / "model", words)


@pytest.fixture(scope="module")
def model(base, words):
    return tk.load(base, dtype="float32", tokenizer=words)


def bits(model):
    """The base's own values, whatever is wrapped around them."""
    held = {}
    for name, value in model._module.state_dict().items():
        plain = name.replace("original_module.", "").replace("token_adapter.base_layer.", "")
        plain = plain.replace("base_layer.", "")
        if not any(part in name for part in ("lora_", "modules_to_save", "trainable_tokens")):
            held[plain] = value.clone()
    return held


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def logits(model, inputs):
    made = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), model.trace(made):
        values = model.output.logits.save()
    return values[inputs["attention_mask"].bool()]


def test_every_field_has_its_row():
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields == set(forms.FORMS) | set(forms.BESIDE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("field", "value", "due"), ROWS, ids=[f"{f}={v}" for f, v, _ in ROWS])
def test_plain_pefts_logits_or_a_refusal(model, base, words, tmp_path, field, value, due):
    forms.save(base, tmp_path, field, value)
    inputs = reference.padded(words, TEXTS)
    before, clean = bits(model), logits(model, inputs)
    if due == forms.REFUSED:
        with pytest.raises(ValueError, match=r"adapter"), tk.adapter(model, tmp_path):
            pass
    else:
        theirs = forms.logits(base, tmp_path, inputs)
        with tk.adapter(model, tmp_path):
            ours = logits(model, inputs)
        assert torch.allclose(ours, theirs, atol=1e-5)
        # the twin: without the adapter they are others
        assert not torch.allclose(clean, theirs, atol=1e-3)
    assert equal(bits(model), before)
    assert torch.equal(logits(model, inputs), clean)


# what changes more than a scaled product does
FIXED = {"use_dora", "modules_to_save", "ensure_weight_tying", "trainable_token_indices"}
RIGHT = [(field, value) for field, value, due in ROWS if due == forms.RIGHT]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("field", "value"), RIGHT, ids=[f"{f}={v}" for f, v in RIGHT])
def test_at_no_strength_it_is_the_base_or_refused(model, base, words, tmp_path, field, value):
    forms.save(base, tmp_path, field, value)
    inputs = reference.padded(words, TEXTS)
    before, clean = bits(model), logits(model, inputs)
    if field in FIXED:
        refused = pytest.raises(tk.InputError, match="would stay at their own strength")
        with refused, tk.adapter(model, tmp_path, scale=0.0):
            pass
    else:
        with tk.adapter(model, tmp_path, scale=0.0):
            assert torch.allclose(logits(model, inputs), clean, atol=1e-6)
        with tk.adapter(model, tmp_path, scale=0.5):
            assert not torch.allclose(logits(model, inputs), clean, atol=1e-3)
    assert equal(bits(model), before)
    assert torch.equal(logits(model, inputs), clean)


@pytest.mark.filterwarnings("ignore")
def test_what_is_compared_notices_one_bit(model, base, words, tmp_path):
    before, name = bits(model), "model.layers.1.self_attn.k_proj.bias"
    bias = next(
        p for own, p in model._module.named_parameters() if own.endswith("1.self_attn.k_proj.bias")
    )
    assert name in before
    with torch.no_grad():
        bias[3] += 1e-3
        assert not equal(bits(model), before)
        bias.copy_(before[name])
    assert equal(bits(model), before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("field", ["bias", "init_lora_weights"])
def test_a_refusal_says_how_to_go_on(model, base, tmp_path, field):
    forms.save(base, tmp_path, field, {"bias": "all", "init_lora_weights": "pissa"}[field])
    with (
        pytest.raises(ValueError, match=r"merge_and_unload.*tracekit\.load"),
        tk.adapter(model, tmp_path),
    ):
        pass


@pytest.mark.filterwarnings("ignore")
def test_vera_is_refused_for_what_it_is(model, base, tmp_path):
    from peft import VeraConfig, get_peft_model

    settings = VeraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    get_peft_model(reference.load(base), settings).save_pretrained(str(tmp_path))
    words = r"VERA adapter, whose layers share.*merge_and_unload"
    with pytest.raises(ValueError, match=words), tk.adapter(model, tmp_path):
        pass


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("handed", ["folder", "module", "peft model"])
def test_what_carries_an_adapter_is_no_base(base, words, tmp_path, handed):
    forms.save(base, tmp_path / "lora", "r", 4)
    plain = reference.load(base)
    if handed == "folder":
        # as trainers leave it: transformers attaches the adapter by itself
        plain.save_pretrained(tmp_path / "both")
        for file in (tmp_path / "lora").iterdir():
            (tmp_path / "both" / file.name).write_bytes(file.read_bytes())
        given = tmp_path / "both"
    elif handed == "module":
        plain.load_adapter(str(tmp_path / "lora"))
        given = plain
    else:
        given = reference.load(base, lora=tmp_path / "lora")
    with pytest.raises(ValueError, match="already carries an adapter"):
        tk.load(given, dtype="float32" if handed == "folder" else "auto", tokenizer=words)
    # the twin: without it, it loads
    assert not tuner_layers(tk.load(base, dtype="float32", tokenizer=words)._module)


def test_the_first_adapter_says_nothing_of_kernels_for_other_weights(tiny_folder, tiny_lora):
    code = f"""
import logging
import tracekit as tk
tk.load({str(tiny_folder)!r}, adapter={str(tiny_lora)!r})
logging.getLogger("bitsandbytes.backends.cpu.ops").warning("gemm_4bit_forward, later")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Failed to load CPU gemm_4bit_forward" not in done.stderr
    assert "gemm_4bit_forward, later" in done.stderr
