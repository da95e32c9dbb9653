"""The token ids of one prompt and of one response, each id with the role of what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracekit.errors import InputError
from tracekit.transcripts import chat_template
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.messages import CALLS
from tracekit.transcripts.template_marks import spoken_pieces

Row = tuple[list[int], list[str]]


def prompt_ids(
    tokenizer: Any, prompt: Prompt, template: str, system: str | None, arguments: Mapping[str, Any]
) -> Row:
    """Ids and roles of a prompt, ready for its answer, as far as that is begun."""
    turns = prompt.conversation(system)
    # an empty system message is a wish: it keeps a template's default one out
    # and a turn that calls a tool may say nothing
    following = [*(role for role, _ in turns[1:]), ""][: len(turns)]
    spoken = [
        content
        for (role, content), after in zip(turns, following, strict=True)
        if role != "system" and (content or after != CALLS)
    ]
    answer = prompt.reply[-1][1] if prompt.reply else "none"
    if not spoken or not all(spoken) or not answer:
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
    pieces = (
        [(turns[0][1], "text")]
        if raw
        else chat_template.render(tokenizer, turns, _for_template(prompt, arguments))
    )
    ids, roles = chat_template.token_pieces(tokenizer, pieces)
    if not ids:
        raise InputError(_no_tokens(f"The prompt {prompt.id!r}", spoken[-1]))
    begun = list(tokenizer(prompt.prefill, add_special_tokens=False)["input_ids"])
    return [*ids, *begun], [*roles, *["text" if raw else "assistant"] * len(begun)]


def _for_template(prompt: Prompt, arguments: Mapping[str, Any]) -> dict[str, Any]:
    tools = {"tools": [dict(one) for one in prompt.tools]} if prompt.tools else {}
    return {**tools, **arguments}


def response_ids(
    tokenizer: Any,
    prompt: Prompt,
    text: str,
    template: str,
    system: str | None,
    arguments: Mapping[str, Any],
) -> Row:
    """Ids and roles of a response: of `text`, or of the turns that the prompt ends with."""
    name, raw = prompt.id, template == "raw"
    if len(prompt.reply) > 1:
        if raw or prompt.prefill:
            raise InputError(
                f"The prompt {name!r} is answered with thoughts or tool calls in fields of their "
                f"own, which {'template=raw' if raw else 'a prefill'} has no markup for. Write "
                "them into the content, as the model writes it."
            )
        options = _for_template(prompt, arguments)
        pieces = chat_template.render_reply(
            tokenizer, prompt.conversation(system), prompt.reply, options
        )
    else:
        pieces = [(text, "text")] if raw else spoken_pieces(text)
    ids, roles = chat_template.plain_pieces(tokenizer, pieces) if pieces else ([], [])
    if text and not ids:
        raise InputError(_no_tokens(f"The response to {name!r}", text))
    return ids, roles


def _no_tokens(what: str, text: str) -> str:
    return (
        f"{what} is {text[:40]!r}, which this model's tokenizer turns into no tokens. "
        "Give it a text of other characters, or leave it out."
    )
