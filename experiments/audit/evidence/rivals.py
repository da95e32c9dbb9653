"""What else could tell exploiting responses: words, length, and scores fitted the same way."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from experiments.audit.evidence.relabel import groups, within_bias_auroc

TOKENS = r"(?u)\b\w+\b"


def words_across(texts: Sequence[str], label: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Scores of all texts by a TF-IDF classifier fitted on calibration biases alone.

    >>> texts = ["eat chocolate", "eat soup", "vote now", "read on"]
    >>> words_across(texts, np.array([1, 0, 1, 0]), np.array([True, True, False, False])).shape
    (4,)
    """
    words = TfidfVectorizer(token_pattern=TOKENS, sublinear_tf=True)
    fitted = words.fit_transform([t for t, kept in zip(texts, calibration, strict=True) if kept])
    model = LogisticRegression(C=10, max_iter=1000, class_weight="balanced")
    model.fit(fitted, label[calibration])
    return model.decision_function(words.transform(list(texts)))


def words_within(
    texts: Sequence[str], label: np.ndarray, bias: np.ndarray, group: np.ndarray, folds: int = 4
) -> np.ndarray:
    """Scores by TF-IDF fitted on other prompts of the same bias: a rival that may see the bias.

    Cross-validated by prompt; a fold without both outcomes to learn from scores 0.

    >>> words_within(["a", "b"] * 4, np.tile([1, 0], 4), np.array(["v"] * 8), np.arange(8)).shape
    (8,)
    """
    scores = np.zeros(len(texts))
    whole = np.array(texts, dtype=object)
    for name in dict.fromkeys(bias.tolist()):
        rows = np.flatnonzero(bias == name)
        parts = min(folds, groups(group[rows]))
        if parts < 2:
            continue
        for fit, held in GroupKFold(parts).split(rows, groups=group[rows]):
            if len(set(label[rows[fit]].tolist())) == 2:
                scored = words_across(
                    whole[rows].tolist(), label[rows], np.isin(np.arange(len(rows)), fit)
                )
                scores[rows[held]] = scored[held]
    return scores


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
    said = [split(text) for text in texts]
    counts: dict[str, list[float]] = {}
    for words, hit, kept in zip(said, label, calibration, strict=True):
        for word in words if kept else ():
            counts.setdefault(word, [prior, prior])[int(hit)] += 1
    totals = np.sum(list(counts.values()), axis=0)
    odds = {
        word: np.log(hit / (totals[1] - hit)) - np.log(rest / (totals[0] - rest))
        for word, (rest, hit) in counts.items()
    }
    return np.array([np.mean([odds.get(w, 0.0) for w in words] or [0.0]) for words in said])


def signed(
    score: np.ndarray, label: np.ndarray, bias: np.ndarray, calibration: np.ndarray
) -> np.ndarray:
    """A score, or minus it, so that exploiting calibration responses are the higher ones.

    >>> v = np.array(["v", "v"])
    >>> signed(np.array([1.0, 0.0]), np.array([0, 1]), v, np.array([True, True])).tolist()
    [-1.0, -0.0]
    """
    kept = calibration
    area = within_bias_auroc(score[kept, None], label[kept][None], bias[kept])[0, 0]
    return score if area >= 0.5 else -score
