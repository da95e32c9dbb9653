"""What is described of an adapter's weights and activations, against plain peft and numpy."""

import numpy as np
import peft
import pytest
import torch
import transformers

import tracekit as tk
from experiments.audit.discovery.description import residuals, weights


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


def test_the_bare_model_has_no_change_and_that_is_said(tiny_llama):
    with tk.adapter(tiny_llama, None):
        change = weights.weight_change(tiny_llama)
    assert change.sizes["module"] == 0
    assert "not described" in weights.described(change, {})[0]


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
    still = residuals.described(tiny_llama, difference * 0, runs)
    assert all("does not move" in line for line in still)
