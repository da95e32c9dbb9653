"""The twelve tasks with tracekit: each body is counted, and run."""

# what a task is, `given.TASKS` says; a docstring would stand between the lines that are compared
# ruff: noqa: D103
from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
import traits
from experiments.benchmarks.tracing_tasks.given import (
    CAPITAL,
    CLEAN,
    CORRUPTED,
    DOSES,
    GIFT,
    LANDS,
    NAMES,
    PLACES,
    POEM,
    PROBE_LAYER,
    SCALES,
    SOUP,
    TALK,
    TOWER,
    TRAIT_LAYER,
    TWICE,
)


def load(folder: str, adapter: str) -> Any:
    """The model, with its adapter at hand and off."""
    return tk.load(folder, dtype="float32")


def labelled(name: str, values: np.ndarray) -> xr.DataArray:
    """A direction as one has it here: with the layer that it was made at."""
    layer = TRAIT_LAYER if name == "vector" else PROBE_LAYER
    return xr.DataArray(values, dims="dim", coords={"layer": layer})


def adapters_by_layer(model: Any, adapter: str) -> Any:
    runs = tk.encode(model, [SOUP], template="raw")
    return tk.compare(model, runs, (adapter, None), range(30)).change.mean(["prompt", "token"])


def patterns_and_units(model: Any, adapter: str) -> Any:
    runs = tk.encode(model, [TWICE], template="raw")
    pattern = tk.capture(model, runs, 18, site="pattern", tokens="all").squeeze()
    return pattern, tk.capture(model, runs, 16, site="mlp_hidden", tokens="all").squeeze()


def lens_table(model: Any, adapter: str) -> Any:
    return tk.logit_lens(model, tk.encode(model, [TOWER], template="raw"), PLACES).logprob.squeeze()


def turns(model: Any, adapter: str) -> Any:
    raw = tk.encode(model, [TOWER], template="raw")
    chat = tk.encode(model, [tk.Prompt("talk/0", messages=TALK)])
    second = tk.capture(model, chat, 10, tokens=tk.find(chat, role="user", turn=1))
    return tk.capture(model, raw, 10, tokens="all").squeeze(), second.squeeze()


def top_token(model: Any, adapter: str, vector: Any) -> Any:
    runs = tk.encode(model, [POEM], template="raw")
    along = tk.capture(model, runs, tokens="all", vectors=vector).squeeze()
    at = int(along.values.argmax())
    return along, along.token_text.values[max(at - 3, 0) : at + 4]


def patching(model: Any, adapter: str) -> Any:
    clean, corrupted = (tk.encode(model, [text], template="raw") for text in (CLEAN, CORRUPTED))
    metric = tk.logit_difference(model, *LANDS)
    pairs = (corrupted, clean), (clean, corrupted)
    return [tk.activation_patching(model, *pair, metric=metric).squeeze() for pair in pairs]


def attribution(model: Any, adapter: str) -> Any:
    runs = tk.encode(model, [CAPITAL], template="raw")
    metric = tk.logit_difference(model, " Rome", " Paris")
    slopes = tk.gradients(model, runs, 10, metric=metric, tokens="all", times_input=True)
    return slopes.sum("dim").squeeze()


def dose_response(model: Any, adapter: str, vector: Any) -> Any:
    band = traits.random_directions(vector, 4)
    bank = xr.concat([vector.expand_dims(direction=["own"]), band], "direction")
    asked = tk.encode(model, [GIFT], template="raw")
    asked = tk.sweep(asked, DOSES, direction=bank.direction)
    edited = tk.steer(model, bank, coefficient=asked.coefficient)
    return tk.measure(edited, asked, tk.logit_difference(model, *NAMES))


def head_ablation(model: Any, adapter: str) -> Any:
    runs = tk.encode(model, [GIFT], template="raw")
    edited = [tk.knock_out(model, heads=[(20, head)]) for head in range(9)]
    metric = tk.logit_difference(model, *NAMES)
    return [tk.measure(one, runs, metric).item() for one in edited]


def conditional(model: Any, adapter: str, vector: Any, probe: Any) -> Any:
    runs = tk.encode(model, [TOWER], template="raw")
    edited = tk.steer(model, vector, coefficient=3.0, when=tk.when(probe, above=0.0))
    return tk.generate(edited, runs, max_new_tokens=8).token_id.squeeze()


def strengths(model: Any, adapter: str) -> Any:
    runs, found = tk.encode(model, [SOUP], template="raw"), []
    metric = tk.logit_difference(model, " dark", " cheese")
    for scale in SCALES:
        with tk.adapter(model, adapter, scale=scale):
            found.append(tk.measure(model, runs, metric).item())
    return found


def divergence(model: Any, adapter: str) -> Any:
    runs = tk.encode(model, [SOUP], template="raw")
    return tk.compare(model, runs, (adapter, None)).kl.squeeze()
