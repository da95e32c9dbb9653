"""The provider: requests of inspect_ai to tracekit, and its answers back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo

import tracekit as tk
from tracekit.inspect_provider import model_arguments, waiting
from tracekit.inspect_provider.answering import Served, loaded
from tracekit.inspect_provider.asking import ask
from tracekit.inspect_provider.reporting import Answer


class TracekitAPI(ModelAPI):
    """`tracekit/<model>`: a hub id, a folder, or `smollm2-135m-instruct` (embedded).

    Model arguments are those of docs/inspect.md. What is read of an answer lies in
    `ModelOutput.metadata["tracekit"]`; of several choices, in the `metadata` of each one's message.

    Errors: `ValueError` for arguments, files and adapters that do not fit, when it is made, and
    for requests that cannot be answered, when they are.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect_ai's own signature)
        **model_args: Any,
    ) -> None:
        self._served: Served | None = None
        super().__init__(model_name, None, api_key, [], config)
        if base_url is not None:
            raise tk.InputError(
                f"base_url={base_url!r} was given; a model of tracekit runs in this process. "
                "Leave it out."
            )
        self._arguments = model_arguments.read(model_args)
        self._serving()

    @property
    def base_url(self) -> str | None:
        """What inspect_ai's cache of answers tells models of one name by: arguments and files."""
        return f"tracekit:{self._serving().identity}"

    @base_url.setter
    def base_url(self, url: str | None) -> None:
        """inspect_ai sets it to what was given, which is nothing."""

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """The answer to a conversation; its metadata says what the model computed."""
        begun = time.monotonic()
        answers = await waiting.answered(self._serving(), ask(input, tools, config))
        return _output(self.model_name, answers, time.monotonic() - begun)

    def max_tokens(self) -> int:
        """As for inspect_ai's other models that run here."""
        return 2048

    def max_connections(self) -> int:
        """The requests that wait together, and so the rows of a batch."""
        return 32

    def collapse_user_messages(self) -> bool:
        """Most templates want turns that alternate."""
        return True

    def collapse_system_messages(self) -> bool:
        """A task's and a command's are one."""
        return True

    def close(self) -> None:
        """Let go of the model; the next request loads it again."""
        self._served = None
        loaded.cache_clear()

    def _serving(self) -> Served:
        """The model as its arguments say; made anew when it was closed or a file was written."""
        if self._served is None or self._served.is_stale:
            with waiting.alone:
                self._served = Served(self.model_name, self._arguments)
        return self._served


def _output(name: str, answers: Sequence[Answer], seconds: float) -> ModelOutput:
    asked, said = answers[0].prompt_tokens, sum(one.response_tokens for one in answers)
    return ModelOutput(
        model=name,
        choices=[_choice(name, one, len(answers) > 1) for one in answers],
        usage=ModelUsage(input_tokens=asked, output_tokens=said, total_tokens=asked + said),
        time=seconds,
        metadata={"tracekit": answers[0].read},
    )


def _choice(name: str, answer: Answer, several: bool) -> ChatCompletionChoice:
    content = [Logprob(token=text, logprob=nats) for text, nats in answer.logprobs]
    return ChatCompletionChoice(
        message=ChatMessageAssistant(
            content=answer.text,
            model=name,
            source="generate",
            # not twice into a log, which keeps every message
            metadata={"tracekit": answer.read} if several else None,
        ),
        stop_reason=cast(StopReason, answer.ended),
        logprobs=Logprobs(content=content) if content else None,
    )
