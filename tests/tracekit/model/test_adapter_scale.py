"""An adapter at more or less than its strength: as peft has it, nested, interrupted, put back."""

import numpy as np
import peft
import pytest
import torch
import transformers

import tracekit as tk
from tests.support.models import tiny


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, ["The sea"], responses=["is wide and blue"])


@pytest.fixture(scope="module")
def other(tiny_folder, tmp_path_factory):
    return tiny.build_lora(tiny_folder, tmp_path_factory.mktemp("adapters") / "other", seed=2)


def by_peft(folder, lora, runs, times):
    config = peft.PeftConfig.from_pretrained(lora)
    config.lora_alpha *= times
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model = peft.PeftModel.from_pretrained(plain, lora, config=config)
    ids = torch.as_tensor(runs.token_id.values).long()
    with torch.no_grad():
        return model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0].numpy()


@pytest.mark.parametrize("times", [2.0, 0.5, -1.0])
def test_a_scaled_adapter_is_one_of_other_alpha(tiny_folder, tiny_llama, tiny_lora, runs, times):
    with tk.adapter(tiny_llama, tiny_lora, scale=times):
        found = tk.logprobs(tiny_llama, runs)
    expected = by_peft(tiny_folder, tiny_lora, runs, times)
    np.testing.assert_allclose(found.values[0, 1:], expected, atol=1e-4)
    assert not np.allclose(found.values[0, 1:], by_peft(tiny_folder, tiny_lora, runs, 1), atol=1e-3)
    assert tk.provenance(found)["adapter"]["scale"] == times


def test_blocks_nest_and_each_is_put_back_exactly(tiny_llama, tiny_lora, other, runs):
    def said():
        return tk.logprobs(tiny_llama, runs)

    bare = said()
    with tk.adapter(tiny_llama, tiny_lora):
        own = said()
        assert "scale" not in tk.provenance(own)["adapter"]
        with tk.adapter(tiny_llama, tiny_lora, scale=3.0):
            loud = said()
            with tk.adapter(tiny_llama, tiny_lora):
                np.testing.assert_array_equal(said(), own)
            np.testing.assert_array_equal(said(), loud)
            with tk.adapter(tiny_llama, other, scale=2.0):
                assert not np.array_equal(said(), loud, equal_nan=True)
            np.testing.assert_array_equal(said(), loud)
            with tk.adapter(tiny_llama, None):
                np.testing.assert_array_equal(said(), bare)
            with pytest.raises(KeyboardInterrupt), tk.adapter(tiny_llama, tiny_lora, scale=9.0):
                raise KeyboardInterrupt
            np.testing.assert_array_equal(said(), loud)
        np.testing.assert_array_equal(said(), own)
    np.testing.assert_array_equal(said(), bare)
    assert not np.array_equal(own, loud, equal_nan=True)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused_before_anything_changes(tiny_llama, tiny_lora, scale):
    with (
        pytest.raises(tk.InputError, match="finite number"),
        tk.adapter(tiny_llama, tiny_lora, scale=scale),
    ):
        pass


def test_a_scale_of_no_adapter_or_of_one_without_scaling_is_refused(
    tiny_folder, tiny_llama, tmp_path
):
    with (
        pytest.raises(tk.InputError, match="the adapter is None"),
        tk.adapter(tiny_llama, None, scale=2.0),
    ):
        pass
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    config = peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    )
    adapted = peft.get_peft_model(plain, config)
    for name, parameter in adapted.named_parameters():
        if "ia3" in name:
            parameter.data *= 1.5
    adapted.save_pretrained(tmp_path / "ia3")
    before = tk.logprobs(tiny_llama, runs_of(tiny_llama))
    with (
        pytest.raises(tk.InputError, match="more than a LoRA's scaled product"),
        tk.adapter(tiny_llama, tmp_path / "ia3", scale=2.0),
    ):
        pass
    np.testing.assert_array_equal(tk.logprobs(tiny_llama, runs_of(tiny_llama)), before)


def runs_of(model):
    return tk.encode(model, ["The sea"], responses=["is wide"])
