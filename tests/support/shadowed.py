"""Names in an array that xarray's own methods shadow: `array.rank` is no variable."""

import xarray as xr


def shadowed(array: xr.DataArray | xr.Dataset) -> list[str]:
    """Dims, labels and variables that an attribute or method of xarray's hides."""
    names = {*map(str, array.dims), *map(str, array.coords)}
    if isinstance(array, xr.Dataset):
        names |= {*map(str, array.data_vars)}
    return sorted(name for name in names if hasattr(type(array), name))
