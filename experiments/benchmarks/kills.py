"""Work that is killed or interrupted at a random moment, and goes on: nothing lost, nothing bent.

    python -m experiments.benchmarks.kills [--count 1000] [--seed 0] [--work capture,save] [--save]

A forked process does a piece of work on a tiny random model (generate, capture to a folder, save
over an older file, attach an adapter, search its habits, each phase of the audit) and meets
SIGKILL, SIGINT, SIGTERM or SIGHUP at a random moment. Another then does the same work in the same
place; what is there afterwards has to be what an uninterrupted run leaves, bit for bit. A process
that meets SIGINT lives on and has to find its model as it was (the same weights, the same
log-probabilities without an adapter), or a model that says itself that it is not. The table goes
to `results/kills.txt`.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

import tracekit as tk
from experiments.audit.command import PHASES
from experiments.audit.discovery.__main__ import main as discovery
from experiments.rm_sycophancy.__main__ import main as audit
from tests.support.models import tiny
from tracekit.model.embedded import embedded_model
from tracekit.model.weights import fingerprint

SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP")
FIRST = ("capture", "generate", "save", "adapter", "discovery")
WORKS = (*FIRST, *(f"audit: {phase}" for phase in PHASES))
# the short ones more often
WEIGHTS = {"capture": 8, "generate": 4, "save": 8, "adapter": 4, "discovery": 2}
OUTCOMES = ("identical", "finished before", "poisoned", "different", "failed", "state bent")
RESULTS = Path(__file__).parent / "results"
WRONG = OUTCOMES[3:]
AS_IT_WAS, POISONED, BENT = 10, 11, 12
# seconds after which a process says where it hangs, and ends
HANGS = 240


@dataclass(frozen=True)
class Work:
    """`run` does it in a folder that `start` made; `held` is what it left there.

    `state` says, in a process whose work was interrupted, how its model is: an exit status.
    """

    start: Callable[[Path], None]
    run: Callable[[Path], None]
    held: Callable[[Path], str]
    state: Callable[[], int] = lambda: AS_IT_WAS


def works(place: Path, names: Sequence[str] = WORKS) -> dict[str, Work]:
    """The pieces of work of these names, on one tiny model.

    Those of the audit take the phases before them first.
    """
    folder = tiny.build("Llama", place / "model", embedded_model())
    loras = [tiny.build_lora(folder, place / f"lora{seed}", seed=seed) for seed in (0, 1)]
    model = tk.load(folder, dtype="float32")
    words = ["word " * (3 * n % 17 + 1) for n in range(6)]
    runs = tk.encode(model, [f"Prompt {n}" for n in range(6)], responses=words)
    asked = tk.encode(model, [f"Question {n}" for n in range(2)])
    clean = tk.logprobs(model, runs).values
    # the base's own: an adapter that is off stays attached
    bare = dict(model._module.named_parameters())
    before = fingerprint(bare)

    def state() -> int:
        try:
            found = tk.logprobs(model, runs).values
        except RuntimeError as error:
            return POISONED if "no known state" in str(error) else BENT
        except Exception:
            return BENT
        same = fingerprint(bare) == before
        return AS_IT_WAS if same and np.array_equal(found, clean, equal_nan=True) else BENT

    def capture(path: Path) -> None:
        tk.capture(model, runs, path=path / "traces", token_budget=40, progress=False)

    def generate(path: Path) -> None:
        made = tk.generate(model, asked, max_new_tokens=8, progress=False)
        tk.save(made, path / "runs.nc")

    def save(path: Path) -> None:
        tk.save(tk.logprobs(model, runs), path / "saved.nc")

    def attach(path: Path) -> None:
        kept = []
        for lora in (*loras, loras[0]):
            with tk.adapter(model, lora):
                kept.append(tk.logprobs(model, runs).assign_coords(adapter=lora.name))
        tk.save(xr.concat(kept, "adapter", combine_attrs="override"), path / "adapters.nc")

    def search(path: Path) -> None:
        some = ["--model", str(folder), "--limit", "12", "--tokens", "6", "--prefills", "2"]
        _spoken(discovery, [str(loras[0]), *some, "--benign", str(loras[1]), "--out", str(path)])

    def older(path: Path) -> None:
        path.mkdir()
        tk.save(tk.logprobs(model, runs) * 0, path / "saved.nc")

    def empty(path: Path) -> None:
        path.mkdir()

    made = {
        "capture": Work(empty, capture, _arrays, state),
        "generate": Work(empty, generate, _arrays, state),
        "save": Work(older, save, _arrays, state),
        "adapter": Work(empty, attach, _arrays, state),
        "discovery": Work(empty, search, _arrays),
    }
    deepest = max((WORKS.index(name) for name in names), default=0) - len(made)
    made |= _phases(place, folder, loras[0], PHASES[: deepest + 1])
    return {name: made[name] for name in names}


def _phases(place: Path, model: Path, organism: Path, phases: Sequence[str]) -> dict[str, Work]:
    """Each phase of the audit, begun in a copy of what those before it left."""
    some = ["--preset", "tiny", "--model", str(model), "--organism", str(organism)]
    some += ["--control", "", "--limit", "20", "--max-new-tokens", "6"]
    made: dict[str, Work] = {}
    so_far = place / "nothing"
    so_far.mkdir()
    for phase in phases:
        after = place / f"after {phase}"
        shutil.copytree(so_far, after)

        def run(path: Path, phase: str = phase) -> None:
            _spoken(audit, [phase, *some, "--out", str(path)])

        # not here: a fork of a process with other threads may wait for them for ever
        if os.waitpid(_forked(partial(run, after)), 0)[1]:
            raise RuntimeError(f"The phase {phase} of the audit failed without any signal.")

        def start(path: Path, so_far: Path = so_far) -> None:
            shutil.copytree(so_far, path)

        made[f"audit: {phase}"] = Work(start, run, _arrays)
        so_far = after
    return made


def _spoken(command: Callable[[list[str]], int], arguments: list[str]) -> None:
    """A command whose failure is an exception that says what it printed."""
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
        code = command(arguments)
    if code:
        raise RuntimeError(heard.getvalue()[-400:])


def _arrays(folder: Path) -> str:
    """A hash of every array under a folder, and of the table; no half-written file may be left."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(".part"):
            whole.update(path.name.encode())
        elif path.suffix == ".nc":
            whole.update(str(path.relative_to(folder)).encode())
            with xr.open_dataset(path, engine="netcdf4") as found:
                for name in sorted(map(str, found.variables)):
                    values = found[name].values
                    raw = repr(values.tolist()) if values.dtype == object else values.tobytes()
                    whole.update(name.encode() + (raw if isinstance(raw, bytes) else raw.encode()))
        elif path.name == "table.txt":
            whole.update(path.read_bytes())
    return whole.hexdigest()


def trial(work: Work, name: str, moment: float, path: Path, expected: str) -> str:
    """One piece of work met by one signal, then done again: what came of it."""
    work.start(path)
    child = _forked(lambda: work.run(path), work.state)
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, getattr(signal, name))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == BENT:
        return "state bent"
    again = _forked(lambda: _same(work, path, expected))
    code = os.waitstatus_to_exitcode(os.waitpid(again, 0)[1])
    if code:
        return "different" if code == 2 else "failed"
    if status == POISONED:
        return "poisoned"
    return "finished before" if status == 0 else "identical"


def _same(work: Work, path: Path, expected: str) -> None:
    work.run(path)
    if work.held(path) != expected:
        os._exit(2)


def _forked(run: Callable[[], Any], state: Callable[[], int] = lambda: AS_IT_WAS) -> int:
    # a signal that comes before the child is ready waits until it is
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return child
    try:
        faulthandler.dump_traceback_later(HANGS, exit=True)
        # tqdm's own is shared with every fork, and one that is killed while it holds it keeps it
        tqdm.set_lock(threading.RLock())
        for name in ("SIGTERM", "SIGHUP"):  # a job in the background may have them ignored
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            run()
            os._exit(0)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os._exit(state())
    except BaseException:  # a forked process must not go on in its parent's code
        traceback.print_exc()
    os._exit(1)


def table(counts: Mapping[tuple[str, str], Counter[str]]) -> list[str]:
    """The counts as lines: a row for each work and signal, and their sum."""
    lines = [f"| work | signal | {' | '.join(OUTCOMES)} |", "|" + " --- |" * (len(OUTCOMES) + 2)]
    whole = sum(counts.values(), Counter())
    for (name, sent), found in [*sorted(counts.items()), (("all", ""), whole)]:
        cells = " | ".join(str(found[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {name} | {sent.removeprefix('SIG')} | {cells} |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the trials asked for; 1 if any result was different, failed or bent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", help="names between commas (default: all)")
    parser.add_argument("--save", action="store_true", help="write results/kills.txt")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a forked process has no other threads
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        names = options.work.split(",") if options.work else list(WORKS)
        every = works(place, names)
        counts: dict[tuple[str, str], Counter[str]] = {}
        measured = {name: _measured(every[name], place / f"whole {name}") for name in names}
        weights = np.array([WEIGHTS.get(name, 1) for name in names])
        for number in range(options.count):
            name = str(rng.choice(names, p=weights / weights.sum()))
            sent = SIGNALS[number % len(SIGNALS)]
            expected, seconds = measured[name]
            path = place / f"trial{number}"
            moment = float(rng.uniform(0, seconds))
            came = trial(every[name], sent, moment, path, expected)
            counts.setdefault((name, sent), Counter())[came] += 1
            if came in WRONG:
                print(f"{name}, {sent} after {moment:.2f} s: {came}", flush=True)
            shutil.rmtree(path, ignore_errors=True)
            if number % 50 == 49 and options.save:
                _save(counts, number + 1, options)
    print("\n".join(table(counts)))
    if options.save:
        _save(counts, options.count, options)
    whole = sum(counts.values(), Counter())
    return int(any(whole[outcome] for outcome in WRONG))


def _save(
    counts: Mapping[tuple[str, str], Counter[str]], done: int, options: argparse.Namespace
) -> None:
    """The table so far: a run of an hour that is ended early has said what it saw."""
    about = f"python -m experiments.benchmarks.kills --count {options.count} --seed {options.seed}"
    lines = [about, "", f"{done} of {options.count} done", "", *table(counts), ""]
    (RESULTS / "kills.txt").write_text("\n".join(lines))


def _measured(work: Work, path: Path) -> tuple[str, float]:
    """What an uninterrupted run leaves, and how long it takes."""
    work.start(path)
    begun = time.monotonic()
    child = _forked(lambda: work.run(path))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise RuntimeError(f"{path.name} ended with {status} without any signal.")
    return work.held(path), time.monotonic() - begun


if __name__ == "__main__":
    sys.exit(main())
