"""Four samples of a long prompt, against four generations and against transformers' own way.

    python -m experiments.benchmarks.generating.samples [--model MODEL] [--rounds 5]

Arms in one process, paired by round, in another order each round; all generate the same number of
tokens (`min_new_tokens`). A prompt is the prompts of the battery, one after another, up to the
tokens asked for. That nothing else is said is shown by greedy rows: each prompt four
times in one batch, which shares its forward, against once alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring import paired
from tracekit.errors import InputError
from tracekit.model.embedded import datasets
from tracekit.model.load import device_of

RESULTS = Path(__file__).parents[1] / "results"
SAMPLES, OURS, RIVAL, PLAIN = 4, "four samples", "four generations", "transformers, 4 sequences"


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the arms and write `results/samples.md`."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = tk.load(options.model)
    rows = prompts(model, options.prompts, options.asked)
    found = paired.paired(arms(model, rows, options.tokens), options.rounds)
    same, count = equal(model, rows, options.tokens)
    lines = [
        f"{options.prompts} prompts of {options.asked} tokens, {SAMPLES} samples of "
        f"{options.tokens} new tokens each.\n",
        "| arm | seconds | four generations / arm (wall) | (CPU time) |",
        "| --- | --- | --- | --- |",
    ]
    for arm in found:
        wall, cpu = (paired.ratio(found, RIVAL, arm, clock) for clock in ("wall", "cpu"))
        lines.append(f"| {arm} | {paired.median(found, arm):.2f} | {wall:.2f} | {cpu:.2f} |")
    lines += ["", f"Greedy rows with the ids of a generation alone: {same} of {count}."]
    paired.report([*lines, f"Medians of {options.rounds} paired rounds."], "samples", options.out)


def prompts(model: Any, count: int, tokens: int) -> xr.Dataset:
    """`count` raw texts of about `tokens` tokens.

    Errors: `ValueError` where the battery has fewer.
    """
    texts = [prompt.conversation()[-1][1] for prompt in tk.read_prompts(_battery())]
    ids = model.tokenizer(" ".join(texts), add_special_tokens=False)["input_ids"]
    if len(ids) < count * tokens:
        raise InputError(f"{count} × {tokens} tokens were asked for; the battery has {len(ids)}.")
    parts = [ids[n * tokens : (n + 1) * tokens] for n in range(count)]
    return tk.encode(model, [model.tokenizer.decode(part) for part in parts], template="raw")


def arms(model: Any, rows: xr.Dataset, new: int) -> dict[str, Callable[[], object]]:
    """The three ways."""
    length = {"max_new_tokens": new, "min_new_tokens": new}
    how: dict[str, Any] = {**length, "temperature": 1.0, "progress": False}
    inputs = {name: x.to(device_of(model)) for name, x in tk.inputs(rows).items()}
    drawn: dict[str, Any] = {"do_sample": True, "top_k": 0, "num_return_sequences": SAMPLES}

    def plain() -> None:
        pad = model.tokenizer.pad_token_id
        with torch.no_grad():
            model._module.generate(**inputs, **length, pad_token_id=pad, **drawn)

    return {
        RIVAL: lambda: [tk.generate(model, rows, seed=n, **how) for n in range(SAMPLES)],
        OURS: lambda: tk.generate(model, rows, samples=SAMPLES, **how),
        PLAIN: plain,
    }


def equal(model: Any, rows: xr.Dataset, new: int) -> tuple[int, int]:
    """How many greedy rows of a batch with each prompt four times are those of one alone."""
    order = np.repeat(np.arange(rows.sizes["prompt"]), SAMPLES)
    names = [f"p{n}" for n in range(len(order))]
    many = rows.isel(prompt=order).assign_coords(prompt=names)
    alone, shared = (
        tk.generate(
            model, some, max_new_tokens=new, min_new_tokens=new, progress=False
        ).token_id.values
        for some in (rows, many)
    )
    return int((alone[order] == shared).all(1).sum()), len(order)


def _battery() -> Path:
    return datasets("prompts", "general_battery.json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = {"prompts": 4, "asked": 400, "tokens": 32, "rounds": 5, "threads": 2}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
