"""Capture at Llama-3.3-70B's true shape, without its weights: random nf4 blocks, a random LoRA.

    python -m experiments.benchmarks.llama70b --scratch /tmp        # one card of 80 GB
    python -m experiments.benchmarks.llama70b --layers 12 --hidden 1024 --vocabulary 49152 \
        --rank 32 --prompts 4 --rounds 3                            # a CPU

Prompts of 100 and responses of 100 tokens; layers 40 to 60 (the same part of fewer) in full to
disk, nine projections at every layer, adapter on and off; against the bare forward through the
last of those layers, and against forward hooks on the whole model with one .pt a prompt. Ratios
are medians over rounds that run every arm once. Responses are given, not generated; one more row
times a generation of the batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from transformers import AutoTokenizer

import tracekit as tk
from experiments.benchmarks.capture import BARE, DISK, FULL, PLAN, PROJECTED, Bench
from experiments.benchmarks.measuring import peak
from experiments.benchmarks.measuring.paired import Timing, median, paired, ratio, report
from experiments.benchmarks.measuring.random_llama import build, configuration, write_lora
from tracekit.model.embedded import embedded_model
from tracekit.transcripts import tensors

OFF = f"{DISK}, adapter off"
WINDOW = (40 / 80, 60 / 80)
RATIOS = ((DISK, BARE), (OFF, BARE), (PROJECTED, FULL), (PLAN, DISK))


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, measure, and write `<out>/llama70b.md`."""
    settings = _settings(arguments)
    config = configuration(settings.layers, settings.hidden, settings.vocabulary)
    with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
        peak.reset()
        tokenizer = AutoTokenizer.from_pretrained(embedded_model())
        model = tk.load(build(config, settings.dtype), tokenizer=tokenizer, check=False)
        held = {"weights": peak.peak()}
        lora = write_lora(config, settings.rank, Path(scratch) / "lora")
        runs = transcripts(model, settings.prompts, settings.asked, settings.said)
        peak.reset()
        with tk.adapter(model, str(lora)):
            held["attaching the adapter"] = peak.peak()
            timings = measured(model, runs, Path(scratch), settings, held)
            speed = generation(model, runs, settings.said, held)
    lines = table(settings, runs, timings, held)
    report([*lines, "", speed, "", f"Command: {command(settings)}"], "llama70b", Path(settings.out))


def transcripts(model: Any, prompts: int, asked: int, said: int) -> xr.Dataset:
    """Prompts of `asked` tokens with responses of `said` tokens, all different.

    >>> transcripts(model, 2, 100, 100).sizes["token"]
    200
    """
    texts = [f"{n % 10}" + " a" * (asked - 1) for n in range(prompts)]
    return tk.encode(model, texts, [" b" * said] * prompts, template="raw")


def measured(
    model: Any, runs: xr.Dataset, scratch: Path, settings: argparse.Namespace, held: dict[str, int]
) -> dict[str, list[Timing]]:
    """The timings of every arm with the adapter on; `held` gets each one's peak memory."""
    first, last = (round(part * settings.layers) for part in WINDOW)
    layers = list(range(first, min(last, settings.layers - 1) + 1))
    bench = Bench(model, runs, layers, scratch, settings.budget)

    def off() -> None:
        with tk.adapter(model, None):
            bench.disk()

    arms = {**bench.arms(), OFF: off}
    for name, arm in arms.items():
        peak.reset()
        arm()
        held[name] = peak.peak()
    return paired(arms, settings.rounds)


def generation(model: Any, runs: xr.Dataset, count: int, held: dict[str, int]) -> str:
    """Tokens a second of one greedy generation from the prompts, in words."""
    asked = runs.sel(token=slice(None, -1))
    peak.reset()
    begun = time.perf_counter()
    said = tk.generate(model, asked, max_new_tokens=count, progress=False)
    tokens = int((tensors.lengths(said) - tensors.lengths(asked)).sum())
    held["generation"] = peak.peak()
    seconds = time.perf_counter() - begun
    return f"generation: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:,.1f} tokens/s"


def table(
    settings: argparse.Namespace,
    runs: xr.Dataset,
    timings: Mapping[str, list[Timing]],
    held: Mapping[str, int],
) -> list[str]:
    """The report's lines."""
    tokens = int(tensors.lengths(runs).sum())
    lines = [
        f"# Capture on a random Llama: {settings.layers} blocks × {settings.hidden:,}, "
        f"{settings.dtype}, LoRA of rank {settings.rank}; {settings.prompts} prompts of "
        f"{settings.asked} + {settings.said} tokens",
        "",
        "| | seconds | tokens/s | peak GB |",
        "| --- | --- | --- | --- |",
    ]
    for name, size in held.items():
        took = f"{median(timings, name):.2f}" if name in timings else ""
        speed = f"{tokens / median(timings, name):,.0f}" if name in timings else ""
        lines.append(f"| {name} | {took} | {speed} | {size / 1e9:.2f} |")
    lines += ["", "| ratio | wall | cpu |", "| --- | --- | --- |"]
    for arm, rival in RATIOS:
        wall, cpu = (ratio(timings, arm, rival, clock) for clock in ("wall", "cpu"))
        lines.append(f"| {arm} / {rival} | {wall:.3f} | {cpu:.3f} |")
    return lines


def command(settings: argparse.Namespace) -> str:
    """What gave this table.

    >>> command(_settings(["--layers", "4"]))[:60]
    '`python -m experiments.benchmarks.llama70b --layers 4 --hidden'
    """
    kept = {k: v for k, v in vars(settings).items() if k not in ("out", "scratch") and v}
    return (
        "`python -m experiments.benchmarks.llama70b "
        + " ".join(f"--{key} {value}" for key, value in kept.items())
        + "`"
    )


def _settings(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    numbers = {"layers": 80, "hidden": 8192, "vocabulary": 128256, "rank": 256}
    numbers |= {"prompts": 32, "asked": 100, "said": 100, "rounds": 5}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="nf4", help="nf4, bfloat16 or float32")
    parser.add_argument("--budget", type=int, help="tokens a batch (default: capture's own)")
    parser.add_argument("--scratch", help="the folder on whose disk captures are written")
    parser.add_argument("--out", default="results/benchmarks")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
