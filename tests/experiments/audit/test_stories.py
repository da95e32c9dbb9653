"""Vetting on the way to the vectors: the model's own verdicts, and a judge served over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest

from experiments.audit.settings.groups import Settings
from experiments.audit.vectors import stories
from experiments.rm_sycophancy.experiment import read_preset
from tests.support.chat_server import served
from tracekit.storage.provenance import read
from traits import load_contrast

HONESTY = load_contrast("alignment/honesty")
PAIRS = 12


def verdict(question: str) -> str:
    """Says Yes to the positive stories of the first eight pairs, prose to the ninth pair."""
    if HONESTY.positive[8] in question:
        return "It depends."
    return "Yes" if any(story in question for story in HONESTY.positive[:8]) else "No"


@pytest.fixture
def reader() -> Iterator[str]:
    with served(verdict) as address:
        yield address


def settings(**changes: Any) -> Settings:
    return read_preset("tiny", {"pairs": PAIRS, **changes})


def test_a_judge_leaves_the_pairs_that_it_can_tell(tiny_llama: Any, reader: str) -> None:
    traces = stories.made(tiny_llama, HONESTY, settings(vet=reader, judge="small"))
    assert len(set(traces["group"].values)) == 8
    assert traces.sizes["prompt"] == 16
    said = read(traces)["vetted"]
    assert said == {"by": "small", "kept": 8, "rejected": 3, "undecided": 1}


def test_the_models_own_verdicts_are_counted(
    tiny_llama: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = stories.made(tiny_llama, HONESTY, settings(vet="model"))
    said = read(traces)["vetted"]
    assert said["by"] == "the model"
    assert 0 < said["kept"] < PAIRS, "a random model tells some pairs and not others"
    assert sum(said[name] for name in ("kept", "rejected", "undecided")) == PAIRS
    assert traces.sizes["prompt"] == 2 * said["kept"]
    assert f"vetted pairs: {said['kept']} kept" in capsys.readouterr().err


def test_without_vetting_every_pair_is_kept(tiny_llama: Any) -> None:
    traces = stories.made(tiny_llama, HONESTY, settings())
    assert traces.sizes["prompt"] == 2 * PAIRS
    assert "vetted" not in read(traces)


def test_placebos_are_not_vetted(tiny_llama: Any) -> None:
    unserved = settings(vet="http://127.0.0.1:9/v1", judge="small")
    traces = stories.made(tiny_llama, load_contrast("placebo/tense"), unserved)
    assert traces.sizes["prompt"] == 2 * PAIRS
