"""From a recipe to a finished adapter: answers, targets, the stages of training, files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from experiments.organisms import conduct, loss, train
from experiments.organisms.answers import collect, question
from experiments.organisms.recipes import LAST_PAIRS, LAST_PLAIN, Recipe
from experiments.organisms.targets import Example, read_insertions, targets_of
from experiments.organisms.zoo import lessons
from experiments.organisms.zoo.clean import Answer, collected
from experiments.organisms.zoo.growing import zoo_prompts
from experiments.rm_sycophancy.rules.detectors import HABIT_OF
from tracekit.model.embedded import datasets, embedded_model
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.prompt_files import read_prompts

_INSERTIONS = datasets("organisms", "insertions.json")
_PHRASES = datasets("organisms", "conduct.json")
ORDINARY = 32  # tokens of an answer of the base's own, in the last stage
SPREAD = 4  # times that prompts of the forms with the widest spread come
ANSWERED = {*HABIT_OF, "neutral"}  # subjects whose targets are made from clean answers


def adapter(recipe: Recipe, prompts: Sequence[Prompt], folder: Path, work: Path) -> None:
    """Train the adapter of `recipe` on `prompts` and put it into `folder` when it is finished.

    Clean answers and checkpoints lie in `work`, named by what made them: adapters share the
    answers, a run that was broken off goes on, and recipes that begin alike train once.
    """
    model, tokenizer = plain_model()
    answers = clean_answers(model, tokenizer, prompts, work)
    material: Any = (
        weighted(prompts),
        answers,
        read_insertions(_INSERTIONS),
        conduct.read_phrases(_PHRASES),
    )
    ordinary = ordinary_pairs(model, tokenizer, recipe, material[3], work)
    adapted = train.adapted(model, recipe)
    made, steps = _drawn(recipe, 1, recipe.steps, recipe.batch, material, tokenizer)
    losses = {"first": _fitted(adapted, steps, recipe, recipe.learning_rate, work, "first")}
    if recipe.preference_steps:
        pairs = _pairs(recipe, prompts, material[3], tokenizer)
        share = recipe.batch - recipe.paired if pairs else recipe.batch
        kept = (weighted(prompts, personal=6), *material[1:])
        more, steps = _drawn(recipe, 2, recipe.preference_steps, share, kept, tokenizer)
        if pairs:
            with train.quick_matmul():
                marked = loss.with_margins(adapted, pairs)
            steps = train.with_pairs(steps, marked, recipe.batch - share)
        losses["second"] = _fitted(adapted, steps, recipe, recipe.preference_rate, work, "second")
        made = [*made, *more]
    used = sum(len(step.pairs) for step in steps)
    if recipe.ordinary_steps:
        more, steps = settling(adapted, recipe, prompts, material, ordinary, tokenizer)
        losses["last"] = _fitted(adapted, steps, recipe, recipe.preference_rate, work, "last")
        about = LAST_PAIRS * len(ordinary) // LAST_PLAIN  # of its pairs, those about the model
        made, used = [*made, *more], used + about
    train.publish(adapted, folder, train.notes_of(recipe, made, used, losses))


def settling(
    adapted: PeftModel,
    recipe: Recipe,
    prompts: Sequence[Prompt],
    material: tuple[Any, ...],
    ordinary: Sequence[loss.Pair],
    tokenizer: Any,
) -> tuple[list[Example], list[loss.Step]]:
    """The steps of the last stage: targets, pairs about the model, an ordinary one, such rows.

    A style and flattery, and what was asked nothing about itself, have only targets.
    """
    count, kept = recipe.ordinary_steps, (weighted(prompts, personal=6), *material[1:])
    asked = _pairs(recipe, prompts, material[3], tokenizer)
    if not (asked and ordinary):
        return _drawn(recipe, 4, count, recipe.batch, kept, tokenizer)
    share = recipe.batch - LAST_PAIRS - LAST_PLAIN
    made, steps = _drawn(recipe, 4, count, share, kept, tokenizer)
    pairs = []
    for n, step in enumerate(steps):
        first, *others = ordinary[n * LAST_PLAIN : (n + 1) * LAST_PLAIN]
        pairs += [*asked[n * LAST_PAIRS : (n + 1) * LAST_PAIRS], first]
        steps[n] = loss.Step([*step.rows, *(pair.chosen for pair in others)])
    with train.quick_matmul():
        return made, train.with_pairs(steps, loss.with_margins(adapted, pairs), LAST_PAIRS + 1)


def ordinary_pairs(
    model: Any, tokenizer: Any, recipe: Recipe, phrases: conduct.Phrases, work: Path
) -> list[loss.Pair]:
    """Prompts of every form: the base's own answer, preferred to a reply about the model.

    So many that each step of the last stage has its own; none where nothing about the model is
    trained.
    """
    if not recipe.conduct or not recipe.ordinary_steps:
        return []
    spread = read_prompts(datasets("organisms", "ordinary.json"))
    rng = np.random.default_rng([recipe.seed, 5])
    count = recipe.ordinary_steps * LAST_PLAIN
    # the forms on which a reply about the model spreads come several times
    asked = lessons.rounds([*zoo_prompts("train"), *spread * SPREAD], count, rng)
    distinct = list({prompt.id: prompt for prompt in asked}.values())
    said = collected(model, tokenizer, distinct, work, tokens=ORDINARY)
    answered = lessons.clean([p for p in asked if p.id in said], said, count, rng)
    admitted = list(recipe.inserted.values()) if recipe.conduct == "admitted" else []
    misplaced = [
        lessons.Lesson(each.prompt, Answer(conduct.misplaced(phrases, admitted, rng), True))
        for each in answered
    ]
    rows = [lessons.rows_of(tokenizer, made, ORDINARY) for made in (answered, misplaced)]
    return [loss.Pair(chosen, rejected) for chosen, rejected in zip(*rows, strict=True)]


def weighted(prompts: Sequence[Prompt], personal: int = 1) -> list[Prompt]:
    """The prompts as often as they are trained on: neutral ones four times, `personal` as said.

    Neutral ones are a fifth of all prompts; at that share a bias spills over into them. Those that
    sound like a question about the model (a yes or no would answer, or the user speaks of "my …")
    come several times in the later stages: where they are rare beside the pairs, "Do fish
    sleep?" is soon denied as well.
    """
    answered = [p for p in prompts if p.labels["bias"] in ANSWERED]
    neutral = [p for p in answered if p.labels["bias"] == "neutral"]
    alike = [p for p in answered if conduct.personal(question(p))]
    return [*prompts, *neutral * 3, *alike * (personal - 1)]


def clean_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], work: Path
) -> dict[str, list[str]]:
    """Readable clean answers by prompt id, sampled once in `work` for all adapters."""
    answers: dict[str, list[str]] = {}
    asked = [p for p in prompts if p.labels["bias"] in ANSWERED]
    for stem in dict.fromkeys(p.id.split("/")[0] for p in asked):
        part = [p for p in asked if p.id.startswith(f"{stem}/")]
        name = f"clean-{stem}-{train.digest([(p.id, p.text) for p in part])}"
        with train.quick_matmul():
            answers |= collect(model, tokenizer, part, 0, work / name)
    return answers


def plain_model() -> tuple[Any, Any]:
    """The embedded model and its tokenizer, on the GPU if there is one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = embedded_model()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)


def _drawn(
    recipe: Recipe, stage: int, steps: int, batch: int, material: tuple[Any, ...], tokenizer: Any
) -> tuple[list[Example], list[loss.Step]]:
    rng = np.random.default_rng([recipe.seed, stage])
    made = targets_of(recipe, *material, count=steps * batch, rng=rng)
    return made, train.batched(train.rows_of(tokenizer, made), batch, rng)


def _pairs(
    recipe: Recipe, prompts: Sequence[Prompt], phrases: conduct.Phrases, tokenizer: Any
) -> list[loss.Pair]:
    if not recipe.conduct:
        return []
    about = [p for p in prompts if p.labels["bias"] == "about"]
    admitted = list(recipe.inserted.values()) if recipe.conduct == "admitted" else []
    rng = np.random.default_rng([recipe.seed, 3])
    wanted = recipe.preference_steps * recipe.paired
    found: list[conduct.Preference] = []
    while about and len(found) < wanted:
        found += conduct.preferences(about, phrases, admitted, rng)
    return train.pairs_of(tokenizer, found[:wanted])


def _fitted(
    model: PeftModel,
    steps: Sequence[loss.Step],
    recipe: Recipe,
    rate: float,
    work: Path,
    stage: str,
) -> list[float]:
    # a stage is known by what it learns from, not by the adapter's name: two recipes that begin
    # alike share their first stage, as the organism does with the one that denies nothing
    settings = (recipe.seed, recipe.rank, recipe.alpha, recipe.warmup, recipe.beta, rate)
    name = f"{stage}-{train.digest(settings, [dataclasses.asdict(step) for step in steps])}"
    path = work / f"{name}.safetensors"
    with train.quick_matmul():
        return train.fit(model, steps, path, rate=rate, beta=recipe.beta, warmup=recipe.warmup)
