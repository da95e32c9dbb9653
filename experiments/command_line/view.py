"""A saved array token by token, coloured by its values, as one HTML page without a network.

    tracekit view runs/x/projections/organism.organism.nc --select layer=18
    tracekit view runs/x --arm organism/organism --select trait=alignment/sycophancy

FILE is any array that tracekit saved with a `prompt` and a `token` dim, or the folder of an audit.
What has further dims is cut at a label of each (`--select`; by default the middle one, which is
said). Of a residual stream that is a single dim: for sizes, save tk.norm of it and view that.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.options import Parser, exit_code
from tracekit.errors import InputError
from tracekit.storage.capture_folder import SETTINGS
from tracekit.viewer.given import page_name


def main(arguments: Sequence[str]) -> int:
    """Write the page and print its path; 2 and one line for bad input."""
    return exit_code("tracekit view", arguments, _view)


def _view(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    source = source_of(options.file, options.arm)
    content = tk.open(source)
    array = variable(content, options.variable) if isinstance(content, xr.Dataset) else content
    shown = cut(array, dict(options.select))
    path = page_name(options.out or f"{source.stem}.html")
    path.write_text(page(shown, f"{source.name}: {array.name}"), "utf-8")
    print(f"{path}{middle(array, shown, dict(options.select))}")


def source_of(path: Path, arm: str) -> Path:
    """The file itself, or that of an arm in an audit's folder.

    Errors: `InputError` for a folder without projections that is no capture, and for an arm that
    an audit does not have.
    """
    run = next((f for f in (path, path / "audit") if (f / "projections").is_dir()), None)
    if run is None:
        _refuse_without_tokens(path)
        return path
    source = run / "projections" / f"{arm.replace('/', '.')}.nc"
    if not source.is_file():
        there = ", ".join(sorted(file.stem for file in source.parent.glob("*.nc"))) or "none"
        raise InputError(f"The arm {arm!r} was asked for; {str(run)!r} has {there}. Give --arm.")
    return source


def _refuse_without_tokens(path: Path) -> None:
    page, traces = path / "search" / "report.html", path / "traces"
    if not path.is_dir() or (path / SETTINGS).is_file():
        return
    advice = "Give a saved file, a capture's folder, or the folder of an audit"
    if page.is_file():
        advice = f"Open {str(page)!r}, or audit without --search-only"
    elif traces.is_dir():
        advice = f"Give {str(traces)!r}"
    raise InputError(
        f"{str(path)!r} holds neither a capture's values nor the projections of an audit. {advice}."
    )


def variable(content: xr.Dataset, name: str | None) -> xr.DataArray:
    """The variable of that name, or the last with tokens (an audit's `cosine`)."""
    tokens = {"prompt", "token"}
    there = [str(n) for n, array in content.data_vars.items() if tokens <= {*array.dims}]
    if not there or name not in (None, *there):
        raise InputError(
            f"The variable {name or 'with prompt and token'!r} was asked for; there are "
            f"{', '.join(there) or 'none'}. Give --variable, or a file that has one."
        )
    return content[name or ("cosine" if "cosine" in there else there[-1])]


def cut(array: xr.DataArray, labels: Mapping[str, str]) -> xr.DataArray:
    """The array over (prompt, token), at a label of each other dim.

    Errors: `InputError` for an array without tokens, and for a dim or a label that it does not
    have.
    """
    if not {"prompt", "token"} <= {*array.dims} or "token_text" not in array.coords:
        raise InputError(
            f"A view of tokens was asked for; this array has the dims {array.dims} and the labels "
            f"{', '.join(map(str, array.coords))}. Give one over prompt and token."
        )
    others = {str(dim): array[dim].values for dim in array.dims if dim not in ("prompt", "token")}
    unknown = sorted({*labels} - {*others})
    if unknown:
        raise InputError(f"--select names {unknown}; there are {', '.join(others) or 'none'}.")
    places = {dim: _place(dim, values, labels.get(dim)) for dim, values in others.items()}
    # a dim without labels is counted
    return array.assign_coords(others).isel(places).transpose("prompt", "token").load()


def middle(array: xr.DataArray, shown: xr.DataArray, labels: Mapping[str, str]) -> str:
    """Which label of each dim was taken unasked, and how to see others; nothing of none."""
    others = [str(dim) for dim, size in array.sizes.items() if size > 1 and dim not in shown.dims]
    unasked = [dim for dim in others if dim not in labels]
    if not unasked:
        return ""
    at = ", ".join(f"{dim}={shown[dim].item()} (of {array.sizes[dim]})" for dim in unasked)
    norms = "; for norms, save tk.norm(array) and view that" if "dim" in unasked else ""
    return f": at {at}, the middle. --select {unasked[-1]}=… shows another{norms}."


def _place(dim: str, values: np.ndarray, label: str | None) -> int:
    texts = [str(value) for value in values]
    if label is None:
        return len(texts) // 2
    if label not in texts:
        raise InputError(f"{dim}={label} was asked for; there are {', '.join(texts[:20])}.")
    return texts.index(label)


def page(array: xr.DataArray, title: str) -> str:
    """The page: a paragraph a prompt, a coloured span a token, its value on hovering."""
    scale = float(np.nanmax(np.abs(array.values), initial=0.0)) or 1.0
    cuts = {d: str(c.values) for d, c in array.coords.items() if not c.ndim and d in _CUT}
    template = jinja2.Environment(autoescape=True).from_string(
        (files("experiments.command_line") / "view.html").read_text("utf-8")
    )
    return template.render(title=title, cuts=cuts, scale=scale, rows=_rows(array, scale))


_CUT = ("layer", "trait", "extraction", "arm", "dim")


def _rows(array: xr.DataArray, scale: float) -> list[dict[str, Any]]:
    texts = array["token_text"].transpose("prompt", "token").values.astype(str)
    labels = array["token"].values
    rows = []
    for name, values, words in zip(array["prompt"].values, array.values, texts, strict=True):
        tokens = [
            {
                "text": word,
                "title": f"{label}: {value:.4g}",
                "colour": "255,140,0" if value > 0 else "120,60,200",
                "share": f"{min(abs(value) / scale, 1.0):.2f}",
            }
            for label, value, word in zip(labels, values, words, strict=True)
            if np.isfinite(value)
        ]
        rows.append({"name": str(name), "tokens": tokens})
    return rows


def _pair(text: str) -> tuple[str, str]:
    name, equals, label = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} was given; DIM=LABEL is due, such as layer=18")
    return name, label


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tracekit view",
        description=__doc__,
    )
    parser.add_argument("file", type=Path, help="a saved array, or the folder of an audit")
    parser.add_argument("--arm", default="organism/organism", help="weights/text, of an audit")
    parser.add_argument("--variable", help="of a file that holds several")
    parser.add_argument("--select", type=_pair, nargs="*", default=[], metavar="DIM=LABEL")
    parser.add_argument("--out", type=Path, help="the page (default: the file's name, here)")
    return parser
