"""Prompts and transcripts: token ids with roles, labelled relative to the response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.identity import digest, tokenizer_hash, vocabulary_hash
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import chat_template
from tracekit.transcripts.labels import columns, require_text
from tracekit.transcripts.prompts import Prompt, refuse_duplicates

Row = tuple[list[int], list[str]]


def encode(
    model: Any,
    prompts: Sequence[Any],
    responses: Sequence[str] | None = None,
    template: str = "chat",
    system: str | None = None,
) -> xr.Dataset:
    """Token ids of prompts, with responses if given: a Dataset over (prompt, token).

    `prompts` are texts and `Prompt`s. The response is that of `responses`, or the assistant's
    turn that a prompt's messages end with. `token` counts from the first response token (−1 is
    the last prompt token); `token_id` is −1 in holes. Prompt and response are tokenised apart, so
    that a prompt's ids are always a strict prefix. `template="raw"` adds no markup. Exactly one
    BOS where the tokenizer uses one. Labels become columns as `labels.columns` says.

    Errors: `ValueError` for no prompts, one text in the place of a list, a repeated id, an unknown
    template, a text that is empty or becomes no token, as many responses as there are not prompts,
    two responses of one prompt, labels that no file can hold, ids that the model has no embedding
    for, and a row longer than the model's context.

    >>> runs = encode(model, ["Where is Paris?"])
    >>> dict(runs.sizes)
    {'prompt': 1, 'token': 34}
    """
    if template not in ("chat", "raw"):
        raise InputError(f"template={template!r} was asked for; there are 'chat' and 'raw'.")
    rows = _rows(prompts)
    said = _said(rows, responses)
    tokenizer = model.tokenizer
    pairs = [_prompt_ids(tokenizer, prompt, template, system) for prompt in rows]
    answers = [
        _response_ids(tokenizer, prompt.id, text, template)
        for prompt, text in zip(rows, said, strict=True)
    ]
    _refuse_unfit(model, rows, [[*p, *a] for (p, _), (a, _) in zip(pairs, answers, strict=True)])
    made_with = {
        "tokenizer": tokenizer_hash(tokenizer),
        "vocabulary": vocabulary_hash(tokenizer),
        "template": chat_template.template_hash(tokenizer, template),
        "system": system,
        "prompts": digest([(p.id, p.conversation(system)) for p in rows]),
        "text": "given" if responses is not None or any(said) else None,
    }
    return assemble(tokenizer, rows, pairs, answers, made_with)


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


def token_texts(tokenizer: Any, ids: np.ndarray) -> np.ndarray:
    """The text of each id, escaped so that it shows as one word; empty in holes."""
    unique, inverse = np.unique(ids, return_inverse=True)
    texts = ["" if i < 0 else _visible(tokenizer.decode([int(i)])) for i in unique]
    return np.array(texts, dtype=np.str_)[inverse].reshape(ids.shape)


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


def _said(rows: Sequence[Prompt], responses: Sequence[str] | None) -> list[str]:
    """The text of each prompt's response, empty where there is none."""
    if responses is None:
        return [prompt.answer or "" for prompt in rows]
    if isinstance(responses, str) or len(responses) != len(rows):
        count = "One text" if isinstance(responses, str) else str(len(responses))
        raise InputError(f"{count} responses for {len(rows)} prompts: give one each, in a list.")
    for prompt, response in zip(rows, responses, strict=True):
        if not isinstance(response, str):
            raise InputError(f"The response to {prompt.id!r} is {response!r}; it has to be text.")
        require_text(response, f"The response to {prompt.id!r}")
        if prompt.answer is not None:
            raise InputError(
                f"The prompt {prompt.id!r} ends with the assistant's turn "
                f"{prompt.answer[:40]!r}, which is its response, and responses= has another. "
                "Leave one of them out."
            )
    return list(responses)


def _prompt_ids(tokenizer: Any, prompt: Prompt, template: str, system: str | None) -> Row:
    turns = prompt.conversation(system)
    # an empty system message is a wish: it keeps a template's default one out
    spoken = [content for role, content in turns if role != "system"]
    if not spoken or not all(spoken) or prompt.answer == "":
        raise InputError(
            f"The prompt {prompt.id!r} has an empty text, or nothing before its answer; "
            "give it at least a word."
        )
    if template == "raw" and len(turns) > 1:
        raise InputError(
            f"The prompt {prompt.id!r} has {len(turns)} turns, which template='raw' cannot mark. "
            "Use template='chat', or one text."
        )
    raw = template == "raw"
    pieces = [(turns[0][1], "text")] if raw else chat_template.render(tokenizer, turns)
    ids, roles = chat_template.token_pieces(tokenizer, pieces)
    if not ids:
        raise InputError(_no_tokens(f"The prompt {prompt.id!r}", spoken[-1]))
    return ids, roles


def _response_ids(tokenizer: Any, name: str, text: str, template: str) -> Row:
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
    if text and not ids:
        raise InputError(_no_tokens(f"The response to {name!r}", text))
    return ids, ["text" if template == "raw" else "assistant"] * len(ids)


def _no_tokens(what: str, text: str) -> str:
    return (
        f"{what} is {text[:40]!r}, which this model's tokenizer turns into no tokens. "
        "Give it a text of other characters, or leave it out."
    )


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
    return {name: digest(row[row >= 0].tolist())[:8] for name, row in rows}
