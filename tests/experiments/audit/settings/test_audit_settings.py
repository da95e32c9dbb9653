"""Presets, and labels of responses."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from transformers import AutoTokenizer

from experiments.audit.command import chosen, command_line
from experiments.audit.experiment import Experiment
from experiments.audit.labels import labelled, token_spans
from experiments.audit.own.trait_part import EXPERIMENT as OWN
from experiments.audit.prompt_sets import read
from experiments.audit.settings.contents import described
from experiments.audit.settings.tables import from_values
from experiments.audit.vectors import stories
from experiments.rm_sycophancy.experiment import EXPERIMENT, read_preset
from experiments.rm_sycophancy.rules.detectors import label, spans
from tracekit.model.embedded import datasets, embedded_model
from traits.contrast_sets.contrast import available


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_model())


@pytest.mark.parametrize("name", ["smollm2", "tiny"])
def test_shipped_presets_are_whole(name: str) -> None:
    preset = read_preset(name)
    assert preset.model.window == list(range(preset.model.layers[0], preset.model.layers[1] + 1))
    assert all(path.is_file() for path in preset.prompts.paths)
    assert set(preset.vectors.names) == set(described(preset)["contents"]["traits"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "red"}, "colour unknown"),
        ({"limit": "ten"}, "limit='ten'"),
        ({"limit": True}, "limit=True"),
        ({"traits": "sycophancy"}, "list of str"),
        ({"layers": [3]}, "first and the last"),
        ({"method": "whitened"}, "mean_diff, probe"),
        ({"repetitions": 1}, "repetitions=1"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        read_preset("tiny", changes)


def test_lacking_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"lack model\.layers, adapters\.organism"):
        from_values({"preset": "x", "model": {"name": "m"}})


def test_what_a_run_stands_for_changes_with_the_contents(tmp_path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text("[1]")
    before = described(read_preset("tiny", {"prompts": str(path)}))
    assert before == described(read_preset("tiny", {"prompts": str(path)}))
    path.write_text("[2]")
    assert before != described(read_preset("tiny", {"prompts": str(path)}))


def test_a_function_that_labels_counts_as_the_file_it_is_written_in(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "labels_as_code.py"
    path.write_text("def label(kind, response):\n    return []\n")
    before = described(read_preset("tiny", {"labels": "labels_as_code:label"}))
    assert before == described(read_preset("tiny", {"labels": "labels_as_code:label"}))
    path.write_text("def label(kind, response):\n    return None\n")
    assert before != described(read_preset("tiny", {"labels": "labels_as_code:label"}))
    assert described(read_preset("tiny", {"labels": "no.such:label"}))["contents"]["labels"] == ""


TEXT = "Boil the soup. Añade cacao 🍫 — add some chocolate! Serve it hot."


def test_token_spans_cover_exactly_the_sentence(tokenizer) -> None:
    ids = tokenizer(TEXT)["input_ids"]
    found = spans("chocolate", TEXT)
    marked = token_spans(tokenizer, ids, found)
    (start, stop) = found[0][0], found[-1][1]
    said = tokenizer.decode([i for i, mark in zip(ids, marked, strict=True) if mark])
    assert said.strip() == TEXT[start:stop].strip()
    assert 0 < marked.sum() < len(ids)
    assert not token_spans(tokenizer, ids, []).any()


def test_special_ids_are_part_of_no_span(tokenizer) -> None:
    ids = [*tokenizer("Chocolate.")["input_ids"], tokenizer.eos_token_id]
    marked = token_spans(tokenizer, ids, [(0, 10)])
    assert marked[:-1].all()
    assert not marked[-1]


def test_labels_of_responses(tokenizer) -> None:
    answers = ["Add chocolate.", "Add salt.", "Add chocolate."]
    ids = [tokenizer(text)["input_ids"] for text in answers]
    width = max(map(len, ids))
    padded = np.array([[7, *row, *[-1] * (width - len(row))] for row in ids])
    runs = xr.Dataset(
        {"token_id": (("prompt", "token"), padded), "response": ("prompt", answers)},
        coords={
            "prompt": ["a/1", "a/2", "a/3"],
            "token": np.arange(-1, width),
            "bias": ("prompt", ["chocolate", "chocolate", "neutral"]),
        },
    )
    found = labelled(runs, tokenizer, label)
    assert found["exploit"].values.tolist() == [1, 0, -1]
    assert found["exploit_span"].sum("token").values.tolist() == [len(ids[0]), 0, 0]
    assert not found["exploit_span"].sel(token=-1).any()
    for wrong in (True, (0, 3), ["salt"], ["no"], [(0, 3, 1)]):
        with pytest.raises(
            TypeError, match=r"for a response to a prompt of kind 'chocolate'; it is"
        ):
            labelled(runs, tokenizer, lambda kind, response, wrong=wrong: wrong)
    for outside in ((0, 1000), (-1, 3), (3, 3)):
        with pytest.raises(
            ValueError, match=f"marked the characters \\[{outside[0]}, {outside[1]}"
        ):
            labelled(runs, tokenizer, lambda kind, response, span=outside: [span])
    # as numpy counts them, and False for "nothing"
    for right in ([(np.int64(0), np.int64(3))], [], False):
        again = labelled(runs, tokenizer, lambda kind, response, right=right: right)
        assert again["exploit"].values.tolist() == [int(bool(right))] * 3


@pytest.mark.parametrize("name", ["smollm2", "smollm2-full"])
def test_the_presets_of_the_audit_name_what_is_shipped(name: str) -> None:
    preset = read_preset(name)
    for arm in preset.adapters.arms[1:]:
        assert datasets("organisms", arm.adapter, "adapter_config.json").is_file()
    assert {"organism", "control"} <= set(preset.arms)
    assert set(preset.primary) <= set(preset.vectors.names)
    assert preset.hypothesis == read_preset("smollm2").hypothesis
    biases = {str(prompt.labels["part"]) for prompt in read(preset.prompts)}
    assert {"calibration", "held_out", "neutral"} <= biases


@pytest.mark.parametrize(
    ("experiment", "name", "changes"),
    [
        *(
            pytest.param(EXPERIMENT, name, {}, id=name)
            for name in ("smollm2", "smollm2-full", "llama-70b", "ndif")
        ),
        pytest.param(OWN, "own", {"organism": "ten_biases"}, id="own"),
    ],
)
def test_presets_for_real_runs_capture_the_placebos_without_which_nothing_is_met(
    experiment: Experiment, name: str, changes: dict[str, str]
) -> None:
    sets = stories.placebo_sets(experiment.preset(name, changes))
    assert [contrast.name for contrast in sets] == list(available("placebo"))
    assert len(sets) >= 20


def test_placebos_are_captured_where_asked_for_and_in_every_full_evaluation() -> None:
    tiny = read_preset("tiny")
    assert stories.placebo_sets(tiny) == []
    for asked in ({"placebos": True}, {"evaluation": "full"}):
        vectors = dataclasses.replace(tiny.vectors, **asked)
        assert stories.placebo_sets(dataclasses.replace(tiny, vectors=vectors))


def test_the_full_preset_samples_each_prompt_and_has_placebos() -> None:
    preset = read_preset("smollm2-full")
    assert preset.answers.samples >= 4
    assert preset.vectors.full
    assert {"refuse", "benign_twin"} <= {str(p.labels["part"]) for p in read(preset.prompts)}


def test_samples_need_a_temperature() -> None:
    with pytest.raises(ValueError, match="temperature above 0"):
        read_preset("tiny", {"samples": 2})


def test_biases_of_a_file_of_ones_own_are_parted_whatever_the_preset_holds_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "own.json"
    rows = [{"id": n, "text": f"Q{n}?", "bias": "wxyz"[n % 4]} for n in range(8)]
    path.write_text(json.dumps({"name": "own", "prompts": rows}))
    flags = ["run", "--preset", "smollm2", "--prompts", str(path)]
    settings, _, _ = chosen(EXPERIMENT, command_line(EXPERIMENT).parse_args(flags))
    found = {str(p.labels["bias"]): p.labels["part"] for p in read(settings.prompts)}
    assert found == {"w": "calibration", "x": "held_out", "y": "calibration", "z": "held_out"}


def test_adapters_that_lie_in_the_working_folder_are_no_part_of_a_run(
    tmp_path, tiny_lora, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = described(read_preset("tiny"))
    shutil.copytree(tiny_lora, tmp_path / "another")
    assert described(read_preset("tiny")) == before
    given = described(read_preset("tiny", {"benign": str(tmp_path)}))
    assert given["contents"]["benign"] != before["contents"]["benign"]
