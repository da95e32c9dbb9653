"""A change of a model's weights: it comes to its end, or never was, or the model says so."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.model.adapters.layers import is_on, turn
from tracekit.model.adapters.snapshot import Places, Snapshot, Switches
from tracekit.model.record import Origin, origin, recorded
from tracekit.model.threads import one_at_a_time
from tracekit.model.weights import fingerprint

# someone who leans on Ctrl-C gets through in the end, and the model then says that it is broken
TRIES = 20


def change(
    model: TransformersModel,
    what: str,
    action: Callable[[], None],
    keep: type[Snapshot] | type[Switches] = Snapshot,
) -> None:
    """Run `action`, which may change the model's weights and modules (or what `keep` keeps).

    Whatever it raises (an interrupt too), the model is as it was before, proved by the weights'
    fingerprint. A model that cannot be put back stays broken: every later call says so.
    """
    if recorded(model).changing == threading.get_ident():
        # part of a change that is under way, which puts everything back itself
        return action()
    with one_at_a_time():
        about = origin(model)
        about.settle()  # by what is there before
        _change(about, what, action, keep(about.root))


def toggle(model: TransformersModel, on: bool) -> None:
    """Switch the attached adapter on or off: flags alone change, and only they are put back."""
    what = f"switching the adapter {'on' if on else 'off'}"
    change(model, what, lambda: turn(model._module, on), Switches)


def _change(
    about: Origin, what: str, action: Callable[[], None], before: Snapshot | Switches
) -> None:
    adapters, kept = dict(about.adapters), (about.bare, about.files)
    try:
        # first of all: an interrupt at any moment from here on leaves this message, not silence
        about.broken, about.changing = _broken(about, what), threading.get_ident()
        action()
        _refuse_rewritten(about, before, what)
        about.broken = None
    except BaseException as error:

        def put_back() -> None:
            before.restore()
            about.adapters, (about.bare, about.files) = adapters, kept
            if _is_loaded(about):
                about.broken = None

        interrupt = insist(put_back)
        if interrupt is not None:
            raise interrupt from error
        raise
    finally:
        about.changing = None


def insist(action: Callable[[], None]) -> BaseException | None:
    """Run an action, again after each interrupt that ends it; gives the last interrupt."""
    interrupt: BaseException | None = None
    for _ in range(TRIES):
        try:
            action()
            return interrupt
        except KeyboardInterrupt as error:
            interrupt = error
    return interrupt


def _refuse_rewritten(about: Origin, before: Snapshot | Switches, what: str) -> None:
    written = before.rewritten()
    # a forward through some forms takes a weight out and puts it back, which counts as written
    if written and not _is_loaded(about):
        raise InputError(
            f"Refused: {what} wrote over {len(written)} weights that were there before, such as "
            f"{written[0]}, so that switched off it would still be on. Merge that adapter into "
            "weights of their own (peft's merge_and_unload), and load those."
        )


def _is_loaded(about: Origin) -> bool:
    """Whether the base's weights are those that `load` read."""
    bare = about.bare or Places(about.root._module)
    return fingerprint(bare.parameters()) == about.weights


def _broken(about: Origin, what: str) -> str:
    return (
        f"{about.name} is in no known state: {what} was broken off, and its former weights could "
        "not be put back and proved. Nothing it computes can be trusted. Load the model again."
    )


@contextlib.contextmanager
def turned(model: TransformersModel, on: bool) -> Iterator[None]:
    """The attached adapter switched on or off inside, and as it was afterwards."""
    before = is_on(model._module)
    toggle(model, on)
    try:
        yield
    finally:
        if recorded(model).broken is None or recorded(model).changing is not None:
            toggle(model, before)
