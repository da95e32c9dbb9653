"""Phase 4: projections of every arm as plain files, scalar and cosine."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

import tracekit as tk
from experiments.audit.evidence import finite
from experiments.audit.phases.activations import file_name, there
from experiments.audit.settings.groups import Settings
from tracekit.transcripts.encode import ids_of
from traits import as_cosine


def run(folder: Path, settings: Settings) -> list[Path]:
    """Write `projections/<arm>.nc`: `scalar` and `cosine` over (prompt, token, layer, trait)."""
    written = []
    for arm in there(folder, settings):
        raw = tk.open(folder / "captured" / file_name(arm)).load()
        responses = tk.open(folder / "responses" / f"{arm.split('/')[1]}.nc")
        # a capture's shards lie in the order of its batches
        written.append(folder / "projections" / f"{file_name(arm)}.nc")
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
    whole = finite.with_numbers(tk.open(folder / "projections" / f"{file_name(arm)}.nc"), folder)
    return whole[kind].assign_attrs(provenance=whole.attrs["provenance"])
