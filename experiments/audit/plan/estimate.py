"""What a run needs: bytes of memory and disk, FLOPs and hours, from shapes and counts."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.audit.plan.shapes import Shape
from tracekit.passes import batching

# bytes a parameter of the blocks: nf4 has one float32 scale for 64 values, int8 one a row
HELD = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "nf4": 0.5 + 4 / 64}
# and what one forward moves of it: 4-bit weights are unpacked to 16 bits, written and read again
MOVED = {**HELD, "nf4": HELD["nf4"] + 4, "int8": 1.0}
CUDA_CONTEXT = 1e9
# compressed bytes a 16-bit value, on real residuals (benchmarks.storage: 0.77 of 2, and room)
STORED = 1.6


@dataclass(frozen=True)
class Work:
    """How much text a run takes through the model.

    `rows` prompts of `asked` tokens and `said` tokens of response; `stories` contrast texts of
    `story` tokens, each continued by `continued`. Times that all rows go through: `texts` to
    generate, `arms` for all that is captured, `kept` of which in full, `again` for all else.
    """

    rows: int
    asked: int
    said: int
    stories: int
    story: int
    continued: int
    texts: int
    arms: int
    kept: int
    again: int
    window: int
    traits: int


@dataclass(frozen=True)
class Search:
    """What a search for habits asks: `rows` prompts of `asked` tokens, `said` tokens of answer.

    `amplified` prompts at each further strength, and `samples` answers to `again` prompts of the
    other half, by the bare model, the adapter, and the adapter amplified.
    """

    rows: int = 760
    asked: int = 60
    said: int = 48
    amplified: int = 64
    samples: int = 2
    again: int = 144


@dataclass(frozen=True)
class Memory:
    """Bytes on the device (all cards together), and tokens of a batch."""

    weights: float
    adapter: float
    attaching: float
    cache: float
    activations: float
    kept: float
    overhead: float
    generate_budget: int
    capture_budget: int

    @property
    def peak(self) -> float:
        """The most that is held at once: while attaching, generating, or capturing."""
        busy = max(self.attaching, self.cache + self.activations, self.activations + self.kept)
        return self.weights + self.adapter + self.overhead + busy


def memory(shape: Shape, rank: int, dtype: str, work: Work, device: float, cards: int) -> Memory:
    """Memory for the weights held as `dtype` on `cards` of `device` bytes together (0: no card).

    Embedding, head and norms stay in 16 bits where the blocks have fewer. A 16-bit adapter is
    held as it is, and cast up while it is attached. Batches are those that tracekit makes.
    """
    width = 4 if dtype == "float32" else 2
    weights = shape.in_blocks * HELD[dtype] + shape.elsewhere * width
    adapter = shape.adapter(rank) * width
    attaching = shape.adapter(rank) * (4 if width == 2 else 0)
    overhead = CUDA_CONTEXT * cards
    free = max(device - weights - adapter - overhead, 0.0)
    a_token = width * shape.hidden * work.window
    budgets = []
    for kept_bytes in (0, a_token):
        fits = batching.budget_for(free, shape.hidden, shape.intermediate, kept_bytes, cards > 0)
        rows = work.rows * (work.asked + work.said)
        budgets.append(min(fits, rows))
    generating, capturing = budgets
    cached = 2 * shape.layers * shape.key_heads * shape.head * width
    active = width * (3 * shape.intermediate + 6 * shape.hidden)
    answered = work.said / max(work.asked + work.said, 1)
    return Memory(
        weights=weights,
        adapter=adapter,
        attaching=attaching,
        cache=generating * cached,
        activations=max(generating, capturing) * active,
        kept=2 * capturing * answered * width * shape.hidden * work.window,
        overhead=overhead,
        generate_budget=generating,
        capture_budget=capturing,
    )


@dataclass(frozen=True)
class Cost:
    """FLOPs of a phase, and the seconds they take."""

    flops: float
    seconds: float


def forward(
    shape: Shape, dtype: str, tokens: float, batches: float, peak: float, bandwidth: float
) -> Cost:
    """A forward over `tokens` in `batches`: arithmetic at `peak` FLOP/s, and moving the weights.

    The two are added, since a layer's weights are unpacked before it computes.
    """
    flops = 2 * shape.in_blocks * tokens
    moved = shape.in_blocks * MOVED[dtype] + shape.elsewhere * 2
    return Cost(flops, flops / peak + batches * moved / bandwidth)


def costs(
    shape: Shape, dtype: str, work: Work, held: Memory, peak: float, bandwidth: float
) -> dict[str, Cost]:
    """FLOPs and seconds of the phases with the model; `peak` is what is really reached."""

    def run(tokens: float, batches: float) -> Cost:
        return forward(shape, dtype, tokens, max(batches, 1), peak, bandwidth)

    def said(rows: int, before: int, new: int) -> Cost:
        groups = max(rows * (before + new) / max(held.generate_budget, 1), 1)
        return run(rows * (before + new), groups * (1 + new))

    stories = work.stories * (work.story + work.continued)
    extract = run(stories, stories / max(held.capture_budget, 1))
    if work.continued:
        extract = _sum(extract, said(work.stories, work.story, work.continued))
    respond = said(work.rows, work.asked, work.said)
    replayed = work.rows * (work.asked + work.said)
    whole = run(replayed, replayed / max(min(held.generate_budget, held.capture_budget), 1))
    return {
        "extract": extract,
        "respond": _times(respond, work.texts),
        "capture": _times(whole, work.arms),
        "replay": _times(whole, work.again),
    }


def search(
    shape: Shape,
    dtype: str,
    held: Memory,
    peak: float,
    bandwidth: float,
    look: Search | None = None,
) -> Cost:
    """FLOPs and seconds of the search for habits with the shipped battery, without benign adapters.

    Answers of the bare model and the adapter; of half of the prompts, and those amplified, each
    token's likelihood with the adapter on and off; and new answers where a habit should show.
    """
    look = look or Search()
    row = look.asked + look.said
    answers = 2 * look.rows + look.rows // 2 + 2 * look.amplified + 3 * look.samples * look.again
    reread = 2 * (look.rows + look.rows // 2 + 2 * look.amplified)
    groups = max(answers * row / max(held.generate_budget, 1), 1)
    said = forward(shape, dtype, answers * row, groups * (1 + look.said), peak, bandwidth)
    batches = max(reread * row / max(held.generate_budget, 1), 1)
    return _sum(said, forward(shape, dtype, reread * row, batches, peak, bandwidth))


def _sum(a: Cost, b: Cost) -> Cost:
    return Cost(a.flops + b.flops, a.seconds + b.seconds)


def _times(one: Cost, count: int) -> Cost:
    return Cost(one.flops * count, one.seconds * count)


def disk(shape: Shape, rank: int, work: Work, models: int, adapters: int) -> dict[str, float]:
    """Bytes to download, and bytes of traces by what is kept of each response token."""
    tokens = work.rows * (work.said + 1)
    one = work.kept * tokens * shape.hidden * STORED
    contrast = work.stories * shape.layers * shape.hidden * 4
    projected = work.arms * tokens * shape.layers * (work.traits + 1) * 4
    return {
        "download of models": models * shape.parameters * 2.0,
        "download of adapters": adapters * shape.adapter(rank) * 2.0,
        "contrast traces": float(contrast),
        "projections, all layers": float(projected),
        "traces, the window": one * work.window,
        "traces, all layers (not kept)": one * shape.layers,
    }
