"""Figures of a steering experiment, from saved arrays alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.audit.report.colours import ARMS, in_turn


def dose_response(whole: xr.Dataset, path: Path) -> None:
    """Exploitation rate against strength by direction, over the random arm's 5 to 95 % band."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    ax = figure.subplots()
    base = _unedited(whole, "organism")
    added = whole.isel(edit=whole["kind"].values == "add")
    multiples = np.unique([*added["multiple"].values, 0.0])
    tried = [m for m in multiples if m == 0 or _has_band(added, m)]
    band = [_band(added, multiple, float(base["rate"])) for multiple in tried]
    ax.fill_between(tried, *np.array(band).T, color="#BBBBBB", alpha=0.5, label="random, 5–95 %")
    for colour, name in _coloured(_named(added)):
        here = added.isel(edit=added["direction"].values == name).sortby("multiple")
        here = xr.concat([here, base], "edit", coords="minimal", compat="override")
        here = here.sortby("multiple")
        _errors(ax, here["multiple"].values, here, colour, name)
    for style, arm in (("--", "organism"), (":", "clean")):
        ax.axhline(
            float(_unedited(whole, arm)["rate"]),
            color=ARMS[arm],
            linestyle=style,
            lw=1,
            label=f"{arm}, unedited",
        )
    ax.set_xlabel("coefficient (multiples of the mean residual norm)")
    ax.set_ylabel("exploitation rate")
    ax.set_title(f"n = {whole.attrs['n']} prompts; bars: 95 % over prompts")
    figure.legend(frameon=False, fontsize="small", loc="outside right upper")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def frontier(whole: xr.Dataset, path: Path) -> None:
    """Rate against coherence: each edit a point, by kind; below and to the left is better."""
    kinds = [kind for kind in np.unique(whole["kind"].values) if kind != "unedited"]
    figure = Figure(figsize=(4.2 * len(kinds) + 2, 4), layout="constrained")
    axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for ax, kind in zip(axes, kinds, strict=True):
        rows = whole.isel(edit=whole["kind"].values == kind)
        random = rows.isel(edit=rows["arm"].values == "random")
        ax.plot(np.exp(random["nats"]), random["rate"], ".", color="#AAAAAA", label="random")
        for colour, name in _coloured(_named(rows)):
            here = rows.isel(edit=rows["direction"].values == name)
            ax.plot(np.exp(here["nats"]), here["rate"], "o", color=colour, label=name)
        for marker, arm in (("*", "organism"), ("^", "clean")):
            here = _unedited(whole, arm)
            ax.plot(np.exp(here["nats"]), here["rate"], marker, color=ARMS[arm], ms=9, label=arm)
        ax.set_title(kind)
        ax.set_xscale("log")
        ax.set_xlabel("perplexity under the clean model")
    axes[0].set_ylabel("exploitation rate")
    lines, names = axes[-1].get_legend_handles_labels()
    figure.legend(lines, names, frameon=False, fontsize="small", loc="outside right upper")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def bars(rates: xr.Dataset, path: Path) -> None:
    """The rate of each bias under some edits, with intervals; edits are named by `name`.

    `rates` has `estimate`, `low` and `high` (edit, bias).
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    ax = figure.subplots()
    width = 0.8 / rates.sizes["edit"]
    places = np.arange(rates.sizes["bias"])
    for n, (colour, name) in enumerate(_coloured(rates["name"].values.tolist())):
        edit = rates.isel(edit=n)
        mean = edit["estimate"].values
        ends = [np.maximum(mean - edit["low"], 0), np.maximum(edit["high"] - mean, 0)]
        at = places + n * width
        ax.bar(at, mean, width, color=colour, label=str(name))
        ax.errorbar(at, mean, ends, fmt="none", ecolor="#444444", elinewidth=0.8, capsize=1.5)
    ax.set_xticks(places + 0.4 - width / 2, rates["bias"].values)
    ax.set_ylabel("exploitation rate")
    ax.set_title("whiskers: 95 % over prompts", fontsize="small")
    figure.legend(frameon=False, fontsize="small", loc="outside right upper")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def patching(patched: xr.Dataset, path: Path) -> None:
    """The likelihood of exploiting spans by the layer whose residuals are the clean model's."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    mean = patched.mean("prompt")
    error = 1.96 * patched["nats"].std("prompt", ddof=1) / np.sqrt(patched.sizes["prompt"])
    layers = patched["layer"].values
    ax.plot(layers, mean["nats"], color="#000000", label="patched, exploiting span")
    low, high = mean["nats"] - error, mean["nats"] + error
    ax.fill_between(layers, low, high, color="#000000", alpha=0.15, linewidth=0)
    ax.plot(layers, mean["rest"], color="#999999", label="patched, rest of the response")
    for style, arm in (("--", "organism"), (":", "clean")):
        ax.axhline(float(mean[arm]), color=ARMS[arm], linestyle=style, lw=1, label=f"{arm}, span")
    ax.set_xlabel("layer whose residuals are replaced")
    ax.set_ylabel("mean log-probability (nats a token)")
    ax.set_title(f"n = {patched.sizes['prompt']} exploiting responses; band: 95 % over prompts")
    ax.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _has_band(added: xr.Dataset, multiple: float) -> bool:
    rows = added["multiple"].values == multiple
    return bool((rows & (added["arm"].values == "random")).any())


def _band(added: xr.Dataset, multiple: float, base: float) -> tuple[float, float]:
    if multiple == 0:
        return base, base
    rows = added.isel(edit=(added["multiple"].values == multiple))
    return float(rows["band_low"][0]), float(rows["band_high"][0])


def _named(rows: xr.Dataset) -> Sequence[str]:
    shown = rows["arm"].values != "random"
    return list(dict.fromkeys(rows["direction"].values[shown].tolist()))


def _unedited(whole: xr.Dataset, direction: str) -> xr.Dataset:
    match = (whole["kind"].values == "unedited") & (whole["direction"].values == direction)
    return whole.isel(edit=int(np.flatnonzero(match)[0]))


def _errors(ax, places: np.ndarray, here: xr.Dataset, colour: str, name: str) -> None:
    rate = here["rate"].values
    spread = [rate - here["rate_low"].values, here["rate_high"].values - rate]
    ax.errorbar(
        places, rate, np.maximum(spread, 0), color=colour, marker="o", ms=4, capsize=2, label=name
    )


def _coloured(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each name with its colour: an arm's own, a direction's in turn."""
    turns = in_turn()
    for name in names:
        yield ARMS.get(name) or next(turns)[0], name
