"""Lines of twelve tracing tasks here and in two other libraries, and whether values agree.

    python -m experiments.benchmarks.tracing_tasks [--nnterp PYTHON] [--transformer-lens PYTHON]

PYTHON is an interpreter in which that library imports (nnterp 1.3.0 wants nnsight below 0.8); a
library without one is counted, and not run. The model is the embedded one, its adapter
`ten_biases`; every library runs it in float32 on the same texts and directions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from experiments.benchmarks.tracing_tasks import comparing, running
from experiments.benchmarks.tracing_tasks.counting import counted
from experiments.benchmarks.tracing_tasks.given import TASKS
from tracekit.model.embedded import datasets, embedded_model

RESULTS = Path(__file__).parents[1] / "results" / "tracing_tasks.txt"
RIVALS = {"nnterp": "nnterp 1.3.0", "transformer_lens": "TransformerLens 4.3.0"}
LONGEST = 60


def main() -> None:
    """Count, run, compare, print, and write the table."""
    options = _parser().parse_args()
    where = str(embedded_model()), str(datasets("organisms", "ten_biases"))
    here = {}
    for task, result in running.run("tracekit", *where):
        if isinstance(result, Exception):
            raise result
        here[task] = comparing.ours(task, result)
    said = {
        name: _cells(name, getattr(options, name), where, here, options.timeout) for name in RIVALS
    }
    lines = {name: counted(running.source(name)) for name in running.MODULES}
    text = "\n".join(_table(lines, said))
    print(text)
    options.out.write_text(f"{text}\n")


def _cells(
    library: str,
    python: str | None,
    where: tuple[str, str],
    here: dict[str, list[np.ndarray]],
    timeout: float,
) -> dict[str, str]:
    """Of each task, how far a rival's values are from ours, or why they are not there."""
    if python is None:
        return dict.fromkeys(TASKS, "written, not run")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "numbers.npz"
        command = [python, "-m", running.__name__, library, *where, str(out)]
        paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        done = subprocess.run(
            command, env=paths, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["no word"])[-1]
            return dict.fromkeys(TASKS, f"does not run: {why[:LONGEST]}")
        stored = dict(np.load(out))
    return {task: _cell(library, task, here[task], stored) for task in TASKS}


def _cell(library: str, task: str, here: list[np.ndarray], stored: dict[str, np.ndarray]) -> str:
    if f"failed/{task}" in stored:
        return f"failed: {str(stored[f'failed/{task}'])[:LONGEST]}"
    there = comparing.theirs(library, task, comparing.read(stored, task))
    return f"{comparing.apart(task, here, there):.1e}"


def _table(lines: dict[str, dict[str, int]], said: dict[str, dict[str, str]]) -> list[str]:
    longer = [
        f"{TASKS[task]} ({lines['tracekit'][task]} against {lines[name][task]} in {RIVALS[name]})"
        for task in TASKS
        for name in RIVALS
        if lines["tracekit"][task] > lines[name][task]
    ]
    rows = [
        f"{what:62} {lines['tracekit'][task]:8d}"
        + "".join(f" {lines[name][task]:6d} {said[name][task]:>17}" for name in RIVALS)
        for task, what in TASKS.items()
    ]
    sums = {name: sum(of[task] for task in TASKS) for name, of in lines.items()}
    return [
        "Code lines of twelve tracing tasks (formatted to 100 columns; blank lines, comments,",
        "imports and loading not counted), and the largest difference of a rival's values from",
        "ours in parts of the largest value (float32, the embedded model). nnterp runs with",
        "nnsight 0.7; its snippets share a helper (ids of words) that is not counted.",
        "",
        f"{'task':62} {'tracekit':>8}" + "".join(f" {RIVALS[name]:>24}" for name in RIVALS),
        *rows,
        f"{'all':62} {sums['tracekit']:8d}" + "".join(f" {sums[n]:6d} {'':17}" for n in RIVALS),
        "",
        f"Longer here than elsewhere: {'; '.join(longer) or 'none'}.",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in RIVALS:
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="PYTHON")
    parser.add_argument("--timeout", type=float, default=1800)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
