"""Capture against a bare forward of the same batches, and against the research plan's way.

    python -m experiments.benchmarks.capture --prompts rm_sycophancy_train.json
    python -m experiments.benchmarks.capture --prompts … --model some/model --limit 500

Rivals, in the same run on the same padded batches: the decoder alone, cut after the last layer
asked for (no output head, no cache); the whole decoder; and the plan's way, forward hooks on the
whole model and one .pt a prompt; and TransformerLens, stopped after the last layer (`--lens`, where
it is installed), whose cache of the layers is kept in memory a batch at a time. `three products`
are the layers in full, projections of every layer and every response's mean of every layer, each to
disk, by one pass. Responses are generated once and kept in --runs. Ratios are
medians over rounds, each round running every arm once. `cpu` is this process's CPU time, which a
busy machine disturbs less. Works unchanged where CUDA is.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring.paired import median, paired, ratio, report
from tracekit.model.load import device_of
from tracekit.model.sites import first
from tracekit.passes import batching
from tracekit.storage.provenance import read
from tracekit.transcripts import tensors
from tracekit.transcripts.padded import Batch
from tracekit.transcripts.selection import kept_tokens

BARE, FULL = "bare forward to the last layer", "bare forward, whole decoder"
DISK, PROJECTED, PLAN = "capture to disk", "capture vectors=, all layers", "the plan's way"
THREE, LENS = "three products to disk", "TransformerLens, stop_at_layer"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    settings = _settings(arguments)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    model = tk.load(settings.model, dtype=settings.dtype, check=False)
    runs = _runs(model, settings)
    depth = len(model.layers)
    layers = list(range(depth * 2 // 5, depth * 4 // 5))
    with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
        bench = Bench(model, runs, layers, Path(scratch), settings.budget)
        bench.lens = _lens(settings.model, model) if settings.lens else None
        timings = paired(bench.arms(), settings.rounds)
        report(bench.table(timings), "capture", Path(settings.out))


class Bench:
    """The rivals on one model and one set of transcripts."""

    def __init__(
        self, model: Any, runs: xr.Dataset, layers: list[int], scratch: Path, budget: int | None
    ) -> None:
        self.model, self.runs, self.layers, self.scratch = model, runs, layers, scratch
        self.budget = budget
        once = self.disk()
        self.plan_budget = read(once)["batches"]["budget"]
        self.plan = batching.plan(tensors.lengths(runs).tolist(), self.plan_budget)
        self.batches = [batching.batch(model, runs, rows) for rows in self.plan]
        self.vectors = _vectors(model)
        self.lens: Any = None

    def arms(self) -> dict[str, Any]:
        """All of them, by name."""
        arms: dict[str, Any] = {
            BARE: lambda: self.bare(self.layers[-1] + 1),
            DISK: self.disk,
            PLAN: self.hooks,
            FULL: lambda: self.bare(len(self.model.layers)),
            PROJECTED: self.projected,
            THREE: self.three,
        }
        return arms if self.lens is None else {**arms, LENS: self.stopped}

    def bare(self, depth: int) -> None:
        """The decoder alone, through its first `depth` blocks."""
        decoder, config = self.model._module.base_model, self.model._module.config
        before, config.num_hidden_layers = config.num_hidden_layers, depth
        try:
            with torch.no_grad():
                for batch in self.batches:
                    decoder(**_inputs(self.model, batch), use_cache=False)
        finally:
            config.num_hidden_layers = before

    def disk(self) -> xr.DataArray:
        """The layers asked for, in full, to disk."""
        path = self.scratch / "capture"
        shutil.rmtree(path, ignore_errors=True)
        return self._capture(self.layers, path=path)

    def projected(self) -> xr.DataArray:
        """Projections of every layer, made inside the trace."""
        return self._capture(None, vectors=self.vectors)

    def three(self) -> None:
        """The layers in full, projections and means of every layer, each to disk."""
        path = self.scratch / "three"
        shutil.rmtree(path, ignore_errors=True)
        asked = {
            "window": tk.Request(layers=self.layers),
            "projected": tk.Request(vectors=self.vectors),
            "means": tk.Request(reduce="mean"),
        }
        settings: dict[str, Any] = {"token_budget": self.budget, "progress": False}
        paths = {name: path / name for name in asked}
        tk.capture_many(self.model, self.runs, asked, path=paths, **settings)

    def stopped(self) -> None:
        """TransformerLens on the same batches, its cache of the layers in memory."""
        names = {f"blocks.{n}.hook_resid_post" for n in self.layers}
        how: dict[str, Any] = {
            "names_filter": lambda name: name in names,
            "stop_at_layer": self.layers[-1] + 1,
            "return_type": None,
        }
        with torch.no_grad():
            for batch in self.batches:
                given = {**how, "attention_mask": batch.attention_mask}
                self.lens.run_with_cache(batch.input_ids, **given)

    def _capture(self, layers: list[int] | None, **how: Any) -> xr.DataArray:
        settings = {"token_budget": self.budget, "progress": False, **how}
        return tk.capture(self.model, self.runs, layers, **settings)

    def hooks(self) -> None:
        """Forward hooks on the whole model, and one .pt a prompt."""
        kept = kept_tokens(self.runs, "response")
        real = self.runs.token_id.values >= 0
        caught: dict[int, torch.Tensor] = {}
        handles = [
            self.model.layers[n]._module.register_forward_hook(
                lambda _, __, output, n=n: caught.__setitem__(n, first(output).detach().cpu())
            )
            for n in self.layers
        ]
        with torch.no_grad():
            for rows, batch in zip(self.plan, self.batches, strict=True):
                self.model._module(**_inputs(self.model, batch))
                for n, row in enumerate(rows):
                    where = batch.attention_mask[n].bool()
                    values = {k: v[n][where][kept[row][real[row]]] for k, v in caught.items()}
                    torch.save(values, self.scratch / f"{row}.pt")
        for handle in handles:
            handle.remove()

    def table(self, timings: Any) -> list[str]:
        """The report's lines."""
        lengths = tensors.lengths(self.runs)
        share = batching.efficiency(lengths.tolist(), self.plan)
        lines = [
            f"# Capture: {len(lengths)} prompts, {lengths.sum():,} tokens, layers "
            f"{self.layers[0]}-{self.layers[-1]} of {len(self.model.layers)}, "
            f"{self.model._module.dtype}",
            "",
            f"tokens computed that are not padding: {share:.1%} at a budget of {self.plan_budget}",
            "",
            "| arm | seconds | tokens/s |",
            "| --- | --- | --- |",
        ]
        for arm in timings:
            seconds = median(timings, arm)
            lines.append(f"| {arm} | {seconds:.2f} | {lengths.sum() / seconds:,.0f} |")
        pairs = [(DISK, BARE, "≤ 1.08"), (PROJECTED, FULL, "≤ 1.03"), (THREE, FULL, "≤ 1.12")]
        pairs += [(PLAN, DISK, "≥ 1.5"), (LENS, DISK, "–")][: 1 + (LENS in timings)]
        lines += ["", "| ratio | wall | cpu | wanted |", "| --- | --- | --- | --- |"]
        for arm, rival, wanted in pairs:
            wall, cpu = (ratio(timings, arm, rival, clock) for clock in ("wall", "cpu"))
            lines.append(f"| {arm} / {rival} | {wall:.3f} | {cpu:.3f} | {wanted} |")
        return [*lines, "", self.bound(timings)]

    def bound(self, timings: Any) -> str:
        """How much was written, and what bound the speed."""
        log = (self.scratch / "capture" / "shards.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in log]
        writers = len({record["writer"] for record in records})
        busy = sum(record["seconds"] for record in records) / median(timings, DISK) / writers
        size = sum(record["size"] for record in records)
        by = "the writer" if busy > 0.85 else "the forward"
        return (
            f"full traces: {size / 1e9:.2f} GB in {len(records)} shards by {writers} writer(s), "
            f"busy {busy:.0%} of the time: bound by {by}"
        )


def _lens(name: str, model: Any) -> Any:
    # no dependency: whoever asks for it has it
    bridge = importlib.import_module("transformer_lens.model_bridge").TransformerBridge
    # its own copy: a bridge puts its modules into the model
    weights = copy.deepcopy(model._module)
    return bridge.boot_transformers(name, hf_model=weights, tokenizer=model.tokenizer)


def _inputs(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    positions = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
    made = {**batch.model_inputs, "position_ids": positions}
    return {name: value.to(device_of(model)) for name, value in made.items()}


def _vectors(model: Any) -> xr.DataArray:
    depth, width = len(model.layers), model._module.config.get_text_config().hidden_size
    values = np.random.default_rng(0).standard_normal((9, depth, width)).astype(np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    coords = {"trait": [f"random/{n}" for n in range(9)], "layer": range(depth)}
    return xr.DataArray(values, dims=("trait", "layer", "dim"), coords=coords)


def _runs(model: Any, settings: argparse.Namespace) -> xr.Dataset:
    if settings.runs and Path(settings.runs).is_file():
        return tk.open(settings.runs)
    prompts = tk.read_prompts(settings.prompts, limit=settings.limit)
    runs = tk.generate(model, tk.encode(model, prompts), max_new_tokens=100)
    if settings.runs:
        tk.save(runs, settings.runs)
    return runs


def _settings(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--limit", type=int, default=40, help="prompts, the same number a bias")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=int, help="tokens a batch (default: capture's own)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--lens", action="store_true", help="TransformerLens too")
    parser.add_argument("--runs", help="a .nc file to keep the generated transcripts in")
    parser.add_argument("--scratch", help="the folder on whose disk captures are written")
    parser.add_argument("--out", default="results/benchmarks")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
