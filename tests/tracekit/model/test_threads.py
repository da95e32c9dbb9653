"""Several threads of one process on one model: one after another, or refused; never mixed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr

import tracekit as tk
from tracekit.model.load import model_provenance

THREADS, ROUNDS = 4, 3


@pytest.fixture(scope="module")
def prompts(tiny_llama):
    texts = ["Where is Paris in the world?", "Hi", "One two three four", "What for?"]
    return [tk.encode(tiny_llama, [text, text + " Why?"], template="raw") for text in texts]


def at_once(*calls):
    """What each call gave or raised, all begun at one moment."""
    gate = threading.Barrier(len(calls))

    def begin(call):
        gate.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


def captured(model, runs):
    return tk.capture(model, runs, tokens="all", progress=False, token_budget=16).values


def test_captures_of_several_threads_are_those_of_one(tiny_llama, prompts):
    alone = [captured(tiny_llama, runs) for runs in prompts]
    for _ in range(ROUNDS):
        found = at_once(*(lambda r=runs: captured(tiny_llama, r) for runs in prompts))
        for mine, theirs in zip(alone, found, strict=True):
            assert isinstance(theirs, np.ndarray), theirs
            assert np.array_equal(mine, theirs, equal_nan=True)
    # the twin: another thread's values are others
    assert not np.array_equal(alone[0], alone[2], equal_nan=True)


def test_sampling_and_edits_of_several_threads_are_those_of_one(
    tiny_llama, prompts, words, tiny_folder
):
    other = tk.load(tiny_folder, dtype="float32", tokenizer=words)  # one generator for both models
    vector = xr.DataArray(np.ones(32, np.float32), dims="dim", coords={"layer": 1})
    models = [tiny_llama, tk.steer(tiny_llama, vector, coefficient=3.0), other, tiny_llama]

    def sampled(model, runs, seed):
        options = {"max_new_tokens": 6, "temperature": 1.0, "seed": seed, "progress": False}
        return tk.generate(model, runs, **options).token_id.values

    calls = [
        lambda m=m, r=r, n=n: sampled(m, r, n)
        for n, (m, r) in enumerate(zip(models, prompts, strict=True))
    ]
    alone = [call() for call in calls]
    before = torch.random.get_rng_state()
    for _ in range(ROUNDS):
        for mine, theirs in zip(alone, at_once(*calls), strict=True):
            assert isinstance(theirs, np.ndarray), theirs
            assert np.array_equal(mine, theirs)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_raw_traces_of_several_threads_are_those_of_one(tiny_llama, prompts):
    def traced(runs):
        with torch.no_grad(), tiny_llama.trace(tk.inputs(runs)):
            values = tiny_llama.layers[1].output.save()
        return values

    def said(runs):
        with torch.no_grad(), tiny_llama.generate(tk.inputs(runs), max_new_tokens=3) as tracer:
            ids = tracer.result.save()
        return ids

    calls = [lambda r=r, f=f: f(r) for r in prompts for f in (traced, said)]
    alone = [call() for call in calls]
    for _ in range(ROUNDS):
        for mine, theirs in zip(alone, at_once(*calls), strict=True):
            assert isinstance(theirs, torch.Tensor), theirs
            assert torch.equal(mine, theirs)


def test_an_adapter_block_belongs_to_its_thread(fresh_llama, tiny_lora):
    runs = tk.encode(fresh_llama, ["Where is Paris?"], template="raw")
    clean = captured(fresh_llama, runs)
    elsewhere = [
        lambda: captured(fresh_llama, runs),
        lambda: tk.generate(fresh_llama, runs, max_new_tokens=1, progress=False),
        lambda: tk.adapter(fresh_llama, None).__enter__(),
        lambda: model_provenance(fresh_llama),
        lambda: fresh_llama.generate(tk.inputs(runs), max_new_tokens=1),
    ]
    with tk.adapter(fresh_llama, tiny_lora):
        on = captured(fresh_llama, runs)
        with ThreadPoolExecutor(1) as pool:
            for call in elsewhere:
                with pytest.raises(
                    RuntimeError, match=r"another thread is inside a `with tracekit"
                ):
                    pool.submit(call).result()
            with tk.adapter(fresh_llama, None):
                pass
            with pytest.raises(RuntimeError, match="another thread"):
                pool.submit(elsewhere[0]).result()
        assert np.array_equal(captured(fresh_llama, runs), on, equal_nan=True)
    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(elsewhere[0]).result(), clean, equal_nan=True)
    assert not np.array_equal(on, clean, equal_nan=True)


def test_a_capture_that_meets_an_adapter_is_clean_or_refused(fresh_llama, tiny_lora):
    runs = tk.encode(
        fresh_llama, ["One two three", "Four five", "Six", "Seven eight nine"], template="raw"
    )
    clean = captured(fresh_llama, runs)
    with tk.adapter(fresh_llama, tiny_lora):
        adapted = captured(fresh_llama, runs)

    def with_adapter():
        with tk.adapter(fresh_llama, tiny_lora):
            return captured(fresh_llama, runs)

    for _ in range(ROUNDS):
        found = at_once(lambda: captured(fresh_llama, runs), with_adapter, with_adapter)
        for values, due in zip(found, (clean, adapted, adapted), strict=True):
            if isinstance(values, Exception):
                assert isinstance(values, RuntimeError), repr(values)
                assert "another thread" in str(values)
            else:
                assert np.array_equal(values, due, equal_nan=True)
    assert np.array_equal(captured(fresh_llama, runs), clean, equal_nan=True)


def test_two_threads_do_not_capture_into_one_folder(tiny_llama, prompts, tmp_path):
    alone = tk.capture(tiny_llama, prompts[0], path=tmp_path / "alone", progress=False).compute()

    def into(path):
        return tk.capture(
            tiny_llama, prompts[0], path=path, token_budget=8, progress=False
        ).compute()

    for number in range(ROUNDS):
        path = tmp_path / str(number)
        found = at_once(lambda p=path: into(p), lambda p=path: into(p))
        done = [values for values in found if not isinstance(values, Exception)]
        assert done
        for values in done:
            assert np.allclose(values.sel(prompt=alone.prompt), alone, atol=1e-5, equal_nan=True)
        for error in found:
            if isinstance(error, Exception):
                assert isinstance(error, ValueError), repr(error)
                assert "is capturing into it" in str(error)
