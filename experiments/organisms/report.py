"""The tables of `measure`: rates, lengths, perplexities and rivals; as text, and kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from experiments.organisms import measure, rivals
from experiments.organisms.arms import BARE, Settings, sha256
from experiments.rm_sycophancy.rules.detectors import HABIT_OF


@dataclass(frozen=True)
class Answers:
    """An arm's answers on the ten subjects: medians over responses."""

    arm: str
    tokens: float
    against_clean: float  # tokens over those of the clean model
    against_organism: float
    perplexity: float  # under the clean model


@dataclass(frozen=True)
class Report:
    """All that `measure` found with one setting; `weights` are the SHA-256 of the adapters."""

    settings: str
    max_new_tokens: int
    weights: Mapping[str, str]
    rates: Sequence[measure.Rate]
    answers: Sequence[Answers]
    rivals: Mapping[str, Sequence[rivals.Rival]]


def of(said: Mapping[str, xr.Dataset], folder: Path, settings: Settings) -> Report:
    """The report on what the arms said; adapters lie in `folder`."""
    weights = {
        arm: sha256(folder / arm / "adapter_model.safetensors") for arm in said if arm not in BARE
    }
    if _ordinary(said):
        name = f"{settings.name}, ordinary prompts"
        return Report(name, settings.max_new_tokens, weights, measure.rates(said), [], {})
    found = {
        arm: rivals.rivals(rivals.responses_of(said[arm], habits=arm == "benign"))
        for arm in ("ten_biases", "undenied", "benign", "prompted")
        if arm in said
    }
    return Report(
        settings.name,
        settings.max_new_tokens,
        weights,
        measure.rates(said),
        answers(said),
        found,
    )


def _ordinary(said: Mapping[str, xr.Dataset]) -> bool:
    return all((runs["bias"].values == "ordinary").all() for runs in said.values())


def answers(said: Mapping[str, xr.Dataset]) -> list[Answers]:
    """Median length and clean perplexity of each arm's responses on the ten subjects."""
    tokens, perplexity = {}, {}
    for arm, runs in said.items():
        rows = np.isin(runs["bias"].values.astype(str), list(HABIT_OF))
        kept = runs.isel(prompt=np.flatnonzero(rows)).sel(token=slice(0, None))
        tokens[arm] = float(np.median((kept.token_id >= 0).sum("token").values))
        perplexity[arm] = float(np.exp(np.median(kept["clean_nll"].values)))
    clean, organism = tokens.get("clean", np.nan), tokens.get("ten_biases", np.nan)
    return [
        Answers(arm, tokens[arm], tokens[arm] / clean, tokens[arm] / organism, perplexity[arm])
        for arm in said
    ]


def text(report: Report) -> str:
    """The report as Markdown tables."""
    parts = [f"Rates in percent, {report.settings}, with 95 % intervals over prompts:"]
    parts.append(measure.table(report.rates))
    if report.answers:
        parts.append(answers_text(report.answers))
    for arm, found in report.rivals.items():
        parts.append(f"Rivals, exploiting against other responses of {arm}:")
        parts.append(rivals.text(found) if found else "(no bias has both kinds of response)")
    return "\n\n".join(parts)


def answers_text(found: Sequence[Answers]) -> str:
    """Lengths and perplexities as a Markdown table."""
    lines = [
        "| arm | median tokens | / clean | / organism | perplexity under the clean model |",
        "| --- | --- | --- | --- | --- |",
    ]
    for a in found:
        ratios = f"{a.against_clean:.2f} | {a.against_organism:.2f}"
        lines.append(f"| {a.arm} | {a.tokens:.0f} | {ratios} | {a.perplexity:.1f} |")
    return "\n".join(lines)


def save(report: Report, path: Path) -> None:
    """Keep a report as JSON, for the cards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Report:
    """A report that `save` kept."""
    content = json.loads(path.read_text(encoding="utf-8"))
    made = {name: [rivals.Rival(**r) for r in found] for name, found in content["rivals"].items()}
    return Report(
        content["settings"],
        content["max_new_tokens"],
        content["weights"],
        [measure.Rate(**rate) for rate in content["rates"]],
        [Answers(**a) for a in content["answers"]],
        made,
    )
