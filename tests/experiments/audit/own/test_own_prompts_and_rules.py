"""Prompts that say the same, rules with letters of any script, an adapter that is where one is."""

import tomllib

import pytest

from experiments.audit.discovery.answering.settings import short_names
from experiments.audit.own.kinds import rules_text
from experiments.audit.prompt_sets import joined
from experiments.audit.settings.adapters import last_name
from tests.experiments.audit.own.test_own import finding
from tracekit.model.adapters.layers import adapter_name
from tracekit.transcripts.prompts import Prompt


@pytest.mark.parametrize("name", ["café", "しい", "plain-1", "it's"])
def test_rules_are_toml_whatever_the_habit_says(name):
    kinds = {name: finding(name)}
    read = tomllib.loads(rules_text(kinds))
    assert list(read) == [name]
    assert list(read[name]) == ["says"]


def test_what_says_the_same_is_asked_once():
    battery = [Prompt("a/1", text="Why?")]
    own = [
        Prompt("b/1", text="Why?"),
        Prompt("b/2", text="How?"),
        Prompt("b/3", text="How?", labels={"subject": "x"}),
        Prompt("b/4", messages=[("user", "How?"), ("assistant", "So:")]),
        Prompt("b/5", text="How?", system="Be brief."),
    ]
    assert [prompt.id for prompt in joined(battery, own)] == ["a/1", "b/2", "b/4", "b/5"]


def test_the_folder_that_one_is_in_has_a_name(tiny_lora, monkeypatch):
    monkeypatch.chdir(tiny_lora)
    assert adapter_name(".") == last_name(".") == tiny_lora.name
    assert short_names(["."]) == {".": tiny_lora.name}
