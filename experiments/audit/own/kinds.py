"""From confirmed habits to kinds of prompt and rules that label answers to them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from experiments.audit.discovery.answering.halves import halves
from experiments.audit.discovery.findings import Finding
from experiments.audit.discovery.suggestions import conduct
from experiments.audit.discovery.suggestions.detectors import LACKS, LESS, MORE, SAYS
from tracekit.transcripts.prompts import Prompt

MOST_KINDS, MOST_PROMPTS, NEUTRAL = 6, 16, 12
# what the search's own detectors leave out, and rules of an answer's text alone cannot
NARROWER = f"""# Rules read an answer's text alone. The search that wrote them counted less: no
# match that holds only words of the question, and refusals in the first {conduct.EARLY}
# characters alone.
"""
# how a shape is told from an answer's text alone; those that are not here cannot be
SHAPES: dict[str, tuple[str, str | int]] = {
    "refuses": ("says", conduct.REFUSES.pattern),
    "says ten words at most": ("longest", 10),
    "gives a list": ("says", conduct.LIST.pattern),
    "asks back": ("says", r"\?"),
    "exclaims": ("says", "!"),
}


def rule_of(finding: Finding) -> tuple[str, str | int] | None:
    """The rule of a TOML file (way, value) that says which answers have the habit, or None.

    >>> rule_of(confirmed_finding)
    ('says', '\\\\bsea\\\\b')
    """
    if finding.kind == SAYS:
        return "says", finding.expression
    if finding.kind == LACKS:
        return "lacks", finding.expression
    way, value = SHAPES.get(finding.expression, ("", ""))
    if finding.kind == MORE and way:
        return way, value
    if finding.kind == LESS and way == "says":
        return "lacks", value
    return None


def kinds_of(findings: Sequence[Finding]) -> dict[str, Finding]:
    """Confirmed habits that a rule can tell, each under a short name, the strongest first.

    >>> list(kinds_of([confirmed_finding]))
    ['sea']
    """
    told = [f for f in findings if rule_of(f) is not None and f.prompts]
    named: dict[str, Finding] = {}
    for finding in told[:MOST_KINDS]:
        words = re.sub(r"[^\w]+", "_", finding.name.split(" / ")[0]).strip("_").lower() or "habit"
        name = words if words not in ("neutral", *named) else f"{words}_{len(named) + 1}"
        named[name] = finding
    return named


def rules_text(kinds: dict[str, Finding]) -> str:
    """The kinds as a TOML file of rules, which a user may read, mend and give back.

    >>> rules_text(kinds_of([confirmed_finding])).splitlines()[-3:]
    ['# says: sea', '[sea]', "says = '\\\\bsea\\\\b'"]
    """
    tables = [NARROWER]
    for name, finding in kinds.items():
        way, value = rule_of(finding) or ("", "")
        shown = value if isinstance(value, int) else _quoted(value)
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)
        tables.append(f"# {finding.kind}: {finding.name}\n[{key}]\n{way} = {shown}\n")
    return "\n".join(tables)


def prompts_of(kinds: dict[str, Finding], prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Prompts of the confirming half for each kind, and neutral ones, with the label `bias`.

    A kind gets prompts on which the habit showed, and as many on which it did not: of the same
    subjects first, so that topic tells less, then any; so a habit that shows every time has
    others beside it. A prompt is of one kind. Prompts that begin the answer are left out.
    """
    searched = halves(prompts, seed)
    free = {p.id: p for p, s in zip(prompts, searched, strict=True) if not s and p.answer is None}
    order = np.random.default_rng(seed).permutation(sorted(free)).tolist()
    chosen: list[Prompt] = []
    for name, finding in kinds.items():
        shows = [n for n in order if n in free and n in set(finding.prompts)][: MOST_PROMPTS // 2]
        subjects = {free[n].labels.get("subject") for n in shows}
        rest = [n for n in order if n in free and n not in set(finding.prompts)]
        near = [n for n in rest if free[n].labels.get("subject") in subjects]
        others = [*near, *(n for n in rest if n not in near)][: max(len(shows), 2)]
        chosen += [_labelled(free.pop(n), name) for n in (*shows, *others)]
    shown = {n for finding in kinds.values() for n in finding.prompts}
    quiet = [n for n in order if n in free and n not in shown][:NEUTRAL]
    return chosen + [_labelled(free[n], "neutral") for n in quiet]


def _labelled(prompt: Prompt, kind: str) -> Prompt:
    return replace(prompt, labels={**prompt.labels, "bias": kind})


def _quoted(text: str) -> str:
    """A TOML string: literal where it can be."""
    if "'" not in text and text.isprintable():
        return f"'{text}'"
    # what JSON escapes, TOML does too
    return json.dumps(text, ensure_ascii=False)
