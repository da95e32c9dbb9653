"""How long until the first answer: opening a file, help, loading a model; beside the plain way.

    python -m experiments.benchmarks.start

Each arm is a fresh interpreter, once a round in turn (median of 7 rounds, ratios within rounds, on
the wall clock, and by the interpreters' CPU time, which a busy machine disturbs less):
`tracekit.open` of a projections file beside `xarray.open_dataset`, `tracekit --help` beside
`python -c pass`, `tracekit.load` of the embedded model beside nnsight's own class; and each of
these two with a first trace of four tokens, before which tracekit proves the model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring.paired import median, paired, ratio, report
from tracekit.model.embedded import EMBEDDED, embedded_model

RIVALS = {
    "tracekit.open": "xarray.open_dataset",
    "tracekit --help": "python -c pass",
    "tracekit.load": "nnsight",
    "tracekit.load, a trace": "nnsight, a trace",
    "tracekit.load(check=False), a trace": "nnsight, a trace",
}
TRACE = """
import torch
with model.trace(torch.tensor([[5, 42, 79, 116]])):
    logits = model.output.logits.save()
"""


def main() -> None:
    """Print the table and keep it as `start.md`."""
    options = _parser().parse_args()
    busy = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        codes = arms(projections(Path(folder)), embedded_model())
        timings = paired({name: _fresh(code) for name, code in codes.items()}, options.rounds)
    head = "| | median s | rival | median s | ratio | ratio of CPU time |"
    lines = [head, "| --- | --- | --- | --- | --- | --- |"]
    for arm, rival in RIVALS.items():
        seconds = f"{median(timings, arm):.2f} | {rival} | {median(timings, rival):.2f}"
        ratios = (ratio(timings, arm, rival, clock) for clock in ("wall", "cpu"))
        lines.append(f"| {arm} | {seconds} | {' | '.join(f'{one:.2f}' for one in ratios)} |")
    busy.append(os.getloadavg()[0])
    lines.append("\nLoad average {:.1f} at the beginning, {:.1f} at the end.".format(*busy))
    report(lines, "start", options.out)


def arms(file: Path, model: Path) -> dict[str, str]:
    """What each fresh interpreter runs."""
    settings = f"{str(model)!r}, task='text-generation', dispatch=True"
    plain = f"import nnsight; model = nnsight.TransformersModel({settings})"
    ours = f"import tracekit; model = tracekit.load({EMBEDDED!r}"
    return {
        "tracekit.open": f"import tracekit; tracekit.open({str(file)!r})",
        "xarray.open_dataset": f"import xarray; xarray.open_dataset({str(file)!r})",
        "tracekit --help": "from experiments.command_line.main import main; main(['--help'])",
        "python -c pass": "pass",
        "tracekit.load": f"{ours})",
        "tracekit.load, a trace": f"{ours}){TRACE}",
        "tracekit.load(check=False), a trace": f"{ours}, check=False){TRACE}",
        "nnsight": plain,
        "nnsight, a trace": f"{plain}{TRACE}",
    }


def projections(folder: Path) -> Path:
    """A file of projections as an audit of the embedded model keeps them: 55 answers, 9 traits."""
    sizes = {"prompt": 55, "token": 130, "layer": 30, "trait": 9}
    values = np.random.default_rng(0).normal(size=tuple(sizes.values())).astype(np.float32)
    coordinates = {
        "prompt": [f"p/{n}" for n in range(55)],
        "token": range(-30, 100),
        "layer": range(30),
        "trait": [f"t/{n}" for n in range(9)],
    }
    array = xr.DataArray(values, dims=tuple(sizes), coords=coordinates, name="projection")
    return tk.save(tk.stamp(array, {"weights": "none", "ids": "none"}), folder / "projections.nc")


def _fresh(code: str) -> Callable[[], object]:
    command = [sys.executable, "-c", code]
    return lambda: subprocess.run(command, check=True, capture_output=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser


if __name__ == "__main__":
    main()
