"""nnsight's TransformersModel, except that it refuses what would be silently wrong."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import anyio
import torch
from nnsight import TransformersModel
from nnsight.intervention.interleaver import Interleaver
from nnsight.modeling.processing import as_encoding
from nnsight.modeling.tp import TPFragments
from torch._guards import detect_fake_mode

from tracekit.errors import InputError
from tracekit.model.checks.checkpoint import noting_missing, refuse_missing
from tracekit.model.record import Origin, origin
from tracekit.model.release import ReleasingTracer
from tracekit.model.threads import one_at_a_time

# nnsight mounts `save` on every object, and anyio refuses classes with a name that it does not know
# as it defines its own, at a process's first event loop: none would start from here on
anyio.TypedAttributeSet.__annotations__ = {"save": Any}


class OwnInterleaver(Interleaver):
    """A run is under way for the thread that runs it, and for no other one."""

    runner: int | None = None
    about: Origin | None = None

    @property
    def interleaving(self) -> bool:
        """Whether this thread runs it."""
        return self.runner is not None and self.runner == threading.get_ident()

    @interleaving.setter
    def interleaving(self, on: bool) -> None:
        self.runner = threading.get_ident() if on else None

    def __enter__(self) -> Interleaver:
        # a part of the model that is traced by itself, before the whole was; scans hold no values
        if self.about is not None and self.about.is_pending and detect_fake_mode() is None:
            raise InputError(
                f"A part of {self.about.name} was to run in a trace of its own, and nothing was "
                "proved of the model yet. Call tracekit.check(model) first."
            )
        return super().__enter__()


class GuardedTracer(ReleasingTracer):
    """A trace that runs alone in its process, on a model that is sound and free for this thread.

    nnsight keeps the workers of a run on the model: those of two threads would mix.
    """

    def __exit__(self, *raised: Any) -> bool:
        with one_at_a_time() as outermost:
            _require_sound(self.envoy)
            if outermost:
                # what an interrupted trace left behind would be served in this one
                self.envoy.interleaver.cancel()
                self.envoy.interleaver.interleaving = False
            return super().__exit__(*raised)


class GuardedModel(TransformersModel):
    """What `load` returns: a `TransformersModel` whose traces refuse ids padded without a mask.

    transformers would take the padding for text and shift every position, and no number would
    look wrong. A trace also refuses a model whose weights were left half changed, or that another
    thread holds in an `adapter` block; traces of several threads run one after another. A trace or
    generation frees its tensors when it ends (`ReleasingTracer`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("interleaver", OwnInterleaver(fragments=TPFragments()))
        with one_at_a_time():
            super().__init__(*args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        """As nnsight's; what runs here runs alone."""
        if about := getattr(self._module, "tracekit_origin", None):
            _require_sound(self)
            about.settle()
        if not kwargs.get("remote"):
            kwargs.setdefault("tracer_cls", GuardedTracer)
        return super().trace(*args, **kwargs)

    def load_adapter(self, peft_id: str | None) -> None:
        """As nnsight's, once the bare weights are known."""
        if about := getattr(self._module, "tracekit_origin", None):
            about.settle()
        super().load_adapter(peft_id)

    def interleave(self, *args: Any, **kwargs: Any) -> Any:
        """As nnsight's, which also runs calls without a `with`; they run alone too."""
        with one_at_a_time():
            _require_sound(self)
            return super().interleave(*args, **kwargs)

    def _batch(self, invokes: list[Any], fn: Any) -> tuple[Any, ...]:
        for inputs, keywords in invokes:
            encoding = as_encoding(inputs[0] if inputs else None, keywords)
            if encoding is not None and encoding.get("attention_mask") is None:
                refuse_padding(encoding.get("input_ids"), self.tokenizer)
        return super()._batch(invokes, fn)

    def _load(self, repo_id: str, *args: Any, **kwargs: Any) -> torch.nn.Module:
        with noting_missing() as missing:
            module = super()._load(repo_id, *args, **_kept_there(kwargs))
        refuse_missing(repo_id, missing)
        return module

    def _wrap(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        if getattr(module, "hf_device_map", None) is None:
            kwargs.setdefault("device", -1)  # transformers: wherever it lies
        return super()._wrap(module, *args, **kwargs)

    def _remoteable_class(self) -> type:
        return TransformersModel


def _kept_there(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The settings of a load, with its `device_map`'s device named once more if it has one alone.

    transformers notes no map on a model that lies on one device, and its pipeline then moves the
    model to the first GPU: one that was asked for on the CPU, or on the GPU of another rank.
    """
    places = kwargs.get("device_map") if torch.cuda.is_available() else None
    devices = set(places.values()) if isinstance(places, Mapping) else {places}
    alone = devices.pop() if len(devices) == 1 else None
    if alone is None or alone in ("disk", "auto", "balanced", "balanced_low_0", "sequential"):
        return kwargs
    return {**kwargs, "device": alone}


@contextlib.contextmanager
def unedited(model: Any) -> Iterator[None]:
    """The model inside without edits made in place, nor what an interrupted trace left behind."""
    edits, model._edits = model._edits, []
    model.interleaver.cancel()
    model.interleaver.interleaving = False
    try:
        yield
    finally:
        model._edits = edits


def _require_sound(model: Any) -> None:
    # while it loads, a model has no record yet
    if hasattr(model._module, "tracekit_origin"):
        origin(model)


def refuse_padding(ids: Any, tokenizer: Any) -> None:
    """Raise `ValueError` for a tensor of ids whose rows are padded unequally."""
    pad = getattr(tokenizer, "pad_token_id", None)
    if not isinstance(ids, torch.Tensor) or ids.ndim != 2 or len(ids) < 2 or pad is None:
        return
    # how many pad ids each row begins and ends with
    counts = [(side == pad).long().cumprod(1).sum(1) for side in (ids, ids.flip(1))]
    unequal = [
        side for side, n in zip(("left", "right"), counts, strict=True) if len(n.unique()) > 1
    ]
    if unequal:
        padding = counts[0 if unequal[0] == "left" else 1].tolist()
        raise InputError(
            f"A trace was given {len(ids)} rows of ids without an attention mask, and the rows "
            f"have {padding} padding ids ({pad}) on the {unequal[0]}: they would be read as text. "
            'Pass {"input_ids": ids, "attention_mask": mask} (tracekit.inputs makes both), or a '
            "mask of ones if these ids are text."
        )
