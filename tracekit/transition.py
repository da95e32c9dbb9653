"""A change of a model's weights: it comes to its end, or never was, or the model says so."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from nnsight import TransformersModel

from tracekit.origin import Origin, origin, recorded
from tracekit.provenance import fingerprint
from tracekit.snapshot import Snapshot
from tracekit.threads import one_at_a_time
from tracekit.tuners import base_tensors, is_on, turn


def change(model: TransformersModel, what: str, action: Callable[[], None]) -> None:
    """Run `action`, which may change the model's weights and modules.

    Whatever it raises (an interrupt too), the model is as it was before, proved by the weights'
    fingerprint. A model that cannot be put back stays broken: every later call says so.
    """
    about = origin(model)
    if about.changing is not None:
        # part of a change that is under way, which puts everything back itself
        return action()
    with one_at_a_time():
        _change(about, what, action)


def _change(about: Origin, what: str, action: Callable[[], None]) -> None:
    before, adapters = Snapshot(about.root), dict(about.adapters)
    kept = (about.bare, about.files)
    try:
        # first of all: an interrupt at any moment from here on leaves this message, not silence
        about.broken, about.changing = _broken(about, what), threading.get_ident()
        action()
        about.broken = None
    except BaseException:
        before.restore()
        about.adapters, (about.bare, about.files) = adapters, kept
        if _is_loaded(about):
            about.broken = None
        raise
    finally:
        about.changing = None


def _is_loaded(about: Origin) -> bool:
    """Whether the base's weights are those that `load` read."""
    return fingerprint(base_tensors(about.root._module)) == about.weights


def _broken(about: Origin, what: str) -> str:
    return (
        f"{about.name} is in no known state: {what} was broken off, and its former weights could "
        "not be put back and proved. Nothing it computes can be trusted. Load the model again."
    )


@contextlib.contextmanager
def turned(model: TransformersModel, on: bool) -> Iterator[None]:
    """The attached adapter switched on or off inside, and as it was afterwards."""
    before = is_on(model._module)
    change(model, "switching an adapter", lambda: turn(model._module, on))
    try:
        yield
    finally:
        if recorded(model).broken is None or recorded(model).changing is not None:
            change(model, "switching an adapter", lambda: turn(model._module, before))
