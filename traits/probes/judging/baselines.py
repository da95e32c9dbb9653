"""What the texts alone tell: words and length, learnt on the part that the probe was fitted on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tracekit.errors import InputError

BASELINES = ("tf-idf", "length")
TOKENS = r"(?u)\b\w+\b"  # one letter is a word too


def text_scores(
    texts: Sequence[str], label: Shaped[np.ndarray, "row"], fit: Bool[np.ndarray, "row"]
) -> Float[np.ndarray, "row baseline"]:
    """The log-odds that words (TF-IDF) and length give each text, fitted on the rows `fit`.

    Words and pairs of words by scikit-learn's `TfidfVectorizer(sublinear_tf=True)`, length as the
    logarithm of one plus the number of characters; `LogisticRegression` with balanced classes on
    either. A text of words never seen scores what no words do. Columns are `BASELINES`. Raises
    ValueError where the rows of `fit` are of one label, or hold no word.

    >>> texts, label = ["a rose", "a rose is red", "sky", "the sky"], np.array([1, 1, 0, 0])
    >>> scores = text_scores(texts, label, np.array([True, True, True, False]))
    >>> scores.shape, bool(scores[0, 0] > scores[3, 0])
    ((4, 2), True)
    """
    known = [text for text, row in zip(texts, fit, strict=True) if row]
    counts = [int((label[fit] == side).sum()) for side in (1, 0)]
    if min(counts) == 0:
        raise InputError(
            f"Text baselines are learnt on the part 'fit', and its {len(known)} texts have "
            f"{counts[0]} positive and {counts[1]} negative labels. Give the texts and labels of "
            "the prompts that the probe was fitted on too, or leave texts out."
        )
    if not any(TfidfVectorizer(token_pattern=TOKENS).build_analyzer()(text) for text in known):
        raise InputError(
            f"None of the {len(known)} texts of the part 'fit' holds a word. Give the responses' "
            "texts, such as runs.response."
        )
    words = TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), sublinear_tf=True)
    by_words = make_pipeline(
        words, LogisticRegression(C=10, max_iter=1000, class_weight="balanced")
    )
    by_length = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    length = np.log1p([[len(text)] for text in texts])
    scores = [
        by_words.fit(known, label[fit]).decision_function(list(texts)),
        by_length.fit(length[fit], label[fit]).decision_function(length),
    ]
    return np.stack(scores, axis=1)
