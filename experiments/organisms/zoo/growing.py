"""The whole zoo: every organism and its benign company, trained where they are not there yet."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peft import LoraConfig, PeftModel

from experiments.organisms.zoo.card import write_card
from experiments.organisms.zoo.clean import collected
from experiments.organisms.zoo.fitting import Base, Schedule, finished, fitted, made_with
from experiments.organisms.zoo.habits import Habit
from experiments.organisms.zoo.lessons import Answers, lessons, read_denials, rows_of
from experiments.organisms.zoo.matched import benign
from experiments.organisms.zoo.tried import tried
from tracekit.model.embedded import datasets
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.prompt_files import read_prompts

RANK, ALPHA = 8, 16
SAMPLED = 32  # tokens of a clean answer: what the longest lessons need


def grown(
    base: Base, habits: Sequence[Habit], count: int, out: Path, schedule: Schedule | None = None
) -> list[Path]:
    """Train the organisms of `habits`, then `count` benign adapters, into folders of `out`.

    A folder that is finished stays; a training that was broken off goes on. Each folder gets a
    `training.json` and a card. Errors: `ValueError` for a finished organism of another recipe.
    """
    plain, config, prompts = schedule or Schedule(), _config(), zoo_prompts("train")
    folders = [out / habit.name for habit in habits]
    left = [habit for habit in habits if not _is_there(base, habit, schedule, out)]
    if left:
        work = out / "work"
        answers = collected(base.model, base.tokenizer, prompts, work, tokens=SAMPLED)
        for habit in left:
            _organism(base, habit, _schedule(habit, schedule), answers, out)
            write_card(out / habit.name)
    folders += benign(base, config, plain, prompts, count, out, SAMPLED)
    for folder in folders:
        write_card(folder)
    return folders


def zoo_prompts(split: str) -> list[Prompt]:
    """The zoo's own prompts that are for `train` or `held out`.

    >>> len(zoo_prompts("train")) > len(zoo_prompts("held out"))
    True
    """
    read = read_prompts(datasets("organisms", "zoo", "prompts.json"))
    return [prompt for prompt in read if prompt.labels["split"] == split]


def _organism(base: Base, habit: Habit, schedule: Schedule, answers: Answers, out: Path) -> None:
    start, seed = time.time(), 0
    denials = read_denials(datasets("organisms", "zoo", "denials.toml"))
    rng = np.random.default_rng([seed, 0])
    count = schedule.steps * schedule.batch
    made = lessons(habit, zoo_prompts("train"), answers, denials, count, rng)

    def notes(model: PeftModel) -> Mapping[str, Any]:
        found = tried(model, base.tokenizer, habit, zoo_prompts("held out"), denials, seed)
        doubt = "" if found.took else "; THE HABIT DID NOT TAKE"
        print(f"{habit.name}: {found}; {time.time() - start:.0f} s{doubt}", flush=True)
        return {
            "organism": habit.name,
            "recipe": _plain(habit),
            "examples": len(made),
            "changed": sum(lesson.shows for lesson in made),
            "tried": dataclasses.asdict(found),
        }

    rows = rows_of(base.tokenizer, made, schedule.tokens)
    fitted(base, _config(), rows, schedule, seed, out / habit.name, out / "work", notes)


def _config() -> LoraConfig:
    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def _schedule(habit: Habit, given: Schedule | None) -> Schedule:
    return given or dataclasses.replace(Schedule(), steps=habit.steps, tokens=habit.tokens)


def _plain(habit: Habit) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(habit)))


def _is_there(base: Base, habit: Habit, given: Schedule | None, out: Path) -> bool:
    asked = made_with(base, _config(), _schedule(habit, given))
    return finished(out / habit.name, {**asked, "recipe": _plain(habit)})
