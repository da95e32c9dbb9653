"""Probes fitted on a capture that is read layer by layer, against scikit-learn on loaded matrices.

    python -m experiments.benchmarks.measuring.probe_fit --scratch /tmp [--layers 21]
        [--rows mean|tokens] [--method logistic] [--targets 9] [--rounds 1]

The issue's shape: 9 targets × 21 layers × 8,192 dims × 20,000 tokens (200 prompts × 100). A capture
of synthetic values of bfloat16 precision is written as capture writes it; labels are planted along
random directions at one layer. Each arm is a process of its own, with its own peak of memory, in
another order each round: `traits.fit` from the folder, and scikit-learn's pipelines (StandardScaler
and LogisticRegression, RidgeClassifier or LinearDiscriminantAnalysis; a fit a layer, target and
penalty) on matrices that are loaded: of all layers first, or one after another where all are more
than a third of the free memory. The scratch folder is removed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tracekit as tk
import traits
from experiments.benchmarks.measuring import peak, synthetic
from experiments.benchmarks.measuring.paired import report
from tracekit.storage.provenance import stamp

SHARD_PROMPTS = 4
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
FIRST_LAYER = 40
LIMIT = 2e9


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    for name, size in (("prompts", 200), ("tokens", 100), ("layers", 21), ("dim", 8192)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--targets", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", choices=("mean", "tokens"), default="mean")
    parser.add_argument("--method", choices=("logistic", "ridge", "lda"), default="logistic")
    parser.add_argument("--scratch")
    parser.add_argument("--out", default="results/benchmarks")
    asked = vars(parser.parse_args(arguments))
    with tempfile.TemporaryDirectory(dir=asked["scratch"]) as scratch:
        write(Path(scratch) / "capture", asked)
        rounds = [measured(scratch, asked, number) for number in range(asked["rounds"])]
    name = f"probe_fit_{asked['method']}_{asked['rows']}"
    report(table(asked, rounds), name, Path(asked["out"]))


def write(path: Path, asked: dict[str, Any]) -> None:
    """A capture (prompt, token, layer, dim) of synthetic values, with planted labels."""
    draw = np.random.default_rng(0)
    starts = range(0, asked["prompts"], SHARD_PROMPTS)
    scale = np.exp(draw.normal(0, 1, asked["dim"])).astype(np.float32)
    truth = labels(asked)
    directions = draw.standard_normal((asked["targets"], asked["dim"]), np.float32) * scale * 0.05

    def made(number: int) -> synthetic.Shard:
        prompts = range(starts[number], min(starts[number] + SHARD_PROMPTS, asked["prompts"]))
        frame = synthetic.labels(
            prompts,
            asked["tokens"],
            range(FIRST_LAYER, FIRST_LAYER + asked["layers"]),
            asked["dim"],
            group=("prompt", [f"synthetic/{n}" for n in prompts]),
        )
        shift = np.repeat(truth.values[list(prompts)] @ directions, asked["tokens"], 0)
        raw = []
        for layer in range(asked["layers"]):
            drawn = draw.standard_normal((len(shift), asked["dim"]), np.float32) * scale
            drawn += shift * (layer == asked["layers"] // 2)
            raw.append((drawn.view(np.uint32) >> np.uint32(16)).astype(np.uint16))
        return stamp(frame, {"weights": "synthetic", "ids": "synthetic"}), raw

    synthetic.write(path, len(starts), made)


def labels(asked: dict[str, Any]) -> xr.DataArray:
    """Labels (prompt, target), each half of the prompts."""
    draw = np.random.default_rng(1)
    columns = [draw.permutation(asked["prompts"]) % 2 for _ in range(asked["targets"])]
    coords = {
        "prompt": [f"synthetic/{n}" for n in range(asked["prompts"])],
        "target": [f"target {n}" for n in range(asked["targets"])],
    }
    return xr.DataArray(np.stack(columns, 1), coords, ("prompt", "target"))


def measured(scratch: str, asked: dict[str, Any], number: int) -> dict[str, dict[str, Any]]:
    """Both arms, each in a process of its own, the first of them first in every other round."""
    arms = [ours, scikit_learn]
    order = arms[::-1] if number % 2 else arms
    found = {}
    for arm in order:
        found[arm.__name__] = peak.apart(_send, arm, scratch, asked)
        print(f"  round {number} {arm.__name__}: {found[arm.__name__]}", flush=True)
    return found


def _send(arm: Callable[..., Any], scratch: str, asked: dict[str, Any], sender: Any) -> None:
    peak.reset()  # a new process starts with the peak of the one that started it
    before, begun = peak.resident("VmHWM"), time.perf_counter()
    found = arm(Path(scratch), asked)
    whole = time.perf_counter() - begun
    found = {**found, "seconds": whole, "before": before, "peak": peak.resident("VmHWM")}
    sender.send(json.dumps(found))


def ours(scratch: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """`traits.fit` from the folder: its layers chosen, and each target's AUROC on "select"."""
    rest = {"method": asked["method"], "rows": asked["rows"], "inverse_penalty": PENALTIES}
    probe = traits.fit(scratch / "capture", labels(asked), part=parts(asked), **rest)
    tk.save(probe, scratch / "probe.nc")
    best = probe["selection"].max("candidate")
    return {"layers": probe["layer"].values.tolist(), "auroc": float(best.mean()), "load": 0.0}


def scikit_learn(scratch: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Every layer, target and penalty by a pipeline of its own, on matrices that are in memory."""
    warnings.simplefilter("ignore")  # of LBFGS that ends before its tolerance
    traces = tk.open(scratch / "capture")
    begun = time.perf_counter()
    whole = traces.nbytes < psutil.virtual_memory().available / 3
    traces = traces.load() if whole else traces
    load = time.perf_counter() - begun
    part, truth = parts(asked).values, labels(asked).values
    select = part == "select"
    best = np.zeros((asked["targets"], asked["layers"]))
    for layer in range(asked["layers"]):
        begun = time.perf_counter()
        loaded = np.asarray(traces.isel(layer=layer).values)
        load += time.perf_counter() - begun
        means = loaded.mean(1)
        kept = part == "fit"
        values = means[kept] if asked["rows"] == "mean" else np.concatenate(loaded[kept])
        for target in range(asked["targets"]):
            label = np.repeat(truth[kept, target], len(values) // int(kept.sum()))
            for inverse in PENALTIES if asked["method"] != "lda" else PENALTIES[:1]:
                model = fitted(asked, inverse, values, label)
                area = roc_auc_score(truth[select, target], model.decision_function(means[select]))
                best[target, layer] = max(best[target, layer], area)
    layers = (FIRST_LAYER + best.argmax(1)).tolist()
    return {"layers": layers, "auroc": float(best.max(1).mean()), "load": load}


def fitted(asked: dict[str, Any], inverse: float, values: np.ndarray, label: np.ndarray) -> Any:
    """One pipeline of scikit-learn's, with classes and prompts that weigh alike."""
    if asked["method"] == "lda":
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
        return model.fit(values, label)
    # a row of n tokens weighs 1 / n, as in traits.fit
    alike = inverse / (1 if asked["rows"] == "mean" else asked["tokens"])
    last = (
        LogisticRegression(C=alike, class_weight="balanced", max_iter=1000)
        if asked["method"] == "logistic"
        else RidgeClassifier(alpha=1 / alike, class_weight="balanced")
    )
    return make_pipeline(StandardScaler(), last).fit(values, label)


def parts(asked: dict[str, Any]) -> xr.DataArray:
    """The part of each prompt: of ten six fit, two choose and two report."""
    number = np.arange(asked["prompts"]) % 10
    names = np.select([number < 6, number < 8], ["fit", "select"], "report")
    return labels(asked).isel(target=0, drop=True).copy(data=names)


def table(asked: dict[str, Any], rounds: Sequence[dict[str, dict[str, Any]]]) -> list[str]:
    """The report's lines."""
    shape = " × ".join(f"{asked[name]:,}" for name in ("prompts", "tokens", "layers", "dim"))
    tokens = asked["prompts"] * asked["tokens"]
    lines = [
        f"# {asked['targets']} probes ({asked['method']}, rows={asked['rows']!r}) of {shape}",
        "",
        f"{tokens:,} tokens at {asked['layers']} layers, "
        f"{4 * tokens * asked['layers'] * asked['dim'] / 1e9:.1f} GB in single precision; "
        f"{len(PENALTIES) if asked['method'] != 'lda' else 1} penalties; medians of "
        f"{len(rounds)} rounds, each arm a process of its own.",
        "",
        "| arm | seconds | of them loading | peak memory, GB | mean best AUROC on select |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm in ("ours", "scikit_learn"):
        middle = {
            name: statistics.median(one[arm][name] for one in rounds)
            for name in ("seconds", "load", "peak", "auroc")
        }
        lines.append(
            f"| {arm} | {middle['seconds']:.1f} | {middle['load']:.1f} | "
            f"{middle['peak'] / 1e9:.2f} | {middle['auroc']:.4f} |"
        )
    ratio = statistics.median(
        one["ours"]["seconds"] / one["scikit_learn"]["seconds"] for one in rounds
    )
    same = all(one["ours"]["layers"] == one["scikit_learn"]["layers"] for one in rounds)
    before = statistics.median(one["ours"]["before"] for one in rounds)
    return [
        *lines,
        "",
        f"Ours takes {ratio:.2f} of scikit-learn's time (median of rounds), and "
        f"{'chooses the same layers' if same else 'chooses other layers'}. Its peak has "
        f"{before / 1e9:.2f} GB of imports; wanted: ≤ {LIMIT / 1e9:.0f} GB.",
    ]


if __name__ == "__main__":
    main()
