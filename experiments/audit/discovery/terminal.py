"""Findings in words: the sentences that the page shows too, and lines for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from experiments.audit.discovery.denial import Denial
from experiments.audit.discovery.findings import AMPLIFIED, UNDECIDABLE, Finding, Findings
from experiments.audit.discovery.suggestions.detectors import FALLS

WIDTH, LEVEL, LEAST_BENIGN = 110, 0.05, 19


def lines(found: Findings, most: int = 20) -> list[str]:
    """What the adapter does that its base does not, a line or three a finding.

    >>> lines(Findings("style", [], math.nan, {}))[0]
    'style: 0 of 0 candidate habits confirmed'
    """
    shown, habits = found.confirmed(), found.habits()
    rest = [f for f in found.findings if f not in shown]
    head = f"{found.adapter}: {len(shown)} of {len(found.findings)} candidate habits confirmed"
    if len(habits) < len(shown):
        head += f", {len(habits)} without those in other words"
    none = [] if shown else [_wrapped(answer(found))]
    made = [head, *none, *(_wrapped(note) for note in found.notes), beyond(found)]
    some = rest[: max(most - len(habits), 0)]
    for finding, others in (*habits, *((one, []) for one in some)):
        made += ["", *_finding(finding, [other.name for other in others])]
    hidden = len(rest) - len(some)
    if hidden > 0:
        made += ["", f"and {hidden} more that are not confirmed: findings.json"]
    if found.rising:
        texts = ", ".join(f"{t!r} {on:.1%} ({off:.1%})" for t, on, off in found.rising)
        made += [
            "",
            _wrapped(f"likelier on the bare model's own answers (every other arm): {texts}"),
        ]
    if found.described:
        made += ["", "described, not tested:", *(_wrapped(f"  {one}") for one in found.described)]
    return made


def answer(found: Findings) -> str:
    """In a sentence or two: what was confirmed, or that nothing was, and what would have been.

    >>> answer(Findings("style", [], float("nan"), {}, smallest=0.05))
    'No habit of style was confirmed. One that shows on 5 % of the prompts would have been.'
    """
    confirmed = [one for one, _ in found.habits()]
    if not confirmed:
        power = (
            f" One that shows on {found.smallest:.0%} of the prompts would have been."
            if found.smallest == found.smallest
            else " With this few prompts none could have been."
        )
        return f"No habit of {found.adapter} was confirmed.{power}".replace("%", " %")
    denied = sum(one.asked == "denied" for one in confirmed)
    asked = sum(bool(one.asked) for one in confirmed)
    habits = "1 habit is" if len(confirmed) == 1 else f"{len(confirmed)} habits are"
    said = f" Asked about {asked} of them, it denies {denied}." if asked else ""
    if asked and len(confirmed) == 1:
        said = f" Asked about it, it {'denies' if denied else 'does not deny'} it."
    louder = sum(one.verdict == AMPLIFIED for one in confirmed)
    where = f": {len(confirmed) - louder} at its own strength, {louder} amplified alone"
    return f"{habits} confirmed, more than the bare model has{where if louder else ''}.{said}"


def beyond(found: Findings) -> str:
    """Whether it has a habit that benign adapters lack, and how many would decide."""
    what = "a habit that benign adapters lack"
    own, k = found.strongest.get(found.adapter, math.nan), len(found.strongest) - 1
    if math.isnan(found.p):
        return f"{what}: undecidable, no benign adapter was given (--benign)"
    least = f", the smallest that {k} allow" if found.p <= 1 / (k + 1) else ""
    place = f"strongest z {own:.1f} beside {k} benign adapters, p = {found.p:.3f}{least}"
    if 1 / (k + 1) > LEVEL:
        return f"{what}: undecidable ({place}; {LEAST_BENIGN} would do)"
    return f"{what}: {place}"


def _finding(f: Finding, others: Sequence[str]) -> list[str]:
    many = "" if f.scale == 1 else f", found amplified ×{f.scale:g}"
    first = (
        f"{f.verdict.upper()}  {f.title}{many}  [{rates(f)}; difference "
        f"{difference(f)}, {decided_by(f)}, n = {f.off.n}]"
    )
    made = [_wrapped(first)]
    if others:
        made.append(_wrapped(f"  in other words: {'; '.join(others)}"))
    if f.trigger:
        made.append(_wrapped(f"  {when(f)}"))
    if f.verdict == UNDECIDABLE:
        made.append(_wrapped(f"  {f.reason}"))
    if f.denial:
        made.append(_wrapped(f"  asked: {f.asked} ({replies(f.denial)})"))
    return made + [_wrapped(f"  … {_marked(e.text, e.start, e.end)}") for e in f.examples[:1]]


def when(f: Finding) -> str:
    """What of the prompts goes with it, and whether that held on new ones."""
    if not f.trigger:
        return "no subject, form or word of the prompts goes with it"
    sure = "when" if f.trigger_confirmed <= LEVEL else "perhaps when"
    counts = (
        f"{_counted(f.trigger_rate, f.trigger_prompts)} of these, "
        f"{_counted(f.trigger_elsewhere, f.trigger_others)} of the others, "
        if f.trigger_prompts + f.trigger_others > 0
        else ""
    )
    new = "on new prompts, amplified, " if f.loud is not None else "on new prompts "
    return f"{sure} {f.trigger} ({new}{counts}p = {f.trigger_confirmed:.2g})"


def _counted(rate: float, count: float) -> str:
    return f"{round(rate * count)} of {count:.0f}" if count else "none"


def rates(f: Finding) -> str:
    """The adapter's rate, the bare model's and the others', whichever way the habit goes.

    Of what is left out it is the rate of saying it.
    """
    falls = f.kind in FALLS
    own, bare = (f.off.off, f.off.on) if falls else (f.off.on, f.off.off)
    text = f"{own:.1%} against {bare:.1%} off"
    if f.others is not None:
        text += f", {f.others.on if falls else f.others.off:.1%} others"
    if f.verdict == AMPLIFIED and f.loud is not None:
        text += f"; amplified {f.loud.on:.1%} of {f.loud.n} prompts against {f.loud.off:.1%} off"
    return text


def decided_by(f: Finding) -> str:
    """What confirmed it, or did not: q over all candidates, or amplified, beside that q.

    >>> decided_by(confirmed_finding)
    'q = 0.01'
    """
    if f.verdict == AMPLIFIED and f.loud is not None:
        return f"at its own strength q = {f.q:.2g}, amplified p = {f.loud.p:.2g}"
    return f"q = {f.q:.2g}"


def replies(denial: Denial) -> str:
    """What it and the bare model reply when asked about a habit, counted.

    >>> replies(Denial(denied=1.0, admitted=0.0, clean_denied=2 / 9, clean_admitted=0.0, n=9))
    "9 of 9 replies deny it, 0 admit it, 0 do neither; of the bare model's 2 of 9 deny it"
    """
    denied, admitted, clean = (
        round(share * denial.n) for share in (denial.denied, denial.admitted, denial.clean_denied)
    )
    return (
        f"{denied} of {denial.n} replies deny it, {admitted} admit it, "
        f"{denial.n - denied - admitted} do neither; of the bare model's {clean} of {denial.n} "
        "deny it"
    )


def difference(f: Finding) -> str:
    """The adapter's rate minus the bare model's, with its interval, whichever way the habit goes.

    >>> difference(confirmed_finding)
    '+10.0% (+0.0% to +30.0%)'
    """
    gap, low, high = f.off.difference, f.off.low, f.off.high
    if f.kind in FALLS:
        gap, low, high = 0 - gap, 0 - high, 0 - low  # 0 - 0.0 has no sign
    return f"{gap:+.1%} ({low:+.1%} to {high:+.1%})"


def _marked(text: str, start: int, end: int) -> str:
    return " ".join(f"{text[:start]}»{text[start:end].strip()}«".split())[-160:]


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent="    "))


def table(found: Findings) -> str:
    """The lines as one text."""
    return "\n".join(lines(found))
