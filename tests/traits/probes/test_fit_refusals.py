"""What no probe can be fitted on is refused with the numbers, and nothing else is."""

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
import traits

PROMPTS = 24


@pytest.fixture
def traces() -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(PROMPTS, 4, 2, 5)).astype(np.float32)
    coords = {
        "prompt": [f"set/{n}" for n in range(PROMPTS)],
        "token": np.arange(-1, 3),
        "layer": [3, 4],
        "group": ("prompt", [f"g/{n // 2}" for n in range(PROMPTS)]),
        "word": ("prompt", ["yes", "no"] * (PROMPTS // 2)),
        "odd": ("prompt", np.arange(PROMPTS) % 2),
    }
    return xr.DataArray(values, coords, ("prompt", "token", "layer", "dim"))


def refused(words: str, traces: xr.DataArray, labels, **settings) -> None:
    with pytest.raises(tk.InputError, match=words):
        traits.fit(traces, labels, **settings)


def test_one_class_only(traces):
    refused("0 prompts labelled 0 and .* labelled 1", traces, xr.ones_like(traces.odd))
    few = xr.where(traces.prompt == "set/3", 1, 0)
    refused("labelled 1; a probe needs at least 2", traces, few)
    both = xr.concat([traces.odd, few], xr.DataArray(["a", "b"], dims="target", name="target"))
    refused("of target 'b'", traces, both)
    # of tokens it is those that are counted
    spans = xr.zeros_like(traces.isel(layer=0, dim=0, drop=True), dtype=bool)
    refused("labelled 1; a probe needs", traces, spans)
    spans[:, 2] = True
    traits.fit(traces, spans, layers=3, inverse_penalty=1.0)


def test_scores_that_are_all_the_same(traces):
    refused("the same score", traces * 0 + 2, "odd")
    refused("the same score", traces * 0 + 2, "odd", method="mean_diff", layers=3)


def test_labels_that_do_not_match_the_traces(traces):
    other = traces.odd.assign_coords(prompt=[f"other/{n}" for n in range(PROMPTS)])
    refused("do not match the traces along 'prompt': 24 of 24", traces, other)
    refused("1 of 24 have no label", traces, traces.odd[1:])
    refused("Give a label for each", traces, traces.odd[1:].drop_vars("prompt"))
    more = xr.DataArray(np.zeros(25), {"prompt": [*traces.prompt.values, "set/99"]}, "prompt")
    refused("1 labels are of none", traces, more)
    refused("values \\[2.0\\]", traces, traces.odd * 2)
    refused("Compare with the value", traces, "word")
    refused("Name one of them", traces, "lie")
    refused("the traces have no tokens", traces.mean("token"), traces.isel(layer=0, dim=0) > 0)
    probe = traits.fit(traces, traces.word == "no", layers=3, inverse_penalty=1.0)
    assert probe.equals(traits.fit(traces, traces.odd[::-1], layers=3, inverse_penalty=1.0))


def test_a_group_in_two_parts(traces):
    part = xr.DataArray(["fit"] * 13 + ["select"] * 11, {"prompt": traces.prompt}, "prompt")
    refused("1 groups are in more than one part; the first, 'g/6'", traces, "odd", part=part)
    probe = traits.fit(traces, "odd", part=part, groups=None)
    assert probe.part.values.tolist() == part.values.tolist()
    refused("does not have all prompts", traces, "odd", part=part[1:])
    refused("give groups=None", traces.drop_vars("group"), "odd")
    drawn = traits.fit(traces, "odd").part
    by_group = drawn.groupby(traces.group).map(lambda part: xr.DataArray(len(set(part.values))))
    assert (by_group == 1).all()


def test_a_token_without_a_value_is_named(traces):
    ids = xr.ones_like(traces.isel(layer=0, dim=0, drop=True), dtype=int)
    broken = traces.assign_coords(token_id=ids).copy(deep=True)
    broken.loc[{"prompt": "set/7", "token": 1, "layer": 4, "dim": 2}] = np.nan
    part = xr.full_like(traces.odd, "fit", dtype="U3")
    rest = {"layers": 4, "inverse_penalty": 1.0}
    refused("prompt 'set/7', token 1, layer 4", broken, "odd", part=part, **rest)
    traits.fit(broken, "odd", layers=4, tokens=slice(2, 2))


def test_settings_that_do_not_fit(traces):
    refused("there are logistic, mean_diff", traces, "odd", method="svm")
    refused("has its own, 'attention'", traces, "odd", pooling="attention")
    refused("has its own, 'attention'", traces, "odd", method="attention", pooling="max")
    refused("have no tokens", traces.mean("token"), "odd", pooling="max")
    refused("traces without tokens", traces.mean("token"), "odd", rows="tokens")
    refused("a number over 0", traces, "odd", inverse_penalty=0.0)
    refused("'balanced' or None", traces, "odd", class_weight="even")
    refused("the traces have \\[3, 4\\]", traces, "odd", layers=[5])
    refused("without the coordinate 'layer'", traces.drop_vars("layer"), "odd")
    refused("tokens='all'", traces, "odd", tokens=slice(7, None))
    refused("Give labels over \\(prompt, target\\)", traces, "odd", targets=["a"])
    refused("a probe's weights are", traces, "odd", method=lambda values, label, weight: np.ones(3))


def test_what_is_not_labelled_takes_no_part(traces):
    some = traces.odd.astype(float).where(traces.prompt != "set/2")
    probe = traits.fit(traces, some, layers=3, inverse_penalty=1.0)
    assert probe.part.sel(prompt="set/2").item() == ""
    counts = [probe[name].item() for name in probe if str(name).startswith("n_")]
    assert sum(counts) == PROMPTS - 1
