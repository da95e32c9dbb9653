"""What a probe costs inside the model: scoring, a monitored generation, a gated edit.

    python -m experiments.benchmarks.monitoring.overhead [--model MODEL] [--rounds 5] [--tokens 32]

Arms in one process, paired by round, in another order each round. All generate the same number of
tokens (end-of-turn is switched off; the monitor stops at a score that no row reaches). The bare
forward is transformers' decoder without its head on the same padded batch, and one of the probes
reads the last block, so that both run every block.
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
from tracekit.model.embedded import EMBEDDED
from tracekit.model.load import device_of
from tracekit.transcripts.prompts import take

RESULTS = Path(__file__).parent.parent / "results"
NEVER = 1e30
# each arm beside its rival, and the most that it may cost
PAIRS = (
    ("capture(probes=), 3 probes", "bare forward", 1.05),
    ("generate(monitor=)", "generate", 1.10),
    ("generate(monitor=, stop=)", "generate", 1.10),
    ("steer, gated by tokens", "steer", None),
    ("steer, gated by the response so far", "steer", None),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the arms, and write `results/monitoring.md`."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = tk.load(options.model)
    model._module.generation_config.eos_token_id = None
    rows = take(tk.read_prompts("datasets/prompts/embedded_calibration.json"), options.prompts)
    asked = tk.encode(model, rows)
    runs = tk.encode(model, rows, [" one" * options.response] * len(rows))
    found = paired.paired(arms(model, asked, runs, options.tokens), options.rounds)
    told = [
        f"Scoring: {options.prompts} responses of {options.response} tokens in one batch. "
        f"Generation: greedy, {options.tokens} tokens, {options.prompts} prompts in one "
        f"left-padded batch. Medians of {options.rounds} paired rounds.\n",
        "| arm | beside | seconds | ratio (wall) | ratio (CPU time) | at most |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm, rival, most in PAIRS:
        wall, cpu = (paired.ratio(found, arm, rival, clock) for clock in ("wall", "cpu"))
        seconds = paired.median(found, arm)
        told.append(f"| {arm} | {rival} | {seconds:.2f} | {wall:.3f} | {cpu:.3f} | {most or '–'} |")
    paired.report([*told, ""], "monitoring", options.out)


def arms(
    model: Any, asked: xr.Dataset, runs: xr.Dataset, new: int
) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    depth = len(model.layers)
    probes = {str(n): probe(model, n) for n in (depth // 3, 2 * depth // 3, depth - 1)}
    middle, vector = probe(model, depth // 3), direction(model, depth // 2)
    settings: dict[str, Any] = {"token_budget": 1 << 20, "progress": False}
    whole = {name: x.to(device_of(model)) for name, x in tk.inputs(runs).items()}

    def bare() -> None:
        with torch.no_grad():
            model._module.model(**whole, use_cache=False)

    def said(edited: Any, **given: Any) -> Callable[[], object]:
        return lambda: tk.generate(edited, asked, max_new_tokens=new, **given, **settings)

    # added where the score is over a bound that half of the tokens pass, with no effect on ids
    gates = [tk.when(middle, above=0.0), tk.when(middle, above=0.0, pooling="mean")]
    steered = [tk.steer(model, vector, coefficient=1e-3, when=gate) for gate in (None, *gates)]
    return {
        "bare forward": bare,
        "capture(probes=), 3 probes": lambda: tk.capture(model, runs, probes=probes, **settings),
        "generate": said(model),
        "generate(monitor=)": said(model, monitor=middle),
        "generate(monitor=, stop=)": said(model, monitor=middle, stop=NEVER),
        "steer": said(steered[0]),
        "steer, gated by tokens": said(steered[1]),
        "steer, gated by the response so far": said(steered[2]),
    }


def direction(model: Any, layer: int) -> xr.DataArray:
    """A random unit vector at a layer."""
    size = model._module.config.get_text_config().hidden_size
    values = np.random.default_rng(layer).normal(size=size)
    unit = (values / np.linalg.norm(values)).astype(np.float32)
    return xr.DataArray(unit, dims="dim", coords={"layer": layer})


def probe(model: Any, layer: int) -> xr.Dataset:
    """A linear probe of random weights, pooled by the mean."""
    weight = direction(model, layer)
    made = {"weight": weight, "offset": np.float32(0), "threshold": np.float32(0)}
    return xr.Dataset(made, attrs={"kind": "probe", "pooling": "mean"})


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", default=EMBEDDED)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--prompts", type=int, default=16)
    made.add_argument("--response", type=int, default=64)
    made.add_argument("--tokens", type=int, default=32)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--out", type=Path, default=RESULTS)
    return made


if __name__ == "__main__":
    main()
