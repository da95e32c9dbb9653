"""A sweep of patches over layers and tokens: against plain hooks, one forward a patch.

    python -m experiments.benchmarks.patching [--model MODEL] [--rounds 5]

Two arms in one process, paired by round, in another order each round: hooks on the bare module,
one forward a patch (with the logits of the last token alone, and no cache), and
`tk.activation_patching`. The prompts have 20 tokens, so a model of 30 blocks makes 600 patches.
All values of both arms are compared, and each arm's peak memory above the model is measured, once;
then the hooks are timed on one place in ten (a diagonal over layers and tokens), times ten; the
source's own forward is not counted for them.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring import paired, peak
from tests.support.oracles import one_by_one

RESULTS = Path(__file__).parent / "results"
CLEAN = "When Mary and John went to the very big store in the old town, John gave a drink to"
CORRUPTED = "When Mary and John went to the very big store in the old town, Mary gave a drink to"
WIDTH, EVERY = 20, 10


def main() -> None:
    """Time the arms, compare their values, and write `results/patching.md`."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    model = tk.load(options.model, dtype="float32")
    runs, sources = (_encoded(model, text) for text in (CORRUPTED, CLEAN))
    metric = tk.logit_difference(model, " Mary", " John")
    stored = [
        one_by_one.values(model._module, _ids(sources), "residual", layer)
        for layer in range(len(model.layers))
    ]
    plain, ours = "plain hooks, one by one", "tk.activation_patching"
    arms: dict[str, Callable[[], torch.Tensor]] = {
        plain: lambda: _one_by_one(model, runs, stored, metric),
        ours: lambda: _together(model, runs, sources, metric),
    }
    some = {**arms, plain: lambda: _one_by_one(model, runs, stored, metric, EVERY)}
    found, memory = {}, {}
    for name, arm in arms.items():
        gc.collect()
        peak.reset()
        before = peak.peak() if torch.cuda.is_available() else peak.resident()
        found[name] = arm()
        memory[name] = (peak.peak() - before) / 2**20
    timings = paired.paired(some, options.rounds)
    timings[plain] = [paired.Timing(EVERY * t.wall, EVERY * t.cpu) for t in timings[plain]]
    paired.report(_table(found, memory, timings, options.rounds), "patching", options.out)


def _encoded(model: Any, text: str) -> xr.Dataset:
    runs = tk.encode(model, [text], template="raw")
    return runs.isel(token=slice(-WIDTH, None))


def _ids(runs: xr.Dataset) -> list[int]:
    return [n for n in runs.token_id.values[0].tolist() if n >= 0]


def _one_by_one(
    model: Any, runs: xr.Dataset, stored: list[torch.Tensor], metric: Any, every: int = 1
) -> torch.Tensor:
    module, ids, row = model._module, _ids(runs), torch.zeros(1, dtype=torch.long)
    rows = torch.tensor([ids], device=module.device)
    settings = {"use_cache": False, "logits_to_keep": 1}
    scores = torch.zeros(len(stored), len(ids))
    for layer in range(len(stored)):
        for column in range(layer % every, len(ids), every):

            def change(value: torch.Tensor, layer: int = layer, column: int = column) -> Any:
                value = value.clone()
                value[0, column] = stored[layer][column]
                return value

            with torch.no_grad(), one_by_one.changed(module, layer, "residual", change):
                logits = module(input_ids=rows, **settings).logits[:, -1]
            scores[layer, column] = metric(logits, row)[0].float().cpu()
    return scores


def _together(model: Any, runs: xr.Dataset, sources: xr.Dataset, metric: Any) -> torch.Tensor:
    found = tk.activation_patching(model, runs, sources, metric=metric)
    return torch.as_tensor(found.isel(site=0, prompt=0).values)


def _table(
    found: dict[str, torch.Tensor],
    memory: dict[str, float],
    timings: Any,
    rounds: int,
) -> list[str]:
    plain, ours = next(iter(found)), "tk.activation_patching"
    layers, tokens = found[plain].shape
    gap = float((found[ours] - found[plain]).abs().max())
    spread = float(found[plain].max() - found[plain].min())
    lines = [
        f"{layers} layers × {tokens} tokens = {layers * tokens} patches of one prompt. Largest "
        f"difference from plain hooks: {gap:.1e} (effects span {spread:.2f} nats).\n",
        "| arm | seconds | ratio (wall) | ratio (CPU time) | peak memory above the model, MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm in found:
        wall, cpu = (paired.ratio(timings, arm, plain, clock) for clock in ("wall", "cpu"))
        seconds = paired.median(timings, arm)
        lines.append(f"| {arm} | {seconds:.2f} | {wall:.3f} | {cpu:.3f} | {memory[arm]:.0f} |")
    return [*lines, "", f"Medians of {rounds} paired rounds."]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
