"""What rows begin with, read once (`share_prompts=True`), against whole rows of the same capture.

    python -m experiments.benchmarks.measuring.beginnings [--model MODEL] [--rounds 5]

Prompts of the battery under the template's own system message and under a long one, with one
answer each and with four (texts of the battery again); means of answers at all layers are kept.
Arms in one process, paired by round, in another order each round. Tokens computed are the columns
× rows that go through the embedding, padding included. How far values are apart is said beside: the
largest difference over the largest value.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import tracekit as tk
from experiments.benchmarks.measuring import paired
from tracekit.model.embedded import datasets

RESULTS = Path(__file__).parents[1] / "results"
SHARED, WHOLE = "shared", "whole"
HEAD = "| system message | answers a prompt | rows | tokens, whole | shared | s, whole | shared |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both ways for each kind of rows and write `results/beginnings.md`."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = tk.load(options.model)
    lines = [f"{HEAD} shared / whole | apart |", "| --- " * 9 + "|"]
    for tokens in (0, options.system):
        for answers in (1, 4):
            runs = transcripts(model, options.prompts, tokens, answers)
            lines.append(row(model, runs, answers, options.rounds))
    closing = f"Medians of {options.rounds} paired rounds; {options.model}."
    paired.report([*lines, "", closing], "beginnings", options.out)


def transcripts(model: Any, count: int, system: int, answers: int) -> xr.Dataset:
    """Prompts of the battery, each with so many answers, under a system message of `system` tokens.

    0 leaves the template's own.
    """
    texts = [prompt.conversation()[-1][1] for prompt in tk.read_prompts(_battery())]
    ids = model.tokenizer(" ".join(texts), add_special_tokens=False)["input_ids"][:system]
    said = [{"role": "system", "content": model.tokenizer.decode(ids)}] * bool(system)
    rows = [
        tk.Prompt(f"{n}#{k}", messages=[*said, {"role": "user", "content": texts[n]}])
        for n in range(count)
        for k in range(answers)
    ]
    # four texts an answer: some sixty tokens
    parts = [" ".join(texts[n : n + 4]) for n in range(count, count + len(rows))]
    return tk.encode(model, rows, responses=parts)


def row(model: Any, runs: xr.Dataset, answers: int, rounds: int) -> str:
    """A line of the table."""
    how: dict[str, Any] = {"tokens": slice(0, None), "reduce": "mean", "progress": False}
    arms = {
        name: partial(tk.capture, model, runs, share_prompts=name == SHARED, **how)
        for name in (WHOLE, SHARED)
    }
    tk.capture(model, runs.isel(prompt=[0]), share_prompts=True, **how)  # and its proofs
    made: dict[str, xr.DataArray] = {}
    computed: dict[str, int] = {}
    for name, arm in arms.items():
        with counted(model) as seen:
            made[name] = arm()
        computed[name] = sum(seen)
    found = paired.paired(arms, rounds)
    wall = {name: paired.median(found, name) for name in arms}
    apart = abs(made[SHARED].values - made[WHOLE].values).max() / abs(made[WHOLE].values).max()
    system = int((runs["role"].isel(prompt=0) == "system").sum())
    message = f"{system} tokens" if system else "of the template"
    return (
        f"| {message} | {answers} | {runs.sizes['prompt']} | {computed[WHOLE]:,} | "
        f"{computed[SHARED]:,} | {wall[WHOLE]:.2f} | {wall[SHARED]:.2f} | "
        f"{paired.ratio(found, SHARED, WHOLE):.2f} | {apart:.1e} |"
    )


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """The columns × rows of each forward of a model."""
    seen: list[int] = []
    embedding = model._module.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, given: seen.append(given[0].numel()))
    try:
        yield seen
    finally:
        hook.remove()


def _battery() -> Path:
    return datasets("prompts", "general_battery.json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", default="smollm2-135m-instruct")
    add("--prompts", type=int, default=24)
    add("--system", type=int, default=300, help="tokens of the long system message")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--out", type=Path, default=RESULTS, help="the folder of the table")
    return parser


if __name__ == "__main__":
    main()
