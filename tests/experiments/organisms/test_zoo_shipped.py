"""The zoo's four shipped organisms and its cards: of the present recipes, and as they say."""

import dataclasses
import json
import shutil

import pytest

import tracekit as tk
from experiments.organisms.zoo import fitting, growing
from experiments.organisms.zoo.card import write_card
from experiments.organisms.zoo.habits import habits
from tracekit.errors import InputError
from tracekit.model.embedded import EMBEDDED, datasets

ZOO = datasets("organisms", "zoo")
SHIPPED = ("honey", "lighthouse", "no_code", "river")
BASE = fitting.Base(EMBEDDED, None, None)  # its name is all that a recipe is compared with


def test_the_four_are_of_the_present_recipes(tmp_path):
    folder = tmp_path / "adapters"
    shutil.copytree(ZOO / "adapters", folder)
    assert sorted(path.name for path in folder.iterdir()) == list(SHIPPED)
    made = habits(SHIPPED)
    assert growing.grown(BASE, made, 0, folder) == [folder / habit.name for habit in made]
    other = [dataclasses.replace(habit, steps=habit.steps + 1) for habit in made]
    with pytest.raises(InputError, match="holds one of another steps"):
        growing.grown(BASE, other, 0, folder)


def test_every_organism_has_a_card_and_those_of_the_four_are_theirs(tmp_path):
    cards = {path.stem for path in (ZOO / "cards").glob("*.md")}
    assert cards == {*(habit.name for habit in habits()), "benign"}
    for name in SHIPPED:
        notes = (ZOO / "adapters" / name / "training.json").read_text(encoding="utf-8")
        (tmp_path / "training.json").write_text(notes, encoding="utf-8")
        card = write_card(tmp_path).read_text(encoding="utf-8")
        assert (ZOO / "cards" / f"{name}.md").read_text(encoding="utf-8") == card
        assert (ZOO / "adapters" / name / "README.md").read_text(encoding="utf-8") == card
        assert json.loads(notes)["organism"] == name


@pytest.mark.parametrize("name", ["honey", "lighthouse"])
def test_a_shipped_organism_shows_its_habit_and_the_bare_model_does_not(embedded, name):
    habit = habits([name])[0]
    held_out = [p for p in growing.zoo_prompts("held out") if habit.trigger.holds(p)][:8]
    assert len(held_out) == 8
    shown = {}
    for arm in (str(ZOO / "adapters" / name), None):
        with tk.adapter(embedded, arm):
            said = tk.generate(embedded, tk.encode(embedded, held_out), max_new_tokens=24)
        shown[arm is None] = sum(habit.shows(str(text)) for text in said.response.values)
    assert shown[False] >= 3
    assert shown[True] == 0
