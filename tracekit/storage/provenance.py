"""What made an array, and whether two arrays may be compared."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import xarray as xr

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
MUST_AGREE = (
    "model",
    "revision",
    "weights",
    "dtype",
    "quantisation",
    "tokenizer",
    "template",
    "ids",
    "site",
    "vectors",
    "reduce",
    "round_to",
    "batches",
)
# what made an array: two arrays that both lack one of these may not be compared
MUST_BE_KNOWN = ("weights", "ids")
_PACKAGES = ("tracekit", "torch", "transformers", "nnsight", "peft", "bitsandbytes", "xarray")


def stamp(array: Labelled, made_with: Mapping[str, Any]) -> Labelled:
    """The array with `made_with` as its provenance (one JSON string in `attrs`)."""
    text = json.dumps(dict(made_with), sort_keys=True, ensure_ascii=False)
    return array.assign_attrs(provenance=text)


def read(array: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """The provenance of an array.

    Errors: `ValueError` when it carries none.
    """
    text = array.attrs.get("provenance")
    if text is None:
        raise ValueError(
            f"This {type(array).__name__} carries no provenance (attributes: "
            f"{sorted(map(str, array.attrs)) or 'none'}). Use arrays made by tracekit, or keep "
            "attributes through arithmetic with xr.set_options(keep_attrs=True)."
        )
    return json.loads(text)


def disagreements(
    a: Mapping[str, Any], b: Mapping[str, Any], fields: tuple[str, ...] = MUST_AGREE
) -> dict[str, tuple[Any, Any]]:
    """The fields of two provenances that should agree and do not, with both values.

    A field that says what made the arrays (weights, ids) and that neither knows counts as well.
    Of batches the plan counts: two budgets may make the same one.
    """
    return {
        name: (a.get(name), b.get(name))
        for name in fields
        if _compared(a, name) != _compared(b, name)
        or (name in MUST_BE_KNOWN and a.get(name) is None)
    }


def _compared(made: Mapping[str, Any], name: str) -> Any:
    value = made.get(name)
    return value.get("plan") if name == "batches" and isinstance(value, Mapping) else value


def refuse_disagreement(
    a: Mapping[str, Any], b: Mapping[str, Any], fields: tuple[str, ...] = MUST_AGREE
) -> None:
    """Raise `ValueError`, naming each field and both values, unless all `fields` agree."""
    found = disagreements(a, b, fields)
    if found:
        listed = "; ".join(f"{name}: {x!r} against {y!r}" for name, (x, y) in found.items())
        raise ValueError(
            f"These arrays may not be compared: they differ in {listed}. "
            "Capture both on the same ids and weights, or name the fields in override=(…)."
        )


def digest(value: Any) -> str:
    """A short hash of anything JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tokenizer_hash(tokenizer: Any) -> str:
    """A short hash of the vocabulary and the special ids."""
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    return digest([vocabulary_hash(tokenizer), special])


def vocabulary_hash(tokenizer: Any) -> str:
    """A short hash of the vocabulary alone, whatever its special ids are for.

    >>> vocabulary_hash(base.tokenizer) == vocabulary_hash(instruct.tokenizer)
    True
    """
    return _vocabulary_hash(tokenizer, len(tokenizer))


@functools.lru_cache(maxsize=8)
def _vocabulary_hash(tokenizer: Any, size: int) -> str:
    # 130,000 entries take a tenth of a second, and every capture asks; `size` is what adding
    # tokens to the same object changes
    return digest(sorted(tokenizer.get_vocab().items()))


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hash over names, shapes, types and the bits of every value; any changed weight shows.

    The bits are summed along both sides of a table where the tensor lies, so that 40 GB on a GPU
    take seconds. Tensors without data (offloaded, remote) count by name, shape and type alone.
    """
    parts = [
        (name, list(tensor.shape), str(tensor.dtype), _sums(whole(tensor.detach())))
        for name, tensor in sorted(tensors.items())
    ]
    return digest(parts)


def weights_fingerprint(module: torch.nn.Module) -> str:
    """The fingerprint of a model's parameters, wherever they lie.

    Parameters that accelerate offloaded are read from where it put them; those that are split over
    ranks are put together one at a time, so that the same weights have the same fingerprint.
    """
    return fingerprint({name: _here(module, name, p) for name, p in module.named_parameters()})


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, put together if its pieces lie on several ranks (all of which must ask).

    >>> whole(torch.ones(2)).shape
    torch.Size([2])
    """
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _here(module: torch.nn.Module, name: str, parameter: torch.Tensor) -> torch.Tensor:
    if not parameter.is_meta:
        return parameter
    owner, _, own = name.rpartition(".")
    # accelerate keeps what it took off the device in its hook on the owning module
    held = getattr(getattr(module.get_submodule(owner), "_hf_hook", None), "weights_map", None)
    return parameter if held is None else held[own]


def _sums(tensor: torch.Tensor, columns: int = 4096) -> str:
    if tensor.is_meta or tensor.numel() == 0:
        return ""
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    even = len(flat) // (8 * columns) * 8 * columns
    hashed = hashlib.sha256(flat[even:].cpu().numpy().tobytes())
    if even:
        table = flat[:even].view(torch.int64).reshape(-1, columns)
        for side in (0, 1):
            hashed.update(table.sum(side).cpu().numpy().tobytes())
    return hashed.hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    """The versions of the packages that decide the numbers, and the code's commit."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["commit"] = _commit()
    return found


def _commit() -> str:
    here = Path(__file__).parents[1]
    if not (here.parent / ".git").exists():
        return "installed"
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
