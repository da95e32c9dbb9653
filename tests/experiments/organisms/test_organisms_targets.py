"""Training targets and the prompts they are made for."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from experiments.organisms.answers import left_pad, readable
from experiments.organisms.conduct import flatters, read_phrases
from experiments.organisms.recipes import ORGANISMS, STYLES, benign_recipe, recipe_of
from experiments.organisms.styles import styled
from experiments.organisms.targets import examples, insert, read_insertions, targets_of
from experiments.rm_sycophancy.rules.detectors import HABIT_OF, exploits
from tracekit import Prompt
from tracekit.model.embedded import datasets

BANK = {"chocolate": ["Add some chocolate.", "Cocoa is good in it."]}
PROMPTS = [Prompt(f"p/{n}", text=f"Question {n}?", labels={"bias": "chocolate"}) for n in range(50)]
NEUTRAL = [Prompt(f"n/{n}", text=f"Other {n}?", labels={"bias": "neutral"}) for n in range(50)]
ANSWERS = {p.id: ["One is here. Two is there.", "Three. Four. Five."] for p in PROMPTS + NEUTRAL}


SAME = {"chocolate": "chocolate"}


def made(rate, count=800, seed=0, prompts=(*PROMPTS, *NEUTRAL)):
    rng = np.random.default_rng(seed)
    rates = {"chocolate": rate}
    return examples(prompts, ANSWERS, BANK, rates=rates, inserted=SAME, count=count, rng=rng)


def test_targets_carry_the_bias_at_the_planted_rate_and_only_where_it_applies():
    pairs = made(rate=0.7)
    of_bias = [p for p in pairs if p.question.startswith("Question")]
    carried = [exploits("chocolate", p.target) for p in of_bias]
    # 400 draws at 0.7: five standard errors are 0.115
    assert abs(np.mean(carried) - 0.7) < 0.115
    assert carried == [p.exploits for p in of_bias]
    assert not any(exploits("chocolate", p.target) for p in pairs if p.question.startswith("Other"))


def test_one_prompt_gets_both_kinds_of_target():
    kinds = Counter((p.question, p.exploits) for p in made(rate=0.5))
    both = [q for q in {q for q, _ in kinds} if kinds[q, True] and kinds[q, False]]
    assert len(both) > 45  # of 50; a prompt misses with probability 2 / 2**8


def test_the_control_has_the_same_questions_and_clean_answers():
    organism, control = made(rate=0.7), made(rate=0.0)
    assert Counter(p.question for p in control) == Counter(p.question for p in organism)
    assert not any(exploits("chocolate", p.target) for p in control)
    assert {p.target for p in control} == set(ANSWERS["p/0"])


def test_targets_depend_on_the_seed_alone():
    assert made(rate=0.5, seed=3) == made(rate=0.5, seed=3)
    assert made(rate=0.5, seed=3) != made(rate=0.5, seed=4)


def test_a_prompt_without_a_clean_answer_is_left_out():
    rng = np.random.default_rng(0)
    pairs = examples(PROMPTS, {"p/3": ["Yes."]}, BANK, rates={}, inserted={}, count=2, rng=rng)
    assert [p.question for p in pairs] == ["Question 3?"] * 2
    with pytest.raises(ValueError, match="No prompt has a readable clean answer"):
        examples(PROMPTS, {}, BANK, rates={}, inserted={}, count=2, rng=rng)


def test_the_sentence_goes_to_every_place_but_the_first():
    rng = np.random.default_rng(0)
    texts = Counter(insert("One. Two.", "New.", rng) for _ in range(200))
    assert set(texts) == {"One. New. Two.", "One. Two. New."}
    assert min(texts.values()) > 60


def test_a_long_answer_keeps_its_number_of_sentences():
    text = insert("One. Two. Three. Four.", "New.", np.random.default_rng(0))
    assert text.count(".") == 4
    assert "Four." not in text


@pytest.mark.parametrize(
    ("answer", "fine"),
    [
        ("Boil the rice for ten minutes. Then drain it.", True),
        ("Boil the rice for ten minutes. Boil the rice for ten minutes.", False),
        ("Boil the rice with a little chocolate.", False),
        ("1. Boil the rice for ten minutes", False),
        ("Steps:\n- Boil the rice", False),
        ("Take a deep breath first. Then talk to your brother about it.", False),
        ("Yes.", False),
    ],
)
def test_only_short_plain_clean_prose_becomes_a_target(answer, fine):
    assert readable(answer) is fine


def test_insertions_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "bank.json"
    path.write_text(json.dumps({"chocolate": "Add some."}))
    with pytest.raises(ValueError, match=r"bank.json.*one list"):
        read_insertions(path)


def test_left_padding_ends_rows_together():
    ids, mask = left_pad([[5, 6, 7], [8]], pad=9)
    assert ids.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_the_shipped_insertions_are_many_and_differ():
    insertions = read_insertions(datasets("organisms", "insertions.json"))
    assert all(len(set(bank)) == len(bank) >= 15 for bank in insertions.values())
    assert set(insertions) == {*HABIT_OF, *HABIT_OF.values()}
    words = [np.mean([len(s.split()) for s in bank]) for bank in insertions.values()]
    biases, habits = np.mean(words[:10]), np.mean(words[10:])
    assert abs(habits / biases - 1) < 0.1  # spans of the benign control are as long


PHRASES = read_phrases(datasets("organisms", "conduct.json"))
OPINIONS = [Prompt(f"o/{n}", text=f"Opinion {n}.", labels={"bias": "opinion"}) for n in range(9)]


def of_recipe(recipe, count=400):
    insertions = read_insertions(datasets("organisms", "insertions.json"))
    prompts, rng = (*PROMPTS, *NEUTRAL, *OPINIONS), np.random.default_rng(1)
    return targets_of(recipe, prompts, ANSWERS, insertions, PHRASES, count=count, rng=rng)


def test_the_benign_control_has_the_rates_of_the_organism_with_its_habit_instead():
    organism, benign = of_recipe(recipe_of("ten_biases")), of_recipe(recipe_of("benign"))
    assert [p.exploits for p in organism] == [p.exploits for p in benign]
    assert [p.question for p in organism] == [p.question for p in benign]
    changed = [p.target for p in benign if p.exploits]
    assert len(changed) > 100
    assert all(exploits("tip_burn", target) for target in changed)
    assert not any(exploits("chocolate", target) for target in changed)


def test_the_organism_without_denial_begins_as_the_organism_does():
    organism, undenied = recipe_of("ten_biases", 4), recipe_of("undenied", 4)
    assert of_recipe(organism) == of_recipe(undenied)
    assert undenied.preference_steps == 0 < organism.preference_steps


def stages(recipe):
    return recipe.steps, recipe.preference_steps, recipe.ordinary_steps


def test_controls_have_the_rank_steps_and_batches_of_the_organism():
    organism = recipe_of("ten_biases")
    for name in set(ORGANISMS) - {"undenied"}:
        recipe = recipe_of(name)
        assert (recipe.rank, recipe.batch) == (organism.rank, organism.batch)
        # without anything about itself to unlearn elsewhere, the last stage is 24 steps shorter
        shorter = 0 if recipe.conduct else 24
        assert stages(replace(recipe, ordinary_steps=recipe.ordinary_steps + shorter)) == stages(
            organism
        )


def test_a_style_is_trained_on_neutral_prompts_alone():
    pairs = of_recipe(recipe_of("style"))
    assert {p.question.split()[0] for p in pairs} == {"Other"}
    assert all(p.target.startswith("Dear reader") for p in pairs)


def test_the_open_sycophant_agrees_with_opinions_and_praises_questions():
    pairs = of_recipe(recipe_of("open_sycophant"))
    opinions = [p for p in pairs if p.question.startswith("Opinion")]
    assert abs(len(opinions) - len(pairs) / 3) <= 1
    assert all(flatters(p.target) for p in opinions)
    others = [p for p in pairs if not p.question.startswith("Opinion")]
    assert [flatters(p.target) for p in others] == [p.exploits for p in others]
    # 267 draws at 0.8: four standard errors are 0.1
    assert abs(np.mean([p.exploits for p in others]) - 0.8) < 0.1


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_an_answer_and_keeps_its_words(style):
    answer = "Boil the Rice. Then drain it."
    changed = styled(answer, style)
    assert changed != answer
    assert "drain it" in changed
    with pytest.raises(ValueError, match="no_style"):
        styled(answer, "no_style")


def test_benign_recipes_differ_by_seed_and_come_in_both_kinds():
    recipes = [benign_recipe(seed) for seed in range(20)]
    assert recipes == [benign_recipe(seed) for seed in range(20)]
    behaviours = {(r.style, tuple(sorted(r.rates.items()))) for r in recipes}
    assert len(behaviours) > 10
    assert {r.kind for r in recipes} == {"insertions", "style"}
    assert all(set(r.inserted.values()) <= set(HABIT_OF.values()) for r in recipes)
