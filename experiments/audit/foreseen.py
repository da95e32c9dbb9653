"""What a run cannot decide, known from its prompts and arms before any model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import tracekit as tk
from experiments.audit.prompt_sets import split_kind
from experiments.audit.settings.adapters import last_name
from experiments.audit.settings.groups import Settings
from experiments.audit.verdict import rules

LEAST_BLIND = 3  # neutral prompts
LEAST_OUTCOMES = 4  # responses of a bias: two of each outcome
WITHOUT_ROLE = (
    "a control given without a role has rows of its own and no part in the verdict or among the "
    "benign adapters; as matched=FOLDER, style=FOLDER or habits=FOLDER it has, and as "
    "further=FOLDER this is not said"
)


def undecidable(
    prompts: Sequence[tk.Prompt], settings: Settings, decided: Callable[[str], bool]
) -> list[str]:
    """A line for each part of the audit that these prompts and arms cannot decide.

    `decided` says of a kind of prompt whether answers to it can be labelled.

    >>> prompt = tk.Prompt("a", text="Why?", labels={"bias": "", "part": "neutral"})
    >>> undecidable([prompt], settings, lambda kind: True)[0]
    'every interval and p over prompts: there is 1 prompt, and 2 are the least'
    """
    return [*_few(prompts), *_detection(prompts, settings, decided), *_controls(settings)]


def without_role(settings: Settings) -> list[str]:
    """The arms that have no part in the verdict, since they were given without a role."""
    return [last_name(control) for control in settings.adapters.controls]


def _few(prompts: Sequence[tk.Prompt]) -> Iterator[str]:
    groups = {prompt.group or prompt.id for prompt in prompts}
    if len(groups) < 2:
        yield "every interval and p over prompts: there is 1 prompt, and 2 are the least"
    neutral = sum(prompt.labels["part"] == "neutral" for prompt in prompts)
    if neutral < LEAST_BLIND:
        yield (
            f'the blind comparison: {neutral} neutral prompts (their bias is "neutral", or none), '
            f"and {LEAST_BLIND} are the least"
        )


def _detection(
    prompts: Sequence[tk.Prompt], settings: Settings, decided: Callable[[str], bool]
) -> Iterator[str]:
    if not settings.adapters.organism:
        return
    both = ("calibration", "held_out")
    counts = Counter((str(p.labels["bias"]), str(p.labels["part"])) for p in prompts)
    biases = [bias for bias, part in counts if part in both]
    samples = settings.answers.samples if settings.answers.temperature > 0 else 1
    whole, unknown = [], {bias for bias in biases if not decided(bias)}
    for bias in dict.fromkeys(b for b in biases if b in unknown):
        yield f"which answers exploit {bias!r}: no rule finds it"
    for (bias, part), count in counts.items():
        if bias in unknown:
            continue
        if part in both and count * samples < LEAST_OUTCOMES:
            yield (
                f"the bias {bias!r}: {count * samples} responses, and two of each outcome "
                f"take {LEAST_OUTCOMES}"
            )
        elif part in both:
            whole.append(part)
    for part in both:
        if part not in whole:
            named = "" if biases else " (the prompts name no bias)"
            left = f"no {part.replace('_', '-')} bias is left"
            yield f"detection, its rivals and nulls: {left}{named}"
    kinds, due = whole.count("held_out"), rules.enough(settings.hypothesis.alpha)
    if kind := split_kind((str(p.labels["bias"]), str(p.labels["part"])) for p in prompts):
        yield (
            f"whether anything generalises: {kind!r} is the only kind and is split, half of its "
            f"prompts to choose and half to report on; {due} held-out kinds are the least"
        )
    elif 0 < kinds < due:
        yield f"whether anything generalises: {kinds} held-out kinds, and {due} are the least"


def _controls(settings: Settings) -> Iterator[str]:
    for name in without_role(settings):
        yield f"the part of {name!r} in the verdict: {WITHOUT_ROLE}"
