"""How an audit's traits stand beside directions that know nothing of them, and why some cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.directions_null import (
    Directions,
    Statistic,
    Values,
    largest,
    matched,
    p_of,
    placebo,
    themselves,
)
from experiments.audit.evidence.row import Row
from experiments.audit.evidence.trait_vectors import chosen_window
from experiments.audit.run import Run

NO_PLACEBO = "no placebo traits were captured in this run (a full evaluation does)"
AGAIN = "the phase replay of today keeps them"


@dataclass(frozen=True)
class Standing:
    """p of each trait beside random directions and beside placebo traits; `reason` if one is NaN.

    Beside random directions: the larger p of two covariances, that of the change and that of
    activations. Beside placebo traits: the share of sets of as many of them, and no less than
    1 / (m + 1) of m placebo traits, since sets overlap. The best of k traits that are no more than
    placebos is beyond all m in k / (k + m) of cases.
    """

    directions: Float[np.ndarray, trait]
    placebo: Float[np.ndarray, trait]
    reason: str = ""

    def of(self, row: Row, trait: int | None = None) -> Row:
        """A row with its p: of one trait, or of the best."""
        if not self.directions.size:
            return replace(row, no_null=self.reason)
        both = self.directions, self.placebo
        first, second = (float(one.min() if trait is None else one[trait]) for one in both)
        return replace(row, p_directions=first, p_placebo=second, no_null=self.reason)


def unheld(reason: str) -> Standing:
    """No directions to stand beside, and why.

    >>> unheld("no unit means").reason
    'no unit means'
    """
    return Standing(np.empty(0), np.empty(0), reason)


def stand(
    audit: Audit,
    statistic: Statistic,
    *values: Values,
    change: str = "organism",
    places: Iterable[int] | None = None,
) -> Standing:
    """The traits' statistic beside that of as many directions, each through the same choices.

    `values` are unit means (or tokens, `Audit.readable`), of which `statistic` gets the
    projections; `change` is the adapter whose change gives the covariance; `places` are the layers
    that the statistic looks at, if not all: the others are NaN.
    """
    own = traits_of(audit)
    observed = statistic(*(own.projected(array, places) for array in values))[0]
    return beside(audit, observed, statistic, *values, change=change, places=places)


def beside(
    audit: Audit,
    observed: Float[np.ndarray, trait],
    statistic: Statistic,
    *values: Values,
    change: str = "organism",
    places: Iterable[int] | None = None,
) -> Standing:
    """The same of an `observed` statistic, on the scale of the best of a draw's directions."""
    if reason := lacking(audit, change):
        return unheld(reason)
    random = [
        p_of(observed, largest(directions, statistic, *values, places=places))
        for directions in random_directions(audit, change)
    ]
    p = np.max(random, axis=0)
    nothing, alpha = np.full(len(p), np.nan), audit.settings.hypothesis.alpha
    placebos = audit.once(placebos_of)
    if isinstance(placebos, str):
        return Standing(p, nothing, placebos)
    # sets overlap: however many there are, they are of that many traits
    count = len(placebos.samples)
    if (least := 1 / (count + 1)) > alpha:
        reason = f"of {count} placebo traits no p below {least:.3f} is possible"
        return Standing(p, nothing, reason)
    sets = largest(placebos, statistic, *values, places=places)
    return Standing(p, np.maximum(p_of(observed, sets), least))


def traits_of(audit: Audit) -> Directions:
    """The primary traits' own vectors, as one draw."""
    vectors = audit.vectors.sel(trait=list(audit.traits)).transpose("trait", "layer", "dim")
    return themselves(vectors.values)


def lacking(audit: Audit, *names: str) -> str:
    """Why unit means of these adapters cannot be read; empty where they can."""
    there = audit.means["weights"].values.astype(str).tolist()
    if absent := [name for name in names if name not in there]:
        return f"no unit means of {', '.join(absent)} in this run; {AGAIN}"
    return ""


def unreadable(audit: Audit, *names: str) -> str:
    """Why no direction can be scored as responses are; empty where any can."""
    if reason := lacking(audit, *names):
        return reason
    kept = audit.kept_layers
    if kept is None or np.isin(audit.layers[audit.allowed], kept).all():
        return ""
    low, high = audit.layers[audit.allowed[[0, -1]]]
    return (
        f"pooled by {audit.settings.hypothesis.pooling}, directions are read at the layers kept "
        f"in full ({min(kept)}–{max(kept)}), and none is among those allowed ({low}–{high})"
    )


def change_of(audit: Audit, name: str, other: str = "clean") -> Float[np.ndarray, "row layer dim"]:
    """Unit means of the rows under one adapter minus those under another."""
    means = audit.means
    return (means.sel(weights=name) - means.sel(weights=other)).values


def spans_of(audit: Audit) -> xr.DataArray | None:
    """Unit contrasts at the spans of the rows (`Run.span_contrasts`); None where none are kept."""
    path = Run(audit.folder).span_contrasts
    if not path.is_file():
        return None
    whole = tk.open(path)
    there = np.isin(whole["prompt"].values, audit.rows["prompt"].values)
    return whole.isel(prompt=np.flatnonzero(there))


def placebo_vectors(audit: Audit) -> Float[np.ndarray, "placebo layer dim"] | str:
    """The vectors of the placebo traits, or why there are none."""
    path = Run(audit.folder).placebos
    if not path.is_file():
        return NO_PLACEBO
    window = chosen_window(audit, audit.traits[0] if audit.traits else audit.settings.primary[0])
    vectors = tk.open(path).sel(extraction=audit.settings.vectors.method, window=window)
    return vectors.transpose("trait", "layer", "dim").values


def placebos_of(audit: Audit) -> Directions | str:
    """Sets of placebo traits, as many as there are primary ones, or why there are none."""
    vectors, due = placebo_vectors(audit), len(audit.traits)
    if isinstance(vectors, str):
        return vectors
    if len(vectors) < due:
        return f"{len(vectors)} placebo traits in this run; {due} are due"
    return placebo(vectors, due, audit.generator("placebo sets"), audit.settings.null.directions)


def random_directions(audit: Audit, change: str = "organism") -> Iterator[Directions]:
    """Those with the covariance of an adapter's change, then of the clean activations."""
    traits, draws = len(audit.traits), audit.settings.null.directions
    generator = audit.generator(f"directions of the change {change}")
    yield matched(change_of(audit, change), traits, generator, draws)
    clean = audit.means.sel(weights="clean").values
    yield matched(clean, traits, audit.generator("directions of activations"), draws)
