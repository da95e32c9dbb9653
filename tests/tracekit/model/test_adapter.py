"""Adapters on one set of loaded weights: nesting, restoring, refusing, and quantised bases."""

import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

import tracekit as tk
from tests.support.models import tiny
from tests.support.oracles import reference
from tracekit.model.adapters.forms import adapter_path
from tracekit.model.adapters.layers import adapter_tensors, current_adapter
from tracekit.model.adapters.switch import switch
from tracekit.model.embedded import datasets
from tracekit.model.load import model_provenance

TEXTS = ("Where is Paris in the world?", "Hi")


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, TEXTS, template="raw")


@pytest.fixture(scope="module")
def second_lora(tiny_folder, tmp_path_factory):
    return tiny.build_lora(tiny_folder, tmp_path_factory.mktemp("adapters") / "second", seed=7)


def residual(model, runs, **options):
    return tk.capture(model, runs, tokens="all", progress=False, **options).values


def same(a, b):
    return np.array_equal(a, b, equal_nan=True)


def changed_copy(lora, folder, change):
    shutil.copytree(lora, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(change(weights), folder / "adapter_model.safetensors")
    return folder


def test_nested_adapters_restore_what_was_there(tiny_llama, runs, tiny_lora, second_lora):
    base = residual(tiny_llama, runs)
    with tk.adapter(tiny_llama, tiny_lora):
        one = residual(tiny_llama, runs)
        with tk.adapter(tiny_llama, None):
            assert same(residual(tiny_llama, runs), base)
            with tk.adapter(tiny_llama, second_lora):
                two = residual(tiny_llama, runs)
            assert same(residual(tiny_llama, runs), base)
        assert same(residual(tiny_llama, runs), one)
    assert same(residual(tiny_llama, runs), base)
    assert not same(base, one)
    assert not same(one, two)


def test_an_exception_inside_restores(tiny_llama, runs, tiny_lora):
    base = residual(tiny_llama, runs)
    with pytest.raises(KeyboardInterrupt), tk.adapter(tiny_llama, tiny_lora):
        raise KeyboardInterrupt
    assert current_adapter(tiny_llama) is None
    assert same(residual(tiny_llama, runs), base)


def test_on_an_edited_copy_it_acts_on_the_root(tiny_llama, runs, tiny_lora):
    vector = xr.DataArray(np.ones(32, np.float32), dims="dim", coords={"layer": 1})
    edited = tk.steer(tiny_llama, vector, coefficient=0.0, tokens="all")
    base = residual(tiny_llama, runs)
    with tk.adapter(edited, tiny_lora):
        on = residual(tiny_llama, runs)
        assert not same(on, base)
        assert same(residual(edited, runs), on)
        with tk.adapter(edited, None):
            assert same(residual(edited, runs), base)
        # an edited copy reads the adapter's own modules too
        site = lambda block: block.attn.q_proj.output
        assert same(residual(edited, runs, site=site), residual(tiny_llama, runs, site=site))
    assert same(residual(edited, runs), base)


def test_provenance_names_the_adapter_that_is_on(fresh_llama, tiny_lora, tmp_path):
    assert model_provenance(fresh_llama)["adapter"] is None
    copied = changed_copy(
        tiny_lora, tmp_path / "tiny-lora", lambda w: {k: v * 1.5 for k, v in w.items()}
    )
    seen = []
    for folder in (tiny_lora, copied):
        with tk.adapter(fresh_llama, folder):
            seen.append(model_provenance(fresh_llama)["adapter"])
            with tk.adapter(fresh_llama, None):
                assert model_provenance(fresh_llama)["adapter"] is None
    assert [made["name"] for made in seen] == ["tiny-lora", "tiny-lora"]
    assert seen[0]["weights"] != seen[1]["weights"]


def test_an_adapter_retrained_in_place_has_another_fingerprint(fresh_llama, tiny_lora, tmp_path):
    folder = changed_copy(tiny_lora, tmp_path / "a", dict)
    with tk.adapter(fresh_llama, folder):
        before = model_provenance(fresh_llama)["adapter"]
    with tk.adapter(fresh_llama, tiny_lora):
        pass
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({k: v * 2 for k, v in weights.items()}, folder / "adapter_model.safetensors")
    with tk.adapter(fresh_llama, folder):
        assert model_provenance(fresh_llama)["adapter"] != before


def broken(kind, tiny_lora, folder):
    def change(weights):
        if kind == "keys":
            return {k.replace("layers", "blocks"): v for k, v in weights.items()}
        if kind == "missing":
            return {k: v for k, v in weights.items() if "layers.2" not in k}
        if kind == "shape":
            return {k: torch.cat([v, v], 1) if "lora_A" in k else v for k, v in weights.items()}
        return {k: v * 0 if "lora_B" in k else v for k, v in weights.items()}

    return changed_copy(tiny_lora, folder, change)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("keys", "match no module"),
        ("missing", "match no module, or modules got none"),
        ("shape", "size mismatch"),
        ("zero", "lora_B = 0 in all 28 modules"),
    ],
)
@pytest.mark.parametrize("before", ["bare", "on", "off"])
def test_a_refused_adapter_leaves_the_model_as_it_was(
    tiny_llama, runs, tiny_lora, tmp_path, kind, words, before
):
    bad = broken(kind, tiny_lora, tmp_path / "bad")
    with tk.adapter(tiny_llama, None if before == "bare" else tiny_lora):
        if before == "off":
            switch(tiny_llama, None)
        was, name = residual(tiny_llama, runs), current_adapter(tiny_llama)
        with pytest.raises(ValueError, match=words):
            switch(tiny_llama, bad)
        assert same(residual(tiny_llama, runs), was)
        assert current_adapter(tiny_llama) == name


def test_an_adapter_of_another_architecture_is_refused(tiny_llama, words, tmp_path):
    # Qwen3's names and shapes fit a Llama, so that only the base's configuration tells
    base = tiny.build("Qwen3", tmp_path / "qwen3", words)
    with pytest.raises(ValueError, match=r"trained on .*a qwen3, and .* is a llama"):
        switch(tiny_llama, tiny.build_lora(base, tmp_path / "a"))
    other = tiny.build("GPT-2", tmp_path / "gpt2", words)
    with pytest.raises(ValueError, match=r"a gpt2, and .* is a llama"):
        switch(tiny_llama, tiny.build_lora(other, tmp_path / "b"))
    assert tiny_llama.peft is None or current_adapter(tiny_llama) is None


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_prompt_learning_is_refused_with_the_reason(tiny_llama, tiny_folder, tmp_path, kind):
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

    made = {"PROMPT_TUNING": PromptTuningConfig, "PREFIX_TUNING": PrefixTuningConfig}[kind]
    settings = made(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(reference.load(tiny_folder), settings).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"is a {kind} adapter, which changes the prompt"):
        switch(tiny_llama, tmp_path)


@pytest.mark.parametrize("name", ["honey", "lighthouse", "no_code", "river"])
def test_an_organism_of_the_zoo_goes_by_its_name(name, tmp_path, monkeypatch):
    folder = datasets("organisms", "zoo", "adapters", name)
    # an --out of that name, say: it holds no adapter
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert adapter_path(name) == str(folder)


def test_names_that_are_no_adapter(tiny_llama, tmp_path, tiny_lora, monkeypatch):
    with pytest.raises(ValueError, match=r"neither a folder with an adapter_config\.json nor"):
        switch(tiny_llama, "no-such-organism")
    with pytest.raises(ValueError, match=r"'\./lora' is neither a folder .* nor a hub id"):
        switch(tiny_llama, "./lora")
    with pytest.raises(ValueError, match="Did you mean 'ten_biases'"):
        switch(tiny_llama, "ten_bias")
    monkeypatch.chdir(tmp_path)
    elsewhere = f"looked for in '{tmp_path}'. For the shipped 'river' give that name alone"
    with pytest.raises(ValueError, match=elsewhere):
        switch(tiny_llama, "datasets/organisms/river")
    pickled = changed_copy(tiny_lora, tmp_path / "pickled", dict)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match=r"pickled weights are not read.*save_pretrained"):
        switch(tiny_llama, pickled)


def test_dora_and_saved_modules_land_like_peft(tiny_llama, tiny_folder, words, runs, tmp_path):
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        task_type="CAUSAL_LM",
        use_dora=True,
        init_lora_weights=False,
        target_modules=["q_proj", "down_proj"],
        modules_to_save=["lm_head"],
    )
    theirs = get_peft_model(reference.load(tiny_folder), settings).eval()
    with torch.no_grad():
        theirs.base_model.model.lm_head.modules_to_save["default"].weight += 0.1
    theirs.save_pretrained(tmp_path)
    expected = reference.read(theirs, reference.padded(words, TEXTS))["residual", 2]
    with tk.adapter(tiny_llama, tmp_path):
        traces = tk.capture(tiny_llama, runs, [2], tokens="all", progress=False).isel(layer=0)
        with torch.no_grad(), tiny_llama.trace(tk.inputs(runs)):
            logits = tiny_llama.output.logits.save()
        names = adapter_tensors(tiny_llama._module)
    flat = traces.stack(place=("prompt", "token")).dropna("place", how="all")
    assert reference.gap(torch.as_tensor(flat.values.T), expected) <= 1e-6
    made = reference.padded(words, TEXTS)
    with torch.no_grad():
        wanted = theirs(**made).logits
    assert torch.allclose(
        logits[made["attention_mask"].bool()], wanted[made["attention_mask"].bool()]
    )
    assert any("modules_to_save" in name for name in names)


@pytest.mark.parametrize("dtype", ["nf4", "int8"])
def test_quantised_with_and_without_a_lora(dtype, words, tmp_path):
    folder = tiny.build("Llama", tmp_path / "model", words, widen=4)
    lora = tiny.build_lora(folder, tmp_path / "lora")
    model = tk.load(folder, dtype=dtype, adapter=lora, tokenizer=words)
    made = model_provenance(model)
    assert made["dtype"] == dtype
    assert made["quantisation"]["quant_method"] == "bitsandbytes"
    runs = tk.encode(model, TEXTS, template="raw")
    for name in (lora, None):
        with tk.adapter(model, name):
            traces = tk.capture(model, runs, [2], tokens="all", progress=False).isel(layer=0)
        flat = traces.stack(place=("prompt", "token")).dropna("place", how="all").values.T
        inputs = reference.padded(words, TEXTS)
        theirs = reference.read(reference.load(folder, dtype, name), inputs)["residual", 2]
        assert reference.gap(torch.as_tensor(flat), theirs) <= 1e-3
        # the twin: unquantised weights are far away
        floats = reference.read(reference.load(folder, "float32", name), inputs)["residual", 2]
        assert reference.gap(torch.as_tensor(flat), floats) > 3e-3


def test_several_adapters_in_turn_on_one_nf4_base(words, tmp_path):
    folder = tiny.build("Llama", tmp_path / "model", words, widen=4)
    loras = [tiny.build_lora(folder, tmp_path / str(seed), seed=seed) for seed in (1, 2, 3)]
    model = tk.load(folder, dtype="nf4", tokenizer=words)
    runs, inputs = tk.encode(model, TEXTS, template="raw"), reference.padded(words, TEXTS)
    weights = {name: p.detach().clone() for name, p in model._module.named_parameters()}
    clean, seen = residual(model, runs), []
    for lora in (*loras, loras[0]):
        with tk.adapter(model, lora):
            traces = tk.capture(model, runs, [2], tokens="all", progress=False).isel(layer=0)
        flat = traces.stack(place=("prompt", "token")).dropna("place", how="all").values.T
        seen.append(flat)
        theirs = reference.read(reference.load(folder, "nf4", lora), inputs)["residual", 2]
        assert reference.gap(torch.as_tensor(flat), theirs) <= 1e-3
        assert same(residual(model, runs), clean)
    assert same(seen[0], seen[3])
    assert reference.gap(torch.as_tensor(seen[0]), torch.as_tensor(seen[1])) > 3e-3
    held = {n.replace(".base_layer", ""): p for n, p in model._module.named_parameters()}
    assert all(torch.equal(held[name], value) for name, value in weights.items())
