"""Probes as fitted pipelines of scikit-learn, and such pipelines as probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tracekit.errors import InputError
from tracekit.storage.provenance import read as provenance_of
from traits.probes import record


def to_sklearn(probe: xr.Dataset) -> Pipeline:
    """A linear probe of one target as a fitted `Pipeline`: its decision_function is the score.

    Of rows (row, dim) in residual units; the classes are 0 and 1. The scaler leaves rows as they
    are, since the weights are in their units.

    Errors: `ValueError` for a probe that is not linear or has several targets.

    >>> to_sklearn(probe).decision_function(np.zeros((2, 32))).shape
    (2,)
    """
    read = record.read(probe)
    if read.kind != "linear" or read.targets is not None:
        raise InputError(
            f"A pipeline was asked for of a probe that is {read.kind}, with "
            f"{len(read.layers)} targets; it is made of one linear probe. Choose a target with "
            ".sel(target=…), or keep the probe in a file."
        )
    weight = read.parameters["weight"]
    scaler, model = StandardScaler(), LogisticRegression()
    scaler.mean_, scaler.scale_ = np.zeros(weight.shape[1]), np.ones(weight.shape[1])
    scaler.var_, scaler.n_samples_seen_ = scaler.scale_.copy(), 1
    model.coef_, model.intercept_ = weight.copy(), read.parameters["offset"].copy()
    model.classes_, model.n_iter_ = np.array([0, 1]), np.array([0])
    scaler.n_features_in_ = model.n_features_in_ = weight.shape[1]
    return make_pipeline(scaler, model)


def from_sklearn(
    model: Any,
    *,
    layer: int,
    traces: xr.DataArray | None = None,
    pooling: str = "mean",
    site: str | None = None,
) -> xr.Dataset:
    """A fitted scikit-learn pipeline, or estimator, as a probe of a layer.

    Its last step has `coef_` and `intercept_` of two classes (logistic regression, LDA, ridge,
    linear SVM), and the steps before are linear maps of columns: StandardScaler, PCA,
    MinMaxScaler, or any whose `transform` is affine, which is tested. `traces` give the
    provenance of what it was fitted on, and its site; without them it is `site`, by default the
    residual stream.

    Errors: `ValueError` for other steps, more than two classes, an estimator not fitted, and a
    `site` that is not the traces'.

    >>> model = make_pipeline(StandardScaler(), LogisticRegression())
    >>> fitted = model.fit(np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 2)
    >>> from_sklearn(fitted, layer=12).weight.sizes["dim"]
    4
    """
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    last = steps[-1]
    weight = np.atleast_2d(np.asarray(getattr(last, "coef_", np.empty((0, 0))), np.float64))
    if len(weight) != 1:
        raise InputError(
            f"{type(last).__name__} was given as a probe, with coefficients of shape "
            f"{weight.shape}; a probe is a fitted linear model of two classes, (1, dim)."
        )
    width = int(getattr(steps[0], "n_features_in_", weight.shape[1]) or 0)
    matrix, shift = _affine(steps[:-1], width)
    raw = weight @ matrix
    offset = np.ravel(last.intercept_) + weight @ shift
    made = provenance_of(traces) if traces is not None and "provenance" in traces.attrs else None
    attributes = {"method": type(last).__name__, "pooling": pooling}
    about = {"made_by": "traits.from_sklearn", "site": _site(site, made), "source": made}
    return record.written({"weight": raw, "offset": offset}, [layer], None, attributes, about)


def _site(site: str | None, made: dict[str, Any] | None) -> str:
    theirs = (made or {}).get("site", site or "residual")
    if site not in (None, theirs):
        raise InputError(
            f"The probe was said to read site={site!r}, and its traces are of {theirs!r}. Leave "
            "site= out, or give the traces that it was fitted on."
        )
    return str(theirs)


def _affine(steps: Sequence[Any], width: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrix and shift that steps before the last are together."""
    if not steps:
        return np.eye(width), np.zeros(width)

    def mapped(rows: np.ndarray) -> np.ndarray:
        for step in steps:
            rows = np.asarray(step.transform(rows))
        return rows

    shift = mapped(np.zeros((1, width)))[0]
    matrix = (mapped(np.eye(width)) - shift).T
    probe = np.random.default_rng(0).normal(size=(8, width)) * 100
    error = np.abs(mapped(probe) - (probe @ matrix.T + shift)).max()
    if not error <= 1e-6 * max(np.abs(probe @ matrix.T).max(), 1.0):
        names = ", ".join(type(step).__name__ for step in steps)
        raise InputError(
            f"The steps {names} come before the linear one, and together they are no linear map "
            "of the columns. A probe is weight · residual + offset: take linear steps alone."
        )
    return matrix, shift
