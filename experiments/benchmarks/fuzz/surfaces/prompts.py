"""Prompt files: JSON with fields, types and bytes out of place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tracekit as tk
from experiments.benchmarks.fuzz.damage import altered, damaged
from experiments.benchmarks.fuzz.outcome import Case

_ROW = {"id": 1, "text": "Where is Paris?", "bias": "maps", "score": 0.5, "hits": 3, "test": True}
_TALK = {
    "id": "talk",
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello, you."},
        {"role": "user", "content": "And now?"},
    ],
    "group": "talk",
    "bias": "none",
}
_WHOLE = {"name": "fuzz", "prompts": [_ROW, {**_ROW, "id": 2, "text": "Name a river."}, _TALK]}
# not labels of a row
_FIELDS = {"id", "text", "messages", "group", "system", "system_prompt"}
_FIELDS |= {"response", "prefill", "tools"}
_KEYS = ("prompts", "data", "questions", "rows", "examples", "items", "conversations")


def cases(rng: np.random.Generator, place: Path) -> Iterator[Case]:
    """One file a case: of three rows, with up to three alterations, or with damaged bytes."""
    path = place / "fuzz.json"
    while True:
        content: Any = json.loads(json.dumps(_WHOLE))
        words = []
        for _ in range(int(rng.integers(1, 4))):
            if isinstance(content, dict | list) and content:
                done, content = altered(content, rng)
                words.append(done)
        data = json.dumps(content, ensure_ascii=bool(rng.integers(2))).encode(errors="replace")
        if rng.random() < 0.3:
            done, data = damaged(data, rng)
            words.append(done)
        path.write_bytes(data)
        yield Case("; ".join(words), lambda: tk.read_prompts(path), lambda v: _right(path, v))


def _right(path: Path, prompts: list[Any]) -> bool:
    """Every row of the file is a prompt with its own text, turns and labels, and no other is."""
    content = json.loads(path.read_bytes().decode("utf-8-sig"))
    key = next((key for key in _KEYS if isinstance(content, dict) and key in content), "")
    rows = content[key] if key else content
    shared = {k: v for k, v in content.items() if k != key} if key else {}
    if len(prompts) != len(rows):
        return False
    if not all(isinstance(row, dict) and row.get("id") is not None for row in rows):
        return all(map(_guessed, prompts, rows, range(len(rows))))
    own = all(row.get("text") or row.get("messages") for row in rows)
    if not own:
        return all(map(_guessed, prompts, rows, range(len(rows))))
    return all(_same(prompt, row, shared) for prompt, row in zip(prompts, rows, strict=True))


def _guessed(prompt: Any, row: Any, number: int) -> bool:
    """Whether a prompt whose fields were guessed says what its row does, under its id."""
    fields = row if isinstance(row, dict) else {"text": row}
    texts = [turn["content"] for turn in fields.get("messages") or []]
    said = [content for role, content in prompt.messages if role != "system"] or [prompt.text]
    name = number if fields.get("id") in (None, "") else fields["id"]
    return prompt.id.endswith(f"/{name}") and (
        said == texts or (len(said) == 1 and said[0] in fields.values())
    )


def _same(prompt: Any, row: Mapping[str, Any], shared: Mapping[str, Any]) -> bool:
    around = {k: v for k, v in shared.items() if k not in ("name", "description")}
    labels = {
        name: value
        for name, value in {**around, **row}.items()
        if name not in _FIELDS and not _none(value)
    }
    held = {k: v for k, v in prompt.labels.items() if not (k == "bias" and k not in labels)}
    said = [turn["content"] for turn in row.get("messages") or []]
    turns = [content for role, content in prompt.messages if role != "system"]
    spoken = [t for t in turns] == [
        turn["content"] for turn in row.get("messages") or [] if turn["role"] != "system"
    ]
    if row.get("response"):
        spoken = turns == [*(said or [row["text"]]), row["response"]]
    text = spoken if said or row.get("response") else prompt.text == row["text"]
    return (
        bool(text)
        and prompt.id.endswith(f"/{row['id']}")
        and json.dumps(held, sort_keys=True) == json.dumps(labels, sort_keys=True)
    )


def _none(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, float) and value != value)
        or (value in ({}, []) and False)
    )
