"""What the audit refuses before any model runs, in one line each."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tracekit as tk
from experiments.rm_sycophancy.__main__ import main
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
        ([], "holds no rows"),
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


def test_only_bad_input_and_bad_paths_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(error: Exception) -> Callable[..., None]:
        def work(*_: object) -> None:
            raise error

        return work

    command = "experiments.audit.command.work"
    for error in (tk.InputError("two\nlines"), PermissionError(13, "Permission denied", "x")):
        monkeypatch.setattr(command, raising(error))
        assert main(["run"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    # a library's own, or a bug of ours
    for error in (ValueError("from a library"), KeyError("missing"), TypeError("a bug")):
        monkeypatch.setattr(command, raising(error))
        with pytest.raises(type(error)):
            main(["run"])
