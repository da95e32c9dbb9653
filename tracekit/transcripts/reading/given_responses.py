"""Which answer is to which prompt: texts, token ids, or a serving engine's file."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tracekit.errors import InputError
from tracekit.transcripts.labels import require_text
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.answer_files import Answered, Response, read_answers

Rows = tuple[list[Prompt], list[Response], Any]


def answered(prompts: Sequence[Prompt], responses: Any) -> Rows:
    """A prompt and its answer a row, and where the answers come from, for the provenance.

    `responses` are a text or token ids each, or the path of a file of answers, matched by id
    (whole, or without the set's name), or by position where it has none, which is said. Several
    answers of a prompt are rows `<id>#<k>` of one group.

    Errors: `ValueError` for a prompt without an answer, an answer without a prompt, prompts with
    other counts of answers than others, and a prompt that has an answer of its own.
    """
    if responses is None:
        return list(prompts), [Response(prompt.answer or "") for prompt in prompts], None
    _refuse_two(prompts)
    if isinstance(responses, Path) or (isinstance(responses, str) and _is_path(responses)):
        return _of_file(prompts, Path(responses))
    if isinstance(responses, str) or len(responses) != len(prompts):
        count = "One text" if isinstance(responses, str) else str(len(responses))
        raise InputError(
            f"{count} responses for {len(prompts)} prompts: give one each, in a list, or the path "
            "of a file of answers (.jsonl)."
        )
    pairs = zip(prompts, responses, strict=True)
    made = [_given(prompt, response) for prompt, response in pairs]
    kept = any(one.ids is not None for one in made)
    return list(prompts), made, "given ids" if kept else "given"


def _is_path(text: str) -> bool:
    return Path(text).suffix in (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet")


def _given(prompt: Prompt, response: Any) -> Response:
    if isinstance(response, str):
        require_text(response, f"The response to {prompt.id!r}")
        return Response(response)
    if isinstance(response, list | tuple | range | np.ndarray):
        ids = np.asarray(response)
        if ids.ndim == 1 and (ids.dtype.kind in "iu" or not len(ids)) and (ids >= 0).all():
            return Response(ids=tuple(ids.astype(int).tolist()))
    raise InputError(
        f"The response to {prompt.id!r} is {str(response)[:60]!r}; it has to be text, or token ids."
    )


def _refuse_two(prompts: Sequence[Prompt]) -> None:
    for prompt in prompts:
        if prompt.answer is not None:
            raise InputError(
                f"The prompt {prompt.id!r} ends with the assistant's turn "
                f"{prompt.answer[:40]!r}, which is its response, and responses= has another. "
                "Leave one of them out (tk.read_prompts(…, response=False))."
            )


def _of_file(prompts: Sequence[Prompt], path: Path) -> Rows:
    lines = read_answers(path)
    by_prompt = _matched(prompts, lines, f"The file of answers {str(path)!r}")
    rows: list[Prompt] = []
    said: list[Response] = []
    for prompt, answers in zip(prompts, by_prompt, strict=True):
        for number, answer in enumerate(answers):
            name = prompt.id if len(answers) == 1 else f"{prompt.id}#{number}"
            more = {"id": name, "group": prompt.group or prompt.id}
            if answer.turns:
                before = prompt.messages or (("user", prompt.text),)
                more |= {"text": None, "messages": (*before, *answer.turns)}  # type: ignore[dict-item]
            rows.append(replace(prompt, **more))  # type: ignore[arg-type]
            said.append(answer)
    return rows, said, _about(path, lines, said)


def _about(path: Path, lines: Sequence[Answered], said: Sequence[Response]) -> dict[str, Any]:
    """Where answers of a file come from, and which of their ids are the engine's own."""
    kept = sum(one.ids is not None for one in said)
    models = sorted({line.model for line in lines if line.model})
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        **({"served": models} if models else {}),
        "ids_kept": kept,
        "tokenised_here": len(said) - kept,
    }


def _matched(
    prompts: Sequence[Prompt], lines: Sequence[Answered], where: str
) -> list[list[Response]]:
    """The answers to each prompt, all as many."""
    names = _names(prompts)
    keys = [_prompt_of(line, names) for line in lines]
    if not any(line.sure for line in lines) and not any(key is not None for key in keys):
        return _by_position(prompts, lines, where)
    strange = [line.key for line, key in zip(lines, keys, strict=True) if key is None]
    if strange:
        raise InputError(
            f"{where} has {len(strange)} of {len(lines)} lines that name no prompt here (first: "
            f"{strange[0]!r}; prompts are {', '.join(repr(p.id) for p in prompts[:3])} …), and "
            "they would be lost. Give their prompts too, or leave these lines out."
        )
    answers: dict[str, list[Response]] = {prompt.id: [] for prompt in prompts}
    for line, key in zip(lines, keys, strict=True):
        answers[str(key)] += line.responses
    lacking = [name for name, found in answers.items() if not found]
    if lacking:
        raise InputError(
            f"{where} has no answer to {len(lacking)} of {len(prompts)} prompts (first: "
            f"{lacking[0]!r}). Ask for them, or leave these prompts out."
        )
    _refuse_uneven(answers, where)
    return list(answers.values())


def _by_position(
    prompts: Sequence[Prompt], lines: Sequence[Answered], where: str
) -> list[list[Response]]:
    if len(lines) != len(prompts):
        raise InputError(
            f"{where} names no prompts and has {len(lines)} lines for {len(prompts)} prompts. "
            "Give one line each, in their order, or lines with the prompts' ids (custom_id)."
        )
    warnings.warn(
        f"{where} names no prompts, so its lines are matched by position: the first is to "
        f"{prompts[0].id!r}.",
        stacklevel=6,
    )
    by_prompt = [list(line.responses) for line in lines]
    _refuse_uneven({p.id: found for p, found in zip(prompts, by_prompt, strict=True)}, where)
    return by_prompt


def _names(prompts: Sequence[Prompt]) -> dict[str, str]:
    """The prompt that each name means: its id, or that without the set, where one prompt has it."""
    short = [prompt.id.partition("/")[2] for prompt in prompts]
    once = {name for name, count in Counter(short).items() if count == 1 and name}
    names = {name: p.id for name, p in zip(short, prompts, strict=True) if name in once}
    return {**names, **{prompt.id: prompt.id for prompt in prompts}}


def _prompt_of(line: Answered, names: dict[str, str]) -> str | None:
    """The id of the prompt that a line names; `x#1` is the second answer to `x`."""
    key = line.key or ""
    stem, mark, number = key.rpartition("#")
    return names.get(key) or (names.get(stem) if mark and number.isdigit() else None)


def _refuse_uneven(answers: dict[str, list[Response]], where: str) -> None:
    counts = {name: len(found) for name, found in answers.items()}
    usual = Counter(counts.values()).most_common(1)[0][0]
    other = [name for name, count in counts.items() if count != usual]
    if other:
        raise InputError(
            f"{where} has {counts[other[0]]} answers to {other[0]!r} and {usual} to others. Give "
            "each prompt as many: take repeated lines out, or ask for more."
        )
