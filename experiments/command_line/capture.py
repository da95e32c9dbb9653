"""Capture a model's internals on prompts into a folder; the same command again goes on.

    tracekit capture smollm2-135m-instruct prompts.json --layers 10,20 --out runs/x
    tracekit capture MODEL prompts.json --adapter ORG/LORA --generate 100 --layers 40 --out runs/y
    tracekit capture MODEL prompts.json --generate 100 --layers 40-60 --plan --cards 2

The folder holds `transcripts.nc` (the ids, kept as they were generated), `traces/` (netCDF shards
that `tracekit.open` and xarray read) and `settings.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

import tracekit as tk
from experiments.audit.options import Parser, count, exit_code, layers
from experiments.command_line.capture_plan import add_plan, planned
from experiments.command_line.model_options import add_model, loaded
from tracekit.errors import InputError
from tracekit.model.adapters.layers import adapter_name
from tracekit.model.load import model_provenance
from tracekit.model.sites import check_layers
from tracekit.storage.files import reading, sha256, whole
from tracekit.storage.provenance import read

SETTINGS, TRANSCRIPTS = "settings.json", "transcripts.nc"


def main(arguments: Sequence[str]) -> int:
    """Capture, or go on; prints the folder and the dims. 2 and one line for bad input."""
    return exit_code("tracekit capture", arguments, _capture)


def _capture(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(arguments)
    prompts = tk.read_prompts(options.prompts)
    if options.plan:
        print(planned(options, prompts))
        return
    if options.out is None:
        raise InputError("A capture was asked for without --out, the folder that will hold it.")
    settings = settings_of(options)
    refuse_other(options.out, settings)
    model = loaded(options)
    check_layers(model, options.layers, "residual")
    claim(options.out, settings)
    runs = transcripts(options, model, prompts)
    traces = tk.capture(
        model,
        runs,
        options.layers,
        tokens=options.tokens,
        reduce=options.reduce,
        path=options.out / "traces",
    )
    print(f"{options.out / 'traces'}: {dict(traces.sizes)}")


def transcripts(
    options: argparse.Namespace, model: tk.Model, prompts: Sequence[tk.Prompt]
) -> xr.Dataset:
    """The folder's transcripts; encoded, and continued with `--generate`, where there are none.

    Errors: `ValueError` for answers of a folder that other weights wrote.
    """
    path = options.out / TRANSCRIPTS
    if path.is_file():
        runs = tk.open(path)
        if options.generate:
            _refuse_others(path, read(runs)["text"]["by"], model_provenance(model))
        return runs
    runs = tk.encode(model, prompts)
    if options.generate:
        runs = tk.generate(model, runs, max_new_tokens=options.generate)
    tk.save(runs, path)
    return tk.open(path)


def _refuse_others(path: Path, by: dict[str, Any], now: dict[str, Any]) -> None:
    there, here = ((made["weights"], (made["adapter"] or {}).get("weights")) for made in (by, now))
    if there != here:
        raise InputError(
            f"The answers in {str(path)!r} were written by other weights than these (model and "
            f"adapter {there} there, {here} now). Give another --out, or delete that file to have "
            "them written anew."
        )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What decides the values; the prompts by their file's hash, folders by their name alone.

    What weights a folder holds, the captured values say themselves.
    """
    names = ("model", "adapter", "dtype", "layers", "tokens", "reduce", "generate")
    values = {name: _portable(name, getattr(options, name)) for name in names}
    return values | {"prompts": sha256(options.prompts)}


def _portable(name: str, value: Any) -> Any:
    return adapter_name(value) if value and name in ("model", "adapter") else value


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Take the folder for these settings.

    Errors: `InputError` for a folder that holds a capture made with others, and says which.
    """
    refuse_other(folder, settings)
    text = json.dumps(settings, indent=1, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / SETTINGS, len(text)) as part:
        part.write_text(text)


def refuse_other(folder: Path, settings: dict[str, Any]) -> None:
    """Raise `InputError` for a folder whose transcripts were made with other settings."""
    path = folder / SETTINGS
    # a capture that failed before it made anything binds nobody
    if not (path.is_file() and (folder / TRANSCRIPTS).is_file()):
        return
    with reading(path):
        there = json.loads(path.read_text("utf-8"))
        there = {name: _portable(name, value) for name, value in there.items()}
        differ = [name for name, value in settings.items() if there.get(name) != value]
    if differ:
        shown = "; ".join(f"{n}: {there.get(n)!r} there, {settings[n]!r} now" for n in differ)
        raise InputError(
            f"{str(folder)!r} holds a capture with other settings ({shown}). Give another --out."
        )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tracekit capture",
        description=__doc__,
    )
    add_model(parser)
    parser.add_argument("prompts", type=Path, help="a file of prompts: JSON, JSON lines, CSV, …")
    parser.add_argument("--layers", type=layers, help="10,20 or 10-20, all between (default: all)")
    parser.add_argument("--out", type=Path, help="the folder")
    parser.add_argument(
        "--generate", type=count, help="tokens to continue each prompt with (default: none)"
    )
    parser.add_argument("--tokens", default="response", choices=("response", "all"))
    parser.add_argument("--reduce", choices=["mean"], help="keep one value a prompt")
    add_plan(parser)
    return parser
