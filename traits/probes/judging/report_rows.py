"""The responses that a probe is reported on: those that neither fitted nor chose it, labelled."""

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.transcripts.encode import ids_of
from traits.probes.fitting.rows import require_order

Named = xr.DataArray | str | None


def labelled(
    scores: xr.DataArray, labels: xr.DataArray | str, groups: str | None, kinds: Named = None
) -> xr.Dataset:
    """Scores (prompt) with `label`, `group` and, where there are any, `kind`, of labelled rows.

    A name is a coordinate of the scores; an array is aligned by `prompt`. Rows whose label is NaN
    or −1 are left out. Raises ValueError for labels of other prompts, other values than 0 and 1,
    scores that are not finite, and one class only.

    >>> rows = {"prompt": ["a/0", "a/1"], "label": ("prompt", [1, 0])}
    >>> labelled(xr.DataArray([0.5, 0.1], rows, "prompt"), "label", None)["group"].values.tolist()
    ['a/0', 'a/1']
    """
    bare = scores.reset_coords(drop=True)
    label = along(labels, scores, "labels")
    if label.dtype.kind not in "biuf":
        raise InputError(
            f"The labels are {label.dtype} (first: {label.values.ravel()[:1].tolist()}); a "
            "response is 1 (positive), 0 (negative), or NaN (not labelled). Compare with the value "
            "that is the positive class: labels == 'x'."
        )
    rows = xr.Dataset({"score": bare, "label": label.astype(float)})
    named = groups if groups and groups in scores.coords else None
    rows["group"] = ("prompt", scores[named].values if named else np.array(ids_of(scores)))
    if kinds is not None:
        rows["kind"] = along(kinds, scores, "kinds").astype(str)
    known = (rows["label"] >= 0).values
    other = sorted(set(np.unique(rows["label"].values[known]).tolist()) - {0.0, 1.0})
    if other:
        raise InputError(
            f"The labels hold {other[:5]}; a response is 1 (positive), 0 (negative), or NaN (not "
            "labelled). Map them first."
        )
    kept = {name: scores.attrs[name] for name in ("provenance",) if name in scores.attrs}
    if "part_ids" in scores.coords:
        rows["part_ids"] = ("prompt", scores["part_ids"].values)
    rows = rows.isel(prompt=np.flatnonzero(known)).assign_attrs(kept)
    holes = int((~np.isfinite(rows["score"])).sum())
    if holes:
        raise InputError(
            f"{holes} of {rows.sizes['prompt']} labelled responses have a score that is not "
            "finite. Leave out empty responses, or label them NaN."
        )
    return rows


def along(given: xr.DataArray | str, scores: xr.DataArray, what: str) -> xr.DataArray:
    """One value a row of `scores`, by the name of a coordinate or an array with `prompt`.

    >>> scores = xr.DataArray([0.5, 0.1], {"prompt": ["a/0", "a/1"]}, "prompt")
    >>> along(xr.DataArray([0, 1], {"prompt": ["a/1", "a/0"]}, "prompt"), scores, "labels").values
    array([1, 0])
    """
    if isinstance(given, str):
        if given not in scores.coords:
            raise InputError(
                f"The {what} were said to be the coordinate {given!r}, and there are "
                f"{sorted(map(str, scores.coords))}. Name one of these, or give an array."
            )
        return scores[given].reset_coords(drop=True)
    if given.dims != ("prompt",):
        raise InputError(
            f"The {what} have dims {given.dims}; ('prompt',) is due, one value a response."
        )
    if "prompt" not in given.coords or "prompt" not in scores.coords:
        if given.sizes["prompt"] != scores.sizes["prompt"]:
            raise InputError(
                f"There are {given.sizes['prompt']} {what} for {scores.sizes['prompt']} "
                "responses. Give one a response, or label both with 'prompt'."
            )
        require_order(scores, what)
        return xr.DataArray(given.values, scores["prompt"].coords, "prompt")
    names, there = ids_of(scores), set(given["prompt"].values.tolist())
    lacking = [name for name in names if name not in there]
    if lacking:
        raise InputError(
            f"The {what} lack {len(lacking)} of {len(names)} prompts (first: {lacking[0]!r}). "
            "Label them, with NaN where nothing is known."
        )
    return given.reset_coords(drop=True).sel(prompt=scores["prompt"].values)


def refuse_one_class(rows: xr.Dataset) -> None:
    """Errors: `ValueError` for rows to report on that are of one class, or of one score.

    >>> refuse_one_class(xr.Dataset({"label": ("prompt", [1, 0]), "score": ("prompt", [1.0, 0.0])}))
    """
    counts = [int((rows["label"] == side).sum()) for side in (1, 0)]
    if min(counts) == 0:
        raise InputError(
            f"The {sum(counts)} responses to report on have {counts[0]} positive and {counts[1]} "
            "negative labels; both are due. Label more responses, or keep some out of the fit."
        )
    if np.ptp(rows["score"].values) == 0:
        raise InputError(
            f"All {sum(counts)} responses to report on have the score "
            f"{rows['score'].values[0]:.4g}: there is nothing to evaluate. Look at what the probe "
            "was fitted on."
        )
