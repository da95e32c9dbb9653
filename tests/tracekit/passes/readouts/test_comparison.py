"""Two adapters on one set of weights, against peft and transformers alone; next tokens; a lens."""

import numpy as np
import peft
import pytest
import torch
import transformers

import tracekit as tk
from tests.support.oracles import reference
from tests.support.shadowed import shadowed

TEXTS = ["The quick brown fox jumps over the dog.", "Yes, it is."]


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return tk.encode(tiny_llama, TEXTS, [" And so on.", " No"], template="raw")


def rows(runs):
    return [torch.tensor([r[r >= 0].tolist()]) for r in runs.token_id.values]


@pytest.fixture(scope="module")
def plain(tiny_folder, tiny_lora, runs):
    """By row: log-probabilities with the adapter and bare, and the residuals after block 2."""
    bare = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    with torch.no_grad():
        without = [bare(ids, output_hidden_states=True) for ids in rows(runs)]
    lora = peft.PeftModel.from_pretrained(bare, tiny_lora)
    with torch.no_grad():
        having = [lora(ids, output_hidden_states=True) for ids in rows(runs)]
    return [
        [(out.logits[0].log_softmax(-1), out.hidden_states[3][0]) for out in side]
        for side in (having, without)
    ]


def test_ratio_and_divergence_of_each_token(tiny_llama, tiny_lora, runs, plain):
    found = tk.compare(tiny_llama, runs, (tiny_lora, None), top=5)
    moved = 0
    for n, ids in enumerate(rows(runs)):
        (a, _), (b, _) = plain[0][n], plain[1][n]
        real = runs.token_id.values[n] >= 0
        ratio = (a - b)[:-1].gather(1, ids[0, 1:, None])[:, 0].numpy()
        kl = (a.exp() * (a - b)).sum(-1)[:-1].numpy()
        ours = found.log_ratio.values[n][real][1:]
        np.testing.assert_allclose(ours, ratio, atol=1e-4)
        assert not np.allclose(ours, ratio[::-1], atol=1e-3)
        np.testing.assert_allclose(found.kl.values[n][real][1:], kl, atol=1e-4)
        assert np.isnan(found.kl.values[n][~real]).all()
        assert np.isnan(found.log_ratio.values[n][real][0])
        moved = moved + (a.exp() - b.exp())[:-1].double().sum(0)
    count = sum(ids.shape[1] - 1 for ids in rows(runs))
    best = (moved / count).topk(5)
    np.testing.assert_allclose(found.risen_by, best.values, atol=1e-6)
    words = [tiny_llama.tokenizer.decode([i]) for i in best.indices.tolist()]
    assert [w.replace("\n", "\\n") for w in words] == found.risen.values.tolist()
    assert (found.fallen_by < 0).all()
    assert shadowed(found) == []
    made = tk.provenance(found)
    assert made["adapter"]["name"] == tiny_lora.name
    assert made["against"] is None


def test_the_residuals_cosine_and_change(tiny_llama, tiny_lora, runs, plain):
    found = tk.compare(tiny_llama, runs, (tiny_lora, None), [2])
    for n in range(2):
        (_, a), (_, b) = plain[0][n], plain[1][n]
        real = runs.token_id.values[n] >= 0
        at = found.sel(layer=2).isel(prompt=n)
        cosine = torch.cosine_similarity(a, b).numpy()
        change = ((a - b).norm(dim=1) / b.norm(dim=1)).numpy()
        np.testing.assert_allclose(at.cosine.values[real], cosine, atol=1e-4)
        np.testing.assert_allclose(at.change.values[real], change, atol=1e-3)
        assert not np.allclose(at.change.values[real], np.roll(change, 1), atol=1e-3)


def test_the_same_twice_is_refused(tiny_llama, runs):
    with pytest.raises(tk.InputError, match="differ, in name or in scale"):
        tk.compare(tiny_llama, runs, (None, None))


def test_next_tokens_are_the_likeliest_of_transformers(tiny_llama, tiny_folder, runs):
    found, theirs = tk.next_tokens(tiny_llama, runs, top=4), reference.load(tiny_folder)
    for n, ids in enumerate(rows(runs)):
        with torch.no_grad():
            best = theirs(input_ids=ids).logits[0, -1].log_softmax(-1).topk(4)
        assert found.id.values[n].tolist() == best.indices.tolist()
        np.testing.assert_allclose(found.logprob.values[n], best.values, atol=1e-4)
        words = [tiny_llama.tokenizer.decode([i]) for i in best.indices.tolist()]
        assert [w.replace("\n", "\\n") for w in words] == found.text.values[n].tolist()
    assert found.id.values[0].tolist() != found.id.values[1].tolist()
    with pytest.raises(tk.InputError, match="likeliest tokens"):
        tk.next_tokens(tiny_llama, runs, top=10**6)


def test_each_side_is_entered_at_its_own_scale(tiny_llama, tiny_lora, tiny_folder, runs, plain):
    bare = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    lora = peft.PeftModel.from_pretrained(bare, tiny_lora)
    for layer in lora.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.scale_layer(1.5)
    louder = tk.compare(tiny_llama, runs, ((tiny_lora, 1.5), tiny_lora))
    for n, ids in enumerate(rows(runs)):
        with torch.no_grad():
            a, (b, _) = lora(ids).logits[0].log_softmax(-1), plain[0][n]
        kl = (a.exp() * (a - b)).sum(-1)[:-1].numpy()
        ours = louder.kl.values[n][runs.token_id.values[n] >= 0][1:]
        np.testing.assert_allclose(ours, kl, atol=1e-4)
        assert abs(ours).max() > 1e-3
    assert tk.provenance(louder)["adapter"]["scale"] == 1.5
    # what the model carries is not what is compared
    with tk.adapter(tiny_llama, tiny_lora, scale=3.0):
        again = tk.compare(tiny_llama, runs, ((tiny_lora, 1.5), tiny_lora))
    np.testing.assert_array_equal(again.kl, louder.kl)
    with pytest.raises(tk.InputError, match="differ, in name or in scale"):
        tk.compare(tiny_llama, runs, ((tiny_lora, 1.0), tiny_lora))


def test_only_the_tokens_asked_for_count(tiny_llama, tiny_lora, runs):
    whole = tk.compare(tiny_llama, runs, (tiny_lora, None), [2])
    some = tk.compare(tiny_llama, runs, (tiny_lora, None), [2], tokens=slice(0, None))
    said = runs.token >= 0
    for name in ("log_ratio", "kl", "cosine", "change"):
        np.testing.assert_array_equal(some[name].where(said), whole[name].where(said))
        assert np.isnan(some[name].where(~said)).all()
        assert whole[name].where(~said).notnull().any()
    assert not np.array_equal(some.risen_by, whole.risen_by)


def test_the_lens_says_how_likely_and_of_what_rank(tiny_llama, tiny_folder, runs):
    last = tk.capture(tiny_llama, runs, [3], tokens="all", progress=False).isel(layer=0)
    found, theirs = tk.logit_lens(tiny_llama, last, [" the", 7]), reference.load(tiny_folder)
    the = tiny_llama.tokenizer(" the", add_special_tokens=False)["input_ids"]
    for n, ids in enumerate(rows(runs)):
        with torch.no_grad():
            logits = theirs(input_ids=ids).logits[0]
        at = found.sel(prompt=runs.prompt.values[n])
        real = last.sel(prompt=runs.prompt.values[n]).token_id.values >= 0
        want = logits.log_softmax(-1)[:, [*the, 7]].numpy()
        np.testing.assert_allclose(at.logprob.values[real], want, atol=1e-4)
        order = (-logits).argsort(-1).argsort(-1)[:, [*the, 7]].numpy()
        assert (abs(at["token_rank"].values[real] - order) <= 1).all()
        assert np.isnan(at.logprob.values[~real]).all()
        assert (at["token_rank"].values[~real] == -1).all()
    assert found.choice.values[0] == " the"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [([" extraordinary things"], "tokens: "), ([7, 7], "each once"), ([], "each once")],
)
def test_a_choice_that_is_no_single_token_is_refused(tiny_llama, runs, tokens, said):
    last = tk.capture(tiny_llama, runs, [3], tokens="all", progress=False)
    with pytest.raises(tk.InputError, match=said):
        tk.logit_lens(tiny_llama, last, tokens)
