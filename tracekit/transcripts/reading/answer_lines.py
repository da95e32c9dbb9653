"""Answers as lines of a file: a prompt, what was said to it, its ids and labels; and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.files import whole
from tracekit.storage.provenance import read
from tracekit.transcripts.prompts import Prompt

IDS = ("prompt_token_ids", "token_ids")
FIELDS = ("prompt_id", "group", "messages", "text", "prefill", "tools", "response", *IDS)
_NEEDED = {"prompt_id", "token_ids", "response"}
_MARKS = {"template", "user", "system"}


def write_answers(
    runs: xr.Dataset | xr.DataArray, path: Path, prompts: Sequence[Prompt] | None = None
) -> Path:
    """Transcripts as JSON lines, which `tk.read_prompts` and `encode(…, responses=…)` read.

    A line has the `prompt_id`, the `messages` (of `prompts`, or of a prompt that is one turn of
    the user; a `text` where no template was used), the `response`, both `token_ids`, and labels.

    Errors: `ValueError` for what are no transcripts, for a conversation without its `prompts`, and
    for a label that has a field's name.

    >>> write_answers(runs, Path("answers.jsonl")).name
    'answers.jsonl'
    """
    if not isinstance(runs, xr.Dataset) or not {"token_id", "response"} <= set(runs):
        raise InputError(
            "answers.jsonl was asked for of what are no transcripts: they have token ids and "
            "responses (of tk.encode, tk.generate). Give those that a capture was made of."
        )
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(runs, prompts)]
    text = "".join(lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path, len(text)) as part:
        part.write_bytes(text)
    return path


def is_exported(rows: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether rows are lines of `write_answers`; `given` are the fields that were named."""
    return not {*given} - {"response"} and all(
        isinstance(row, Mapping) and {*row} >= _NEEDED and bool({"messages", "text"} & {*row})
        for row in rows
    )


def exported_rows(rows: Sequence[Mapping[str, Any]], answers: bool) -> list[dict[str, Any]]:
    """Such lines as rows of prompts, with or without their answers."""
    left = {"prompt_id", *IDS, *([] if answers else ["response"])}
    kept = [{name: value for name, value in row.items() if name not in left} for row in rows]
    return [{"id": row["prompt_id"], **own} for row, own in zip(rows, kept, strict=True)]


def _rows(runs: xr.Dataset, prompts: Sequence[Prompt] | None) -> Iterator[dict[str, Any]]:
    fixed = {"prompt", "group", "prompt_length"}
    labels = [str(n) for n, c in runs.coords.items() if c.dims == ("prompt",) and n not in fixed]
    taken = sorted({*labels} & {*FIELDS})
    if taken:
        raise InputError(
            f"answers.jsonl was asked for, and the label {taken[0]!r} has the name of a field of "
            f"it. Rename it: runs.rename({taken[0]}='my_{taken[0]}')."
        )
    known = None if prompts is None else {prompt.id: prompt for prompt in prompts}
    before = runs["token"].values < 0
    table = runs.token_id.transpose("prompt", "token").values
    for n, name in enumerate(map(str, runs["prompt"].values)):
        asked, said = (table[n, side & (table[n] >= 0)].tolist() for side in (before, ~before))
        group = str(runs["group"].values[n])
        yield {
            "prompt_id": name,
            **({"group": group} if group != name else {}),
            **(_talk(runs, n, before) if known is None else _of_prompt(known, name, read(runs))),
            "response": str(runs["response"].values[n]),
            "prompt_token_ids": asked,
            "token_ids": said,
            **{label: _plain(runs[label].values[n]) for label in labels},
        }


def _of_prompt(known: Mapping[str, Prompt], name: str, made: Mapping[str, Any]) -> dict[str, Any]:
    prompt = known.get(name) or known.get(name.rpartition("#")[0])
    if prompt is None:
        raise InputError(
            f"answers.jsonl was asked for with prompts=, and {name!r} is not among them. Give the "
            "prompts that the transcripts were encoded of."
        )
    turns = prompt.conversation(made.get("system"))
    if made.get("template") == "raw":
        return {"text": turns[0][1]}
    more = {"prefill": prompt.prefill or made.get("prefill"), "tools": list(prompt.tools)}
    more["tools"] = more["tools"] or made.get("tools")
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": messages, **{name: value for name, value in more.items() if value}}


def _talk(runs: xr.Dataset, row: int, before: np.ndarray) -> dict[str, Any]:
    """The messages of a prompt that is one turn of the user, with the set's system message."""
    made, text = read(runs), str(runs["text"].values[row])
    if made.get("template") == "raw":
        return {"text": text}
    there = before & (runs.token_id.transpose("prompt", "token").values[row] >= 0)
    roles = runs.role.transpose("prompt", "token").values[row, there].tolist()
    turns = [a for a, b in zip(roles, [*roles[1:], ""], strict=True) if a != b and a == "user"]
    system = made.get("system")
    if not {*roles} <= _MARKS or len(turns) != 1 or ("system" in roles and not system):
        raise InputError(
            f"answers.jsonl was asked for, and the prompt {str(runs.prompt.values[row])!r} is a "
            "conversation, whose messages transcripts do not keep. Give them: "
            "tk.export(runs, path, prompts=prompts)."
        )
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": [*first, {"role": "user", "content": text}]}


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if value != value else value
