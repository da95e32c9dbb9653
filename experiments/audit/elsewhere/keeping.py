"""Many answers of a server, some at once, each kept as it comes: a killed run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import xarray as xr

from experiments.audit.elsewhere.serving import Server
from tracekit.progress import Bar
from tracekit.transcripts.encode import ids_of

AT_ONCE = 16


def asked(server: Server, prompts: xr.Dataset, path: Path, samples: int, seed: int) -> Path:
    """A file with `samples` answers to each prompt: lines as a batch's output has them.

    Lines that are there stay; of a killed run the last may be broken off, and is asked anew. The
    first request goes alone, then `AT_ONCE` are on their way. Each has a seed of its own, counted
    from `seed`.

    Errors: as `Server.complete`; what came before stays in the file.

    >>> asked(server, runs, Path("organism.jsonl"), samples=1, seed=0)  # doctest: +SKIP
    """
    rows = zip(ids_of(prompts), _ids(prompts), strict=True)
    ids = {name: row[row >= 0].tolist() for name, row in rows}
    due = {
        (f"{name}#{sample}" if samples > 1 else name): (name, seed + row * samples + sample)
        for row, name in enumerate(ids)
        for sample in range(samples)
    }
    left = [key for key in due if key not in _there(path)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(AT_ONCE)
    bar = Bar(total=len(due), initial=len(due) - len(left), unit="answer", desc=path.stem)
    try:
        with path.open("a", encoding="utf-8") as file, bar:
            going: dict[Future[Mapping[str, Any]], str] = {}
            while left or going:
                most = AT_ONCE if server.form is not None else 1
                while left and len(going) < most:
                    key = left.pop(0)
                    name, mark = due[key]
                    going[pool.submit(server.complete, ids[name], mark)] = key
                for future in wait(going, return_when=FIRST_COMPLETED).done:
                    _keep(file, going.pop(future), future.result())
                    bar.update(1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return path


def _ids(prompts: xr.Dataset) -> Any:
    return prompts.token_id.transpose("prompt", "token").values


def _keep(file: Any, key: str, body: Mapping[str, Any]) -> None:
    response = {"status_code": 200, "body": body}
    line = json.dumps({"custom_id": key, "response": response, "error": None}, ensure_ascii=False)
    file.write(line + "\n")
    file.flush()
    os.fsync(file.fileno())


def _there(path: Path) -> Sequence[str]:
    """The answers that a file has; what follows its last line break was broken off, and goes."""
    if not path.is_file():
        return ()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    lines = whole.decode("utf-8").split("\n")[:-1]
    return [json.loads(line)["custom_id"] for line in lines]
