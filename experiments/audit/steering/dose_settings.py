"""What one steering experiment is, beside the audit that it belongs to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.audit.settings.validity import LARGEST_SEED, check_number
from tracekit.errors import InputError
from traits.contrast_sets.judge import check_address, without_credentials


@dataclass(frozen=True)
class Steering:
    """The settings of a steering experiment on a finished audit.

    `layer` −1 is the layer that the audit chose for the first trait. `multiples` are of the mean
    residual norm there; below 0 subtracts. `randoms` and `placebos` count the directions of the
    null arms; random ones are added at the mildest multiple below 0 alone, and their answers'
    perplexity is read on the first `guarded` prompts. `steered` prompts, of biases that a rule
    can detect, are steered; the mean difference comes from `difference_prompts` others.
    `questions` bounds a trait's validation, which `judge`, a model at the OpenAI-compatible
    address `judge_url`, scores too if given. `dtype` is of the weights while they are steered
    ("": the audit's own); bfloat16 is faster on a GPU, and on processors that multiply it.
    """

    layer: int = -1
    multiples: tuple[float, ...] = (-0.3, -0.15, 0.15)
    randoms: int = 20
    placebos: int = 2
    guarded: int = 25
    steered: int = 100
    difference_prompts: int = 40
    max_new_tokens: int = 48
    questions: int = 24
    answer_tokens: int = 40
    token_budget: int = 32768
    repetitions: int = 2000
    seed: int = 0
    dtype: str = ""
    judge: str = ""
    judge_url: str = ""


LEAST = {
    "layer": -1,
    "randoms": 1,
    "placebos": 0,
    "guarded": 1,
    "steered": 2,
    "difference_prompts": 2,
    "questions": 2,
    "max_new_tokens": 1,
    "answer_tokens": 1,
    "token_budget": 1,
    "repetitions": 10,
    "seed": 0,
}
MOST = {"seed": LARGEST_SEED}


def chosen(changes: Mapping[str, Any]) -> Steering:
    """The settings with those that are not `None` changed, each checked.

    Errors: `ValueError` for values out of range.

    >>> chosen({"randoms": 3}).randoms
    3
    """
    given = {k: v for k, v in changes.items() if v is not None}
    if "judge_url" in given:
        given["judge_url"] = without_credentials(given["judge_url"])
    made = dataclasses.replace(Steering(), **given)
    for name, least in LEAST.items():
        check_number(name, getattr(made, name), least, MOST.get(name, 1_000_000))
    for multiple in made.multiples:
        check_number("multiples", multiple, -100.0, 100.0)
    if made.judge_url:
        check_address(made.judge_url, "judge_url")
    if (
        not made.multiples
        or 0.0 in made.multiples
        or len(set(made.multiples)) < len(made.multiples)
    ):
        raise InputError(
            f"multiples={list(made.multiples)} was given; name at least one, each once, and not 0, "
            "which the unedited arm is."
        )
    if min(made.multiples) > 0:
        raise InputError(
            f"multiples={list(made.multiples)} was given; one at least is below 0, where the "
            "random arm is tried."
        )
    if bool(made.judge) != bool(made.judge_url):
        raise InputError(
            f"judge={made.judge!r} at judge_url={made.judge_url!r} was given; name both, the model "
            "and the address up to /v1 where it is served, or neither."
        )
    return made
