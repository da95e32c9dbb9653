"""A capture's folder: the settings it was made with, and a log of the shards that are complete.

Nothing in it is believed: the settings carry their hash, each record is compared with its file,
and each file's own provenance with the settings.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import h5py

from tracekit.errors import InputError
from tracekit.storage.files import reading, sha256, unreadable, whole
from tracekit.storage.identity import BRIEF, digest
from tracekit.storage.seal import verified

SETTINGS, SHARDS, SHARD = "capture.json", "shards.jsonl", "{:05d}.nc"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_AGAIN = "Delete it and run the same capture again."
_FIELDS = {"file": str, "size": int, "mtime": int, "sha256": str}


class Folder:
    """Settings, rows and number of shards in `capture.json`; a line a shard in `shards.jsonl`.

    Ranks that share a capture log apart: those after the first in `shards.<rank>.jsonl`.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.path = path
        self._log = path / (f"shards.{rank}.jsonl" if rank else SHARDS)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One capture at a time writes here.

        Errors: `ValueError` when another one does, or when the path holds anything else.
        """
        self._refuse_foreign()
        with self._lock() as file:
            try:
                if file is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"A capture into {str(self.path)!r} was asked for, and another process is "
                    "capturing into it. Wait for it to end, or give another path."
                ) from error
            yield

    @contextmanager
    def _lock(self) -> Iterator[TextIO | None]:
        """The file that is locked; none where a finished capture cannot be written anyway."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        except OSError as error:
            if error.errno not in _READ_ONLY or not self._finished():
                raise
            yield None
        else:
            with file:
                yield file

    def begin(self, settings: Mapping[str, Any], count: int, rows: Mapping[str, str]) -> None:
        """Take the folder for these settings, or go on with the ones it has.

        Errors: `ValueError` when it holds another capture, or shards of another one.
        """
        if (self.path / SETTINGS).is_file():
            self._refuse_other(settings, rows)
            self._refuse_shards()
        else:
            content = {"settings": settings, "shards": count, "rows": rows}
            content["digest"] = digest(content)
            text = json.dumps(content, indent=1, sort_keys=True)
            with whole(self.path / SETTINGS, len(text)) as part:
                part.write_text(text)
        if os.access(self.path, os.W_OK):
            for part in self.path.glob(".*.part"):
                part.unlink(missing_ok=True)
            self._drop_torn_line()

    def batches(self) -> dict[str, Any]:
        """How the capture that is here was read: its token `budget` and more; {} without one.

        A default budget comes from free memory, which is another one when a capture is resumed.
        """
        if not (self.path / SETTINGS).is_file():
            return {}
        return dict(self.content()["settings"]["batches"])

    def shards(self) -> int | None:
        """How many shards the capture that is here is to have; `None` when there is none."""
        return self.content()["shards"] if (self.path / SETTINGS).is_file() else None

    def planned(self) -> list[str]:
        """The names of all shards, once complete, in the order of the batch plan."""
        return [SHARD.format(n) for n in range(self.content()["shards"])]

    def records(self) -> dict[str, dict[str, Any]]:
        """The complete shards' sizes, times and hashes, by file name, in the plan's order."""
        found = {}
        for log in self._logs():
            with reading(log, "Delete what is no record of a shard, and run the capture again."):
                # what follows the last newline was being written when a run was killed
                for line in log.read_bytes().split(b"\n")[:-1]:
                    record = _record(line)
                    found[record["file"]] = record
        return {name: found[name] for name in sorted(found) if (self.path / name).is_file()}

    def record(self, done: Mapping[str, Any]) -> None:
        """Log a complete shard."""
        with self._log.open("a") as file:
            file.write(json.dumps(done) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def verify(self, partial: bool) -> list[Path]:
        """The complete shards' paths, each as long and as old as when it was written.

        A shard with another date is hashed: a copied one passes, an edited one does not.

        Errors: `ValueError` naming a shard that was truncated or edited, or shards that are not
        there (which `partial` allows, as long as there is one).
        """
        records = self.records()
        for name, record in records.items():
            self._refuse_changed(name, record)
        missing = [name for name in self.planned() if name not in records]
        if missing and not (partial and records):
            raise InputError(
                f"The capture in {str(self.path)!r} has {len(records)} of "
                f"{len(self.planned())} shards; {_few(missing)} is not there. "
                "Run the same capture again to finish it, or open it with partial=True."
            )
        return [self.path / name for name in records]

    def refuse_others(self, made: Mapping[str, str]) -> None:
        """Compare the provenance of each shard with the settings here.

        Errors: `ValueError` naming a shard of another capture, and what differs.
        """
        settings = self.content()["settings"]
        differing: dict[str, list[str]] = {}
        for name, text in made.items():
            with reading(self.path / name, _AGAIN):
                # all shards have one text, unless the capture was resumed by other versions
                if text not in differing:
                    differing[text] = _differing(text, settings)
                if differing[text]:
                    words = f"a shard of another capture: {'; '.join(differing[text])}"
                    raise unreadable(self.path / name, words, _AGAIN)

    def refuse_other_rows(self, prompts: Sequence[str], partial: bool) -> None:
        """Compare the prompts of all shards with those that were asked for.

        Errors: `ValueError` naming prompts that are there twice, unasked for or missing.
        """
        rows = self.content()["rows"]
        kinds = {
            "twice": [name for name, count in Counter(prompts).items() if count > 1],
            "not asked for": sorted({*prompts} - {*rows}) if rows else [],
            "missing": [] if partial else sorted({*rows} - {*prompts}),
        }
        wrong = [f"{kind}: {_few(names)}" for kind, names in kinds.items() if names]
        if wrong:
            words = f"prompts in its shards are {', '.join(wrong)}"
            raise unreadable(self.path, words, "Capture again into another folder.")

    def _refuse_changed(self, name: str, record: Mapping[str, Any]) -> None:
        state = (self.path / name).stat()
        same = state.st_size == record["size"] and (
            state.st_mtime_ns == record["mtime"] or sha256(self.path / name) == record["sha256"]
        )
        if not same:
            raise InputError(
                f"The shard {name} of {str(self.path)!r} was truncated or edited since it was "
                f"captured ({state.st_size:,} bytes now, {record['size']:,} then). {_AGAIN}"
            )

    def _refuse_shards(self) -> None:
        """Before a capture goes on: what is there is whole, and its own."""
        made = {}
        for name, record in self.records().items():
            self._refuse_changed(name, record)
            verified(self.path / name)
            with reading(self.path / name, _AGAIN):
                with h5py.File(self.path / name, "r", locking=False) as file:
                    text = file.attrs["provenance"]
                made[name] = text if isinstance(text, str) else text.decode()
        self.refuse_others(made)

    def _finished(self) -> bool:
        return (self.path / SETTINGS).is_file() and not {*self.planned()} - {*self.records()}

    def content(self) -> dict[str, Any]:
        """Its settings, the hashes of its rows, and how many shards it is to have.

        Errors: `ValueError` for a folder that holds no capture, or whose settings were edited.
        """
        path = self.path / SETTINGS
        if not path.is_file():
            raise InputError(
                f"The folder {str(self.path)!r} holds no capture (no {SETTINGS}). "
                "Give the folder that capture(path=…) wrote."
            )
        with reading(path, "Capture again into another folder."):
            content = json.loads(path.read_bytes())
            settings, count, rows = (content[name] for name in ("settings", "shards", "rows"))
            kinds = (dict, dict, dict, int)
            if not all(map(isinstance, (settings, settings["batches"], rows, count), kinds)):
                raise InputError("these are no settings of a capture")
            # captures made before there was one have none
            kept = content.pop("digest", None)
            if kept is not None and kept != digest(content):
                raise InputError("it was edited since the capture began")
        return content

    def _logs(self) -> list[Path]:
        return sorted(self.path.glob("shards*.jsonl"))

    def _drop_torn_line(self) -> None:
        for log in self._logs():
            whole = log.read_bytes().rfind(b"\n") + 1
            os.truncate(log, whole)

    def _refuse_foreign(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(
                f"A capture into {str(self.path)!r} was asked for, which is a file of "
                f"{self.path.stat().st_size:,} bytes. Give an empty or a new folder."
            )
        if not self.path.is_dir() or (self.path / SETTINGS).is_file():
            return
        foreign = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        if foreign:
            raise InputError(
                f"A capture into {str(self.path)!r} was asked for, which holds {_few(foreign)} "
                "and no capture. Give an empty or a new folder."
            )

    def _refuse_other(self, settings: Mapping[str, Any], rows: Mapping[str, str]) -> None:
        content = self.content()
        there, wanted = content["settings"], json.loads(json.dumps(settings))
        differ = [key for key in sorted({*there, *wanted}) if there.get(key) != wanted.get(key)]
        if not differ:
            return
        shown = [f"{key}: {there.get(key)!r} there, {wanted.get(key)!r} now" for key in differ]
        if "ids" in differ:
            shown.append(_changed_rows(content["rows"], rows))
        raise InputError(
            f"{str(self.path)!r} holds a capture with other settings ({'; '.join(shown)}). "
            "Give another path, or delete that one."
        )


def _record(line: bytes) -> dict[str, Any]:
    record = json.loads(line)
    good = isinstance(record, dict) and all(
        isinstance(record.get(name), kind) for name, kind in _FIELDS.items()
    )
    if not good or not re.fullmatch(r"\d{5,}\.nc", record["file"]):
        raise InputError(f"{line[:60].decode(errors='replace')!r} is no record of a shard")
    return record


def _differing(text: str, settings: Mapping[str, Any]) -> list[str]:
    made = json.loads(text)
    return [
        f"{key}: {made[key]!r} there, {value!r} in {SETTINGS}"
        for key, value in settings.items()
        if key in made and made[key] != value
    ]


def _changed_rows(there: Mapping[str, str], now: Mapping[str, str]) -> str:
    kinds = {
        "with other token ids": [n for n in now if there.get(n, now[n])[:BRIEF] != now[n][:BRIEF]],
        "not there": [name for name in now if name not in there],
        "no longer asked for": [name for name in there if name not in now],
    }
    return "prompts " + ", ".join(f"{kind}: {_few(names)}" for kind, names in kinds.items())


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
