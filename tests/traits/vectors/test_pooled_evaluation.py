"""Contrast pairs whose tokens are read one by one: pooled after the vector, nulls and all."""

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
import traits
from traits.statistics import rank_auroc
from traits.vectors.pairing import split_pairs

PAIRS, TOKENS, DIM = 60, 20, 6


def contrast(seed: int = 0, samples: int = 1, strength: float = 6.0) -> xr.DataArray:
    """One telling token on the positive side, among up to twenty of noise, at one layer of two."""
    draw = np.random.default_rng(seed)
    rows = PAIRS * 2 * samples
    label = np.tile(np.repeat([1, 0], samples), PAIRS)
    values = draw.normal(size=(rows, TOKENS, 2, DIM))
    lengths = draw.integers(12, TOKENS + 1, rows)
    for row in np.flatnonzero(label == 1):
        values[row, draw.integers(lengths[row]), 1, 0] += strength
    values[np.arange(TOKENS) >= lengths[:, None]] = np.nan
    return xr.DataArray(
        values.astype(np.float32),
        dims=("prompt", "token", "layer", "dim"),
        coords={
            "prompt": [f"set/{n}" for n in range(rows)],
            "token": np.arange(TOKENS),
            "layer": [3, 7],
            "label": ("prompt", label),
            "group": ("prompt", np.repeat([f"pair {n}" for n in range(PAIRS)], 2 * samples)),
        },
    )


def evaluated(traces: xr.DataArray, **given: object) -> xr.Dataset:
    draw = np.random.default_rng(1)
    return traits.evaluate(traces, ["mean_diff"], generator=draw, draws=19, resamples=20, **given)


def test_one_telling_token_is_found_by_the_maximum_and_hardly_by_the_mean() -> None:
    traces = contrast(strength=4.0)
    area = {
        how: float(evaluated(traces, pooling=how)["estimate"].sel(measure="auroc"))
        for how in ("mean", "max")
    }
    assert area["max"] > 0.9
    assert area["mean"] < area["max"] - 0.1
    twin = evaluated(contrast(strength=0.0), pooling="max")
    assert float(twin["estimate"].sel(measure="auroc")) < 0.8


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("kind", ["scalar", "cosine"])
@pytest.mark.parametrize("how", ["max", "top_k(k=3)", "last"])
def test_its_curve_is_that_of_plain_numpy(how: str, kind: str, samples: int) -> None:
    traces = contrast(samples=samples)
    windows = {"early": slice(0, 5), "all": slice(None)}
    part = split_pairs(
        traits.pairs(traces)[0]["pair"], generator=np.random.default_rng(3), minimum=8
    )
    result = evaluated(traces, pooling=how, kind=kind, windows=windows, part=part)
    assert result.attrs["pooling"] == how
    tokens = traces.values.astype(np.float64)
    for window, cut in windows.items():
        here = tokens[:, : 6 if window == "early" else None]  # a slice of labels has both ends
        for number, layer in enumerate(traces["layer"].values):
            vector = _direction(traces, np.nanmean(here[:, :, number], 1), part)
            seen = here[:, :, number]
            if kind == "cosine":
                seen = seen / np.linalg.norm(seen, axis=-1, keepdims=True)
            scores = np.array([_pooled(row[~np.isnan(row)], how) for row in seen @ vector])
            place = {"window": window, "layer": layer, "extraction": "mean_diff"}
            for name in ("select", "report"):
                sides = [_of(traces, scores, part, name, side) for side in (1, 0)]
                found = float(result["curve"].sel(place | {"part": name}))
                assert found == pytest.approx(float(rank_auroc(*sides)), abs=1e-9), cut


def _direction(traces: xr.DataArray, means: np.ndarray, part: xr.DataArray) -> np.ndarray:
    fit = np.isin(traces["group"].values, part["pair"].values[part.values == "fit"])
    label = traces["label"].values
    along = means[fit & (label == 1)].mean(0) - means[fit & (label == 0)].mean(0)
    return along / np.linalg.norm(along)


def _pooled(scores: np.ndarray, how: str) -> float:
    if how == "max":
        return scores.max()
    return scores[-1] if how == "last" else np.sort(scores)[-3:].mean()


def _of(
    traces: xr.DataArray, scores: np.ndarray, part: xr.DataArray, name: str, side: int
) -> np.ndarray:
    groups, label = traces["group"].values, traces["label"].values
    pairs = part["pair"].values[part.values == name]
    return np.array([scores[(groups == pair) & (label == side)].mean() for pair in pairs])


def test_nulls_are_pooled_alike() -> None:
    """The maximum of noise grows with the number of tokens: every direction reads the length."""
    traces = contrast(strength=0.0)
    longer = traces["label"].values == 1
    values = traces.values.copy()
    values[~longer, 4:] = np.nan  # the negative side is shorter: a maximum reads the length
    result = evaluated(traces.copy(data=values), pooling="max")
    matched = result["null_quantile"].sel(null="covariance-matched", level=0.5)
    assert float(matched) > 0.8
    assert float(result["null_p"].sel(null="covariance-matched")) > 0.05
    flat = evaluated(traces.copy(data=values))
    assert float(flat["null_quantile"].sel(null="covariance-matched", level=0.5)) < 0.7


def test_another_kind_of_pairs_is_pooled_too() -> None:
    result = evaluated(contrast(), report=contrast(seed=5), pooling="max")
    assert float(result["estimate"].sel(measure="auroc")) > 0.9
    assert int(result["n_report"]) == PAIRS


def test_what_has_no_tokens_cannot_be_pooled() -> None:
    means = contrast().mean("token", keep_attrs=True)
    with pytest.raises(tk.InputError, match="no tokens to pool"):
        evaluated(means, pooling="max")
    hole = contrast()
    hole[3, :6] = np.nan
    with pytest.raises(tk.InputError, match=r"set/3.*no token in window 0|not finite"):
        evaluated(hole, pooling="max", windows={"early": slice(0, 5)})


def test_the_token_before_the_answer_is_not_pooled() -> None:
    traces = contrast()
    before = xr.full_like(traces.isel(token=[0]), 1e3).assign_coords(token=[-1])
    before = before * xr.DataArray(np.random.default_rng(7).normal(size=PAIRS * 2), dims="prompt")
    whole = xr.concat([before, traces], "token")
    for report in (None, contrast(seed=5)):
        more = {} if report is None else {"report": xr.concat([before, report], "token")}
        plain = {} if report is None else {"report": report}
        found = evaluated(whole, pooling="max", **more)
        xr.testing.assert_allclose(found, evaluated(traces, pooling="max", **plain))
