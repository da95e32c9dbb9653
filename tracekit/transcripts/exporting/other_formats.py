"""Arrays in other tools' files: zarr, and parquet with a row for each place."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import part_of, whole
from tracekit.storage.store import storable

ROWS = 64  # prompts at a time, where an array is not in shards


def write_zarr(dataset: xr.Dataset, path: Path) -> Path:
    """A zarr store (format 2) by xarray's own writer, chunk by chunk, whole or not at all.

    Errors: `ValueError` where zarr is not installed, or the path is taken.

    >>> write_zarr(traces.to_dataset(), Path("x.zarr")).name  # doctest: +SKIP
    'x.zarr'
    """
    require("zarr", path)
    if path.exists():
        raise InputError(f"{str(path)!r} was to be written, and is there. Delete it first.")
    part = part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        storable(_even(dataset)).to_zarr(part, zarr_format=2, consolidated=True)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def write_parquet(dataset: xr.Dataset, path: Path) -> Path:
    """A parquet file with a row for each place and all of its labels, a shard at a time.

    What has a `dim` is one column of lists (float32, the whole vector); everything else has its
    own. Places without a token are left out. The provenance is in the file's metadata.

    Errors: `ValueError` where pyarrow is not installed, and for variables over dims that no one
    of them has together: a row for each place would repeat the others.

    >>> write_parquet(traces.to_dataset(), Path("x.parquet")).name
    'x.parquet'
    """
    require("pyarrow", path)
    _require_one_table(dataset, path)
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    tables = (_table(block) for block in _blocks(dataset))
    with whole(path, dataset.nbytes) as part:
        first = next(tables)
        with parquet.ParquetWriter(part, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table.cast(first.schema))
    return path


def require(library: str, path: Path) -> None:
    """Errors: `ValueError` in one line where a library that a file needs is not installed."""
    if importlib.util.find_spec(library) is None:
        raise InputError(
            f"{str(path)!r} was to be written, which needs {library}, and that is not installed. "
            f"Install it: pip install {library}."
        )


def _require_one_table(dataset: xr.Dataset, path: Path) -> None:
    dims = {str(n): set(v.dims) - {"dim"} for n, v in dataset.data_vars.items()}
    if dims and set().union(*dims.values()) not in dims.values():
        shown = "; ".join(f"{name} {tuple(sorted(map(str, of)))}" for name, of in dims.items())
        raise InputError(
            f"{str(path)!r} was to be written, one table of variables over several dims: {shown}. "
            f"Write one variable at a time: tk.export(found[{next(iter(dims))!r}], …)."
        )


def _even(dataset: xr.Dataset) -> xr.Dataset:
    """Lazy values in chunks of one size, as zarr needs them: shards differ in theirs."""
    if not dataset.chunks:
        return dataset
    sizes = {dim: max(chunks) for dim, chunks in dataset.chunks.items()}
    lazy = {name: dataset[name].variable for name in dataset.data_vars if dataset[name].chunks}
    # labels are read already, and stay
    return dataset.assign(
        {name: v.chunk({d: n for d, n in sizes.items() if d in v.dims}) for name, v in lazy.items()}
    )


def _blocks(dataset: xr.Dataset) -> Iterator[xr.Dataset]:
    if "prompt" not in dataset.dims:
        yield dataset.load()
        return
    count = dataset.sizes["prompt"]
    sizes = dict(dataset.chunks).get("prompt") or [ROWS] * (-(-count // ROWS))
    start = 0
    for size in sizes:
        yield dataset.isel(prompt=slice(start, start + size)).load()
        start += size


def _table(block: xr.Dataset) -> Any:
    import pyarrow as pa

    order = [str(dim) for dim in ("prompt", "token", "layer", "trait") if dim in block.dims]
    order += [str(dim) for dim in block.dims if dim not in (*order, "dim")]
    vectors = [str(name) for name, array in block.data_vars.items() if "dim" in array.dims]
    bare = block.drop_dims("dim") if "dim" in block.dims else block
    sizes = {dim: block.sizes[dim] for dim in order}
    frame = bare.to_dataframe(dim_order=order).reset_index() if order else None
    table = pa.table({}) if frame is None else pa.Table.from_pandas(frame, preserve_index=False)
    for name in vectors:
        given = block[name].transpose(..., "dim")
        shape = [*sizes.values(), block.sizes["dim"]]
        spread = given.expand_dims({d: n for d, n in sizes.items() if d not in given.dims})
        values = np.broadcast_to(spread.transpose(*order, "dim").values, shape)
        flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
        table = table.append_column(
            name, pa.FixedSizeListArray.from_arrays(flat, block.sizes["dim"])
        )
    if "token_id" in table.column_names:
        table = table.filter(pa.compute.greater_equal(table["token_id"], 0))
    made = {"provenance": str(block.attrs.get("provenance", ""))}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **made})
