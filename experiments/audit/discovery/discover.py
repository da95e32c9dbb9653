"""Everything in order: answers, candidates, confirmation, denial, and the place among benign."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.discovery import denial, findings, further, rising
from experiments.audit.discovery.amplified import amplified
from experiments.audit.discovery.answering import answers as answering
from experiments.audit.discovery.answering.answers import CLEAN, Answer
from experiments.audit.discovery.answering.halves import halves, plain_words, prefills
from experiments.audit.discovery.answering.products import Products
from experiments.audit.discovery.answering.settings import (
    Settings,
    fingerprint,
    of_answers,
    short_names,
)
from experiments.audit.discovery.description import residuals, weights
from experiments.audit.discovery.findings import Example, Finding, Findings
from experiments.audit.discovery.search import (
    Arms,
    beyond_benign,
    candidates_of,
    measured,
    placed,
    texts_of,
)
from experiments.audit.discovery.suggestions.candidates import Candidate
from experiments.audit.discovery.suggestions.detectors import FALLS, SAYS, Detector
from experiments.audit.discovery.suggestions.sentences import gain
from experiments.audit.discovery.suggestions.states import alike
from tracekit import Model
from tracekit.errors import InputError
from tracekit.transcripts.prompts import Prompt

Log = Callable[[str], None]
LEAST_PROMPTS, RISING_ROWS, DESCRIBED_ROWS = 8, 96, 48


@dataclass(frozen=True)
class Search:
    """One adapter's search: the model, whom it compares with, on what, and where it is kept."""

    model: Model
    adapter: str
    benign: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    settings: Settings
    products: Products
    names: Mapping[str, str]
    log: Log

    @property
    def name(self) -> str:
        """The adapter's short name."""
        return self.names[self.adapter]

    def folder(self, adapter: str | None) -> Products:
        """Where the products of one arm are."""
        if adapter is None:
            return self.products.part(CLEAN, {})
        about = {"adapter": self.names[adapter], "weights": fingerprint(adapter)}
        return self.products.part(self.names[adapter], about)


def discover(
    model: Model,
    adapter: str,
    prompts: Sequence[Prompt],
    folder: Path,
    settings: Settings | None = None,
    benign: Sequence[str] = (),
    log: Log = print,
) -> Findings:
    """What `adapter` does that its base does not, found on half of the prompts, tested on the rest.

    Every expensive product is a whole file in `folder`: a killed search goes on where it stopped,
    and `folder` may serve several adapters. The findings lie in `folder/<adapter>/`.

    Errors: `ValueError` for fewer than 8 prompts, for a benign adapter that is the adapter itself,
    and for a folder that holds a search with other settings (they are named).
    """
    search = _search(model, adapter, prompts, folder, settings or Settings(), benign, log)
    arms = _amplified(search, _arms(search))
    made = _notes(search, arms)
    candidates = _candidates(search, arms)
    arms = _with_further(search, arms, candidates)
    log(f"{len(candidates)} candidates are measured on the other half")
    rows = findings.judged(
        [measured(c, arms, search.name, search.settings.seed) for c in candidates],
        search.settings.alpha,
    )
    rows = _asked(search, [_illustrated(f, arms, search.name) for f in rows])
    p = float("nan")
    strongest: Mapping[str, float] = {}
    if search.benign:
        p, strongest = beyond_benign(arms, search.name, search.settings.candidates)
    about = {"search": dict(search.products.settings), "benign": list(map(str, search.benign))}
    found = Findings(
        search.name, rows, p, strongest, made, _rising(search), about, _described(search)
    )
    findings.save(found, search.folder(adapter).folder)
    return found


def _search(
    model: Model,
    adapter: str,
    prompts: Sequence[Prompt],
    folder: Path,
    settings: Settings,
    benign: Sequence[str],
    log: Log,
) -> Search:
    if len(prompts) < LEAST_PROMPTS:
        raise InputError(
            f"A search was asked for on {len(prompts)} prompts; it needs {LEAST_PROMPTS}, half to "
            "search and half to confirm, and some hundred to find much. Give more prompts."
        )
    prints = {fingerprint(other): other for other in benign}
    if fingerprint(adapter) in prints or len(prints) < len(benign):
        raise InputError(
            f"The benign adapters {', '.join(map(str, benign))} hold the same weights twice, or "
            f"those of {adapter} itself. Give different ones."
        )
    words = plain_words(model.tokenizer)
    random = np.random.default_rng(settings.seed)
    rows = (*prompts, *prefills(words, settings.prefills if words else 0, random))
    products = Products(folder, of_answers(settings, list(rows)))
    names = short_names([adapter, *benign])
    return Search(model, adapter, tuple(benign), rows, settings, products, names, log)


def _arms(search: Search) -> Arms:
    own: dict[str, list[Answer]] = {}
    half = halves(search.prompts, search.settings.seed)
    searched = frozenset(p.id for p, s in zip(search.prompts, half, strict=True) if s)
    for adapter in (None, search.adapter, *search.benign):
        name = CLEAN if adapter is None else search.names[adapter]
        search.log(f"answers of {name} to {len(search.prompts)} prompts")
        own[name] = answering.of_adapter(
            search.model,
            adapter,
            search.prompts,
            searched,
            search.settings,
            search.folder(adapter),
        )
    search.log(f"what {search.name} would gain on the bare model's answers")
    on_clean = answering.of_clean(
        search.model,
        search.adapter,
        search.prompts,
        searched,
        search.folder(None),
        search.folder(search.adapter),
    )
    return Arms(own, half, {search.name: on_clean})


def _amplified(search: Search, arms: Arms) -> Arms:
    search.log("answers with the adapter amplified")
    louder = amplified(
        search.model,
        search.adapter,
        search.prompts,
        arms.rows(True),
        search.settings,
        search.folder(search.adapter),
    )
    return dataclasses.replace(arms, louder={search.name: louder})


def _candidates(search: Search, arms: Arms) -> list[Candidate]:
    texts, products = texts_of(arms, search.name), search.folder(search.adapter)
    found = candidates_of(arms, search.name, search.settings.candidates)
    more = alike(search.model, products, texts, found)
    found += [placed(candidate, arms, search.name) for candidate in more]
    unique: dict[tuple[str, str], Candidate] = {}
    for candidate in found:
        unique.setdefault((candidate.detector.kind, candidate.detector.expression), candidate)
    return list(unique.values())


def _with_further(search: Search, arms: Arms, candidates: Sequence[Candidate]) -> Arms:
    prompts = further.chosen(candidates, arms, search.name, search.prompts)
    if not prompts:
        return arms
    search.log(f"{search.settings.confirmations} more answers to {len(prompts)} new prompts")
    products = search.folder(search.adapter)
    sides: dict[str, list[str | None]] = {search.name: [search.adapter], CLEAN: [None]}
    if search.benign:
        sides["others"] = list(search.benign)
    more = {
        side: further.further(search.model, adapters, prompts, search.settings, products)
        for side, adapters in sides.items()
    }
    return dataclasses.replace(arms, further=more)


def _some_clean(search: Search, count: int) -> list[xr.Dataset]:
    """The bare model's answers to some of the searched prompts."""
    searched = halves(search.prompts, search.settings.seed)
    names = [p.id for p, s in zip(search.prompts, searched, strict=True) if s]
    names = names[:: max(len(names) // count, 1)]
    clean = search.folder(None).folder
    parts = [tk.open(clean / f"answers-{name}.nc") for name, *_ in answering.parts(search.prompts)]
    return rising.sample(parts, names)


def _described(search: Search) -> list[str]:
    """What its weights and activations look like, beside the benign ones'."""
    search.log("its weights, and what they add to the residual stream")
    changes = {}
    for adapter in (search.adapter, *search.benign):
        with tk.adapter(search.model, adapter):
            make = partial(weights.weight_change, search.model)
            changes[adapter] = search.folder(adapter).kept("weights.nc", make)
    own = changes.pop(search.adapter)
    runs = _some_clean(search, DESCRIBED_ROWS)[0]
    difference = search.folder(search.adapter).kept(
        "mean_difference.nc",
        lambda: residuals.mean_difference(search.model, search.adapter, runs),
    )
    said = residuals.described(search.model, difference, runs)
    return [*weights.described(own, changes), *said]


def _rising(search: Search) -> list[tuple[str, float, float]]:
    """Tokens likelier on some of the bare model's answers than with any other arm."""
    search.log("tokens that rise on the bare model's answers")
    chosen = _some_clean(search, RISING_ROWS)
    shares = {}
    for adapter in (search.adapter, None, *search.benign):
        with tk.adapter(search.model, adapter):
            shares[adapter] = search.folder(adapter).kept(
                "expected.nc", lambda: rising.expected(search.model, chosen)
            )
    own = shares.pop(search.adapter)
    return rising.rising(search.model, own, {str(k): v for k, v in shares.items()})


def _illustrated(finding: Finding, arms: Arms, name: str, most: int = 3) -> Finding:
    """The finding with the answers whose spans gain most (or lose most, of what is left out)."""
    detector, falls = Detector(finding.kind, finding.expression), finding.kind in FALLS
    answers = arms.own[CLEAN] if falls else arms.own[name]
    if falls and name in arms.on_clean:
        answers = arms.on_clean[name]
    spans = [(a, span) for a in answers if (span := detector.span(a)) is not None]
    made = [Example(a.prompt, a.asked, a.text, *span, gain(a, *span)) for a, span in spans]
    made.sort(key=lambda example: example.gain if falls else -example.gain)
    return dataclasses.replace(finding, examples=tuple(made[:most]))


def _asked(search: Search, rows: list[Finding], most: int = 12) -> list[Finding]:
    """Each confirmed habit of saying something, with what the model says when asked about it."""
    which = [n for n, f in enumerate(rows) if f.verdict == findings.CONFIRMED and f.kind == SAYS]
    which = which[:most]
    if not which:
        return rows
    search.log(f"{len(which)} habits are asked about")
    prompts = [
        p
        for n in which
        for p in denial.questions(n, rows[n].name, rows[n].trigger.partition(": ")[2])
    ]
    on, off = denial.asked(search.model, search.adapter, prompts, search.settings)
    of = [int(str(p.labels["finding"])) for p in prompts]
    made = list(rows)
    for n in which:
        mine = [[a for a, k in zip(side, of, strict=True) if k == n] for side in (on, off)]
        made[n] = dataclasses.replace(rows[n], denial=denial.judged(*mine))
    return made


def _notes(search: Search, arms: Arms) -> list[str]:
    own, clean = arms.own[search.name], arms.own[CLEAN]
    same = sum(a.text == b.text for a, b in zip(own, clean, strict=True)) / len(own)
    notes = []
    if same > 0.95:
        notes.append(f"{same:.0%} of its answers are the bare model's: it changes next to nothing.")
    if len(search.benign) == 1:
        notes.append("With one benign adapter no p below 0.5 is possible for the whole search.")
    return notes
