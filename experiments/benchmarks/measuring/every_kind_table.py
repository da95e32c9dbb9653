"""The table of every model type, each in a process of its own: what is finished is not run again.

A hang or a crash of one type (in transformers too) ends its step alone.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import peft
import torch
import transformers
from transformers.utils import logging

from tests.support.models import tiny_configurations
from tests.support.models.tiny_exceptions import EXCEPTIONS
from tests.support.oracles import every_kind

# seconds of the processor and, for what waits for ever, of the clock
LIMIT, PATIENCE = 60, 900
COLUMNS = ("kind", "lora", "outcome", *every_kind.COLUMNS, "seconds", "reason")
# what is no statement about tracekit, and so no row
NO_ROW = ("not built", "transformers", "peft")
SILENT = ("wrong", "crash", "out of time")


def run(path: Path, kinds: Sequence[str]) -> list[dict[str, str]]:
    """The rows of `path`, completed by the types that it lacks."""
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.is_file() else []
    there = {row["kind"] for row in rows}
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not rows:
            writer.writeheader()
        for kind in kinds:
            if kind in there:
                continue
            for row in step(kind):
                writer.writerow(row)
                file.flush()
                rows.append(row)
                print(" ".join(f"{row[name][:24]}" for name in COLUMNS[:-1]), flush=True)
    return rows


def step(kind: str) -> list[dict[str, str]]:
    """The rows of one type, measured in a forked process within the time limit."""
    start = _cpu_seconds()
    why = EXCEPTIONS.get(kind)
    if isinstance(why, str):
        return [{**every_kind.record(kind, "no", "not built", reason=why), "seconds": "0.0"}]
    with tempfile.TemporaryDirectory() as scratch:
        worker = multiprocessing.get_context("fork").Process(target=_work, args=(kind, scratch))
        worker.start()
        worker.join(PATIENCE)
        late = worker.is_alive()
        if late:
            worker.kill()
            worker.join()
        result = Path(scratch) / "rows.json"
        rows = json.loads(result.read_text("utf-8")) if result.is_file() else []
    if not rows:
        late |= worker.exitcode == -signal.SIGXCPU
        word = "out of time" if late else "crash"
        found = f"nothing within {LIMIT} s" if late else f"the process ended with {worker.exitcode}"
        rows = [every_kind.record(kind, "no", word, reason=found)]
    share = _cpu_seconds() - start
    return [{**row, "seconds": f"{share / len(rows):.1f}"} for row in rows]


def _cpu_seconds() -> float:
    # of the steps, not of the clock: other work on the machine does not change it
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _work(kind: str, scratch: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        rows = every_kind.measure(kind, Path(scratch))
    (Path(scratch) / "part.json").write_text(json.dumps(rows), "utf-8")
    (Path(scratch) / "part.json").rename(Path(scratch) / "rows.json")


def summary(rows: Sequence[dict[str, str]]) -> str:
    """Counts by outcome and minutes, from the saved rows alone."""
    counts = collections.Counter(row["outcome"] for row in rows)
    told = [row for row in rows if row["outcome"] not in NO_ROW]
    minutes = sum(float(row["seconds"]) for row in rows) / 60
    whole = [
        r["kind"] for r in rows if r["outcome"] == "refused whole" and r["residual"][:1].isdigit()
    ]
    lines = [
        f"{len(tiny_configurations.KINDS)} model types, {len({r['kind'] for r in told})} "
        f"of them with {len(told)} rows, in {minutes:.1f} minutes of one core "
        # imported here, before the forks, peft costs its seconds once
        f"(transformers {transformers.__version__}, peft {peft.__version__})",
        *(f"{outcome}: {count}" for outcome, count in sorted(counts.items())),
        f"refused whole although the residual is right: {len(whole)} {' '.join(whole)}",
    ]
    return "\n".join(lines)


def main(path: Path, kinds: Sequence[str] = tiny_configurations.KINDS) -> int:
    """Run what is missing, print the counts; 1 if anything is wrong, broken or late."""
    rows = run(path, kinds)
    text = summary(rows)
    path.with_suffix(".txt").write_text(text + "\n", "utf-8")
    print(text)
    return int(any(row["outcome"] in SILENT for row in rows))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:] or tiny_configurations.KINDS))
