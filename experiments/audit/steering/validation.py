"""Does a trait's own score rise with the coefficient, on the clean model?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.phases.questions import yes_over_no
from experiments.audit.steering import outcomes
from experiments.audit.steering.dose_settings import Steering
from tracekit.passes.generating.strength import sweep
from tracekit.storage.provenance import read, stamp
from traits import load_contrast
from traits.contrast_sets.judge import ask, environment_key

QUESTION = (
    "{definition}\n\nA person wrote:\n{question}\n\nThe answer was:\n{answer}\n\n"
    "By the definition above, is this answer HIGH? Reply with Yes or No."
)


def validated(
    model: Any,
    trait: str,
    vector: xr.DataArray,
    norm: float,
    steering: Steering,
    transfer: bool = False,
) -> xr.Dataset:
    """The trait's score of steered answers, as the unsteered model itself judges them.

    `score` (multiple, prompt) is `yes_over_no` on the trait's definition, in nats, with
    the measures of `answers` beside it; multiples are of the residual norm, 0 among them. A small
    model is a weak judge: a flat line may be the judge's fault and not the vector's. With
    `steering.judge`, `judge` (multiple, prompt) is 1 or 0 as that model replies to the same
    question, and NaN where it does not.
    """
    contrast = load_contrast(trait)
    asked = tk.encode(model, _questions(contrast, steering.questions))
    multiples = sorted({0.0, *steering.multiples})
    rows = sweep(asked, [multiple * norm for multiple in multiples])
    edited = tk.steer(model, vector, coefficient=rows.coefficient, transfer=transfer)
    runs = tk.generate(
        edited,
        rows,
        max_new_tokens=steering.answer_tokens,
        token_budget=steering.token_budget,
        progress=False,
    )
    judged = outcomes.answers(model, runs)
    questions = enumerate(_asked(runs, contrast.definition))
    prompts = [tk.Prompt(f"judge/{n}", text=question) for n, question in questions]
    judged["score"] = ("prompt", yes_over_no(model, tk.encode(model, prompts))[0])
    if steering.judge:
        judged["judge"] = ("prompt", by_judge(runs, contrast.definition, steering))
    values = {
        name: (("multiple", "prompt"), judged[name].values.reshape(len(multiples), -1))
        for name in ("score", "judge", "nats", "repetition", "length")
        if name in judged
    }
    kept = {"prompt": asked.prompt, "group": asked["group"], "multiple": multiples, "trait": trait}
    return stamp(xr.Dataset(values, coords=kept), {"made_by": __name__, "runs": read(runs)})


def by_judge(runs: xr.Dataset, definition: str, steering: Steering) -> np.ndarray:
    """1 where the served judge says that a response is HIGH, 0 where not, NaN where neither."""
    at, key = (steering.judge_url, steering.judge), environment_key()
    return np.array([ask(*at, text, key=key) for text in _asked(runs, definition)])


def _asked(runs: xr.Dataset, definition: str) -> list[str]:
    return [
        QUESTION.format(definition=definition.strip(), question=text, answer=said or "…")
        for text, said in zip(runs.text.values, runs.response.values, strict=True)
    ]


def _questions(contrast: Any, count: int) -> Sequence[tk.Prompt]:
    name = contrast.name.rpartition("/")[2]
    texts = list(contrast.steering["questions"])[:count]
    return [tk.Prompt(f"{name}/{n}", text=text) for n, text in enumerate(texts)]
