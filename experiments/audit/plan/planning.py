"""What a run will need, before anything is downloaded: memory, disk, hours, and whether it fits.

    python -m EXPERIMENT plan --preset llama-70b
    python -m EXPERIMENT plan --preset llama-70b-bf16 --cards 4 --gpu-memory 80

From configurations and counts alone. Token counts of prompts and stories are estimated from their
length (4 characters a token; 100 tokens for a set that is still on the hub).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.audit.experiment import Experiment, HubSet
from experiments.audit.options import WINDOW, Parser, count, number, positive, window
from experiments.audit.phases import arms as of_run
from experiments.audit.phases import questions
from experiments.audit.phases.response import SAMPLED
from experiments.audit.plan.estimate import HELD, Memory, Work, costs, disk, memory, search
from experiments.audit.plan.shapes import Shape, rank, shape
from experiments.audit.prompt_sets import read
from experiments.audit.settings.groups import Prompts, Settings
from experiments.audit.vectors.stories import axis_sets, construction_sets, placebo_sets
from tracekit.errors import InputError

CHARACTERS = 4  # of English text a token
TEMPLATE = 35  # tokens of a chat template with its default system message
SEARCH = "before it, the search for habits of `tracekit audit ADAPTER`"
SPARE = 0.95  # of a card's memory; the rest is fragmentation


@dataclass(frozen=True)
class Plan:
    """The shape, the work and the memory of one run; `card` and `cards` say on what."""

    settings: Settings
    shape: Shape
    rank: int
    dtype: str
    work: Work
    held: Memory
    card: float
    cards: int


def main(experiment: Experiment, arguments: Sequence[str], program: str = "") -> None:
    """Print the plan's tables and its verdict; `program` is how it was called.

    Errors: `ValueError` as for `plan`, and without a preset.
    """
    program = program or f"python -m {experiment.module} plan"
    options = command_line(program, experiment.shipped).parse_args(arguments)
    if options.preset is None:
        there = ", ".join(experiment.shipped)
        raise InputError(
            f"A plan was asked for without --preset; there are {there}. Give one of these, or a "
            "TOML file."
        )
    given = {name: value for name, value in vars(options).items() if value is not None}
    changes = {key: value for key, value in given.items() if key in _CHANGES}
    settings = experiment.preset(options.preset, changes)
    made = plan(settings, options.gpu_memory * 1e9, options.cards, hub=experiment.hub)
    print(
        "\n".join([*_shown(made), "", *_time(made, options), "", *_disk(made), "", verdict(made)])
    )


def plan(
    settings: Settings, card: float, cards: int = 1, gpu: bool = True, hub: HubSet | None = None
) -> Plan:
    """The plan of a preset on `cards` of `card` bytes each (`gpu=False`: main memory).

    Errors: `FileNotFoundError` for a model or adapter whose configuration is nowhere;
    `ValueError` for a dtype that cannot be planned and layers that the model does not have.

    >>> plan(settings, 80e9).shape.layers
    30
    """
    made = shape(settings.model.name, settings.model.revision)
    _refuse_layers(settings, made.layers)
    wide = max(rank(arm.adapter or "") for arm in settings.adapters.arms)
    dtype = settings.model.dtype
    dtype = dtype if dtype != "auto" else "bfloat16" if gpu else "float32"
    if dtype not in HELD:
        raise InputError(f"dtype={dtype!r} cannot be planned; there are {', '.join(HELD)}.")
    work = _work(settings, hub)
    held = memory(made, wide, dtype, work, card * cards, cards if gpu else 0)
    return Plan(settings, made, wide, dtype, work, held, card, cards)


def _refuse_layers(settings: Settings, blocks: int) -> None:
    low, high = settings.model.layers
    if high >= blocks:
        raise InputError(
            f"The layers {low} to {high} were asked for; {settings.model.name} has blocks 0 to "
            f"{blocks - 1}. Give --layers within these, such as {blocks // 2}-{3 * blocks // 4}."
        )


def fits(made: Plan) -> bool:
    """Whether the peak stays under the cards' memory, with a twentieth to spare."""
    return made.held.peak <= SPARE * made.card * made.cards


def verdict(made: Plan) -> str:
    """One line: fits or not, and which setting would."""
    peak, there = made.held.peak, made.card * made.cards
    if made.settings.model.remote == "ndif":
        return "verdict: nothing to fit here; the weights are on NDIF's machines."
    line = f"{made.dtype} needs {gigabytes(peak)} of {gigabytes(there)} ({SPARE:.0%} may be used)"
    if fits(made):
        return f"verdict: fits. {line}."
    return f"verdict: does not fit. {line}. {_would_fit(made)}"


def _would_fit(made: Plan) -> str:
    smaller = [name for name in ("int8", "nf4") if HELD[name] < HELD[made.dtype]]
    for dtype in smaller:
        other = _as(made, dtype)
        if fits(other):
            return f"--dtype {dtype} would fit ({gigabytes(other.held.peak)}), or {_cards(made)}."
    return f"What would fit: {_cards(made)}."


def _as(made: Plan, dtype: str) -> Plan:
    there = made.card * made.cards
    cards = made.cards if made.held.overhead else 0
    held = memory(made.shape, made.rank, dtype, made.work, there, cards)
    return replace(made, dtype=dtype, held=held)


def _cards(made: Plan) -> str:
    for cards in range(made.cards, 1025):
        held = memory(made.shape, made.rank, made.dtype, made.work, made.card * cards, cards)
        if held.peak <= SPARE * made.card * cards:
            return f"--cards {cards} of {gigabytes(made.card)} in {made.dtype}"
    return f"cards of more than {gigabytes(made.card)}"


def on_disk(made: Plan) -> float:
    """Bytes that the run folder will hold."""
    stored = disk(made.shape, made.rank, made.work, 0, 0)
    return sum(stored[n] for n in stored if n.startswith(("contrast", "proj", "traces, the")))


def _work(settings: Settings, hub: HubSet | None) -> Work:
    rows, asked = _prompts(settings.prompts, hub)
    stories = [
        side
        for contrast in (
            *settings.vectors.contrasts.values(),
            *construction_sets(settings),
            *placebo_sets(settings),
            *axis_sets(settings),
        )
        for sides in (contrast.positive, contrast.negative)
        for side in sides[: settings.vectors.pairs or None]
    ]
    answers = {name: settings.answers.samples if name in SAMPLED else 1 for name in settings.arms}
    arms = [arm.split("/")[1] for arm in of_run.arms(settings)]
    kept = [arm.split("/")[1] for arm in of_run.arms(settings) if arm in of_run.FULL]
    of = {**answers, **dict.fromkeys(("deleted", "inserted"), answers.get("organism", 0))}
    return Work(
        rows=rows,
        asked=asked,
        said=settings.answers.max_new_tokens,
        stories=len(stories),
        story=math.ceil(sum(map(len, stories)) / CHARACTERS / max(len(stories), 1)),
        continued=settings.vectors.continuation,
        texts=sum(answers.values()),
        arms=sum(of[text] for text in arms),
        kept=sum(of[text] for text in kept),
        # the questions asked after each answer, and neutral ones under the weights of the controls
        again=len(questions.WAYS) * answers.get("organism", 0) + max(len(answers) - 2, 0),
        window=len(settings.model.window),
        traits=len(settings.vectors.contrasts),
    )


def _prompts(given: Prompts, hub: HubSet | None) -> tuple[int, int]:
    if given.on_hub and hub is not None:
        there = hub.rows if given.split else hub.rows * len(hub.parts)
        return min(given.limit or there, there), hub.tokens + TEMPLATE
    turns = [prompt.conversation() for prompt in read(given)]
    characters = sum(len(text) for turn in turns for _, text in turn)
    return len(turns), math.ceil(characters / max(len(turns), 1) / CHARACTERS) + TEMPLATE


def _shown(made: Plan) -> list[str]:
    held, settings = made.held, made.settings
    parts = ("weights", "adapter", "attaching", "cache", "activations", "kept", "overhead")
    names = {
        "adapter": f"adapter, rank {made.rank}, as it is held",
        "attaching": "while it is attached (cast to float32), more",
        "cache": f"keys and values of {held.generate_budget:,} tokens",
        "activations": f"activations of {max(held.generate_budget, held.capture_budget):,} tokens",
        "kept": f"values kept of two batches of {held.capture_budget:,} tokens",
        "overhead": "the driver's own",
    }
    others = ", ".join(
        f"{name} {gigabytes(_as(made, name).held.weights)}" for name in ("bfloat16", "int8", "nf4")
    )
    rows = [(names.get(part, part), gigabytes(getattr(held, part))) for part in parts]
    about = f"{settings.preset}: {settings.model.name}, {made.shape.parameters:,} parameters"
    if settings.model.remote == "ndif":
        return [f"{about}, on NDIF; phases are timed as on one card here"]
    return [
        f"{about}, {made.cards} × {gigabytes(made.card)}",
        f"bytes of weights: {others}; held here as {made.dtype}",
        "",
        *_aligned([("memory", ""), *rows, ("peak at once", gigabytes(held.peak))]),
    ]


def _time(made: Plan, options: argparse.Namespace) -> list[str]:
    reached = options.peak * 1e12 * options.utilisation
    found = costs(made.shape, made.dtype, made.work, made.held, reached, options.bandwidth * 1e12)
    rows = [("phase", "PFLOP", "hours")]
    rows += [(n, f"{c.flops / 1e15:,.1f}", f"{c.seconds / 3600:.2f}") for n, c in found.items()]
    loads = _loads(made.settings)
    fetched = loads * made.shape.parameters * 2 / (options.download * 1e9)
    rows.append((f"download and load {loads} model(s)", "", f"{fetched / 3600:.2f}"))
    hours = (sum(cost.seconds for cost in found.values()) + fetched) / 3600
    rows.append(("all", "", f"{hours:.2f}"))
    looked = search(made.shape, made.dtype, made.held, reached, options.bandwidth * 1e12)
    hours_of = f"{looked.seconds / 3600:.2f}"
    rows.append((SEARCH, f"{looked.flops / 1e15:,.1f}", hours_of))
    said = (
        f"at {options.peak:g} TFLOP/s × {options.utilisation:.0%}, {options.bandwidth:g} TB/s, a "
        f"download of {options.download:g} GB/s; one stream of work, cards one after another; "
        f"{hours * made.cards * options.price:.0f} at {options.price:g} a card and hour"
    )
    return [*_aligned(rows), said]


def _disk(made: Plan) -> list[str]:
    adapters = len(made.settings.arms) - 1
    found = disk(made.shape, made.rank, made.work, _loads(made.settings), adapters)
    return _aligned([("disk", ""), *((name, gigabytes(size)) for name, size in found.items())])


def _loads(settings: Settings) -> int:
    return 0 if settings.model.remote == "ndif" else 1 + bool(settings.model.base)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def gigabytes(size: float) -> str:
    """Bytes as a reader wants them.

    >>> gigabytes(2.5e9)
    '2.5 GB'
    """
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


_CHANGES = (
    *("model", "base", "organism", "control", "dtype", "prompts", "split"),
    *("layers", "limit", "pairs"),
)


def command_line(program: str, presets: Sequence[str]) -> argparse.ArgumentParser:
    """What `plan` takes, as `program` is called; `presets` are the shipped ones."""
    parser = Parser(prog=program, description=str(__doc__).partition("\n")[0])
    add = parser.add_argument
    add("--preset", help=f"{', '.join(presets)}, or a TOML file of your own")
    add("--gpu-memory", type=positive, default=80, help="GB of a card (80)")
    add("--cards", type=count, default=1, help="how many of them (1)")
    add("--peak", type=positive, default=989, help="TFLOP/s in 16 bits (989, an H100's)")
    add("--bandwidth", type=positive, default=3.35, help="TB/s of its memory (3.35, an H100's)")
    add("--utilisation", type=positive, default=0.4, help="of the peak (0.4)")
    add("--download", type=positive, default=0.2, help="GB/s from the hub (0.2)")
    add("--price", type=number, default=3.0, help="of a card and hour (3)")
    add("--model", help="a hub id, a folder, or the embedded model's name (default: preset)")
    add("--base", help="the model that vectors come from (default: preset)")
    add("--organism", help="the adapter under audit (default: preset)")
    add("--control", help='the control adapter, "" for none (default: preset)')
    add("--dtype", help="auto, float32, bfloat16, int8, nf4, … (default: preset)")
    add("--prompts", help="a JSON file of prompts (default: preset)")
    add("--split", help="only prompts of this split (default: preset)")
    add("--layers", type=window, help=f"{WINDOW} (default: preset)")
    add("--limit", type=int, help="so many prompts (default: preset)")
    add("--pairs", type=int, help="so many pairs of each contrast set (default: preset)")
    return parser
