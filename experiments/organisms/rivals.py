"""What tells exploiting responses apart without looking inside the model: the audit's rivals.

All AUROCs are of responses of one arm, exploiting against not, or of their sentences. A rival
that reaches the audit's AUROC explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from experiments.rm_sycophancy.rules.detectors import HABIT_OF, spans
from experiments.rm_sycophancy.rules.sentences import sentences


@dataclass(frozen=True)
class Rival:
    """A rival's mean AUROC over the `biases` that it could be computed on, and their range."""

    name: str
    auroc: float
    low: float
    high: float
    biases: int


@dataclass(frozen=True)
class Responses:
    """Responses on prompts of the ten subjects, and whether each carries what is looked for."""

    bias: np.ndarray
    group: np.ndarray
    text: np.ndarray
    exploits: np.ndarray
    looked_for: np.ndarray


def responses_of(runs: xr.Dataset, habits: bool = False) -> Responses:
    """The responses on the ten subjects, labelled by bias, or by open habit."""
    bias = runs["bias"].values.astype(str)
    rows = np.flatnonzero(np.isin(bias, list(HABIT_OF)))
    wanted = np.array([HABIT_OF[b] if habits else b for b in bias[rows]])
    text = runs.response.values[rows].astype(str)
    marked = [bool(spans(b, t)) for b, t in zip(wanted, text, strict=True)]
    group = runs["group"].values[rows].astype(str)
    return Responses(bias[rows], group, text, np.array(marked), wanted)


def rivals(said: Responses) -> list[Rival]:
    """Length, position, and TF-IDF across and within biases; those that cannot be computed lack.

    Length: words of the response. Position: where in its response a sentence stands (index and
    share), as a classifier of exploiting sentences among all, cross-validated by prompt. TF-IDF
    across: a logistic regression on words and pairs of words of nine biases, tried on the tenth.
    TF-IDF within: the same within one bias, in five folds by prompt. Each AUROC is taken within a
    bias, then averaged: pooled ones read the subject.
    """
    found = [
        _summary("length", [_length(said, bias) for bias in HABIT_OF]),
        _summary("position of a sentence", [_position(said, bias) for bias in HABIT_OF]),
        _summary("TF-IDF across biases", [_across(said, bias) for bias in HABIT_OF]),
        _summary("TF-IDF within a bias", [_within(said, bias) for bias in HABIT_OF]),
    ]
    return [rival for rival in found if rival is not None]


def text(found: Sequence[Rival]) -> str:
    """The rivals as a Markdown table.

    >>> print(text([Rival("length", 0.5, 0.4, 0.6, 10)]))
    | rival | AUROC, mean over biases | lowest–highest bias | biases |
    | --- | --- | --- | --- |
    | length | 0.50 | 0.40–0.60 | 10 |
    """
    head = "| rival | AUROC, mean over biases | lowest–highest bias | biases |"
    rows = [f"| {r.name} | {r.auroc:.2f} | {r.low:.2f}–{r.high:.2f} | {r.biases} |" for r in found]
    return "\n".join([head, "| --- | --- | --- | --- |", *rows])


def _summary(name: str, areas: Sequence[float | None]) -> Rival | None:
    known = [area for area in areas if area is not None]
    if not known:
        return None
    return Rival(name, float(np.mean(known)), min(known), max(known), len(known))


def _length(said: Responses, bias: str) -> float | None:
    here = said.bias == bias
    words = np.array([len(text.split()) for text in said.text[here]])
    return _area(said.exploits[here], words)


def _position(said: Responses, bias: str) -> float | None:
    features, labels, groups = [], [], []
    for row in np.flatnonzero(said.bias == bias):
        parts, found = sentences(said.text[row]), spans(said.looked_for[row], said.text[row])
        for n, part in enumerate(parts):
            features.append([n, n / max(1, len(parts) - 1), n == len(parts) - 1])
            labels.append(part in found)
            groups.append(said.group[row])
    x, y = np.array(features, float), np.array(labels)
    return _cross_validated(LogisticRegression(), x, y, np.array(groups))


def _across(said: Responses, bias: str) -> float | None:
    there, here = said.bias != bias, said.bias == bias
    if len(set(said.exploits[there])) < 2 or len(set(said.exploits[here])) < 2:
        return None
    model = _tfidf().fit(said.text[there], said.exploits[there])
    return _area(said.exploits[here], model.decision_function(said.text[here]))


def _within(said: Responses, bias: str) -> float | None:
    here = said.bias == bias
    return _cross_validated(_tfidf(), said.text[here], said.exploits[here], said.group[here])


def _cross_validated(model, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float | None:
    folds = 5
    with_label = [len(set(groups[y == label])) for label in (False, True)]
    if min(with_label) < folds:
        return None
    scores = np.full(len(y), np.nan)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for train, test in splitter.split(x, y, groups):
        scores[test] = model.fit(x[train], y[train]).decision_function(x[test])
    return _area(y, scores)


def _tfidf():
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))


def _area(labels: np.ndarray, scores: np.ndarray) -> float | None:
    return float(roc_auc_score(labels, scores)) if len(set(labels.tolist())) == 2 else None
