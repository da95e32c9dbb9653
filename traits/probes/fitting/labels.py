"""Labels of prompts, tokens or spans, for one target or several, matched to traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from tracekit.errors import InputError
from traits.probes.fitting.rows import Source, require_order


@dataclass(frozen=True)
class Labels:
    """1, 0 or NaN (not labelled) of each prompt and target, and of each token where they are.

    `token` is (prompt, token, target), or `None` where prompts are labelled as wholes; `prompt` is
    then the label given, and else 1 where any token is 1.
    """

    prompt: Float[np.ndarray, "prompt target"]
    token: Float[np.ndarray, "prompt token target"] | None
    targets: tuple[str, ...] | None
    name: str

    @property
    def classes(self) -> Bool[np.ndarray, "prompt target 2"]:
        """Whether a prompt has the label 0, and whether 1: both, where its tokens have both."""
        of = self.prompt[:, None] if self.token is None else self.token
        return np.stack([(of == value).any(1) for value in (0, 1)], -1)

    def columns(self, targets: Int[np.ndarray, " column"]) -> Labels:
        """The labels of these targets by number, one a column, however often."""
        token = None if self.token is None else self.token[..., targets]
        return replace(self, prompt=self.prompt[:, targets], token=token, targets=None)


def matched(
    given: xr.DataArray | str | Sequence[str],
    held: Source,
    targets: Sequence[str] | None = None,
) -> Labels:
    """Labels matched to the traces by prompt (and token).

    Errors: `ValueError` for other prompts or tokens than the traces', values but 0, 1 and NaN, and
    targets that are not there.

    >>> from traits.probes.fitting.rows import source
    >>> held = source(clean, slice(0, None))
    >>> matched(xr.DataArray([1, 0, 0], dims="prompt"), held).prompt.ravel().tolist()
    [1.0, 0.0, 0.0]
    """
    given, name = _named(given, held)
    given = _onto(given, held)
    names = _targets(given, targets)
    if names is not None:
        given = given.sel(target=list(names)) if "target" in given.coords else given
    else:
        given = given.expand_dims("target")
    per_token = "token" in given.dims
    order = ("prompt", "token", "target") if per_token else ("prompt", "target")
    values = _numbers(given.transpose(*order), name)
    if not per_token:
        return Labels(values, None, names, name)
    values = np.where(held.real[..., None], values, np.nan)
    prompt = np.where(np.isnan(values).all(1), np.nan, np.nan_to_num(values, nan=0.0).max(1))
    return Labels(prompt, values, names, name)


def _named(given: xr.DataArray | str | Sequence[str], held: Source) -> tuple[xr.DataArray, str]:
    if isinstance(given, xr.DataArray):
        return given, str(given.name or "label")
    names = [given] if isinstance(given, str) else list(given)
    lacking = [name for name in names if name not in held.traces.coords]
    if lacking or not names:
        raise InputError(
            f"The labels {names} were asked for, and the traces have the coordinates "
            f"{sorted(map(str, held.traces.coords))}. Name one of them, or give a DataArray over "
            "prompt."
        )
    arrays = [held.traces[name].reset_coords(drop=True) for name in names]
    if isinstance(given, str):
        return arrays[0], given
    index = xr.DataArray(np.array(names), dims="target", name="target")
    return xr.concat(arrays, index, coords="minimal", compat="override"), ",".join(names)


def _onto(given: xr.DataArray, held: Source) -> xr.DataArray:
    dims, allowed = set(given.dims), {"prompt", "token", "target"}
    if "prompt" not in dims or not dims <= allowed or ("token" in dims and held.flat):
        raise InputError(
            f"The labels have the dims {given.dims}; they are over (prompt), (prompt, token), "
            f"(prompt, target) or all three, and the traces have "
            f"{'no tokens' if held.flat else 'tokens'}."
        )
    for dim in ("prompt", "token") if "token" in dims else ("prompt",):
        given = _aligned(given, held.traces, dim)
    return given


def _aligned(given: xr.DataArray, traces: xr.DataArray, dim: str) -> xr.DataArray:
    if dim not in given.coords or dim not in traces.coords:
        if given.sizes[dim] == traces.sizes[dim]:
            if dim == "prompt":
                require_order(traces, "labels")
            return given
        raise InputError(
            f"The labels have {given.sizes[dim]} along {dim!r} and the traces "
            f"{traces.sizes[dim]}. Give a label for each, with the traces' coordinate {dim!r}."
        )
    theirs, mine = given[dim].values.tolist(), traces[dim].values.tolist()
    lacking = sorted(set(mine) - set(theirs), key=str)
    over = sorted(set(theirs) - set(mine), key=str) if dim == "prompt" else []
    if lacking or over or len(set(theirs)) < len(theirs):
        raise InputError(
            f"The labels do not match the traces along {dim!r}: {len(lacking)} of {len(mine)} have "
            f"no label (first: {lacking[:1]}), {len(over)} labels are of none (first: "
            f"{over[:1]}). Label the traces' own, NaN where there is none."
        )
    return given.sel({dim: traces[dim].values})


def _targets(given: xr.DataArray, targets: Sequence[str] | None) -> tuple[str, ...] | None:
    if "target" not in given.dims:
        if targets is not None:
            raise InputError(
                f"The targets {list(targets)} were asked for, and the labels have the dims "
                f"{given.dims}. Give labels over (prompt, target)."
            )
        return None
    numbered = [str(n) for n in range(given.sizes["target"])]
    known = [str(n) for n in given["target"].values] if "target" in given.coords else numbered
    lacking = [name for name in targets or [] if name not in known]
    if lacking:
        raise InputError(
            f"The targets {lacking} were asked for; the labels have {known}. Choose among those."
        )
    return tuple(known if targets is None else targets)


def _numbers(given: xr.DataArray, name: str) -> np.ndarray:
    if given.dtype.kind not in "biuf":
        raise InputError(
            f"The labels {name!r} are {given.dtype}; a label is 1 (or true), 0 (or false) or NaN, "
            "not labelled. Compare with the value that is the positive class: labels == 'x'."
        )
    values = given.values.astype(np.float64)
    other = np.unique(values[~np.isnan(values) & (values != 0) & (values != 1)])
    if len(other):
        raise InputError(
            f"The labels {name!r} have the values {other[:5].tolist()}; a label is 1, 0 or NaN, "
            "not labelled. Compare with the value that is the positive class."
        )
    return values
