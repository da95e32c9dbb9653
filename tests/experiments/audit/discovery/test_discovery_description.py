"""What is described of an adapter's weights and activations, against plain peft and numpy."""

import itertools
import shutil

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import tracekit as tk
from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.description import depth, residuals, weights
from experiments.audit.discovery.discover import discover
from experiments.audit.discovery.suggestions.detectors import Detector
from tests.support.models import adapter_forms
from tracekit.transcripts.prompts import Prompt


@pytest.fixture(scope="module")
def runs(tiny_llama):
    texts = [f"Say {word}." for word in ("sea", "sun", "tea", "tree")]
    return tk.encode(tiny_llama, texts, responses=["The sea is wide."] * 4)


def test_norms_and_directions_are_those_of_the_whole_change(tiny_llama, tiny_lora, tiny_folder):
    with tk.adapter(tiny_llama, str(tiny_lora)):
        change = weights.weight_change(tiny_llama)
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, tiny_lora)
    whole = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach().numpy()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    assert sorted(change.module.values) == sorted(whole)
    for name, matrix in whole.items():
        here, squares = change.sel(module=name), np.linalg.svd(matrix, compute_uv=False) ** 2
        np.testing.assert_allclose(here.norm, np.linalg.norm(matrix), rtol=1e-5)
        np.testing.assert_allclose(
            here.directions, squares.sum() ** 2 / (squares**2).sum(), rtol=1e-4
        )


@pytest.mark.parametrize("field", ["use_dora", "modules_to_save"])
def test_what_is_no_plain_lora_is_left_out_and_said(tiny_llama, tiny_folder, tmp_path, field):
    given = {"use_dora": True, "modules_to_save": ["lm_head"]}[field]
    adapter_forms.save(tiny_folder, tmp_path, field, given)
    with tk.adapter(tiny_llama, str(tmp_path)):
        change = weights.weight_change(tiny_llama)
    said = weights.described(change, {})
    # two modules in each of four blocks
    if field == "use_dora":
        assert (change.sizes["module"], change.attrs["left_out"]) == (0, "8 DoRA")
    else:
        assert (change.sizes["module"], change.attrs["left_out"]) == (8, "1 ModulesToSaveWrapper")
        assert "all plain modules" in said[0]
    assert change.attrs["left_out"] in said[-1]
    assert "nothing was asked at more than the adapter's own strength" in said[-1]
    # a file of before says neither
    assert len(weights.described(change.drop_attrs(), {})) == 1


def test_the_bare_model_has_no_change_and_that_is_said(tiny_llama):
    with tk.adapter(tiny_llama, None):
        change = weights.weight_change(tiny_llama)
    assert change.sizes["module"] == 0
    assert "not described" in weights.described(change, {})[0]


@pytest.mark.parametrize(
    ("value", "side", "said"),
    [
        (float("nan"), "lora_A", "NaN or infinite"),
        (float("inf"), "lora_B", "NaN or infinite"),
        (0.0, "lora_B", "all of its lora_B weights are zero"),
    ],
)
def test_an_adapter_that_is_broken_is_refused_before_any_answer(
    value, side, said, tiny_llama, tiny_lora, tmp_path, monkeypatch
):
    monkeypatch.setattr(tk, "generate", None)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_lora, broken)
    tensors = load_file(broken / "adapter_model.safetensors")
    named = [name for name in tensors if side in name]
    for name in named if value == 0 else named[:1]:
        tensors[name][:] = value
    save_file(tensors, broken / "adapter_model.safetensors")
    prompts = [Prompt(f"p/{n}", text=f"Say {n}.") for n in range(8)]
    with pytest.raises(tk.InputError, match=said) as refused:
        discover(tiny_llama, str(broken), prompts, tmp_path / "out")
    assert value == 0 or named[0] in str(refused.value)
    with pytest.raises(tk.InputError, match=said):
        discover(tiny_llama, str(tiny_lora), prompts, tmp_path / "out", benign=[str(broken)])
    assert not (tmp_path / "out").exists()
    weights.refuse_broken(str(tiny_lora))


def test_the_mean_difference_is_that_of_plain_hidden_states(
    tiny_llama, tiny_lora, tiny_folder, runs
):
    found = residuals.mean_difference(tiny_llama, str(tiny_lora), runs)
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, tiny_lora)
    layer, sides = 0, []
    for on in (True, False):
        means = []
        for row in range(4):
            one = runs.isel(prompt=row)
            ids = one.token_id.values[one.token_id.values >= 0]
            answer = int(((one.token_id.values >= 0) & (one.token.values >= 0)).sum())
            states: list[torch.Tensor] = []
            block = model.base_model.model.model.layers[layer]
            handle = block.register_forward_hook(
                lambda _, __, out, kept=states: kept.append(
                    out[0] if isinstance(out, tuple) else out
                )
            )
            with torch.no_grad():
                if on:
                    model(input_ids=torch.as_tensor(ids)[None].long())
                else:
                    with model.disable_adapter():
                        model(input_ids=torch.as_tensor(ids)[None].long())
            handle.remove()
            means.append(states[0][0, -answer:].mean(0).numpy())
        sides.append(np.mean(means, 0))
    np.testing.assert_allclose(found.sel(layer=layer), sides[0] - sides[1], atol=1e-5)
    assert np.abs(sides[0] - sides[1]).max() > 1e-4


def test_a_patched_residual_of_its_own_says_what_the_prompt_says(tiny_llama, runs):
    asked = tk.encode(tiny_llama, [tk.Prompt("readable", text=residuals.READABLE)], template="raw")
    last = len(tiny_llama.layers) - 1
    own = tk.capture(tiny_llama, asked, layers=[last], tokens="all", progress=False).load()
    plain = tk.generate(tiny_llama, asked, max_new_tokens=1, progress=False).token_text.values
    vector = own.sel(token=-1).isel(prompt=0, layer=0)
    same = residuals.patched(tiny_llama, vector, runs)
    # the last block's output at the last token decides the first new one, whatever its length
    assert same.strip().startswith(str(plain[0, -1]).strip())
    assert residuals.patched(tiny_llama, -vector, runs) != same


def test_each_layer_gets_three_sentences(tiny_llama, tiny_lora, runs):
    difference = residuals.mean_difference(tiny_llama, str(tiny_lora), runs)
    said = residuals.described(tiny_llama, difference, runs)
    layers = {line.split(",")[0] for line in said}
    assert len(said) == 3 * len(layers)
    fewer = residuals.described(tiny_llama, difference, runs, add=False)
    assert fewer == [line for line in said if ", added:" not in line]
    assert len(fewer) == 2 * len(layers)
    still = residuals.described(tiny_llama, difference * 0, runs)
    assert all("does not move" in line for line in still)


def test_depth_is_what_plain_numpy_makes_of_two_captures(tiny_llama, tiny_lora):
    texts = ["The sea is wide. Then a word.", "No such thing. The sea is wide."]
    runs = tk.encode(tiny_llama, ["Say sea.", "Say more."], responses=texts)
    runs = runs.assign_coords(begun=("prompt", [0, 0]))
    names = runs.prompt.values.tolist()
    said = [
        Answer(name, name, "Say.", (), (text,), np.zeros(1), True)
        for name, text in zip(names, texts, strict=True)
    ]
    detector = Detector("says", r"\bsea\b")
    found = depth.by_depth(tiny_llama, str(tiny_lora), [runs], said, detector)
    sides = []
    for adapter in (str(tiny_lora), None):
        with tk.adapter(tiny_llama, adapter):
            sides.append(tk.capture(tiny_llama, runs, tokens="all", progress=False).load())
    on, off = (side.values.astype(float) for side in sides)
    cosine = (on * off).sum(-1) / np.linalg.norm(on, axis=-1) / np.linalg.norm(off, axis=-1)
    gaps = []
    for row, (start, end) in enumerate(((0, 16), (14, 31))):
        values = runs.isel(prompt=row)
        here = np.flatnonzero((values.token.values >= 0) & (values.token_id.values >= 0))
        pieces = [str(p) for p in values.token_text.values[here]]
        starts = np.cumsum([0, *map(len, pieces)])
        inside = np.array([a < end and b > start for a, b in itertools.pairwise(starts)])
        inside &= np.array([not p.startswith("<|") for p in pieces])
        columns = [sides[0].token.values.tolist().index(t) for t in values.token.values[here]]
        turned = 1 - cosine[row, columns]
        gaps.append(turned[inside].mean(0) - turned[~inside].mean(0))
    np.testing.assert_allclose(found.values, np.mean(gaps, 0), atol=1e-5)
    assert str(int(found.layer[int(np.argmax(found.values))])) in depth.sentence(found)
    assert depth.by_depth(tiny_llama, str(tiny_lora), [runs], said, Detector("says", "zzz")) is None
