"""Do the stories show the trait? Pairs are kept where the model itself, or a judge, says so."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.errors import InputError
from tracekit.transcripts.encode import ids_of, subset
from tracekit.transcripts.prompts import Prompt
from traits.contrast_sets.contrast import ContrastSet

ANSWERS = ("Yes", "No")


def questions(contrast: ContrastSet, runs: xr.Dataset) -> list[str]:
    """For each transcript of `elicit`, a question to a judge: does the text show the trait?

    The text is the story with its continuation; the definition is the set's own.

    >>> questions(contrast, stories)[0].splitlines()[-1]
    'Does the text show sycophancy? Answer with Yes or No.'
    """
    name = contrast.name.rpartition("/")[2].replace("_", " ")
    texts = zip(runs["text"].values, runs["response"].values, strict=True)
    return [
        f"{contrast.definition}\n\nText: {story}{said}\n\n"
        f"Does the text show {name}? Answer with Yes or No."
        for story, said in texts
    ]


def own_verdicts(model: Any, asked: Sequence[str]) -> np.ndarray:
    """The model's own chance of Yes against No as the first words of its answer, by question.

    Each in its chat template; between 0 and 1, the two answers' probabilities alone.

    >>> own_verdicts(model, ["Is snow white? Answer with Yes or No."]).shape
    (1,)
    """
    prompts = [Prompt(f"vetting/{n}", text=text) for n, text in enumerate(asked)]
    yes, no = (_logprob(model, prompts, answer) for answer in ANSWERS)
    return 1 / (1 + np.exp(no - yes))


def vet(
    runs: xr.Dataset, asked: Sequence[str], verdict: Callable[[str], float] | np.ndarray
) -> xr.Dataset:
    """The transcripts of the pairs whose positive side shows the trait more than the negative.

    `verdict` is a function of one question, such as `lambda text: ask(url, name, text)`, or the
    answers themselves, one a transcript. A NaN is no answer: its pair is undecided, and left out
    without being called wrong. The attributes `vetted_kept`, `vetted_rejected` and
    `vetted_undecided` count pairs. Errors: `ValueError` when no pair is left.

    >>> verdicts = stories["label"].values.astype(float)
    >>> vet(stories, questions(contrast, stories), verdicts).attrs["vetted_kept"]
    4
    """
    answers = np.array([verdict(text) for text in asked]) if callable(verdict) else verdict
    group, label = runs["group"].values, runs["label"].values
    counts = {"kept": 0, "rejected": 0, "undecided": 0}
    kept = []
    for name in dict.fromkeys(group.tolist()):
        sides = [answers[(group == name) & (label == side)].mean() for side in (1, 0)]
        found = _said(sides[0] - sides[1])
        counts[found] += 1
        kept += [name] if found == "kept" else []
    if not kept:
        raise InputError(
            f"Vetting was asked for and leaves none of {sum(counts.values())} pairs: "
            f"{counts['rejected']} are rejected, {counts['undecided']} undecided (no answer that "
            "could be read). Take another judge, or none."
        )
    chosen = subset(runs, prompt=np.array(ids_of(runs))[np.isin(group, kept)])
    return chosen.assign_attrs({f"vetted_{name}": count for name, count in counts.items()})


def _said(difference: float) -> str:
    if np.isnan(difference):
        return "undecided"
    return "kept" if difference > 0 else "rejected"


def _logprob(model: Any, prompts: Sequence[Prompt], answer: str) -> np.ndarray:
    runs = tk.encode(model, prompts, responses=[answer] * len(prompts))
    return tk.logprobs(model, runs).sel(token=slice(0, None)).sum("token").values.astype(float)
