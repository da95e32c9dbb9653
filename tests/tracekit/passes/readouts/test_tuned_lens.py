"""A tuned lens: its translators are of the embedding output and of blocks, and aim at the last."""

import json

import numpy as np
import pytest
import torch

import tracekit as tk
from tests.support.oracles import reference


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, ["One?", "A longer two?"], responses=["Yes.", "No, three."])


@pytest.fixture(scope="module")
def traces(tiny_llama, runs):
    return tk.capture(tiny_llama, runs, range(-1, 4), tokens="all", progress=False).load()


@pytest.fixture(scope="module")
def translators(tiny_llama):
    """As `tuned-lens` keeps them: for the embedding output, and for each block but the last."""
    torch.manual_seed(0)
    wide = tiny_llama._module.config.hidden_size
    made = torch.nn.ModuleList([torch.nn.Linear(wide, wide) for _ in range(4)])
    return made.requires_grad_(False)


@pytest.fixture
def lens(translators, tmp_path):
    torch.save(translators.state_dict(), tmp_path / "params.pt")
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 32, "num_hidden_layers": 4}))
    return tmp_path


def test_each_layer_is_read_through_its_own_translator(
    tiny_llama, tiny_folder, runs, traces, translators, lens
):
    theirs = reference.load(tiny_folder)
    found = tk.logit_lens(tiny_llama, traces, [" the", 7], tuned=lens).logprob
    likeliest = tk.unembed(tiny_llama, traces, top=3, tuned=str(lens)).logit
    the = tiny_llama.tokenizer(" the", add_special_tokens=False)["input_ids"]
    for n, row in enumerate(runs.token_id.values):
        ids = torch.tensor([row[row >= 0].tolist()])
        with torch.no_grad():
            states = theirs(input_ids=ids, output_hidden_states=True).hidden_states[:4]
            moved = [h + translators[k](h) for k, h in enumerate(states)]
            logits = torch.stack([theirs.lm_head(theirs.model.norm(h))[0] for h in moved])
            whole = theirs(input_ids=ids).logits[0]
        want = logits.log_softmax(-1)[..., [*the, 7]].numpy()
        ours = found.isel(prompt=n).transpose("layer", "token", "choice")
        real = traces.isel(prompt=n).token_id.values >= 0
        np.testing.assert_allclose(ours.sel(layer=slice(-1, 2)).values[:, real], want, atol=1e-4)
        # the twin: translators of the layer beside
        assert not np.allclose(ours.sel(layer=slice(0, 2)).values[:, real], want[:-1], atol=1e-2)
        # the last block's output is what the lens aims at
        last = ours.sel(layer=3).values[real]
        np.testing.assert_allclose(last, whole.log_softmax(-1)[:, [*the, 7]], atol=1e-4)
        best = likeliest.isel(prompt=n).transpose("layer", "token", "top").values[:4, real]
        np.testing.assert_allclose(best, logits.topk(3).values.numpy(), atol=1e-4)


def test_one_layer_reads_as_among_others_and_says_the_lens(tiny_llama, traces, lens):
    whole = tk.logit_lens(tiny_llama, traces, [7], tuned=lens)
    one = tk.logit_lens(tiny_llama, traces.sel(layer=1), [7], tuned=lens)
    np.testing.assert_allclose(one.logprob, whole.logprob.sel(layer=1), atol=1e-5)
    said = tk.provenance(one)["tuned_lens"]
    assert said == tk.provenance(whole)["tuned_lens"]
    assert "tuned_lens" not in tk.provenance(tk.logit_lens(tiny_llama, traces, [7]))


def test_a_lens_that_does_not_fit_is_refused(tiny_llama, traces, translators, lens, tmp_path):
    state = translators.state_dict()
    cases = {
        "shallow.pt": ({k: v for k, v in state.items() if not k.startswith("3.")}, "3 translators"),
        "narrow.pt": ({k: v[..., :8] for k, v in state.items()}, "this model 4 blocks of"),
        "other.pt": ({"probe": state["0.weight"]}, "it has 'probe'"),
        "tensor.pt": (state["0.weight"], "it holds Tensor"),
        "nan.pt": ({**state, "0.bias": state["0.bias"] * float("nan")}, "not finite"),
    }
    for name, (content, said) in cases.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(tk.InputError, match=said):
            tk.unembed(tiny_llama, traces, tuned=tmp_path / name)
    (tmp_path / "text.pt").write_text("no lens")
    with pytest.raises(tk.InputError, match="cannot be read"):
        tk.unembed(tiny_llama, traces, tuned=tmp_path / "text.pt")
    with pytest.raises(FileNotFoundError):
        tk.unembed(tiny_llama, traces, tuned=tmp_path / "absent")
    with pytest.raises(tk.InputError, match="without a layer"):
        tk.unembed(tiny_llama, traces.isel(layer=0, drop=True), tuned=lens)
