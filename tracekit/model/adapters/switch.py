"""Switching adapters on one set of loaded weights."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.adapters.forms import adapter_path, files_of, refuse_unfit, stored_dtype
from tracekit.model.adapters.layers import (
    adapter_name,
    adapter_tensors,
    current_adapter,
    freeze,
    is_on,
    turn,
)
from tracekit.model.adapters.scale import refuse_scale, rescale
from tracekit.model.adapters.snapshot import Places
from tracekit.model.adapters.transition import change, insist, toggle
from tracekit.model.checks.check import reference_logits, verify_adapter
from tracekit.model.distributed import forget_partial_sums, name_halves
from tracekit.model.record import Origin, fingerprinted, origin, recorded
from tracekit.model.threads import one_at_a_time
from tracekit.model.weights import fingerprint


@contextlib.contextmanager
def adapter(
    model: TransformersModel, name: str | os.PathLike[str] | None, *, scale: float = 1.0
) -> Iterator[TransformersModel]:
    """The same loaded weights with that adapter (`None`: bare), the former one back afterwards.

    `name` is a folder, a hub id, or a shipped organism (`"ten_biases"`); a LoRA acts at `scale`
    times its own strength (below 0: against it), which provenance says. Nests, and restores on
    exceptions, interrupts too. On an edited copy it acts on the model that was loaded, which
    the copy shares. The block belongs to its thread: until its end, what other threads ask of
    this model is refused.

    Errors: `ValueError` for an adapter that does not fit this model or cannot be switched, or
    that has no scaling;
    `FileNotFoundError` for a hub id that cannot be reached. The model is then left as it was,
    bit for bit. `RuntimeError` while another thread is in such a block, or for a model that an
    interrupted change left in no known state.

    >>> with adapter(model, lora):
    ...     adapted = tk.capture(model, runs, layers=[12])
    """
    about, inside = origin(model), recorded(model).inside
    refuse_scale(scale, None if name is None else os.fspath(name), about.remote is True)
    with one_at_a_time():
        before = _Former(about)
    try:
        _enter(model)
        rescale(about, 1.0)
        switch(model, name)
        rescale(about, scale)
        yield model
    finally:
        # twice: an interrupt may hit before the first begins; else the second has nothing to do
        try:
            _leave(about, before, inside)
        finally:
            _leave(about, before, inside)


def switch(model: TransformersModel, name: str | os.PathLike[str] | None) -> None:
    """Attach and switch on the adapter `name`, or switch off the one attached (`None`).

    An adapter that is switched off stays in memory, so that toggling one costs nothing; attaching
    another one takes its place. One whose files were written anew is read again.
    """
    about = origin(model)
    root, path = about.root, None if name is None else adapter_path(os.fspath(name))
    if about.remote is True:
        if path is not None and root.peft != path:
            refuse_unfit(root, path)
        return _name_for_server(root, path)
    if path is not None and (root.peft != path or about.files != files_of(path)):
        refuse_unfit(root, path)
        if about.watch is not None and current_adapter(root) is None:
            fingerprinted(about)
        change(root, f"attaching {adapter_name(path)!r}", lambda: _replace(root, path))
    elif root.peft is not None and is_on(root._module) != (path is not None):
        toggle(root, path is not None)


def _enter(model: TransformersModel) -> None:
    with one_at_a_time():
        origin(model).inside = threading.get_ident()


@dataclass(frozen=True)
class _Adapted:
    """An adapter that is attached, and all that is known of it."""

    path: str
    files: Any
    weights: str
    places: Places


class _Former:
    """What to go back to: the adapter that was on (kept as it is, whatever its files become)."""

    def __init__(self, about: Origin) -> None:
        path = current_adapter(about.root)
        self.path, self.adapted, self.scale = path, None, about.scale
        if path is not None and about.remote is not True:
            places = Places(about.root._module)
            self.adapted = _Adapted(path, about.files, about.adapters[path], places)


def _leave(about: Origin, before: _Former, inside: int | None) -> None:
    interrupt = insist(lambda: _go_back(about, before))
    if about.inside == threading.get_ident():
        about.inside = inside
    if interrupt is not None:
        raise interrupt


def _go_back(about: Origin, before: _Former) -> None:
    root = about.root
    if about.inside != threading.get_ident() or about.broken is not None:
        return  # the block was not entered, or every later call says what happened
    if about.remote is True:
        if root.peft != before.path:
            _name_for_server(root, before.path)
        return
    rescale(about, 1.0)
    adapted = before.adapted
    if adapted is not None and not adapted.places.are_there():
        change(root, "leaving an adapter block", lambda: _put_back(about, adapted))
    elif is_on(root._module) != (adapted is not None):
        toggle(root, adapted is not None)
    rescale(about, before.scale)


def _put_back(about: Origin, adapted: _Adapted) -> None:
    adapted.places.restore()
    _rename(about.root, adapted.path)
    about.files = adapted.files
    about.adapters[adapted.path] = adapted.weights
    turn(about.root._module, True)


def _replace(root: TransformersModel, path: str) -> None:
    about = origin(root)
    if about.bare is not None:
        about.bare.restore()
        _rename(root, None)
    if about.reference is None:
        # check=False spares the proofs of the names, never the adapter's
        about.reference = reference_logits(root)
    bare, files = Places(root._module), files_of(path)
    _attach(root, path)
    about.bare, about.files = bare, files
    about.adapters[path] = fingerprint(adapter_tensors(root._module))
    verify_adapter(root)


def _rename(root: TransformersModel, path: str | None) -> None:
    root.peft = path
    root._update(root._module)


def _name_for_server(root: TransformersModel, path: str | None) -> None:
    # the server attaches and detaches by name; here nnsight builds another skeleton
    about = origin(root)
    root.load_adapter(path)
    root._module.tracekit_origin = about
    if path is not None:
        about.adapters[path] = "remote"


def _attach(root: TransformersModel, path: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            name_halves(root)
            root.load_adapter(path)
            forget_partial_sums(root)
    except MemoryError:
        raise
    except Exception as error:
        # peft meets a damaged file or a field of another kind with any error that there is
        raise InputError(
            f"The adapter {adapter_name(path)!r} does not fit {origin(root).name}: "
            f"{_reason(error)} Use an adapter trained for this model."
        ) from error
    _keep_stored_precision(root._module, path)
    freeze(root._module)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if not isinstance(error, RuntimeError | ValueError | KeyError | OSError):
        text = f"{type(error).__name__}: {text}"
    _, lost, names = text.partition("Weights with no place: ")
    if lost:
        return f"these of its weights match no module, or modules got none: {names}."
    return text if len(text) <= 400 else f"{text[:400]} …"


def _keep_stored_precision(module: torch.nn.Module, path: str) -> None:
    # peft casts a 16-bit adapter up to float32: one of 6.6 GB would take 13.3 GB
    stored = stored_dtype(path)
    if module.dtype == torch.float32 or stored.itemsize != 2:
        return
    for tensor in adapter_tensors(module).values():
        tensor.data = tensor.data.to(stored)
