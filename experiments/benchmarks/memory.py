"""Resident memory above the model's while capturing: two numbers of prompts, or many captures.

    python -m experiments.benchmarks.memory --scratch /tmp [--prompts 500 2000]
    python -m experiments.benchmarks.memory --captures 100

200 tokens a prompt, all kept, at the embedded model's width (576) and default budget. The random
model has thin MLPs, so that the forward is cheap: what is measured is what capture holds. Each
size runs in a process of its own, sampled every 20 ms. With `--captures`, the embedded model reads
four texts of 100 tokens that often in one process, with Python's collector off; the first five
captures are where memory is flat from. There it is the process's own memory: pages of the weights'
file come and go as the kernel likes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import tracekit as tk
from experiments.benchmarks.measuring import peak
from experiments.benchmarks.measuring.paired import report
from tracekit.model.embedded import embedded_model

WARM = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--prompts", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--captures", type=int)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--scratch")
    parser.add_argument("--out", default="results/benchmarks")
    settings = parser.parse_args(arguments)
    if settings.captures:
        report(_repeated(settings.captures), "memory_captures", Path(settings.out))
        return
    lines = [f"# Memory: prompts of 200 tokens, {settings.depth} layers × 576, to disk", ""]
    lines += ["| prompts | GB above the model's, at most | GB written |", "| --- | --- | --- |"]
    for prompts in settings.prompts:
        with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
            above, size = peak.apart(_measured, prompts, settings.depth, scratch)
        lines.append(f"| {prompts} | {above / 1e9:.2f} | {size / 1e9:.2f} |")
    report(
        [*lines, "", "wanted: ≤ 1 GB, and no more at the larger number"],
        "memory",
        Path(settings.out),
    )


def _repeated(captures: int) -> list[str]:
    model = tk.load("smollm2-135m-instruct")
    runs = tk.encode(model, [f"{n}" + " a" * 99 for n in range(4)], template="raw")
    gc.disable()
    resident = []
    for _ in tqdm(range(captures), unit="capture"):
        tk.capture(model, runs, tokens="all", progress=False)
        resident.append(_own())
    flat = resident[min(WARM, captures) - 1]
    rise = [(n, (resident[n - 1] - flat) / 1e6) for n in (10, 20, 50, captures) if n <= captures]
    lines = [f"# Memory: {captures} captures of the embedded model, the collector off", ""]
    lines += ["| captures | MB above the first five |", "| --- | --- |"]
    lines += [f"| {n} | {above:.1f} |" for n, above in dict(rise).items()]
    return [*lines, "", f"at most {(max(resident) - flat) / 1e6:.1f} MB; wanted: ≤ 20 MB"]


def _measured(prompts: int, depth: int, scratch: str, sender: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=576,
        intermediate_size=64,
        num_hidden_layers=depth,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    model = tk.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer, check=False)
    words = " a" * 199
    runs = tk.encode(model, [f"{n % 10}" + words for n in range(prompts)], template="raw")
    few = runs.isel(prompt=slice(4))
    tk.capture(model, few, tokens="all", path=Path(scratch) / "first", progress=False)
    before, peaks = _resident(), [0]
    threading.Thread(target=_watch, args=(peaks,), daemon=True).start()
    tk.capture(model, runs, tokens="all", path=Path(scratch) / "all", progress=False)
    size = sum(path.stat().st_size for path in Path(scratch, "all").glob("*.nc"))
    sender.send(json.dumps([int(np.max(peaks)) - before, size]))


def _watch(peaks: list[int]) -> None:
    while True:
        peaks[0] = max(peaks[0], _resident())
        time.sleep(0.02)


def _own() -> int:
    ctypes.CDLL(None).malloc_trim(0)  # what is free, but kept by the allocator, is not held
    return peak.resident("RssAnon")


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
