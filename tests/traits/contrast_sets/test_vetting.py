"""Vetting by the model's own logits and by a judge's answers."""

import math

import numpy as np
import pytest
import torch

import tracekit as tk
from traits import ContrastSet, elicit
from traits.contrast_sets.vetting import own_verdicts, questions, vet

CONTRAST = ContrastSet(
    "mine/open_talk",
    ("He told her all. He said", "She laid it open. She said", "They spoke freely, and said"),
    ("He told her less. He said", "She kept it back. She said", "They were silent, and said"),
    definition="Open talk: saying what one knows.",
)


@pytest.fixture(scope="module")
def runs(tiny_llama):
    return elicit(tiny_llama, CONTRAST, continuation=2)


def test_a_question_holds_definition_story_and_continuation(runs) -> None:
    asked = questions(CONTRAST, runs)
    assert len(asked) == 6
    assert asked[0].startswith("Open talk: saying")
    assert f"Text: He told her all. He said{runs['response'].values[0]}\n" in asked[0]
    assert asked[0].endswith("Does the text show open talk? Answer with Yes or No.")


def test_the_own_verdict_is_that_of_the_logits(tiny_llama, runs) -> None:
    asked = questions(CONTRAST, runs)[:2]
    found = own_verdicts(tiny_llama, asked)
    encode = tiny_llama.tokenizer.encode
    for text, chance in zip(asked, found, strict=True):
        prompt = tk.encode(tiny_llama, [text])
        with torch.no_grad(), tiny_llama.trace(tk.inputs(prompt)):
            logits = tiny_llama.lm_head.output[0, -1].save()
        yes, no = (float(logits[encode(word)[0]]) for word in ("Yes", "No"))
        assert chance == pytest.approx(1 / (1 + math.exp(no - yes)), rel=1e-4)
        assert chance != pytest.approx(1 / (1 + math.exp(yes - no)), rel=1e-4)


def test_pairs_are_kept_rejected_or_undecided(runs) -> None:
    answers = np.array([1.0, 1.0, math.nan, 0.0, 1.0, 0.0])
    found = vet(runs, questions(CONTRAST, runs), answers)
    assert sorted(set(found["group"].values)) == ["mine/open_talk/0"]
    counts = [found.attrs[f"vetted_{name}"] for name in ("kept", "rejected", "undecided")]
    assert counts == [1, 1, 1]


def test_an_answer_that_cannot_be_read_is_not_a_no(runs) -> None:
    asked = questions(CONTRAST, runs)

    def judge(text: str) -> float:
        return math.nan if "freely" in text else float("Text: He told her all" in text)

    found = vet(runs, asked, judge)
    # the pair that got NaN and 0 would be rejected, were NaN read as 0
    assert found.attrs["vetted_undecided"] == 1
    assert found.attrs["vetted_rejected"] == 1
    with pytest.raises(ValueError, match="leaves none of 3 pairs: 0 are rejected, 3 undecided"):
        vet(runs, asked, lambda _: math.nan)
