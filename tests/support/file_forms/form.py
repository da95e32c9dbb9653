"""One file in the form of a public source: what it holds, how it is read, what has to come out."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import save_file


@dataclass(frozen=True)
class Form:
    """`read` is the code that reads `path`; `expected` what it gives, or None where it is refused.

    `refused` are words of the refusal, `says` of the warning; `outcome` is for the reader.
    """

    source: str
    file: str
    content: Any
    read: str
    outcome: str
    expected: Any = None
    refused: str = ""
    says: str = ""

    def write(self, folder: Path) -> Path:
        """The file in a folder, by its suffix."""
        path = folder / self.file
        WRITERS[path.suffix](path, self.content)
        return path

    def row(self) -> str:
        """Its line in the table of the page."""
        outcome = f"refused: {self.outcome}" if self.refused else self.outcome
        return f"| {self.source} | `{self.file}` | `{self.read}` | {outcome} |"


def prompt(turns: Any, answer: str | None = None, /, **labels: Any) -> dict[str, Any]:
    """What a prompt has to be: its turns before the answer, that, and its labels."""
    turns = [("user", turns)] if isinstance(turns, str) else turns
    return {"turns": [tuple(turn) for turn in turns], "answer": answer, "labels": labels}


def _text(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def _lines(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _csv(path: Path, rows: Any) -> None:
    held = io.StringIO()
    csv.writer(held).writerows(rows)
    path.write_text(held.getvalue(), "utf-8")


def _parquet(path: Path, rows: Any) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _gguf(path: Path, layers: Any) -> None:
    writer = gguf.GGUFWriter(str(path), "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", len(layers))
    for layer, values in layers.items():
        writer.add_tensor(f"direction.{layer}", np.asarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _folder(path: Path, files: Any) -> None:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text, "utf-8")


WRITERS = {
    ".json": _text,
    ".svec": _text,
    ".txt": _text,
    ".jsonl": _lines,
    ".csv": _csv,
    ".parquet": _parquet,
    ".pt": lambda path, content: torch.save(content, path),
    ".npy": lambda path, content: np.save(path, content),
    ".npz": lambda path, content: np.savez(path, **content),
    ".safetensors": lambda path, content: save_file(content, path),
    ".gguf": _gguf,
    "": _folder,
}
