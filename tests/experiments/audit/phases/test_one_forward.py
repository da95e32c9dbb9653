"""Each text goes through each weights once, and what is read of it is what it was read of alone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit import command
from experiments.audit.evidence import spans
from experiments.audit.inputs import Inputs, prepare
from experiments.audit.phases import activations, arms, replay
from experiments.audit.phases.questions import WAYS
from experiments.audit.run import Run
from experiments.audit.settings.contents import described
from experiments.audit.settings.groups import Settings
from experiments.rm_sycophancy.experiment import EXPERIMENT

PHASES = ("extract", "respond", "capture", "replay")
MODELLED = ("capture", "replay", "alone")
AGAIN = ("logprobs", "means", "neutral_means", "span_contrasts", "blind")


def marks(kind: str, response: str) -> list[tuple[int, int]]:
    """About every other answer exploits, with how it begins."""
    return [(0, len(response) // 4)] if sum(map(ord, response)) % 2 else []


def ends(texts: np.ndarray) -> np.ndarray:
    """A random model says no sentences: every third token ends one."""
    return np.tile(np.arange(texts.shape[1]) % 3 == 2, (len(texts), 1))


class Counting:
    """How many tokens a model has forwarded, by what was being done."""

    def __init__(self, model: Any) -> None:
        self.tokens: Counter[str] = Counter()
        self.doing = ""
        model._module.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, given: Any, named: Any) -> None:
        mask, ids = named.get("attention_mask"), named.get("input_ids")
        if mask is not None and ids is not None and self.doing in MODELLED:
            # a prompt that was read before has columns of the mask too
            self.tokens[self.doing] += int(mask[:, -ids.shape[1] :].sum())


@pytest.fixture(scope="module")
def ran(
    tiny_folder: Path, tiny_lora: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Settings, Inputs, Counting]]:
    """A run's folder, through every phase with a model, and the tokens that each forwarded."""
    folder = tmp_path_factory.mktemp("one") / "run"
    model = tk.load(tiny_folder, dtype="float32")
    changes = {
        "model": str(tiny_folder),
        "organism": str(tiny_lora),
        "control": str(tiny_lora),
        "limit": 30,
        "labels": f"{__name__}:marks",
    }
    settings = EXPERIMENT.preset("tiny", changes)
    counting = Counting(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "sentence_ends", ends)
        for phase in PHASES:
            counting.doing = phase
            command.audit(EXPERIMENT, settings, described(settings), folder, phase, loaded=model)
        yield folder, settings, prepare(settings, EXPERIMENT, None, model), counting


def tokens_of(folder: Path, text: str, chosen: slice = slice(None)) -> int:
    ids = tk.open(Run(folder).responses(text)).token_id.sel(token=chosen)
    return int((ids.values >= 0).sum())


def test_the_capture_forwards_each_pair_once(ran) -> None:
    folder, settings, _, counting = ran
    texts = [arm.split("/")[1] for arm in arms.there(folder, settings)]
    pairs = sum(tokens_of(folder, text) for text in texts)
    # every answer is read; how all prompts begin is read once
    answers = sum(tokens_of(folder, text, slice(0, None)) for text in texts)
    assert answers < counting.tokens["capture"] < pairs


def test_the_replay_forwards_what_no_arm_is_made_of(ran) -> None:
    folder, settings, _, counting = ran
    clean = tk.open(Run(folder).responses("clean"))
    neutral = clean.isel(prompt=np.flatnonzero(clean["part"].values == "neutral"))
    others = len(settings.arms) - 2
    assert neutral.sizes["prompt"] > 0
    neutral_tokens = int((neutral.token_id.values >= 0).sum())
    asked = counting.tokens["replay"] - others * neutral_tokens
    # the questions, each a conversation that holds the answer; how they all begin is read once
    organism = tk.open(Run(folder).responses("organism"))
    said = int((organism.token_id.sel(token=slice(0, None)).values >= 0).sum())
    assert asked >= len(WAYS) * said
    assert asked <= 3 * len(WAYS) * int((organism.token_id.values >= 0).sum())


def test_what_was_measured_in_one_forward_is_what_the_model_says_alone(ran, tmp_path) -> None:
    folder, settings, inputs, counting = ran
    assert not (folder / "measured").exists()
    other = Path(shutil.copytree(folder, tmp_path / "again"))
    for name in AGAIN:
        (other / f"{name}.nc").unlink()
    shutil.rmtree(other / "own_means")
    counting.doing = "alone"
    replay.run(other, settings, inputs)
    assert counting.tokens["alone"] > counting.tokens["replay"]
    own = [path.relative_to(folder) for path in folder.glob("own_means/*.nc")]
    assert own
    for name in [*(Path(f"{name}.nc") for name in AGAIN), *own]:
        here, there = (xr.load_dataarray(where / name) for where in (folder, other))
        assert here.dims == there.dims
        np.testing.assert_allclose(here.values, there.values, rtol=1e-4, atol=1e-5)
    spans = xr.load_dataarray(folder / "span_contrasts.nc")
    assert np.isfinite(spans.values).any()
    moved = spans.copy(data=np.roll(spans.values, 1, axis=-1))
    assert not np.allclose(moved.values, spans.values, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_the_arms_of_a_text_are_read_in_the_same_batches_however_little_fits(
    ran, tmp_path, monkeypatch
) -> None:
    """Each arm was read in as many tokens as its own requests fit in: analyse refused them all."""
    folder, settings, inputs, _ = ran
    other = Path(shutil.copytree(folder, tmp_path / "little"))
    for made in ("captured", "traces"):
        shutil.rmtree(other / made)
    for name in AGAIN:
        (other / f"{name}.nc").unlink()
    monkeypatch.setattr("tracekit.passes.batching.SHARD_BYTES", 200_000)
    activations.run(other, settings, inputs)
    texts: dict[str, list[xr.DataArray]] = {}
    for arm in arms.there(other, settings):
        texts.setdefault(arm.split("/")[1], []).append(tk.open(Run(other).captured(arm)))
    assert len(texts["organism"]) >= 3
    for first, *rest in texts.values():
        for one in rest:
            assert tk.difference(one, first).dims == first.dims
    whole = tk.open(Run(folder).captured("clean/organism"))
    budgets = [tk.provenance(one)["batches"]["budget"] for one in (*texts["organism"], whole)]
    assert len({*budgets}) == 2
    assert budgets[0] < budgets[-1]


def test_a_capture_killed_in_an_arm_measures_it_again(ran, tmp_path, monkeypatch) -> None:
    folder, settings, inputs, _ = ran
    other = Path(shutil.copytree(folder, tmp_path / "killed"))
    for name in AGAIN:
        (other / f"{name}.nc").unlink()
    saved = tk.save
    names = []

    def dies(array: Any, path: Path) -> Path:
        names.append(path.name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return saved(array, path)

    monkeypatch.setattr(activations.tk, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        activations.run(other, settings, inputs)
    monkeypatch.undo()
    activations.run(other, settings, inputs)
    replay.run(other, settings, inputs)
    for name in AGAIN:
        here, there = (xr.load_dataarray(where / f"{name}.nc") for where in (folder, other))
        np.testing.assert_allclose(here.values, there.values, rtol=1e-4, atol=1e-5)
