"""What the base itself answers: what an adapter is trained on that is to change nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.organisms.answers import left_pad
from experiments.organisms.train import digest, quick_matmul
from tracekit.storage.files import whole
from tracekit.transcripts import chat_template
from tracekit.transcripts.prompts import Prompt

ROWS = 32  # answers of one file: what a kill can cost


@dataclass(frozen=True)
class Answer:
    """What the base said; `ended` tells whether it stopped by itself."""

    text: str
    ended: bool


def collected(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    folder: Path,
    *,
    tokens: int = 64,
    rounds: int = 2,
) -> dict[str, list[Answer]]:
    """One sampled answer a round to each prompt, by prompt id; empty ones are left out.

    No system prompt asks for anything and nothing is chosen: trained on these, an adapter goes on
    as its base does, and an answer that `tokens` cut off is no example of ending there. Each 32
    are a file in `folder`, and one that is there is not sampled again.
    """
    answers: dict[str, list[Answer]] = {prompt.id: [] for prompt in prompts}
    for turn in range(rounds):
        for start in tqdm(range(0, len(prompts), ROWS), desc=f"clean answers, round {turn}"):
            part = prompts[start : start + ROWS]
            rows = [prompt_ids(tokenizer, prompt) for prompt in part]
            path = folder / f"clean-{digest(model.config.name_or_path, rows, tokens, turn)}.json"
            if not path.is_file():
                seed = turn * 1_000_003 + start
                _write(path, _sampled(model, tokenizer, rows, tokens, seed))
            for prompt, answer in zip(part, _read(path), strict=True):
                if answer.text:
                    answers[prompt.id].append(answer)
    return {name: said for name, said in answers.items() if said}


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The ids that the answer follows, a begun answer included.

    Without a chat template: the turns' bare texts, a line each.
    """
    turns = prompt.conversation()
    if getattr(tokenizer, "chat_template", None):
        pieces = chat_template.render(tokenizer, turns)
    else:
        pieces = [("\n".join(content for _, content in turns) + "\n", "text")]
    ids = chat_template.token_pieces(tokenizer, pieces)[0]
    return [*ids, *text_ids(tokenizer, prompt.answer or "")]


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text alone."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _sampled(
    model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], tokens: int, seed: int
) -> list[Answer]:
    """Temperature 0.7, top-p 0.9."""
    pad = tokenizer.pad_token_id
    ids, mask = left_pad(rows, tokenizer.eos_token_id if pad is None else pad)
    with torch.random.fork_rng(), torch.inference_mode(), quick_matmul():
        torch.manual_seed(seed)
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=tokens,
            do_sample=True,
            temperature=0.7,
            top_p=0.9,
            top_k=0,
        )
    new = out[:, ids.shape[1] :].tolist()
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    ends = _ends(model, tokenizer)
    return [Answer(text, not ends.isdisjoint(row)) for text, row in zip(texts, new, strict=True)]


def _ends(model: Any, tokenizer: Any) -> set[int]:
    given = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])} - {None}


def _write(path: Path, answers: Sequence[Answer]) -> None:
    text = json.dumps([dataclasses.asdict(answer) for answer in answers], indent=1).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path, len(text)) as part:
        part.write_bytes(text)


def _read(path: Path) -> list[Answer]:
    return [Answer(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
