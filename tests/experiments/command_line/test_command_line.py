"""`tracekit …`: one door, whose mistakes are one line, and which imports what it needs."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.command_line import capture as command
from experiments.command_line.main import COMMANDS, main
from tests.support.models import tiny
from tracekit.errors import InputError
from traits.contrast_sets import linting

PROMPTS = '{"name": "asked", "prompts": [{"id": 1, "text": "One?"}, {"id": 2, "text": "And two"}]}'


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(PROMPTS)
    return path


@pytest.fixture
def capture(tiny_folder, prompts, tmp_path):
    """The command's words, but for what a test changes."""
    given = ["capture", str(tiny_folder), str(prompts), "--out", str(tmp_path / "run")]
    return [*given, "--layers", "0,1", "--generate", "3"]


def test_help_and_a_wrong_name_import_nothing_and_say_what_there_is(capsys):
    code = (
        "import sys; from experiments.command_line.main import main; main(['--help']);"
        "print({'tracekit', 'xarray', 'torch', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
    assert all(f"tracekit {name} " in done.stdout for name in COMMANDS)
    assert main(["captures"]) == 2
    assert "'captures' was asked for; there is audit, plan, lint" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_steering_shows_commands_that_can_be_typed(capsys):
    with pytest.raises(SystemExit):
        main(["audit", "steer", "--help"])
    said = capsys.readouterr().out
    assert "python -m experiments.rm_sycophancy steer --out" in said
    assert "EXPERIMENT" not in said


def test_a_capture_is_what_the_library_makes_and_goes_on(
    capture, tiny_llama, tmp_path, monkeypatch
):
    assert main(capture) == 0
    traces = tk.open(tmp_path / "run" / "traces").load()
    runs = tk.open(tmp_path / "run" / "transcripts.nc")
    assert int(runs.token.max()) == 2
    expected = tk.capture(tiny_llama, runs, [0, 1], progress=False).sel(prompt=traces.prompt)
    np.testing.assert_allclose(traces.values, expected.values, rtol=1e-5)
    assert not np.allclose(traces.values, expected.values[::-1], equal_nan=True)
    # what is there is read: nothing is generated or captured again
    monkeypatch.setattr(tk, "generate", None)
    assert main(capture) == 0


def test_answers_of_other_weights_are_not_captured_as_these(
    capture, tiny_folder, tiny_lora, tmp_path, monkeypatch, capsys
):
    adapter = tmp_path / "a1"
    shutil.copytree(tiny_lora, adapter)
    assert main([*capture, "--adapter", str(adapter)]) == 0
    monkeypatch.chdir(tmp_path)
    # the same folder by another name
    assert main([*capture, "--adapter", "./a1/"]) == 0
    shutil.rmtree(adapter)
    tiny.build_lora(tiny_folder, adapter, seed=5)
    shutil.rmtree(tmp_path / "run" / "traces")
    assert main([*capture, "--adapter", "a1"]) == 2
    assert "written by other weights than these" in capsys.readouterr().err
    (tmp_path / "run" / command.TRANSCRIPTS).unlink()
    assert main([*capture, "--adapter", "a1"]) == 0


def test_a_plan_counts_what_a_capture_keeps_and_loads_nothing(
    capture, tmp_path, capsys, monkeypatch
):
    assert main(capture) == 0
    traces = tk.open(tmp_path / "run" / "traces").load()
    kept = int(traces.isel(layer=0).notnull().any("dim").sum())
    capsys.readouterr()
    monkeypatch.setattr(tk, "load", None)
    assert main([*capture, "--plan"]) == 0
    told = capsys.readouterr().out
    assert f"kept: {kept} places at 2 layers of {traces.sizes['dim']}" in told
    assert "of 1 × 80 GB: fits" in told
    assert main([*capture, "--plan", "--gpu-memory", "0.0001"]) == 0
    assert "does not fit" in capsys.readouterr().out
    assert main([*capture, "--plan", "--layers", "99"]) == 2
    assert "layer 99 was asked for" in capsys.readouterr().err


def test_without_a_folder_a_capture_is_refused(capture, capsys):
    where = capture.index("--out")
    assert main([*capture[:where], *capture[where + 2 :]]) == 2
    assert "without --out" in capsys.readouterr().err


def test_a_range_of_layers_is_all_between(capture, tmp_path, capsys):
    assert main([*capture, "--layers", "0-1", "--reduce", "mean"]) == 0
    assert tk.open(tmp_path / "run" / "traces").layer.values.tolist() == [0, 1]
    assert main([*capture, "--layers", "1-0"]) == 2
    assert "from the lower to the higher layer" in capsys.readouterr().err


def test_a_folder_of_other_settings_is_refused_in_one_line(capture, tmp_path, capsys):
    assert main([*capture, "--layers", "0"]) == 0
    assert main(capture) == 2
    assert "layers: [0] there, [0, 1] now" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"layers: \[0\] there"):
        main([*capture, "--debug"])


@pytest.mark.parametrize("wrong", [["--layers", "99"], ["--generate", "900000"]])
def test_a_capture_that_fails_leaves_its_folder_to_the_next(capture, wrong, tmp_path, capsys):
    assert main([*capture, *wrong]) == 2
    assert wrong[1] in capsys.readouterr().err
    assert not (tmp_path / "run" / command.TRANSCRIPTS).exists()
    assert main(capture) == 0
    assert (tmp_path / "run" / "traces").is_dir()


def test_check_says_what_it_proved_and_what_does_not_exist(tiny_folder, tiny_lora, capsys):
    assert main(["check", str(tiny_folder), "--adapter", str(tiny_lora)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "blocks, float32" in lines[0]
    assert any(line.startswith("adapter ") for line in lines)
    assert main(["check", "nobody"]) == 2
    assert capsys.readouterr().err.startswith("tracekit check: ")


def test_a_bug_shows_its_traceback(tiny_folder, monkeypatch):
    def broken(*_, **__):
        raise ValueError("raised by some library")

    monkeypatch.setattr(tk, "load", broken)
    with pytest.raises(ValueError, match="some library"):
        main(["check", str(tiny_folder)])


def test_a_view_colours_each_token_by_its_value(tmp_path, capsys):
    values = np.array([[[1.0, 0.0], [-2.0, 0.0], [np.nan, np.nan]]])
    words = ("prompt", "token"), [["<b>", " two", ""]]
    array = xr.DataArray(
        values,
        dims=("prompt", "token", "layer"),
        coords={"prompt": ["p/1"], "token": [0, 1, 2], "layer": [4, 9], "token_text": words},
        name="cosine",
    )
    path = tk.save(tk.stamp(array, {"weights": "w", "ids": "i"}), tmp_path / "x.nc")
    given = ["view", str(path), "--out", str(tmp_path / "x.html")]
    assert main([*given, "--select", "layer=4"]) == 0
    page = (tmp_path / "x.html").read_text()
    assert '<span title="0: 1" style="background:rgba(255,140,0,0.50)">&lt;b&gt;</span>' in page
    assert '<span title="1: -2" style="background:rgba(120,60,200,1.00)"> two</span>' in page
    assert page.count("<span") == 2
    assert capsys.readouterr().out.strip() == str(tmp_path / "x.html")
    assert main([*given, "--select", "layer=5"]) == 2
    assert "layer=5 was asked for; there are 4, 9." in capsys.readouterr().err
    assert main([*given, "--select", "depth=5"]) == 2
    assert "there are layer" in capsys.readouterr().err


def test_a_view_says_which_dim_it_took(tmp_path, capsys):
    values = np.random.default_rng(0).normal(size=(1, 2, 3, 8))
    words = ("prompt", "token"), [["one", " two"]]
    coords = {"prompt": ["p/1"], "token": [0, 1], "layer": [4, 7, 9], "token_text": words}
    dims = ("prompt", "token", "layer", "dim")
    array = tk.stamp(xr.DataArray(values, coords, dims=dims, name="residual"), {})
    given = ["view", str(tk.save(array, tmp_path / "x.nc")), "--out", str(tmp_path / "x.html")]
    assert main([*given, "--select", "layer=9"]) == 0
    said = "x.html: at dim=4 (of 8), the middle. --select dim=… shows another; for norms, save tk.n"
    assert said in capsys.readouterr().out
    page = (tmp_path / "x.html").read_text()
    assert "layer 9; dim 4;" in page
    assert f"0: {values[0, 0, 2, 4]:.4g}" in page
    assert main([*given, "--select", "layer=9", "dim=3"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "x.html")
    assert main([*given[:-1], str(tmp_path / "x.pdf")]) == 2
    assert "Give a name that ends in .html" in capsys.readouterr().err


def test_a_folder_without_tokens_is_told_what_to_give(tmp_path, capsys):
    assert main(["view", str(tmp_path)]) == 2
    assert "Give a saved file, a capture's folder" in capsys.readouterr().err
    (tmp_path / "traces").mkdir()
    assert main(["view", str(tmp_path)]) == 2
    assert f"Give '{tmp_path}/traces'." in capsys.readouterr().err
    # what `tracekit audit ADAPTER` writes has the run inside
    (tmp_path / "audit" / "projections").mkdir(parents=True)
    assert main(["view", str(tmp_path)]) == 2
    assert "organism/organism' was asked for" in capsys.readouterr().err


def test_lint_shows_a_traceback_when_asked(tmp_path):
    with pytest.raises(FileNotFoundError):
        linting.main([str(tmp_path / "nothing"), "--debug"])
