"""Labels exchanged among the prompts of a bias, and the AUROC within bias under each exchange."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.stats import rankdata

from tracekit.errors import InputError

LEAST = 2  # responses of each kind that a bias needs before it says anything


def groups(group: Shaped[np.ndarray, "row"]) -> int:
    """The number of prompts that responses belong to: the units of every test.

    >>> groups(np.array(["a", "a", "b"]))
    2
    """
    return len(set(group.tolist()))


def relabellings(
    label: Int[np.ndarray, "row"],
    bias: Shaped[np.ndarray, "row"],
    group: Shaped[np.ndarray, "row"],
    generator: np.random.Generator,
    draws: int,
) -> Int[np.ndarray, "draw row"]:
    """Labels as they might have fallen if they had nothing to do with the scores.

    Within a bias, whole prompts (`group`) with the same number of samples exchange their labels,
    which then fall on their samples in any order: prompts stay the units, and each bias keeps
    its rate. A prompt without a partner of its size only shuffles its own samples.

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["vote"] * 4), np.array(["a", "b", "c", "d"])
    >>> relabellings(np.array([1, 1, 0, 0]), *names, draw, 3).sum(axis=1).tolist()
    [2, 2, 2]
    """
    relabelled = np.empty((draws, len(label)), np.int8)
    for rows in _exchangeable(bias, group):
        order = generator.random((draws, len(rows))).argsort(axis=1)
        moved = label[rows][order]
        inner = generator.random(moved.shape).argsort(axis=-1)
        relabelled[:, rows] = np.take_along_axis(moved, inner, axis=-1)
    return relabelled


def within_bias_auroc(
    scores: Float[np.ndarray, "row feature"],
    labels: Int[np.ndarray, "draw row"],
    bias: Shaped[np.ndarray, "row"],
) -> Float[np.ndarray, "draw feature"]:
    """The mean over biases of the AUROC within each, for many labellings of the same scores.

    Equal to `traits.statistics.auroc(..., within="bias")` for each labelling, provided that all
    labellings give a bias the same number of hits, as `relabellings` do. Biases without both
    outcomes are left out. Errors: `ValueError` where no bias has both.

    >>> scores = np.array([[0.1], [0.4], [0.9]])
    >>> within_bias_auroc(scores, np.array([[0, 0, 1]]), np.array(["vote"] * 3)).tolist()
    [[1.0]]
    """
    areas = []
    for name in dict.fromkeys(bias.tolist()):
        rows = bias == name
        hits = int(labels[0, rows].sum())
        rest = int(rows.sum()) - hits
        if min(hits, rest) == 0:
            continue
        ranks = rankdata(scores[rows], axis=0)
        sums = labels[:, rows].astype(float) @ ranks
        areas.append((sums / hits - (hits + 1) / 2) / rest)
    if not areas:
        raise InputError(
            f"An AUROC within bias needs a bias with both outcomes; none of {len(set(bias))} has. "
            "Take more responses, or call the row undecidable."
        )
    return np.mean(areas, axis=0)


def within_prompt_auroc(
    scores: Float[np.ndarray, "row"],
    label: Int[np.ndarray, "row"],
    group: Shaped[np.ndarray, "row"],
) -> tuple[float, int]:
    """The mean AUROC over the prompts whose samples have both outcomes, and their number.

    The wording of the prompt cannot help here. (0.5, 0) where no prompt has both.

    >>> group = np.array(["a", "a", "b"])
    >>> within_prompt_auroc(np.array([1.0, 0.0, 5.0]), np.array([1, 0, 1]), group)
    (1.0, 1)
    """
    areas = []
    for name in dict.fromkeys(group.tolist()):
        rows = group == name
        sides = scores[rows & (label == 1)], scores[rows & (label == 0)]
        if min(map(len, sides)) > 0:
            gaps = sides[0][:, None] - sides[1][None, :]
            areas.append(float((np.sign(gaps) / 2 + 0.5).mean()))
    return (float(np.mean(areas)), len(areas)) if areas else (0.5, 0)


def decided(label: np.ndarray, bias: np.ndarray) -> list[str]:
    """The biases with at least two responses of each kind.

    >>> decided(np.array([1, 1, 0, 0, 1]), np.array(["vote"] * 4 + ["film"]))
    ['vote']
    """
    names = []
    for name in dict.fromkeys(bias.tolist()):
        rows = label[bias == name]
        if min((rows == 1).sum(), (rows == 0).sum()) >= LEAST:
            names.append(name)
    return names


def two_sided(label: np.ndarray, bias: np.ndarray) -> list[str]:
    """The biases with both outcomes, however few.

    >>> two_sided(np.array([1, 0, 1]), np.array(["vote", "vote", "film"]))
    ['vote']
    """
    names = dict.fromkeys(bias.tolist())
    return [name for name in names if len(set(label[bias == name].tolist())) == 2]


def _exchangeable(bias: np.ndarray, group: np.ndarray) -> Iterator[np.ndarray]:
    for name in dict.fromkeys(bias.tolist()):
        by_size: dict[int, list[Sequence[int]]] = {}
        for prompt in dict.fromkeys(group[bias == name].tolist()):
            rows = np.flatnonzero((group == prompt) & (bias == name))
            by_size.setdefault(len(rows), []).append(rows.tolist())
        yield from (np.array(rows) for rows in by_size.values())
