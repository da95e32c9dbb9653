import numpy as np
import xarray as xr

from traits import statistics
from traits.extract import Method, extract
from traits.pairs import pairs, split_pairs
from traits.project import project


def held_out_auroc(
    traces: xr.DataArray, method: str | Method = "mean_diff", *, generator: np.random.Generator
) -> xr.DataArray:
    """The AUROC by layer of a vector fitted on one half of the pairs, on the other half.

    `traces` as for `extract`; the split is by pair, and by template where there is one. Returns
    (layer), with the numbers of pairs as attributes. A layer picked from this curve is not
    thereby evaluated: `evaluate` splits three ways.

    >>> draw = np.random.default_rng(0)
    >>> rows = {"label": ("prompt", [1, 0] * 20), "group": ("prompt", np.repeat(range(20), 2))}
    >>> values = draw.normal(size=(40, 3, 8))
    >>> values[::2] += 3
    >>> traces = xr.DataArray(values, dims=("prompt", "layer", "dim"), coords=rows)
    >>> held_out_auroc(traces, generator=draw).sizes["layer"]
    3
    """
    positive, _ = pairs(traces)
    part = split_pairs(positive["pair"], generator, {"fit": 0.5, "report": 0.5})
    rows = {name: _rows(traces, part, name) for name in ("fit", "report")}
    vector = extract(rows["fit"], method)
    area = statistics.auroc(project(_tokens(rows["report"]), vector))
    counts = {name: int((part == name).sum()) for name in rows}
    return area.assign_attrs(fit_pairs=counts["fit"], report_pairs=counts["report"])


def _rows(traces: xr.DataArray, part: xr.DataArray, name: str) -> xr.DataArray:
    return traces.isel(prompt=np.isin(traces["group"].values, part["pair"].values[part == name]))


def _tokens(traces: xr.DataArray) -> xr.DataArray:
    return traces.mean("token", skipna=True) if "token" in traces.dims else traces
