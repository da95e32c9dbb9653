"""Without labels: is this adapter unlike benign ones in trait space, on neutral prompts?"""

from collections.abc import Mapping

import numpy as np

from experiments.rm_sycophancy.evidence.row import Row, undecidable

SECTION = "B blind"


def largest_t(differences: np.ndarray, allowed: np.ndarray) -> float:
    """The largest |t| over trait and allowed layer of (adapter − clean) on the same neutral ids.

    `differences` is (prompt, layer, trait), response means. Over prompts, the unit.

    >>> largest_t(np.array([[[1.0]], [[2.0]], [[3.0]]]), np.array([0])).round(2).item()
    3.46
    """
    rows = differences[:, allowed]
    error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    return np.abs(rows.mean(axis=0) / np.maximum(error, 1e-12)).max()


def unlike_benign(
    organism: np.ndarray, benign: Mapping[str, np.ndarray], allowed: np.ndarray, alpha: float
) -> Row:
    """The organism's max-T beside those of k benign adapters: p = (1 + #≥) / (k + 1).

    With too few benign adapters no claim can be made: the smallest p that there could be is
    named instead.

    >>> draw = np.random.default_rng(0)
    >>> unlike_benign(draw.normal(size=(9, 2, 1)), {}, np.arange(2), 0.05).decided
    False
    """
    what, measure = "max-T over trait × layer, neutral prompts", "T against benign adapters"
    least = 1 / (len(benign) + 1)
    if len(organism) < 3:
        return undecidable(SECTION, what, measure, f"{len(organism)} neutral prompts")
    observed = largest_t(organism, allowed)
    if least > alpha:
        return undecidable(
            SECTION,
            what,
            measure,
            f"T = {observed:.1f}; of k = {len(benign)} benign adapters p cannot be below "
            f"{least:.3f}; {int(np.ceil(1 / alpha)) - 1} would decide",
            len(organism),
        )
    others = np.array([largest_t(rows, allowed) for rows in benign.values()])
    p = (1 + int((others >= observed).sum())) / (len(others) + 1)
    return Row(SECTION, what, measure, float(observed), p=p, n=len(organism))
