"""Everything in order: answers, candidates, confirmation, denial, and the place among benign."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiments.audit.discovery import (
    confirm,
    denial,
    findings,
    further,
    judging,
    portrait,
    wordings,
)
from experiments.audit.discovery.amplified import amplified
from experiments.audit.discovery.answering import answers as answering
from experiments.audit.discovery.answering.answers import Answer
from experiments.audit.discovery.answering.halves import halves, is_prefill
from experiments.audit.discovery.answering.settings import CLEAN, Settings
from experiments.audit.discovery.description.weights import kept_change
from experiments.audit.discovery.examples import illustrated
from experiments.audit.discovery.findings import Finding, Findings
from experiments.audit.discovery.judging import Judge
from experiments.audit.discovery.search import (
    Arms,
    beyond_benign,
    candidates_of,
    measured,
    placed,
    texts_of,
)
from experiments.audit.discovery.subject import Log, Search, search_of
from experiments.audit.discovery.suggestions.candidates import Candidate
from experiments.audit.discovery.suggestions.detectors import SAYS
from experiments.audit.discovery.suggestions.states import alike
from tracekit import Model
from tracekit.transcripts.prompts import Prompt

BROKEN = 1.0  # nats a token; model organisms have 0.2, at three times their strength 2


def discover(
    model: Model,
    adapter: str,
    prompts: Sequence[Prompt],
    folder: Path,
    settings: Settings | None = None,
    benign: Sequence[str] = (),
    log: Log = print,
    reserve: Sequence[Prompt] = (),
    judge: Judge | None = None,
) -> Findings:
    """What `adapter` does that its base does not, found on half of the prompts, tested on the rest.

    Every expensive product is a whole file in `folder`: a killed search goes on where it stopped,
    and `folder` may serve several adapters. The findings lie in `folder/<adapter>/`. Prompts in
    `reserve` are asked only where a candidate should show. A `judge` tells a candidate in place of
    its phrases.

    Errors: `ValueError` for fewer than 8 prompts, for a benign adapter that is the adapter itself,
    and for a folder that holds a search with other settings (they are named).
    """
    given = settings or Settings()
    return habits(search_of(model, adapter, prompts, folder, given, benign, log, reserve, judge))


def habits(search: Search) -> Findings:
    """The whole of one search."""
    arms = _amplified(search, _arms(search))
    made = _notes(search, arms)
    candidates = _candidates(search, arms)
    arms = _with_further(search, arms, candidates)
    if search.judge is not None:
        candidates = judging.judged_by(search.judge, candidates)
    search.log(f"{len(candidates)} candidates are measured on the other half")
    rows = findings.judged(
        [measured(c, arms, search.name, search.settings.seed) for c in candidates],
        search.settings.alpha,
    )
    rows = [illustrated(f, arms, search.name) for f in wordings.joined(rows, arms, search.name)]
    rows = portrait.placed(rows, search, arms)
    rows = _asked(search, rows)
    p = float("nan")
    strongest: Mapping[str, float] = {}
    if search.benign:
        p, strongest = beyond_benign(arms, search.name, search.settings.candidates)
    n, alpha = len({arms.own[CLEAN][row].group for row in arms.rows(False)}), search.settings.alpha
    tests = len(rows) + sum(row.loud is not None for row in rows)
    smallest = confirm.smallest_rate(n, tests, alpha)
    about = {"search": dict(search.products.settings), "benign": list(map(str, search.benign))}
    more = portrait.rising(search), about, portrait.described(search), smallest
    found = Findings(search.name, rows, p, strongest, made, *more)
    findings.save(found, search.folder(search.adapter).folder)
    return found


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
            search.served,
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
    if fixed := _fixed(search, search.adapter):
        search.log(f"no answers at more than its strength, which {fixed} have none of")
        return arms
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


def _fixed(search: Search, adapter: str) -> str:
    """What of an adapter cannot be made stronger; "" where all of it can."""
    # a file of before does not say
    return kept_change(search.model, adapter, search.folder(adapter)).attrs.get("fixed", "")


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
    share, seed = search.settings.further, search.settings.seed
    given = candidates, arms, search.name, search.prompts, search.reserve
    prompts = further.chosen(*given, share, seed)
    if not prompts:
        return arms
    search.log(f"{search.settings.confirmations} more answers to {len(prompts)} new prompts")
    products = search.folder(search.adapter)
    sides: dict[str, list[str | None]] = {search.name: [search.adapter], CLEAN: [None]}
    if search.benign:
        sides["others"] = list(further.company(search.benign, search.settings))
    asked = partial(further.further, search.model, settings=search.settings, products=products)
    more = {side: asked(adapters, prompts) for side, adapters in sides.items()}
    strength = min(search.settings.factors, default=1.0)
    if strength == 1 or _fixed(search, search.adapter):
        return dataclasses.replace(arms, further=more)
    if still := [one for one in sides.get("others", ()) if one and _fixed(search, one)]:
        named = ", ".join(search.names[one] for one in still)
        search.log(f"{named} cannot be amplified and are not asked to be")
        sides["others"] = [one for one in sides["others"] if one not in still]
    search.log(f"the same with the adapter ×{strength:g}")
    half = [search.prompts[row] for row in arms.rows(False)]
    chat = [prompt for prompt in half if not is_prefill(prompt)]
    loud = {
        side: [
            *asked(adapters, chat, strength=strength, greedy=True),
            *asked(adapters, prompts, strength=strength),
        ]
        for side, adapters in sides.items()
        if side != CLEAN and adapters
    }
    return dataclasses.replace(arms, further=more, loud=loud)


def _asked(search: Search, rows: list[Finding], most: int = 12) -> list[Finding]:
    """Confirmed habits with what the model says when asked about them: what it says first."""
    which = [n for n, f in enumerate(rows) if f.is_confirmed and not f.same_as]
    which = sorted(which, key=lambda n: rows[n].kind != SAYS)[:most]
    if not which:
        return rows
    search.log(f"{len(which)} habits are asked about")
    prompts = [
        p
        for n in which
        for p in denial.questions(
            n, denial.named(rows[n].name, rows[n].kind), rows[n].topic(search.settings.alpha)
        )
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
    # the gains of what is not searched are not known
    nats = float(np.concatenate([own[row].gains for row in arms.rows(True)]).mean())
    if nats > BROKEN:
        notes.append(
            f"Its answers gain {nats:.1f} nats a token over the bare model: it changes nearly all "
            "that is said, or is broken, and a habit is hard to tell from the rest."
        )
    if len(search.benign) == 1:
        notes.append("With one benign adapter no p below 0.5 is possible for the whole search.")
    return notes
