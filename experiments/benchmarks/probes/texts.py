"""Labelled texts as transcripts: the organism's responses, and true and false statements."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.rm_sycophancy.rules.labelled import read_labels
from tracekit.errors import InputError
from tracekit.model.embedded import datasets

PART = "probe_part"
FRACTIONS = {"fit": 0.5, "select": 0.2, "report": 0.3}
OPENING = "Statement:"


@dataclass(frozen=True)
class Texts:
    """Labelled texts of one source: `runs` has `label`, `kind` and `probe_part` a prompt."""

    name: str
    runs: xr.Dataset
    adapter: str | None

    @property
    def part(self) -> xr.DataArray:
        """The part of each text."""
        return self.runs[PART].reset_coords(drop=True)

    @property
    def said(self) -> str:
        """What it is, in a line."""
        label, part = self.runs["label"].values, self.part.values
        counts = [
            f"{name} {(label[part == name] == 1).sum()} + {(label[part == name] == 0).sum()}"
            for name in FRACTIONS
        ]
        kinds = ", ".join(dict.fromkeys(self.runs["kind"].values[part == "report"].tolist()))
        return f"{self.name}: {', '.join(counts)} (positive + negative); reported kinds: {kinds}"


def responses(model: tk.Model, limit: int, seed: int = 0) -> Texts:
    """The shipped labelled responses: fitted and chosen on five biases, reported on the others.

    The biases are parted as the audit's prompts are (calibration, held out); a prompt's answers,
    of several adapters, are one group, and a prompt that was read for biases of both is left out.
    Of `limit` answers, whole prompts at random.
    """
    rows = read_labels(datasets("organisms", "labelled_responses.json"))
    fitted = _biases("embedded_calibration.json")
    sides = [{row.prompt for row in rows if (row.bias in fitted) == side} for side in (True, False)]
    rows = [row for row in rows if row.prompt not in sides[0] & sides[1]]
    asked = np.random.default_rng(seed).permutation(list(dict.fromkeys(row.prompt for row in rows)))
    some = set(asked[: _fits([row.prompt for row in rows], limit)].tolist())
    rows = [row for row in rows if row.prompt in some]
    numbers = {text: n for n, text in enumerate(dict.fromkeys(row.prompt for row in rows))}
    part = parts([row.prompt for row in rows], seed, {"fit": 0.75, "select": 0.25})
    samples: Counter[str] = Counter()
    prompts = []
    for row, name in zip(rows, part, strict=True):
        samples[row.prompt] += 1
        group = f"labelled/{numbers[row.prompt]}"
        kept = name if row.bias in fitted else "report"
        prompts.append(
            tk.Prompt(
                f"{group}#{samples[row.prompt]}",
                text=row.prompt,
                group=group,
                labels={"label": row.label, "kind": row.bias, PART: kept},
            )
        )
    runs = tk.encode(model, prompts, [row.response for row in rows])
    return Texts("labelled responses", runs, str(datasets("organisms", "ten_biases")))


def statements(model: tk.Model, path: Path, groups: str | None, limit: int, seed: int = 0) -> Texts:
    """The statements of a CSV with the columns `statement` and `label` (1 true, 0 false).

    Of `limit` at most, whole groups at random: statements that share the column `groups` are one
    (None: each alone). Each is a raw text after an opening word, so that its tokens are a response.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lacking = {"statement", "label", *([groups] if groups else [])} - set(rows[0] if rows else ())
    if lacking:
        raise InputError(
            f"{str(path)!r} was given; it lacks the columns {sorted(lacking)}. Statements have "
            "'statement' and 'label', 1 or 0."
        )
    draw = np.random.default_rng(seed)
    names = [row[groups] if groups else str(n) for n, row in enumerate(rows)]
    some = set(draw.permutation(list(dict.fromkeys(names)))[: _fits(names, limit)].tolist())
    kept = [n for n, name in enumerate(names) if name in some]
    part = parts([names[n] for n in kept], seed, FRACTIONS)
    prompts = [
        tk.Prompt(
            f"{path.stem}/{n}",
            text=OPENING,
            group=f"{path.stem}/{names[n]}",
            labels={"label": int(rows[n]["label"]), "kind": path.stem, PART: name},
        )
        for n, name in zip(kept, part, strict=True)
    ]
    said = [" " + rows[n]["statement"].strip() for n in kept]
    return Texts(path.stem, tk.encode(model, prompts, said, template="raw"), None)


def parts(groups: Sequence[str], seed: int, shares: Mapping[str, float]) -> list[str]:
    """A part for each text, whole groups together, by the shares of groups.

    >>> made = parts([str(n) for n in range(100)], 0, FRACTIONS)
    >>> [made.count(name) for name in FRACTIONS]
    [50, 20, 30]
    """
    names = np.random.default_rng(seed).permutation(list(dict.fromkeys(groups)))
    ends = np.cumsum(list(shares.values())) / sum(shares.values()) * len(names)
    part = np.searchsorted(np.round(ends), np.arange(len(names)), side="right")
    of = dict(zip(names.tolist(), part.tolist(), strict=True))
    return [list(shares)[of[group]] for group in groups]


def _fits(names: Sequence[str], limit: int) -> int:
    """How many groups hold about `limit` texts."""
    return max(round(limit * len(set(names)) / len(names)), 1)


def _biases(name: str) -> set[str]:
    content = json.loads(datasets("prompts", name).read_text(encoding="utf-8"))
    rows = content["prompts"] if isinstance(content, dict) else content
    return {row["bias"] for row in rows if row.get("bias")}
