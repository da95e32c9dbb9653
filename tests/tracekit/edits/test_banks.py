"""Several directions at several strengths in one generation, each row along its own."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tests.support.steering import LAYER, NEW

QUIET = {"progress": False}
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def bank(tiny_llama: TransformersModel) -> xr.DataArray:
    each = [steering.unit_vectors(tiny_llama, seed).sel(layer=LAYER) for seed in range(3)]
    return xr.concat(each, xr.Variable("direction", NAMES))


def test_one_generation_equals_one_by_one_and_plain_hooks(
    tiny_llama: TransformersModel, asked: xr.Dataset, bank: xr.DataArray, norm: float
) -> None:
    strengths = [0.0, 8 * norm, -8 * norm]
    rows = tk.sweep(asked, strengths, direction=bank.direction)
    assert rows.sizes["prompt"] == 4 * 3 * 3
    assert rows.prompt.values[[0, 4, -1]].tolist() == ["text/0@0", "text/0@1", "text/3@8"]
    edited = tk.steer(tiny_llama, bank[::-1], coefficient=rows.coefficient)
    together = tk.generate(edited, rows, max_new_tokens=NEW, **QUIET)
    seen = {}
    for name in NAMES:
        for strength in strengths:
            chosen = together.isel(
                prompt=(together.direction.values == name)
                & (together.coefficient.values == strength)
            )
            hook = {LAYER: steering.added(bank.sel(direction=name).values, strength)}
            said = steering.response_ids(chosen)
            assert said == steering.hooked_ids(tiny_llama, asked, hook, -1, NEW)
            seen[name, strength] = said
    assert seen["a", 0.0] == seen["c", 0.0]
    assert seen["a", strengths[1]] != seen["b", strengths[1]] != seen["b", strengths[2]]
    replayed = tk.provenance(tk.capture(edited, together, [LAYER], **QUIET))["edits"][0]
    assert replayed["chosen"]["by"] == "direction"
    other = tk.sweep(asked, strengths, direction=NAMES[::-1])
    swapped = tk.steer(tiny_llama, bank, coefficient=other.coefficient).tracekit_edits[0]
    assert swapped["chosen"]["hash"] != replayed["chosen"]["hash"]


def test_a_bank_may_have_layers(tiny_llama: TransformersModel, plain: xr.Dataset) -> None:
    whole = xr.concat(
        [steering.unit_vectors(tiny_llama, seed) for seed in range(2)],
        xr.Variable("trait", ["x/a", "x/b"]),
    ).sel(layer=[0, 2])
    coefficient = tk.per_prompt(plain, [1.0, 2.0, 3.0, 4.0])
    coefficient = coefficient.assign_coords(trait=("prompt", ["x/b", "x/a", "x/b", "x/a"]))
    edited = tk.steer(tiny_llama, whole, coefficient=coefficient)
    a, b = (tk.capture(m, plain, [0], **QUIET) for m in (tiny_llama, edited))
    rise = (b - a).sel(token=0, layer=0)
    want = whole.sel(layer=0).sel(trait=coefficient.trait) * coefficient
    np.testing.assert_allclose(rise, want.transpose("prompt", "dim"), atol=1e-4)


def test_directions_that_no_row_can_have_are_refused(
    tiny_llama: TransformersModel, asked: xr.Dataset, bank: xr.DataArray
) -> None:
    rows = tk.sweep(asked, [1.0], direction=["a", "z"])
    with pytest.raises(ValueError, match=r"along the directions \['z'\], and the vector has \['a'"):
        tk.steer(tiny_llama, bank, coefficient=rows.coefficient)
    with pytest.raises(ValueError, match=r"sel\(\{'direction': 'a'\}\), or steer each row along"):
        tk.steer(tiny_llama, bank, coefficient=1.0)
    spoiled, fine = bank.copy(), tk.sweep(asked, [1.0], direction=NAMES)
    spoiled[1] = 0
    with pytest.raises(ValueError, match=r"at layer 2 has the norm 0"):
        tk.steer(tiny_llama, spoiled, coefficient=fine.coefficient)
    with pytest.raises(ValueError, match=r"sweep over the directions \['a', 'a'\]"):
        tk.sweep(asked, [1.0], direction=["a", "a"])
