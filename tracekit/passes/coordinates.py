"""The labels of captured values, cut to what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.record import CUSTOM, edits_of
from tracekit.passes import patterns
from tracekit.passes.beginnings import planning
from tracekit.passes.forward import Work
from tracekit.passes.monitoring import LABELS, with_scores
from tracekit.passes.request import Asked
from tracekit.storage.capture_folder import Folder
from tracekit.storage.identity import BRIEF, digest
from tracekit.storage.provenance import stamp
from tracekit.storage.store import storable
from tracekit.transcripts import encode
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.labels import refuse_taken
from tracekit.transcripts.tensors import require_transcripts


def axis(work: Work) -> np.ndarray:
    """The token columns that any row keeps: one axis for all shards."""
    columns = np.flatnonzero(work.kept.any(tuple(range(work.kept.ndim - 1))))
    return np.arange(columns[0], columns[-1] + 1)


def require_free(transcripts: Any, asked: Asked) -> None:
    """Errors: `TypeError` for anything but transcripts, `ValueError` for a label that they have and
    that a capture would write over.
    """
    require_transcripts(transcripts)
    beside = {"norm"} if asked.vectors is not None else {"dim"}
    beside = {*LABELS, "layer"} if asked.probes else beside
    own = {*asked.dims, asked.name, *beside}
    refuse_taken(transcripts.coords, own - {"prompt", "token"}, "This capture")


def folders(
    model: TransformersModel, paths: Sequence[Path | None], rank: int
) -> list[Folder | None]:
    """The folder at each path, None where values stay in memory.

    Errors: `ValueError` for a path and edits of plain nnsight: one cannot be told from another, so
    that a folder would give back the values of a former one.
    """
    path = next((path for path in paths if path is not None), None)
    if path is not None and CUSTOM in edits_of(model):
        raise InputError(
            f"path={str(path)!r} was given, and the model has an edit made with plain nnsight, "
            "which a folder cannot tell from another. Make it with tk.edit, which records what it "
            "does, or capture into memory and tk.save."
        )
    return [None if path is None else Folder(path, rank) for path in paths]


def require_responses(
    transcripts: xr.Dataset, asked: Sequence[Asked], kept: Sequence[np.ndarray]
) -> None:
    """Errors: `ValueError` where a request keeps what is not computed for each row."""
    labels = transcripts.token.values
    for one, places in zip(asked, kept, strict=True):
        if one.is_pattern or callable(one.site):
            raise InputError(
                f"share_prompts=True was given with the site {one.site_name!r}, which may read "
                "whole rows. Leave it out."
            )
        least = planning.LAST + one.is_logprob
        there = int(labels[places.any(tuple(range(places.ndim - 1)))].min())
        if there < least:
            raise InputError(
                f"share_prompts=True was given, and {one.name} is asked for from token {there} on; "
                f"rows of one prompt have values of their own from token {least} on. Give "
                f"tokens=slice({least}, None), or leave share_prompts out."
            )


def labels(work: Work, rows: Sequence[int]) -> xr.Dataset:
    """The labels of these rows, without values; what is not kept is a hole."""
    columns = axis(work)
    chosen = work.transcripts.isel(prompt=list(rows), token=columns)
    # a reduced row has no tokens, and so none of the labels along them
    dims = {"prompt", "token"} if work.asked.reduce is None else {"prompt"}
    coords: dict[str, Any] = {str(n): c for n, c in chosen.coords.items() if set(c.dims) <= dims}
    if work.asked.reduce is None:
        kept = work.kept[np.asarray(rows)][:, columns]
        for name, hole in (("token_id", -1), ("role", "pad"), ("token_text", "")):
            values = chosen[name].transpose("prompt", "token").values
            coords[name] = (("prompt", "token"), np.where(kept, values, hole))
    if work.asked.probes:
        coords["probe"] = np.array([probe.name for probe in work.asked.probes])
    elif not work.asked.is_logprob:
        coords["layer"] = np.asarray(work.asked.layers, np.int32)
    if work.asked.vectors is not None:
        coords["trait"] = work.asked.vectors["trait"].values.astype(np.str_)
    if work.asked.parts:
        coords["stretch"] = np.asarray(work.asked.parts)
    if work.asked.is_pattern:
        coords["key"] = work.transcripts["token"].values[patterns.key_columns(work.kept)]
    # labels read from a file carry its encoding, and strings as objects
    frame = storable(xr.Dataset(coords=coords))
    return stamp(frame.rename(token="query") if work.asked.is_pattern else frame, work.made_with)


def row_hashes(folder: Folder, transcripts: xr.Dataset) -> dict[str, str]:
    """A hash of each row's ids and another of its labels, by prompt id.

    Errors: `ValueError` where the folder holds these rows under other labels.
    """
    ids, labelled = encode.row_hashes(transcripts), _label_hashes(transcripts)
    there = folder.content()["rows"] if folder.shards() is not None else {}
    # captures made before there was one have no hash of labels
    kept = {name: one[BRIEF:] for name, one in there.items() if one[BRIEF:]}
    other = [n for n, one in kept.items() if n in ids and ids[n] == there[n][:BRIEF]]
    other = [name for name in other if kept[name] != labelled[name]]
    if other:
        raise InputError(
            f"The folder {str(folder.path)!r} holds {len(other)} of these rows under other labels, "
            f"such as {other[0]!r}. Give another path, or open what is there and put these labels "
            "onto it (tk.join)."
        )
    return {name: one + labelled[name] for name, one in ids.items()}


def _label_hashes(transcripts: xr.Dataset) -> dict[str, str]:
    own = {"prompt", "token", "token_id", "role", "token_text", "prompt_length"}
    each: list[list[Any]] = [[] for _ in range(transcripts.sizes["prompt"])]
    for name, coord in sorted(transcripts.coords.items(), key=lambda item: str(item[0])):
        if name in own or coord.dims not in (("prompt",), ("prompt", "token"), ("token", "prompt")):
            continue
        rows = coord.transpose("prompt", ...).values
        # a file gives numbers back in other types, and texts as objects
        rows = rows.astype(float if rows.dtype.kind in "biuf" else str)
        for row, value in zip(each, rows.tolist(), strict=True):
            row.append([str(name), value])
    return {n: digest(row)[:BRIEF] for n, row in zip(ids_of(transcripts), each, strict=True)}


def with_axes(
    frame: xr.Dataset,
    asked: Asked,
    sizes: Sequence[int],
    checks: np.ndarray | None,
    scores: np.ndarray | None = None,
) -> xr.Dataset:
    """The labels with those of the site's own axes, numbers from 0, and what lies beside values.

    `sizes` are those of the values' last axes; `checks` the numbers beside the values, which are
    the `norm` of projections; beside the `scores` of probes are pooled ones (`with_scores`).

    Errors: `ValueError` for other axes than the site's: those of a function that reduces.
    """
    if len(sizes) != len(asked.axes) + bool(asked.parts):
        raise InputError(
            f"reduce={asked.reduce_name} gave {len(sizes) - bool(asked.parts)} axes for a row; "
            f"the site has "
            f"{asked.axes}. Make one value of all tokens, and leave the other axes there."
        )
    named = dict(zip(asked.dims[len(asked.dims) - len(sizes) :], sizes, strict=True))
    new: dict[str, Any] = {
        dim: np.arange(n, dtype=np.int32) for dim, n in named.items() if dim not in frame.coords
    }
    if asked.vectors is not None and checks is not None:
        new["norm"] = (asked.dims[:-1], checks)
    frame = frame.assign_coords(new)
    if scores is None or checks is None or not asked.probes:
        return frame
    return with_scores(frame, asked, scores, checks)
