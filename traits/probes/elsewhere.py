"""The same probe elsewhere: whether its threshold holds in another precision, batch or adapter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import binomtest

from tracekit.storage.provenance import read as provenance_of
from tracekit.storage.provenance import stamp
from traits.probes.judging.two_sides import (
    Side,
    agreement,
    areas,
    flags,
    label_of,
    scores_of,
    together,
)
from traits.probes.threshold import exact_interval

MARGIN, RECALL = 0.02, 0.1


def portability(
    probe: xr.Dataset,
    model_a: Side,
    model_b: Side,
    runs: xr.Dataset | None = None,
    *,
    labels: xr.DataArray | str | None = None,
    negatives: xr.DataArray | None = None,
    token_budgets: tuple[int | None, int | None] = (None, None),
    group: str | None = "group",
    confidence: float = 0.95,
    draws: int = 2000,
    generator: np.random.Generator,
) -> xr.Dataset:
    """Whether what a probe says of the same responses, and its threshold, hold in a second place.

    `model_a` is where the threshold was set, `model_b` the other place: the same weights in
    another precision, with an adapter, or in other batches (`token_budgets`). Both score `runs`
    inside the trace; in the place of a model stands what was captured of it, `tk.capture(model,
    runs, probes=probe)` or pooled scores (prompt), where two do not fit in memory or an adapter is
    switched. `labels` (1, 0; an array over prompt, or a label's name) tell positives from
    negatives, or `negatives` (prompt, true or false) says the latter alone. The unit is the prompt
    (`group`): flagged, as `set_threshold` counts, when any of its samples is over the threshold,
    and recalled when all are.

    Numbers, `_a` and `_b`: `score_a`, `score_b` (prompt); `correlation` and `rank_correlation`;
    `shift`, the mean of b − a in standard deviations that negatives have on a (all responses
    without them), with `shift_low`, `shift_high` and `scatter`, the deviation of b − a; `auroc_a`,
    `auroc_b`, `auroc_difference` with a paired interval (whole prompts drawn again); the rates of
    negatives flagged at the stored threshold, `rate_a`, `rate_b`, with exact intervals, and
    `recall_a`, `recall_b`; `flips` (class, direction), prompts flagged on one side alone; and
    `restoring`, the threshold on b that flags as many negatives as the stored one does on a.

    The attribute `verdict` is the first of these that is true, and `reason` says it in numbers:

    | verdict | when |
    | --- | --- |
    | `undecidable` | the probe has no threshold, or there are no negatives |
    | `degraded` | the interval of AUROC b − a is below 0, and the estimate below −0.02 |
    | `threshold stale` | prompts flip one way beyond chance (exact sign test at 1 − `confidence`) \
and the rate changes by over half of the wanted rate or the recall by over 0.1; or the exact \
interval of `rate_b` is above the wanted rate |
    | `holds` | the share of negatives that flip either way is at most the wanted rate, and of \
positives at most 0.1, each by its exact one-sided bound; and the interval of AUROC b − a is above \
−0.02 |
    | `undecidable` | else: more prompts would tell |

    The wanted rate is the probe's `threshold_fpr`, or `rate_a` where it has none.

    Errors: `ValueError` for a probe of several targets, scores of other prompts on both sides, or
    of other probes, labels that do not match, and scores that are not finite.

    >>> draw = np.random.default_rng(0)
    >>> rows = {"prompt": [f"a/{n}" for n in range(400)]}
    >>> scores = xr.DataArray(draw.normal(size=400), rows, "prompt")
    >>> ready = probe.assign(threshold=2.0, threshold_fpr=0.02)
    >>> negatives = xr.ones_like(scores, dtype=bool)
    >>> moved = portability(ready, scores, scores + 1, negatives=negatives, generator=draw)
    >>> moved.attrs["verdict"], round(moved["restoring"].item(), 1)
    ('threshold stale', 3.0)
    """
    a = scores_of(probe, model_a, runs, token_budgets[0])
    b = scores_of(probe, model_b, runs, token_budgets[1])
    both = together(a, b, group)
    label = label_of(both, labels, negatives)
    numbers = {**agreement(both, label, draws, confidence, generator)}
    numbers |= areas(both, label, draws, confidence, generator)
    numbers |= flags(probe, both, label, confidence)
    found = both.assign({**numbers, "label": label})
    verdict, reason = _verdict(found, confidence)
    made = {"made_by": "traits.portability", "probe": provenance_of(probe), "sides": _made([a, b])}
    return stamp(found.assign_attrs(verdict=verdict, reason=reason), made)


def _verdict(found: xr.Dataset, confidence: float) -> tuple[str, str]:
    n = {str(k): float(v) for k, v in found.items() if not v.ndim}
    negative, positive = found["flips"].values
    if math.isnan(n["threshold"]) or not n["n_negative"]:
        return "undecidable", (
            f"the threshold is {n['threshold']:.4g} and there are {n['n_negative']:.0f} negatives: "
            "set one (traits.set_threshold), and give labels= or negatives="
        )
    area = _words("AUROC b − a", n, "auroc_difference")
    if n["auroc_difference_high"] < 0 and n["auroc_difference"] < -MARGIN:
        return "degraded", area
    changed = abs(n["rate_b"] - n["rate_a"]), abs(n["recall_b"] - n["recall_a"])
    up, down = (int(count) for count in negative + positive)
    p = float(binomtest(up, up + down).pvalue) if up + down else 1.0
    matters = changed[0] > n["threshold_fpr"] / 2 or changed[1] > RECALL
    rate = _words("false positives on b", n, "rate_b")
    if (p < 1 - confidence and matters) or n["rate_b_low"] > n["threshold_fpr"]:
        return "threshold stale", (
            f"{up} prompts are flagged on b alone and {down} on a alone (sign test p = {p:.2g}); "
            f"{rate}, wanted {n['threshold_fpr']:.3g}; a threshold of {n['restoring']:.4g} restores"
            f" the rate of a"
        )
    return _steady(n, int(negative.sum()), int(positive.sum()), confidence, f"{rate}; {area}")


def _steady(
    n: dict[str, float], negative: int, positive: int, confidence: float, words: str
) -> tuple[str, str]:
    """`holds` where flips are few for sure, or else `undecidable`."""
    known = [(negative, n["n_negative"], n["threshold_fpr"])]
    known += [(positive, n["n_positive"], RECALL)] if n["n_positive"] else []
    bounds = [exact_interval(hits, int(of), 2 * confidence - 1)[1] for hits, of, _ in known]
    few = all(bound <= most for bound, (_, _, most) in zip(bounds, known, strict=True))
    told = "; ".join(
        f"{hits} of {of:.0f} {name} flip, at most {bound:.3g} of them (bound {most:.3g})"
        for (hits, of, most), bound, name in zip(
            known, bounds, ("negatives", "positives"), strict=False
        )
    )
    steady = math.isnan(n["auroc_difference"]) or n["auroc_difference_low"] > -MARGIN
    return ("holds" if few and steady else "undecidable"), f"{told}; {words}"


def _words(what: str, n: dict[str, float], name: str) -> str:
    return f"{what} {n[name]:+.3g} ({n[f'{name}_low']:+.3g} to {n[f'{name}_high']:+.3g})"


def _made(sides: list[xr.DataArray]) -> list[Any]:
    return [provenance_of(side) if "provenance" in side.attrs else None for side in sides]
