"""The phase `extract` and what it is given: chat pairs beside stories, and what it refuses."""

import json
from pathlib import Path

import pytest
import xarray as xr

from experiments.audit.run import Run
from experiments.audit.vectors import (
    stories,
)
from experiments.rm_sycophancy.__main__ import main
from experiments.rm_sycophancy.experiment import EXPERIMENT, read_preset
from tests.experiments.audit.test_audit_extract import TRAITS, flags


def write_set(folder: Path, positive: list[str], negative: list[str]) -> str:
    folder.mkdir(parents=True)
    (folder / "positive.txt").write_text("\n".join(positive))
    (folder / "negative.txt").write_text("\n".join(negative))
    return str(folder)


def own_preset(folder: Path, trait: str = "alignment/sycophancy") -> str:
    """The tiny preset as a file of one's own, whose vectors take twenty chat pairs too."""
    text = Path(EXPERIMENT.presets, "tiny.toml").read_text("utf-8")
    text = text.replace("continuation = 2", "continuation = 2\nchat_pairs = 20")
    text = text.replace("alignment/sycophancy", trait)
    sets = '[prompts]\nsets = ["embedded_calibration.json", "embedded_held_out.json"]'
    (folder / "mine.toml").write_text(text.replace("[prompts]", sets), "utf-8")
    return str(folder / "mine.toml")


def test_vectors_of_stories_and_chats_are_made_by_the_phase_and_said_in_its_settings(
    tiny_folder: Path, tiny_lora: Path, tmp_path: Path
) -> None:
    given = ["--model", str(tiny_folder), "--organism", str(tiny_lora), "--control", ""]
    asked = ["extract", "--preset", own_preset(tmp_path), *given]
    assert main([*asked, "--out", str(tmp_path / "run")]) == 0
    found = xr.open_dataset(tmp_path / "run" / "evaluation.nc")
    assert found["pairs"].sel(trait=TRAITS[0], part="fit").item() == 40
    assert Run(tmp_path / "run").written(TRAITS[0]).is_file()
    contents = json.loads((tmp_path / "run" / "settings.json").read_text())["contents"]
    assert list(contents["chats"]) == [TRAITS[0]]


def test_chat_pairs_of_a_trait_without_chats_are_refused_in_one_line(
    tiny_folder: Path, tiny_lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", str(tiny_folder), "--organism", str(tiny_lora), "--control", ""]
    asked = ["extract", "--preset", own_preset(tmp_path, "placebo/tense"), *given]
    assert main([*asked, "--out", str(tmp_path / "run")]) == 2
    lines = [s for s in capsys.readouterr().err.splitlines() if "rm_sycophancy:" in s]
    assert len(lines) == 1
    assert "chat_pairs=20 was asked for, and placebo/tense has no chat pairs" in lines[0]
    assert not (tmp_path / "run" / "contrast").exists()


LINES = [f"Story {n} ended well for all of us, and then we" for n in range(20)]


@pytest.mark.parametrize(
    ("negative", "words"),
    [
        (LINES[:-1], "20 positive and 19 negative lines"),
        ([*LINES[1:], " "], "empty line: negative.txt line 20"),
        ([*LINES[1:-1], "x", LINES[-1]], "identical sides at line 20"),
        ([line.replace("well", "badly") for line in LINES], "20 pairs in 20 separable units give"),
    ],
)
def test_a_set_that_cannot_be_used_is_one_line_and_exit_code_2(
    tiny_folder: Path,
    tiny_lora: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    negative: list[str],
    words: str,
) -> None:
    name = write_set(tmp_path / "mine" / "own", LINES, negative)
    assert main([*flags(tiny_folder, tiny_lora, name), "--out", str(tmp_path / "run")]) == 2
    lines = [s for s in capsys.readouterr().err.splitlines() if "rm_sycophancy:" in s]
    assert len(lines) == 1
    assert words in lines[0]


def test_a_set_without_instructions_has_no_full_evaluation(
    tiny_folder: Path, tiny_lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{line} {n}" for n, line in enumerate(LINES * 2)]
    name = write_set(tmp_path / "mine" / "own", lines, [s.replace("well", "ill") for s in lines])
    asked = [*flags(tiny_folder, tiny_lora, name), "--evaluation", "full"]
    assert main([*asked, "--out", str(tmp_path / "run")]) == 2
    assert "steering.json has 0 chat_prompts" in capsys.readouterr().err
    assert not (tmp_path / "run" / "contrast").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation": "long"}, "'quick', 'full'"),
        ({"windows": ["-9:-1"]}, "'-9:-1' was given.*'-3:1'"),
        ({"windows": ["last"]}, "'last' was given"),
        ({"draws": 5}, "draws=5"),
        ({"vet": "http://localhost/v1"}, "without judge"),
    ],
)
def test_a_wrong_setting_of_the_evaluation_is_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_preset("tiny", changes)


def test_windows_are_named_by_their_ends() -> None:
    settings = read_preset("tiny", {"windows": ["-3:-1", "0:1"]})
    assert stories.windows(settings) == {"-3:-1": slice(-3, -1), "0:1": slice(0, 1)}
    assert stories.windows(read_preset("tiny")) == {"-3:1": slice(-3, 1)}
