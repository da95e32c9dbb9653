"""What a run made, in files of other tools: zarr, parquet, answers as JSON lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr

from tracekit.errors import InputError, InputTypeError, brief
from tracekit.storage import store
from tracekit.transcripts.exporting import other_formats
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.answer_lines import write_answers

WRITERS: dict[str, Callable[[xr.Dataset, Path], Path]] = {
    ".zarr": other_formats.write_zarr,
    ".parquet": other_formats.write_parquet,
}


def export(
    array: xr.DataArray | xr.Dataset | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    prompts: Sequence[Prompt] | None = None,
) -> Path:
    """An array, or the file or capture's folder of one, in another tool's file, by its suffix.

    `.zarr` is xarray's own store. `.parquet` has a row for each place with all labels as columns,
    vectors along `dim` as one column of lists, holes left out; a capture goes into both a shard at
    a time. `.jsonl` has a line for each answer of transcripts: `prompt_id`, `messages`,
    `response`, ids and labels, which `read_prompts` and `encode(…, responses=path)` read back;
    `prompts` are those that were encoded, where they are conversations. Returns the path.

    Errors: `ValueError` for another suffix, a library that is not installed (zarr, pyarrow), a
    zarr store that is there already, a table of variables that do not share their dims, and what
    are no transcripts in `.jsonl`; `TypeError` for what has no labels.

    >>> export(runs, "answers.jsonl").name, export(runs, "runs.parquet").name
    ('answers.jsonl', 'runs.parquet')
    """
    path = Path(path)
    if path.suffix not in (*WRITERS, ".jsonl"):
        known = ", ".join((*WRITERS, ".jsonl"))
        raise InputError(f"export to {str(path)!r} was asked for; there are {known}.")
    given = store.open(array) if isinstance(array, str | os.PathLike) else array
    if not isinstance(given, xr.DataArray | xr.Dataset):
        raise InputTypeError(
            f"export was given {brief(given)}; what it writes has labels. Give transcripts or a "
            "DataArray (tk.traces makes one of an array of your own), or the path of one."
        )
    if path.suffix == ".jsonl":
        return write_answers(given, path, prompts)
    if prompts is not None:
        raise InputError(f"prompts= was given for {str(path)!r}; it is for .jsonl. Leave it out.")
    if isinstance(given, xr.DataArray):
        given = given.to_dataset(name=str(given.name or "values"), promote_attrs=True)
    return WRITERS[path.suffix](given, path)
