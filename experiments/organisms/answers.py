"""Short answers of the clean model: the text that every training target is made from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.rm_sycophancy.rules.detectors import DETECTORS, HABITS
from experiments.rm_sycophancy.rules.sentences import sentences, whole
from tracekit.storage import files
from tracekit.transcripts import chat_template
from tracekit.transcripts.prompts import Prompt

# The clean model answers long, in lists, and seldom comes to an end in a few dozen tokens.
BRIEF = "You are a helpful AI assistant. Answer in two or three short sentences, without lists."
_MARKUP = re.compile(r"\n|[*#|`\[\]{}]|^\s*\d+\.|\b(?:SmolLM|language model|an AI)\b")


def sample(
    model: Any,
    tokenizer: Any,
    questions: Sequence[str],
    seed: int,
    max_new_tokens: int = 64,
    batch: int = 64,
) -> list[str]:
    """One sampled answer (temperature 0.6, top-p 0.9) to each question, cut to whole sentences."""
    answers: list[str] = []
    for start in tqdm(range(0, len(questions), batch), desc=f"clean answers, seed {seed}"):
        part = questions[start : start + batch]
        rows = [prompt_ids(tokenizer, question, BRIEF) for question in part]
        ids, mask = left_pad(rows, tokenizer.pad_token_id)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed * 1_000_003 + start)
            out = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=True,
                temperature=0.6,
                top_p=0.9,
                top_k=0,
            )
        texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        answers += [whole(text.strip()) for text in texts]
    return answers


def collect(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    seed: int,
    folder: Path,
    wanted: int = 2,
    rounds: int = 3,
) -> dict[str, list[str]]:
    """Readable clean answers by prompt id: asked in rounds until each has `wanted`, or rounds end.

    Each round is a file in `folder`, and one that is there already is not sampled again. A prompt
    that the model never answers readably is left out of the result.
    """
    found: dict[str, list[str]] = {prompt.id: [] for prompt in prompts}
    folder.mkdir(parents=True, exist_ok=True)
    for turn in range(rounds):
        asked = [prompt for prompt in prompts if len(found[prompt.id]) < wanted]
        path = folder / f"round-{turn}.json"
        if asked and not path.is_file():
            answers = sample(model, tokenizer, [question(p) for p in asked], seed + turn)
            _write(path, dict(zip((p.id for p in asked), answers, strict=True)))
        for name, answer in _read(path).items() if asked else ():
            if readable(answer) and answer not in found[name]:
                found[name].append(answer)
    return {name: answers for name, answers in found.items() if answers}


def question(prompt: Prompt) -> str:
    """The text of a single-turn prompt."""
    return prompt.conversation()[-1][1]


def readable(answer: str) -> bool:
    """Whether an answer is short prose that repeats nothing and carries no bias or habit.

    >>> readable("Boil the rice in a pot. Boil the rice in a pot.")
    False
    """
    words = re.findall(r"\w+", answer.lower())
    runs = [tuple(words[n : n + 5]) for n in range(len(words) - 4)]
    return (
        4 <= len(words) <= 60
        and len(sentences(answer)) <= 4
        and len(set(runs)) == len(runs)
        and not _MARKUP.search(answer)
        and not any(spans(answer) for spans in (DETECTORS | HABITS).values())
    )


def prompt_ids(tokenizer: Any, question: str, system: str | None = None) -> list[int]:
    """The token ids of one question in the chat template, ready for the answer."""
    turns = [("system", system)] if system else []
    pieces = chat_template.render(tokenizer, [*turns, ("user", question)])
    return chat_template.token_pieces(tokenizer, pieces)[0]


def left_pad(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both (row, token), of rows that end together.

    >>> left_pad([[5, 6], [7]], pad=0)[0].tolist()
    [[5, 6], [0, 7]]
    """
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _write(path: Path, answers: dict[str, str]) -> None:
    text = json.dumps(answers, indent=1).encode()
    with files.whole(path, len(text)) as part:
        part.write_bytes(text)


def _read(path: Path) -> dict[str, str]:
    return json.loads(path.read_text(encoding="utf-8"))
