"""A run goes on where it was copied to, and its model may be elsewhere: moved, remote, or gated."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import xarray as xr

from experiments.rm_sycophancy.__main__ import main
from tests.support import audit_runs


@pytest.fixture(scope="module")
def finished(tiny_folder: Path, tiny_lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on this machine."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["run", *audit_runs.flags(tiny_folder, tiny_lora), "--out", str(folder)]) == 0
    return folder


def test_a_copied_folder_goes_on_on_another_machine(
    finished: Path,
    tiny_folder: Path,
    tiny_lora: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = Path(shutil.copytree(finished, tmp_path / "rescued"))
    # what the lost machine had not done yet: the last arm, and all that follows
    for name in ("traces/organism.organism", "captured/organism.clean", "projections"):
        shutil.rmtree(there / name)
    for name in ("table.txt", "analysis.nc"):
        (there / name).unlink()
    kinds = ("contrast", "responses", "traces", "captured")
    done = [path for kind in kinds for path in (there / kind).rglob("*.nc")]
    kept = {path: path.stat().st_mtime_ns for path in done}
    model = Path(shutil.copytree(tiny_folder, tmp_path / "models" / tiny_folder.name))
    lora = Path(shutil.copytree(tiny_lora, tmp_path / "models" / tiny_lora.name))
    capsys.readouterr()
    assert main(["run", *audit_runs.flags(model, lora), "--out", str(there)]) == 0
    said = capsys.readouterr().err
    assert "extract: finished before" in said
    assert "capture: finished before" not in said
    # the edited answers cost no model, and are made with the others
    again = {path.name for path in done if path.stat().st_mtime_ns != kept[path]}
    assert again <= {"deleted.nc", "inserted.nc"}
    assert audit_runs.furthest(audit_runs.arrays(finished), audit_runs.arrays(there)) == 0
    assert (there / "table.txt").read_text() == (finished / "table.txt").read_text()


def test_other_weights_do_not_go_on_in_it(
    finished: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.models import tiny

    there = Path(shutil.copytree(finished, tmp_path / "rescued"))
    other = tiny.build_lora(tiny_folder, tmp_path / "tiny-lora", seed=5)
    assert main(["run", *audit_runs.flags(tiny_folder, other), "--out", str(there)]) == 2
    assert "contents.arms.organism" in capsys.readouterr().err


def test_the_whole_run_travels_as_a_remote_request(
    finished: Path, tiny_folder: Path, tiny_lora: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    given = [*audit_runs.flags(tiny_folder, tiny_lora), "--remote", "local", "--out", str(folder)]
    assert main(["run", *given]) == 0
    here, there = audit_runs.arrays(finished), audit_runs.arrays(folder)
    assert audit_runs.furthest(here, there) <= 1e-5
    here["traces/organism.organism"] = here["traces/clean.organism"]
    assert audit_runs.furthest(here, there) > 1e-3


def test_without_an_organism_there_are_vectors_and_a_clean_arm(
    tiny_folder: Path, tiny_lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    given = [*audit_runs.flags(tiny_folder, tiny_lora), "--organism", "", "--out", str(folder)]
    assert main(["run", *given]) == 0
    made = xr.open_dataset(folder / "projections" / "clean.clean.nc")
    assert made.sizes["layer"] == 4
    assert not (folder / "table.txt").exists()
    assert main(["analyse", *given]) == 2
    assert "nothing to audit" in capsys.readouterr().err


class _Gate(http.server.BaseHTTPRequestHandler):
    """The hub's answer for a gated repository to one who shows no token."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this model is restricted.")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path):
    """The environment of a process whose hub gates everything."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Gate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    yield {
        **kept,
        **audit_runs.environment(),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
    }
    server.shutdown()
    server.server_close()


def test_a_gated_model_without_a_token_says_what_to_do(hub: dict, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.rm_sycophancy", "run", "--preset", "tiny"]
    command += ["--model", "owner/gated", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=hub, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("rm_sycophancy:"))
    assert "owner/gated" in line
    assert "gated" in line.replace("owner/gated", "")
    assert "HF_TOKEN" in line
    assert not (tmp_path / "run").exists()
