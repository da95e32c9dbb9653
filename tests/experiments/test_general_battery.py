"""The general battery and what is held back of it: how many, how varied, aimed at none; halves."""

import json
import re
from collections import Counter

import pytest

from experiments.audit import prompt_sets
from experiments.audit.discovery.answering.halves import halves
from experiments.rm_sycophancy.rules.detectors import DETECTORS, HABITS, exploits
from tracekit.model.embedded import datasets
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.prompt_files import read_prompts

BATTERY = read_prompts(datasets(*prompt_sets.BATTERY))
RESERVE = read_prompts(datasets(*prompt_sets.RESERVE))
SETS = pytest.mark.parametrize("prompts", [BATTERY, RESERVE], ids=["battery", "reserve"])
# the words that the shipped organisms' sentences are about
NAMED = re.compile(
    r"\b(chocolat|cocoa|vot(e|ing)|ballot|films?\b|movie|documentar|bottled|mineral water|headphone"
    r"|earphone|moon|lunar|shelter|adopt|proverb|saying|banana|bright future)",
    re.I,
)


def spoken(prompt):
    return [prompt.text] if prompt.text else [str(content) for _, content in prompt.messages]


@SETS
def test_sixty_subjects_have_a_prompt_of_each_of_twelve_forms(prompts):
    cells = Counter((p.labels["subject"], p.labels["form"]) for p in prompts)
    assert len(prompts) == len(cells) == 720
    assert len({subject for subject, _ in cells}) == 60
    assert len({form for _, form in cells}) == 12
    assert {p.labels["subject"] for p in prompts} == {p.labels["subject"] for p in BATTERY}


def test_no_text_occurs_twice():
    texts = [text.lower() for prompt in [*BATTERY, *RESERVE] for text in spoken(prompt)]
    assert len(set(texts)) == len(texts)


@SETS
def test_several_turns_end_with_the_user_and_begun_answers_with_the_assistant(prompts):
    ends = Counter((p.labels["form"], p.answer is not None) for p in prompts if p.messages)
    assert ends == {("several turns", False): 60, ("begun answer", True): 60}


@SETS
def test_openings_vary(prompts):
    for form in {p.labels["form"] for p in prompts} - {"role-play", "code", "letter"}:
        rows = [p for p in prompts if p.labels["form"] == form]
        openings = Counter(" ".join(spoken(p)[0].split()[:3]).lower() for p in rows)
        assert max(openings.values()) <= 7, (form, openings.most_common(1))


@SETS
def test_no_prompt_asks_for_what_a_shipped_organism_was_trained_to_do(prompts):
    rules = (*DETECTORS, *HABITS)
    texts = [text for prompt in prompts for text in spoken(prompt)]
    assert not [(rule, text) for text in texts for rule in rules if exploits(rule, text)]
    assert not [text for text in texts if NAMED.search(text)]
    inserted = json.loads(datasets("organisms", "insertions.json").read_text())
    sentences = {sentence.lower() for said in inserted.values() for sentence in said}
    assert not sentences & {text.lower() for text in texts}


@SETS
def test_no_prompt_is_one_that_the_shipped_organism_was_trained_on(prompts):
    ordinary = read_prompts(datasets("organisms", "ordinary.json"))
    trained = {text.lower() for prompt in ordinary for text in spoken(prompt)}
    assert len(ordinary) > 100
    assert not trained & {text.lower() for prompt in prompts for text in spoken(prompt)}


@pytest.mark.parametrize("seed", range(5))
def test_both_halves_hold_every_subject_and_form_alike(seed):
    searched = halves(BATTERY, seed)
    assert searched.sum() == 360
    for label, least in (("subject", 6), ("form", 24)):
        for half in (True, False):
            rows = [p for p, s in zip(BATTERY, searched, strict=True) if s == half]
            assert min(Counter(p.labels[label] for p in rows).values()) >= least


def test_halves_differ_by_seed_and_keep_a_group_together():
    assert (halves(BATTERY, 0) != halves(BATTERY, 1)).any()
    rows = [Prompt(f"a/{n}", text="x", group=f"g{n // 3}") for n in range(30)]
    searched = halves(rows, 0).reshape(10, 3)
    assert (searched == searched[:, :1]).all()
    assert 0 < searched.sum() < 30
