"""Names that files were written with, and what they are called now."""

from __future__ import annotations

from typing import TypeVar

import xarray as xr

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
# `method` is also a keyword of xarray's `sel`, which took it for itself
FORMER = {"method": "extraction", "selected_method": "selected_extraction"}
FORMER |= {"open_selected_method": "open_selected_extraction", "method_other": "extraction_other"}
# dims that are also methods of xarray's, in what holds a variable of that name
DIMS = {"quantile": ("level", "null_"), "rank": ("top", "promoted")}


def renamed(array: Labelled) -> Labelled:
    """The array under today's names: the dim or scalar label `method` is `extraction`.

    >>> renamed(xr.DataArray([[0.0]], dims=("method", "dim"))).dims
    ('extraction', 'dim')
    """
    names: set[str] = {*map(str, array.dims), *map(str, array.coords)}
    names |= {str(name) for name in array.data_vars} if isinstance(array, xr.Dataset) else set()
    # a label of each prompt that happens to have the name is the user's own
    own = {
        str(name) for name, label in array.coords.items() if label.ndim and name not in array.dims
    }
    named = {*names, str(getattr(array, "name", ""))}
    today = {name: FORMER[name] for name in FORMER if name in names - own}
    for dim, (now, beside) in DIMS.items():
        if dim in array.dims and any(beside in name for name in named):
            today[dim] = now
    return array.rename(today)
