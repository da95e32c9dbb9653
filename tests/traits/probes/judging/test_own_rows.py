"""The responses that fitted a probe are known again, and others are not taken for them."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
import traits

NOUNS = ("river", "stone", "bird", "fish", "field", "hill", "snow", "fire", "sand", "star")
LABEL = xr.DataArray(np.repeat([1, 0], len(NOUNS)), dims="prompt")
ONE = [f"I {verb} the {noun}." for verb in ("love", "hate") for noun in NOUNS]
OTHER = [f"The {noun} made me {word}." for word in ("glad", "sad") for noun in NOUNS]
HOW: dict[str, Any] = {"groups": None, "inverse_penalty": 0.1}


def evaluated(probe: xr.Dataset, traces: xr.DataArray, label=LABEL, **how: Any) -> xr.Dataset:
    draw = np.random.default_rng(0)
    return traits.evaluate_probe(probe, traces, label, resamples=9, generator=draw, **how)


def findings(result: xr.Dataset) -> str:
    return " ".join(json.loads(result.attrs["findings"]))


def captured(model: Any, texts: list[str], **how: Any) -> xr.DataArray:
    runs = tk.encode(model, texts, template="raw")
    return tk.capture(model, runs, [2], tokens="all", progress=False, **how)


@pytest.mark.parametrize("how", [{}, {"reduce": "mean"}])
def test_another_set_of_plain_texts_is_reported_on_whole(tiny_llama, how):
    traces, other = (captured(tiny_llama, texts, **how) for texts in (ONE, OTHER))
    probe = traits.fit(traces, LABEL, tokens="all", **HOW)
    used = int(np.isin(probe["part"], ("fit", "select")).sum())
    assert int(evaluated(probe, traces)["n"].sum()) == len(ONE) - used
    found = evaluated(probe, other)
    assert found["n"].values.tolist() == [10, 10]
    # the means of tokens do not say which tokens they are of
    assert ("are taken for others" in findings(found)) == bool(how)
    pooled = evaluated(probe, traits.score(probe, other))
    assert pooled["n"].values.tolist() == [10, 10]
    table = traits.transfer_matrix(
        {"one": (traces, LABEL), "other": (other, LABEL)},
        **{**HOW, "tokens": "all", "resamples": 9, "generator": np.random.default_rng(0)},
    )
    assert (table["n"].sum("class") == len(ONE) - used).all()


def test_the_probes_own_texts_are_known_in_another_set(tiny_llama):
    probe = traits.fit(captured(tiny_llama, ONE), LABEL, tokens="all", **HOW)
    texts = [ONE[n] if n % 2 else OTHER[n] for n in range(len(ONE))]
    mixed = captured(tiny_llama, texts)
    used = np.isin(probe["part"], ("fit", "select")) & (np.arange(len(ONE)) % 2 == 1)
    found = evaluated(probe, mixed)
    assert int(found["n"].sum()) == len(ONE) - int(used.sum())
    assert "plain texts" not in findings(found)


def samples(number: int) -> xr.DataArray:
    draw = np.random.default_rng(number)
    values = np.random.default_rng(9).normal(size=(60, 1, 200))
    coords = {
        "prompt": [f"q/{n}#{number}" for n in range(60)],
        "layer": [5],
        "group": ("prompt", [f"q/{n}" for n in range(60)]),
    }
    near = values + 0.1 * draw.normal(size=values.shape)
    return xr.DataArray(near.astype(np.float32), coords, ("prompt", "layer", "dim"))


def test_fresh_samples_of_prompts_that_fitted_are_not_reported_on(tmp_path):
    label = xr.DataArray(np.random.default_rng(1).permutation(np.arange(60) % 2), dims="prompt")
    probe = traits.fit(samples(0), label)
    files = tmp_path / "probe.nc", tmp_path / "probe.safetensors"
    tk.save(probe, files[0])
    traits.write_probe(probe, files[1])
    own = evaluated(probe, samples(0), label)
    for one in (probe, tk.open(files[0]), traits.read_probe(files[1])):
        found = evaluated(one, samples(1), label)
        assert found["n"].equals(own["n"])
        assert int(found["n"].sum()) < 20
        assert "fitted" not in findings(found)
        both = xr.concat([samples(0), samples(1)], "prompt")
        twice = evaluated(one, both, xr.concat([label, label], "prompt"))
        assert twice["n"].equals(2 * own["n"])


def test_what_is_not_known_of_the_fit_is_a_finding():
    label = xr.DataArray(np.random.default_rng(1).permutation(np.arange(60) % 2), dims="prompt")
    probe = traits.fit(samples(0), label)
    without = evaluated(probe.drop_vars(["part", "part_group", "part_ids"]), samples(0), label)
    assert int(without["n"].sum()) == 60
    assert "does not say which responses fitted it" in findings(without)
    former = evaluated(probe.drop_vars(["part_group", "part_ids"]), samples(0), label)
    assert former["n"].equals(evaluated(probe, samples(0), label)["n"])
    assert "by their ids alone, not by group" in findings(former)


def test_a_table_of_sets_of_the_same_ids_is_refused():
    label = xr.DataArray(np.arange(60) % 2, dims="prompt")
    sets = {name: (samples(n), label) for n, name in enumerate("ab")}
    draw = np.random.default_rng(0)
    with pytest.raises(tk.InputError, match="Give each set prompts of its own ids"):
        traits.transfer_matrix(sets, resamples=9, generator=draw)
