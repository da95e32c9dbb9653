"""`view`: any labelled array as coloured tokens, in a notebook or as one file."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tracekit.storage.files import whole
from tracekit.transcripts.encode import own_names
from tracekit.viewer import given
from tracekit.viewer.packing import Scale, blocks, packed, words

# bytes of numbers that a notebook keeps; the file has all
INLINE = 4_000_000
HEIGHT = 560


@dataclass(frozen=True)
class View:
    """Coloured tokens of one array, or of several to be compared; made by `view`.

    A notebook shows it, without a server and after a reload; `save` writes one HTML file.
    """

    arrays: Mapping[str, xr.DataArray]
    title: str
    data: Mapping[str, Any]
    captions: Mapping[str, str]
    marked: Mapping[str, xr.DataArray]
    scale: Scale

    def save(self, path: str | Path) -> Path:
        """Write one HTML file that opens from disk, without a network.

        Errors: `ValueError` for a name of another format (x.pdf), `OSError` for a place that cannot
        be written.

        >>> view(tk.logprobs(model, runs)).save(path.with_suffix(".html")).suffix
        '.html'
        """
        path = given.page_name(path)
        made = self.page().encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path, len(made)) as part:
            part.write_bytes(made)
        return path

    def page(self, rows: int | None = None) -> str:
        """The whole HTML page, of the first `rows` prompts or all."""
        template = _environment().get_template("page.html")
        return template.render(title=self.title, fragment=self.fragment(rows))

    def fragment(self, rows: int | None = None) -> Markup:
        """What a page of one's own puts into its body: styles, pickers, rows, script.

        A page holds one. Nothing that a model wrote survives into the markup.
        """
        style, script = (Markup(_file(name)) for name in ("style.css", "script.js"))
        data = {**self.data, "prompts": self._prompts(rows)}
        made = self._rows(rows)
        template = _environment().get_template("fragment.html")
        first = list(itertools.islice(made, len(self.arrays)))
        return Markup(
            template.render(data=data, first=first, rest=made, style=style, script=script)
        )

    def _repr_html_(self) -> str:
        rows, most = self._inline()
        note = "" if rows == most else f"<p>The first {rows} of {most} prompts; .save has all.</p>"
        page = html.escape(self.page(rows), quote=True)
        return (
            f'{note}<iframe srcdoc="{page}" sandbox="allow-scripts" '
            f'style="width:100%;height:{HEIGHT}px;border:0"></iframe>'
        )

    def _inline(self) -> tuple[int, int]:
        most = max(array.sizes["prompt"] for array in self.arrays.values())
        row = sum(math.prod(array.shape[1:]) for array in self.arrays.values())
        return min(most, max(1, INLINE // row)), most

    def _prompts(self, rows: int | None) -> dict[str, list[dict[str, Any]]]:
        """Of each array, its prompts: the id, its group, and what is known of it in words."""
        return {
            name: [
                {"id": str(prompt), "group": group, "labels": labels, "asked": self._asked(prompt)}
                for prompt, group, labels in given.described(array.isel(prompt=slice(0, rows)))
            ]
            for name, array in self.arrays.items()
        }

    def _asked(self, prompt: str) -> str:
        told = (self.captions.get(name, "") for name in own_names(prompt))
        return next((one for one in told if one), "")

    def _rows(self, rows: int | None) -> Iterator[dict[str, Any]]:
        """Row by row, of every array in turn: its words and its numbers."""
        turns = []
        for number, (name, array) in enumerate(self.arrays.items()):
            some = array.isel(prompt=slice(0, rows))
            turns.append(self._of(number, some, self.marked.get(name)))
        for turn in itertools.zip_longest(*turns):
            yield from filter(None, turn)

    def _of(
        self, number: int, array: xr.DataArray, marked: xr.DataArray | None
    ) -> Iterator[dict[str, Any]]:
        there = given.present(array)
        for row, codes in enumerate(packed(array, there, self.scale)):
            made = words(array, there, row)
            if marked is not None:
                here = marked.sel(prompt=array["prompt"].values[row]).values
                made["marked"] = np.flatnonzero(here[there[row]]).tolist()
            yield {"name": f"row-{number}-{row}", "words": made, "codes": codes}


def view(
    array: xr.DataArray | Mapping[str, xr.DataArray],
    path: str | Path | None = None,
    *,
    marked: str | xr.DataArray | None = None,
    captions: Mapping[str, str] | None = None,
    start: Mapping[str, Any] | None = None,
    chosen: xr.DataArray | None = None,
    centre: float | None = None,
    title: str = "Token by token",
) -> View:
    """Coloured tokens of any (prompt, token[, layer, trait, …]) array, a picker for each dim.

    `array` has `token_text`, as all that `capture`, `project`, `logprobs`, `traits.score` and
    `find` (a selection, coloured where it is true) give has; several by name (arms of an audit, a
    model with and without its adapter) are shown one above the other on one scale, a prompt beside
    its like of the same `group`. `marked` underlines tokens: a boolean array (prompt, token), such
    as of `tk.find`, or the name of a coordinate. `captions` says more of a prompt, such as its
    question, by id. `start` is what is picked first (`{"layer": 12}`), `chosen` the value of one
    dim for each of another (the layer of each trait, an array named `layer` over `trait`). A colour
    is the distance from `centre` (by default the mean of what is picked, over all prompts; 0 of a
    selection); 2.5 deviations are full.

    Returns a `View`: the last line of a notebook's cell shows it (the first prompts, up to 4 MB);
    `path` (or `.save`) writes one HTML file. Arrow keys go through prompts and layers. Numbers are
    rounded to 1/254 of the range of what is picked. Text of a model is text: none of it executes.

    Errors: `ValueError` for an array without prompts, tokens or their text, for arrays of other
    dims, for a `start`, `marked` or `chosen` that does not fit, and for a `path` that is no .html;
    `TypeError` for what is no DataArray, a `centre` that is no number, captions that are no dict.

    >>> view(traces.sel(dim=[0, 1])).data["picks"][0]["name"]
    'layer'
    """
    given.require_options(centre, captions, start)
    made = {name: given.whole(one, name) for name, one in given.by_name(array).items()}
    first = given.alike(made)
    if centre is None and first.dtype == bool:
        centre = 0.0  # what is not selected has no colour
    scale = Scale.of(first.shape[2:])
    for one in made.values():
        for _, values in blocks(one):
            scale.add(values)
    low, step = scale.ends()
    middle, reach = scale.colours(centre)
    data = {
        "arms": list(made),
        "picks": given.picks(first),
        **given.started(first, dict(start or {}), chosen),
        **{
            key: np.ravel(value).astype(float).tolist()
            for key, value in (("low", low), ("step", step), ("middle", middle), ("reach", reach))
        },
        "name": str(first.name or "value"),
    }
    masks = (
        {} if marked is None else {n: given.marked_tokens(one, marked) for n, one in made.items()}
    )
    found = View(made, title, data, dict(captions or {}), masks, scale)
    if path is not None:
        found.save(path)
    return found


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tracekit", "viewer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _file(name: str) -> str:
    return (files("tracekit.viewer") / name).read_text("utf-8")
