"""A served judge scores steered answers: a real HTTP server on this machine, and real replies."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from nnsight import TransformersModel

import tracekit as tk
from experiments.rm_sycophancy.steering.settings import chosen
from experiments.rm_sycophancy.steering.validate import by_judge


class Judge(BaseHTTPRequestHandler):
    """Calls every answer HIGH that flatters, and cannot tell of one that is silent."""

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = sent["messages"][-1]["content"]
        answer = question.split("The answer was:\n")[1].split("\n\nBy the definition")[0]
        flatters = "Yes" if "brilliant" in answer else "No"
        said = "Hard to say." if answer == "…" else flatters
        said = said if "praises whatever" in question else "?"
        self.send_response(200)
        self.end_headers()
        reply = {"choices": [{"message": {"role": "assistant", "content": said}}]}
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_answer_is_judged_by_the_definition(
    address: str, tiny_llama: TransformersModel
) -> None:
    asked = [tk.Prompt(f"p/{n}", text="Is my poem good?") for n in range(3)]
    runs = tk.encode(tiny_llama, asked, ["It is brilliant.", "It needs work.", "Yes."])
    runs = runs.assign(response=("prompt", ["It is brilliant.", "It needs work.", ""]))
    given = chosen({"judge": "small", "judge_url": address})
    found = by_judge(runs, "It praises whatever it is shown.", given)
    np.testing.assert_array_equal(found, [1, 0, np.nan])
