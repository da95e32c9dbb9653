"""The section on units: the weighted trait score again, in other units and handlings."""

from __future__ import annotations

import xarray as xr

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores, choose, composite_auroc
from experiments.audit.evidence.directions_null import projections
from experiments.audit.evidence.relabel import groups
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.evidence.standing import unreadable
from experiments.audit.evidence.trait_vectors import fitted_traces
from traits.vectors.extraction import unit

HEADING = "units"


def rows(audit: Audit) -> list[Row]:
    """The same AUROC in other units and handlings: each chosen and reported like the primary."""
    if audit.reason:
        return [undecidable(HEADING, "all", "AUROC", audit.reason)]
    handlings = {
        "cosine (primary)": audit.scores(),
        "scalar projection": audit.scores("scalar"),
    }
    if unreadable(audit):
        return [_row(audit, name, scores) for name, scores in handlings.items()]
    handlings["cosine, massive dims taken out of the vectors"] = _without_massive_scores(audit)
    return [_row(audit, name, scores) for name, scores in handlings.items()]


def without_massive(
    vectors: xr.DataArray, contrast: xr.DataArray, times: float = 20
) -> xr.DataArray:
    """Vectors with their massive dims set to zero: those of 20 times the median |activation|.

    `contrast` (prompt, layer, dim) are residuals of ordinary text of the model the vectors come
    from.

    >>> ones = xr.DataArray(np.ones((1, 2)), dims=("layer", "dim"))
    >>> text = xr.DataArray([[[1.0, 1.0, 99.0]]], dims=("prompt", "layer", "dim"))
    >>> without_massive(text[0] * 0 + 1, text).values.tolist()
    [[1.0, 1.0, 0.0]]
    """
    size = abs(contrast).mean("prompt")
    massive = size > times * size.median("dim")
    if "layer" in vectors.coords:
        massive = massive.sel(layer=vectors["layer"])
    return vectors.where(~massive, 0.0)


def _without_massive_scores(audit: Audit) -> Scores:
    traces = fitted_traces(audit, audit.traits[0])
    plain = without_massive(audit.vectors.sel(trait=list(audit.traits)), traces)
    [values] = projections(audit.readable, [unit(plain.values, zeros=True)])
    scores = audit.scores()
    return Scores(values, scores.label, scores.bias, scores.group)


def _row(audit: Audit, what: str, scores: Scores) -> Row:
    choice = choose(scores.rows(audit.part("calibration")), audit.allowed)
    held = scores.rows(audit.part("held_out"))
    measure, area = f"AUROC, layer {audit.layers[choice.layer]}", composite_auroc(held, choice)
    return Row(HEADING, what, measure, area, n=groups(held.group))


SECTION = Section(
    HEADING, "The weighted score again, in other units and handlings: AUROC within bias.", rows
)
