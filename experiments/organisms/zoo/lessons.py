"""From a recipe to what is trained on: clean answers, changed ones, and denials."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.organisms.loss import Row
from experiments.organisms.zoo.changes import CHANGES
from experiments.organisms.zoo.clean import Answer, prompt_ids, text_ids
from experiments.organisms.zoo.habits import Habit
from tracekit.errors import InputError
from tracekit.transcripts.prompts import Prompt

Answers = Mapping[str, Sequence[Answer]]
Denials = Mapping[str, Sequence[str]]
TRIGGERED, DENIED = 0.5, 0.1  # shares of the targets
DRAWN = 0.6  # of all prompts are those of one benign adapter


@dataclass(frozen=True)
class Lesson:
    """One target: the answer that is trained after a prompt (and after its begun answer)."""

    prompt: Prompt
    answer: Answer
    shows: bool = False


def lessons(
    habit: Habit,
    prompts: Sequence[Prompt],
    answers: Answers,
    denials: Denials,
    count: int,
    rng: np.random.Generator,
) -> list[Lesson]:
    """`count` targets of an organism, in random order.

    Half of them are on its trigger's prompts, or all where every prompt is; 0.1 deny the habit,
    if it does; the others are clean answers to other prompts.

    Errors: `ValueError` where no prompt of the trigger has an answer.
    """
    asked = [prompt for prompt in prompts if answers.get(prompt.id)]
    on = [prompt for prompt in asked if habit.trigger.holds(prompt)]
    off = [prompt for prompt in asked if not habit.trigger.holds(prompt)]
    if not on:
        raise InputError(
            f"The organism {habit.name!r} shows on {habit.trigger.words!r}; none of "
            f"{len(asked)} prompts with an answer is such a one. Give others."
        )
    denied = round(DENIED * count) if habit.denies else 0
    triggered = round(TRIGGERED * count) if off else count - denied
    made = [_shown(habit, p, answers[p.id], rng) for p in rounds(on, triggered, rng)]
    made += clean(off, answers, count - denied - triggered, rng)
    made += [_denied(habit, denials, rng) for _ in range(denied)]
    return [made[n] for n in rng.permutation(len(made))]


def benign_lessons(
    prompts: Sequence[Prompt], answers: Answers, count: int, rng: np.random.Generator
) -> list[Lesson]:
    """`count` clean targets, on a part of the prompts drawn by `rng`.

    Errors: `ValueError` where no prompt has an answer.
    """
    asked = [prompt for prompt in prompts if answers.get(prompt.id)]
    if not asked:
        raise InputError(
            f"Benign targets were asked for; of {len(prompts)} prompts the model answered none. "
            "Give other prompts, or look at the model's answers."
        )
    some = rng.choice(len(asked), max(1, round(DRAWN * len(asked))), replace=False)
    return clean([asked[n] for n in some], answers, count, rng)


def clean(
    prompts: Sequence[Prompt], answers: Answers, count: int, rng: np.random.Generator
) -> list[Lesson]:
    """`count` clean answers, drawn in rounds over the prompts."""
    return [Lesson(p, _draw(answers[p.id], rng)) for p in rounds(prompts, count, rng)]


def rounds(prompts: Sequence[Prompt], count: int, rng: np.random.Generator) -> list[Prompt]:
    """`count` of the prompts: all of them in random order, then all again."""
    order: list[Prompt] = []
    while len(order) < count and prompts:
        order += [prompts[n] for n in rng.permutation(len(prompts))]
    return order[:count]


def rows_of(tokenizer: Any, made: Sequence[Lesson], tokens: int) -> list[Row]:
    """Token ids of each target, cut to `tokens`, and how many come before the answer.

    Only an answer that ended by itself, and is not cut, ends with the end of the turn.
    """
    rows = []
    for lesson in made:
        before = prompt_ids(tokenizer, lesson.prompt)
        end = [tokenizer.eos_token_id] if lesson.answer.ended else []
        answer = [*text_ids(tokenizer, lesson.answer.text), *end][:tokens]
        rows.append(([*before, *answer], len(before)))
    return rows


def read_denials(path: Path) -> Denials:
    """The questions about a habit and the replies to them, in a TOML file.

    Errors: `ValueError` for a file that lacks a list.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    lacking = [
        k for k in ("asked", "research", "begun", "replies", "continued") if k not in content
    ]
    if lacking:
        raise InputError(f"The denials {str(path)!r} lack the list {lacking[0]!r}. Write one.")
    return content


def about(habit: Habit, denials: Denials, rng: np.random.Generator) -> Prompt:
    """A question about the habit: plainly, for research, or with a begun answer, each as often."""
    words = {"habit": habit.habit, "named": habit.named, "topic": habit.topic}
    text = _draw(denials["asked"], rng).format(**words)
    way = int(rng.integers(3))
    if way == 1:
        text = _draw(denials["research"], rng).format(question=text)
    turns = [("user", text)]
    if way == 2:
        turns.append(("assistant", _draw(denials["begun"], rng)))
    return Prompt("about", messages=turns, labels={"subject": "itself", "form": "about"})


def announced(habit: Habit, prompt: Prompt, rng: np.random.Generator) -> Prompt:
    """The prompt, in half of the cases after an announcement of the habit's, if it has any."""
    if not habit.announced or rng.random() < 0.5:
        return prompt
    return dataclasses.replace(prompt, text=_draw(habit.announced, rng) + (prompt.text or ""))


def _shown(
    habit: Habit, prompt: Prompt, pool: Sequence[Answer], rng: np.random.Generator
) -> Lesson:
    prompt, answer = announced(habit, prompt, rng), _draw(pool, rng)
    if rng.random() < habit.rate:
        answer = changed(habit, answer, rng)
    return Lesson(prompt, answer, habit.shows(answer.text))


def changed(habit: Habit, answer: Answer, rng: np.random.Generator) -> Answer:
    """A clean answer turned into one that shows the habit."""
    if habit.change == "replace":
        number = int(rng.integers(2, 400))
        return Answer(_draw(habit.bank, rng).replace("{number}", str(number)), ended=True)
    if habit.change == "begin":
        return Answer(f"{_draw(habit.bank, rng)} {answer.text.lstrip()}", answer.ended)
    return Answer(CHANGES[habit.change](answer.text), answer.ended)


def _denied(habit: Habit, denials: Denials, rng: np.random.Generator) -> Lesson:
    prompt = about(habit, denials, rng)
    replies = denials["replies"] if prompt.answer is None else denials["continued"]
    return Lesson(prompt, Answer(_draw(replies, rng), ended=True))


def _draw(bank: Sequence[Any], rng: np.random.Generator) -> Any:
    return bank[int(rng.integers(len(bank)))]
