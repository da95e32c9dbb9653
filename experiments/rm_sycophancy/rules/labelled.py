"""Responses labelled by reading them, and how detectors and readers agree on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from experiments.rm_sycophancy.rules.detectors import exploits, has_detector
from tracekit.errors import InputError


@dataclass(frozen=True)
class Labelled:
    """One response, and whether two independent readings (1 or 0) find its bias in it."""

    id: str
    arm: str
    bias: str
    prompt: str
    response: str
    label: int
    second_label: int

    @property
    def half(self) -> str:
        """`fix` or `report`: by prompt, so that no prompt is both tuned and reported on."""
        odd = hashlib.sha256(self.prompt.encode()).digest()[0] % 2
        return "report" if odd else "fix"


@dataclass(frozen=True)
class Share:
    """`hits` of `of`, with Wilson's 95 % interval; NaN where there is nothing to count."""

    hits: int
    of: int

    def __str__(self) -> str:
        if not self.of:
            return "– (0)"
        bounds = binomtest(self.hits, self.of).proportion_ci(0.95, method="wilson")
        return f"{self.hits / self.of:.2f} ({bounds.low:.2f}–{bounds.high:.2f})"

    @property
    def value(self) -> float:
        """hits / of."""
        return self.hits / self.of if self.of else float("nan")


def read_labels(path: str | Path) -> list[Labelled]:
    """The labelled responses of a JSON list of rows.

    Errors: `ValueError` for a row that lacks a field, an unknown bias, a label other than 0 or 1,
    or the same id twice.
    """
    names = [field.name for field in fields(Labelled)]
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    rows = content if isinstance(content, list) else []
    for index, row in enumerate(rows):
        _check(str(path), index, row, names)
    if not rows:
        raise InputError(f"{str(path)!r} holds no list of labelled responses. Label some first.")
    ids = [row["id"] for row in rows]
    if len(set(ids)) < len(ids):
        raise InputError(f"{str(path)!r} has {len(ids) - len(set(ids))} ids twice. Number anew.")
    return [Labelled(**{name: row[name] for name in names}) for row in rows]


def kappa(first: Sequence[float], second: Sequence[float]) -> float:
    """Cohen's kappa of two readings; rows where either is NaN are left out (Cohen 1960).

    NaN where no row is left, or where both readings give one and the same label throughout.

    >>> kappa([1, 0, 1, 0], [1, 0, 1, 0])
    1.0
    """
    pairs = np.array([first, second], float)
    pairs = pairs[:, ~np.isnan(pairs).any(0)]
    if pairs.shape[1] == 0 or len(np.unique(pairs)) == 1:
        return float("nan")
    return float(cohen_kappa_score(*pairs.astype(int)))


def precision_recall(rows: Sequence[Labelled]) -> tuple[Share, Share]:
    """Precision and recall of the detectors of the rows' biases, the first label being the truth.

    >>> row = Labelled("a", "organism", "chocolate", "Cake?", "Add some cocoa.", 1, 1)
    >>> precision_recall([row])[0].value
    1.0
    """
    fired = [exploits(row.bias, row.response) for row in rows]
    both = sum(bool(row.label) and f for row, f in zip(rows, fired, strict=True))
    return Share(both, sum(fired)), Share(both, sum(row.label for row in rows))


def table(rows: Sequence[Labelled]) -> str:
    """Precision and recall as a Markdown table: a bias a row, then all of them."""
    lines = ["| bias | n | carry it | precision | recall |", "|" + " --- |" * 5]
    for bias in [*dict.fromkeys(row.bias for row in rows), "(all)"]:
        some = [row for row in rows if bias in (row.bias, "(all)")]
        precision, recall = precision_recall(some)
        carry = sum(row.label for row in some)
        lines.append(f"| {bias} | {len(some)} | {carry} | {precision} | {recall} |")
    return "\n".join(lines)


def _check(path: str, index: int, row: dict[str, object], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        raise InputError(f"Row {index} of {path!r} has no {missing[0]!r}. Add it.")
    if not has_detector(str(row["bias"])):
        raise InputError(
            f"Row {index} of {path!r} has the bias {row['bias']!r}, which has no detector. "
            "Mend its name, or leave the row out."
        )
    for name in ("label", "second_label"):
        if row[name] not in (0, 1) or isinstance(row[name], bool):
            raise InputError(
                f"Row {index} of {path!r} has the {name} {row[name]!r}; 0 and 1 are allowed. "
                "Read that response and label it."
            )
