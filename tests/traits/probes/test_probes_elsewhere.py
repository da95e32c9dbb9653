"""Whether a probe's threshold holds elsewhere: planted differences, models, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

import tracekit as tk
import traits
from tests.support import forwards
from tests.support.oracles import probes

N = 400


def planted(seed: int = 0) -> tuple[xr.Dataset, xr.DataArray]:
    """A probe with its threshold at 5 % of the negatives, and scores: half of them positive."""
    draw = np.random.default_rng(seed)
    label = np.arange(N) % 2
    rows = {"prompt": [f"a/{n}" for n in range(N)], "label": ("prompt", label)}
    scores = xr.DataArray(draw.normal(size=N) + 4 * label, rows, "prompt")
    threshold = float(np.quantile(scores.values[label == 0], 0.95))
    probe = xr.Dataset({"threshold": threshold, "threshold_fpr": 0.05}, attrs={"kind": "probe"})
    return tk.stamp(probe, {}), scores


def judged(probe: xr.Dataset, a: Any, b: Any, **options: Any) -> xr.Dataset:
    options = {"labels": "label", "draws": 60, **options}
    return traits.portability(probe, a, b, generator=np.random.default_rng(1), **options)


def test_verdicts_are_those_of_what_was_planted():
    probe, scores = planted()
    draw = np.random.default_rng(2)
    noise = xr.zeros_like(scores) + draw.normal(size=N)
    for b, verdict in (
        (scores + 0.01 * noise, "holds"),
        (scores + 0.7, "threshold stale"),
        (scores - 2.5, "threshold stale"),  # too few are flagged: the recall falls
        (scores + 3 * noise, "degraded"),
    ):
        assert judged(probe, scores, b).attrs["verdict"] == verdict
    few = scores.isel(prompt=slice(0, 24))
    assert judged(probe, few, few + 0.05).attrs["verdict"] == "undecidable"
    assert judged(probe.assign(threshold=np.nan), scores, scores).attrs["verdict"] == "undecidable"
    unlabelled = judged(probe, scores, scores, labels=None)
    assert unlabelled.attrs["verdict"] == "undecidable"
    assert "labels= or negatives=" in unlabelled.attrs["reason"]


def test_numbers_are_those_of_scipy_and_scikit_learn():
    probe, a = planted()
    b = 1.2 * a + 0.3 + 0.2 * np.random.default_rng(4).normal(size=N)
    found = judged(probe, a, b)
    label, threshold = a.label.values, float(probe.threshold)
    negative = [side.values[label == 0] for side in (a, b)]
    assert found["correlation"].item() == pytest.approx(np.corrcoef(a, b)[0, 1])
    shift = (b - a).values.mean() / negative[0].std(ddof=1)
    assert found["shift"].item() == pytest.approx(shift)
    assert found["shift_low"] < shift < found["shift_high"]
    for name, side in (("a", a), ("b", b)):
        assert found[f"auroc_{name}"].item() == pytest.approx(roc_auc_score(label, side.values))
    hits = int((negative[1] > threshold).sum())
    assert found["rate_b"].item() == hits / 200
    assert found["rate_b_low"].item() == pytest.approx(beta.ppf(0.025, hits, 201 - hits))
    assert found["rate_b_high"].item() == pytest.approx(beta.ppf(0.975, hits + 1, 200 - hits))
    # the threshold that restores flags as many on b as the stored one on a
    restored = (negative[1] > found["restoring"].item()).sum()
    assert restored == (negative[0] > threshold).sum() == 10
    assert (negative[1] > threshold).sum() != 10
    flips = found["flips"].sel({"class": "negative"}).values.tolist()
    over = [values > threshold for values in negative]
    assert flips == [(~over[0] & over[1]).sum(), (over[0] & ~over[1]).sum()]


def test_the_unit_is_the_prompt():
    probe, scores = planted()
    twice = xr.concat([scores, scores], "prompt")
    twice = twice.assign_coords(
        prompt=[f"a/{n}" for n in range(2 * N)],
        group=("prompt", [f"g/{n % N}" for n in range(2 * N)]),
    )
    found, alone = judged(probe, twice, twice + 0.2), judged(probe, scores, scores + 0.2)
    for name in ("n_negative", "rate_b", "rate_b_high", "recall_b"):
        assert found[name].item() == alone[name].item()
    ungrouped = judged(probe, twice, twice + 0.2, group=None)
    assert ungrouped["rate_b_high"] < found["rate_b_high"]


def test_models_in_two_precisions_and_an_adapter(
    tiny_llama: TransformersModel, tiny_folder: Path, tiny_lora: Path, tmp_path: Path
):
    runs = forwards.encoded(tiny_llama)
    probe = probes.made(tk.capture(tiny_llama, runs, progress=False))
    score = tk.capture(tiny_llama, runs, probes=probe, progress=False)
    ready = probe.assign(threshold=float(score.pooled.median()), threshold_fpr=0.5)
    negatives = xr.ones_like(score.pooled.isel(probe=0), dtype=bool)
    rough = tk.load(tiny_folder, dtype="bfloat16", tokenizer=tiny_llama.tokenizer)
    settings = {"negatives": negatives, "labels": None, "token_budgets": (None, 1)}
    found = judged(ready, tiny_llama, rough, runs=runs, **settings)
    moved = float(np.abs(found["score_a"] - found["score_b"]).max())
    assert 0 < moved < 1
    np.testing.assert_allclose(found["score_a"], score.pooled.isel(probe=0), atol=1e-4)
    with tk.adapter(tiny_llama, tiny_lora):
        on = tk.capture(tiny_llama, runs, probes=ready, progress=False)
    given = judged(ready, score, on, negatives=negatives, labels=None)
    assert float(np.abs(given["score_a"] - given["score_b"]).max()) > 1e-3
    assert tk.open(tk.save(given, tmp_path / "found.nc")).attrs["verdict"]


def test_what_cannot_be_compared_is_refused(tiny_llama: TransformersModel):
    probe, scores = planted()

    def refused(match: str, a: Any, b: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            judged(probe, a, b, **options)

    refused(r"have 400 and 399 prompts", scores, scores[1:])
    refused(
        r"such as 'a/0', are on one side",
        scores,
        scores.assign_coords(prompt=[f"b/{n}" for n in range(N)]),
    )
    refused(r"values that are not finite", scores, scores.where(scores < 3))
    refused(r"The label 'liar' was asked for", scores, scores, labels="liar")
    refused(r"The labels hold \[2\.0\]", scores, scores, labels=xr.full_like(scores, 2.0))
    refused(r"All 200 scores on the first side are 1", xr.ones_like(scores), scores)
    refused(r"a model and no runs", tiny_llama, tiny_llama)
    other = [tk.stamp(scores, {"probes": {"probe": {"hash": name}}}) for name in "ab"]
    refused(r"scored by the probes \['a'\] and \['b'\]", *other)
