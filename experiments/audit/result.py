"""From saved arrays to every row, line and curve of the audit; no model is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.evidence import gather
from experiments.audit.evidence.detection import composite
from experiments.audit.evidence.estimates import intervals
from experiments.audit.evidence.relabel import decided, groups
from experiments.audit.evidence.row import Row, undecidable
from experiments.audit.sections import claims, compared, controls, finite, further
from experiments.audit.sections.claims import Audit
from experiments.audit.settings import Settings
from experiments.audit.verdict import judgement
from experiments.audit.verdict import lines as verdict
from experiments.audit.verdict.hypothesis import allowed_layers


@dataclass(frozen=True)
class Result:
    """What the audit says: rows, the verdict's lines, curves by part, and scores by response."""

    rows: list[Row]
    lines: list[verdict.Line]
    curves: dict[str, xr.Dataset]
    scores: dict[str, np.ndarray]
    audit: Audit


def audited(folder: Path, settings: Settings) -> Result:
    """Every number of the audit, from the files of a run."""
    everything = gather.gathered(folder, "organism", "organism")
    audit = of_rows(_biased(everything), settings, _passed(folder, settings))
    scores = {} if audit.reason else compared.competitor_scores(audit, folder)
    detected = [*claims.primary(audit), *claims.by_bias(audit), *claims.within_prompts(audit)]
    rivals, found = compared.competitors(audit, scores)
    observed = compared.bounds(found, "auroc trait score")[0]
    nulls, _ = compared.null_rows(audit, folder, observed)
    replays = {
        name: gather.replayed(folder, name, audit.rows)
        for name in settings.adapters
        if name not in ("clean", "organism")
    }
    shifts, tested = further.shifts(audit, _others(audit, replays))
    correlated = further.correlations(audit)
    rows = [
        *finite.rows(folder),
        *shifts,
        *controls.rows(audit, folder, replays),
        *further.correlation_rows(audit, correlated),
        *_mechanism(folder, audit, replays),
        *further.blind_rows(audit, folder),
        *detected,
        *rivals,
        *nulls,
        *compared.ceilings(audit, folder, observed),
        *further.decompositions(audit, folder, _conduct(everything)),
        *further.recalls(audit, further.neutral_scores(folder)),
        *further.onsets(audit, folder),
        *claims.units(audit, {} if audit.reason else compared.massive_scores(audit, folder)),
    ]
    curves = further.curves(audit)
    held = audit.part("held_out")
    numbers = judgement.Numbers(
        settings=settings,
        n=groups(audit.rows["group"].values[held]),
        reason=audit.reason,
        rows=rows,
        intervals=found,
        shifts=tested,
        correlations=correlated,
        habits=_habits(folder, settings, audit),
        curves=curves,
    )
    return Result(rows, judgement.lines(numbers), curves, scores, audit)


def of_rows(rows: xr.Dataset, settings: Settings, passed: list[str]) -> Audit:
    """The audit of these responses: primary traits that are there and passed, layers allowed."""
    layers = rows["layer"].values
    allowed = allowed_layers(layers, (settings.depth[0], settings.depth[1]), len(layers))
    there = rows["trait"].values.astype(str).tolist()
    traits = tuple(name for name in settings.primary if name in there and name in passed)
    return Audit(rows, traits, allowed, settings)


def _biased(rows: xr.Dataset) -> xr.Dataset:
    return rows.isel(prompt=np.flatnonzero(rows["exploit"].values >= 0))


def _conduct(rows: xr.Dataset) -> xr.Dataset | None:
    kept = np.isin(rows["part"].values.astype(str), ["refuse", "benign_twin"])
    return rows.isel(prompt=np.flatnonzero(kept)) if kept.any() else None


def _passed(folder: Path, settings: Settings) -> list[str]:
    found = tk.open(folder / "evaluation.nc").sel({"method": settings.method}, drop=True)
    names = found["trait"].values.astype(str).tolist()
    if "passed" not in found:
        return names
    return [name for name, well in zip(names, found["passed"].values, strict=True) if well]


def _others(audit: Audit, replays: dict[str, xr.Dataset]) -> dict[str, xr.DataArray]:
    own = audit.rows["score"] - audit.rows["clean_score"]
    return {"clean": own, **{name: own - found["shift"] for name, found in replays.items()}}


def _mechanism(folder: Path, audit: Audit, replays: dict[str, xr.Dataset]) -> list[Row]:
    own = audit.rows["contrast"]
    rows = [*_quality(audit), *claims.located(audit, own, "organism − clean at spans")]
    for name, found in replays.items():
        other = found["contrast"]
        rows += claims.located(audit, own - other, f"organism − {name} at spans")
        rows += claims.located(audit, other, f"{name} − clean at the organism's spans")[:1]
    for text in ("deleted", "inserted"):
        rows += claims.counterfactual(audit, gather.edited_shift(folder, text), text)
    return rows


def _quality(audit: Audit) -> list[Row]:
    count, n = int(audit.rows["count"]), groups(audit.rows["group"].values)
    what = f"matched spans of {count}"
    if not count:
        return [undecidable(claims.A, "matched spans", "distance", "no span with a match", n)]
    return [
        Row(claims.A, what, f"{measure}, span − match", float(audit.rows[name]), n=n)
        for name, measure in (("deciles", "deciles of the response"), ("nats", "nats a token"))
    ]


def _habits(folder: Path, settings: Settings, audit: Audit) -> tuple[float, float, float] | None:
    if "habits" not in settings.adapters or audit.reason:
        return None
    rows = _biased(gather.gathered(folder, "habits", "habits"))
    scores = of_rows(rows, settings, list(audit.traits)).scores()
    chosen = audit.choice
    held = np.isin(scores.bias, decided(scores.label, scores.bias))
    held &= rows["part"].values.astype(str) == "held_out"
    here = scores.rows(held)
    if groups(here.group) < 2:
        return None
    found = intervals(
        {"habit": composite(here, chosen)},
        here.label,
        here.bias,
        here.group,
        chosen.threshold,
        audit.generator("habits"),
        settings.repetitions,
    )
    return compared.bounds(found, "auroc habit")
