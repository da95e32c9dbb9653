"""What steering costs: against plain `transformers.generate`, and a sweep against one by one.

    python -m experiments.benchmarks.steering overhead [--model MODEL] [--rounds 5]
    python -m experiments.benchmarks.steering sweep

Arms in one process, paired by round, in another order each round. All generate the same number of
tokens (end-of-turn is switched off), so that a steered answer that ends early is no gain.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring import paired
from tracekit.model.load import device_of
from tracekit.passes.generating.strength import residual_norm, sweep
from tracekit.transcripts.prompts import take

RESULTS = Path(__file__).parent / "results"
PROMPTS, MULTIPLES = 16, (-0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4)


def main() -> None:
    """Time the arms of one question and write `results/steering_<question>.md`."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    model = tk.load(options.model)
    model._module.generation_config.eos_token_id = None
    rows = take(tk.read_prompts("datasets/prompts/embedded_calibration.json"), PROMPTS)
    asked = tk.encode(model, rows)
    layer = len(model.layers) // 2
    vector = _direction(model, layer)
    norm = residual_norm(model, asked, [layer]).item()
    arms, table = {"overhead": (_arms, _overhead), "sweep": (_sweeps, _swept)}[options.question]
    found = paired.paired(arms(model, asked, vector, norm, options.tokens), options.rounds)
    lines = [*table(found, options.tokens), f"Medians of {options.rounds} paired rounds."]
    paired.report(lines, f"steering_{options.question}", options.out)


def _arms(
    model: Any, asked: xr.Dataset, vector: xr.DataArray, norm: float, new: int
) -> dict[str, Callable[[], object]]:
    everywhere = range(len(model.layers))
    edited = {
        "tracekit, unedited": model,
        "steer, one layer": tk.steer(model, vector, coefficient=0.1 * norm),
        "ablate, every layer": tk.ablate(model, vector, layers=everywhere, tokens="all"),
    }
    budget = 1 << 20  # one batch, as the plain arm has
    ours = {
        name: lambda m=m: tk.generate(
            m, asked, max_new_tokens=new, token_budget=budget, progress=False
        )
        for name, m in edited.items()
    }
    return {"transformers.generate": lambda: _plain(model, asked, new), **ours}


def _plain(model: Any, asked: xr.Dataset, new: int) -> torch.Tensor:
    inputs = {name: x.to(device_of(model)) for name, x in tk.inputs(asked).items()}
    with torch.no_grad():
        return model._module.generate(
            **inputs, max_new_tokens=new, do_sample=False, pad_token_id=model.tokenizer.pad_token_id
        )


def _sweeps(
    model: Any, asked: xr.Dataset, vector: xr.DataArray, norm: float, new: int
) -> dict[str, Callable[[], object]]:
    few = asked.isel(prompt=slice(0, 8))
    values = [multiple * norm for multiple in MULTIPLES]
    rows = sweep(few, values)
    settings: dict[str, Any] = {"max_new_tokens": new, "token_budget": 1 << 20, "progress": False}

    def one_by_one() -> None:
        for value in values:
            tk.generate(tk.steer(model, vector, coefficient=value), few, **settings)

    def together() -> None:
        edited = tk.steer(model, vector, coefficient=rows.coefficient)
        tk.generate(edited, rows, **settings)

    return {"one by one": one_by_one, "one batch": together}


def _direction(model: Any, layer: int) -> xr.DataArray:
    size = model._module.config.get_text_config().hidden_size
    values = np.random.default_rng(0).normal(size=size)
    unit = (values / np.linalg.norm(values)).astype(np.float32)
    return xr.DataArray(unit, dims="dim", coords={"layer": layer})


def _overhead(found: Any, new: int) -> list[str]:
    plain = "transformers.generate"
    lines = [
        f"Greedy generation of {new} tokens, {PROMPTS} prompts in one left-padded batch.\n",
        "| arm | seconds | ratio (wall) | ratio (CPU time) |",
        "| --- | --- | --- | --- |",
    ]
    for arm in found:
        wall, cpu = (paired.ratio(found, arm, plain, clock) for clock in ("wall", "cpu"))
        lines.append(f"| {arm} | {paired.median(found, arm):.2f} | {wall:.2f} | {cpu:.2f} |")
    return [*lines, ""]


def _swept(found: Any, new: int) -> list[str]:
    faster = [paired.ratio(found, "one by one", "one batch", c) for c in ("wall", "cpu")]
    seconds = [paired.median(found, arm) for arm in ("one by one", "one batch")]
    return [
        f"A sweep of {len(MULTIPLES)} coefficients over 8 prompts, {new} tokens: "
        f"{seconds[0]:.2f} s one by one, {seconds[1]:.2f} s in one batch: {faster[0]:.2f}× faster "
        f"on the wall, {faster[1]:.2f}× in CPU time."
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=("overhead", "sweep"))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
