"""Roles of arms, given and guessed; runs of former settings, which were one flat table."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.audit.foreseen import without_role
from experiments.audit.run import SETTINGS, Run
from experiments.audit.settings.groups import places
from experiments.audit.settings.tables import from_values
from experiments.rm_sycophancy.experiment import read_preset

# settings that flat ones of former runs did not have
NEW = ("style", "further", "without_bias", "left_out", "labels", "decompositions")


def roles(controls: list[str], preset: str = "tiny") -> dict[str, str]:
    """The role of each arm beside the model's own two."""
    settings = read_preset(preset, {"controls": controls})
    return {arm.name: arm.role for arm in settings.adapters.arms[2:]}


def test_a_control_has_the_role_that_it_is_given_whatever_its_folder_is_called() -> None:
    found = roles(["style=x/formal", "further=x/c", "habits=x/tips", "x/plain", "matched=x/m"])
    assert found == {
        "control": "matched",
        "style": "style",
        "c": "further",
        "plain": "further",
        "habits": "habits",
    }


def test_a_folder_called_as_a_role_has_none_and_the_audit_says_so() -> None:
    settings = read_preset("tiny", {"controls": ["x/style"]})
    assert settings.of_role("style") is None
    assert settings.arms["style"].role == "further"
    assert without_role(settings) == ["style"]
    assert without_role(read_preset("tiny", {"controls": ["further=x/style"]})) == []


def test_the_shipped_presets_name_every_role() -> None:
    full = read_preset("smollm2-full")
    names = ["control", "style", "open_sycophant", "undenied", "habits"]
    assert [arm.name for arm in full.adapters.arms[2:]] == names
    assert without_role(full) == []
    # controls given by hand take the place of all but the matched one and the one with habits
    assert roles(["x/other"], "smollm2-full") == {
        "control": "matched",
        "other": "further",
        "habits": "habits",
    }


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        (["formal=x"], "'formal' is no role"),
        (["style=x", "style=y"], "'style' is given twice"),
        (["style=x", "y/style"], "the arm 'style'"),
    ],
)
def test_a_role_that_is_none_or_given_twice_is_refused(controls: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_preset("tiny", {"controls": controls})


def test_a_run_made_with_settings_that_are_gone_still_opens(tmp_path: Path) -> None:
    tiny = read_preset("tiny", {"controls": ["style=x/style"]})
    there = {option: place for option, place in places().items() if option not in NEW}
    values = {option: getattr(getattr(tiny, g), name) for option, (g, name) in there.items()}
    values |= {"preset": "tiny", "controls": ["style"], "ladder": ["a"], "other_objectives": []}
    kept = {"settings": values, "contents": {"control": "abc", "controls": {"style": "d"}}}
    (tmp_path / SETTINGS).write_text(json.dumps(kept))
    made_of = Run(tmp_path).settings()
    opened = from_values(made_of["settings"])
    assert [(arm.name, arm.role) for arm in opened.adapters.arms[2:]] == [
        ("control", "matched"),
        ("style", "style"),
    ]
    assert made_of["contents"] == {"arms": {"control": "abc", "style": "d"}}
    adapters = dataclasses.replace(opened.adapters, style="x/style")
    fresh = dataclasses.replace(tiny, hypothesis=opened.hypothesis, prompts=opened.prompts)
    assert dataclasses.replace(opened, adapters=adapters) == fresh
