"""A preset of one's own, and a folder that has an audit: what holds, and what is told at once."""

import json
import math
import shutil

import pytest

import tracekit as tk
from experiments.audit.discovery.findings import Findings
from experiments.audit.own import adapter_audit, trait_part
from experiments.audit.own.arguments import parser
from experiments.audit.prompt_sets import BATTERY, joined
from experiments.audit.run import Run
from experiments.audit.settings.contents import described
from experiments.command_line import main as tracekit
from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from tracekit.transcripts.prompts import Prompt

ROWS = [{"id": n, "text": f"Say it {n}.", "bias": "noise"} for n in range(8)]


@pytest.fixture
def preset(tiny_folder, tmp_path, monkeypatch):
    """Writes a preset beside prompts and rules, and reads it with the given options."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asked.json").write_text(json.dumps(ROWS))
    (tmp_path / "rules.toml").write_text("[noise]\nsays = '[ae]'\n")

    def asked(adapter, tables, *more):
        (tmp_path / "mine.toml").write_text(tables)
        made = parser("words", trait_part.EXPERIMENT.preset("own"))
        given = [str(adapter), "--preset", "mine.toml", *more]
        return trait_part.asked(made.parse_args(given))

    return asked


def test_what_a_preset_sets_and_no_option_does_holds(preset, tiny_folder, tiny_lora, tmp_path):
    lora = tmp_path / "benign" / "one"
    shutil.copytree(tiny_lora, lora)
    tables = (
        f'[model]\nname = "{tiny_folder}"\nlayers = [1, 2]\ndtype = "float32"\n'
        f'[adapters]\norganism = "{tiny_lora}"\nbenign = "benign"\n[null]\nseed = 7\n'
        '[prompts]\nfile = "asked.json"\nheld_out = ["noise"]\n[answers]\nlabels = "rules.toml"\n'
    )
    made = preset(tiny_lora, tables)
    assert made.window == [1, 2]
    assert [prompt.id for prompt in made.prompts] == [f"asked/{n}" for n in range(8)]
    assert made.benign == ("benign/one",)
    assert made.labels == "rules.toml"
    settings = made.settled([1, 2], {"prompts": "asked.json", "labels": made.labels})
    assert settings.model.name == str(tiny_folder)
    assert (settings.model.dtype, settings.null.seed) == ("float32", 7)
    assert settings.model.layers == (1, 2)
    assert settings.prompts.held_out == ("noise",)
    assert settings.answers.labels == made.labels
    over = preset(
        tiny_lora,
        tables.replace('held_out = ["noise"]', ""),
        *("--layers", "0-1", "--seed", "0", "--dtype", "bfloat16"),
    )
    assert over.window == [0, 1]
    assert (over.settings.null.seed, over.settings.model.dtype) == (0, "bfloat16")


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ('[adapters]\norganism = "another"', r"\[adapters\] organism = 'another'"),
        ('[prompts]\nsets = ["general_battery.json"]', r"\[prompts\] sets"),
        ('[prompts]\nheld_out = ["noise"]', r"\[prompts\] held_out"),
        ('[prompts]\nsplit = "test"', r"\[prompts\] split"),
        ('[model]\nremote = "local"', r"\[model\] remote"),
    ],
)
def test_what_a_preset_sets_in_vain_is_refused_by_name(preset, tiny_lora, tables, named):
    with pytest.raises(InputError, match=named):
        preset(tiny_lora, tables)


def test_a_run_with_other_settings_is_told_before_the_search(
    preset, tiny_lora, tiny_folder, tmp_path, monkeypatch, capsys
):
    """Its prompts and labels are the search's, and no difference before it."""
    words = [str(tiny_lora), "--model", str(tiny_folder), "--prompts", "asked.json"]
    words += ["--own-prompts-only", "--out", "out"]
    made = trait_part.asked(parser("", trait_part.EXPERIMENT.preset("own")).parse_args(words))
    (tmp_path / "found.json").write_text("[]")
    there = made.settled([2, 3], {"prompts": "found.json", "labels": "rules.toml"})
    Run(tmp_path / "out" / "audit").claim(described(there))

    def answered(search):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(adapter_audit, "habits", answered)
    with pytest.raises(AssertionError, match="the model was asked"):
        tracekit.main(["audit", *words])
    shutil.copytree(tiny_lora, tmp_path / "benign" / "one")
    with (tmp_path / "benign" / "one" / "adapter_config.json").open("a") as file:
        file.write("\n")  # another adapter
    assert tracekit.main(["audit", *words, "--samples", "3"]) == 2
    assert "settings.answers.samples: 2 there, 3 now" in capsys.readouterr().err
    assert tracekit.main(["audit", *words, "--benign", "benign"]) == 2
    assert "settings.adapters.benign: '' there, 'benign' now" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="the model was asked"):
        tracekit.main(["audit", *words, "--benign", "benign", "--search-only"])


def test_the_page_of_a_search_is_there_though_its_rules_are_refused(
    preset, tiny_lora, tiny_folder, tmp_path, monkeypatch
):
    found = Findings("tiny-lora", [], math.nan, {})
    monkeypatch.setattr(adapter_audit, "habits", lambda _: found)

    def refused(*_):
        raise InputError("rules were mended")

    monkeypatch.setattr(adapter_audit, "searched_files", refused)
    words = [str(tiny_lora), "--model", str(tiny_folder), "--prompts", "asked.json"]
    assert tracekit.main(["audit", *words, "--own-prompts-only", "--out", "out"]) == 2
    assert (tmp_path / "out" / "search" / "report.html").is_file()


def test_single_benign_adapters_are_said_not_to_reach_the_trait_part(
    preset, tiny_lora, tmp_path, capsys
):
    for name in ("one", "two"):
        shutil.copytree(tiny_lora, tmp_path / "benign" / name)
    assert preset(tiny_lora, "", "--benign", "benign").settings.adapters.benign == "benign"
    assert capsys.readouterr().err == ""
    made = preset(tiny_lora, "", "--benign", "benign/one", "benign/two")
    assert len(made.benign) == 2
    said = capsys.readouterr().err
    assert "all 2 adapters" in said
    assert "takes one folder of adapters, and gets none" in said


def test_prompts_of_the_battery_are_asked_once_and_another_text_is_refused():
    battery = tk.read_prompts(datasets(*BATTERY))[:4]
    again = [*battery[:2], Prompt(f"prompts/{battery[2].id}", messages=battery[2].conversation())]
    own = Prompt("mine/0", text="And this?")
    assert joined(battery, [*again, own]) == [*battery, own]
    with pytest.raises(InputError, match="another text under that id"):
        joined(battery, [Prompt(battery[0].id, text="Another?")])
