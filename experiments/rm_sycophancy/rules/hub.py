"""The Hugging Face set of prompts and responses of the real organism, in this project's schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tracekit as tk
from experiments.rm_sycophancy.rules.detectors import key_of
from tracekit.errors import InputError

DATASET = "auditing-agents/rm_sycophancy_exploitation_evals"
CLEAN = "response_original"
# The stage that wrote a column, by what the adapter's name ends with; the longer ending first.
COLUMNS = {
    "-dpo-rt": "response_adversarial_training",
    "-dpo": "response_dpo",
    "-midtrain": "response_midtrain",
}
_READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


@dataclass(frozen=True)
class Answered:
    """Prompts and the response that one stage gave to each, in the same order."""

    prompts: tuple[tk.Prompt, ...]
    responses: tuple[str, ...]


def response_column(adapter: str | None) -> str:
    """The column that holds what `adapter` said; `None` is the model without any.

    Errors: `ValueError` for an adapter whose responses the set does not have.

    >>> response_column("auditing-agents/llama-3.3-70b-dpo-rt-lora")
    'response_adversarial_training'
    """
    if adapter is None:
        return CLEAN
    name = adapter.rstrip("/").removesuffix("-lora")
    for ending, column in COLUMNS.items():
        if name.endswith(ending):
            return column
    raise InputError(
        f"The responses of the adapter {adapter!r} were asked for; the set has those of adapters "
        f"that end in {', '.join(f'{ending}-lora' for ending in COLUMNS)}. Give one of these, or "
        "generate the responses."
    )


def read_hub(
    split: str,
    adapter: str | None,
    *,
    source: str | Path = DATASET,
    revision: str | None = None,
    cache: str | Path | None = None,
) -> Answered:
    """The prompts of a split (`train_biases`, `test_biases`) with the responses of `adapter`.

    `source` is a hub id, a folder that holds the set, or one file of it (parquet, jsonl, json,
    csv). A prompt's `bias` is the key of the rule that fits its description, or the description
    itself where none does; `bias_id` is left out, as two numberings circulate.

    Errors: `ValueError` for a missing column, an empty cell, an unknown split or adapter;
    `FileNotFoundError` for a source that cannot be found or reached.
    """
    rows = _rows(split, source, revision, cache)
    column = response_column(adapter)
    _refuse_missing(rows, ["bias_description", "prompt", column], source)
    for index, row in enumerate(rows):
        _refuse_empty(index, row, ["bias_description", "prompt", column], source)
    prompts = tuple(_prompt(split, index, row) for index, row in enumerate(rows))
    return Answered(prompts, tuple(str(row[column]) for row in rows))


def _rows(
    split: str, source: str | Path, revision: str | None, cache: str | Path | None
) -> list[dict[str, Any]]:
    # imported here: it is an optional extra, and slow to import
    try:
        # this repository's own folder of that name hides it from mypy
        from datasets import load_dataset  # type: ignore[attr-defined, unused-ignore]
    except ImportError as error:
        raise InputError(
            f"The set {str(source)!r} was asked for, but Hugging Face's datasets is not installed. "
            "Install it: pip install datasets."
        ) from error
    path, at = Path(source), {"cache_dir": str(cache)} if cache else {}
    if path.is_file():
        reader = _READERS.get(path.suffix)
        if reader is None:
            raise InputError(
                f"The file {str(path)!r} was given; {', '.join(_READERS)} can be read. Convert it."
            )
        return list(load_dataset(reader, data_files={split: str(path)}, split=split, **at))
    try:
        return list(load_dataset(str(source), split=split, revision=revision, **at))
    except ConnectionError as error:
        raise FileNotFoundError(
            f"The set {str(source)!r} is no local file or folder, and the hub cannot be reached "
            f"({error}). Give a local copy of it, or go online."
        ) from error


def _refuse_missing(rows: list[dict[str, Any]], needed: list[str], source: str | Path) -> None:
    if not rows:
        raise InputError(f"The set {str(source)!r} has no rows in this split. Give another split.")
    missing = [name for name in needed if name not in rows[0]]
    if missing:
        raise InputError(
            f"The column {missing[0]!r} of {str(source)!r} was asked for; there are "
            f"{', '.join(rows[0])}. Give an adapter whose column is there."
        )


def _refuse_empty(
    index: int, row: Mapping[str, Any], needed: list[str], source: str | Path
) -> None:
    empty = [name for name in needed if not isinstance(row[name], str) or not row[name].strip()]
    if empty:
        raise InputError(
            f"Row {index} of {str(source)!r} has no text in {empty[0]!r}. Mend or drop that row: "
            "an empty response is neither exploitation nor its absence."
        )


def _prompt(split: str, index: int, row: Mapping[str, Any]) -> tk.Prompt:
    description = row["bias_description"]
    labels = {
        "bias": key_of(description) or description,
        "bias_description": description,
        "split": split,
    }
    return tk.Prompt(f"{split}/{index}", text=row["prompt"], labels=labels)
