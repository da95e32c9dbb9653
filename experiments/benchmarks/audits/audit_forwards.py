"""How many tokens an audit forwards, and how long its phases take, beside the code before.

    git worktree add ../before COMMIT
    python -m experiments.benchmarks.audits.audit_forwards --rival ../before --save

A run of the preset in this tree and in the rival's, each in a process of its own, in turn for
`--rounds` rounds (the first round counts too: nothing is kept from one to the next). Tokens are
counted by a hook on the model: those of the ids that went in, without padding. `pairs` are the
tokens of the distinct (weights, text) pairs of the phase `capture`. Both runs' rows are compared:
they can be alike only where both trees ship the same adapters (`datasets/organisms`). With
`--at-once` both run at the same time, on a thread each, so that they meet the same machine: for
one of few processors, whose clock drifts from one run to the next. What ends first runs once more,
uncounted, until the other ends.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PHASES = ("extract", "respond", "capture", "replay", "project", "analyse")
FORWARDED = ("capture", "replay")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, or (with --count) one run of it."""
    options = _parser().parse_args(arguments)
    if options.count:
        options.count.write_text(json.dumps(counted(options.preset, options.out)), "utf-8")
        return
    found: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    with tempfile.TemporaryDirectory() as scratch:
        for n in range(options.rounds):
            trees = {"before": options.rival, "now": ROOT}
            places = {name: Path(scratch, f"{name}-{n}") for name in trees}
            if options.at_once:
                made = _at_once(trees, places, options.preset)
            else:
                made = [_child(t, places[name], options.preset) for name, t in trees.items()]
            for name, run in zip(trees, made, strict=True):
                found[name].append(run)
                print(f"round {n}, {name}: {sum(run['seconds'].values()):.0f} s")
            apart = rows_apart(*(Path(scratch, f"{name}-0", "run") for name in found))
            # what is known so far: a round takes half an hour where the machine is small
            lines = table(options.preset, found, apart)
            print(*lines, sep="\n", flush=True)
    if options.kept:
        from experiments.benchmarks.measuring.paired import report

        report(lines, "audit_forwards", Path(__file__).parents[1] / "results")


def counted(preset: str, folder: Path) -> dict[str, Any]:
    """A whole run in `folder`: tokens forwarded and seconds, by phase; tokens of the pairs."""
    import tracekit as tk
    from experiments.audit import command
    from experiments.audit.run import Run
    from experiments.audit.settings.contents import described
    from experiments.rm_sycophancy.experiment import EXPERIMENT

    settings = EXPERIMENT.preset(preset, {})
    model = tk.load(settings.model.name, dtype=settings.model.dtype)
    tokens = dict.fromkeys(PHASES, 0)
    seconds: dict[str, float] = {}
    doing = [""]

    def note(module: Any, given: Any, named: Mapping[str, Any]) -> None:
        mask, ids = named.get("attention_mask"), named.get("input_ids")
        if mask is not None and ids is not None and doing[0] in FORWARDED:
            # what was read before has columns of the mask too
            tokens[doing[0]] += int(mask[:, -ids.shape[1] :].sum())

    model._module.register_forward_pre_hook(note, with_kwargs=True)
    for phase in PHASES:
        doing[0], begun = phase, time.perf_counter()
        command.audit(EXPERIMENT, settings, described(settings), folder, phase, loaded=model)
        seconds[phase] = time.perf_counter() - begun
    texts = [path.name.split(".")[1] for path in sorted((folder / "captured").iterdir())]
    of = {t: int((tk.open(Run(folder).responses(t)).token_id.values >= 0).sum()) for t in {*texts}}
    return {"tokens": tokens, "seconds": seconds, "pairs": sum(of[text] for text in texts)}


def rows_apart(one: Path, other: Path) -> tuple[int, int, float]:
    """How many rows both runs have, how many of one the other lacks, the largest relative gap."""
    import numpy as np

    import tracekit as tk
    from experiments.audit.evidence.row import from_dataset

    here, there = (
        {(r.section, r.what, r.measure): r for r in from_dataset(tk.open(folder / "rows.nc"))}
        for folder in (one, other)
    )
    shared = [key for key in here if key in there and here[key].decided and there[key].decided]
    values = np.array([[here[key].estimate, there[key].estimate] for key in shared])
    gap = np.abs(values[:, 0] - values[:, 1]) / np.maximum(np.abs(values).max(1), 1e-12)
    return len(shared), len(here.keys() ^ there.keys()), float(gap.max())


def table(
    preset: str, found: Mapping[str, Sequence[Mapping[str, Any]]], apart: tuple[int, int, float]
) -> list[str]:
    """Tokens and median seconds by phase, now against before, and whether the rows agree."""
    lines = [f"# Forwards of the audit, preset {preset}", ""]
    lines += ["| phase | tokens before | now | now / before | s before | s now | now / before |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for phase in PHASES:
        tokens = [found[name][0]["tokens"][phase] for name in ("before", "now")]
        counts = ("–", "–", "–")
        if all(tokens):
            counts = (f"{tokens[0]:,}", f"{tokens[1]:,}", f"{tokens[1] / tokens[0]:.2f}")
        lines.append(f"| {phase} | {' | '.join((*counts, *_times(found, [phase])))} |")
    lines.append(f"| all | – | – | – | {' | '.join(_times(found, PHASES))} |")
    pairs, capture = (found["now"][0][key] for key in ("pairs", "tokens"))
    shared, lone, gap = apart
    return [
        *lines,
        "",
        f"Capture: {capture['capture'] / pairs:.3f} of the {pairs:,} tokens of its (weights, text) "
        f"pairs; before {found['before'][0]['tokens']['capture'] / pairs:.3f}.",
        f"Rows: {shared} decided in both, at most {gap:.1e} apart (relative); {lone} are in one.",
    ]


def _times(
    found: Mapping[str, Sequence[Mapping[str, Any]]], phases: Sequence[str]
) -> tuple[str, str, str]:
    seconds = {name: [sum(r["seconds"][p] for p in phases) for r in found[name]] for name in found}
    pairs = zip(seconds["now"], seconds["before"], strict=True)
    ratio = statistics.median(now / before for now, before in pairs)
    before, now = (statistics.median(seconds[name]) for name in ("before", "now"))
    return f"{before:.1f}", f"{now:.1f}", f"{ratio:.2f}"


def _at_once(
    trees: Mapping[str, Path], places: Mapping[str, Path], preset: str
) -> list[dict[str, Any]]:
    """Both runs at the same time, on a thread each, beside one another to the end."""
    with ThreadPoolExecutor() as pool:
        jobs = {name: pool.submit(_child, trees[name], places[name], preset, 1) for name in trees}
        (first, *_), left = wait(jobs.values(), return_when=FIRST_COMPLETED)
        first.result()
        name = next(name for name, job in jobs.items() if job is first)
        beside = _begun(
            trees[name], places[name].with_name(f"{places[name].name}-beside"), preset, 1
        )
        try:
            wait(left)
        finally:
            beside.kill()
            beside.wait()
        return [job.result() for job in jobs.values()]


def _child(tree: Path, scratch: Path, preset: str, threads: int | None = None) -> dict[str, Any]:
    run = _begun(tree, scratch, preset, threads)
    if run.wait():
        raise subprocess.CalledProcessError(run.returncode, run.args)
    return json.loads((scratch / "count.json").read_text("utf-8"))


def _begun(tree: Path, scratch: Path, preset: str, threads: int | None) -> subprocess.Popen[bytes]:
    scratch.mkdir()
    given = ["--preset", preset, "--count", str(scratch / "count.json")]
    command = [sys.executable, str(Path(__file__)), *given, "--out", str(scratch / "run")]
    # a tree's own packages, and not this folder's modules
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, env=environment, cwd=tree, stdout=subprocess.DEVNULL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rival", type=Path, help="a worktree of the code before")
    add("--preset", default="smollm2")
    add("--rounds", type=int, default=5)
    add("--at-once", action="store_true", help="both at the same time, on a thread each")
    add("--save", dest="kept", action="store_true", help="write the table into the results")
    add("--count", type=Path, help=argparse.SUPPRESS)
    add("--out", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
