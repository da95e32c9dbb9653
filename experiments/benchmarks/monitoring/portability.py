"""Does a probe's threshold hold in another precision? The organism's labelled responses, embedded.

    python -m experiments.benchmarks.monitoring.portability [--out scores] [--save NAME]

Probes are fitted and chosen in float32 under the organism's adapter on five biases; their
thresholds are set in float32 on the negatives of the other five, on which the same texts are then
scored in the other precisions, with the adapter off, and in batches of one row. What differs is
what the same answers score, so that sides are paired by prompt. Scores are kept in `--out`, and
what is there is not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
import traits
from experiments.benchmarks.measuring.paired import report
from experiments.benchmarks.probes.texts import Texts, responses
from tracekit.model.embedded import EMBEDDED

LAYERS, FPR, HOME, LIMIT = (8, 16, 24), 0.05, "float32", 1000
# a precision, another adapter, or another batch plan
SETTINGS = ("nf4", "int8", "bfloat16", "adapter off", "one row a batch")
PROBES: Mapping[str, tuple[str, str]] = {
    "logistic, mean": ("logistic", "mean"),
    "logistic, max": ("logistic", "max"),
    "logistic, rolling_max": ("logistic", "rolling_max"),
    "logistic, ema": ("logistic", "ema"),
    "mean_diff, mean": ("mean_diff", "mean"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Score what is not there, and print the table."""
    options = parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    model = tk.load(EMBEDDED, dtype="float32")
    texts = responses(model, LIMIT)
    probes = fitted(model, texts, options.out)
    runs = texts.runs.isel(prompt=(texts.part == "report").values)
    scores = {
        name: kept(options.out / f"{name}.nc", partial(scored, name, model, texts, runs, probes))
        for name in (HOME, *options.settings)
    }
    told = lines(probes, scores, options.draws)
    if options.kept:
        report(told, options.kept, Path(__file__).parent.parent / "results")
    else:
        print(*told, sep="\n")


def fitted(model: tk.Model, texts: Texts, out: Path) -> dict[str, xr.Dataset]:
    """The probes, each with a layer chosen on its own part and without a threshold yet."""
    names = {name: out / f"{name}, probe.nc" for name in PROBES}
    if all(path.is_file() for path in names.values()):
        return {name: tk.open(path) for name, path in names.items()}
    rows = texts.runs.isel(prompt=(texts.part != "report").values)
    with tk.adapter(model, texts.adapter) as attached:
        traces = tk.capture(attached, rows, LAYERS, tokens=slice(0, None))
    made = {}
    for name, (method, pooling) in PROBES.items():
        made[name] = traits.fit(traces, "label", method=method, pooling=pooling, part=texts.part)
        tk.save(made[name], names[name])
    return made


def scored(
    setting: str,
    home: tk.Model,
    texts: Texts,
    runs: xr.Dataset,
    probes: Mapping[str, xr.Dataset],
) -> xr.DataArray:
    """The pooled scores (prompt, probe) in a setting."""
    model = home if setting in (HOME, *SETTINGS[3:]) else tk.load(EMBEDDED, dtype=setting)
    budget = 1 if setting == "one row a batch" else None
    with tk.adapter(model, None if setting == "adapter off" else texts.adapter) as attached:
        made = tk.capture(attached, runs, probes=probes, transfer=True, token_budget=budget)
    pooled = made["pooled"].drop_vars(["layer", "pooling", "threshold"])
    return pooled.rename("score").assign_attrs(made.attrs)


def kept(path: Path, make: Callable[[], xr.DataArray]) -> xr.DataArray:
    """What a file has, or else what is made and written there."""
    if not path.is_file():
        tk.save(make(), path)
    return tk.open(path)


def lines(
    probes: Mapping[str, xr.Dataset], scores: Mapping[str, xr.DataArray], draws: int
) -> list[str]:
    """The table: a probe and another setting a row."""
    home, told = scores[HOME], []
    label = home["label"]
    for name, probe in probes.items():
        own = home.sel(probe=name)
        ready = traits.set_threshold(probe, own.isel(prompt=(label == 0).values), fpr=FPR)
        for other, values in scores.items():
            if other == HOME:
                continue
            found = traits.portability(
                ready,
                own,
                values.sel(probe=name),
                labels="label",
                draws=draws,
                generator=np.random.default_rng(0),
            )
            told.append(_row(name, other, found))
    negatives = int((label == 0).sum())
    return [
        f"Thresholds at {FPR:.0%} of {negatives} negative answers in float32 (no prompt of them "
        f"was fitted on), against other settings; {int((label == 1).sum())} positive answers.\n",
        "| probe | setting | correlation | shift (sd) | AUROC float32 → there | difference | "
        "false positives | recall | threshold → restoring | verdict |",
        "|" + " --- |" * 10,
        *told,
        "",
    ]


def _row(name: str, other: str, found: xr.Dataset) -> str:
    n = {str(one): float(values) for one, values in found.items() if not values.ndim}
    return (
        f"| {name} | {other} | {n['correlation']:.4f} | {n['shift']:+.2f} | "
        f"{n['auroc_a']:.3f} → {n['auroc_b']:.3f} | {n['auroc_difference']:+.3f} "
        f"({n['auroc_difference_low']:+.3f} to {n['auroc_difference_high']:+.3f}) | "
        f"{n['rate_a']:.3f} → {n['rate_b']:.3f} ({n['rate_b_low']:.3f}–{n['rate_b_high']:.3f}) | "
        f"{n['recall_a']:.2f} → {n['recall_b']:.2f} | "
        f"{n['threshold']:.2f} → {n['restoring']:.2f} | {found.attrs['verdict']} |"
    )


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--settings", nargs="*", default=SETTINGS)
    made.add_argument("--draws", type=int, default=1000)
    made.add_argument("--out", type=Path, default=Path("probe_portability"))
    made.add_argument("--save", dest="kept", help="a name in experiments/benchmarks/results")
    return made


if __name__ == "__main__":
    main()
