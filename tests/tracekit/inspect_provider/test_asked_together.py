"""Requests that wait together are one batch, and no two threads run models at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from inspect_ai.model import GenerateConfig, get_model

import tracekit as tk
from tracekit.inspect_provider import registration  # noqa: F401 (the name `tracekit/…`)

QUESTIONS = ["Name a fruit.", "Is Paris big?", "Hello.", "Who won the vote?"]
CONFIG = GenerateConfig(max_tokens=5)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each `tk.generate`; two of them at once are an error."""
    plain, sizes, running = tk.generate, [], threading.Lock()

    def watched(model: tk.Model, runs: Any, **options: Any) -> Any:
        assert running.acquire(blocking=False), "two threads are in a model"
        try:
            sizes.append(runs.sizes["prompt"])
            return plain(model, runs, **options)
        finally:
            running.release()

    monkeypatch.setattr(tk, "generate", watched)
    return sizes


def served(folder: Path, **arguments: Any) -> Any:
    return get_model(f"tracekit/{folder}", memoize=False, dtype="float32", **arguments)


def said(model: tk.Model, **options: Any) -> list[str]:
    asked = tk.encode(model, QUESTIONS)
    runs = tk.generate(model, asked, max_new_tokens=5, progress=False, **options)
    return [str(text) for text in runs.response.values]


async def all_of(*requests: tuple[Any, str, GenerateConfig]) -> list[Any]:
    """What each request comes to, an exception too, asked at once."""
    found: list[Any] = [None] * len(requests)

    async def one(n: int, model: Any, text: str, config: GenerateConfig) -> None:
        try:
            found[n] = (await model.generate(text, config=config)).completion
        except Exception as error:
            found[n] = error

    async with anyio.create_task_group() as group:
        for n, request in enumerate(requests):
            group.start_soon(one, n, *request)
    return found


def test_anyio_defines_its_own_classes_once_models_can_be_loaded() -> None:
    assert tk.load

    class Known(anyio.TypedAttributeSet):
        pass

    # and refuses what it refused before
    with pytest.raises(TypeError, match="'other' is missing its type annotation"):

        class Unknown(anyio.TypedAttributeSet):
            other = 1


def test_what_waits_together_is_generated_together(
    tiny_folder: Path, tiny_llama: tk.Model, tiny_lora: Path, batches: list[int]
) -> None:
    plain, adapted = served(tiny_folder), served(tiny_folder, adapter=str(tiny_lora), scale=2.0)
    both = [(model, text, CONFIG) for text in QUESTIONS for model in (plain, adapted)]
    found = anyio.run(all_of, *both)
    assert sorted(batches) == [4, 4]
    due = said(tiny_llama)
    with tk.adapter(tiny_llama, tiny_lora, scale=2.0):
        other = said(tiny_llama)
    assert found[::2] == due
    assert found[1::2] == other
    assert due != other


def test_requests_of_other_settings_and_seeded_ones_have_batches_of_their_own(
    tiny_folder: Path, batches: list[int]
) -> None:
    model = served(tiny_folder)
    longer, drawn = GenerateConfig(max_tokens=6), GenerateConfig(max_tokens=5, temperature=1.0)
    seeded = drawn.merge(GenerateConfig(seed=3))
    configs = [CONFIG, CONFIG, longer, drawn, drawn, seeded, seeded]
    found = anyio.run(all_of, *((model, QUESTIONS[0], config) for config in configs))
    assert sorted(batches) == [1, 1, 1, 2, 2]
    assert found[5] == found[6]
    assert found[3] != found[4]


def test_a_request_that_cannot_be_answered_fails_alone(
    tiny_folder: Path, tiny_llama: tk.Model, batches: list[int]
) -> None:
    model = served(tiny_folder)
    limit = GenerateConfig(max_tokens=5, temperature=0.0, top_p=0.5)
    requests = [*((model, text, CONFIG) for text in QUESTIONS), (model, "word " * 9000, CONFIG)]
    found = anyio.run(all_of, *requests, (model, "Hello.", limit))
    assert found[:4] == said(tiny_llama)
    assert "tokens; this model's context holds" in str(found[4])
    assert "Give temperature=1.0 to sample" in str(found[5])


def test_a_request_that_is_given_up_holds_up_no_other(tiny_folder: Path) -> None:
    model = served(tiny_folder)

    async def ask() -> str:
        with anyio.move_on_after(0.001):
            await model.generate(QUESTIONS[0], config=CONFIG)
        return (await model.generate(QUESTIONS[1], config=CONFIG)).completion

    first = anyio.run(ask)
    # another event loop, the same thread of models
    assert anyio.run(ask) == first


def test_a_model_is_loaded_once_and_let_go_when_it_is_closed(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracekit.inspect_provider.answering import loaded

    loaded.cache_clear()
    plain, loads = tk.load, []
    monkeypatch.setattr(
        tk, "load", lambda name, **options: loads.append(name) or plain(name, **options)
    )
    models = [served(tiny_folder), served(tiny_folder), served(tiny_folder)]
    assert len(loads) == 1
    models[0].api.close()
    found = anyio.run(all_of, *((model, QUESTIONS[0], CONFIG) for model in models))
    assert found[0] == found[1]
    assert len(loads) == 2
