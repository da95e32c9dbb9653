"""What inspect_ai asks for, in tracekit's words: a prompt, and how it is answered."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig
from inspect_ai.tool import ToolInfo

import tracekit as tk

# what is done here; the rest of what a request may say is inspect_ai's own, or refused
DONE = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop_seqs",
    "num_choices",
    "logprobs",
    "extra_body",
)
OF_INSPECT = (
    "max_retries",
    "timeout",
    "attempt_timeout",
    "stream_idle_timeout",
    "max_connections",
    "adaptive_connections",
    "system_message",
    "max_tool_output",
    "parallel_tool_calls",
    "internal_tools",
    "cache",
    "cache_prompt",
    "fail_on_refusal",
    "reasoning_history",
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Asked:
    """One request: its prompt, how its tokens are chosen, and where its answer is cut."""

    prompt: tk.Prompt
    max_tokens: int
    temperature: float
    samples: int
    seed: int | None
    # JSON of what else changes the choice of a token
    decoding: str
    stops: tuple[str, ...]
    logprobs: bool

    @property
    def together(self) -> tuple[Any, ...]:
        """Equal for requests that may share a batch: one that is seeded is drawn by itself."""
        alone = None if self.seed is None or not self.temperature else self.prompt.id
        settings = self.max_tokens, self.temperature, self.samples, self.decoding, self.logprobs
        return *settings, alone


def ask(
    messages: Sequence[ChatMessage], tools: Sequence[ToolInfo], config: GenerateConfig
) -> Asked:
    """A request of inspect_ai; a last message of the assistant is how the answer begins.

    Errors: `ValueError` naming what cannot be done: tools, images, settings of other engines.
    """
    _refuse(tools, config)
    given: dict[str, Any] = {"top_p": config.top_p, "top_k": config.top_k}
    decoding = {name: value for name, value in given.items() if value is not None}
    return Asked(
        prompt=_prompt(messages),
        max_tokens=100 if config.max_tokens is None else config.max_tokens,
        temperature=config.temperature or 0.0,
        samples=config.num_choices or 1,
        seed=config.seed,
        decoding=json.dumps({**decoding, **(config.extra_body or {})}, sort_keys=True),
        stops=tuple(config.stop_seqs or ()),
        logprobs=bool(config.logprobs),
    )


def _refuse(tools: Sequence[ToolInfo], config: GenerateConfig) -> None:
    if tools:
        raise tk.InputError(
            f"The tools {', '.join(one.name for one in tools)} were asked for; a model of "
            "tracekit answers in text and calls none. Use a task without tools."
        )
    asked = config.model_dump(exclude_none=True)
    more = [name for name, value in asked.items() if name not in (*DONE, *OF_INSPECT) and value]
    if more:
        raise tk.InputError(
            f"{', '.join(f'{name}={asked[name]!r}' for name in more)} was asked for; a model of "
            f"tracekit knows {', '.join(DONE)} (extra_body: what else tk.generate takes, such as "
            "repetition_penalty). Leave it out."
        )


def _prompt(messages: Sequence[ChatMessage]) -> tk.Prompt:
    turns = [_turn(message) for message in messages]
    prefill = ""
    if turns and turns[-1]["role"] == "assistant":
        prefill = messages[-1].text
        turns = turns[:-1]
    # not the sample's own id, which a provider is not told
    return tk.Prompt(f"inspect/{next(_numbers)}", messages=turns, prefill=prefill)


def _turn(message: ChatMessage) -> Mapping[str, Any]:
    if message.role == "tool" or getattr(message, "tool_calls", None):
        raise tk.InputError(
            "A conversation with calls of tools was given; a model of tracekit reads and calls "
            "none. Use a task without tools."
        )
    content: Any = message.content
    if not isinstance(content, str):
        content = [part.model_dump(exclude_none=True) for part in content]
    return {"role": message.role, "content": content}
