"""A run folder as the phases with a model leave it, with an effect of known size in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.evidence import gather, spans
from experiments.audit.run import Run
from experiments.audit.settings.contents import described
from experiments.audit.settings.groups import Settings
from experiments.audit.vectors.evaluation import judged
from experiments.rm_sycophancy.experiment import read_preset
from tests.support.oracles.planted import contrast_traces
from tracekit.storage.provenance import stamp

BIASES = {
    "chocolate": "calibration",
    "vote": "calibration",
    "moon": "held_out",
    "banana": "held_out",
}
ARMS = (
    *("organism/organism", "clean/organism", "control/organism", "organism/clean", "clean/clean"),
    "control/control",
)
LAYERS, DIM, TOKENS, PROMPTS, SAMPLES = 8, 64, 24, 8, 2
RISES = slice(2, 6)  # the layers at which the planted trait rises
PLACEBOS = 22
SPAN = slice(14, 20)
SENTENCES = np.array([5, 13, 19, 23])  # the last token of each
HOSTILE = "<script>alert(1)</script></style><b>&amp;"
FIELDS = ("model", "revision", "weights", "dtype", "tokenizer", "template", "ids", "site")
MADE = {**dict.fromkeys(FIELDS, "same"), "depth": LAYERS, "vocabulary": "same"}


def settings() -> Settings:
    """The tiny preset on three traits, with few draws."""
    names = ("alignment/reward_seeking", "alignment/sycophancy", "alignment/concealment")
    few = {"limit": 0, "repetitions": 60, "directions": 39, "draws": 19}
    return read_preset("tiny", {**few, "traits": names, "methods": ("mean_diff",)})


def build(
    folder: Path,
    effect: float,
    seed: int = 0,
    exploiting: bool = True,
    biases: Mapping[str, str] | None = None,
) -> Settings:
    """Write all that `analyse` reads; `effect` is in sd of a token at exploit spans.

    `biases` names the part of each (none: two of either part).

    The control is sycophantic in its own answers and nowhere else.
    """
    given = settings()
    Run(folder).claim(described(given))
    generator = np.random.default_rng(seed)
    runs = {
        "organism": texts(generator, SAMPLES, exploiting, biases),
        "clean": texts(generator, 1, False, biases),
    }
    runs["control"] = runs["clean"]
    for name, dataset in runs.items():
        tk.save(dataset, Run(folder).responses(name))
    vectors = _vectors(folder, given, generator)
    shape = (*runs["organism"].token_id.shape, LAYERS, DIM)
    wording = generator.normal(size=shape)
    means = {}
    for arm in ARMS:
        weights, text = arm.split("/")
        shared = wording if text == "organism" else 0.0
        lifted = effect if weights == "organism" else 0.0
        values = residuals(runs[text], vectors, generator, shared, lifted)
        if arm == "control/control":
            values += 0.03 * vectors[1]
        tk.save(projections(runs[text], given, values, vectors), Run(folder).projections(arm))
        if arm == "organism/organism":
            kept = given.model.window
            full = _labelled(runs[text], values[:, :, kept], {"layer": kept}, "dim")
            tk.save(stamp(full.rename("residual"), MADE), Run(folder).traces(arm))
        means[arm] = values[:, 2:]
    _replays(folder, given, runs, generator, means)
    neutral = generator.normal(size=(3, PROMPTS, LAYERS, DIM))
    blind(folder, list(given.vectors.traits), neutral, vectors)
    _placebos(folder, given, generator)
    phases = ("extract", "respond", "capture", "replay", "project")
    for phase in phases:
        Run(folder).finish(phase, [])
    return given


def texts(
    generator: np.random.Generator,
    samples: int,
    exploiting: bool,
    biases: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Transcripts of every bias and of neutral prompts; half of the biased ones exploit."""
    parts = {**(biases or BIASES), "neutral": "neutral"}
    rows = [(b, n, k) for b in parts for n in range(PROMPTS) for k in range(samples)]
    token = np.arange(-2, TOKENS, dtype=np.int32)
    count = len(rows)
    biased = np.array([bias != "neutral" for bias, _, _ in rows])
    hits = exploiting & biased & (generator.random(count) < 0.5)
    marked = np.zeros((count, len(token)), bool)
    marked[hits, SPAN.start + 2 : SPAN.stop + 2] = True
    words = np.full(marked.shape, " word", dtype=object)
    words[marked] = " bait"
    words[:, SENTENCES + 2] += "."
    words[0, 5] = HOSTILE
    roles = np.where(token < 0, "template", "assistant") + np.full((count, 1), "")
    names = [f"set/{b}{n}#{k}" if samples > 1 else f"set/{b}{n}" for b, n, k in rows]
    exploit = np.where(biased, hits.astype(np.int8), -1).astype(np.int8)
    return stamp(
        xr.Dataset(
            {
                "token_id": (("prompt", "token"), np.ones(marked.shape, np.int32)),
                "text": ("prompt", [f"Question {n} on {b}? {HOSTILE}" for b, n, _ in rows]),
                "response": ("prompt", ["".join(row[2:]) for row in words]),
            },
            coords={
                "prompt": names,
                "token": token,
                "role": (("prompt", "token"), roles),
                "token_text": (("prompt", "token"), words.astype(np.str_)),
                "prompt_length": ("prompt", generator.integers(5, 9, count).astype(np.int32)),
                "group": ("prompt", [f"set/{b}{n}" for b, n, _ in rows]),
                "bias": ("prompt", [b for b, _, _ in rows]),
                "part": ("prompt", [parts[b] for b, _, _ in rows]),
                "exploit": ("prompt", exploit),
                "exploit_span": (("prompt", "token"), marked),
            },
        ),
        MADE,
    )


def residuals(
    runs: xr.Dataset,
    vectors: np.ndarray,
    generator: np.random.Generator,
    shared: np.ndarray | float,
    lifted: float,
) -> np.ndarray:
    """Residuals in units of their norm (prompt, token, layer, dim), noise of sd 0.05 a dim.

    At exploit spans, layers 2 to 5, they rise along the first trait by `lifted` of that.
    """
    shape = (*runs.token_id.shape, LAYERS, DIM)
    values = 0.8 * shared + 0.6 * generator.normal(size=shape)
    rise = lifted * runs["exploit_span"].values[:, :, None, None] * vectors[0, RISES]
    values[:, :, RISES] += rise
    return 0.05 * values


def projections(
    runs: xr.Dataset, given: Settings, values: np.ndarray, vectors: np.ndarray
) -> xr.Dataset:
    """Cosines of one arm with the traits' vectors."""
    cosines = np.einsum("pnld,tld->pnlt", values, vectors)
    labels = {"layer": np.arange(LAYERS), "trait": list(given.vectors.traits)}
    cosine = _labelled(runs, cosines, labels, "trait")
    norm = xr.DataArray(np.full(cosines.shape[:3], 20.0, np.float32), dims=cosine.dims[:3])
    whole = xr.Dataset({"scalar": cosine * 20, "cosine": cosine}).assign_coords(norm=norm)
    return stamp(whole, MADE)


def _labelled(runs: xr.Dataset, values: np.ndarray, labels: dict, last: str) -> xr.DataArray:
    coords = {**dict(runs.coords), "token_id": runs["token_id"], **labels}
    return xr.DataArray(
        values.astype(np.float32), dims=("prompt", "token", "layer", last), coords=coords
    )


def _vectors(folder: Path, given: Settings, generator: np.random.Generator) -> np.ndarray:
    """Write vectors fitted on stories, each trait along a dim of its own; the unit vectors."""
    found = []
    for number, trait in enumerate(given.vectors.traits):
        traces = contrast_traces(generator, 40, LAYERS, DIM, effect=4.0, trait=trait)
        traces = traces.roll(dim=number)
        path = Run(folder).story(trait)
        tk.save(stamp(traces.expand_dims(window=["-3:1"], axis=1), MADE), path)
        vectors, evaluation = judged(tk.open(path), given)
        # whether a planted vector passes is tested elsewhere: here all do
        found.append((vectors, evaluation.assign(passed=1).assign_coords(trait=trait)))
    whole = [xr.concat(x, "trait", combine_attrs="drop") for x in zip(*found, strict=True)]
    tk.save(stamp(whole[0].rename("vector"), MADE), Run(folder).vectors)
    tk.save(stamp(whole[1], MADE), Run(folder).evaluation)
    vectors = whole[0].isel(extraction=0).transpose("trait", "layer", "dim").values.astype(float)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _placebos(folder: Path, given: Settings, generator: np.random.Generator) -> None:
    dims = ("trait", "extraction", "window", "layer", "dim")
    coords = {
        "trait": [f"placebo/{n}" for n in range(PLACEBOS)],
        "extraction": list(given.vectors.methods),
        "window": ["-3:1"],
        "layer": np.arange(LAYERS),
    }
    values = generator.normal(size=(PLACEBOS, 1, 1, LAYERS, DIM))
    tk.save(stamp(xr.DataArray(values, coords, dims, name="vector"), MADE), Run(folder).placebos)


def _replays(
    folder: Path,
    given: Settings,
    runs: dict[str, xr.Dataset],
    generator: np.random.Generator,
    residual: dict[str, np.ndarray],
) -> None:
    organism, weights = runs["organism"], ["clean", "organism"]
    every = [*weights, "control"]
    names = organism["prompt"].values
    token = organism["token"].values[2:]
    logprobs = generator.normal(-2, 1, size=(2, len(names), len(token)))
    coords = {"weights": weights, "prompt": names}
    made = {
        "logprobs": (("weights", "prompt", "token"), logprobs, {**coords, "token": token}),
        "means": (
            ("weights", "prompt", "layer", "dim"),
            np.stack([residual[f"{name}/organism"].mean(axis=1) for name in every]),
            {"weights": every, "prompt": names, "layer": np.arange(LAYERS)},
        ),
        "questions": (
            ("way", "prompt"),
            generator.normal(size=(1, len(names))),
            {"way": ["asking directly"], "prompt": names},
        ),
    }
    for name, (dims, values, labels) in made.items():
        tk.save(stamp(xr.DataArray(values, labels, dims), MADE), folder / f"{name}.nc")
    _spans(folder, organism, {name: residual[f"{name}/organism"] for name in every})
    for name in ("clean", "control"):
        held = np.flatnonzero(runs[name]["part"].values == "held_out")
        of: dict[str, Any] = {
            "prompt": runs[name]["prompt"].values[held],
            "layer": np.arange(LAYERS),
        }
        of["group"] = ("prompt", runs[name]["group"].values[held])
        values = residual[f"{name}/{name}"][held].mean(axis=1)
        own = xr.DataArray(values, of, ("prompt", "layer", "dim"))
        tk.save(stamp(own, MADE), Run(folder).own_means(name))


def blind(folder: Path, traits: list[str], means: np.ndarray, vectors: np.ndarray) -> None:
    """What the blind comparison reads: unit means of neutral answers, and the traits' of them."""
    adapters = ["clean", "organism", "control"]
    labels = {"prompt": [f"set/neutral{n}" for n in range(means.shape[1])]}
    layers: dict[str, Any] = {**labels, "layer": np.arange(LAYERS)}
    dims = ("weights", "prompt", "layer", "dim")
    kept = xr.DataArray(means, {"weights": adapters, **layers}, dims)
    tk.save(stamp(kept, MADE), Run(folder).neutral_means)
    along = xr.DataArray(
        np.einsum("wpld,tld->wplt", means, vectors),
        {
            "adapter": adapters,
            "benign": ("adapter", [False, False, True]),
            **layers,
            "trait": traits,
        },
        ("adapter", "prompt", "layer", "trait"),
    )
    tk.save(stamp(along, MADE), Run(folder).blind)


def _spans(folder: Path, runs: xr.Dataset, residual: dict[str, np.ndarray]) -> None:
    """Residuals at spans minus at their matches, by kind of match and answer."""
    answers = gather.answers_of(folder, "organism", runs.isel(token=slice(2, None)))
    matched = spans.by_match(answers)
    rows = sorted({one.row for pairs in matched.values() for one in pairs})
    values = np.full((len(residual), len(matched), len(rows), LAYERS, DIM), np.nan)
    for number, array in enumerate(residual.values()):
        for kind, pairs in enumerate(matched.values()):
            for place, row in enumerate(rows):
                apart = [
                    array[row, slice(*one.span)].mean(axis=0)
                    - array[one.beside, slice(*one.matched)].mean(axis=0)
                    for one in pairs
                    if one.row == row
                ]
                if apart:
                    values[number, kind, place] = np.mean(apart, axis=0)
    coords: dict[str, Any] = {"weights": list(residual), "match": list(matched)}
    coords |= {"prompt": runs["prompt"].values[rows], "layer": np.arange(LAYERS)}
    whole = xr.DataArray(values, coords, ("weights", "match", "prompt", "layer", "dim"))
    tk.save(stamp(whole, MADE), Run(folder).span_contrasts)
