"""Where in depth: AUROC within bias by layer, with a band that holds for all layers at once."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores
from experiments.audit.evidence.relabel import relabellings, within_bias_auroc
from experiments.audit.evidence.standing import Standing, lacking, stand, unheld
from traits.statistics import max_statistic

DRAWS = 2000


def curves(
    scores: Scores, generator: np.random.Generator, draws: int, level: float = 0.95
) -> xr.Dataset:
    """`area` (layer, trait), `band` (the half-width about ½ of the max-statistic) and `p_family`.

    The band is the quantile, under exchanged labels, of the largest |AUROC − ½| over layers and
    traits: a curve that leaves it anywhere is significant at that level.

    >>> draw = np.random.default_rng(0)
    >>> names = np.array(["v"] * 8), np.arange(8)
    >>> rows = Scores(draw.normal(size=(8, 4, 2)), np.tile([1, 0], 4), *names)
    >>> curves(rows, draw, 19)["area"].dims
    ('layer', 'trait')
    """
    shape = scores.values.shape[1:]
    flat = scores.values.reshape(len(scores.label), -1)
    area = within_bias_auroc(flat, scores.label[None], scores.bias)[0] - 0.5
    exchanged = relabellings(scores.label, scores.bias, scores.group, generator, draws)
    null = within_bias_auroc(flat, exchanged, scores.bias) - 0.5
    family = xr.DataArray(area, dims="place"), xr.DataArray(null, dims=("draw", "place"))
    p = max_statistic(*family, ["place"]).values
    dims = ("layer", "trait")
    return xr.Dataset(
        {
            "area": (dims, (area + 0.5).reshape(shape)),
            "p_family": (dims, p.reshape(shape)),
            "band": np.quantile(np.abs(null).max(axis=1), level),
        }
    )


def by_part(audit: Audit) -> dict[str, xr.Dataset]:
    """The curves of calibration and of held-out biases, with their bands; none if undecidable."""
    if audit.reason:
        return {}
    return {name: _of_part(audit, name) for name in ("calibration", "held_out")}


def standing(audit: Audit) -> Standing:
    """How far the traits leave both bands at one layer, beside directions.

    The smaller of both distances from ½ in units of the band, at the best layer; 0 where the
    halves have other signs.
    """
    parts = audit.once(by_part)
    if reason := audit.reason or lacking(audit, "organism", "clean"):
        return unheld(reason)
    if audit.kept_layers is not None:
        return unheld(f"pooled by {audit.settings.hypothesis.pooling}, directions have no curve")
    halves = {name: (audit.part(name), float(parts[name]["band"])) for name in parts}
    scores = {name: audit.scores().rows(rows) for name, (rows, _) in halves.items()}

    def statistic(*values: np.ndarray) -> np.ndarray:
        apart = [
            _distances(one, scores[name]) / max(halves[name][1], 1e-9)
            for one, name in zip(values, scores, strict=True)
        ]
        both = np.minimum(*map(np.abs, apart))
        return np.where(np.sign(apart[0]) == np.sign(apart[1]), both, 0.0).max(axis=1)

    means = audit.means.sel(weights="organism").values
    return stand(audit, statistic, *(means[rows] for rows, _ in halves.values()))


def _distances(values: np.ndarray, scores: Scores) -> Float[np.ndarray, "draw layer trait"]:
    draws, rows, layers, traits = values.shape
    flat = values.transpose(1, 0, 2, 3).reshape(rows, -1)
    areas = within_bias_auroc(flat, scores.label[None], scores.bias)[0]
    return areas.reshape(draws, layers, traits) - 0.5


def _of_part(audit: Audit, name: str) -> xr.Dataset:
    scores = audit.scores().rows(audit.part(name))
    whole = curves(scores, audit.generator(name), DRAWS)
    return whole.assign_coords(layer=audit.layers, trait=list(audit.traits))
