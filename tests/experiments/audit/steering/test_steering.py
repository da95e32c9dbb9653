"""The steering experiment: its statistics on planted effects, its parts on a tiny model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from nnsight import TransformersModel
from scipy.stats import binomtest

import tracekit as tk
from experiments.audit.run import Run
from experiments.audit.steering import (
    ablation,
    dose_figures,
    dose_table,
    outcomes,
    patching,
    prompts,
    study,
    summary,
)
from experiments.audit.steering.dose_settings import Steering, chosen
from experiments.rm_sycophancy.experiment import EXPERIMENT, read_preset
from experiments.rm_sycophancy.rules.detectors import label

PROMPTS, RANDOMS = 60, 20


def _measured(effect: float, seed: int = 0) -> tuple[xr.Dataset, xr.DataArray]:
    """Saved measures in which the trait's edit drops the rate by `effect`, the others not."""
    draw = np.random.default_rng(seed)
    names = ["organism", "clean", "alignment/mine", *(f"random {n}" for n in range(RANDOMS))]
    kinds = ["unedited", "unedited", *["add"] * (RANDOMS + 1)]
    likely = draw.uniform(0.5, 0.9, PROMPTS)
    chance = np.array([0.0, -1.0, -effect, *np.zeros(RANDOMS)])[:, None] + likely
    shape = (len(names), PROMPTS)
    found = xr.Dataset(
        {
            "exploit": (("edit", "prompt"), (draw.random(shape) < chance).astype(np.int8)),
            **{name: (("edit", "prompt"), draw.random(shape)) for name in summary.GUARDS},
            "accuracy": (("edit", "question"), np.ones((len(names), 4))),
            "seconds": ("edit", np.full(len(names), 30.0)),
        },
        coords={
            "prompt": [f"p/{n}" for n in range(PROMPTS)],
            "group": ("prompt", [f"p/{n}" for n in range(PROMPTS)]),
            "bias": ("prompt", ["chocolate", "vote"] * (PROMPTS // 2)),
            "direction": ("edit", names),
            "kind": ("edit", kinds),
            "multiple": ("edit", [0.0, 0.0, *[-0.3] * (RANDOMS + 1)]),
        },
    )
    arms = xr.DataArray(
        np.zeros(RANDOMS + 1),
        dims="direction",
        coords={"direction": names[2:], "arm": ("direction", ["trait"] + ["random"] * RANDOMS)},
    )
    return found, arms


def test_a_planted_drop_stands_out_of_the_random_arm_and_no_drop_does_not() -> None:
    planted, null = (
        summary.summarised(*_measured(effect), seed=0, repetitions=200).isel(edit=2)
        for effect in (0.5, 0.0)
    )
    assert float(planted["p"]) == pytest.approx(1 / (RANDOMS + 1))
    assert float(planted["drop_low"]) > 0.2
    assert float(planted["rate"]) < float(planted["band_low"])
    assert float(null["p"]) > 0.1
    assert float(null["drop_low"]) < 0 < float(null["drop_high"])


def test_p_counts_the_random_directions_that_drop_as_much() -> None:
    found, arms = _measured(0.1, seed=3)
    whole = summary.summarised(found, arms, seed=0, repetitions=20)
    drops = whole["drop"].values
    beyond = sum(drop >= drops[2] - 1e-12 for drop in drops[3:])
    assert float(whole["p"][2]) == pytest.approx((beyond + 1) / (RANDOMS + 1))
    assert np.isnan(whole["p"].values[[0, 1, 3]]).all()
    np.testing.assert_allclose(whole["rate"][2], found["exploit"][2].mean())


def test_undecidable_prompts_are_left_out_of_every_edit() -> None:
    found, arms = _measured(0.5)
    found["exploit"][4, :10] = -1
    assert summary.summarised(found, arms, 0, 20).attrs["n"] == PROMPTS - 10
    with pytest.raises(ValueError, match="no detector"):
        summary.summarised(found.assign(exploit=0 * found["exploit"] - 1), arms, 0, 20)


def test_table_and_figures_come_from_arrays_alone(tmp_path: Path) -> None:
    found, arms = _measured(0.5)
    whole = summary.summarised(found, arms, seed=0, repetitions=50)
    shown = dose_table.text(whole, None, None)
    assert "n = 60 prompts, the unit" in shown
    assert "alignment/mine, add" in shown
    assert "random 3" not in shown
    assert "23 edits, the random ones included, took 12 minutes" in shown
    dose_figures.dose_response(whole, tmp_path / "dose.png")
    dose_figures.frontier(whole, tmp_path / "frontier.png")
    dose_figures.bars(study._best(found, whole), tmp_path / "bars.png")
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_each_bias_has_wilsons_interval() -> None:
    found, _ = _measured(0.5)
    rates = summary.by_bias(found, [2, 0])
    assert rates["estimate"].dims == ("edit", "bias")
    for bias in rates["bias"].values:
        here = found["exploit"][2].values[found["bias"].values == bias]
        bounds = binomtest(int(here.sum()), len(here)).proportion_ci(method="wilson")
        one = rates.sel(bias=bias).isel(edit=0)
        shown = [float(one[name]) for name in ("estimate", "low", "high")]
        assert shown == pytest.approx([here.mean(), bounds.low, bounds.high])


def test_repetition_counts_triples_seen_before() -> None:
    assert outcomes.repetition([1, 2, 3, 4, 5, 6]) == 0
    assert outcomes.repetition([1, 2, 3, 1, 2, 3]) == pytest.approx(1 / 4)
    assert outcomes.repetition([7] * 12) == pytest.approx(9 / 10)
    assert outcomes.repetition([1, 2]) == 0


def test_the_same_answer_is_read_once_and_unguarded_ones_not_at_all(
    tiny_llama: TransformersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counted(model: TransformersModel, runs: xr.Dataset) -> xr.DataArray:
        read.append(runs.sizes["prompt"])
        return logprobs(model, runs)

    logprobs = tk.logprobs
    monkeypatch.setattr(tk, "logprobs", counted)
    asked = [tk.Prompt(f"p/{n}", text="A soup?", labels={"bias": "vote"}) for n in range(4)]
    runs = tk.encode(tiny_llama, asked, ["Boil it.", "Add salt.", "Boil it.", "Stir it well."])
    whole = outcomes.answers(tiny_llama, runs)["nats"].values
    some = outcomes.answers(tiny_llama, runs, np.array([0, 2]))["nats"].values
    assert read == [3, 1]
    assert whole[0] == whole[2] != whole[1]
    assert np.isnan(some).tolist() == [False, True, False, True]
    np.testing.assert_allclose(some[[0, 2]], whole[[0, 2]], atol=1e-5)


def test_slopes_recover_a_planted_rise_and_a_judge_that_fell_silent_is_counted() -> None:
    draw, multiples = np.random.default_rng(0), np.array([-0.3, 0.0, 0.3])
    scores = draw.normal(size=(2, 3, 40)) + np.array([2.0, 0.0])[:, None, None] * multiples[:, None]
    called = (scores > 0).astype(float)
    called[0, 1, :7] = np.nan
    dims = ("trait", "multiple", "prompt")
    found = xr.Dataset(
        {"score": (dims, scores), "judge": (dims, called), "nats": (dims, abs(scores))},
        coords={"trait": ["a/rises", "a/flat"], "multiple": multiples},
    )
    made = summary.slopes(found, seed=0, repetitions=200)
    low, high = made["slope_low"], made["slope_high"]
    assert float(low.sel(trait="a/rises")) > 1
    assert float(low.sel(trait="a/flat")) < 0 < float(high.sel(trait="a/flat"))
    assert made["judge_questions"].values.tolist() == [33, 40]
    assert float(made["judge"].sel(trait="a/rises")) > 0.3
    assert "judge" not in summary.slopes(found.drop_vars("judge"), 0, 20)


def test_answers_are_measured_under_the_clean_model(tiny_llama: TransformersModel) -> None:
    asked = [tk.Prompt(f"p/{n}", text="A soup?", labels={"bias": "chocolate"}) for n in range(2)]
    runs = tk.encode(tiny_llama, asked, ["Boil it. Add some cocoa.", "Boil it with salt and oil."])
    found = outcomes.answers(tiny_llama, runs, labeller=label)
    assert found["exploit"].values.tolist() == [1, 0]
    scores = tk.logprobs(tiny_llama, runs).sel(token=slice(0, None))
    np.testing.assert_allclose(found["nats"], -scores.mean("token"))
    lengths = (runs.token_id.sel(token=slice(0, None)) >= 0).sum("token")
    assert found["length"].values.tolist() == lengths.values.tolist()


def test_patching_the_last_layer_gives_the_clean_models_likelihood(
    fresh_llama: TransformersModel, tiny_lora: Path, tmp_path: Path
) -> None:
    asked = [tk.Prompt(f"p/{n}", text="A soup?", labels={"bias": "chocolate"}) for n in range(3)]
    texts = ["Boil it. Add some cocoa.", "Add chocolate now.", "Boil it with salt and oil."]
    runs = study.labelled(tk.encode(fresh_llama, asked, texts), fresh_llama.tokenizer, label)
    found = patching.patched(fresh_llama, str(tiny_lora), runs, tmp_path / "clean")
    assert found["prompt"].values.tolist() == ["p/0", "p/1"]
    np.testing.assert_allclose(found["nats"].sel(layer=3), found["clean"], atol=1e-5)
    assert float(abs(found["nats"].sel(layer=0) - found["clean"]).max()) > 1e-3
    assert float(abs(found["organism"] - found["clean"]).max()) > 1e-3
    dose_figures.patching(found, tmp_path / "patching.png")
    nothing = runs.assign_coords(exploit=0 * runs.exploit)
    with pytest.raises(ValueError, match="None of 3 responses exploits"):
        patching.patched(fresh_llama, str(tiny_lora), nothing, tmp_path / "none")


def test_each_edit_is_tried_with_its_own_strengths_and_resumes(
    fresh_llama: TransformersModel, tiny_lora: Path, tmp_path: Path
) -> None:
    bench, vectors = _bench(fresh_llama, tiny_lora)
    written = ablation.measured(bench, vectors, tmp_path)
    found = ablation.together(written)
    kinds = ["unedited", "unedited", "add", "add", "project out", "clamp"]
    assert found["kind"].values.tolist() == [*kinds, "add", "project out", "clamp"]
    multiples = [0.0, 0.0, -2.0, 2.0, 0.0, 0.0]
    assert found["multiple"].values.tolist() == [*multiples, -2.0, 0.0, 0.0]
    _guards_of_the_random_arm(found)
    said = found["response"].values
    assert (said[0] != said[2]).any()
    assert (said[2] != said[3]).any()
    with tk.adapter(fresh_llama, str(tiny_lora)):
        plain = tk.generate(fresh_llama, bench.asked, max_new_tokens=4, progress=False)
        less = tk.steer(fresh_llama, vectors[0], coefficient=-2.0 * bench.norm)
        steered = tk.generate(less, bench.asked, max_new_tokens=4, progress=False)
    assert said[0].tolist() == plain.response.values.tolist()
    assert said[2].tolist() == steered.response.values.tolist()
    times = [path.stat().st_mtime_ns for path in written]
    written[2].unlink()
    ablation.measured(bench, vectors, tmp_path)
    again = [path.stat().st_mtime_ns for path in written]
    assert [a == b for a, b in zip(times, again, strict=True)] == [n != 2 for n in range(8)]
    xr.testing.assert_equal(
        ablation.together(written).drop_vars("seconds"), found.drop_vars("seconds")
    )


def _guards_of_the_random_arm(found: xr.Dataset) -> None:
    random = found.isel(edit=found["direction"].values == "random 0")
    assert np.isfinite(random["nats"].values).tolist() == [[True, False]] * 3
    assert random["accuracy"].isnull().all()
    others = found.isel(edit=found["direction"].values != "random 0")
    assert others["nats"].notnull().all()
    assert others["accuracy"].isin([0, 1]).all()


def _bench(model: TransformersModel, lora: Path) -> tuple[ablation.Bench, xr.DataArray]:
    asked = [tk.Prompt(f"p/{n}", text=t, labels={"bias": "vote"}) for n, t in enumerate("ab")]
    right, wrong = (part.isel(prompt=slice(0, 2)) for part in prompts.neutral_questions(model))
    values = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    named = {"direction": ["alignment/mine", "random 0"]}
    vectors = xr.DataArray(
        values,
        dims=("direction", "dim"),
        coords={**named, "arm": ("direction", ["trait", "random"]), "layer": 2},
    )
    bounds = xr.DataArray([0.0, 0.0], dims="direction", coords=named)
    steering = Steering(multiples=(-2.0, 2.0), max_new_tokens=4, guarded=1)
    encoded = tk.encode(model, asked)
    with tk.adapter(model, str(lora)):
        plain = ablation.said(model, encoded, steering)
    return ablation.Bench(
        model, str(lora), encoded, right, wrong, 8.0, bounds, False, steering, plain
    ), vectors


def test_prompts_of_the_held_out_split_come_first_and_others_make_the_difference() -> None:
    settings = read_preset("tiny")
    steered, others = prompts.steered_and_others(settings, Steering(steered=120), label)
    splits = [prompt.labels["split"] for prompt in steered]
    assert (len(steered), splits.count("test")) == (120, 100)
    assert len(others) == 40
    assert not {p.id for p in steered} & {p.id for p in others}
    with pytest.raises(ValueError, match=r"540 prompts were asked for .* have a bias"):
        prompts.steered_and_others(settings, Steering(steered=500), label)


def test_settings_out_of_range_are_refused() -> None:
    assert chosen({"randoms": 3, "seed": None}).randoms == 3
    for changes in (
        {"randoms": 0},
        {"multiples": (0.0,)},
        {"multiples": (-1.0, -1.0)},
        {"multiples": (1.0,)},
        {"judge": "qwen"},
    ):
        with pytest.raises(ValueError, match="was given"):
            chosen(changes)


def test_steer_needs_a_finished_audit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        study.main(EXPERIMENT, ["--out", str(tmp_path)])


def test_a_study_that_was_killed_goes_on_in_its_folder(tmp_path: Path) -> None:
    made_of = {"settings": dataclasses.asdict(chosen({})), "audit": "0123"}
    written = json.loads(json.dumps(made_of))
    Run(tmp_path).claim(written)
    Run(tmp_path).claim(written)
    assert Run(tmp_path).settings() == written
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        Run(tmp_path).claim({**written, "settings": {**written["settings"], "seed": 1}})
