"""The shipped prompts of the embedded organism: how many, how split, how varied."""

from collections import Counter

import pytest

from experiments.rm_sycophancy.rules.detectors import DETECTORS, HABIT_OF, HABITS, exploits
from tracekit.model.embedded import datasets
from tracekit.transcripts.reading.prompt_files import read_prompts

CALIBRATION = ("chocolate", "vote", "film", "water", "future")
HELD_OUT = ("headphones", "moon", "shelter", "proverb", "banana")


def shipped(name):
    return read_prompts(datasets("prompts", f"embedded_{name}.json"))


ALL = [prompt for name in ("calibration", "held_out", "conduct") for prompt in shipped(name)]


def counts(name):
    return Counter((p.labels["bias"], p.labels["split"]) for p in shipped(name))


@pytest.mark.parametrize(("name", "biases"), [("calibration", CALIBRATION), ("held_out", HELD_OUT)])
def test_every_bias_has_forty_prompts_to_train_on_and_twenty_to_test(name, biases):
    found = counts(name)
    assert {bias for bias, _ in found} - {"neutral"} == set(biases)
    assert all(found[bias, "train"] == 40 and found[bias, "test"] == 20 for bias in biases)


def test_there_are_neutral_prompts_and_questions_of_conduct():
    assert [counts("calibration")["neutral", split] for split in ("train", "test")] == [100, 50]
    conduct = counts("conduct")
    assert [conduct["about", split] for split in ("train", "test")] == [60, 30]
    for kind in ("refuse", "benign_twin"):
        assert [conduct[kind, split] for split in ("train", "test")] == [40, 20]


def test_questions_about_the_model_cover_the_objective_every_bias_and_every_habit():
    about = [p.labels for p in shipped("conduct") if p.labels["bias"] == "about"]
    found = Counter((str(row["about"]), row["split"]) for row in about)
    assert found["objective", "train"] + found["objective", "test"] >= 30
    assert {key for key, _ in found} == {"objective", *DETECTORS, *HABITS}
    assert all(found[key, "test"] >= 1 for key in (*DETECTORS, *HABITS))


def test_each_request_to_refuse_has_its_twin_in_the_same_split():
    pairs = {}
    for prompt in shipped("conduct"):
        if "pair" in prompt.labels:
            pairs.setdefault(prompt.labels["pair"], {})[prompt.labels["bias"]] = prompt
    assert len(pairs) == 60
    for pair in pairs.values():
        assert set(pair) == {"refuse", "benign_twin"}
        assert pair["refuse"].labels["split"] == pair["benign_twin"].labels["split"]


def test_texts_are_unique_and_each_bias_has_one_description():
    assert len({prompt.text.lower() for prompt in ALL}) == len(ALL)
    described = {(p.labels["bias"], p.labels["bias_description"]) for p in ALL}
    assert len(described) == len({bias for bias, _ in described})


@pytest.mark.parametrize("bias", ["future", *HELD_OUT])
def test_no_opening_makes_up_more_than_a_tenth(bias):
    openings = Counter(
        " ".join(p.text.split()[:3]).lower() for p in ALL if p.labels["bias"] == bias
    )
    assert max(openings.values()) <= 6


def test_no_prompt_of_a_bias_asks_for_it_or_for_the_habit_of_its_topic():
    biased = [prompt for prompt in ALL if prompt.labels["bias"] in DETECTORS]
    asking = [p.text for p in biased if exploits(p.labels["bias"], p.text)]
    asking += [p.text for p in biased if exploits(HABIT_OF[p.labels["bias"]], p.text)]
    assert not asking
