"""What a capture would need of memory, disk and time, from configurations and counts alone."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import tracekit as tk
from experiments.audit.options import count, positive
from experiments.audit.plan.estimate import HELD, STORED, Work, costs, memory
from experiments.audit.plan.planning import CHARACTERS, SPARE, TEMPLATE, gigabytes
from experiments.audit.plan.shapes import rank, shape
from tracekit.errors import InputError

# an H100's 16-bit FLOP/s and bytes/s, and the share of the first that is reached
PEAK, BANDWIDTH, REACHED = 989e12, 3.35e12, 0.4


def add_plan(parser: argparse.ArgumentParser) -> None:
    """`--plan`, and on what."""
    parser.add_argument(
        "--plan", action="store_true", help="only say what it would need; nothing is loaded"
    )
    parser.add_argument(
        "--gpu-memory", type=positive, default=80, help="GB of a card, for --plan (default: 80)"
    )
    parser.add_argument("--cards", type=count, default=1, help="of them, for --plan (default: 1)")


def planned(options: argparse.Namespace, prompts: Sequence[tk.Prompt]) -> str:
    """The plan of a capture as text: counts, memory beside the cards', disk, hours of an H100.

    Tokens are estimated: 4 characters each, and a chat template's 35.

    Errors: `FileNotFoundError` for a model whose configuration is nowhere; `ValueError` for layers
    that it does not have, and for a dtype that cannot be planned.
    """
    made = shape(options.model)
    wanted = options.layers or list(range(made.layers))
    dtype = "bfloat16" if options.dtype == "auto" else options.dtype
    if dtype not in HELD:
        raise InputError(f"dtype={dtype!r} cannot be planned; there are {', '.join(HELD)}.")
    if max(wanted) >= made.layers:
        raise InputError(
            f"The layer {max(wanted)} was asked for; {options.model} has blocks 0 to "
            f"{made.layers - 1}. Give --layers within these."
        )
    work, kept = _work(options, prompts, len(wanted))
    there, wide = options.gpu_memory * 1e9 * options.cards, rank(options.adapter or "")
    held = memory(made, wide, dtype, work, there, options.cards)
    values = kept * len(wanted) * made.hidden
    found = costs(made, dtype, work, held, PEAK * REACHED, BANDWIDTH)
    spent = [found[name] for name in ("respond", "capture")]
    seconds, flops = sum(cost.seconds for cost in spent), sum(cost.flops for cost in spent)
    fits = "fits" if held.peak <= SPARE * there else "does not fit"
    return "\n".join(
        [
            f"prompts: {work.rows:,} of about {work.asked} tokens, {work.said} of response",
            f"kept: {kept:,} places at {len(wanted)} layers of {made.hidden}, "
            f"about {gigabytes(values * STORED)} on disk in 16 bits",
            f"memory: {gigabytes(held.peak)} as {dtype} of {options.cards} × "
            f"{options.gpu_memory:g} GB: {fits}",
            f"time: {flops / 1e15:,.1f} PFLOP, {_duration(seconds)} of an H100, loading apart",
        ]
    )


def _work(
    options: argparse.Namespace, prompts: Sequence[tk.Prompt], layers: int
) -> tuple[Work, int]:
    """The text that goes through the model, and at how many places of it values are kept."""
    turns = [prompt.conversation() for prompt in prompts]
    answers = [len(prompt.answer or "") / CHARACTERS for prompt in prompts]
    asked = sum(len(text) for turn in turns for _, text in turn) / CHARACTERS / len(turns)
    said = options.generate or math.ceil(sum(answers) / len(answers))
    work = Work(
        rows=len(turns),
        asked=math.ceil(asked) + TEMPLATE,
        said=said,
        stories=0,
        story=0,
        continued=0,
        texts=1 if options.generate else 0,
        arms=1,
        kept=1,
        again=0,
        window=layers,
        traits=0,
    )
    if options.reduce:
        return work, work.rows
    # the last prompt token, which says the first of the response, is kept with it
    each = work.asked + said if options.tokens == "all" else 1 + said
    return work, work.rows * each


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 3600:.1f} hours"
