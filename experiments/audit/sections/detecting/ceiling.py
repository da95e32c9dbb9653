"""The section on ceilings: what supervised directions reach, and the trait score's share of it."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores, choose, composite
from experiments.audit.evidence.relabel import groups, within_bias_auroc
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.sections.detecting.competitors import trait_score_auroc

HEADING, COMPONENTS = "ceiling", 5


def rows(audit: Audit) -> list[Row]:
    """What a supervised probe and the difference's top components reach, and our fraction."""
    if audit.reason:
        return [undecidable(HEADING, "supervised probe", "AUROC", audit.reason)]
    means, layer = audit.means, audit.choice.layer
    own = means.sel(weights="organism").values[:, layer].astype(float)
    moved = own - means.sel(weights="clean").values[:, layer]
    scores, calibration = audit.scores(), audit.part("calibration")
    supervised = {
        "supervised probe": _probe(own, scores.label, calibration),
        f"top {COMPONENTS} components of organism − clean": _components(moved, scores, calibration),
    }
    return [row for what, values in supervised.items() for row in _rows(audit, what, values)]


def _rows(audit: Audit, what: str, values: np.ndarray) -> list[Row]:
    held_out = audit.part("held_out")
    held = audit.scores().rows(held_out)
    area = within_bias_auroc(values[held_out, None], held.label[None], held.bias)[0, 0]
    n, layer = groups(held.group), audit.layers[audit.choice.layer]
    rows = [Row(HEADING, what, f"AUROC, layer {layer}", area, n=n)]
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
    "What supervised directions reach: AUROC within bias, and the fraction of it (above chance) "
    "that the trait score reaches.",
    rows,
)
