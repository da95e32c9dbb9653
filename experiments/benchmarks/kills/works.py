"""The pieces of work that are met by signals: tracekit's own, a search, each phase of the audit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.command import PHASES
from experiments.audit.discovery.__main__ import main as discovery
from experiments.benchmarks.kills.trials import AS_IT_WAS, BENT, POISONED, Work, forked
from experiments.rm_sycophancy.__main__ import main as audit
from tests.support.models import tiny
from tracekit.model.embedded import embedded_model
from tracekit.model.weights import fingerprint

FIRST = ("capture", "generate", "save", "adapter", "discovery")
WORKS = (*FIRST, *(f"audit: {phase}" for phase in PHASES))


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
        "capture": Work(empty, capture, arrays, state),
        "generate": Work(empty, generate, arrays, state),
        "save": Work(older, save, arrays, state),
        "adapter": Work(empty, attach, arrays, state),
        "discovery": Work(empty, search, arrays),
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
        if os.waitpid(forked(partial(run, after)), 0)[1]:
            raise RuntimeError(f"The phase {phase} of the audit failed without any signal.")

        def start(path: Path, so_far: Path = so_far) -> None:
            shutil.copytree(so_far, path)

        made[f"audit: {phase}"] = Work(start, run, arrays)
        so_far = after
    return made


def _spoken(command: Callable[[list[str]], int], arguments: list[str]) -> None:
    """A command whose failure is an exception that says what it printed."""
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
        code = command(arguments)
    if code:
        raise RuntimeError(heard.getvalue()[-400:])


def arrays(folder: Path) -> str:
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
