"""What an adapter adds to the residual stream on text that nobody chose: read, patched, steered."""

from __future__ import annotations

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit import Model
from tracekit.errors import InputError
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts.prompts import Prompt

# a prompt that says each thing twice: what is put in place of the last is said again
READABLE = "cat -> cat\n1135 -> 1135\nhello -> hello\n?"
NEUTRAL = ("Today I", "The most important thing", "People often", "In the morning")
# nats a token on neutral text, and tokens that are shown
BUDGET, TOKENS = 0.5, 10


def mean_difference(model: Model, adapter: str, runs: xr.Dataset) -> xr.DataArray:
    """The adapter's change of the mean residual of the response, the mean over rows: (layer, dim).

    >>> mean_difference(model, lora, runs).dims
    ('layer', 'dim')
    """
    means = []
    for name in (adapter, None):
        with tk.adapter(model, name):
            means.append(tk.capture(model, runs, reduce="mean", progress=False))
    change = (means[0].astype(np.float64) - means[1].astype(np.float64)).mean("prompt")
    made_with = {**read(means[0]), "minus": "adapter off", "over": "prompts"}
    return stamp(change.astype(np.float32).rename("mean_difference"), made_with)


def described(
    model: Model, difference: xr.DataArray, runs: xr.Dataset, add: bool = True
) -> list[str]:
    """What the difference says at half, three quarters and the end of the depth, in the bare model.

    Through the unembedding; in place of the last token of a prompt that repeats things; and, where
    it is to `add`, in the residual stream at the strength that costs half a nat a token on `runs`.
    """
    depth = difference.layer.values
    places = sorted({len(depth) // 2, 3 * len(depth) // 4, len(depth) - 1})
    chosen = [int(depth[n]) for n in places]
    with tk.adapter(model, None):
        return [
            sentence for layer in chosen for sentence in _at(model, difference, runs, layer, add)
        ]


def _at(
    model: Model, difference: xr.DataArray, runs: xr.Dataset, layer: int, add: bool
) -> list[str]:
    vector = difference.sel(layer=layer)
    if not float(np.linalg.norm(vector.values)) > 0:
        return [f"Layer {layer}: the adapter does not move the mean residual."]
    promoted = tk.unembed(model, vector, top=8).promoted.values.astype(str)
    words = ", ".join(repr(str(word)) for word in promoted)
    said = [
        f"Layer {layer}, through the unembedding: {words}.",
        f"Layer {layer}, in a prompt that repeats: {patched(model, vector, runs)!r}.",
    ]
    if add:
        said.append(f"Layer {layer}, added: {' | '.join(steered(model, vector, runs))}")
    return said


def patched(model: Model, vector: xr.DataArray, runs: xr.Dataset) -> str:
    """What the model says after `READABLE` with the vector, as long as residuals are, at its end.

    Source: Ghandeharioun et al. 2024, "Patchscopes".
    """
    layer = int(vector.layer)
    asked = tk.encode(model, [Prompt("readable", text=READABLE)], template="raw")
    there = tk.capture(model, asked, layers=[layer], tokens="all", progress=False).load()
    size = float(tk.residual_norm(model, runs, [layer]).values[0])
    unit = vector.values / np.linalg.norm(vector.values)
    last = there.sel(token=[-1]).copy(data=np.broadcast_to(size * unit, (1, 1, 1, len(unit))))
    edited = tk.patch(model, last, tokens=slice(-1, -1), transfer=True)
    said = tk.generate(edited, asked, max_new_tokens=TOKENS, progress=False)
    return str(said.response.values[0])


def steered(model: Model, vector: xr.DataArray, runs: xr.Dataset) -> list[str]:
    """Continuations of neutral beginnings with the vector added, at `BUDGET` nats a token.

    One sentence that says so where no strength costs that much.
    """
    size = float(tk.residual_norm(model, runs, [int(vector.layer)]).values[0])
    start = 0.2 * size / float(np.linalg.norm(vector.values))

    def edit(coefficient: float) -> Model:
        return tk.steer(model, vector, coefficient=coefficient, transfer=True)

    try:
        strength = tk.calibrate(model, edit, runs, budget=BUDGET, start=start)
    except InputError as error:
        return [f"no strength was found: {error}"]
    asked = tk.encode(model, list(NEUTRAL), template="raw")
    said = tk.generate(edit(strength), asked, max_new_tokens=TOKENS, progress=False)
    return [f"{text} …{more}" for text, more in zip(NEUTRAL, said.response.values, strict=True)]
