"""The audit from prompts to table on a tiny random Llama: real model, real adapters, real files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.phases.analysis import analysis
from experiments.audit.phases.arms import there
from experiments.audit.phases.projections import read
from experiments.audit.run import Run, default_folder
from experiments.audit.settings.contents import described
from experiments.audit.settings.tables import from_values
from experiments.rm_sycophancy.__main__ import main
from experiments.rm_sycophancy.experiment import read_preset
from tests.support.audit_runs import refused
from tests.support.oracles import dictionary_page
from tests.support.shadowed import shadowed

PHASES = ("extract", "respond", "capture", "replay", "project", "analyse")


@pytest.fixture(scope="module")
def finished(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["run", *given, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_every_stage_is_an_array_with_the_labels_of_the_design(finished: Path) -> None:
    vectors = xr.open_dataset(finished / "vectors.nc")["vector"]
    assert vectors.dims == ("trait", "extraction", "layer", "dim")
    np.testing.assert_allclose((vectors**2).sum("dim"), 1.0, rtol=1e-5)
    folder = finished / "traces" / "organism.organism"
    traces = xr.open_mfdataset(str(folder / "*.nc"), combine="nested", concat_dim="prompt")
    assert set(traces[next(iter(traces.data_vars))].dims) == {"prompt", "token", "layer", "dim"}
    assert {"exploit", "exploit_span", "group", "bias", "token_id"} <= set(traces.coords)
    assert traces["token_id"].dtype.kind == "i"
    assert traces["layer"].values.tolist() == [1, 2]
    projections = xr.open_dataset(finished / "projections" / "clean.organism.nc")
    assert projections["cosine"].dims == ("prompt", "token", "layer", "trait")
    assert float(abs(projections["cosine"]).max()) <= 1.0 + 1e-6


def test_no_name_in_a_run_is_hidden_by_a_method_of_xarrays(finished: Path) -> None:
    files = sorted(finished.rglob("*.nc"))
    assert len(files) > 20
    opened = {str(file): xr.open_dataset(file) for file in files}
    assert {name: found for name, one in opened.items() if (found := shadowed(one))} == {}
    assert shadowed(xr.Dataset({"rank": ("quantile", [1])})) == ["quantile", "rank"]


def test_projections_inside_the_trace_equal_those_of_the_saved_traces(finished: Path) -> None:
    folder = finished / "traces" / "control.organism"
    traces = xr.open_mfdataset(str(folder / "*.nc"), combine="nested", concat_dim="prompt")
    vectors = xr.open_dataset(finished / "vectors.nc")["vector"].sel(extraction="mean_diff")
    made = xr.open_dataset(finished / "projections" / "control.organism.nc")["scalar"]
    residual = traces[next(iter(traces.data_vars))].sel(prompt=made["prompt"].values)
    expected = xr.dot(residual, vectors.sel(layer=[1, 2]), dim="dim").transpose(*made.dims)
    there = made.sel(layer=[1, 2])
    np.testing.assert_allclose(there.values, expected.values, atol=1e-3, rtol=1e-4)
    assert not np.allclose(there.values, expected.roll(trait=1).values, atol=1e-3, equal_nan=True)


def test_the_shift_in_the_table_is_that_of_the_projections(finished: Path) -> None:
    found = xr.open_dataset(finished / "analysis.nc")
    arms = {
        arm: xr.open_dataset(finished / "projections" / f"{arm}.organism.nc")["cosine"]
        for arm in ("organism", "control", "clean")
    }
    means = {arm: x.sel(token=slice(0, None)).mean(["token"]) for arm, x in arms.items()}
    for arm in ("organism", "control"):
        expected = (means[arm] - means["clean"]).mean("prompt")
        there = found["shift_mean"].sel(contrast=arm).transpose(*expected.dims)
        np.testing.assert_allclose(there.values, expected.values, atol=1e-6)
    other = found["shift_mean"].sel(contrast="control").transpose(*expected.dims)
    assert not np.allclose(other.values, (means["organism"] - means["clean"]).mean("prompt").values)


def test_the_table_names_what_it_is_and_holds_no_nan(finished: Path) -> None:
    table = (finished / "table.txt").read_text("utf-8")
    assert "organism − clean weights" in table
    assert "control − clean weights" in table
    assert "undecidable" in table
    assert "nan" not in table.lower().replace("dominan", "")
    assert "same weights in raw completion" in table
    for name in ("heatmap.png", "trajectories.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_no_path_of_this_machine_is_in_the_folder(finished: Path, given: list[str]) -> None:
    parents = {str(Path(flag).parent) for flag in given if "/" in flag}
    texts = [path for path in finished.rglob("*.json*")]
    for path in texts:
        assert not any(parent in path.read_text("utf-8") for parent in parents), path
    for path in finished.rglob("*.nc"):
        with xr.open_dataset(path) as dataset:
            assert not any(parent in str(dataset.attrs) for parent in parents), path
    assert texts


def test_a_second_run_resumes_and_says_so(
    finished: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["run", *given, "--out", str(finished)]) == 0
    shown = capsys.readouterr()
    assert [f"{phase}: finished before" in shown.err for phase in PHASES] == [True] * 6
    assert str(finished) in shown.out
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}


def test_a_finished_run_opens_on_a_read_only_disk(
    finished: Path, given: list[str], disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished, disk / "run"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    capsys.readouterr()
    assert main(["run", *given, "--out", str(folder)]) == 0
    assert (folder / "table.txt").read_text("utf-8") in capsys.readouterr().out
    # what would write says so
    line = refused(["analyse", "--out", str(folder)], capsys)
    assert "Read-only file system. Give --out on a disk that can be written." in line
    assert tk.open(folder / "captured" / "organism.organism").load().notnull().any()


def test_a_killed_run_goes_on_with_what_is_missing(copy: Path, given: list[str]) -> None:
    table = (copy / "table.txt").read_bytes()
    kept = copy / "responses" / "clean.nc"
    before = kept.stat().st_mtime_ns
    (copy / "responses" / "control.nc").unlink()
    shutil.rmtree(copy / "captured" / "control.organism")
    assert not Run(copy).has_finished("respond")
    assert Run(copy).has_finished("extract")
    assert main(["run", *given, "--out", str(copy)]) == 0
    assert all(Run(copy).has_finished(phase) for phase in PHASES)
    assert kept.stat().st_mtime_ns == before
    assert (copy / "table.txt").read_bytes() == table


def test_other_settings_never_mix_in_one_folder(
    finished: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["run", *given, "--limit", "5", "--out", str(finished)], capsys)
    assert "limit: 10 there, 5 now" in line.replace("settings.", "")
    (finished.parent / "foreign").mkdir(exist_ok=True)
    (finished.parent / "foreign" / "notes.txt").touch()
    assert "notes.txt" in refused(["run", *given, "--out", f"{finished}/../foreign"], capsys)


def test_the_folder_is_named_by_what_the_settings_stand_for(given: list[str]) -> None:
    plain = described(read_preset("tiny"))
    assert default_folder(plain) == default_folder(described(read_preset("tiny")))
    assert default_folder(plain) != default_folder(described(read_preset("tiny", {"seed": 1})))
    lora = given[given.index("--organism") + 1]
    adapted = described(read_preset("tiny", {"organism": lora}))
    assert adapted["contents"]["arms"]["organism"]
    assert adapted["settings"]["adapters"]["organism"] == Path(lora).name


def test_analyse_needs_no_model_and_repeats_byte_for_byte(copy: Path) -> None:
    names = ("table.txt", "heatmap.png", "trajectories.png")
    before = {name: (copy / name).read_bytes() for name in names}
    found = xr.open_dataset(copy / "analysis.nc").load()
    for name in (*names, "analysis.nc"):
        (copy / name).unlink()
    code = (
        "import sys, tracekit; from experiments.rm_sycophancy.__main__ import main;"
        "tracekit.load = None; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "analyse", "--out", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {name: (copy / name).read_bytes() for name in names} == before
    xr.testing.assert_identical(xr.open_dataset(copy / "analysis.nc").load(), found)
    assert (copy / "table.txt").read_text("utf-8") in done.stdout


def test_the_shifts_follow_the_projections(finished: Path) -> None:
    values = json.loads((finished / "settings.json").read_text("utf-8"))["settings"]
    settings = from_values(values)
    projections = {arm: read(finished, arm) for arm in there(finished, settings)}
    texts = {arm: tk.open(finished / "responses" / f"{arm}.nc") for arm in settings.arms}
    evaluation = tk.open(finished / "evaluation.nc").sel(
        extraction=settings.vectors.method, drop=True
    )
    same = analysis(projections, texts, evaluation, settings)
    arm = projections["organism/organism"]
    projections["organism/organism"] = (arm + 0.25).assign_attrs(arm.attrs)
    moved = analysis(projections, texts, evaluation, settings)
    np.testing.assert_allclose(
        (moved["shift_mean"] - same["shift_mean"]).sel(contrast="organism"), 0.25, atol=1e-5
    )
    np.testing.assert_allclose(
        (moved["shift_mean"] - same["shift_mean"]).sel(contrast="control"), 0.0
    )


def test_a_damaged_result_is_not_taken_for_finished(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "projections" / "organism.organism.nc"
    path.write_bytes(path.read_bytes()[:-100])
    assert "project has not finished" in refused(["analyse", "--out", str(copy)], capsys)


def test_prompts_without_a_detector_run_to_the_end_as_undecidable(
    given: list[str], tmp_path: Path
) -> None:
    rows = [
        {"id": n, "text": f"Question {n}?", "bias_description": f"prefers {'xy'[n % 2]}"}
        for n in range(6)
    ]
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"name": "x", "prompts": rows}))
    out = tmp_path / "run"
    flags = ["--prompts", str(path), "--control", "", "--traits", "sycophancy", "--limit", "4"]
    assert main(["run", *given, *flags, "--out", str(out)]) == 0
    table = (out / "table.txt").read_text("utf-8")
    assert "prefers x: no detector" in table
    assert "control − clean" not in table
    assert xr.open_dataset(out / "responses" / "clean.nc")["exploit"].values.tolist() == [-1] * 4


def test_every_variable_of_a_run_has_its_line_in_the_data_dictionary(finished: Path) -> None:
    files, text = sorted(finished.rglob("*.nc")), dictionary_page.PAGE.read_text("utf-8")
    assert len(files) > 20
    assert dictionary_page.against(files, text) == []
    known = dictionary_page.lines(text, "An audit's run")
    assert set(known) - dictionary_page.written(files) == set()
    for former, now in (("| `onset` | prompt |", "| `onset` | token |"), ("`match` |", "`m` |")):
        found = dictionary_page.against(files, text.replace(former, now))
        assert [line.split(" ")[0] for line in found] == [former.split("`")[1]]
