"""The section on ceilings: what supervision reaches, and the trait score's share of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores, choose, composite
from experiments.audit.evidence.estimates import intervals
from experiments.audit.evidence.relabel import groups
from experiments.audit.evidence.row import Row, of_interval, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.sections.detecting.competitors import trait_score_auroc, words_across

HEADING, COMPONENTS = "ceiling", 5
WITHIN = "words (TF-IDF), trained within the held-out biases"


def rows(audit: Audit) -> list[Row]:
    """What a probe, the difference's top components and words of the bias reach, our fraction."""
    if audit.reason:
        return [undecidable(HEADING, "supervised probe", "AUROC", audit.reason)]
    means, layer = audit.means, audit.choice.layer
    own = means.sel(weights="organism").values[:, layer].astype(float)
    moved = own - means.sel(weights="clean").values[:, layer]
    scores, calibration = audit.scores(), audit.part("calibration")
    texts = audit.rows["response"].values.astype(str).tolist()
    supervised = {
        "supervised probe": _probe(own, scores.label, calibration),
        f"top {COMPONENTS} components of organism − clean": _components(moved, scores, calibration),
        WITHIN: words_within(texts, scores.label, scores.bias, scores.group),
    }
    return [row for what, values in supervised.items() for row in _rows(audit, what, values)]


def words_within(
    texts: Sequence[str], label: np.ndarray, bias: np.ndarray, group: np.ndarray, folds: int = 4
) -> np.ndarray:
    """Scores by TF-IDF fitted on other prompts of the same bias: a ceiling, which sees the bias.

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


def _rows(audit: Audit, what: str, values: np.ndarray) -> list[Row]:
    held_out = audit.part("held_out")
    held = audit.scores().rows(held_out)
    n, layer = groups(held.group), audit.layers[audit.choice.layer]
    measure = "AUROC" if what == WITHIN else f"AUROC, layer {layer}"
    drawn = intervals(
        {what: values[held_out]},
        held.label,
        held.bias,
        held.group,
        float(np.median(values[held_out])),
        audit.generator(f"ceiling {what}"),
        audit.settings.null.repetitions,
    ).sel(quantity=f"auroc {what}")
    area = float(drawn["estimate"])
    rows = [of_interval(HEADING, what, measure, drawn, n)]
    if not rows[0].decided:
        rows = [Row(HEADING, what, measure, area, n=n)]
    if area > 0.5:
        share = (audit.once(trait_score_auroc) - 0.5) / (area - 0.5)
        rows.append(Row(HEADING, what, "fraction reached by the trait score", share, n=n))
    return rows


def _probe(own: np.ndarray, label: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    probe.fit(own[calibration], label[calibration])
    return probe.decision_function(own)


def _components(moved: np.ndarray, scores: Scores, calibration: np.ndarray) -> np.ndarray:
    centre = moved[calibration].mean(axis=0)
    _, _, directions = np.linalg.svd(moved[calibration] - centre, full_matrices=False)
    projected = (moved - centre) @ directions[:COMPONENTS].T
    rows = Scores(projected[:, None], scores.label, scores.bias, scores.group)
    return composite(rows, choose(rows.rows(calibration), np.array([0])))


SECTION = Section(
    HEADING,
    "What may learn from more than the trait score does reaches: AUROC within bias, and the "
    "fraction of it (above chance) that the trait score reaches. No line of the verdict asks to "
    "beat one.",
    rows,
)
