"""The labels of captured values, cut to what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from tracekit.passes.forward import Work
from tracekit.passes.request import Asked
from tracekit.storage.provenance import stamp
from tracekit.storage.store import storable
from tracekit.transcripts.labels import refuse_taken
from tracekit.transcripts.tensors import require_transcripts


def axis(work: Work) -> np.ndarray:
    """The token columns that any row keeps: one axis for all shards."""
    columns = np.flatnonzero(work.kept.any(0))
    return np.arange(columns[0], columns[-1] + 1)


def require_free(transcripts: Any, asked: Asked) -> None:
    """Errors: `TypeError` for anything but transcripts, `ValueError` for a label that they have and
    that a capture would write over.
    """
    require_transcripts(transcripts)
    projected = () if asked.vectors is None else ("trait", "norm")
    refuse_taken(transcripts.coords, ("layer", "dim", asked.name, *projected), "This capture")


def labels(work: Work, rows: Sequence[int]) -> xr.Dataset:
    """The labels of these rows, without values; what is not kept is a hole."""
    columns = axis(work)
    chosen = work.transcripts.isel(prompt=list(rows), token=columns)
    kept = work.kept[np.asarray(rows)][:, columns]
    # a reduced row has no tokens, and so none of the labels along them
    dims = {"prompt", "token"} if work.asked.reduce is None else {"prompt"}
    coords: dict[str, Any] = {str(n): c for n, c in chosen.coords.items() if set(c.dims) <= dims}
    if work.asked.reduce is None:
        for name, hole in (("token_id", -1), ("role", "pad"), ("token_text", "")):
            values = chosen[name].transpose("prompt", "token").values
            coords[name] = (("prompt", "token"), np.where(kept, values, hole))
    coords["layer"] = np.asarray(work.asked.layers, np.int32)
    if work.asked.vectors is not None:
        coords["trait"] = work.asked.vectors["trait"].values.astype(np.str_)
    # labels read from a file carry its encoding, and strings as objects
    return stamp(storable(xr.Dataset(coords=coords)), work.made_with)


def with_last(frame: xr.Dataset, width: int, norm: np.ndarray | None) -> xr.Dataset:
    """The labels with those of the last dim: `dim` itself, or `norm` beside projections."""
    if norm is not None:
        return frame.assign_coords(norm=(("prompt", "token", "layer"), norm))
    return frame.assign_coords(dim=np.arange(width, dtype=np.int32))
