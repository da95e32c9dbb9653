"""A capture opened with xarray alone: labels select, and no tracekit is needed to read it."""

import sys

import xarray as xr

folder = sys.argv[1]  # a capture's folder, such as runs/…/traces/organism
dataset = xr.open_mfdataset(f"{folder}/*.nc", combine="nested", concat_dim="prompt")
(name,) = dataset.data_vars
traces = dataset[name]
print(dict(traces.sizes), traces.dtype, "ids:", traces.token_id.dtype)
norm = (traces.isel(layer=-1) ** 2).sum("dim", skipna=False) ** 0.5
print(f"mean norm of the response at layer {int(traces.layer[-1])}:")
print(norm.sel(token=slice(0, None)).mean("token").to_series().round(1).to_string())
