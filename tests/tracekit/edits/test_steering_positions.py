"""Which token an edit changes first; rows of one batch apart; sweeps in one generation."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel

import tracekit as tk
from tests.support import steering
from tracekit.passes.generating.strength import sweep
from tracekit.storage.provenance import read

NEW, LAYER = 5, 2


@pytest.fixture(scope="module")
def asked(tiny_llama: TransformersModel) -> xr.Dataset:
    return tk.encode(tiny_llama, steering.PROMPTS)


@pytest.fixture(scope="module")
def plain(tiny_llama: TransformersModel, asked: xr.Dataset) -> xr.Dataset:
    return tk.generate(tiny_llama, asked, max_new_tokens=NEW, progress=False)


@pytest.fixture(scope="module")
def vector(tiny_llama: TransformersModel) -> xr.DataArray:
    return steering.unit_vectors(tiny_llama).sel(layer=LAYER)


@pytest.fixture(scope="module")
def strong(tiny_llama: TransformersModel, plain: xr.Dataset) -> float:
    return 5 * steering.mean_norm(tiny_llama, plain, LAYER)


@pytest.mark.parametrize(
    ("tokens", "first_residual", "first_generated", "first_prediction"),
    [
        (slice(-1, None), -1, 0, 0),
        ("response", -1, 0, 0),
        (slice(0, None), 0, 1, 1),
        (slice(2, None), 2, 3, 3),
        ("all", None, 0, None),
        (slice(None, -3), None, 0, None),
    ],
)
def test_the_first_token_that_an_edit_changes(
    tokens: str | slice,
    first_residual: int | None,
    first_generated: int,
    first_prediction: int | None,
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    vector: xr.DataArray,
    strong: float,
) -> None:
    edited = tk.steer(tiny_llama, vector, coefficient=strong, tokens=tokens)
    moved = _changed(
        *(tk.capture(m, plain, [LAYER], tokens="all", progress=False) for m in (tiny_llama, edited))
    ).any("dim")
    scores = _changed(*(tk.logprobs(m, plain) for m in (tiny_llama, edited)))
    said = tk.generate(edited, asked, max_new_tokens=NEW, progress=False)
    new, old = steering.response_ids(said), steering.response_ids(plain)
    for row in range(len(new)):
        start = -int(plain.prompt_length[row])
        labels = moved.isel(prompt=row, layer=0)
        assert _first(labels) == (start if first_residual is None else first_residual)
        predicted = start + 1 if first_prediction is None else first_prediction
        assert _first(scores.isel(prompt=row)) == predicted
        differs = [n for n, (a, b) in enumerate(zip(new[row], old[row], strict=False)) if a != b]
        assert differs[0] == first_generated


def _changed(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    return (a != b) & a.notnull()


def _first(changed: xr.DataArray) -> int:
    return int(changed.token[changed.values][0])


def test_an_edit_stops_at_the_end_of_its_slice(
    tiny_llama: TransformersModel, plain: xr.Dataset, vector: xr.DataArray
) -> None:
    edited = tk.steer(tiny_llama, vector, coefficient=3.0, tokens=slice(1, 2))
    a, b = (tk.capture(m, plain, [LAYER], progress=False) for m in (tiny_llama, edited))
    rise = xr.dot(b - a, vector, dim="dim").isel(layer=0)
    np.testing.assert_allclose(
        rise.sel(token=[-1, 0, 1, 2, 3, 4]).values[1], [0, 0, 3, 3, 0, 0], atol=1e-4
    )


def test_rows_of_a_batch_do_not_interfere(
    tiny_llama: TransformersModel,
    asked: xr.Dataset,
    plain: xr.Dataset,
    vector: xr.DataArray,
    strong: float,
) -> None:
    amounts = [0.0, strong, 0.0, -strong]
    coefficient = tk.per_prompt(asked, amounts)
    edited = tk.steer(tiny_llama, vector, coefficient=coefficient)
    said = steering.response_ids(tk.generate(edited, asked, max_new_tokens=NEW, progress=False))
    before = steering.response_ids(plain)
    assert (said[0], said[2]) == (before[0], before[2])
    assert said[1] != before[1]
    assert said[3] != before[3]
    hooks = {LAYER: steering.added(vector.values, amounts)}
    assert said == steering.hooked_ids(tiny_llama, asked, hooks, -1, NEW)
    backwards = {LAYER: steering.added(vector.values, amounts[::-1])}
    assert said != steering.hooked_ids(tiny_llama, asked, backwards, -1, NEW)


def test_coefficients_follow_their_prompts_through_any_batching(
    tiny_llama: TransformersModel, asked: xr.Dataset, vector: xr.DataArray, strong: float
) -> None:
    amounts = np.linspace(-strong, strong, len(steering.PROMPTS))
    coefficient = tk.per_prompt(asked, amounts)
    edited = tk.steer(tiny_llama, vector, coefficient=coefficient[::-1])
    whole = tk.generate(edited, asked, max_new_tokens=NEW, progress=False)
    alone = tk.generate(edited, asked, max_new_tokens=NEW, token_budget=1, progress=False)
    assert steering.response_ids(whole) == steering.response_ids(alone)
    for row, amount in enumerate(amounts):
        single = tk.steer(tiny_llama, vector, coefficient=float(amount))
        one = tk.generate(single, asked.isel(prompt=[row]), max_new_tokens=NEW, progress=False)
        assert steering.response_ids(one)[0] == steering.response_ids(whole)[row]


def test_a_coefficient_of_another_set_is_refused(
    tiny_llama: TransformersModel, asked: xr.Dataset, vector: xr.DataArray
) -> None:
    texts = [*steering.PROMPTS[:3], "Something else."]
    other = tk.encode(tiny_llama, texts)
    assert other.prompt.values.tolist() == asked.prompt.values.tolist()
    for coefficient in (
        tk.per_prompt(asked, [1.0, 2.0, 3.0, 4.0]),
        sweep(asked, [1.0]).coefficient,
    ):
        edited = tk.steer(tiny_llama, vector, coefficient=coefficient)
        swept = "@" in str(coefficient.prompt.values[0])
        own, rows = ((sweep(runs, [1.0]) if swept else runs) for runs in (asked, other))
        tk.generate(edited, own, max_new_tokens=1, progress=False)
        for run in (
            lambda e=edited, r=rows: tk.generate(e, r, max_new_tokens=1, progress=False),
            lambda e=edited, r=rows: tk.capture(e, r, [LAYER], progress=False),
        ):
            with pytest.raises(ValueError, match=r"for a prompt 'text/3(@0)?' of other token ids"):
                run()


def test_a_sweep_in_one_generation_equals_one_by_one(
    tiny_llama: TransformersModel, asked: xr.Dataset, vector: xr.DataArray, strong: float
) -> None:
    values = [-strong, 0.0, strong]
    rows = sweep(asked, values)
    edited = tk.steer(tiny_llama, vector, coefficient=rows.coefficient)
    together = tk.generate(edited, rows, max_new_tokens=NEW, progress=False)
    assert together["group"].values.tolist() == asked["group"].values.tolist() * 3
    for value in values:
        single = tk.steer(tiny_llama, vector, coefficient=value)
        one = tk.generate(single, asked, max_new_tokens=NEW, progress=False)
        chosen = together.isel(prompt=together.coefficient.values == value)
        assert steering.response_ids(chosen) == steering.response_ids(one)
    replayed = tk.capture(edited, together, [LAYER], progress=False)
    assert read(replayed)["edits"][0]["coefficient"]["range"] == [-strong, strong]


def test_samples_share_their_prompts_coefficient(
    tiny_llama: TransformersModel, asked: xr.Dataset, vector: xr.DataArray, strong: float
) -> None:
    amounts = tk.per_prompt(asked, [1e-3, strong, 1e-3, 1e-3])
    edited = tk.steer(tiny_llama, vector, coefficient=amounts)
    runs = tk.generate(edited, asked, max_new_tokens=2, temperature=1.0, samples=2, progress=False)
    before = tk.capture(tiny_llama, runs, [LAYER], progress=False)
    rise = xr.dot(tk.capture(edited, runs, [LAYER], progress=False) - before, vector, dim="dim")
    np.testing.assert_allclose(
        rise.sel(token=-1).values.ravel(), np.repeat(amounts.values, 2), atol=1e-3
    )


def test_amounts_by_layer_and_prompt(tiny_llama: TransformersModel, plain: xr.Dataset) -> None:
    vectors = steering.unit_vectors(tiny_llama)
    by_layer = xr.DataArray([1.0, 4.0], dims="layer", coords={"layer": [0, 2]})
    by_prompt = tk.per_prompt(plain, [0.0, 1.0, 2.0, 3.0])
    amount = by_layer * by_prompt
    edited = tk.steer(tiny_llama, vectors.sel(layer=[0, 2]), coefficient=amount)
    first = tk.capture(edited, plain, [0], progress=False)
    rise = (
        xr.dot(first - tk.capture(tiny_llama, plain, [0], progress=False), vectors, dim="dim")
        .sel(token=0)
        .isel(layer=0)
    )
    np.testing.assert_allclose(rise, [0, 1, 2, 3], atol=1e-4)
    only = tk.steer(tiny_llama, vectors.sel(layer=2), coefficient=amount)
    rise = (
        xr.dot(
            tk.capture(only, plain, [2], progress=False)
            - tk.capture(tiny_llama, plain, [2], progress=False),
            vectors,
            dim="dim",
        )
        .sel(token=0)
        .isel(layer=0)
    )
    np.testing.assert_allclose(rise, [0, 4, 8, 12], atol=1e-4)


def test_a_coefficient_that_lacks_a_prompt_or_has_other_dims_is_refused(
    tiny_llama: TransformersModel, asked: xr.Dataset, vector: xr.DataArray
) -> None:
    amounts = tk.per_prompt(asked.isel(prompt=[0, 1]), [1.0, 2.0])
    edited = tk.steer(tiny_llama, vector, coefficient=amounts)
    with pytest.raises(ValueError, match=r"names 2 prompts and not 'text/[23]'"):
        tk.generate(edited, asked, max_new_tokens=2, progress=False)
    with pytest.raises(ValueError, match=r"dims \('dim',\)"):
        tk.steer(tiny_llama, vector, coefficient=amounts.rename(prompt="dim"))
    twice = amounts.assign_coords(prompt=["a", "a"])
    with pytest.raises(ValueError, match=r"repeated labels: \['prompt'\]"):
        tk.steer(tiny_llama, vector, coefficient=twice)
    unknown = amounts.drop_vars("prompt_ids")
    with pytest.raises(ValueError, match=r"ids such as 'text/0', which any set has.*per_prompt"):
        tk.steer(tiny_llama, vector, coefficient=unknown)
    tk.steer(tiny_llama, vector, coefficient=unknown.assign_coords(prompt=["set/0", "set/1"]))
    with pytest.raises(ValueError, match=r"4 prompts and values of shape \(2,\)"):
        tk.per_prompt(asked, [1.0, 2.0])
    layered = xr.DataArray([1.0], dims="layer", coords={"layer": [0]})
    with pytest.raises(ValueError, match=r"\[2\] .* \[0\]"):
        tk.steer(tiny_llama, vector, coefficient=layered)


def test_generating_on_after_a_response_keeps_the_labels(
    tiny_llama: TransformersModel, plain: xr.Dataset, vector: xr.DataArray, strong: float
) -> None:
    unequal = tk.encode(tiny_llama, steering.PROMPTS[:3], ["A", "A longer answer", "Yes, it is"])
    edited = tk.steer(tiny_llama, vector, coefficient=strong, tokens=slice(0, None))
    said = tk.generate(edited, unequal, max_new_tokens=4, progress=False)
    for row, prompt in enumerate(unequal.prompt.values):
        one = tk.generate(edited, unequal.sel(prompt=[prompt]), max_new_tokens=4, progress=False)
        assert steering.response_ids(one)[0] == steering.response_ids(said)[row]
    a, b = (tk.capture(m, said, [LAYER], progress=False) for m in (tiny_llama, edited))
    rise = xr.dot(b - a, vector, dim="dim").isel(layer=0)
    np.testing.assert_allclose(rise.sel(token=-1), 0, atol=1e-4)
    np.testing.assert_allclose(rise.sel(token=0), strong, rtol=1e-4)
