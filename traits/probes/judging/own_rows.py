"""Which rows fitted or chose a probe: by their ids and groups, and by what they hold."""

from collections.abc import Collection

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.provenance import read
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.selection import AUTOMATIC

USED = ("fit", "select")


def parts_of(probe: xr.Dataset, rows: xr.Dataset) -> tuple[np.ndarray, list[str]]:
    """The part of each row in the probe's own split, and what could not be told of it, in words.

    A row is known by its id, or by its `group` where the probe keeps those; "report" are all
    that neither fitted nor chose it. Ids that any set of plain texts has (`text/0`) say nothing
    of another set: there a row is the probe's where its token ids are.

    Errors: `ValueError` where a prompt's samples (its `group`) lie in the report and elsewhere.

    >>> part = xr.DataArray(["fit"], {"prompt": ["a/0"]}, "prompt")
    >>> rows = xr.Dataset({"group": ("prompt", ["x", "y"])}, {"prompt": ["a/0", "a/1"]})
    >>> parts_of(xr.Dataset({"part": part}), rows)[0].tolist()
    ['fit', 'report']
    """
    names = ids_of(rows)
    if "part" not in probe:
        told = "the probe does not say which responses fitted it: they may be among these"
        return np.full(len(names), "report"), [told]
    own, part = ids_of(probe["part"]), probe["part"].values.astype(str).tolist()
    known = dict(zip(own, part, strict=True))
    whole: dict[str, str] = {}  # "fit" last: it is what a group of several parts is taken for
    groups = probe["part_group"].values.astype(str).tolist() if "part_group" in probe else []
    for word in reversed(USED):
        whole |= {group: word for group, one in zip(groups, part, strict=False) if one == word}
    other = _another_set(probe, rows)
    same, unsure = _of_one_content(probe, rows)
    parts = []
    for n, (name, group) in enumerate(zip(names, rows["group"].values.astype(str), strict=True)):
        automatic = [bool(other and AUTOMATIC.fullmatch(one)) for one in (name, group)]
        found = known.get(name) if not automatic[0] or n in same else None
        found = found or (whole.get(group) if not automatic[1] or n in same else None)
        parts.append(found if found in USED else "report")
    given = np.array(parts, dtype=np.str_)
    _refuse_both(rows["group"].values, np.isin(given, USED))
    return given, _findings(probe, names, known, other, unsure)


def _another_set(probe: xr.Dataset, rows: xr.Dataset) -> bool | None:
    """Whether rows were encoded of other prompts than the probe's; None where it is not known."""
    mine = (read(probe).get("source") or {}) if "provenance" in probe.attrs else {}
    theirs = read(rows) if "provenance" in rows.attrs else {}
    both = mine.get("prompts"), theirs.get("prompts")
    return None if None in both else both[0] != both[1]


def _of_one_content(probe: xr.Dataset, rows: xr.Dataset) -> tuple[set[int], set[int]]:
    """Of the rows that have an id of the probe's: those with the same token ids (numbers), and
    those of which this is not known."""
    own = dict(zip(ids_of(probe["part"]), _texts(probe), strict=True))
    same: set[int] = set()
    unsure: set[int] = set()
    for n, (name, text) in enumerate(zip(ids_of(rows), _texts(rows), strict=True)):
        mine = own.get(name)
        if mine and mine == text:
            same.add(n)
        elif mine == "" or (mine and mine.partition(" ")[0] != text.partition(" ")[0]):
            unsure.add(n)
    return same, unsure


def _texts(rows: xr.Dataset) -> list[str]:
    there = "part_ids" in rows.variables
    return rows["part_ids"].values.astype(str).tolist() if there else [""] * rows.sizes["prompt"]


def _refuse_both(groups: np.ndarray, used: np.ndarray) -> None:
    both = set(groups[used].tolist()) & set(groups[~used].tolist())
    if both:
        raise InputError(
            f"{len(both)} groups have samples that fitted or chose the probe and samples to "
            f"report on (first: {sorted(map(str, both))[0]!r}): these would be recognised, not "
            "told. Split by group (traits.fit does), or leave these prompts out."
        )


def _findings(
    probe: xr.Dataset,
    names: list[str],
    known: dict[str, str],
    other: bool | None,
    unsure: Collection[int],
) -> list[str]:
    told = []
    if "part_group" not in probe:
        told.append("responses that fitted the probe are known by their ids alone, not by group")
    automatic = [n for n, one in enumerate(names) if one in known and AUTOMATIC.fullmatch(one)]
    unsure = [n for n in automatic if other is None or n in unsure]
    if unsure:
        told.append(
            f"{len(unsure)} responses have ids such as {names[unsure[0]]!r}, which any set of "
            "plain texts has, as some have that fitted the probe; whether they are the same is "
            f"not known: they are {'taken for others' if other else 'known by these'}"
        )
    return told
