"""Control vectors in the GGUF form that llama.cpp and repeng read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import reading, unreadable
from tracekit.storage.provenance import stamp
from tracekit.storage.vector_files.marked import BLANK, KEY, read_marked, write_marked
from tracekit.storage.vector_files.vector_labels import (
    assembled,
    provenance_of,
    require_writable,
    site_of,
    with_layers,
)

ARCHITECTURE = "controlvector"
_FLOATS = (
    gguf.GGMLQuantizationType.F32,
    gguf.GGMLQuantizationType.F16,
    gguf.GGMLQuantizationType.F64,
)


def write_gguf(vector: xr.DataArray, path: str | Path, model_type: str) -> Path:
    """A control vector (layer, dim), or a layer of it, in the form of llama.cpp and repeng.

    One float32 tensor `direction.<layer>` for each layer, added to that block's output; a checksum
    of the file is in its metadata. `model_type` is the model's architecture as transformers names
    it, such as "llama". That form has no layer 0 (llama.cpp refuses it), so the vector must not
    either.
    Source: repeng's `export_gguf`, llama.cpp's control vectors (pull request 5970).

    Errors: `ValueError` for other dims, no layers, layers below 1, values that are not finite, and
    vectors of another site than the residual.

    >>> honesty = vectors.sel(trait="alignment/honesty", layer=slice(1, None))
    >>> write_gguf(honesty, "honesty.gguf", model_type="llama")
    PosixPath('honesty.gguf')
    """
    values = _by_layer(vector)
    low = [layer for layer in values if layer < 1]
    if low or not values:
        raise InputError(
            f"A GGUF control vector of the layers {list(values)} was asked for; it holds layers "
            f"from 1 on, not {low}. Select vector.sel(layer=slice(1, None))."
        )
    site = site_of(vector)
    if site not in (None, "residual"):
        raise InputError(
            f"A GGUF control vector of the site {site!r} was asked for; llama.cpp adds it to the "
            "residual. Write it with write_safetensors, or extract at the residual."
        )

    def write(part: Path) -> None:
        writer = gguf.GGUFWriter(str(part), ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model_type)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(values))
        writer.add_string("tracekit.provenance", provenance_of(vector))
        writer.add_string(KEY, BLANK)
        for layer, direction in values.items():
            writer.add_tensor(f"direction.{layer}", direction)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    return write_marked(Path(path), vector.size * 4 + 4096, write)


def read_gguf(path: str | Path) -> xr.DataArray:
    """The control vector (layer, dim) of a GGUF file, written here or by repeng.

    Quantised tensors are dequantised as gguf does. The attribute `model_type` is the file's hint.

    Errors: `FileNotFoundError`, and `ValueError` for a file that is damaged or of another kind, and
    for a type of tensor that gguf cannot turn into floats (named).

    >>> honesty = vectors.sel(trait="alignment/honesty", layer=[12, 13])
    >>> read_gguf(write_gguf(honesty, "honesty.gguf", model_type="llama")).layer.values.tolist()
    [12, 13]
    """
    read_marked(path)
    path = Path(path)
    with reading(path, "Give a control vector of floats."):
        reader = _Reader(path)
        kind, tensors = _text(reader, "general.architecture"), list(reader.tensors)
        names = [re.fullmatch(r"direction\.(\d+)", tensor.name, re.ASCII) for tensor in tensors]
        if kind != ARCHITECTURE or not tensors or not all(names):
            words = (
                f"a GGUF file of architecture {kind!r} with the tensors "
                f"{[t.name for t in tensors[:3]]}; a control vector ({ARCHITECTURE!r}, "
                "direction.1, direction.2, …) was expected"
            )
            raise unreadable(path, words, "Give a control vector.")
        rows = {
            int(name[1]): _floats(tensor, reader.byte_order == "I")
            for name, tensor in zip(names, tensors, strict=True)
            if name
        }
        kept, hint = (
            _text(reader, "tracekit.provenance"),
            _text(reader, "controlvector.model_hint"),
        )
        array = assembled(rows, path, "residual")
        if kept:
            array = stamp(array, json.loads(kept))
    return array.assign_attrs(model_type=hint)


class _Reader(gguf.GGUFReader):
    """A reader that stops at the file's end, where the other goes on with nothing."""

    def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
        found = super()._get(offset, dtype, count, override_order)
        if found.size != int(count):
            raise InputError(f"the file ends within {int(count):,} values at byte {int(offset):,}")
        return found


def _floats(tensor: gguf.ReaderTensor, native: bool) -> np.ndarray:
    if tensor.tensor_type in _FLOATS:
        with np.errstate(over="ignore"):
            return np.array(tensor.data, np.float32)
    if not native:
        raise InputError(f"{tensor.name} is {tensor.tensor_type.name} in another byte order")
    try:
        return gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type)
    except NotImplementedError as error:
        words = f"{tensor.name} is {tensor.tensor_type.name}, which gguf cannot make floats of"
        raise InputError(words) from error


def _by_layer(vector: xr.DataArray) -> dict[int, np.ndarray]:
    vector = with_layers(vector)
    if set(vector.dims) != {"layer", "dim"}:
        raise InputError(
            f"A control vector has the dims (layer, dim); this one has {vector.dims}. "
            "Choose one with .sel(trait=…, extraction=…)."
        )
    require_writable(vector)
    table = np.ascontiguousarray(vector.transpose("layer", "dim").values, np.float32)
    return {int(layer): row for layer, row in zip(vector["layer"].values, table, strict=True)}


def _text(reader: gguf.GGUFReader, name: str) -> str:
    field = reader.get_field(name)
    return "" if field is None else bytes(field.parts[-1]).decode()
