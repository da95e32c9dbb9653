"""Shards are compressed and written: by this process's own threads, or in other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, cast

from tracekit.storage import shard, writer_process

Done = Callable[[dict[str, Any]], None]
# jobs at a time beside a GPU's forward: while one waits for the disk, others are compressed
BESIDE = 3


class Writers:
    """Writes jobs in the background; `done` is called with each finished shard's record.

    `processes=0` is for a model on the CPU, whose forward takes all cores: a thread that
    compresses beside it holds up all of its threads. So a job is compressed by `threads` (as many
    as the forward has) before `submit` returns, and only the disk is waited for in the background.
    `beside=True` is for a model on a GPU, whose forward leaves the cores free: a few whole jobs at
    a time are done beside it, each by `threads`. Otherwise up to that many writer processes are
    started, one more whenever all are busy; each takes seconds to start. At most one job more than
    there are writers waits, so memory stays flat. A failed write is raised by the next `submit` or
    at the end.
    """

    def __init__(self, processes: int, done: Done, threads: int = 1, beside: bool = False) -> None:
        self.limit = BESIDE if beside else max(processes, 1)
        self.processes: list[subprocess.Popen[bytes]] = []
        self._done, self._threads, self._beside = done, threads, beside
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._pool = ThreadPoolExecutor(self.limit)
        self._pending: set[Future[dict[str, Any]]] = set()
        self._remote = processes > 0 and not beside

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                while self._pending:
                    self._collect()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._record(self._pending)
            for process in self.processes:
                # what a writer that died had not read yet is lost with it
                with suppress(BrokenPipeError):
                    cast(BinaryIO, process.stdin).close()
                process.wait()

    def submit(self, job: shard.Job) -> None:
        """Queue a job; waits while as many as there are writers, and one, are unfinished."""
        while len(self._pending) > self.limit:
            self._collect()
        if self._remote:
            self._pending.add(self._pool.submit(self._write_remotely, job))
            return
        if self._beside:
            self._pending.add(self._pool.submit(shard.finish, job, self._threads))
            return
        begun = time.perf_counter()
        content, values = shard.build(job, self._threads)
        spent = time.perf_counter() - begun
        self._pending.add(self._pool.submit(shard.commit, content, job.path, values, spent))

    def _collect(self) -> None:
        finished, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
        self._record(finished)
        for future in finished:
            future.result()

    def _record(self, futures: set[Future[dict[str, Any]]]) -> None:
        # also beside one that failed: what is written is not written again
        for future in futures:
            if not future.cancelled() and future.exception() is None:
                self._done(future.result())

    def _write_remotely(self, job: shard.Job) -> dict[str, Any]:
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = self._start()
        try:
            writer_process.dump(job, cast(BinaryIO, process.stdin))
            line = cast(BinaryIO, process.stdout).readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise OSError(
                f"The process writing {job.path.name} died (exit code {process.poll()}). "
                "Finished shards are intact; run the same capture again to go on."
            )
        self._idle.put(process)
        answer = json.loads(line)
        if "error" in answer:
            if "errno" in answer:
                raise OSError(answer["errno"], answer["error"])
            raise OSError(f"Writing {job.path.name} failed: {answer['error']}")
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(writer_process.__file__))]
        # its folder must not lead the path, or tracekit's modules would shadow others
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.processes.append(process)
        return process
