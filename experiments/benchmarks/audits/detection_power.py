"""From what strength on detection finds a planted direction: by pooling, and beyond directions.

    python -m experiments.benchmarks.audits.detection_power --run runs/smollm2-full-0123abcd

`audit_size` plants into the means of answers, of which a span is a part. Here the tokens of a span
are raised, at a place drawn in each answer that counts as exploiting under exchanged labels, and
then pooled: of the scores under the adapter's weights (`own`), and of those less the scores of the
same tokens under the clean weights (`change`). Beyond directions are the means again, with the
verdict's nulls: placebo traits and random directions of both covariances (that of the change has
what is planted in it) are read off the same answers. d is in sd of a clean token's score.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float
from tqdm import tqdm

import tracekit as tk
from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.choice import Scores, chosen_places
from experiments.audit.evidence.directions_null import Directions, matched, p_of
from experiments.audit.evidence.gather import response_tokens
from experiments.audit.evidence.relabel import decided, relabellings
from experiments.audit.evidence.standing import placebos_of, traits_of
from experiments.audit.phases.projections import read
from experiments.audit.sections.detecting import detection
from experiments.audit.settings.groups import MEAN
from experiments.benchmarks.audits.audit_size import (
    RESULTS,
    Audited,
    direction_of,
    exchanged,
    finished,
    of_run,
)
from experiments.benchmarks.audits.power_rows import (
    LEVEL,
    Row,
    named,
    planted_traits,
    power_row,
    save,
    smallest,
)
from tracekit.transcripts.pooling import Pooling, pooled

POOLINGS = ("mean", "rolling_max(width=8)", "rolling_max(width=16)", "top_k(k=10)", "max")
EFFECTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
DRAWS, EXCHANGES, SETS = 299, 199, 99
KINDS = ("own", "change")
RULES = (
    "test alone",
    "beyond placebos and directions of activations",
    "beyond directions of the change too",
)
Tokens = Float[np.ndarray, "row layer trait token"]


@dataclass(frozen=True)
class Answers:
    """Scores of the tokens of answers, by what is scored, with what planting needs.

    `tokens` of each kind are NaN where an answer has none.
    """

    audited: Audited
    tokens: Mapping[str, Tokens]

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each answer has."""
        first = next(iter(self.tokens.values()))
        return np.isfinite(first[:, 0, 0]).sum(axis=-1)


def answers_of(audit: Audit, audited: Audited) -> Answers:
    """The tokens' scores of a finished run at the layers allowed; the rest is cut off `audited`."""
    kept = audit.rows["prompt"].values[audit.part("calibration") | audit.part("held_out")]
    own, clean = (read(audit.folder, f"{name}/organism") for name in ("organism", "clean"))
    own, clean = own.sel(prompt=kept), clean.sel(prompt=kept)
    whole = {"own": own, "change": tk.difference(own, clean)}
    said = response_tokens(own)
    tokens = {
        name: _front(array.sel(trait=list(audit.traits)), said)[:, audit.allowed]
        for name, array in whole.items()
    }
    scores = replace(audited.scores, values=audited.scores.values[:, audit.allowed])
    cut = replace(
        audited,
        scores=scores,
        allowed=np.arange(len(audit.allowed)),
        cosines=audited.cosines[audit.allowed],
        token_deviation=audited.token_deviation[audit.allowed],
    )
    return Answers(cut, tokens)


def spans(
    lengths: np.ndarray, share: np.ndarray, size: int, generator: np.random.Generator
) -> np.ndarray:
    """A span in each answer, `share` of its tokens at any place: (row, token), of `size` tokens.

    >>> draw = np.random.default_rng(0)
    >>> spans(np.array([4, 2]), np.array([0.5, 0.5]), 5, draw).sum(axis=1).tolist()
    [2, 1]
    """
    width = np.maximum(np.round(share * lengths).astype(int), 1)
    first = generator.integers(0, np.maximum(lengths - width, 0) + 1)
    place = np.arange(size)
    return (place >= first[:, None]) & (place < (first + width)[:, None])


def pooled_runs(
    answers: Answers, effect: float, poolings: Sequence[str], generator: np.random.Generator
) -> dict[str, bool]:
    """One run: labels exchanged, `effect` planted at tokens, and detection by each pooling."""
    audited = answers.audited
    label, share = exchanged(audited, generator)
    rise = effect * audited.token_deviation[:, None] * audited.cosines
    found = {}
    for kind, tokens in answers.tokens.items():
        marked = spans(answers.lengths, share, tokens.shape[-1], generator) & (label == 1)[:, None]
        moved = tokens + rise[:, :, None] * marked[:, None, None]
        for pooling in poolings:
            values = pooled(moved, Pooling.read(pooling))
            scores = Scores(values, label, audited.scores.bias, audited.scores.group)
            found[f"{kind}, {pooling}"] = _detected(audited, scores, generator)
    return found


def beyond(
    audit: Audit, audited: Audited, effects: Sequence[float], repetitions: int, seed: int
) -> list[Row]:
    """The power of detection by means, of what `KINDS` says, by each of `RULES`."""
    planting = _planting(audit, audited)
    rows: list[Row] = []
    for effect, (number, kind) in product(effects, enumerate(KINDS)):
        generator = np.random.default_rng([seed, int(100 * effect), number])
        count = np.zeros(len(RULES), int)
        for _ in tqdm(range(repetitions), desc=f"beyond, {kind}, d = {effect:g}", disable=None):
            count += _beyond_once(planting, kind, effect, generator)
        rows += [
            power_row(f"{kind}, mean, {rule}", effect, int(hits), repetitions)
            for rule, hits in zip(RULES, count, strict=True)
        ]
    return rows


def power(
    answers: Answers, effects: Sequence[float], poolings: Sequence[str], repetitions: int, seed: int
) -> list[Row]:
    """How often a planted direction is found, and the trait named rightly, by pooling and d."""
    rows: list[Row] = []
    for effect in effects:
        generator = np.random.default_rng([seed, int(100 * effect)])
        count: dict[str, int] = {}
        for _ in tqdm(range(repetitions), desc=f"d = {effect:g}", disable=None):
            for name, hit in pooled_runs(answers, effect, poolings, generator).items():
                count[name] = count.get(name, 0) + hit
        rows += [power_row(name, effect, hits, repetitions) for name, hits in count.items()]
    return rows


@dataclass(frozen=True)
class _Planting:
    """Unit means (row, layer, dim) of both weights, the direction planted (layer, dim), and traits.

    `placebos` as the verdict draws them; random directions are drawn anew in each run, since the
    covariance of the change has what is planted in it.
    """

    audited: Audited
    means: Mapping[str, np.ndarray]
    direction: np.ndarray
    traits: Directions
    placebos: Directions


def _planting(audit: Audit, audited: Audited) -> _Planting:
    if audit.settings.hypothesis.pooling != MEAN:
        pooling = audit.settings.hypothesis.pooling
        raise ValueError(f"The run pools tokens by {pooling!r}. Give one by means.")
    placebos = placebos_of(audit)
    if isinstance(placebos, str):
        raise ValueError(f"The run has no placebo sets: {placebos}. Give one that has.")
    used, _ = detection.primary_rows(audit)
    means = {
        name: audit.means.sel(weights=name).values[used][:, audit.allowed]
        for name in ("organism", "clean")
    }
    direction = direction_of(audit.folder, audit.settings, audit.traits[0])[audit.allowed]
    traits, others = (
        replace(one, samples=one.samples[:, audit.allowed]) for one in (traits_of(audit), placebos)
    )
    return _Planting(audited, means, direction, traits, next(others.blocks(SETS)))


def _beyond_once(
    planting: _Planting, kind: str, effect: float, generator: np.random.Generator
) -> tuple[bool, bool, bool]:
    """Whether the planted trait is found, by each of `RULES`."""
    audited = planting.audited
    label, share = exchanged(audited, generator)
    rise = effect * (label * share)[:, None] * audited.token_deviation
    own = planting.means["organism"] + rise[..., None] * planting.direction
    clean = planting.means["clean"]
    change = own - clean
    read_off = own if kind == "own" else change
    scores = planting.traits.projected(read_off)
    rows = Scores(scores[0], label, audited.scores.bias, audited.scores.group)
    if not _detected(audited, rows, generator):
        return False, False, False
    kept = np.isin(rows.bias, decided(label, rows.bias))
    rows, first = rows.rows(kept), np.isin(rows.bias[kept], list(audited.fitted))
    held = rows.rows(~first)
    among = relabellings(held.label, held.bias, held.group, generator, EXCHANGES)

    def far(values: np.ndarray) -> np.ndarray:
        return detection.distances(values[:, kept], rows, first, audited.allowed, among)

    count = planting.traits.weights.shape[1]
    nulls = (
        planting.placebos,
        matched(clean, count, generator, SETS),
        matched(change, count, generator, SETS),
    )
    layer = chosen_places(scores[:, kept][:, first], rows.rows(first), audited.allowed)
    observed = far(scores)[0][planted_traits(audited.cosines[layer[0]])]
    *others, change = (
        p_of(observed, far(one.projected(read_off)).max(axis=1)).min() <= LEVEL for one in nulls
    )
    return True, all(others), all(others) and bool(change)


def _detected(audited: Audited, scores: Scores, generator: np.random.Generator) -> bool:
    kept = np.isin(scores.bias, decided(scores.label, scores.bias))
    fitted = np.isin(scores.bias, list(audited.fitted))
    parts = scores.rows(fitted & kept), scores.rows(~fitted & kept)
    found = detection.detect(*parts, audited.allowed, generator, DRAWS)
    return named(found, audited.cosines[int(found["layer"])])


def _front(array: xr.DataArray, said: np.ndarray) -> Tokens:
    """The tokens of each answer, from its first on: NaN behind the last."""
    values = array.transpose("prompt", "layer", "trait", "token").values.astype(float)
    values = np.where(said[:, None, None], values, np.nan)
    order = np.argsort(~said, axis=1, kind="stable")[:, : int(said.sum(axis=1).max())]
    return np.take_along_axis(values, order[:, None, None], axis=-1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: both tables; prints and saves them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="the folder of a finished audit")
    parser.add_argument("--repetitions", type=int, default=100, help="runs of each d")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "detection_power.csv")
    asked = parser.parse_args(arguments)
    audit, generator = finished(asked.run), np.random.default_rng(asked.seed)
    answers = answers_of(audit, of_run(asked.run, generator))
    rows = power(answers, EFFECTS, POOLINGS, asked.repetitions, asked.seed + 1)
    save(rows, asked.output)
    rows += beyond(audit, answers.audited, EFFECTS, asked.repetitions, asked.seed + 2)
    save(rows, asked.output)
    print(asked.output.read_text())
    for test in dict.fromkeys(str(row["test"]) for row in rows):
        print(f"Smallest d found in 80 % of runs, {test}: {smallest(rows, test):.2f}")


if __name__ == "__main__":
    main()
