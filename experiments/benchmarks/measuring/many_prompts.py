"""What a capture costs as its prompts grow: time, memory, files, opening, reading, going on.

    python -m experiments.benchmarks.measuring.many_prompts --scratch /tmp
    python -m experiments.benchmarks.measuring.many_prompts --scratch /tmp --prompts 100 200 400

100 tokens a prompt, all kept, two layers at the embedded model's width (576), to disk. The random
model has four thin blocks, so that what grows is the tool's own; `bare` is their forward alone, on
the same batches. Each number of prompts runs in a process of its own. `again` is the same call once
more, everything there; `goes on` is the time from the start of a call until the first new shard,
after the first was killed (SIGKILL) when it had written nine tenths of its shards. A read is of ten
prompts in one layer, from the middle. The largest capture is analysed under
dask.distributed too, by two processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
import xarray as xr
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import tracekit as tk
from experiments.benchmarks.measuring import peak
from experiments.benchmarks.measuring.paired import report
from tracekit.model.embedded import embedded_model
from tracekit.passes import batching
from tracekit.storage.provenance import read
from tracekit.transcripts import tensors

TOKENS, WIDTH, DEPTH, LAYERS, READ = 100, 576, 4, (1, 3), 10
KILLED_AT = 0.9
SECONDS = ("encode", "bare", "capture", "again", "goes on", "open", "read")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--prompts", type=int, nargs="+", default=[1250, 2500, 5000, 10_000])
    parser.add_argument("--scratch")
    parser.add_argument("--out", default="results/benchmarks")
    settings = parser.parse_args(arguments)
    found = []
    for prompts in sorted(settings.prompts):
        with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
            one = peak.apart(_captured, prompts, scratch)
            one |= {"goes on": _goes_on(prompts, Path(scratch), one["shards"])}
            one |= peak.apart(_read, prompts, scratch)
            if prompts == max(settings.prompts):
                one |= peak.apart(_distributed, scratch)
        found.append(one)
        print(one, flush=True)
    report(table(found), "many_prompts", Path(settings.out))
    figure(found, Path(settings.out, "many_prompts.png"))


def _model_and_runs(prompts: int) -> tuple[tk.Model, xr.Dataset]:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=DEPTH,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = tk.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer, check=False)
    words = " a" * (TOKENS - 1)
    return model, tk.encode(model, [f"{n % 10}{words}" for n in range(prompts)], template="raw")


def _run(model: tk.Model, runs: xr.Dataset, path: Path) -> float:
    begun = time.perf_counter()
    tk.capture(model, runs, LAYERS, tokens="all", path=path, progress=False)
    return time.perf_counter() - begun


def _bare(model: tk.Model, runs: xr.Dataset, budget: int) -> float:
    plan = batching.plan(tensors.lengths(runs).tolist(), budget)
    inputs = [batching.batch(model, runs, rows).model_inputs for rows in plan]
    begun = time.perf_counter()
    with torch.no_grad():
        for batch in inputs:
            model._module.base_model(**batch, use_cache=False)
    return time.perf_counter() - begun


def _captured(prompts: int, scratch: str, sender: Any) -> None:
    path = Path(scratch, "whole")
    begun = time.perf_counter()
    model, runs = _model_and_runs(prompts)
    encoded = time.perf_counter() - begun
    _run(model, runs.isel(prompt=slice(4)), Path(scratch, "first"))
    peak.reset()
    before = peak.resident("VmRSS")
    seconds = _run(model, runs, path)
    most = peak.resident("VmHWM")
    budget = read(tk.open(path))["batches"]["budget"]
    files = list(path.glob("*.nc"))
    sender.send(
        json.dumps(
            {
                "prompts": prompts,
                "encode": encoded,
                "bare": _bare(model, runs, budget),
                "capture": seconds,
                "again": _run(model, runs, path),
                "above": most - before,
                "shards": len(files),
                "written": sum(file.stat().st_size for file in files),
            }
        )
    )


def _begin(prompts: int, scratch: str, ready: Any) -> None:
    model, runs = _model_and_runs(prompts)
    ready.send(time.time())
    _run(model, runs, Path(scratch, "killed"))


def _goes_on(prompts: int, scratch: Path, shards: int) -> float:
    """Seconds from the call to its first new shard, after a kill at nine tenths of the shards."""
    path, least = scratch / "killed", max(1, int(KILLED_AT * shards))
    _, child = _started(prompts, scratch)
    _until(lambda: _shards(path) >= least, child)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    there = _shards(path)
    called, child = _started(prompts, scratch)
    _until(lambda: _shards(path) > there, child)
    seconds = time.time() - called
    child.join()
    if child.exitcode or _shards(path) != shards:
        raise ValueError(f"The capture that went on has {_shards(path)} shards of {shards}.")
    return seconds


def _started(prompts: int, scratch: Path) -> tuple[float, Any]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    child = context.Process(target=_begin, args=(prompts, str(scratch), sender))
    child.start()
    return receiver.recv(), child


def _until(happened: Callable[[], bool], child: Any) -> None:
    while not happened():
        if not child.is_alive() and not happened():
            raise ValueError("The capture ended before it could be killed; take more prompts.")
        time.sleep(0.01)


def _shards(path: Path) -> int:
    return len(list(path.glob("*.nc")))


def _read(prompts: int, scratch: str, sender: Any) -> None:
    path = Path(scratch, "killed")
    tk.open(Path(scratch, "first"))  # imports are not the file's
    begun = time.perf_counter()
    traces = tk.open(path)
    opened = time.perf_counter() - begun
    some = slice(prompts // 2, prompts // 2 + READ)
    begun = time.perf_counter()
    values = traces.isel(layer=1, prompt=some).compute()
    seconds = time.perf_counter() - begun
    whole = tk.open(Path(scratch, "whole")).isel(layer=1, prompt=some).compute()
    if not (values.identical(whole) and bool(np.isfinite(values).all())):
        raise ValueError("What was captured after a kill differs. Report this.")
    sender.send(json.dumps({"open": opened, "read": seconds}))


def _distributed(scratch: str, sender: Any) -> None:
    from distributed import Client

    def analysis() -> xr.DataArray:
        traces = tk.open(Path(scratch, "whole"))
        return traces.mean(["prompt", "token"]).compute()

    alone = analysis()
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        shared = analysis()
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
    sender.send(json.dumps({"workers": workers, "difference": float(abs(shared - alone).max())}))


def table(found: Sequence[dict[str, Any]]) -> list[str]:
    """The report's lines."""
    lines = [
        f"# A capture as its prompts grow: {TOKENS} tokens, {len(LAYERS)} layers × {WIDTH}",
        "",
        f"| prompts | {' | '.join(f'{name} s' for name in SECONDS)} | MB above the model's, at "
        "most | shards | GB written |",
        "| --- " * (len(SECONDS) + 4) + "|",
    ]
    for one in found:
        seconds = " | ".join(f"{one[name]:.2f}" for name in SECONDS)
        lines.append(
            f"| {one['prompts']:,} | {seconds} | {one['above'] / 1e6:.0f} | {one['shards']} "
            f"| {one['written'] / 1e9:.2f} |"
        )
    most = found[-1]
    each = [one["capture"] / one["prompts"] * 1e3 for one in found]
    own = [(one["capture"] - one["bare"]) / one["prompts"] * 1e3 for one in found]
    return [
        *lines,
        "",
        f"{each[-1]:.2f} ms a prompt at the most, {each[0]:.2f} at the fewest, of which "
        f"{own[-1]:.2f} and {own[0]:.2f} beyond the bare forward's.",
        "",
        f"The mean over prompts and tokens by {most['workers']} workers of dask.distributed "
        f"differs from that of one process by at most {most['difference']:.1e}.",
    ]


def figure(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds and memory against the number of prompts."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    prompts = [one["prompts"] for one in found]
    for name in SECONDS:
        left.plot(prompts, [one[name] for one in found], marker="o", markersize=4, label=name)
    drawn.legend(loc="outside right upper", fontsize=8, frameon=False)
    left.set(yscale="log", ylabel="seconds")
    right.plot(prompts, [one["above"] / 1e6 for one in found], marker="o", markersize=4)
    right.set(ylabel="MB above the model's, at most", ylim=(0, None))
    for axes in (left, right):
        axes.set(xscale="log", xlabel="prompts")
        axes.set_xticks(prompts, [f"{n:,}" for n in prompts])
        axes.minorticks_off()
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


if __name__ == "__main__":
    main()
