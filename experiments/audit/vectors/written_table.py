"""The rows of a trait on answers that people wrote: each source of vectors, in both its forms."""

from __future__ import annotations

import xarray as xr

Row = dict[str, str]
NULLS = {"shuffled": "shuffled pairs", "covariance": "covariance-matched", "placebo": "placebo"}
SHORT = {"stories": "stories", "stories + chats": "both", "chats": "chats"}
SHORT |= {"all constructions": "told", "all constructions + chats": "told_both"}
FORMS = {"as fitted": "", "orthogonal": "orthogonal_"}


def row(one: xr.Dataset) -> Row:
    """One trait's numbers on written answers, the mean of both ways between the writers.

    `written_<source>_<form>` with AUROC, AUROC within pairs, the 95 % band of each null and the
    specificity on chats and on stories, and the AUROC on its stories by construction; and why
    there are none, where there are none.
    """
    if "written_reason" not in one:
        return {}
    found: Row = {"written_undecided": str(one["written_reason"].item())}
    if "written_estimate" not in one:
        return found
    for source, short in SHORT.items():
        for form, mark in FORMS.items() if source in one["source"].values else ():
            at = one.sel(source=source, form=form)
            found |= {f"written_{short}_{mark}{k}": v for k, v in _numbers(at).items()}
    return found


def lines(one: xr.Dataset) -> list[str]:
    """The same as a paragraph's lines.

    >>> lines(xr.Dataset({"written_reason": "no chat pairs"}))
    ['  written answers: undecided (no chat pairs)']
    """
    found = row(one)
    if found.get("written_undecided"):
        return [f"  written answers: undecided ({found['written_undecided']})"]
    said = ["  written answers, fitted on one writer and judged on the other:"] if found else []
    there = one["source"].values.tolist() if found else []
    for source in there:
        short = SHORT[source]
        for form, mark in FORMS.items():
            at = {k: found.get(f"written_{short}_{mark}{k}", "") for k in _COLUMNS}
            bands = [f"{name} {at[f'{name}_95']}" for name in NULLS if at[f"{name}_95"]]
            beyond = f"{at['specificity_chats']} (chats), {at['specificity_stories']} (stories)"
            said.append(
                f"    {source}, {form}, layers {at['layers']}: AUROC {at['auroc']}, within pairs "
                f"{at['within']}, bands: {', '.join(bands)}; specificity {beyond}; stories by "
                f"construction {', '.join(_by_construction(found, f'written_{short}_{mark}'))}"
            )
    return said


def _by_construction(found: Row, before: str) -> list[str]:
    """Each construction's name and AUROC; `stories` are those that stop before the trait shows."""
    mark = f"{before}auroc_"
    return [f"{k.removeprefix(mark)} {v}" for k, v in found.items() if k.startswith(mark)]


_COLUMNS = (
    *("layers", "auroc", "within", "specificity_chats", "specificity_stories"),
    *(f"{name}_95" for name in NULLS),
)


def matrix(evaluation: xr.Dataset) -> str:
    """The AUROC of each trait's vector on every trait's pairs, by kind, source and form, as text.

    Empty without written answers.
    """
    if "written_areas" not in evaluation:
        return ""
    areas = evaluation["written_areas"]
    decided = areas["trait"].values[[not str(why) for why in evaluation["written_reason"].values]]
    areas = areas.sel(trait=decided, trait_other=decided)
    return "\n\n".join(
        _block(areas.sel(kind=kind, source=source, form=form), kind, source, form)
        for kind in areas["kind"].values
        for source in areas["source"].values
        for form in areas["form"].values
    )


def _block(areas: xr.DataArray, kind: str, source: str, form: str) -> str:
    names = [str(name).rpartition("/")[2] for name in areas["trait"].values]
    head = f"AUROC on the {kind} of (across), of vectors of {source}, {form}, of (down)"
    width = max(map(len, names))
    across = " ".join(f"{name[:6]:>6}" for name in names)
    rows = [
        f"{name:<{width}} " + " ".join(f"{value:6.2f}" for value in values)
        for name, values in zip(names, areas.values, strict=True)
    ]
    return "\n".join([head, f"{'':<{width}} {across}", *rows])


def _numbers(at: xr.Dataset) -> Row:
    estimate = at["written_estimate"].mean("writer")
    found = {
        "auroc": estimate.sel(written_measure="auroc"),
        "within": estimate.sel(written_measure="within pairs"),
    }
    if "written_null_95" in at:
        bands = at["written_null_95"].mean("writer").sel(written_measure="auroc")
        there = bands["null"].values
        found |= {f"{k}_95": bands.sel(null=name) for k, name in NULLS.items() if name in there}
    for kind in ("chats", "stories"):
        found[f"specificity_{kind}"] = at["written_specificity"].sel(kind=kind)
    own = at["written_areas"].sel(trait_other=at["trait"])
    for kind in at["kind"].values:
        if kind != "chats":
            found[f"auroc_{kind}"] = own.sel(kind=kind)
    layers = "/".join(map(str, at["written_selected_layer"].values))
    return {"layers": layers, **{name: f"{float(value):.3f}" for name, value in found.items()}}
