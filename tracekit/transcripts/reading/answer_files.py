"""Answers of a serving engine's file: its lines in the OpenAI-compatible forms, and flat ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.errors import InputError
from tracekit.storage.row_files import read_rows
from tracekit.transcripts.labels import require_text
from tracekit.transcripts.reading.messages import Message, turns
from tracekit.transcripts.reading.prompt_fields import RESPONSES

_EXPECTED = (
    'Expected lines of a server: {"custom_id": …, "response": {"body": {"choices": […]}}}, '
    '{"choices": […]}, or {"id": …, "response": "…"}.'
)
KEYS = ("answers", "data", "rows", "outputs")
# fields that name the prompt; a completion's own `id` is the server's
_IDS = ("custom_id", "prompt_id", "id", "request_id")
_FLAT = (*RESPONSES, "answer", "text", "content")
CUT = ("content_filter", "error", "abort")


@dataclass(frozen=True)
class Response:
    """One answer as it was given: its `text`, and token `ids` where the engine kept them.

    `turns` are the answer's where it has thoughts or tool calls of their own, `prompt_ids` what the
    engine says that it was asked, `finish` why it ended ("stop": with its end of turn).
    """

    text: str = ""
    turns: tuple[Message, ...] = ()
    ids: tuple[int, ...] | None = None
    prompt_ids: tuple[int, ...] | None = None
    finish: str = ""


@dataclass(frozen=True)
class Answered:
    """A line of a file: the answers to one prompt, and what names that prompt (`sure`: surely)."""

    key: str | None
    sure: bool
    responses: tuple[Response, ...]
    model: str = ""


def read_answers(path: Path) -> list[Answered]:
    """The answers of a file, a prompt a line.

    Lines are those of OpenAI's batches, chat completions, completions, vLLM's outputs (`outputs`,
    `token_ids`, `prompt_token_ids`), or flat: an id and a `response`.

    Errors: `FileNotFoundError`; `ValueError` for a line that holds no answer, a failed request, an
    answer that was cut by a filter, or ids that are no whole numbers.

    >>> _ = Path("a.jsonl").write_text('{"id": "set/1", "response": "Yes."}')
    >>> read_answers(Path("a.jsonl"))[0].responses[0].text
    'Yes.'
    """
    table = read_rows(path, KEYS, "file of answers", _EXPECTED)
    return [_line(row, f"Row {n} of {str(path)!r}") for n, row in enumerate(table.rows)]


def of_body(body: Mapping[str, Any], where: str) -> tuple[Response, ...]:
    """The answers of one completion, as a server sends it.

    >>> of_body({"choices": [{"text": "Yes.", "finish_reason": "stop"}]}, "It")[0].finish
    'stop'
    """
    choices = body.get("choices", body.get("outputs"))
    if choices is None:
        choices = [body]
    if not isinstance(choices, list) or not all(isinstance(one, Mapping) for one in choices):
        raise InputError(f"{where} has the choices {str(choices)[:60]!r}. {_EXPECTED}")
    if not choices:
        raise InputError(f"{where} has no choices, so no answer. Ask again for it.")
    ordered = sorted(choices, key=lambda one: one.get("index") or 0)
    return tuple(_choice(one, body, where) for one in ordered)


def _line(row: Any, where: str) -> Answered:
    if not isinstance(row, Mapping):
        raise InputError(f"{where} is {str(row)[:60]!r}, no object. {_EXPECTED}")
    inner = row.get("response")
    status = inner.get("status_code", 200) if isinstance(inner, Mapping) else 200
    request = isinstance(inner, Mapping) or "custom_id" in row
    if (request and row.get("error")) or status != 200:
        failed = row.get("error") or f"status {status}"
        name = row.get("custom_id", row.get("id"))
        raise InputError(
            f"{where} ({name!r}) is a request that failed: {str(failed)[:80]}. Ask again for it, "
            "or leave its line and its prompt out."
        )
    body = inner.get("body", inner) if isinstance(inner, Mapping) else row
    if not isinstance(body, Mapping):
        raise InputError(f"{where} has the body {str(body)[:60]!r}. {_EXPECTED}")
    name = next((name for name in _IDS if row.get(name) is not None), None)
    sure = name is not None and (name in _IDS[:2] or not {"choices", "outputs"} & set(row))
    model = body.get("model")
    return Answered(
        key=str(row[name]) if name else None,
        sure=sure,
        responses=of_body(body, where),
        model=model if isinstance(model, str) else "",
    )


def _choice(choice: Mapping[str, Any], body: Mapping[str, Any], where: str) -> Response:
    finish = choice.get("finish_reason") or ""
    if finish in CUT:
        raise InputError(
            f"{where} has an answer that ended by {finish!r}, which is not what the model would "
            "have said. Leave its line and its prompt out."
        )
    if isinstance(choice.get("stop_reason"), str):
        finish = "stop string"
    ids = _ids(choice.get("token_ids"), "token_ids", where)
    asked = choice.get("prompt_token_ids", body.get("prompt_token_ids"))
    said = _turns(choice, where)
    text = said[0][1] if len(said) == 1 else ""
    if ids is None and not said:
        raise InputError(
            f"{where} has the fields {', '.join(map(repr, choice))} and no answer. {_EXPECTED}"
        )
    return Response(
        text=text,
        turns=said if len(said) > 1 else (),
        ids=ids,
        prompt_ids=_ids(asked, "prompt_token_ids", where),
        finish=str(finish),
    )


def _turns(choice: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    """The answer's turns: one of the assistant, with its thoughts and calls where it has some."""
    message = choice.get("message")
    if isinstance(message, Mapping):
        if message.get("refusal") or (message.get("content") is None and not _more(message)):
            raise InputError(
                f"{where} has a message without content ({str(dict(message))[:60]}). Leave its "
                "line and its prompt out."
            )
        return turns([{"role": "assistant", **_spoken(message)}], where, set())
    field = next((name for name in _FLAT if isinstance(choice.get(name), str)), None)
    if field is None:
        return ()
    require_text(choice[field], where)
    return (("assistant", choice[field]),)


def _more(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


def _spoken(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None}


def _ids(ids: Any, name: str, where: str) -> tuple[int, ...] | None:
    if ids is None:
        return None
    whole = isinstance(ids, Sequence) and not isinstance(ids, str)
    if not whole or not all(type(one) is int and one >= 0 for one in ids):
        raise InputError(f"{where} has the {name} {str(ids)[:60]!r}; they are a list of ids.")
    return tuple(ids)
