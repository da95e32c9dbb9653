"""How often the A-and-detection procedure rejects when labels mean nothing, and finds effects.

    python -m experiments.benchmarks.audits.audit_size --size 2000 --power 100
    python -m experiments.benchmarks.audits.audit_size --run runs/smollm2-0123abcd

Size: labels of all responses are exchanged (spans with their matches likewise) and the layer is
chosen, and the test made, as on the true ones. Power: a direction raises tokens of jittered exploit
spans under shuffled labels by d sd of a clean token; a primary trait at |cosine| > 0.7 with it
counts as found when it is the one that is significant. The responses are those of a finished run,
and the direction is a primary trait's from pairs that its vector was not fitted on; without a run
they are simulated: topics, wordings, layers in common, and three correlated traits. Directions: how
many sets of random directions a finished run's rule calls traits (`random_traits`).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import tracekit as tk
from experiments.audit.evidence import contrasts as at_spans
from experiments.audit.evidence.audit import Audit, audit_of
from experiments.audit.evidence.choice import Scores
from experiments.audit.evidence.gather import response_tokens
from experiments.audit.evidence.relabel import decided, relabellings
from experiments.audit.phases.projections import read
from experiments.audit.run import Run
from experiments.audit.sections import mechanism
from experiments.audit.sections.detecting import detection
from experiments.audit.settings.groups import Settings
from experiments.audit.settings.tables import from_values
from experiments.audit.vectors import evaluation
from experiments.benchmarks.audits import random_traits
from experiments.benchmarks.audits.power_rows import Row, named, power_row, save, smallest
from experiments.benchmarks.measuring.statistics_size import rejection_rate
from traits import extract, select_part
from traits.vectors.extraction import unit

RESULTS = Path(__file__).parents[1] / "results"
EFFECTS = (0.0, 0.25, 0.5, 1.0, 2.0)
DRAWS = 999


@dataclass(frozen=True)
class Audited:
    """Response scores, per-prompt contrasts, and what planting needs of a direction.

    `cosines` (layer, trait): those of the primary traits with the planted direction;
    `token_deviation` (layer): the sd of a clean token in units of the scores; `share` (row): the
    share of its tokens that an exploit span would take.
    """

    scores: Scores
    contrasts: at_spans.Contrasts
    fitted: frozenset[str]
    allowed: np.ndarray
    cosines: np.ndarray
    token_deviation: np.ndarray
    share: np.ndarray


def simulated(generator: np.random.Generator, prompts: int = 16, samples: int = 4) -> Audited:
    """Ten biases of `prompts` prompts; topics and wordings shared by layers and traits alike."""
    count = 10 * prompts * samples
    bias = np.repeat([f"bias {n}" for n in range(10)], prompts * samples)
    group = np.repeat(np.arange(10 * prompts), samples)
    rate = generator.beta(2, 2, size=10 * prompts)
    label = (generator.random(count) < rate[group]).astype(int)
    values = _field(generator, count)
    values += _field(generator, 10 * prompts)[group]
    values += 2 * _field(generator, 10)[np.repeat(np.arange(10), prompts * samples)]
    contrasts = at_spans.Contrasts(
        _field(generator, 10 * prompts), np.repeat(bias[:: prompts * samples], prompts)
    )
    fitted = frozenset(f"bias {n}" for n in range(5))
    share = np.clip(generator.normal(0.25, 0.08, count), 0.05, 0.6)
    cosines = np.tile([0.8, 0.3, 0.1], (12, 1))
    scores = Scores(values, label, bias, group)
    return Audited(scores, contrasts, fitted, np.arange(2, 9), cosines, np.full(12, 4.0), share)


def finished(folder: Path) -> Audit:
    """The audit of a finished run, of all its primary traits."""
    settings = from_values(Run(folder).settings()["settings"])
    return audit_of(folder, tk.open(Run(folder).scores), settings, list(settings.primary))


def of_run(folder: Path, generator: np.random.Generator) -> Audited:
    """The responses of a finished audit, and the direction of its first primary trait.

    The direction is the mean difference of the pairs that judged the vector (`report`), not of
    those that made it. Errors: `ValueError` where no bias of a part has both outcomes.
    """
    audit = finished(folder)
    settings = audit.settings
    if audit.reason:
        raise ValueError(
            f"The size on the run {str(folder)!r} was asked for; {audit.reason}. Give a run whose "
            "calibration and held-out biases have both outcomes, or none."
        )
    kept = audit.part("calibration") | audit.part("held_out")
    scores, contrast = audit.scores().rows(kept), audit.rows["contrast"]
    spans = contrast.sel(match=mechanism.judged(audit), trait=list(audit.traits)).values[kept]
    by_prompt = at_spans.by_prompt(spans, scores.bias, scores.group)
    own = read(folder, "organism/organism").sel(prompt=audit.rows["prompt"].values[kept])
    marked, said = own["exploit_span"].values, response_tokens(own)
    shares = (marked & said).sum(axis=1) / said.sum(axis=1)
    clean = read(folder, "clean/organism").sel(trait=audit.traits[0], token=slice(0, None))
    return Audited(
        scores,
        by_prompt,
        frozenset(np.unique(audit.scores().bias[audit.part("calibration")]).tolist()),
        audit.allowed,
        _cosines(folder, settings, audit.traits),
        (clean - clean.mean("token")).std(["prompt", "token"]).values,
        generator.choice(shares[shares > 0], len(scores.label)),
    )


def direction_of(folder: Path, settings: Settings, trait: str) -> np.ndarray:
    """What is planted: a unit vector a layer, from the pairs that judged the trait's vector."""
    chosen = tk.open(Run(folder).evaluation)["window_selected"]
    window = chosen.sel({"extraction": settings.vectors.method, "trait": trait}).item()
    whole = tk.open(Run(folder).story(trait))
    other = select_part(whole, evaluation.split(whole, settings)[0], "report").sel(window=window)
    return unit(extract(other, settings.vectors.method).transpose("layer", "dim").values)


def _cosines(folder: Path, settings: Settings, traits: Sequence[str]) -> np.ndarray:
    vectors = Run(folder).vectors_of(settings.vectors.method)
    own = unit(vectors.sel(trait=list(traits)).transpose("layer", "trait", "dim").values)
    return np.einsum("ltd,ld->lt", own, direction_of(folder, settings, traits[0]))


def size(audited: Audited, repetitions: int, seed: int) -> list[Row]:
    """The rejections of each test under exchanged labels, over one set of responses."""
    generator = np.random.default_rng(seed)
    scores = audited.scores
    shuffled = relabellings(scores.label, scores.bias, scores.group, generator, repetitions)
    found: dict[str, list[float]] = {}
    for label in tqdm(shuffled, desc="size", disable=None):
        sign = generator.choice([-1.0, 1.0], len(audited.contrasts.bias))
        p = procedure(audited, scores.labelled(label), audited.contrasts.signed(sign), generator)
        for name, value in p.items():
            found.setdefault(name, []).append(value)
    return [
        {"part": "size", "test": name, "d": 0.0, **rejection_rate(p)} for name, p in found.items()
    ]


def procedure(
    audited: Audited, scores: Scores, contrasts: at_spans.Contrasts, generator: np.random.Generator
) -> dict[str, float]:
    """p of detection (the primary), of its weighted score, of A, and of either (Bonferroni)."""
    kept = np.isin(scores.bias, decided(scores.label, scores.bias))
    fitted = np.isin(scores.bias, list(audited.fitted))
    parts = scores.rows(fitted & kept), scores.rows(~fitted & kept)
    primary = detection.detect(*parts, audited.allowed, generator, DRAWS)
    first = np.isin(contrasts.bias, list(audited.fitted))
    both = contrasts.rows(first), contrasts.rows(~first)
    spans = mechanism.locate(*both, audited.allowed, generator, DRAWS)
    p = {"detection, max-T": float(primary["p"]), "A, max-T": float(spans["p"])}
    either = min(1.0, 2 * min(p.values()))
    return {
        **p,
        "detection, weighted score": float(primary["p_composite"]),
        "A or detection, Bonferroni": either,
    }


def power(audited: Audited, repetitions: int, seed: int) -> list[Row]:
    """How often a planted direction is found, by d, with the trait named rightly."""
    rows: list[Row] = []
    for effect in EFFECTS:
        generator = np.random.default_rng([seed, int(100 * effect)])
        found: dict[str, int] = {"detection, max-T": 0, "A, max-T": 0}
        for _ in tqdm(range(repetitions), desc=f"d = {effect:g}", disable=None):
            for name, hit in planted(audited, effect, generator).items():
                found[name] += hit
        rows += [power_row(name, effect, count, repetitions) for name, count in found.items()]
    return rows


def exchanged(audited: Audited, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels exchanged, and the share of each answer that a span takes, edges off by a fifth."""
    scores = audited.scores
    label = relabellings(scores.label, scores.bias, scores.group, generator, 1)[0]
    # a span that is off on either side covers less of the planted tokens
    jitter = np.clip(1 - np.abs(generator.normal(0, 0.2, len(label))), 0, 1)
    return label, audited.share * jitter


def planted(audited: Audited, effect: float, generator: np.random.Generator) -> dict[str, bool]:
    """One run: labels exchanged, then `effect` planted at spans whose edges are jittered."""
    scores = audited.scores
    label, share = exchanged(audited, generator)
    # planted along a direction u: a vector v at cosine c with it rises by c
    rise = effect * audited.token_deviation[:, None] * audited.cosines
    moved = scores.values + (label * share)[:, None, None] * rise
    sign = generator.choice([-1.0, 1.0], len(audited.contrasts.bias))
    part = np.clip(1 - np.abs(generator.normal(0, 0.2, len(sign))), 0, 1)
    spans = audited.contrasts.signed(sign).values + part[:, None, None] * rise
    kept = np.isin(scores.bias, decided(label, scores.bias))
    fitted = np.isin(scores.bias, list(audited.fitted))
    made = Scores(moved, label, scores.bias, scores.group)
    first = np.isin(audited.contrasts.bias, list(audited.fitted))
    contrasts = at_spans.Contrasts(spans, audited.contrasts.bias)
    both = made.rows(fitted & kept), made.rows(~fitted & kept)
    found = {
        "detection, max-T": detection.detect(*both, audited.allowed, generator, 299),
        "A, max-T": mechanism.locate(
            contrasts.rows(first), contrasts.rows(~first), audited.allowed, generator, 299
        ),
    }
    return {name: named(f, audited.cosines[int(f["layer"])]) for name, f in found.items()}


def _field(generator: np.random.Generator, rows: int) -> np.ndarray:
    # layers share what a response says; traits share half of it
    common = generator.normal(size=(rows, 1, 1))
    by_trait = generator.normal(size=(rows, 1, 3))
    return 0.6 * common + 0.6 * by_trait + 0.5 * generator.normal(size=(rows, 12, 3))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: both parts; prints and saves the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=2000, help="label-shuffled replays")
    parser.add_argument("--power", type=int, default=100, help="runs of each d")
    parser.add_argument("--directions", type=int, default=400, help="random sets through a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="the folder of a finished audit")
    parser.add_argument("--output", type=Path, default=RESULTS / "audit_size.csv")
    asked = parser.parse_args(arguments)
    generator = np.random.default_rng(asked.seed)
    audited = of_run(asked.run, generator) if asked.run else simulated(generator)
    rows = size(audited, asked.size, asked.seed + 1)
    save(rows, asked.output)
    if asked.run:
        rows += random_traits.rates(finished(asked.run), asked.directions, generator)
        save(rows, asked.output)
    rows += power(audited, asked.power, asked.seed + 2)
    save(rows, asked.output)
    print(asked.output.read_text())
    for test in ("detection, max-T", "A, max-T"):
        print(f"Smallest d found in 80 % of runs, {test}: {smallest(rows, test):.2f}")


if __name__ == "__main__":
    main()
