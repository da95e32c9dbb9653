"""How far the words of the stories alone tell the twins apart: the rival of every vector."""

import numpy as np
import xarray as xr
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from tracekit.errors import InputError
from traits.contrast_sets.chats import ChatSet
from traits.contrast_sets.contrast import ContrastSet
from traits.statistics import cluster_bootstrap, rank_auroc


def lexical_scores(contrast: ContrastSet, folds: int = 5) -> xr.Dataset:
    """Scores of held-out pairs by their words alone: `positive`, `negative`, `fold` over `pair`.

    Logistic regression on the presence of words, fitted on the pairs of the other folds. Raises
    ValueError for sets of fewer than two pairs a fold.

    >>> lines = [f"{word} there" for word in "abcdefghijkl"]
    >>> words = ContrastSet("mine/words", tuple("yes " + x for x in lines), tuple(lines))
    >>> scores = lexical_scores(words)
    >>> bool((scores["positive"] > scores["negative"]).all())
    True
    """
    count = len(contrast)
    if count < 2 * folds:
        raise InputError(
            f"A classifier on held-out pairs needs {2 * folds} pairs, and {contrast.name!r} has "
            f"{count}. Write more."
        )
    text, label = np.array([*contrast.positive, *contrast.negative]), np.repeat([1, 0], count)
    pair, scores, fold = np.tile(np.arange(count), 2), np.zeros(2 * count), np.zeros(count, int)
    for number, (fit, held) in enumerate(GroupKFold(folds).split(text, label, pair)):
        words = CountVectorizer(binary=True, token_pattern=r"(?u)\b\w+\b")
        model = LogisticRegression(max_iter=1000).fit(words.fit_transform(text[fit]), label[fit])
        scores[held] = model.decision_function(words.transform(text[held]))
        fold[pair[held]] = number
    rows = {"positive": ("pair", scores[:count]), "negative": ("pair", scores[count:])}
    return xr.Dataset(rows, coords={"fold": ("pair", fold)})


def lexical_auroc(scores: xr.Dataset) -> tuple[float, float, float]:
    """The AUROC of `lexical_scores`, mean over folds, with its 95 % interval over pairs.

    >>> rows = {"positive": ("pair", [1.0, 2.0]), "negative": ("pair", [0.0, 0.5])}
    >>> lexical_auroc(xr.Dataset(rows, coords={"fold": ("pair", [0, 0])}))
    (1.0, 1.0, 1.0)
    """
    found = cluster_bootstrap(
        scores,
        _fold_mean,
        generator=np.random.default_rng(0),
        dim="pair",
        group=None,
        strata="fold",
        repetitions=400,
    )
    return float(found["estimate"]), float(found["low"]), float(found["high"])


def ordered_share(scores: xr.Dataset) -> float:
    """The share of held-out pairs whose positive twin scores higher by words; ties a half.

    >>> rows = {"positive": ("pair", [1.0, 0.0]), "negative": ("pair", [0.0, 0.0])}
    >>> ordered_share(xr.Dataset(rows))
    0.75
    """
    return float((np.sign(scores["positive"] - scores["negative"]) / 2 + 0.5).mean())


def words_across(chats: ChatSet, teacher: str, judged: str) -> float:
    """The AUROC on one writer's answers of the words that another writer's pairs teach.

    Logistic regression on the TF-IDF of words. It is 0.5 where nothing but what an answer does
    tells the sides apart, and where both writers use other words for it.

    >>> 0.0 <= words_across(chats, "a", "b") <= 1.0
    True
    """
    texts, labels = {}, {}
    for writer in (teacher, judged):
        rows = [pair for pair in chats.pairs if pair.writer == writer]
        texts[writer] = [*(pair.shows for pair in rows), *(pair.lacks for pair in rows)]
        labels[writer] = np.repeat([1, 0], len(rows))
    words = TfidfVectorizer()
    model = LogisticRegression(max_iter=1000)
    model.fit(words.fit_transform(texts[teacher]), labels[teacher])
    scores = model.decision_function(words.transform(texts[judged]))
    shows = labels[judged] == 1
    return float(rank_auroc(scores[shows], scores[~shows]))


def _fold_mean(rows: xr.Dataset) -> xr.DataArray:
    fold, sides = rows["fold"].values, (rows["positive"].values, rows["negative"].values)
    held = [fold == number for number in np.unique(fold)]
    areas = [rank_auroc(sides[0][rows], sides[1][rows]) for rows in held]
    return xr.DataArray(np.mean(areas))
