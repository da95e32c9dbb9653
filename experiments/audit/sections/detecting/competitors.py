"""The section on competitors: words, length and more on the same splits, and the gain over each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import composite
from experiments.audit.evidence.estimates import TRAIT_SCORE, bounds, intervals
from experiments.audit.evidence.gather import likelihood_ratio
from experiments.audit.evidence.relabel import within_bias_auroc
from experiments.audit.evidence.row import Row, of_interval, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.run import Run

HEADING = "competitors"
PUBLISHED = "the paper's SAE features"
TOKENS = r"(?u)\b\w+\b"


def words_across(texts: Sequence[str], label: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Scores of all texts by a TF-IDF classifier fitted on calibration biases alone.

    >>> texts = ["eat chocolate", "eat soup", "vote now", "read on"]
    >>> words_across(texts, np.array([1, 0, 1, 0]), np.array([True, True, False, False])).shape
    (4,)
    """
    words = TfidfVectorizer(token_pattern=TOKENS, sublinear_tf=True)
    counts = words.fit_transform([t for t, row in zip(texts, calibration, strict=True) if row])
    model = LogisticRegression(C=10, max_iter=1000, class_weight="balanced")
    model.fit(counts, label[calibration])
    return model.decision_function(words.transform(list(texts)))


def word_log_odds(
    texts: Sequence[str], label: np.ndarray, calibration: np.ndarray, prior: float = 0.5
) -> np.ndarray:
    """The mean over a text's words of their smoothed log-odds in calibration responses.

    Source: Monroe et al. 2008, with a flat prior. Words not seen there count 0.

    >>> texts, seen = ["good good", "bad", "good"], np.array([True, True, False])
    >>> word_log_odds(texts, np.array([1, 0, 1]), seen)[2] > 0
    np.True_
    """
    split = TfidfVectorizer(token_pattern=TOKENS).build_analyzer()
    answers = [split(text) for text in texts]
    counts: dict[str, list[float]] = {}
    for words, hit, counted in zip(answers, label, calibration, strict=True):
        for word in words if counted else ():
            counts.setdefault(word, [prior, prior])[int(hit)] += 1
    totals = np.sum(list(counts.values()), axis=0)
    odds = {
        word: np.log(hit / (totals[1] - hit)) - np.log(rest / (totals[0] - rest))
        for word, (rest, hit) in counts.items()
    }
    return np.array([np.mean([odds.get(w, 0.0) for w in words] or [0.0]) for words in answers])


def signed(
    score: np.ndarray, label: np.ndarray, bias: np.ndarray, calibration: np.ndarray
) -> np.ndarray:
    """A score, or minus it, so that exploiting calibration responses are the higher ones.

    >>> v = np.array(["v", "v"])
    >>> signed(np.array([1.0, 0.0]), np.array([0, 1]), v, np.array([True, True])).tolist()
    [-1.0, -0.0]
    """
    rows = calibration
    area = within_bias_auroc(score[rows, None], label[rows][None], bias[rows])[0, 0]
    return score if area >= 0.5 else -score


def rows(audit: Audit) -> list[Row]:
    """AUROCs of all scores on held-out biases and the trait score's gain over each.

    With the trait score's balanced accuracy and r.
    """
    estimates = audit.once(compared)
    if estimates is None:
        return [undecidable(HEADING, "all competitors", "AUROC", audit.reason)]
    n, rows = audit.held_out_prompts, []
    for quantity in estimates["quantity"].values.astype(str):
        name, is_area = quantity.removeprefix("auroc "), quantity.startswith("auroc ")
        what, measure = (name, "AUROC") if is_area else (TRAIT_SCORE, quantity)
        rows.append(of_interval(HEADING, what, measure, estimates.sel(quantity=quantity), n))
    for name, values in audit.once(_held_out).items():
        if lacking := int((~np.isfinite(values)).sum()):
            reason = f"{lacking} of {len(values)} without a score"
            rows.append(undecidable(HEADING, name, "AUROC", reason))
    return [*rows, undecidable(HEADING, PUBLISHED, "AUROC", "published, not comparable")]


def compared(audit: Audit) -> xr.Dataset | None:
    """The intervals of all quantities (`estimates.intervals`): one bootstrap, the same draws.

    None where detection cannot be decided; without competitors that lack a score.
    """
    if audit.reason:
        return None
    held = audit.scores().rows(audit.part("held_out"))
    whole = {k: v for k, v in audit.once(_held_out).items() if np.isfinite(v).all()}
    generator, repetitions = audit.generator("intervals"), audit.settings.null.repetitions
    threshold = audit.choice.threshold
    return intervals(whole, held.label, held.bias, held.group, threshold, generator, repetitions)


def trait_score_auroc(audit: Audit) -> float:
    """The AUROC of the trait score on held-out biases; NaN where it cannot be decided."""
    return bounds(audit.once(compared), f"auroc {TRAIT_SCORE}")[0]


def scores(audit: Audit) -> dict[str, np.ndarray]:
    """One score a response by name, the trait score first; signs learnt on calibration biases.

    Rows that cannot be scored (a judge that failed) are NaN; empty where nothing can be decided.
    """
    if audit.reason:
        return {}
    labelled, calibration = audit.scores(), audit.part("calibration")
    signs = {
        name: signed(values, labelled.label, labelled.bias, calibration)
        if np.isfinite(values).all()
        else values
        for name, values in _unsigned(audit).items()
    }
    return {TRAIT_SCORE: composite(labelled, audit.choice), **signs, **_learnt(audit)}


def _unsigned(audit: Audit) -> dict[str, np.ndarray]:
    rows = audit.rows
    length = rows["length"].values.astype(float)
    questions = tk.open(Run(audit.folder).questions).sel(prompt=rows["prompt"].values)
    return {
        "length": length,
        "position": rows["prompt_length"].values + length / 2.0,
        "activation norm": rows["norm"].values[:, audit.choice.layer].astype(float),
        "log-likelihood ratio of the weights": likelihood_ratio(audit.folder, rows),
        **{str(way): questions.sel(way=way).values for way in questions["way"].values},
    }


def _learnt(audit: Audit) -> dict[str, np.ndarray]:
    labelled, calibration = audit.scores(), audit.part("calibration")
    label, texts = labelled.label, audit.rows["response"].values.astype(str).tolist()
    clean = composite(audit.scores("clean_score"), audit.choice_for("clean_score"))
    return {
        "words (TF-IDF), across biases": words_across(texts, label, calibration),
        "word log-odds": word_log_odds(texts, label, calibration),
        "the same trait score, clean weights": clean,
    }


def _held_out(audit: Audit) -> dict[str, np.ndarray]:
    held_out = audit.part("held_out")
    return {name: values[held_out] for name, values in audit.once(scores).items()}


SECTION = Section(
    HEADING,
    "What else tells them, on the same splits: AUROC within bias; a gain above 0 means it is "
    "beaten.",
    rows,
)
