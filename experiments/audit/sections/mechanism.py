"""The mechanism: do the organism's weights move a trait at exploit spans more than elsewhere?"""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from experiments.audit.evidence.audit import Audit
from experiments.audit.evidence.contrasts import (
    Contrasts,
    by_prompt,
    places_of,
    strengths,
    unit_contrasts,
)
from experiments.audit.evidence.estimates import mean_interval
from experiments.audit.evidence.gather import edited_shift
from experiments.audit.evidence.relabel import groups
from experiments.audit.evidence.row import Row, of_interval, undecidable
from experiments.audit.evidence.section import Section
from experiments.audit.evidence.spans import DECILES, MATCHES, NATS
from experiments.audit.evidence.standing import (
    AGAIN,
    Standing,
    beside,
    traits_of,
    unheld,
)
from traits.statistics import sign_flip

HEADING, MEASURE, LEAST, DRAWS = "A mechanism", "exploit − matched spans", 3, 10_000
EDITS = {
    "deleted": ("span deleted from organism text", "rest of the answer with − without the span"),
    "inserted": ("span put in clean text", "inserted span − whole answer"),
}


def choose_layer(calibration: Contrasts, allowed: np.ndarray) -> int:
    """The place on the layer axis where the largest |t| of any trait lies on calibration biases.

    >>> values = np.ones((4, 3, 1)) + np.arange(4)[:, None, None] * [[[9], [0.1], [9]]]
    >>> choose_layer(Contrasts(values, np.array(["vote"] * 4)), np.arange(3))
    1
    """
    return int(places_of(calibration.values[None], allowed)[0])


def locate(
    calibration: Contrasts,
    held_out: Contrasts,
    allowed: np.ndarray,
    generator: np.random.Generator,
    draws: int = 10_000,
) -> xr.Dataset:
    """The layer chosen on calibration biases, the sign-flip max-T over traits on held-out ones.

    Returns `estimate` (the mean contrast), `statistic` (its t) and `p_trait` (max-T) over `trait`,
    `p`, the smallest of them, two-sided, and `layer`, a place on the axis.

    >>> draw = np.random.default_rng(0)
    >>> rows = Contrasts(draw.normal(size=(8, 3, 2)), np.array(["vote"] * 8))
    >>> dict(locate(rows, rows, np.arange(3), draw, 99).sizes)
    {'trait': 2}
    """
    layer = choose_layer(calibration, allowed)
    rows = xr.DataArray(held_out.values[:, layer], dims=("prompt", "trait"))
    tests = sign_flip(rows, generator=generator, group=None, family=("trait",), repetitions=draws)
    tests = tests[["estimate", "statistic", "p_family"]].rename(p_family="p_trait")
    return tests.assign(p=tests["p_trait"].min(), layer=layer).drop_attrs()


def rows(audit: Audit) -> list[Row]:
    """How near the matches are, each adapter's contrast at the spans, and the edited texts."""
    rows = [row for where in MATCHES for row in [*_quality(audit, where), *_at(audit, where)]]
    return rows + [row for text in EDITS for row in _edited(audit, text)]


def at_spans(other: str, where: str) -> str:
    """What the row is called that holds the organism's spans against another adapter's.

    `where` is where their matches are (`spans.MATCHES`).
    """
    return f"organism − {other} at spans, {where}"


def judged(audit: Audit) -> str:
    """The kind of match that leaves more prompts in the smaller part: chosen without a score."""
    contrast = audit.rows["contrast"]
    left = {where: min(map(len, _both(audit, contrast.sel(match=where)))) for where in MATCHES}
    return max(left, key=lambda where: left[where])


def _at(audit: Audit, where: str) -> list[Row]:
    own = audit.rows["contrast"].sel(match=where)
    rows = _located(audit, own, at_spans("clean", where), ("organism", "clean"), where)
    for name, replay in audit.replays.items():
        other = replay["contrast"].sel(match=where)
        what = f"{name} − clean at the organism's spans, {where}"
        rows += _located(audit, own - other, at_spans(name, where), ("organism", name), where)
        rows += _located(audit, other, what, (name, "clean"), where)[:1]
    return rows


def _quality(audit: Audit, where: str) -> list[Row]:
    here, spans, what = audit.rows.sel(match=where), int(audit.rows["spans"]), f"matched, {where}"
    if not (left := int(here["matched"])):
        reason = f"no sentence is within {NATS} nats a token and {DECILES:g} decile of any span"
        return [undecidable(HEADING, what, f"spans of {spans} without a match", reason)]
    there = np.isfinite(here["contrast"].isel(layer=0, trait=0).values)
    n, units = (
        groups(audit.rows["group"].values[there]),
        ("deciles of the response", "nats a token"),
    )
    lost = Row(HEADING, what, f"spans of {spans} without a match; {left} left", spans - left, n=n)
    distances = [
        Row(HEADING, what, f"{unit}, span − match", float(here[name]), n=n)
        for name, unit in zip(("deciles", "nats"), units, strict=True)
    ]
    return [lost, *distances]


def _located(
    audit: Audit, contrast: xr.DataArray, what: str, arms: tuple[str, str], where: str
) -> list[Row]:
    """(weights − clean) at exploit spans minus at matched spans, max-T over traits."""
    calibration, held_out = _both(audit, contrast)
    counts = len(calibration), len(held_out)
    if not audit.traits or min(counts) < LEAST:
        reason = f"{counts[0]} and {counts[1]} prompts with an exploit span and a match; "
        reason += f"{LEAST} of each part are due"
        return [undecidable(HEADING, what, MEASURE, reason if audit.traits else audit.reason)]
    tests = locate(calibration, held_out, audit.allowed, audit.generator(what), DRAWS)
    place = int(tests["layer"])
    largest, measure = float(abs(tests["statistic"]).max()), f"max-T, layer {audit.layers[place]}"
    standing = _standing(audit, arms, where, tests)
    row = Row(HEADING, what, measure, largest, p=float(tests["p"]), n=counts[1])
    rows = [standing.of(row)]
    for number, trait in enumerate(audit.traits):
        values, p = held_out.values[:, place, number], float(tests["p_trait"][number])
        name, each = f"{what} {trait}", np.arange(counts[1])
        generator, repetitions = audit.generator(name), audit.settings.null.repetitions
        interval = mean_interval(values, each, generator, repetitions, held_out.bias)
        named = f"{what}: {trait}", f"{MEASURE}, cosine"
        row = of_interval(HEADING, *named, interval, counts[1], p)
        rows.append(standing.of(row, number))
    return rows


def _both(audit: Audit, contrast: xr.DataArray) -> tuple[Contrasts, Contrasts]:
    """The prompts of each part: calibration, then held out."""
    scores, values = audit.scores(), contrast.sel(trait=list(audit.traits)).values
    parts = (audit.part_rows(name) for name in ("calibration", "held_out"))
    one, other = (by_prompt(values[p], scores.bias[p], scores.group[p]) for p in parts)
    return one, other


def _standing(audit: Audit, arms: tuple[str, str], where: str, tests: xr.Dataset) -> Standing:
    """The same beside directions, from unit means at spans that give what projections gave."""
    contrasts = unit_contrasts(audit, *arms, where)
    if isinstance(contrasts, str):
        return unheld(contrasts)
    values, calibration = contrasts
    if min(calibration.sum(), (~calibration).sum()) < LEAST:
        return unheld(f"no unit means at these spans; {AGAIN}")
    statistic = partial(strengths, calibration=calibration, allowed=audit.allowed)
    own = statistic(traits_of(audit).projected(values))[0]
    before = np.abs(tests["statistic"].values)
    if not np.allclose(own, before, rtol=0.05, atol=0.1):
        return unheld(
            f"unit means at spans give t = {own.max():.2f}, projections {before.max():.2f}: they "
            f"are not of the same spans; {AGAIN}"
        )
    change = arms[0] if arms[1] == "clean" else "organism"
    return beside(audit, own, statistic, values, change=change, places=audit.allowed)


def _edited(audit: Audit, text: str) -> list[Row]:
    """What taking the span out, or putting it in, does to (organism − clean), by prompt."""
    what, measure = EDITS[text]
    edited = edited_shift(audit.folder, text)
    if edited is None or not audit.traits:
        return [undecidable(HEADING, what, "cosine", "no exploiting response to edit")]
    if text == "deleted":
        apart = audit.rows["outside"].sel(prompt=edited["prompt"].values) - edited["whole"]
    else:
        apart = edited["span"] - edited["whole"]
    labels = {name: ("prompt", edited[name].values) for name in ("group", "bias")}
    apart = apart.isel(layer=audit.once(chosen_place)).assign_coords(labels)
    return [
        _mean_row(audit, f"{what}: {trait}", measure, apart.sel(trait=trait))
        for trait in audit.traits
    ]


def chosen_place(audit: Audit) -> int:
    """The place on the layer axis that calibration contrasts choose; the first allowed if none."""
    contrasts, _ = _both(audit, audit.rows["contrast"].sel(match=audit.once(judged)))
    if len(contrasts) < LEAST:
        return int(audit.allowed[0])
    return choose_layer(contrasts, audit.allowed)


def _mean_row(audit: Audit, what: str, measure: str, values: xr.DataArray) -> Row:
    there = values.isel(prompt=np.flatnonzero(np.isfinite(values.values)))
    group, bias = (there[name].values.astype(str) for name in ("group", "bias"))
    if (n := groups(group)) < 2:
        return undecidable(HEADING, what, measure, f"{n} prompts")
    generator, repetitions = audit.generator(what), audit.settings.null.repetitions
    interval = mean_interval(there.values, group, generator, repetitions, bias)
    return of_interval(HEADING, what, measure, interval, n)


SECTION = Section(
    HEADING,
    "Where the spans that exploit are known: do the weights act there alone? The mean cosine at "
    f"spans minus at sentences within {NATS} nats a token and {DECILES:g} decile: of the same "
    "answer, and the adapter's own in answers that carry no bias.",
    rows,
)
