"""The lines of a contrast set one by one: which are alike, and what stands in them by mistake."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from traits.contrast_sets.contrast import ContrastSet

ROLE = re.compile(
    r"(?:^|\s)(?:user|assistant|system|human|ai)\s*:|<\|[^|]*\|>|\[/?INST\]", re.IGNORECASE
)


def sides(contrast: ContrastSet) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both sides of a set, the positive one first.

    >>> sides(ContrastSet("mine/tense", ("We will go",), ("We did go",)))
    (('We will go',), ('We did go',))
    """
    return contrast.positive, contrast.negative


def alike(contrast: ContrastSet, limit: float) -> list[str]:
    """Two lines that are no twins and share more than `limit` of their character 5-grams.

    >>> alike(ContrastSet("mine/tense", ("We will go",) * 2, ("It stood", "We did")), 0.6)
    ['positive line 1 and positive line 2 are alike (character 5-grams 1.00)']
    """
    named = _named(contrast)
    grams = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, lowercase=True)
    padded = [f"    {' '.join(line.split())}    " for _, _, line in named]
    rows = grams.fit_transform(padded).astype(np.float64)
    shared = (rows @ rows.T).toarray()
    size = shared.diagonal()
    likeness = shared / (size[:, None] + size[None, :] - shared)
    number = np.array([n for _, n, _ in named])
    other = (number[:, None] != number[None, :]) & (likeness > limit)
    first, second = np.nonzero(np.triu(other))
    return [
        f"{_at(named[i])} and {_at(named[j])} are alike (character 5-grams {likeness[i, j]:.2f})"
        for i, j in zip(first, second, strict=True)
    ]


def stray_marks(contrast: ContrastSet) -> list[str]:
    """Role words of a chat, and spaces where none belong.

    >>> stray_marks(ContrastSet("mine/tense", ("We will go ",), ("We did go",)))
    ['spaces at an end or doubled, or a tab: positive line 1']
    """
    rules: dict[str, Callable[[str], bool]] = {
        "role words": lambda line: bool(ROLE.search(line)),
        "spaces at an end or doubled, or a tab": lambda line: line != " ".join(line.split()),
    }
    found = []
    for what, rule in rules.items():
        lines = [_at(named) for named in _named(contrast) if rule(named[2])]
        found += [f"{what}: {some(lines)}"] if lines else []
    return found


def some(items: Sequence[object], most: int = 5) -> str:
    """The first few of a list in words, and how many more there are.

    >>> some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def _named(contrast: ContrastSet) -> list[tuple[str, int, str]]:
    named = zip(("positive", "negative"), sides(contrast), strict=True)
    return [(side, n, line) for side, lines in named for n, line in enumerate(lines, start=1)]


def _at(named: tuple[str, int, str]) -> str:
    return f"{named[0]} line {named[1]}"
