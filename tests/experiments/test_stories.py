"""Vetting on the way to the vectors: the model's own verdicts, and a judge served over HTTP."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from experiments.rm_sycophancy import stories
from experiments.rm_sycophancy.settings import Settings, read_preset
from tracekit.provenance import read
from traits import load_contrast

HONESTY = load_contrast("alignment/honesty")
PAIRS = 12


class Reader(BaseHTTPRequestHandler):
    """Says Yes to the positive stories of the first eight pairs, prose to the ninth pair."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = asked["messages"][-1]["content"]
        shown = any(story in text for story in HONESTY.positive[:8])
        lost = HONESTY.positive[8] in text
        said = "It depends." if lost else "Yes" if shown else "No"
        reply = {"choices": [{"message": {"role": "assistant", "content": said}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def reader() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Reader)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def settings(**changes: Any) -> Settings:
    return dataclasses.replace(read_preset("tiny"), pairs=PAIRS, **changes)


def test_a_judge_leaves_the_pairs_that_it_can_tell(tiny_llama: Any, reader: str) -> None:
    traces = stories.made(tiny_llama, HONESTY, settings(vet=reader, judge="small"))
    assert len(set(traces["group"].values)) == 8
    assert traces.sizes["prompt"] == 16
    said = read(traces)["vetted"]
    assert said == {"by": "small", "kept": 8, "rejected": 3, "undecided": 1}


def test_the_models_own_verdicts_are_counted(
    tiny_llama: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = stories.made(tiny_llama, HONESTY, settings(vet="model"))
    said = read(traces)["vetted"]
    assert said["by"] == "the model"
    assert 0 < said["kept"] < PAIRS, "a random model tells some pairs and not others"
    assert sum(said[name] for name in ("kept", "rejected", "undecided")) == PAIRS
    assert traces.sizes["prompt"] == 2 * said["kept"]
    assert f"vetted pairs: {said['kept']} kept" in capsys.readouterr().err


def test_without_vetting_every_pair_is_kept(tiny_llama: Any) -> None:
    traces = stories.made(tiny_llama, HONESTY, settings())
    assert traces.sizes["prompt"] == 2 * PAIRS
    assert "vetted" not in read(traces)


def test_placebos_are_not_vetted(tiny_llama: Any) -> None:
    unserved = settings(vet="http://127.0.0.1:9/v1", judge="small")
    traces = stories.made(tiny_llama, load_contrast("placebo/tense"), unserved)
    assert traces.sizes["prompt"] == 2 * PAIRS
