"""Log-probabilities against transformers' own, and the logit lens."""

import numpy as np
import pytest
import torch

import tracekit as tk
from experiments.benchmarks import reference

TEXTS = ["The quick brown fox jumps over the dog.", "Yes, it is."]


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, TEXTS, [" And so on.", " No"], template="raw")


def test_logprobs_equal_each_row_alone(tiny_llama, tiny_folder, runs):
    found = tk.logprobs(tiny_llama, runs)
    theirs = reference.load(tiny_folder)
    for n in range(2):
        ids = runs.token_id.isel(prompt=n).values
        ids = torch.tensor([ids[ids >= 0].tolist()])
        with torch.no_grad():
            scores = torch.log_softmax(theirs(input_ids=ids).logits[0, :-1], -1)
        expected = scores.gather(1, ids[0, 1:, None]).squeeze(1).numpy()
        ours = found.isel(prompt=n).values
        assert np.allclose(ours[~np.isnan(ours)], expected, atol=1e-4)
        assert not np.allclose(ours[~np.isnan(ours)], np.roll(expected, 1), atol=1e-4)


def test_the_lens_on_the_last_layer_is_the_models_own_logits(tiny_llama, runs):
    last = tk.capture(tiny_llama, runs, [3], tokens="all", progress=False).isel(layer=0)
    lens = tk.unembed(tiny_llama, last, top=3)
    with torch.no_grad(), tiny_llama.trace(tk.inputs(runs)):
        logits = tiny_llama.output.logits.save()
    best = logits[:, -1].topk(3)
    at = lens.isel(prompt=0).sel(token=runs.token.values[-1])
    assert np.allclose(at.logit, best.values[0], atol=1e-4)
    words = [tiny_llama.tokenizer.decode([i]) for i in best.indices[0].tolist()]
    assert [
        w.replace("\n", "\\n").replace("\t", "\\t") for w in words
    ] == at.promoted.values.tolist()
    first = tk.capture(tiny_llama, runs, [0], tokens="all", progress=False).isel(layer=0)
    assert not np.allclose(tk.unembed(tiny_llama, first, top=3).logit, lens.logit, equal_nan=True)
    assert set(lens.promoted.values[last.token_id.values < 0].ravel()) == {""}


def test_an_array_of_another_width_is_refused(tiny_llama, runs):
    last = tk.capture(tiny_llama, runs, [3], tokens="all", progress=False)
    with pytest.raises(ValueError, match="residual stream has 32 dims"):
        tk.unembed(tiny_llama, last.isel(dim=slice(0, 16)))
