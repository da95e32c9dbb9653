"""What made a readout is recorded, and two that were made otherwise are not compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import peft
import pytest
import transformers
import xarray as xr

import tracekit as tk

TEXTS, RESPONSES = ["The quick brown fox.", "Is it so?"], ["Yes, it is.", "No"]
WORDS = {"towards": " cat", "against": " mat"}


@pytest.fixture(scope="module")
def runs(tiny_llama: Any) -> xr.Dataset:
    return tk.encode(tiny_llama, TEXTS, RESPONSES, template="raw")


def direction(layer: int) -> xr.DataArray:
    return xr.DataArray(np.linspace(-1, 1, 32), dims="dim", coords={"layer": layer})


def traces(model: Any, runs: xr.Dataset, **options: Any) -> xr.DataArray:
    return tk.capture(model, runs, [1], tokens="all", progress=False, **options)


@pytest.mark.parametrize(
    "other",
    [WORDS, {"metric": "logprob", "times_input": True}, {"metric": "logprob", "steps": 2}],
)
def test_gradients_of_something_else_are_not_compared(
    tiny_llama: Any, tiny_lora: Any, runs: xr.Dataset, other: dict[str, Any]
) -> None:
    own = tk.gradients(tiny_llama, runs, [1], metric="logprob")
    with pytest.raises(tk.InputError, match="they differ in gradient"):
        tk.difference(own, tk.gradients(tiny_llama, runs, [1], **other))
    with tk.adapter(tiny_llama, tiny_lora):
        adapted = tk.gradients(tiny_llama, runs, [1], metric="logprob")
    assert float(abs(tk.difference(adapted, own)).max()) > 0


def test_patching_maps_of_another_metric_source_or_kind_are_not_compared(tiny_llama: Any) -> None:
    runs, source, further = (
        tk.encode(tiny_llama, [text], template="raw") for text in ("a b c", "a x c", "a y c")
    )
    metric = tk.logit_difference(tiny_llama, *WORDS.values())
    found = tk.activation_patching(tiny_llama, runs, source, metric=metric, layers=[1])
    same = tk.activation_patching(tiny_llama, runs, source, metric=metric, layers=[1])
    assert float(abs(tk.difference(found, same)).max()) == 0
    turned = tk.logit_difference(tiny_llama, *reversed(WORDS.values()))
    others = [
        tk.activation_patching(tiny_llama, runs, source, metric=turned, layers=[1]),
        tk.activation_patching(tiny_llama, runs, further, metric=metric, layers=[1]),
        tk.attribution_patching(tiny_llama, runs, source, metric=metric, layers=[1]),
    ]
    for other in others:
        with pytest.raises(tk.InputError, match="they differ in activation_patching"):
            tk.difference(found, other)
    path = tk.attribution_patching(tiny_llama, runs, source, metric=metric, layers=[1], steps=2)
    with pytest.raises(tk.InputError, match="they differ in attribution_patching"):
        tk.difference(others[2], path)


def test_a_direction_is_recorded_with_its_layer(tiny_llama: Any, runs: xr.Dataset) -> None:
    first, second = (tk.measure(tiny_llama, runs, direction(n)) for n in (1, 3))
    assert not np.allclose(first, second)
    with pytest.raises(tk.InputError, match=r"they differ in metric: .* at layer 1' against"):
        tk.difference(first, second)
    slopes = [tk.gradients(tiny_llama, runs, [1], metric=direction(n)) for n in (1, 3)]
    with pytest.raises(tk.InputError, match="they differ in gradient"):
        tk.difference(*slopes)


def test_the_baseline_of_a_path_is_recorded_and_is_of_this_model(
    tiny_llama: Any, fresh_llama: Any, runs: xr.Dataset
) -> None:
    def slopes(baseline: xr.DataArray | None) -> xr.DataArray:
        return tk.gradients(
            tiny_llama, runs, [1], metric="logprob", steps=2, tokens="all", baseline=baseline
        )

    own = traces(tiny_llama, runs)
    made = [tk.provenance(slopes(one))["gradient"] for one in (None, own, own + 1, own)]
    assert "baseline" not in made[0]
    assert made[1] == made[3] != made[2]
    with pytest.raises(tk.InputError, match="they differ in gradient"):
        tk.difference(slopes(own), slopes(own + 1))
    with pytest.raises(tk.InputError, match=r"baseline= was given traces .*'site': 'mlp'"):
        slopes(traces(tiny_llama, runs, site="mlp"))
    fresh_llama._module.model.layers[0].mlp.down_proj.weight.data *= 2
    with pytest.raises(tk.InputError, match=r"baseline= was given traces .*'weights'"):
        slopes(traces(fresh_llama, runs))


def test_who_reads_a_lens_is_recorded(
    tiny_folder: Any, tiny_llama: Any, runs: xr.Dataset, tmp_path: Any
) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    settings = peft.LoraConfig(target_modules=["lm_head"], init_lora_weights=False)
    peft.get_peft_model(plain, settings).save_pretrained(tmp_path / "head")
    model = tk.load(tiny_folder, dtype="float32", tokenizer=tiny_llama.tokenizer)
    seen = traces(model, runs)
    for read in (lambda: tk.unembed(model, seen), lambda: tk.logit_lens(model, seen, [7])):
        off = read()
        with tk.adapter(model, tmp_path / "head"):
            on = read()
        reader = [tk.provenance(one)["read_by"]["adapter"] for one in (on, off)]
        assert (reader[0]["name"], reader[1]) == ("head", None)
        assert tk.provenance(off) == {**tk.provenance(seen), "read_by": reader_of(off)}
        name = "logit" if "logit" in on else "logprob"
        assert float(abs(on[name] - off[name]).max()) > 1e-3
        sides = [one[name].assign_attrs(one.attrs) for one in (on, off)]
        # an adapter may differ, as in all that is compared
        assert tk.provenance(tk.difference(*sides))["difference"]


def reader_of(lens: xr.Dataset) -> dict[str, Any]:
    return tk.provenance(lens)["read_by"]


def test_a_lens_of_another_models_traces_is_asked_for_by_name(
    tiny_llama: Any, fresh_llama: Any, runs: xr.Dataset
) -> None:
    fresh_llama._module.model.layers[0].mlp.down_proj.weight.data *= 2
    seen = traces(fresh_llama, runs)
    with pytest.raises(tk.InputError, match=r"The array was made with .* transfer=True"):
        tk.unembed(tiny_llama, seen)
    with pytest.raises(tk.InputError, match=r"The array was made with .* transfer=True"):
        tk.logit_lens(tiny_llama, seen, [7])
    read = tk.unembed(tiny_llama, seen, transfer=True)
    assert reader_of(read)["transfer"]
    assert reader_of(read)["weights"] == tk.provenance(traces(tiny_llama, runs))["weights"]
    own = tk.unembed(fresh_llama, seen)
    sides = [one.logit.assign_attrs(one.attrs) for one in (read, own)]
    with pytest.raises(tk.InputError, match="they differ in read_by"):
        tk.difference(*sides)
    # what has no provenance is of no model that is known
    bare = tk.unembed(tiny_llama, direction(1))
    assert reader_of(bare)["source"] == "unknown"


def test_a_comparison_says_its_tokens_and_its_batches(
    tiny_llama: Any, tiny_lora: Any, runs: xr.Dataset
) -> None:
    every = tk.compare(tiny_llama, runs, (tiny_lora, None))
    said = tk.compare(tiny_llama, runs, (tiny_lora, None), tokens=slice(0, None), token_budget=1)
    made = [tk.provenance(one) for one in (every, said)]
    assert [one["tokens"] for one in made] == ["all", "0:None:None"]
    assert made[1]["batches"]["budget"] == 1
    assert made[0]["batches"]["plan"] != made[1]["batches"]["plan"]
    assert {one["ids"] for one in made} == {tk.provenance(runs)["ids"]}
