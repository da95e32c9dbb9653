"""How a model computes its attention, for as long as something needs it otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nnsight import TransformersModel

from tracekit.model.threads import one_at_a_time

EAGER = "eager"


@contextlib.contextmanager
def eager(model: TransformersModel, wanted: bool = True) -> Iterator[None]:
    """The model inside computes its attention step by step, and as before afterwards.

    Fused kernels never hold the pattern. Other threads wait; `wanted=False` changes nothing.

    >>> with eager(model):
    ...     model._module.config._attn_implementation
    'eager'
    """
    with computed_by(EAGER, model, wanted):
        yield


@contextlib.contextmanager
def computed_by(name: str, model: TransformersModel, wanted: bool = True) -> Iterator[None]:
    """The model inside attends by the form that transformers has under a name.

    >>> with computed_by("sdpa", model):
    ...     model._module.config._attn_implementation
    'sdpa'
    """
    if not wanted:
        yield
        return
    with one_at_a_time() as outermost:
        if outermost:
            # what an interrupted trace left behind; a trace inside does not see that it is first
            model.interleaver.cancel()
            model.interleaver.interleaving = False
        configs = {id(c): c for m in model._module.modules() if (c := getattr(m, "config", None))}
        before = [(c, getattr(c, "_attn_implementation", None)) for c in configs.values()]
        try:
            model._module.set_attn_implementation(name)
            yield
        finally:
            for config, own in before:
                if own is not None:
                    config._attn_implementation_internal = own
