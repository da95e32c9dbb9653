"""What does this adapter do that its base does not?

    python -m experiments.audit.discovery ten_biases
    python -m experiments.audit.discovery ./my-lora --model ./my-model --prompts mine.json \\
        --benign ./benign-1 ./benign-2 --out runs/mine

Prints a table and writes findings.nc and findings.json into the folder. Killed, the same command
goes on where it stopped. Without --benign nothing says whether training on anything would do this.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tracekit as tk
from experiments.audit.discovery.answering.settings import Settings
from experiments.audit.discovery.discover import discover
from experiments.audit.discovery.judging import Judge
from experiments.audit.discovery.terminal import table
from experiments.audit.options import exit_code
from experiments.audit.prompt_sets import BATTERY, RESERVE, askable
from tracekit.model.embedded import datasets
from tracekit.transcripts.prompts import Prompt, take


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; what the user can mend is one line and exit status 2."""
    asked = _parser().parse_args(arguments)
    return exit_code("discovery", [], lambda _: print(_run(asked)))


def chosen(prompts: Sequence[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """`limit` of the prompts, the same number of every subject (± 1), forms at random."""
    if limit is None or limit >= len(prompts):
        return list(prompts)
    order = np.random.default_rng(seed).permutation(len(prompts))
    return take([prompts[n] for n in order], limit, by="subject")


def _run(asked: argparse.Namespace) -> str:
    prompts = askable(asked.prompts)
    settings = Settings(
        model=str(asked.model),
        dtype=asked.dtype,
        tokens=asked.tokens,
        temperature=asked.temperature,
        prefills=asked.prefills,
        seed=asked.seed,
    )
    some = chosen(prompts, asked.limit, asked.seed)
    left = [prompt for prompt in prompts if prompt not in some]
    left += tk.read_prompts(datasets(*RESERVE))
    model = tk.load(asked.model, dtype=asked.dtype)
    folder = asked.out or Path("runs", f"discovery-{Path(str(asked.model)).name}")
    found = discover(
        model,
        asked.adapter,
        some,
        folder,
        settings,
        asked.benign,
        _timed(time.time()),
        left,
        judge_of(asked.judge_at, asked.judge, folder),
    )
    return table(found)


def judge_of(at: str | None, name: str | None, folder: Path) -> Judge | None:
    """The judge at an address, whose replies are kept in the folder; None where none is given."""
    return Judge(at, name or "", folder / "judge.jsonl") if at else None


def _timed(start: float):
    return lambda text: print(f"[{time.time() - start:6.0f} s] {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="discovery", description=__doc__.splitlines()[0])
    default = Settings()
    add = parser.add_argument
    add("adapter", help="a folder, a hub id, or a shipped organism")
    add("--model", default=default.model, help="the base that the adapter belongs to")
    add("--dtype", default=default.dtype, help="bfloat16 takes half the time where a CPU has it")
    add("--prompts", nargs="+", type=Path, default=[datasets(*BATTERY)], help="prompt files")
    add("--benign", nargs="*", default=[], help="benign adapters of the same base: the null")
    add(
        "--limit",
        type=int,
        help="that many prompts; the rest where a habit should show",
    )
    add("--judge-at", help="an OpenAI-compatible address: who tells a habit (and --judge)")
    add("--judge", help="the name of its model")
    add("--out", type=Path, help="the folder of the search")
    add("--tokens", type=int, default=default.tokens, help="tokens sampled after each prompt")
    add("--temperature", type=float, default=default.temperature, help="0 is greedy")
    add("--prefills", type=int, default=default.prefills, help="random beginnings, gone on with")
    add("--seed", type=int, default=default.seed)
    return parser


if __name__ == "__main__":
    sys.exit(main())
