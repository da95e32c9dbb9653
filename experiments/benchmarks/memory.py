"""Resident memory above the model's while capturing, for two numbers of prompts.

    python -m experiments.benchmarks.memory --scratch /tmp [--prompts 500 2000]

200 tokens a prompt, all kept, at the embedded model's width (576) and default budget. The random
model has thin MLPs, so that the forward is cheap: what is measured is what capture holds. Each
size runs in a process of its own, sampled every 20 ms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import tracekit as tk
from experiments.benchmarks.paired import report
from tracekit.resources import embedded_model


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--prompts", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--scratch")
    parser.add_argument("--out", default="results/benchmarks")
    settings = parser.parse_args(arguments)
    lines = [f"# Memory: prompts of 200 tokens, {settings.depth} layers × 576, to disk", ""]
    lines += ["| prompts | GB above the model's, at most | GB written |", "| --- | --- | --- |"]
    for prompts in settings.prompts:
        with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
            peak, size = _apart(prompts, settings.depth, scratch)
        lines.append(f"| {prompts} | {peak / 1e9:.2f} | {size / 1e9:.2f} |")
    report(
        [*lines, "", "wanted: ≤ 1 GB, and no more at the larger number"],
        "memory",
        Path(settings.out),
    )


def _apart(prompts: int, depth: int, scratch: str) -> list[int]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_measured, args=(prompts, depth, scratch, sender))
    process.start()
    sender.close()
    answer = json.loads(receiver.recv())
    process.join()
    return answer


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


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
