"""An evaluation in words: a few lines for a reader, each number with its interval, null or n."""

import numpy as np
import xarray as xr

BANDS = ("shuffled pairs", "placebo")


def passed(result: xr.Dataset) -> bool:
    """Whether the AUROC is above the 95 % band of shuffled pairs and that of placebos.

    Of these two nulls, those that `evaluate` was given; False where it had neither.

    >>> one = xr.DataArray([0.6], dims="null", coords={"null": ["shuffled pairs"]})
    >>> null = one.expand_dims(level=[0.95])
    >>> passed(xr.Dataset({"estimate": 0.7, "null_quantile": null}))
    True
    """
    bands = [str(name) for name in _nulls(result) if name in BANDS]
    area = _at(result["estimate"], "auroc")
    return bool(bands) and all(area > _at_null(result, name) + 1e-9 for name in bands)


def findings(result: xr.Dataset) -> list[str]:
    """What a reader of one trait's `evaluate` must know, in sentences with their numbers.

    Ceiling and floor, the wrong sign, a null band not exceeded, a layer at the edge of those
    searched, a null too small for its p, a measure without a value. An empty list is a clean
    result.
    """
    area, low, high = _bounds(result, "auroc")
    count = int(result["n_report"])
    said = {
        f"ceiling: AUROC {area:.3f} on {count} pairs; see the lint's lexical AUROC": area >= 0.995,
        f"floor: the interval of the AUROC, {low:.2f} to {high:.2f}, holds 0.5": low <= 0.5 < high,
        f"wrong sign: AUROC {area:.2f} on the report pairs, its interval below 0.5": high < 0.5,
        f"edge: the selected layer {result['selected_layer'].item()} is the first or last "
        "searched": _at_edge(result),
    }
    said |= {text: failed for name in _nulls(result) for text, failed in _null(result, name)}
    lacking = [n for n in _measures(result) if not np.isfinite(_bounds(result, n)).all()]
    said[f"undefined: no value or interval of {', '.join(lacking)}"] = bool(lacking)
    return [text for text, true in said.items() if true]


def summary(result: xr.Dataset) -> str:
    """One trait's evaluation in a few lines, no number without its interval, null or n.

    >>> estimate = xr.DataArray([0.8], dims="measure", coords={"measure": ["auroc"]})
    >>> print(interval(xr.Dataset({"estimate": estimate, "low": 0.7, "high": 0.9}), "auroc"))
    auroc 0.80 [0.70, 0.90]
    """
    path = ", ".join(
        f"{dim} {result[f'selected_{dim}'].item()}" for dim in ("extraction", "window", "layer")
    )
    counts = ", ".join(f"{name} {int(result[f'n_{name}'])}" for name in ("fit", "select", "report"))
    measures = "; ".join(interval(result, name) for name in _measures(result))
    nulls = "; ".join(
        f"{name} 95 % {_at_null(result, name):.2f}, p {float(result['null_p'].sel(null=name)):.3g} "
        f"({int(result['null_draws'].sel(null=name))} draws)"
        for name in _nulls(result)
    )
    return (
        f"{result['trait'].item()}: {path} (pairs: {counts})\n"
        f"  {measures}\n  permutation p {float(result['p']):.3g}; nulls: {nulls or 'none'}"
    )


def interval(result: xr.Dataset, measure: str) -> str:
    """One measure with its interval, as text; `undefined` where either has no value."""
    bounds = _bounds(result, measure)
    if not np.isfinite(bounds[0]):
        return f"{measure} undefined"
    if not np.isfinite(bounds).all():
        return f"{measure} {bounds[0]:.2f} [undefined]"
    return f"{measure} {bounds[0]:.2f} [{bounds[1]:.2f}, {bounds[2]:.2f}]"


def _bounds(result: xr.Dataset, measure: str) -> list[float]:
    return [_at(result[name], measure) for name in ("estimate", "low", "high")]


def _measures(result: xr.Dataset) -> list[str]:
    there = result["measure"].values if "measure" in result.coords else ["auroc"]
    return [str(name) for name in there]


def _nulls(result: xr.Dataset) -> list[str]:
    return [str(name) for name in result["null"].values] if "null" in result.coords else []


def _null(result: xr.Dataset, name: str) -> list[tuple[str, bool]]:
    area, band = _at(result["estimate"], "auroc"), _at_null(result, name)
    draws = int(result["null_draws"].sel(null=name))
    return [
        (f"not above the {name} band: {area:.2f} against its 95 %, {band:.2f}", area < band + 1e-9),
        (f"few draws: {draws} of {name} allow no p below {1 / (draws + 1):.2g}", draws < 19),
    ]


def _at(values: xr.DataArray, measure: str) -> float:
    return float(values.sel(measure=measure) if "measure" in values.dims else values)


def _at_null(result: xr.Dataset, name: str) -> float:
    return float(result["null_quantile"].sel(null=name, level=0.95))


def _at_edge(result: xr.Dataset) -> bool:
    curve = result["curve"]
    layers = curve["layer"].values if "layer" in curve.coords else np.arange(curve.sizes["layer"])
    return len(layers) > 2 and result["selected_layer"].item() in (layers[0], layers[-1])
