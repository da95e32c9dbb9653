"""Which prompts fit, choose and report: by group, so that no prompt's twin is on both sides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int, Shaped

from tracekit.errors import InputError
from traits.probes.fitting.rows import require_order

Names = Shaped[np.ndarray, " prompt"]
Classes = Bool[np.ndarray, "prompt target 2"]


def split(
    classes: Classes,
    groups: Names,
    fractions: Mapping[str, float],
    generator: np.random.Generator,
) -> Names:
    """The part of each prompt: whole groups, each class spread over the parts by the fractions.

    >>> classes = np.repeat([[[True, False]], [[False, True]]], 10, axis=0)
    >>> part = split(classes, np.arange(20), {"fit": 0.6, "report": 0.4}, np.random.default_rng(0))
    >>> int((part == "fit").sum()), int((part[:10] == "fit").sum())
    (12, 6)
    """
    _, unit = np.unique(groups, return_inverse=True)
    each = classes.reshape(len(classes), -1).astype(np.float64)
    each = np.concatenate([each, np.ones((len(each), 1))], 1)
    counts = np.zeros((unit.max() + 1, each.shape[1]))
    np.add.at(counts, unit, each)
    share = np.array(list(fractions.values())) / sum(fractions.values())
    room = share[:, None] * counts.sum(0)
    total = np.maximum(counts.sum(0), 1)
    order = generator.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    part = np.empty(len(counts), int)
    for one in order:
        # where most is lacking of what this group has
        part[one] = np.argmax((room / total) @ counts[one])
        room[part[one]] -= counts[one]
    return np.array(list(fractions))[part[unit]]


def group_names(groups: str | xr.DataArray | None, traces: xr.DataArray) -> Names:
    """The group of each prompt: a coordinate's name, an array over prompt, or each its own.

    Errors: `ValueError` for a coordinate that is not there, or an array of other prompts.
    """
    if groups is None:
        return traces["prompt"].values
    if isinstance(groups, str):
        if groups not in traces.coords or traces[groups].dims != ("prompt",):
            raise InputError(
                f"Groups by the coordinate {groups!r} were asked for, and the traces have "
                f"{sorted(map(str, traces.coords))}. Name one over prompt, or give groups=None: "
                "each prompt by itself."
            )
        return traces[groups].values
    return _along(groups, traces, "groups")


def given_parts(part: xr.DataArray, traces: xr.DataArray, groups: Names) -> Names:
    """Parts that the user chose, over prompt: no group may be in two of them.

    Errors: `ValueError` naming a group in two parts.
    """
    names = _along(part, traces, "part").astype(np.str_)
    used = names != ""
    _, unit = np.unique(groups[used], return_inverse=True)
    pairs = np.unique(np.stack([unit, np.unique(names[used], return_inverse=True)[1]]), axis=1)
    doubled = np.flatnonzero(np.bincount(pairs[0].astype(int)) > 1)
    if len(doubled):
        first = np.flatnonzero(unit == doubled[0])
        raise InputError(
            f"{len(doubled)} groups are in more than one part; the first, "
            f"{str(groups[used][first[0]])!r}, in {sorted(set(names[used][first].tolist()))}. "
            "Prompts of one group share what they say: put each group in one part."
        )
    return names


def require_classes(
    classes: Classes,
    part: Names,
    targets: tuple[str, ...] | None,
    needed: Mapping[str, int],
) -> None:
    """Errors: `ValueError` with the numbers where a part has too few prompts of a class."""
    for name, minimum in needed.items():
        for column, counts in enumerate(classes[part == name].sum(0)):
            if min(counts) < minimum:
                everywhere = classes[:, column].sum(0)
                of = f" of target {targets[column]!r}" if targets else ""
                raise InputError(
                    f"The part {name!r} has {counts[0]} prompts labelled 0 and {counts[1]} "
                    f"labelled 1{of}; a probe needs at least {minimum} of each class there. "
                    f"(In all parts: {everywhere[0]} and {everywhere[1]}.) Label more prompts, or "
                    "give other fractions= or part=."
                )


def _along(given: xr.DataArray, traces: xr.DataArray, what: str) -> Names:
    prompts = traces["prompt"].values
    if given.dims != ("prompt",):
        raise InputError(f"{what}= is over (prompt), and was given over {given.dims}.")
    if "prompt" not in given.coords:
        if given.sizes["prompt"] == len(prompts):
            require_order(traces, what)
            return given.values
        lacking = [f"{given.sizes['prompt']} for {len(prompts)}"]
    else:
        # a probe keeps ids as text
        place = {str(name): n for n, name in enumerate(given["prompt"].values.tolist())}
        names = [str(name) for name in prompts.tolist()]
        lacking = sorted(set(names) - set(place))
        if not lacking:
            return given.values[[place[name] for name in names]]
    raise InputError(
        f"{what}= does not have all prompts of the traces ({lacking[0]!r} …). Give one a prompt."
    )


def counts(classes: Classes, part: Names) -> dict[str, Int[np.ndarray, " target"]]:
    """How many prompts of each class are in each part, as `n_<part>_<class>`."""
    return {
        f"n_{name}_{word}": classes[part == name, :, column].sum(0).astype(np.int32)
        for name in dict.fromkeys(part[part != ""].tolist())
        for column, word in enumerate(("negative", "positive"))
    }
