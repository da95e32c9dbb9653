"""Generation under left padding equals unbatched generation, id for id."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tracekit as tk
from tracekit.passes.generating.decoding import end_ids
from tracekit.transcripts.encode import assemble, ids_of
from tracekit.transcripts.prompts import Prompt

NEW = 5
TIE = 1e-4


def transcripts(model, lengths, seed):
    """Raw rows of random ids, of these lengths."""
    draw = np.random.default_rng(seed)
    rows = [(draw.integers(17, 40_000, n).tolist(), ["text"] * n) for n in lengths]
    prompts = [Prompt(f"r/{n}", text="x") for n in range(len(lengths))]
    made = tk.encode(model, ["x"], template="raw")
    from tracekit.storage.provenance import read

    return assemble(model.tokenizer, prompts, rows, [([], [])] * len(rows), read(made))


def responses(runs):
    after = runs.sel(token=slice(0, None)).token_id.transpose("prompt", "token").values
    names = ids_of(runs)
    return {name: row[row >= 0].tolist() for name, row in zip(names, after, strict=True)}


def gap_of_the_best_two(model, row, said):
    """How far the two likeliest next ids are apart, in logits, after `said`."""
    ids = row.token_id.values
    ids = torch.tensor([[*ids[ids >= 0].tolist(), *said]])
    with torch.no_grad():
        best = model._module(input_ids=ids).logits[0, -1].topk(2).values
    return float(best[0] - best[1])


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(1, 64), min_size=1, max_size=16), st.integers(0, 2**31))
def test_batched_generation_equals_unbatched(tiny_llama, lengths, seed):
    rows = transcripts(tiny_llama, lengths, seed)
    options = {"max_new_tokens": NEW, "progress": False}
    together = responses(tk.generate(tiny_llama, rows, token_budget=100_000, **options))
    alone = responses(tk.generate(tiny_llama, rows, token_budget=1, **options))
    for n, name in enumerate(ids_of(rows)):
        pairs = zip(together[name], alone[name], strict=False)
        differs = [k for k, (a, b) in enumerate(pairs) if a != b]
        if differs:
            # a near-tie in the logits is the only excuse
            said = alone[name][: differs[0]]
            assert gap_of_the_best_two(tiny_llama, rows.isel(prompt=n), said) < TIE
        else:
            assert len(together[name]) == len(alone[name])


def test_the_twin_without_its_mask_differs(tiny_llama):
    rows = transcripts(tiny_llama, [40, 3], 0)
    alone = responses(
        tk.generate(tiny_llama, rows, max_new_tokens=NEW, token_budget=1, progress=False)
    )
    made = tk.inputs(rows)
    with torch.no_grad():
        wrong = tiny_llama._module.generate(
            input_ids=made["input_ids"],
            attention_mask=torch.ones_like(made["attention_mask"]),
            max_new_tokens=NEW,
            do_sample=False,
        )
    assert wrong[1, -NEW:].tolist() != alone["r/1"]
    assert wrong[0, -NEW:].tolist() == alone["r/0"]


def test_ids_are_kept_and_never_tokenised_again(tiny_llama):
    rows = transcripts(tiny_llama, [5, 9], 3)
    runs = tk.generate(tiny_llama, rows, max_new_tokens=NEW, progress=False)
    before = runs.sel(token=slice(None, -1)).token_id
    xr.testing.assert_equal(before.drop_vars("token_text"), rows.token_id.drop_vars("token_text"))
    again = tk.generate(tiny_llama, rows, max_new_tokens=NEW, progress=False)
    assert again.token_id.equals(runs.token_id)


def test_a_response_that_has_ended_is_not_written_on(tiny_llama):
    end = end_ids(tiny_llama)[0]
    texts = ["One?", "And another one?", "The third?"]
    runs = tk.encode(tiny_llama, texts, ["It ends.", "It goes", "It ends too."])
    ids = runs.token_id.values
    for row in (0, 2):
        ids[row, np.flatnonzero(ids[row] >= 0)[-1]] = end
    before = responses(runs)
    after = responses(tk.generate(tiny_llama, runs, max_new_tokens=NEW, progress=False))
    names = ids_of(runs)
    assert [after[names[n]] == before[names[n]] for n in range(3)] == [True, False, True]
    alone = tk.generate(tiny_llama, runs.isel(prompt=[1]), max_new_tokens=NEW, progress=False)
    assert after[names[1]] == responses(alone)[names[1]]
    # all of them
    ended = tk.generate(tiny_llama, runs.isel(prompt=[0, 2]), max_new_tokens=NEW, progress=False)
    assert responses(ended) == {names[n]: before[names[n]] for n in (0, 2)}
    with pytest.raises(tk.InputError, match="min_new_tokens=9 and max_new_tokens=5"):
        tk.generate(tiny_llama, runs, max_new_tokens=5, min_new_tokens=9, progress=False)
