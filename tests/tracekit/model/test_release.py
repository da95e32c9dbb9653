"""After a pass nothing but its result is alive, with Python's collector off."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight.intervention.tracer import InterleavingTracer

import tracekit as tk
from tracekit.model.release import released
from tracekit.passes import batching

NEW = {"max_new_tokens": 3, "progress": False}


@contextmanager
def watched() -> Iterator[list[weakref.ref[torch.Tensor]]]:
    """A weak reference to whatever goes into a module or comes out, with the collector off."""
    seen: list[weakref.ref[torch.Tensor]] = []

    def note(module: torch.nn.Module, args: Any, output: Any) -> None:
        values = (*args, *(output if isinstance(output, tuple) else (output,)))
        seen.extend(weakref.ref(v) for v in values if isinstance(v, torch.Tensor))

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    gc.disable()
    try:
        yield seen
    finally:
        gc.enable()
        hook.remove()


def alive(seen: list[weakref.ref[torch.Tensor]]) -> int:
    assert seen
    return sum(ref() is not None for ref in seen)


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    texts = ["Where is Paris?", "Hello", "One, two, three, four"]
    return tk.encode(tiny_llama, texts, responses=[" It is in France"] * 3)


def steered(model: Any, **options: Any) -> Any:
    vector = xr.DataArray(np.ones(32, np.float32), dims="dim", coords={"layer": 1})
    return tk.steer(model, vector, coefficient=0.1, transfer=True, **options)


def plain(model: Any, runs: xr.Dataset, **options: Any) -> None:
    with torch.no_grad(), model.trace(tk.inputs(runs), **options) as tracer:
        model.layers[1].output.save()
        tracer.stop()


PASSES: dict[str, Callable[[Any, xr.Dataset], Any]] = {
    "capture": lambda m, r: tk.capture(m, r, token_budget=1, progress=False),
    "generate": lambda m, r: tk.generate(m, r, **NEW),
    "steered generation": lambda m, r: tk.generate(steered(m), r, **NEW),
    "steered capture": lambda m, r: tk.capture(steered(m), r, [0, 1], progress=False),
    "capture_during": lambda m, r: tk.capture_during(m, r, [1], **NEW),
    "logprobs": lambda m, r: tk.logprobs(m, r),
    "gradients": lambda m, r: tk.gradients(m, r, towards="Yes", against="No"),
    "divergence": lambda m, r: tk.divergence(m, steered(m), r),
    "check": lambda m, r: tk.check(m),
    "a trace of one's own": plain,
}


@pytest.mark.parametrize("name", PASSES)
def test_nothing_but_the_result_is_alive_after(
    name: str, tiny_llama: Any, runs: xr.Dataset
) -> None:
    with watched() as seen:
        result = PASSES[name](tiny_llama, runs)
        assert alive(seen) == 0
    del result


def test_the_twin_with_the_tracer_of_nnsight_keeps_its_tensors(
    tiny_llama: Any, runs: xr.Dataset
) -> None:
    with watched() as seen:
        plain(tiny_llama, runs, tracer_cls=InterleavingTracer)
        assert alive(seen) > 0


def test_an_edited_model_that_lives_on_keeps_no_activation(
    tiny_llama: Any, runs: xr.Dataset
) -> None:
    both = steered(steered(tiny_llama), tokens="all")
    with watched() as seen:
        tk.generate(both, runs, **NEW)
        assert alive(seen) == 0


def test_an_edited_model_goes_with_its_last_name(tiny_llama: Any) -> None:
    with watched():
        once = steered(tiny_llama)
        twice = steered(once)
        gone = [weakref.ref(once), weakref.ref(twice)]
        del once
        del twice
        assert [ref() for ref in gone] == [None, None]


def test_a_batch_that_runs_out_of_memory_is_let_go_before_its_halves(
    tiny_llama: Any, runs: xr.Dataset
) -> None:
    with watched() as seen:

        def compute(rows: Any) -> int:
            assert not seen or alive(seen) == 0
            with torch.no_grad(), tiny_llama.trace(tk.inputs(runs)) as tracer:
                tiny_llama.layers[1].output.save()
                if len(rows) > 1:
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
                tracer.stop()
            return len(rows)

        assert [size for _, size in batching.run([0, 1, 2], compute)] == [1, 1, 1]


def test_a_failed_batch_in_a_cycle_is_collected_before_the_retry() -> None:
    left: list[weakref.ref[torch.Tensor]] = []

    def compute(rows: Any) -> int:
        assert all(ref() is None for ref in left)
        if len(rows) > 1:
            cycle: list[Any] = [torch.zeros(3)]
            cycle.append(cycle)
            left.append(weakref.ref(cycle[0]))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return 1

    with released():
        assert len(list(batching.run([0, 1], compute))) == 2


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_left_as_it_was(on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        with released():
            assert not gc.isenabled()
        assert gc.isenabled() is on
    finally:
        (gc.enable if before else gc.disable)()
