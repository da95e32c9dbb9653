"""Kill captures with SIGKILL at random moments until enough died; run by test_resume.

python tests/support/killed.py MODEL_FOLDER OUT_FOLDER KILLS
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from tqdm import tqdm

import tracekit as tk
from tracekit.passes import batching


def main(folder: str, out: str, kills: int) -> None:
    torch.set_num_threads(1)  # a forked child has no other threads
    batching.SOON = 0  # a file a batch: most places to be killed at
    # tqdm's own is shared with every fork, and one that is killed while it holds it keeps it
    tqdm.set_lock(threading.RLock())
    model = tk.load(folder, dtype="float32", check=False)
    words = ["word " * (3 * n % 17 + 1) for n in range(12)]
    runs = tk.encode(model, [f"Prompt {n}" for n in range(12)], responses=words)

    def capture(path: Path) -> xr.DataArray:
        return tk.capture(model, runs, path=path, token_budget=40, progress=False)

    expected = capture(Path(out) / "whole").compute()
    planned = len(list((Path(out) / "whole").glob("*.nc")))
    begun = time.monotonic()  # the first trace of a process is slower
    capture(Path(out) / "again")
    whole, rng = time.monotonic() - begun, np.random.default_rng(0)
    landed, resumed, number = 0, 0, 0
    while landed < kills:
        path = Path(out) / str(number)
        child = os.fork()
        if child == 0:
            capture(path)
            os._exit(0)
        time.sleep(rng.uniform(0, 0.7 * whole))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        shards = len(list(path.glob("*.nc")))
        if os.WIFSIGNALED(status) and 0 < shards < planned:
            landed += 1
            resumed += shards
            print(f"kill {landed}: {shards} shards", file=sys.stderr, flush=True)
            if landed % 4:
                continue
        xr.testing.assert_identical(capture(path).compute(), expected)
        assert not list(path.glob(".*.part"))
        number += 1
    path = Path(out) / str(number)
    xr.testing.assert_identical(capture(path).compute(), expected)
    print(f"{landed} kills, {resumed} shards found again")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
