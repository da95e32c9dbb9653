"""Model arguments (`-M name=value`): how the model is loaded, edited and read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk

LOADING = ("dtype", "revision", "device_map", "attn_implementation")
READING = ("vectors", "probes", "traces", "capture_layers", "per_token")
# a label of the file's dim of that name
SELECTING = ("trait", "extraction", "layer")
_COMMON = (*SELECTING, "layers", "tokens", "transfer")
EDITS: Mapping[str, tuple[str, ...]] = {
    "steer": (*_COMMON, "coefficient"),
    "ablate": (*_COMMON, "mean"),
    "clamp": (*_COMMON, "low", "high"),
}
AMOUNTS = ("coefficient", "mean", "low", "high")
# given beside an edit, and without one
SHARED = ("extraction", "transfer")
NAMES = tuple(
    dict.fromkeys(
        ("adapter", "scale", "edits", *LOADING, *READING, *SHARED, *EDITS, *sum(EDITS.values(), ()))
    )
)


@dataclass(frozen=True)
class Arguments:
    """Model arguments as code reads them; files are paths still."""

    loading: Mapping[str, Any]
    adapter: str | None
    scale: float
    edits: tuple[Mapping[str, Any], ...]
    vectors: str | None
    probes: tuple[str, ...]
    traces: Path | None
    capture_layers: list[int] | None
    per_token: bool
    extraction: str | None
    transfer: bool

    @property
    def files(self) -> list[str]:
        """The paths of vectors and probes."""
        edits = [str(edit[name]) for edit in self.edits for name in EDITS if name in edit]
        return [*edits, *([self.vectors] if self.vectors else []), *self.probes]

    @property
    def written(self) -> list[float | None]:
        """When each of them was written, `None` where it is gone."""
        paths = map(Path, self.files)
        return [path.stat().st_mtime if path.exists() else None for path in paths]


def read(given: Mapping[str, Any]) -> Arguments:
    """The arguments that a command or `get_model` was given.

    Errors: `ValueError` for a name that is none of them, for options of an edit without the edit,
    and for an edit that lacks one or has another's.

    >>> read({"adapter": "ten_biases", "scale": 0.5}).scale
    0.5
    """
    for name in [name for name in given if name not in NAMES]:
        near = difflib.get_close_matches(name, NAMES, 1)
        raise tk.InputError(
            f"The model argument {name}={given[name]!r} was given; there are {', '.join(NAMES)}. "
            + (f"Did you mean {near[0]!r}?" if near else "Leave it out.")
        )
    probes = given.get("probes") or []
    layers = given.get("capture_layers")
    return Arguments(
        loading={name: given[name] for name in LOADING if name in given},
        adapter=_path(given.get("adapter")),
        scale=_number("scale", given.get("scale", 1.0)),
        edits=_edits(given),
        vectors=_path(given.get("vectors")),
        probes=tuple(map(str, probes if isinstance(probes, list | tuple) else [probes])),
        traces=None if given.get("traces") is None else Path(given["traces"]),
        capture_layers=None if layers is None else _whole(layers),
        per_token=bool(given.get("per_token", False)),
        extraction=given.get("extraction"),
        transfer=bool(given.get("transfer", False)),
    )


def edited(model: tk.Model, edit: Mapping[str, Any]) -> tk.Model:
    """A copy of the model with the edit: one of steer, ablate and clamp with its options."""
    (kind,) = [name for name in EDITS if name in edit]
    vector = opened(model, edit[kind], {n: edit[n] for n in SELECTING if n in edit})
    if "trait" in vector.dims:
        raise tk.InputError(
            f"{kind}={edit[kind]!r} was asked for; the file has the traits "
            f"{', '.join(map(str, vector['trait'].values))}. Name one: trait=…."
        )
    options = {name: value for name, value in edit.items() if name not in (kind, *SELECTING)}
    if "layers" in options:
        options["layers"] = _whole(options["layers"])
    # a command reads 1e3 as a text
    options |= {name: _number(name, options[name]) for name in AMOUNTS if name in options}
    made: tk.Model = getattr(tk, kind)(model, vector, **options)
    return made


def opened(model: tk.Model, path: str, chosen: Mapping[str, Any]) -> xr.DataArray:
    """A file of vectors, at the labels chosen.

    Errors: `ValueError` for a file that holds something else, or lacks a dim or label.
    """
    made = tk.open(path) if Path(path).suffix == ".nc" else tk.read_vectors(path, model=model)
    if not isinstance(made, xr.DataArray):
        raise tk.InputError(
            f"{path!r} was given as vectors and holds {', '.join(map(str, made.data_vars))}. Give "
            "a file that traits.extract's vectors were saved to; a probe's goes to probes=."
        )
    for name, label in chosen.items():
        made = _at(made, path, name, _label(name, label))
    # a dim of one label needs no choice
    return made.squeeze([dim for dim in ("trait", "extraction") if made.sizes.get(dim) == 1])


def _at(vectors: xr.DataArray, path: str, name: str, label: Any) -> xr.DataArray:
    there = vectors[name].values.reshape(-1).tolist() if name in vectors.coords else []
    lacking = [one for one in (label if isinstance(label, list) else [label]) if one not in there]
    if lacking:
        raise tk.InputError(
            f"{name}={label!r} was asked for of {path!r}, which has {there[:40]}. Name one of "
            "those."
        )
    return vectors.sel({name: label}) if name in vectors.dims else vectors


def _path(given: Any) -> str | None:
    return None if given is None else str(given)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise tk.InputError(f"{name}={value!r} was asked for; give a number.") from error


def _label(name: str, label: Any) -> Any:
    # one layer is chosen without its dim, several with it
    several = isinstance(label, list | tuple)
    return _whole(label) if name == "layer" and several else list(label) if several else label


def _whole(layers: Any) -> list[int]:
    """Layers as a command gives them: 18, [10, 20] or "10,20"."""
    parts = layers.split(",") if isinstance(layers, str) else layers
    try:
        return [int(one) for one in (parts if isinstance(parts, Sequence) else [parts])]
    except (TypeError, ValueError) as error:
        raise tk.InputError(
            f"The layers {layers!r} were asked for; give whole numbers, such as 18 or 10,20."
        ) from error


def _edits(given: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    options = {*EDITS, *sum(EDITS.values(), ())}
    flat = {name: value for name, value in given.items() if name in options}
    listed = given.get("edits") or []
    if not isinstance(listed, list | tuple) or not all(isinstance(e, Mapping) for e in listed):
        raise tk.InputError(f"edits={listed!r} was given; give a list, a dictionary an edit.")
    listed = list(listed)
    if set(flat) - set(SHARED):
        listed = [flat, *listed]
    for edit in listed:
        _require_edit(edit)
    return tuple(listed)


def _require_edit(edit: Mapping[str, Any]) -> None:
    kinds = [name for name in EDITS if name in edit]
    if len(kinds) != 1:
        raise tk.InputError(
            f"An edit was asked for by {dict(edit)}, which names {' and '.join(kinds) or 'none'}. "
            f"Name one of {', '.join(EDITS)} with its file; several go into edits=[…], a "
            "dictionary each."
        )
    more = [name for name in edit if name not in (kinds[0], *EDITS[kinds[0]])]
    if more or (kinds[0] == "steer" and "coefficient" not in edit):
        raise tk.InputError(
            f"{kinds[0]} was asked for with {', '.join(edit)}; it takes "
            f"{', '.join(EDITS[kinds[0]])}"
            + (f". Leave out {', '.join(more)}." if more else ", and needs coefficient=.")
        )
