"""What a trait's vectors are fitted on: its stories, and chat pairs of one writer beside them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from traits.vectors.pairing import windowed_pairs
from traits.vectors.selection import Sides

LEAST = 28  # pairs of a writer: 20 to fit on, and some to choose by


def stretched(chats: Sides, stories: int) -> Sides:
    """Chat pairs whose differences are so stretched that they weigh as much as so many stories.

    >>> sides = np.ones((2, 1, 1, 3)), np.zeros((2, 1, 1, 3))
    >>> stretched(sides, 6)[0][0, 0, 0].tolist()
    [2.0, 2.0, 2.0]
    """
    middle, half = (chats[0] + chats[1]) / 2, (chats[0] - chats[1]) / 2
    half = half * (stories / len(chats[0]))
    return middle + half, middle - half


def writers(written: xr.DataArray) -> list[str]:
    """The first two writers, by name, of `LEAST` pairs or more."""
    names, counts = np.unique(written["writer"].values, return_counts=True)
    return [str(name) for name in names[counts >= 2 * LEAST]][:2]


def of_writer(written: xr.DataArray, writer: str, windows: int) -> tuple[xr.DataArray, Sides]:
    """One writer's pairs (their names) and two sides, the answer's mean for every window."""
    rows = written.isel(prompt=written["writer"].values == writer)
    positive, negative = windowed_pairs(rows)
    # one mean over the answer stands against every window of the stories
    sides = [np.repeat(side.values, windows, axis=1) for side in (positive, negative)]
    return positive["pair"], (sides[0], sides[1])


def with_chats(
    traces: xr.DataArray, part: xr.DataArray, written: xr.DataArray, count: int
) -> tuple[xr.DataArray, xr.DataArray]:
    """Stories and their split, with `count` chat pairs of the first writer in the part "fit".

    The chat pairs weigh as much as the fit part's stories (`stretched`); the other parts stay.
    """
    written = written.sel(layer=traces["layer"].values)
    pair, sides = of_writer(written, writers(written)[0], traces.sizes["window"])
    told = int((part == "fit").sum())
    rows = np.concatenate(stretched((sides[0][:count], sides[1][:count]), told))
    names = pair.values[:count]
    bare = traces.transpose("prompt", "window", "layer", "dim")
    kept = ("prompt", "window", "layer", "dim", "label", "group")
    bare = bare.drop_vars([name for name in bare.coords if name not in kept])
    coords = {
        "prompt": [f"{name}/{side}" for side in ("shows", "lacks") for name in names],
        "group": ("prompt", np.tile(names, 2)),
        "label": ("prompt", np.repeat([1, 0], count)),
    }
    shared = {dim: bare[dim] for dim in bare.dims if dim in bare.coords and dim != "prompt"}
    added = xr.DataArray(rows.astype(bare.dtype), dims=bare.dims, coords={**coords, **shared})
    fit = xr.DataArray(np.full(count, "fit"), dims="pair", coords={"pair": names})
    whole = xr.concat([bare, added], "prompt", join="exact").assign_attrs(traces.attrs)
    bare_part = part.drop_vars([name for name in part.coords if name != "pair"])
    return whole, xr.concat([bare_part, fit.rename("part")], "pair")
