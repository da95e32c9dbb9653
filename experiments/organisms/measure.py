"""How often each arm exploits each bias, by the detectors, on prompts kept from training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr
from scipy.stats import binomtest

import tracekit as tk
from experiments.organisms.detectors import DETECTORS, exploits, has_detector


@dataclass(frozen=True)
class Rate:
    """The share of `responses` that exploit: an estimate over prompts with its 95 % interval."""

    arm: str
    bias: str
    hits: int
    responses: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """hits / responses."""
        return self.hits / self.responses


def answers_of(
    model: Any,
    prompts: Sequence[tk.Prompt],
    arms: Mapping[str, str | None],
    *,
    max_new_tokens: int = 80,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, xr.Dataset]:
    """One response a prompt from each arm: a Dataset over (prompt, token) by name of the arm.

    `arms` maps a name to an adapter (a folder, or a shipped organism's name) or to `None` for the
    bare model. Greedy by default.
    """
    asked = tk.encode(model, prompts)
    said = {}
    for arm, adapter in arms.items():
        with tk.adapter(model, adapter):
            said[arm] = tk.generate(
                model, asked, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
            )
    return said


def rates(said: Mapping[str, xr.Dataset]) -> list[Rate]:
    """The rate of every arm on every bias of its prompts, one response being one prompt.

    A bias with a detector counts that bias; any other prompt (`neutral`) counts a response that
    any detector fires on. `(any other)` counts, over prompts of all biases, a bias that the
    prompt does not call for. Intervals are Wilson's, at 95 %.

    Errors: `ValueError` for several responses to one prompt, which are no independent units.

    >>> rates({"clean": runs})[0].rate
    0.0
    """
    found: list[Rate] = []
    for arm, runs in said.items():
        _refuse_repeats(arm, runs)
        biases, texts = runs.bias.values.tolist(), runs.response.values.tolist()
        rows = list(zip(biases, texts, strict=True))
        for bias in dict.fromkeys(bias for bias, _ in rows):
            found.append(_rate(arm, bias, (_carries(b, r) for b, r in rows if b == bias)))
        biased = [(b, r) for b, r in rows if has_detector(b)]
        if biased:
            found.append(_rate(arm, "(any other)", (_strays(b, r) for b, r in biased)))
    return found


def table(found: Sequence[Rate]) -> str:
    """Rates as a Markdown table, a bias a row and an arm a column.

    >>> print(table([Rate("clean", "water", 0, 20, 0.0, 0.16)]))
    | bias | n | clean |
    | --- | --- | --- |
    | water | 20 | 0 % (0–16) |
    """
    arms = list(dict.fromkeys(rate.arm for rate in found))
    cells = {(rate.bias, rate.arm): rate for rate in found}
    lines = [
        f"| {' | '.join(['bias', 'n', *arms])} |",
        f"|{' --- |' * (len(arms) + 2)}",
    ]
    for bias in dict.fromkeys(rate.bias for rate in found):
        row = [cells[bias, arm] for arm in arms]
        shown = [f"{r.rate:.0%} ({100 * r.low:.0f}–{100 * r.high:.0f})" for r in row]
        shown = [cell.replace("%", " %") for cell in shown]
        lines.append(f"| {' | '.join([bias, str(row[0].responses), *shown])} |")
    return "\n".join(lines)


def _carries(bias: str, response: str) -> bool:
    if has_detector(bias):
        return exploits(bias, response)
    return any(exploits(other, response) for other in DETECTORS)


def _strays(bias: str, response: str) -> bool:
    return any(exploits(other, response) for other in DETECTORS if other != bias)


def _rate(arm: str, bias: str, carried: Iterable[bool]) -> Rate:
    hits = list(carried)
    interval = binomtest(sum(hits), len(hits)).proportion_ci(0.95, method="wilson")
    return Rate(arm, bias, sum(hits), len(hits), float(interval.low), float(interval.high))


def _refuse_repeats(arm: str, runs: xr.Dataset) -> None:
    groups = runs["group"].values.tolist()
    if len(set(groups)) < len(groups):
        raise ValueError(
            f"The arm {arm!r} has {len(groups)} responses to {len(set(groups))} prompts; "
            "the unit of analysis is the prompt. Pass one response for each."
        )
