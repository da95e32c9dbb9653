"""Prompts and transcripts: token ids with roles, labelled relative to the response."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.identity import BRIEF, digest, tokenizer_hash, vocabulary_hash
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import chat_template
from tracekit.transcripts.labels import columns
from tracekit.transcripts.prompts import Prompt, refuse_duplicates
from tracekit.transcripts.reading.given_responses import answered
from tracekit.transcripts.row_ids import Row, prompt_ids, response_ids


def encode(
    model: Any,
    prompts: Sequence[Any],
    responses: Sequence[Any] | str | Path | None = None,
    template: str = "chat",
    system: str | None = None,
    *,
    prefill: str = "",
    tools: Sequence[Mapping[str, Any]] = (),
    **arguments: Any,
) -> xr.Dataset:
    """Token ids of prompts, with responses if given: a Dataset over (prompt, token).

    `prompts` are texts, `Prompt`s, and lists of messages ({"role", "content"}). The response is
    that of `responses`, or the assistant's turn that a prompt's messages end with. `token` counts
    from the first response token (−1 is the last prompt token); `token_id` is −1 in holes. Prompt
    and response are tokenised apart, so that a prompt's ids are always a strict prefix.

    `responses` are a text or a list of token ids each, or a file of a serving engine
    (`docs/generate_elsewhere.md`): lines in the OpenAI-compatible forms, matched by the prompts'
    ids (by position, with a warning, where it has none); several answers of a prompt are rows
    `<id>#<k>` of one `group`. Token ids are kept as they are given and checked against their text
    and against this tokenizer's ids of the prompt; text is tokenised here, and an answer whose
    `finish_reason` is `stop` ends with the end of turn. The provenance says how many were which.

    `template="raw"` adds no markup. Exactly one BOS where the tokenizer uses one. Labels become
    columns as `labels.columns` says.

    `prefill` begins every answer: its tokens have the role `assistant` and are the prompt's last.
    `tools` and `arguments` (`enable_thinking=False`) go to the chat template. All three are in the
    provenance, as are those of the prompts themselves (`prefill_of_prompts` where they differ).
    What an assistant thinks has the role `thinking`, in a response with its tags, text or ids; tool
    calls and results have `tool`.

    Errors: `ValueError` for no prompts, one text in the place of a list, a repeated id, an unknown
    template, an argument that the template does not use, a text that is empty or becomes no token,
    as many responses as there are not prompts, two responses of one prompt, answers of a file that
    match no prompt or failed, ids that stand for other text, what the template cannot render
    (named), labels that no file can hold, ids that the model has no embedding for,
    and a row longer than the model's context.

    >>> runs = encode(model, ["Where is Paris?"])
    >>> dict(runs.sizes)
    {'prompt': 1, 'token': 34}
    """
    if template not in ("chat", "raw"):
        raise InputError(f"template={template!r} was asked for; there are 'chat' and 'raw'.")
    rows = [_with(prompt, prefill, tools) for prompt in _rows(prompts)]
    if template == "raw" and (arguments or any(prompt.tools for prompt in rows)):
        raise InputError(
            f"template='raw' was asked for, with {', '.join(arguments) or 'tools'} for a chat "
            "template. Leave these out, or use template='chat'."
        )
    tokenizer = model.tokenizer
    rows, said, given = answered(rows, responses)
    pairs = [prompt_ids(tokenizer, prompt, template, system, arguments) for prompt in rows]
    answers = [
        response_ids(tokenizer, prompt, one, ids, template, system, arguments)
        for prompt, one, (ids, _) in zip(rows, said, pairs, strict=True)
    ]
    _refuse_unfit(model, rows, [[*p, *a] for (p, _), (a, _) in zip(pairs, answers, strict=True)])
    made_with = {
        "tokenizer": tokenizer_hash(tokenizer),
        "vocabulary": vocabulary_hash(tokenizer),
        "template": chat_template.template_hash(tokenizer, template),
        "system": system,
        "prompts": digest([_recorded(p, system) for p in rows]),
        "text": given or ("given" if any(one.text for one in said) else None),
        **_shared("prefill", {prompt.id: prompt.prefill for prompt in rows}),
        **_shared("tools", {prompt.id: [dict(one) for one in prompt.tools] for prompt in rows}),
        **({"template_arguments": arguments} if arguments else {}),
    }
    return assemble(tokenizer, rows, pairs, answers, made_with)


def _with(prompt: Prompt, prefill: str, tools: Sequence[Mapping[str, Any]]) -> Prompt:
    """A prompt with what is given for all of them."""
    given: dict[str, Any] = {"prefill": prefill, "tools": tuple(tools)}
    twice = [name for name, value in given.items() if value and getattr(prompt, name)]
    if twice:
        raise InputError(
            f"{twice[0]}= was given for all prompts, and the prompt {prompt.id!r} has its own. "
            "Leave one of them out."
        )
    return replace(prompt, **{name: value for name, value in given.items() if value})


def _shared(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What all rows have, under its name; else each value with the prompts that have it."""
    by_value: dict[str, tuple[Any, list[str]]] = {}
    for prompt, value in values.items():
        by_value.setdefault(repr(value), (value, []))[1].append(prompt)
    there = [{name: value, "prompts": ids} for value, ids in by_value.values() if value]
    if there and len(by_value) == 1:
        return {name: there[0][name]}
    return {f"{name}_of_prompts": there} if there else {}


def _recorded(prompt: Prompt, system: str | None) -> tuple[Any, ...]:
    more = {"prefill": prompt.prefill, "tools": [dict(one) for one in prompt.tools]}
    more = {name: value for name, value in more.items() if value}
    return (prompt.id, prompt.conversation(system), *([more] if more else []))


def assemble(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    prompt_rows: Sequence[Row],
    response_rows: Sequence[Row],
    made_with: Mapping[str, Any],
) -> xr.Dataset:
    """The transcripts Dataset of (ids, roles) rows for prompts and responses."""
    before = max(len(ids) for ids, _ in prompt_rows)
    after = max(len(ids) for ids, _ in response_rows)
    ids = np.full((len(prompts), before + after), -1, np.int32)
    words = {role for _, row in (*prompt_rows, *response_rows) for role in row}
    roles = np.full(ids.shape, "pad", f"U{max(map(len, words | {'assistant'}))}")
    for n, ((p, p_roles), (r, r_roles)) in enumerate(zip(prompt_rows, response_rows, strict=True)):
        real = slice(before - len(p), before + len(r))
        ids[n, real], roles[n, real] = [*p, *r], [*p_roles, *r_roles]
    labels = columns([prompt.id for prompt in prompts], [prompt.labels for prompt in prompts])
    dataset = xr.Dataset(
        {
            "token_id": (("prompt", "token"), ids),
            "text": ("prompt", [_storable(prompt.conversation()[-1][1]) for prompt in prompts]),
            "response": ("prompt", [_plain_text(tokenizer, ids) for ids, _ in response_rows]),
        },
        coords={
            "prompt": [prompt.id for prompt in prompts],
            "token": np.arange(-before, after, dtype=np.int32),
            "role": (("prompt", "token"), roles),
            "token_text": (("prompt", "token"), token_texts(tokenizer, ids)),
            "prompt_length": ("prompt", np.array([len(p) for p, _ in prompt_rows], np.int32)),
            "group": ("prompt", [prompt.group or prompt.id for prompt in prompts]),
            **{name: ("prompt", column) for name, column in labels.items()},
        },
    )
    return stamp(dataset, {**made_with, "ids": ids_hash(dataset)})


def ids_hash(transcripts: xr.Dataset) -> str:
    """A hash of every row's id and token ids."""
    ids = transcripts.token_id.transpose("prompt", "token").values
    return digest(
        [(str(p), r[r >= 0].tolist()) for p, r in zip(ids_of(transcripts), ids, strict=True)]
    )


def ids_of(transcripts: xr.Dataset | xr.DataArray) -> list[str]:
    """The prompt ids, as plain strings."""
    return [str(prompt) for prompt in transcripts["prompt"].values]


def own_names(row: str) -> list[str]:
    """What a row may be known by: its id, and that of the prompt that it is a sample or sweep of.

    >>> own_names("a/0@2#1")
    ['a/0@2#1', 'a/0@2', 'a/0']
    """
    names = [row]
    for mark in ("#", "@"):
        stem, found, number = names[-1].rpartition(mark)
        names += [stem] if found and number.isdigit() else []
    return names


def token_texts(tokenizer: Any, ids: np.ndarray) -> np.ndarray:
    """The text of each id within a text, escaped so that it shows as one word; empty in holes.

    A tokenizer that drops the space in front of a whole text (Llama 2, Mistral) keeps it here.
    """
    unique, inverse = np.unique(ids, return_inverse=True)
    before = tokenizer.encode("a", add_special_tokens=False)[-1:]
    first = tokenizer.decode(before)

    def behind(one: int) -> str:
        both = tokenizer.decode([*before, one])
        return both.removeprefix(first) if both.startswith(first) else tokenizer.decode([one])

    texts = ["" if i < 0 else _visible(behind(int(i))) for i in unique]
    return np.array(texts, dtype=np.str_)[inverse].reshape(ids.shape)


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each id adds to the text of those before it: joined, they are that text.

    A character whose bytes several ids share belongs to the last of them; one that is left
    unfinished at the end belongs to none.

    >>> pieces(tokenizer, tokenizer("Tea ☕ now", add_special_tokens=False)["input_ids"])
    ['Te', 'a', ' ', '', '☕', ' now']
    """
    given = list(map(int, ids))
    whole = tokenizer.decode(given)
    apart = [tokenizer.decode([one]) for one in given]
    if "".join(apart) == whole and "\ufffd" not in whole:
        return apart
    # an unfinished character shows as U+FFFD and has no place yet
    texts = [tokenizer.decode(given[: n + 1]).rstrip("\ufffd") for n in range(len(given))]
    ends = np.maximum.accumulate([0, *map(len, texts)]).tolist()
    return [texts[-1][begin:end] for begin, end in itertools.pairwise(ends)]


def subset(transcripts: xr.Dataset, **indexers: Any) -> xr.Dataset:
    """`transcripts.sel(**indexers)` with its hash of ids made anew."""
    chosen = transcripts.sel(**indexers)
    return stamp(chosen, {**read(chosen), "ids": ids_hash(chosen)})


def _rows(prompts: Sequence[Any]) -> list[Prompt]:
    if isinstance(prompts, str | Prompt | Mapping):
        raise InputError(
            f"encode was given {str(prompts)[:60]!r}, a single {type(prompts).__name__}; it takes "
            "a list of texts and Prompts. Put it into a list: [prompt]."
        )
    rows = []
    for n, prompt in enumerate(prompts):
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], Mapping):
            prompt = Prompt(f"text/{n}", messages=prompt)
        if not isinstance(prompt, str | Prompt):
            raise InputError(
                f"encode was given {str(prompt)[:60]!r} as prompt {n}, a {type(prompt).__name__}; "
                "give a text, or tk.Prompt(id, messages=[…]) for a conversation."
            )
        rows.append(prompt if isinstance(prompt, Prompt) else Prompt(f"text/{n}", text=prompt))
    if not rows:
        raise InputError("encode was given no prompts; give at least one.")
    refuse_duplicates([prompt.id for prompt in rows], "the prompts")
    return rows


def _plain_text(tokenizer: Any, ids: list[int]) -> str:
    return _storable(tokenizer.decode(ids, skip_special_tokens=True))


def _storable(text: str) -> str:
    return text.replace("\0", "\\0")  # a netCDF string ends at NUL


def _visible(text: str) -> str:
    for raw, shown in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(raw, shown)
    return _storable(text)


def _refuse_unfit(model: Any, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]]) -> None:
    limit, rows = context_length(model), model._module.get_input_embeddings().weight.shape[0]
    for prompt, row in zip(prompts, ids, strict=True):
        if len(row) > limit:
            raise InputError(
                f"The prompt {prompt.id!r} has {len(row)} tokens; this model's context holds "
                f"{limit}. Shorten it or leave it out."
            )
        if max(row) >= rows:
            raise InputError(
                f"The prompt {prompt.id!r} has the token {model.tokenizer.decode([max(row)])!r} of "
                f"id {max(row)}; this model embeds the ids up to {rows - 1}. Load the tokenizer "
                "that belongs to it, or a checkpoint whose embedding was resized."
            )


def context_length(model: Any) -> int:
    """The number of positions that the model was built for."""
    config = model._module.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "n_ctx"):
        if (getattr(text, name, None) or 0) > 0:  # XLNet says −1: any length
            return int(getattr(text, name))
    return 1 << 30


def row_hashes(transcripts: xr.Dataset) -> dict[str, str]:
    """A hash of each row's token ids, by prompt id."""
    ids = transcripts.token_id.transpose("prompt", "token").values
    rows = zip(ids_of(transcripts), ids, strict=True)
    return {name: digest(row[row >= 0].tolist())[:BRIEF] for name, row in rows}
