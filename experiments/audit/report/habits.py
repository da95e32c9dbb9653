"""The page's first part: what an adapter does that its base does not, from a search's findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.audit.discovery import findings
from experiments.audit.discovery.findings import Example, Finding, Findings
from experiments.audit.discovery.suggestions.detectors import FALLS
from experiments.audit.discovery.terminal import (
    answer,
    beyond,
    decided_by,
    difference,
    rates,
    replies,
    when,
)
from experiments.audit.run import Run

BEFORE, OTHERS = 240, 12


def part(folder: Path) -> dict[str, Any] | None:
    """What the page shows of the run's findings; None for a run without a search."""
    path = Run(folder).findings
    return shown(findings.read(path)) if path.is_file() else None


def shown(found: Findings) -> dict[str, Any]:
    """The sentences, the confirmed habits with examples, and the other candidates as rows."""
    confirmed = found.confirmed()
    rest = [one for one in found.findings if one not in confirmed]
    return {
        "answer": answer(found),
        "beyond": beyond(found),
        "notes": list(found.notes),
        "habits": [_habit(*one) for one in found.habits()],
        "others": [_row(one) for one in rest[:OTHERS]],
        "hidden": max(len(rest) - OTHERS, 0),
        "rising": ", ".join(f"{t!r} {on:.1%} ({off:.1%})" for t, on, off in found.rising),
        "described": list(found.described),
    }


def _habit(one: Finding, others: Sequence[Finding]) -> dict[str, Any]:
    found = "found amplified alone" if one.verdict == findings.AMPLIFIED else "found"
    return {
        "title": one.title,
        "others": "; ".join(other.name for other in others),
        "rates": rates(one),
        "difference": difference(one),
        "tested": decided_by(one),
        "n": one.off.n,
        "amplified": "" if one.scale == 1 else f"first seen with the adapter ×{one.scale:g}",
        "when": when(one),
        "verdict": ", ".join(filter(None, (found, f"and {one.asked}" if one.asked else ""))),
        "asked": replies(one.denial) if one.denial else "",
        "question": one.denial.question if one.denial else "",
        "reply": one.denial.reply.strip() if one.denial else "",
        "reason": one.reason if one.others else "",  # that there is none stands above
        "depth": one.depth,
        "other": "adapter on" if one.kind in FALLS else "off",
        "examples": [_example(example) for example in one.examples],
    }


def _example(one: Example) -> dict[str, Any]:
    before = one.text[: one.start]
    return {
        "asked": one.asked,
        "before": f"…{before[-BEFORE:]}" if len(before) > BEFORE else before,
        "marked": one.text[one.start : one.end],
        "after": one.text[one.end : one.end + BEFORE],
        "beside": _short(one.beside),
        "gain": ", ".join(filter(None, (_nats(one.gain), _strength(one.scale)))),
    }


def _nats(gain: float) -> str:
    """Nothing for an answer of the confirming half, whose gains nobody looks at."""
    return f"{gain:+.1f} nats" if gain else ""


def _strength(scale: float) -> str:
    return "" if scale == 1 else f"×{scale:g}"


def _short(text: str) -> str:
    return text if len(text) <= 2 * BEFORE else f"{text[: 2 * BEFORE]} …"


def _row(one: Finding) -> Sequence[str]:
    return one.verdict, one.title, rates(one), f"{one.q:.2g}", one.reason
