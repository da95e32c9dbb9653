"""A real OpenAI-compatible server on this machine: `transformers serve`, started and ended here."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMAND = "import sys; from transformers.cli.transformers import main; sys.exit(main())"


@contextlib.contextmanager
def served(log: Path, port: int = 0) -> Iterator[str]:
    """Its address; it loads any folder that a request names as its model."""
    port = port or free_port()
    given = ["serve", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *given], stdout=out, stderr=out, env=environment
        )
        try:
            _wait(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def merged(base: Path, adapter: Any, folder: Path) -> Path:
    """The base with an adapter in its weights, by peft: a server of plain transformers takes it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(240):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return
        if process.poll() is not None:
            break
        time.sleep(0.25)
    raise RuntimeError(f"transformers serve did not start: {log.read_text()[-2000:]}")
