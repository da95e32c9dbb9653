"""Phase 4: projections of every arm as plain files, scalar and cosine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import xarray as xr

import tracekit as tk
from experiments.audit.evidence import finite
from experiments.audit.phases.arms import there
from experiments.audit.run import Run
from experiments.audit.settings.groups import Settings
from tracekit.transcripts.encode import ids_of
from traits import as_cosine


def run(folder: Path, settings: Settings) -> list[Path]:
    """Write `projections/<arm>.nc`: `scalar` and `cosine` over (prompt, token, layer, trait)."""
    written = []
    for arm in there(folder, settings):
        raw = tk.open(Run(folder).captured(arm)).load()
        responses = tk.open(Run(folder).responses(arm.split("/")[1]))
        # a capture's shards lie in the order of its batches
        written.append(Run(folder).projections(arm))
        tk.save(both_kinds(raw.sel(prompt=ids_of(responses))), written[-1])
    return written


def both_kinds(raw: xr.DataArray) -> xr.Dataset:
    """Projections made inside the trace as a Dataset of `scalar` (residual units) and `cosine`."""
    kinds = {"scalar": raw, "cosine": as_cosine(raw)}
    return xr.Dataset(
        {name: array.drop_attrs() for name, array in kinds.items()},
        coords={"norm": raw["norm"]},
        attrs={"provenance": raw.attrs["provenance"]},
    )


def read(folder: Path, arm: str, kind: str = "cosine") -> xr.DataArray:
    """The saved projections of one arm, (prompt, token, layer, trait), with provenance.

    Without the answers that some arm has no finite numbers of (the section `data` names them).
    """
    path = Run(folder).projections(arm)
    state = path.stat()
    whole = finite.with_numbers(_of_file(path, state.st_mtime_ns, state.st_size), folder)
    return whole[kind].assign_attrs(provenance=whole.attrs["provenance"])


# one arm stands against the clean one in section after section
@lru_cache(maxsize=4)
def _of_file(path: Path, changed: int, size: int) -> xr.Dataset:
    return tk.open(path)
