"""Generation with attention by plain products, against torch's kernel and transformers' own way.

    python -m experiments.benchmarks.generating.steps [--rows 64] [--tokens 48] [--dtypes float32]

Arms in one process, paired by round, in another order each round; all generate the same number of
tokens (`min_new_tokens`) after prompts of the general battery. `same rows` have the same text.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring import paired
from tracekit.model.embedded import datasets
from tracekit.model.load import device_of
from tracekit.model.record import origin

RESULTS = Path(__file__).parents[1] / "results"
OURS, RIVAL, PLAIN = "two products", "torch's kernel", "transformers"


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the arms and write `results/steps.md`."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    lines = [
        f"{options.rows} prompts, {options.tokens} new tokens each, greedy.\n",
        "| dtype | arm | seconds | torch's kernel / arm (wall) | (CPU time) | same rows |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    prompts = tk.read_prompts(datasets("prompts", "general_battery.json"))[: options.rows]
    for dtype in options.dtypes:
        model = tk.load(options.model, dtype=dtype)
        ways = arms(model, tk.encode(model, prompts), options.tokens)
        ours, rival = (ways[name]().response.values for name in (OURS, RIVAL))
        same = (ours == rival).mean()
        found = paired.paired(ways, options.rounds)
        for arm in found:
            wall, cpu = (paired.ratio(found, RIVAL, arm, clock) for clock in ("wall", "cpu"))
            alike = f"{same:.0%}" if arm == OURS else ""
            seconds = paired.median(found, arm)
            lines.append(f"| {dtype} | {arm} | {seconds:.2f} | {wall:.2f} | {cpu:.2f} | {alike} |")
    paired.report([*lines, f"\nMedians of {options.rounds} paired rounds."], "steps", options.out)


def arms(model: Any, rows: xr.Dataset, new: int) -> dict[str, Callable[[], Any]]:
    """The three ways; each gives what it generated."""
    inputs = {name: x.to(device_of(model)) for name, x in tk.inputs(rows).items()}
    length: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new}

    def ours() -> xr.Dataset:
        return tk.generate(model, rows, progress=False, **length)

    def before() -> xr.Dataset:
        with as_before(model):
            return ours()

    def plain() -> torch.Tensor:
        pad = model.tokenizer.pad_token_id
        with torch.no_grad():
            return model._module.generate(**inputs, **length, pad_token_id=pad, do_sample=False)

    return {OURS: ours, RIVAL: before, PLAIN: plain}


@contextmanager
def as_before(model: Any) -> Iterator[None]:
    """Inside, the steps of a generation are the model's own."""
    proved = origin(model).proved
    kept = set(proved)
    proved.discard("quick steps")
    proved.add("own steps")
    try:
        yield
    finally:
        proved.clear()
        proved |= kept


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {"rows": 64, "tokens": 48, "rounds": 5, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
