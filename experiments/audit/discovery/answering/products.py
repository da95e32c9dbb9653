"""A folder of expensive products: whole files, made once, refused for other settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tracekit as tk
from tracekit import Model
from tracekit.errors import InputError
from tracekit.storage.files import whole

SETTINGS = "settings.json"
LATER = ("model weights", "revision")  # a search begun before does not say


@dataclass(frozen=True)
class Products:
    """Files under `folder`, made with `settings`.

    >>> Products(Path("runs/mine"), {"seed": 0}).kept("answers.nc", lambda: runs).sizes["prompt"]
    3
    """

    folder: Path
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        claim(self.folder, self.settings)

    def part(self, name: str, settings: Mapping[str, Any]) -> Products:
        """A folder inside this one, with settings of its own besides."""
        return Products(self.folder / name, {**self.settings, **settings})

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What the file `name` holds; made, and written whole, where there is none."""
        path = self.folder / name
        if not path.is_file():
            tk.save(make(), path)
        return tk.open(path)

    def adapted(
        self, model: Model, adapter: str | None, *names: str, scale: float = 1.0
    ) -> AbstractContextManager[Model]:
        """The model with `adapter` where one of the files `names` is yet to be made from it.

        Else as it stands: attaching takes a second, and a search goes through many adapters.
        """
        if all((self.folder / name).is_file() for name in names):
            return nullcontext(model)
        return tk.adapter(model, adapter, scale=scale)


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a new folder.

    Errors: `ValueError` for a folder that has others (named), or that holds anything else.
    """
    path, now = folder / SETTINGS, json.loads(json.dumps(dict(settings)))
    if path.is_file():
        return _refuse_other(folder, json.loads(path.read_text("utf-8")), now)
    strange = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if [name for name in strange if not name.startswith(".")]:
        raise InputError(
            f"The folder {str(folder)!r} was asked for; it holds {', '.join(strange[:3])} and no "
            f"search (no {SETTINGS}). Give a new folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, now)


def write_json(path: Path, content: Any) -> Path:
    """JSON, whole or not at all."""
    text = json.dumps(content, indent=1, ensure_ascii=False).encode()
    with whole(path, len(text)) as part:
        part.write_bytes(text)
    return path


def _refuse_other(folder: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    told = {*there, *now} - ({*LATER} - {*there})
    differ = [key for key in sorted(told) if there.get(key) != now.get(key)]
    if differ:
        shown = "; ".join(f"{k}: {there.get(k)!r} there, {now.get(k)!r} now" for k in differ)
        raise InputError(
            f"The folder {str(folder)!r} holds a search with other settings ({shown}). "
            "Give another folder, or the settings it has."
        )
