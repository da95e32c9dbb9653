"""inspect_ai's evaluations through tracekit say what plain tracekit says."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
)
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import TaskState

import tracekit as tk
import traits
from tracekit.inspect_provider.stopping import cut

ROOT = Path(__file__).parents[3]
CHATS = [
    [("user", "Name a fruit.")],
    [("system", "Be brief."), ("user", "Is Paris big?")],
    [("user", "Hello."), ("assistant", "Hi!"), ("user", "Who won the vote?")],
]
MADE = {"user": ChatMessageUser, "system": ChatMessageSystem, "assistant": ChatMessageAssistant}
LAYERS, TRAITS = [1, 2], ["a/warm", "b/cold"]
Evaluate = Callable[..., list[Any]]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    """The entry point that a checkout which is installed anew has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    EntryPoint("tracekit", project["entry-points"]["inspect_ai"]["tracekit"], "inspect_ai").load()


@pytest.fixture
def vectors(tiny_llama: tk.Model, plain: xr.Dataset, tmp_path: Path) -> Path:
    """Two random traits at two layers, saved."""
    read = tk.capture(tiny_llama, plain, LAYERS, progress=False)
    values = np.random.default_rng(0).normal(size=(2, 2, read.sizes["dim"])).astype(np.float32)
    labels = {"trait": TRAITS, "layer": LAYERS}
    made = xr.DataArray(values, labels, dims=("trait", "layer", "dim"), name="vector")
    tk.save(tk.stamp(made, tk.provenance(read)), tmp_path / "vectors.nc")
    return tmp_path / "vectors.nc"


@pytest.fixture
def probe(tiny_llama: tk.Model, tmp_path: Path) -> Path:
    """A probe with a threshold, saved."""
    asked = [tk.Prompt(f"p/{n}", text=f"Is {n}?", labels={"label": n % 2}) for n in range(60)]
    runs = tk.encode(tiny_llama, asked, ["Yes, it is.", "No."] * 30)
    read = tk.capture(tiny_llama, runs, [2], progress=False)
    parts = {"fit": 0.4, "select": 0.2, "report": 0.4}
    draw = np.random.default_rng(0)
    made = traits.fit(read, "label", pooling="mean", fractions=parts, generator=draw)
    made = made.assign_coords(threshold=0.0)
    tk.save(made, tmp_path / "lies.nc")
    return tmp_path / "lies.nc"


def asked_of(model: tk.Model) -> xr.Dataset:
    prompts = [tk.Prompt(f"plain/{n}", messages=chat) for n, chat in enumerate(CHATS)]
    return tk.encode(model, prompts)


def said_by(model: tk.Model, **options: Any) -> xr.Dataset:
    return tk.generate(model, asked_of(model), max_new_tokens=6, progress=False, **options)


@pytest.fixture
def plain(tiny_llama: tk.Model) -> xr.Dataset:
    """What the model says by itself."""
    return said_by(tiny_llama)


@scorer(metrics=[accuracy()])
def warmth() -> Scorer:
    """Reads what the provider read."""

    async def score(state: TaskState, target: Target) -> Score:
        read = state.output.metadata["tracekit"]
        return Score(value=read["projections"]["a/warm"]["2"], metadata={"by": read["by"]})

    return score


@pytest.fixture
def evaluate(tiny_folder: Path, tmp_path: Path) -> Evaluate:
    """An evaluation of the chats: the samples in their order."""

    def run(config: GenerateConfig | None = None, scored: Any = None, **arguments: Any) -> Any:
        samples = [
            Sample(input=[MADE[role](content=text) for role, text in chat], target="", id=n)
            for n, chat in enumerate(CHATS)
        ]
        log: EvalLog
        (log,) = eval(
            Task(
                dataset=samples,
                scorer=scored,
                config=(config or GenerateConfig()).merge(GenerateConfig(max_tokens=6)),
            ),
            model=f"tracekit/{tiny_folder}",
            model_args={"dtype": "float32", **{k: v for k, v in arguments.items() if v}},
            log_dir=str(tmp_path / "logs"),
            display="none",
        )
        assert log.status == "success", log.error
        return sorted(log.samples, key=lambda sample: sample.id)

    return run


def read_of(sample: Any) -> dict[str, Any]:
    return sample.output.metadata["tracekit"]


def ids_of(runs: xr.Dataset) -> list[list[int]]:
    said = runs.token_id.sel(token=slice(0, None)).values
    return [row[row >= 0].tolist() for row in said]


def test_the_answers_are_those_of_plain_generation(
    evaluate: Evaluate, tiny_llama: tk.Model, plain: xr.Dataset, tiny_lora: Path, vectors: Path
) -> None:
    vector = tk.open(vectors).sel(trait="a/warm", layer=2)
    with tk.adapter(tiny_llama, tiny_lora, scale=2.0):
        adapted = said_by(tiny_llama)
    steered = said_by(tk.steer(tiny_llama, vector, coefficient=20.0))
    ablated = said_by(tk.ablate(tiny_llama, vector, layers=[0, 1, 2], tokens="all"))
    steer = {"steer": str(vectors), "trait": "a/warm", "layer": 2, "coefficient": 20.0}
    ablate = {"ablate": str(vectors), "trait": "a/warm", "layer": 2, "layers": [0, 1, 2]}
    found = [
        evaluate(),
        evaluate(adapter=str(tiny_lora), scale=2.0),
        evaluate(**steer),
        evaluate(edits=[{**ablate, "tokens": "all"}]),
        evaluate(),
    ]
    due = [ids_of(runs) for runs in (plain, adapted, steered, ablated, plain)]
    assert [[read_of(one)["response_ids"] for one in samples] for samples in found] == due
    texts = [one.output.completion for one in found[2]]
    assert texts == steered.response.values.tolist()
    # each of them changes the answers: none would pass for another
    assert all(due[a] != due[b] for a, b in ((0, 1), (0, 2), (0, 3), (1, 2), (2, 3)))
    by = read_of(found[1][0])["by"]
    assert by["adapter"]["scale"] == 2.0
    assert read_of(found[2][0])["by"]["edits"][0]["kind"] == "steer"


def test_projections_scores_and_traces_are_those_of_a_plain_capture(
    evaluate: Evaluate,
    tiny_llama: tk.Model,
    plain: xr.Dataset,
    vectors: Path,
    probe: Path,
    tmp_path: Path,
) -> None:
    samples = evaluate(
        vectors=str(vectors),
        probes=str(probe),
        traces=str(tmp_path / "kept"),
        per_token=True,
        scored=warmth(),
    )
    traces = tk.capture(tiny_llama, plain, LAYERS, progress=False)
    said = traces.sel(token=slice(0, None))
    projected = traits.project(said, tk.open(vectors)).transpose(
        "prompt", "token", "trait", "layer"
    )
    scores = traits.score(tk.open(probe), traces)
    for n, sample in enumerate(samples):
        read, due = read_of(sample), projected.isel(prompt=n)
        means = [[read["projections"][t][str(layer)] for layer in LAYERS] for t in TRAITS]
        np.testing.assert_allclose(means, due.mean("token"), rtol=1e-4, atol=1e-5)
        # the twin: the mean over one token less is another
        less = due.isel(token=slice(1, None)).mean("token")
        assert not np.allclose(means, less, rtol=1e-4, atol=1e-5)
        each = [[read["tokens"]["projections"][t][str(layer)] for layer in LAYERS] for t in TRAITS]
        np.testing.assert_allclose(each, due.transpose("trait", "layer", "token"), atol=1e-4)
        np.testing.assert_allclose(read["scores"]["lies"], scores[n], rtol=1e-4, atol=1e-5)
        assert read["over_threshold"]["lies"] is bool(scores[n] > 0)
        kept = tk.open(read["traces"]).sel(prompt=read["prompt"], layer=LAYERS)
        np.testing.assert_allclose(
            kept.sel(token=slice(0, None)), said.isel(prompt=n), rtol=1e-4, atol=1e-5
        )
        asked = tk.open(read["transcripts"]).sel(prompt=read["prompt"])
        assert str(asked.response.values) == sample.output.completion
        # what a scorer reads
        assert sample.scores["warmth"].value == read["projections"]["a/warm"]["2"]


def test_a_stop_sequence_cuts_the_text_the_ids_and_what_is_read(
    evaluate: Evaluate, tiny_llama: tk.Model, plain: xr.Dataset, vectors: Path
) -> None:
    said = ids_of(plain)
    stop = tiny_llama.tokenizer.decode(said[1][3:5])
    samples = evaluate(GenerateConfig(stop_seqs=[stop]), vectors=str(vectors))
    read = read_of(samples[1])
    assert samples[1].output.completion == tiny_llama.tokenizer.decode(said[1][:3])
    assert samples[1].output.stop_reason == "stop"
    assert read["response_ids"] == said[1][:5]
    traces = tk.capture(tiny_llama, plain, LAYERS, tokens=slice(0, 4), progress=False)
    due = traits.project(traces, tk.open(vectors)).isel(prompt=1).mean("token")
    for trait in TRAITS:
        for layer in LAYERS:
            value = float(due.sel(trait=trait, layer=layer))
            assert read["projections"][trait][str(layer)] == pytest.approx(value, rel=1e-4)
    assert samples[0].output.stop_reason == "max_tokens"
    assert read_of(samples[0])["response_ids"] == said[0]
    # one that the very last id completes takes no id away
    last = tiny_llama.tokenizer.decode(said[2][4:])
    runs, ended = cut(tiny_llama, plain, [[], [], [last]], 6)
    assert (ids_of(runs), ended) == (said, ["max_tokens", "max_tokens", "stop"])
    assert str(runs.response.values[2]) == tiny_llama.tokenizer.decode(said[2][:4])


def test_choices_and_log_probabilities_are_drawn_and_read_as_by_hand(
    evaluate: Evaluate, tiny_llama: tk.Model
) -> None:
    config = GenerateConfig(temperature=1.0, num_choices=2, seed=5, top_k=50, logprobs=True)
    samples = evaluate(config)
    for n, sample in enumerate(samples):
        asked = asked_of(tiny_llama).isel(prompt=[n])
        drawn = {"temperature": 1.0, "samples": 2, "seed": 5, "top_k": 50}
        due = tk.generate(tiny_llama, asked, max_new_tokens=6, progress=False, **drawn)
        found = [choice.message.metadata["tracekit"] for choice in sample.output.choices]
        assert [one["response_ids"] for one in found] == ids_of(due)
        nats = tk.logprobs(tiny_llama, due).sel(token=slice(0, None))
        for choice, row in zip(sample.output.choices, nats.values, strict=True):
            listed = [one.logprob for one in choice.logprobs.content]
            np.testing.assert_allclose(listed, row[: len(listed)], rtol=1e-4)
        assert ids_of(due)[0] != ids_of(due)[1]


def test_a_cache_of_answers_tells_an_edit_and_a_file_from_another(
    evaluate: Evaluate, plain: xr.Dataset, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSPECT_CACHE_DIR", str(vectors.parent / "cache"))
    cached, edit = GenerateConfig(cache=True), {"steer": str(vectors), "trait": "a/warm"}
    reading = {"vectors": str(vectors)}
    first, again = evaluate(cached, **reading), evaluate(cached, **reading)
    assert [read_of(one)["prompt"] for one in first] == [read_of(one)["prompt"] for one in again]
    steered = evaluate(cached, **reading, **edit, layer=2, coefficient=20.0)
    assert read_of(steered[0])["response_ids"] != ids_of(plain)[0]
    # the same path, written anew: neither the model that inspect_ai keeps nor its cache is asked
    held = tk.open(vectors)
    tk.save(tk.stamp(2 * held, tk.provenance(held)), vectors.parent / "twice.nc")
    (vectors.parent / "twice.nc").replace(vectors)
    doubled = evaluate(cached, **reading)
    values = [read_of(one[1])["projections"]["b/cold"]["1"] for one in (first, doubled)]
    assert values[1] == pytest.approx(2 * values[0], rel=1e-4)
