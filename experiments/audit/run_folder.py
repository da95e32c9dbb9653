"""One folder per run: its settings, and which phases have finished in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.audit.settings import former
from tracekit.errors import InputError
from tracekit.storage.files import whole
from tracekit.storage.provenance import digest

SETTINGS, FINISHED = "settings.json", "finished.json"


def default_folder(made_of: Mapping[str, Any]) -> Path:
    """`runs/<preset>-<hash of the settings>` under the current folder."""
    return Path("runs", f"{made_of['settings']['preset']}-{digest(made_of)[:8]}")


def refuse_other(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Raise `ValueError` when `folder` holds a run with other settings, or anything else."""
    if not folder.is_dir():
        return
    if not (folder / SETTINGS).is_file():
        found = sorted(path.name for path in folder.iterdir())
        if found:
            raise InputError(
                f"The folder {str(folder)!r} was asked for; it holds {', '.join(found[:3])} and "
                f"no run (no {SETTINGS}). Give a new folder."
            )
        return
    there, now = _flat(settings_of(folder)), _flat(json.loads(json.dumps(made_of)))
    differ = [key for key in sorted({*there, *now}) if there.get(key) != now.get(key)]
    if differ:
        shown = "; ".join(f"{k}: {there.get(k)!r} there, {now.get(k)!r} now" for k in differ)
        raise InputError(
            f"The folder {str(folder)!r} holds a run with other settings ({shown}). "
            "Give another --out, or the settings it has."
        )


def settings_of(folder: Path) -> dict[str, Any]:
    """What `settings.json` of a run says.

    Those of a run from before settings had groups are put into them.

    Errors: `FileNotFoundError` for a folder without a run, `ValueError` for a file that is none.
    """
    if not (folder / SETTINGS).is_file():
        raise FileNotFoundError(
            f"The folder {str(folder)!r} holds no run (no {SETTINGS}). Give --preset to start one, "
            "or the folder of a run."
        )
    made_of = _read(folder / SETTINGS)
    if not isinstance(made_of.get("settings"), dict):
        raise InputError(f"{str(folder / SETTINGS)!r} holds no settings. Start the run anew.")
    return former.in_groups(made_of) if former.is_flat(made_of["settings"]) else made_of


def claim(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Write the settings, first of all; a folder that has them stays as it is."""
    refuse_other(folder, made_of)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SETTINGS).is_file():
        _write(folder / SETTINGS, made_of)


def has_finished(folder: Path, phase: str) -> bool:
    """Whether `phase` ended here, and every file that it wrote is still as long as then."""
    sizes = _records(folder).get(phase)
    return sizes is not None and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in sizes.items()
    )


def finish(folder: Path, phase: str, paths: Iterable[Path]) -> None:
    """Record that `phase` ended and wrote these files (a folder counts with all it holds)."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    sizes = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(files)
        if file.is_file() and not file.name.startswith(".")
    }
    _write(folder / FINISHED, {**_records(folder), phase: sizes})


def _records(folder: Path) -> dict[str, dict[str, int]]:
    path = folder / FINISHED
    return _read(path) if path.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(
            f"{str(path)!r} was read as JSON, and is not: {error}. Start the run anew."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds no JSON object. Start the run anew.")
    return content


def _flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{before}{key}."))
        else:
            flat[before + key] = value
    return flat


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()
    with whole(path, len(text)) as part:
        part.write_bytes(text)
