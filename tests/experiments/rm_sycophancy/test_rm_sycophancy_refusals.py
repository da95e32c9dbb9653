"""What the audit refuses before any model runs, in one line each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

from experiments.audit.command import meant_for_the_user
from experiments.rm_sycophancy.experiment import read_preset
from tests.support.audit_runs import refused
from tests.support.models import tiny


def test_an_error_in_a_process_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.rm_sycophancy", "run", "--preset", "smolm2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert "smollm2" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--traits", "sycophanzy"], "sycophancy"),
        (["--model", "smollm3"], "smollm2-135m-instruct"),
        (["--layers", "3,9"], "blocks 0 to 3"),
        (["--layers", "2,1"], "layers=[2, 1]"),
        (["--prompts", "nowhere.json"], "nowhere.json"),
        (["--split", "validation"], "test, train"),
        (["--organism", "nobody"], "nobody"),
        (["--base", "nothing here"], "nothing here"),
        (["--max-new-tokens", "5000"], "context of 512"),
        (["--limit", "-1"], "limit=-1"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_before_a_folder_is_made(
    given: list[str],
    flags: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    assert words in refused(["run", *given, "--out", str(out), *flags], capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no prompts"),
        ([{"id": 1, "text": "a"}, {"id": 1, "text": "b"}], "file/1"),
        ([{"id": 1, "text": "a"}, {"id": 2, "text": "word " * 600}], "file/2"),
    ],
)
def test_bad_prompt_files_are_refused_before_any_model_runs(
    given: list[str],
    rows: list[dict],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"name": "x", "prompts": rows}))
    out = tmp_path / "run"
    line = refused(["run", *given, "--prompts", str(path), "--out", str(out)], capsys)
    assert words in line
    assert not out.exists()


def test_an_adapter_of_another_shape_is_refused(
    given: list[str], tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tracekit.model.embedded import embedded_model

    wide = tiny.build("Llama", tmp_path / "wide", embedded_model(), widen=2)
    lora = tiny.build_lora(wide, tmp_path / "lora")
    flags = ["--organism", str(lora), "--out", str(tmp_path / "run")]
    assert "does not fit" in refused(["run", *given, *flags], capsys)
    base = ["--base", str(wide), "--out", str(tmp_path / "run")]
    assert "has dim 64" in refused(["run", *given, *base], capsys)


def test_a_phase_out_of_turn_is_refused(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["capture", *given, "--out", str(tmp_path / "run")], capsys)
    assert "extract, respond" in line
    assert "no run" in refused(["analyse", "--out", str(tmp_path)], capsys)


def test_only_errors_raised_on_purpose_are_for_the_user() -> None:
    def caught(action) -> BaseException:
        with pytest.raises(Exception) as found:  # noqa: PT011
            action()
        return found.value

    assert meant_for_the_user(caught(lambda: read_preset("none")))
    assert not meant_for_the_user(caught(lambda: xr.Dataset()["missing"]))
    assert not meant_for_the_user(caught(lambda: {}["a bug of a caller"]))
