"""The evaluation of trait vectors as a table: one row a trait, no number without its null."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import xarray as xr

from experiments.audit.run import Run
from experiments.audit.vectors import written_table
from traits.vectors.selection import PATH

Row = dict[str, str]
NULLS = {"shuffled": "shuffled pairs", "covariance": "covariance-matched", "placebo": "placebo"}


def write(evaluation: xr.Dataset, folder: Path) -> list[Path]:
    """Write a run's evaluation as a sheet and as text; returns their paths."""
    rows = [row(evaluation.sel(trait=name)) for name in evaluation["trait"].values]
    sheet, page = Run(folder).evaluation_sheet, Run(folder).evaluation_text
    with sheet.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    page.write_text(text(evaluation), "utf-8")
    return [sheet, page]


def row(one: xr.Dataset) -> Row:
    """One trait's numbers: its path, AUROC beside the nulls, nearest rival set, chats."""
    first: Row = {"trait": str(one["trait"].item()), "passed": ["no", "yes"][int(one["passed"])]}
    first |= {
        f"{what}_{part}": str(one["pairs"].sel(part=part).item())
        for what, part in (("n", "fit"), ("n", "select"), ("n", "report"))
    }
    told = {**_path(one), **_rival(one), **_choice(one)}
    return {**first, **told, **_chat(one), **written_table.row(one)}


def text(evaluation: xr.Dataset) -> str:
    """All traits in a few lines each, as `evaluation_text` has them."""
    traits = [str(name) for name in evaluation["trait"].values]
    passed = [name for name in traits if int(evaluation["passed"].sel(trait=name))]
    nulls = [str(name) for name in evaluation["null"].values]
    head = (
        f"{len(passed)} of {len(traits)} traits are above their bands ({', '.join(nulls)}: 95 % of "
        "each, through the same selection). Intervals: 95 %, bootstrap over pairs of the report "
        "part, which neither fit nor selection has seen."
    )
    paragraphs = [_paragraph(evaluation.sel(trait=name)) for name in traits]
    matrices = written_table.matrix(evaluation)
    return "\n\n".join([head, *paragraphs, *([matrices] if matrices else [])]) + "\n"


def _path(one: xr.Dataset) -> Row:
    # the vector that is projected on: the method is fixed beforehand
    method = one.attrs["method"]
    at = one.sel(extraction=method)
    found = {"method": method, **{d: str(at[f"{d}_selected"].item()) for d in ("window", "layer")}}
    found |= _bounds(one, "")
    found |= {
        name: _three(one["estimate"].sel(measure=name)) for name in ("effect_size", "accuracy")
    }
    return {**found, **_nulls(one, ""), "p": _p(one["p"]), "q": _p(one["q"])}


def _rival(one: xr.Dataset) -> Row:
    others = one["transfer"].drop_sel(set=one["trait"].item())
    if not others.size:
        return {"nearest_set": "", "nearest_auroc": ""}
    far = others.isel(set=int(np.abs(others.values - 0.5).argmax()))
    return {"nearest_set": str(far["set"].item()), "nearest_auroc": _three(far)}


def _choice(one: xr.Dataset) -> Row:
    if "open_estimate" not in one:
        return {}
    path = {f"open_{d}": str(one[f"open_selected_{d}"].item()) for d in PATH}
    return {**path, **_bounds(one, "open_"), **_nulls(one, "open_"), "open_p": _p(one["open_p"])}


def _chat(one: xr.Dataset) -> Row:
    if "chat_estimate" not in one:
        return {}
    right = f"{int(one['chat_instructions_right'])} of {int(one['chat_instructions'])}"
    return {
        "chat_pairs": str(int(one["chat_n_report"])),
        **_bounds(one, "chat_"),
        **_nulls(one, "chat_"),
        "chat_p": _p(one["chat_p"]),
        "chat_q": _p(one["chat_q"]),
        "chat_instructions_right": right,
        "chat_passed": ["no", "yes"][int(one["chat_passed"])],
    }


def _paragraph(one: xr.Dataset) -> str:
    found = row(one)
    mark = "" if found["passed"] == "yes" else "  FAILED: left out of the audit's primary set"
    parts = ", ".join(f"{found[f'n_{part}']} {part}" for part in ("fit", "select", "report"))
    lines = [
        f"{found['trait']}{mark}",
        f"  {found['method']}, tokens {found['window']}, layer {found['layer']} ({parts} pairs)",
        f"  AUROC {_shown(found, '')}, p {found['p']}, q {found['q']}",
        f"  farthest from 0.5 on another set: {found['nearest_set']} {found['nearest_auroc']}",
    ]
    if "open_auroc" in found:
        path = ", ".join(found[f"open_{d}"] for d in PATH)
        lines.append(f"  method chosen too ({path}): AUROC {_shown(found, 'open_')}")
    if "chat_auroc" in found:
        lines.append(
            f"  does the model obey ({found['chat_pairs']} instructed chats)? AUROC "
            f"{_shown(found, 'chat_')}, p {found['chat_p']}; right sign in "
            f"{found['chat_instructions_right']} instructions"
        )
    lines += written_table.lines(one)
    for sign, name in (("+", "promoted"), ("−", "demoted")):
        lines.append(f"  {sign} {' '.join(map(repr, one[name].values.tolist()))}")
    said = json.loads(str(one["findings"].item()))
    return "\n".join([*lines, *(f"  {finding}" for finding in said)])


def _bounds(one: xr.Dataset, what: str) -> Row:
    names = {"auroc": "estimate", "auroc_low": "low", "auroc_high": "high"}
    return {
        f"{what}{name}": _three(one[f"{what}{value}"].sel(measure="auroc"))
        for name, value in names.items()
    }


def _nulls(one: xr.Dataset, what: str) -> Row:
    bands = one[f"{what}null_quantile"].sel(level=0.95)
    return {
        f"{what}{short}_95": _three(bands.sel(null=name))
        for short, name in NULLS.items()
        if name in bands["null"].values
    }


def _shown(found: Row, what: str) -> str:
    bands = [
        f"{short} {found[f'{what}{short}_95']}" for short in NULLS if f"{what}{short}_95" in found
    ]
    bounds = f"[{found[f'{what}auroc_low']}, {found[f'{what}auroc_high']}]"
    return f"{found[f'{what}auroc']} {bounds}, bands: {', '.join(bands)}"


def _three(value: xr.DataArray) -> str:
    return f"{float(value):.3f}"


def _p(value: xr.DataArray) -> str:
    return f"{float(value):.2g}"
