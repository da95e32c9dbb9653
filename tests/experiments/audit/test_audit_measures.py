"""Planted effects are found, and their shuffled twins are not."""

import numpy as np
import pytest
import xarray as xr

from experiments.audit.evidence import measures
from experiments.audit.evidence.estimates import intervals
from tracekit.storage.provenance import stamp

BIASES = ("chocolate", "vote")
TOKENS, LAYERS, PROMPTS = 6, 3, 40
PLANTED = 1


def arm(seed: int, raised: np.ndarray | None = None) -> xr.DataArray:
    """Cosines of an arm on the same texts; `raised` (prompt) lifts trait "a" at one layer."""
    generator = np.random.default_rng([3, seed])
    texts = np.random.default_rng(3).normal(size=(PROMPTS, TOKENS, LAYERS, 2))
    values = 0.02 * texts + 0.005 * generator.normal(size=texts.shape)
    if raised is not None:
        values[:, :, PLANTED, 0] += raised[:, None]
    values[::3, -1] = np.nan  # responses of unequal length
    names = [f"set/{n}" for n in range(PROMPTS)]
    array = xr.DataArray(
        values,
        dims=("prompt", "token", "layer", "trait"),
        coords={
            "prompt": names,
            "token": np.arange(-1, TOKENS - 1),
            "layer": np.arange(LAYERS),
            "trait": ["a", "b"],
            "group": ("prompt", names),
            "bias": ("prompt", np.repeat(BIASES, PROMPTS // 2)),
            "exploit": ("prompt", np.tile([1, 0], PROMPTS // 2)),
        },
        name="cosine",
    )
    fields = ("model", "revision", "weights", "dtype", "tokenizer", "template", "ids", "site")
    return stamp(array, {**dict.fromkeys(fields, "same"), "batches": "same"})


def draws() -> np.random.Generator:
    return np.random.default_rng(0)


def means(seed: int, raised: np.ndarray | None = None) -> xr.DataArray:
    return measures.response_mean(arm(seed, raised))


def covers_zero(found: xr.Dataset) -> xr.DataArray:
    return (found["shift_low"] < 0) & (found["shift_high"] > 0)


def test_a_planted_shift_is_found_where_it_is_and_only_there() -> None:
    lifted = np.full(PROMPTS, 0.02)
    found = measures.shift(means(1, lifted), means(2), draws(), 200)
    assert found["shift_mean"].sel(trait="a", layer=PLANTED).item() == pytest.approx(
        0.02, abs=0.003
    )
    assert found["n"].item() == PROMPTS
    assert not covers_zero(found).sel(trait="a", layer=PLANTED).item()
    # its twin: the same lift with a random sign for each prompt is no shift
    signs = np.random.default_rng(1).permutation(np.tile([1, -1], PROMPTS // 2))
    shuffled = measures.shift(means(1, lifted * signs), means(2), draws(), 200)
    assert covers_zero(shuffled).sel(trait="a", layer=PLANTED).item()


def test_the_interval_is_that_of_prompts_and_not_of_tokens() -> None:
    # each prompt moves by its own amount at all of its tokens
    moves = 0.02 * np.random.default_rng(2).normal(size=PROMPTS)
    moved, clean = arm(1, moves), arm(2)
    whole = measures.shift(*map(measures.response_mean, (moved, clean)), draws(), 1000)
    here = whole.sel(trait="a", layer=PLANTED)
    width = (here["shift_high"] - here["shift_low"]).item()
    by_prompt = here["prompt_shift"].std(ddof=1).item() / np.sqrt(PROMPTS)
    assert width == pytest.approx(2 * 1.96 * by_prompt, rel=0.15)
    tokens = (moved - clean).sel(trait="a", layer=PLANTED, token=slice(0, None)).values
    by_token = np.nanstd(tokens) / np.sqrt(np.isfinite(tokens).sum())
    assert width > 1.5 * 2 * 1.96 * by_token


def test_the_shift_is_paired_so_wording_drops_out() -> None:
    found = measures.shift(means(1), means(2), draws(), 200)
    width = (found["shift_high"] - found["shift_low"]).max().item()
    spread = means(1).std("prompt").min().item()
    unpaired = 2 * 1.96 * spread * np.sqrt(2 / PROMPTS)
    assert width < unpaired / 2


def test_arms_on_other_ids_are_refused() -> None:
    other = stamp(means(2), {"ids": "other"})
    with pytest.raises(ValueError, match="ids"):
        measures.shift(means(1), other, draws(), 50)


@pytest.mark.parametrize(
    ("exploit", "bias", "reason"),
    [
        ([1, 1, 1, 1], "water", "4 of 4 exploit"),
        ([0, 0, 0, 0], "water", "0 of 4 exploit"),
        ([1, 0, 0, 0], "water", "1 of 4 exploit"),
        ([-1, -1, -1, -1], "neutral", "no detector"),
        ([1, 1, 0, 0], "water", ""),
    ],
)
def test_a_bias_without_both_outcomes_is_undecidable(
    exploit: list[int], bias: str, reason: str
) -> None:
    assert measures.decidable([bias] * 4, np.array(exploit)) == {bias: reason}


def test_trajectories_count_the_prompts_that_reach_each_token() -> None:
    found = measures.trajectories({"x/y": arm(1), "y/y": arm(2).sel(token=slice(None, 2))})
    assert found["mean"].dims == ("arm", "token", "layer", "trait")
    short = len(range(0, PROMPTS, 3))
    assert found["count"].sel(arm="x/y").values.tolist() == [40, 40, 40, 40, 40 - short]
    assert found["count"].sel(arm="y/y").values.tolist() == [40, 40, 40, 0, 0]
    expected = np.nanmean(arm(1).sel(token=4).values, axis=0)
    np.testing.assert_allclose(found["mean"].sel(arm="x/y", token=4).values, expected)


def test_a_trajectory_has_prompts_as_units_and_not_their_responses() -> None:
    once = arm(1).isel(prompt=slice(0, 10))
    often = xr.concat([once + 0.1, once - 0.1, once.isel(prompt=slice(0, 5))], "prompt")
    found, single = (measures.trajectories({"x/y": one}) for one in (often, once))
    xr.testing.assert_allclose(found, single)
    assert found["count"].max() == 10
    alone = measures.trajectories({"x/y": often.drop_vars("group")})
    assert alone["error"].sel(token=0).max() < 2 * single["error"].sel(token=0).max()
    assert alone["count"].max() == 25


def test_rates_count_only_what_could_be_decided() -> None:
    exploit = xr.DataArray(
        np.array([1, 0, -1, 1], np.int8),
        dims="prompt",
        coords={"bias": ("prompt", ["water", "water", "neutral", "vote"])},
    )
    found = measures.rates({"organism": exploit, "clean": exploit * 0})
    assert found["hits"].sel(arm="organism").values.tolist() == [1, 0, 1]
    assert found["responses"].sel(arm="organism").values.tolist() == [2, 0, 1]
    assert found["hits"].sel(arm="clean").sum() == 0


def test_draws_of_a_single_outcome_leave_no_interval_and_no_traceback():
    draw = np.random.default_rng(0)
    label, group = np.array([1, 1, 1, 0, 1, 0]), np.array(["a", "a", "b", "b", "c", "c"])
    score = {"trait score": np.array([0.9, 0.8, 0.7, 0.1, 0.6, 0.2])}
    given = (label, np.array(["tea"] * 6), group, 0.5, draw, 60)
    made = intervals(score, *given).sel(quantity="auroc trait score")
    assert float(made["estimate"]) == 1.0
    assert np.isnan(made["low"])
    assert np.isnan(made["high"])
    # where a prompt has none that exploits, every draw has both
    whole = (np.array([1, 1, 0, 0, 1, 0]), *given[1:])
    made = intervals(score, *whole).sel(quantity="auroc trait score")
    assert np.isfinite([made["low"], made["high"]]).all()
