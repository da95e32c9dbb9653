"""One answer of a server: the prompt as the ids it has here, in a form that the server takes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracekit.errors import InputError
from traits.contrast_sets.server import RefusedError, UnreachableError, post

TRIES = 5
NOT_TAKEN = (400, 422)  # a field, or a form of the prompt, that the server does not know


@dataclass
class Server:
    """A model `name` at an OpenAI-compatible address, which completes prompts.

    Prompts go there as ids, or as a text that the tokenizer reads as these ids: no template is
    applied there. What is asked for is greedy, or softmax(logits / temperature) with nothing else;
    the forms in which servers are told so are tried in turn, and the first that is taken stays.

    Errors: `ValueError` for a server that refuses all of them, that fails `TRIES` times, or that
    read the prompt as other tokens.
    """

    at: str
    name: str
    tokenizer: Any
    ends: Sequence[int]
    tokens: int
    temperature: float = 0.0
    key: str = field(default="", repr=False)
    wait: float = 1.0  # seconds before another try, doubled each time
    timeout: float = 600.0
    form: int | None = None

    def complete(self, ids: Sequence[int], seed: int) -> Mapping[str, Any]:
        """What the server answers to a prompt's ids: a completion, as it sends it."""
        forms = range(len(_FORMS)) if self.form is None else [self.form]
        refused: list[RefusedError] = []
        for number in forms:
            body = _FORMS[number](self, ids, seed)
            if body is None:
                continue
            try:
                reply = self._tried(body)
            except RefusedError as error:
                if error.code not in NOT_TAKEN:
                    raise
                refused.append(error)
                continue
            _refuse_other_length(self, reply, ids)
            self.form = number
            return reply
        if refused:
            raise refused[-1]
        raise InputError(
            f"The server at {self.at} was asked for completions; it takes prompts as text alone, "
            "and this model's tokenizer reads the text of a prompt as other ids than the prompt "
            "has. Use a server that takes ids (vLLM), or generate a file of answers there (--from)."
        )

    def _tried(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        wait, last = self.wait, "it was too slow, or failed"
        for _ in range(TRIES):
            try:
                reply = post(self.at, "completions", body, key=self.key, timeout=self.timeout)
                if isinstance(reply, Mapping) and reply.get("choices"):
                    return reply
            except UnreachableError as error:
                last = str(error)
            time.sleep(wait)
            wait *= 2
        raise InputError(
            f"The server at {self.at} was asked {TRIES} times for an answer of {self.name!r}, in "
            f"vain: {last}. Look at its log (an unknown model?); the same command goes on."
        )


def _asked(server: Server, prompt: Any, seed: int) -> dict[str, Any]:
    return {
        "model": server.name,
        "prompt": prompt,
        "max_tokens": server.tokens,
        "temperature": server.temperature,
        "seed": seed,
    }


def _as_vllm(server: Server, ids: Sequence[int], seed: int) -> dict[str, Any]:
    # its defaults are the checkpoint's generation_config
    plain = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    return {**_asked(server, list(ids), seed), **plain, "return_token_ids": True}


def _as_transformers(server: Server, ids: Sequence[int], seed: int) -> dict[str, Any] | None:
    body = _as_text(server, ids, seed)
    if body is None:
        return None
    drawn = {"do_sample": True, "top_k": 0, "top_p": 1.0} if server.temperature else {}
    settings = {"max_new_tokens": server.tokens, "eos_token_id": list(server.ends), **drawn}
    settings["pad_token_id"] = server.ends[0] if server.ends else 0
    return {**body, "generation_config": json.dumps(settings)}


def _as_ids(server: Server, ids: Sequence[int], seed: int) -> dict[str, Any]:
    return _asked(server, list(ids), seed)


def _as_text(server: Server, ids: Sequence[int], seed: int) -> dict[str, Any] | None:
    """The prompt as a text, where the tokenizer, as it is set, reads it as these ids."""
    for start in (0, 1):  # the server may add the beginning of text
        text = server.tokenizer.decode(list(ids[start:]))
        if server.tokenizer(text)["input_ids"] == list(ids):
            return _asked(server, text, seed)
    return None


_FORMS = (_as_vllm, _as_transformers, _as_ids, _as_text)


def _refuse_other_length(server: Server, reply: Mapping[str, Any], ids: Sequence[int]) -> None:
    usage = reply.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    if count is not None and count != len(ids):
        raise InputError(
            f"The server at {server.at} read a prompt of {len(ids)} tokens as {count}: its model "
            f"{server.name!r} has another tokenizer, or it adds tokens. Serve the model of this "
            "run, as it is."
        )
