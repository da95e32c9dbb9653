"""The text that a run ends with: the verdict, then every row."""

from __future__ import annotations

import numpy as np
import xarray as xr

from experiments.audit.evidence.row import HEADER, aligned
from experiments.audit.prompt_sets import split_kind
from experiments.audit.result import Result
from experiments.audit.settings.groups import Settings
from experiments.audit.verdict.hypothesis import text_hash
from tracekit.model.embedded import EMBEDDED

EMBEDDED_HEAD = "Instrument test on a 135M model, not evidence about 70B."


def text(analysis: xr.Dataset, result: Result, settings: Settings) -> str:
    """The verdict, the table, and what they are and are not evidence for."""
    head = [EMBEDDED_HEAD, ""] if settings.model.name == EMBEDDED else []
    parts = [
        *head,
        *verdict_lines(result, settings),
        "",
        *aligned([HEADER, *(row.cells() for row in result.rows)]),
        "",
        *notes(analysis, result, settings),
    ]
    return "\n".join(parts) + "\n"


def verdict_lines(result: Result, settings: Settings) -> list[str]:
    """The verdict as text: its words, the hypothesis, and each level's lines."""
    shown = [
        f"VERDICT. {result.answer}",
        f"Primary hypothesis, fixed before the run [{text_hash(settings.hypothesis.stated)}]: "
        f"{settings.hypothesis.stated}",
        left_out(result, settings),
    ]
    for level in result.levels:
        lines = [line for line in result.lines if line.level == level.name]
        shown += ["", f"{level.name}: {result.statuses[level.name]} ({level.plan})"]
        shown += aligned([("", line.status, line.asked, line.found) for line in lines])
    return shown


def left_out(result: Result, settings: Settings) -> str:
    """Which traits of the primary hypothesis stay in it, and which have left."""
    names = [name for name in settings.primary if name not in result.audit.traits]
    if not names:
        return "All its traits passed their own evaluation on unseen pairs."
    return (
        f"Not in this run, or not passed in their own evaluation, and left out: {', '.join(names)}."
    )


def notes(analysis: xr.Dataset, result: Result, settings: Settings) -> list[str]:
    """What the numbers are, and what they are not."""
    lines = [
        "n counts prompts, the unit of analysis (vectors: pairs). Replay: the same token ids "
        "(organism responses) under other weights, the mean over response tokens.",
        f"{_chosen_on(result)} Intervals for these kinds of prompt are conditional on the biases "
        "and outcomes that there are; those for other kinds draw biases first, then prompts.",
        "p directions: beside random sets of as many directions as there are traits, with the "
        "covariance of the change and with that of activations (the larger p); p placebo: beside "
        "sets of as many placebo traits, no less than 1 / (m + 1) of m (the best of k traits no "
        "better than they is beyond all of them in k / (k + m) of cases). Each goes through the "
        "same layer choice and statistic, and a line about traits is met only if it is beyond 95 % "
        "of both.",
        'Cosines include every dim and every response token; "units" shows other handlings.',
        f"Responses that exploit, by rule: {_rates(analysis)}.",
        *_reasons(analysis),
    ]
    if not settings.model.base:
        lines.append(
            'The "base" that vectors come from is the same weights in raw completion (no chat '
            "markup)."
        )
    return lines


def _chosen_on(result: Result) -> str:
    rows = result.audit.rows
    kinds = zip(rows["bias"].values.astype(str), rows["part"].values.astype(str), strict=True)
    if kind := split_kind((str(bias), str(part)) for bias, part in kinds):
        return (
            f"The prompts of the only kind at stake, {kind}, are split: layer, weights and "
            "threshold were chosen on half of them, and detection is reported on the other half, "
            "which the rows call held-out; that asks less than a kind of its own would."
        )
    return (
        "Layer, weights and threshold were chosen on calibration biases; detection is reported on "
        "held-out ones."
    )


def _rates(analysis: xr.Dataset) -> str:
    shown = []
    for arm in analysis["text_arm"].values:
        counts = analysis[["hits", "responses"]].sel(text_arm=arm).sum("bias")
        hits, responses = int(counts["hits"]), int(counts["responses"])
        shown.append(f"{arm} {hits} of {responses}" if responses else f"{arm} undecidable")
    return ", ".join(shown)


def _reasons(analysis: xr.Dataset) -> list[str]:
    reasons = [
        f"{bias or 'no bias given'}: {why}"
        for bias, why in zip(analysis["bias"].values, analysis["undecidable"].values, strict=True)
        if why
    ]
    decided = int(np.sum(analysis["undecidable"].values == ""))
    line = f"Biases with both outcomes: {decided} of {analysis.sizes['bias']}"
    return [f"{line}; undecidable: {'; '.join(reasons)}." if reasons else f"{line}."]
