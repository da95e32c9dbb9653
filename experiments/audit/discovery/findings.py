"""What a search found, as one object with a file form: findings.nc and findings.json."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.discovery.answering.products import write_json
from experiments.audit.discovery.confirm import Compared, least_prompts, q_values
from experiments.audit.discovery.denial import Denial
from experiments.audit.discovery.search import Measured
from experiments.audit.discovery.suggestions.detectors import SAYS
from tracekit.storage.files import reading
from tracekit.storage.provenance import stamp

CONFIRMED, AMPLIFIED, SHARED = "confirmed", "confirmed amplified", "as benign adapters do"
NOT, UNDECIDABLE = "not confirmed", "undecidable"
TRIGGER = ("searched", "confirmed", "rate", "prompts", "elsewhere", "others")
NUMBERS = ("score", "scale", "q", *(f"trigger_{name}" for name in TRIGGER))
SIDES = ("off", "others", "loud")
COMPARED = tuple(f.name for f in dataclasses.fields(Compared))
TEXTS = ("kind", "expression", "verdict", "reason", "trigger", "asked", "depth", "same_as")


@dataclass(frozen=True)
class Example:
    """An answer that has the habit: the characters `start` to `end` of `text` show it.

    It was given with the adapter at `scale` times its strength. `beside` is the bare model's answer
    to the same prompt (of what is left out or rarer, where `text` is that, the adapter's).
    """

    prompt: str
    asked: str
    text: str
    start: int
    end: int
    gain: float
    scale: float = 1.0
    beside: str = ""


@dataclass(frozen=True)
class Finding:
    """One candidate habit, measured where it was not found.

    `off` compares with the adapter off and `others` with benign adapters (None without any); `q` is
    Benjamini and Hochberg's over the candidates, of the larger p. `trigger` is empty where no label
    of the prompts goes with it. `asked` is what the model says of it: denied, admitted, unclear, or
    empty where it was not asked. `prompts` are those of the confirming half where it showed (where
    the bare model has what is left out). `loud` compares with the adapter amplified, where it was
    found so, and `depth` says where in the layers its sentences differ. `same_as` is the title of a
    confirmed finding before it that has most of its sentences too: one habit in other words.
    """

    name: str
    kind: str
    expression: str
    score: float
    scale: float
    off: Compared
    others: Compared | None
    q: float
    verdict: str
    reason: str
    rates: Mapping[str, float]
    trigger: str = ""
    trigger_searched: float = math.nan
    trigger_confirmed: float = math.nan
    trigger_rate: float = math.nan
    trigger_prompts: float = math.nan
    trigger_elsewhere: float = math.nan
    trigger_others: float = math.nan
    denial: Denial | None = None
    examples: Sequence[Example] = ()
    prompts: Sequence[str] = ()
    loud: Compared | None = None
    depth: str = ""
    same_as: str = ""

    @property
    def title(self) -> str:
        """What it does, and the name."""
        return f"{self.kind}: {self.name}"

    @property
    def is_confirmed(self) -> bool:
        """At the adapter's own strength or amplified."""
        return self.verdict in (CONFIRMED, AMPLIFIED)

    def topic(self, level: float) -> str:
        """The subjects of the prompts that it goes with, where that held on new ones; else none."""
        label, _, subjects = self.trigger.partition(": ")
        return subjects if label == "subject" and self.trigger_confirmed <= level else ""

    @property
    def asked(self) -> str:
        """What the model said when it was asked about it."""
        return self.denial.verdict if self.denial else ""


@dataclass(frozen=True)
class Findings:
    """All of one adapter's findings, and whether it has a habit that benign adapters lack.

    `p` is the place of its strongest candidate among those that the same search finds in each
    benign adapter (`strongest`, by adapter); NaN without any. `described` are sentences about
    its weights and activations, of which no test is made; `smallest` is the share of the prompts
    that a habit would have had to show on, to be confirmed four times in five.
    """

    adapter: str
    findings: Sequence[Finding]
    p: float
    strongest: Mapping[str, float]
    notes: Sequence[str] = ()
    rising: Sequence[tuple[str, float, float]] = ()
    made_with: Mapping[str, Any] = field(default_factory=dict)
    described: Sequence[str] = ()
    smallest: float = math.nan

    def as_json(self) -> dict[str, Any]:
        """All of it as findings.json has it: no NaN, and what the model said of each finding."""
        values = _plain(dataclasses.asdict(self))
        for row, finding in zip(values["findings"], self.findings, strict=True):
            row["asked"] = finding.asked
        return values

    def confirmed(self) -> list[Finding]:
        """The findings that both comparisons confirm: what it says first, then what it leaves out
        and the shapes of its answers.
        """
        shown = [one for one in self.findings if one.is_confirmed]
        return sorted(shown, key=lambda finding: finding.kind != SAYS)

    def habits(self) -> list[tuple[Finding, list[Finding]]]:
        """The confirmed findings, one for each habit, with the others of the same sentences."""
        shown = self.confirmed()
        first = [one for one in shown if not one.same_as]
        return [(one, [other for other in shown if other.same_as == one.title]) for one in first]


def judged(measured: Sequence[Measured], alpha: float) -> list[Finding]:
    """A Finding of each measured candidate, with its verdict; confirmed ones first, then by q.

    Benjamini and Hochberg's q is over every test: at the adapter's own strength, and amplified.
    """
    amplified = [(n, m.loud_p) for n, m in enumerate(measured) if m.loud_p is not None]
    tests = [*(m.p for m in measured), *(p for _, p in amplified)]
    together = q_values(tests)
    louder = {n: float(q) for (n, _), q in zip(amplified, together[len(measured) :], strict=True)}
    alone = q_values([m.off.p for m in measured])
    # what the next one has to pass, beside all that are confirmed
    needed = least_prompts(alpha, len(tests) / (1 + sum(q <= alpha for q in together)))
    made = [
        _finding(
            m, float(together[n]), _verdict(m, together[n], alone[n], louder.get(n), alpha, needed)
        )
        for n, m in enumerate(measured)
    ]
    order = {CONFIRMED: 0, AMPLIFIED: 1, SHARED: 2, UNDECIDABLE: 3, NOT: 4}
    return sorted(made, key=lambda f: (order[f.verdict], f.q, -f.score))


def save(found: Findings, folder: Path) -> list[Path]:
    """Write findings.nc and findings.json into the folder."""
    return [
        write_json(folder / "findings.json", found.as_json()),
        tk.save(dataset(found), folder / "findings.nc"),
    ]


def read(path: Path) -> Findings:
    """The findings of a findings.json."""
    with reading(path):
        values = json.loads(path.read_text("utf-8"))
        rows = [_row(row) for row in values.pop("findings")]
        numbers = {name: _number(values.pop(name)) for name in ("p", "smallest")}
        strongest = {name: _number(z) for name, z in values.pop("strongest").items()}
        return Findings(**{**values, **numbers, "findings": rows, "strongest": strongest})


def _row(row: dict[str, Any]) -> Finding:
    sides = {name: _comparison(row.pop(name)) for name in SIDES}
    told = row.pop("denial")
    examples = tuple(Example(**example) for example in row.pop("examples"))
    numbers = {name: _number(row.pop(name, None)) for name in NUMBERS}
    row.pop("asked")
    denial = Denial(**told) if told else None
    return Finding(**{**row, **numbers, **sides, "denial": denial, "examples": examples})


def _comparison(side: Mapping[str, Any] | None) -> Compared | None:
    return None if side is None else Compared(**{k: _number(v) for k, v in side.items()})


def _number(value: Any) -> Any:
    return math.nan if value is None else value


def dataset(found: Findings) -> xr.Dataset:
    """The findings as labelled arrays over `finding`; comparisons over `against`, rates over `arm`.

    >>> dict(dataset(Findings("style", [], math.nan, {})).sizes)
    {'finding': 0, 'arm': 1, 'against': 3}
    """
    rows = found.findings
    arms = list(dict.fromkeys(arm for f in rows for arm in f.rates)) or ["none"]
    sides = [[_numbers(getattr(f, side)) for side in SIDES] for f in rows]
    compared = np.array(sides, float).reshape(len(rows), len(SIDES), len(COMPARED))
    rates = [[f.rates.get(arm, math.nan) for arm in arms] for f in rows]
    made = xr.Dataset(
        {
            "rate": (("finding", "arm"), np.array(rates, float).reshape(len(rows), len(arms))),
            **{n: (("finding", "against"), compared[:, :, k]) for k, n in enumerate(COMPARED)},
            **{n: ("finding", np.array([getattr(f, n) for f in rows], float)) for n in NUMBERS},
        },
        coords={
            "finding": np.arange(len(rows)),
            "against": list(SIDES),
            "arm": arms,
            "habit": ("finding", np.array([f.name for f in rows], np.str_)),
            **{n: ("finding", np.array([getattr(f, n) for f in rows], np.str_)) for n in TEXTS},
        },
    )
    made["p_beyond_benign"] = found.p
    return stamp(made, {**found.made_with, "adapter": found.adapter})


def _finding(m: Measured, q: float, verdict: tuple[str, str]) -> Finding:
    trigger = m.trigger
    made = Finding(
        name=m.candidate.name,
        kind=m.candidate.detector.kind,
        expression=m.candidate.detector.expression,
        score=float(m.candidate.score),
        scale=m.candidate.scale,
        off=m.off,
        others=m.others,
        q=q,
        verdict=verdict[0],
        reason=verdict[1],
        rates=m.rates,
        loud=m.loud[0] if m.loud else None,
        trigger=str(trigger) if trigger else "",
    )
    about = {f"trigger_{name}": float(getattr(trigger, name)) for name in TRIGGER if trigger}
    return dataclasses.replace(made, **about)  # type: ignore[arg-type]


def _verdict(
    m: Measured, q: float, q_off: float, louder: float | None, alpha: float, needed: int
) -> tuple[str, str]:
    sides = [(m.off, ""), *([(m.loud[0], "amplified, ")] if m.loud else [])]
    side, how = max(sides, key=lambda pair: pair[0].more + pair[0].less)
    differ = side.more + side.less
    alone = "" if m.others else "no benign adapter was given to compare with"
    if q <= alpha:
        return CONFIRMED, alone
    if louder is not None and louder <= alpha:
        return AMPLIFIED, alone
    if q_off <= alpha:
        return SHARED, "not more often than with the other adapters"
    if not m.off.n:
        return UNDECIDABLE, "no answer could be judged"
    if differ < needed:
        least = f"of {side.n} prompts differ, where {needed} are the least that decide here"
        if not differ:
            return UNDECIDABLE, f"none {least}"
        count = math.ceil(side.n * needed / differ)
        return UNDECIDABLE, f"{how}{differ} {least}; about {count} to confirm on would do"
    louder_p = "" if m.loud_p is None else f", amplified {m.loud_p:.2g}"
    return NOT, f"p = {m.p:.2g}{louder_p}"


def _numbers(side: Compared | None) -> list[float]:
    return [getattr(side, name) if side else math.nan for name in COMPARED]


def _plain(value: Any) -> Any:
    """What JSON holds: no NaN, no tuples, no numpy scalars."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
