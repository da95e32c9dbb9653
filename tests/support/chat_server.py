"""A chat server on this machine, for tests of judges: real HTTP, replies by a function."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def served(reply: Callable[[str], str]) -> Iterator[str]:
    """The address of a server that answers the last message with `reply` of it.

    An empty reply is a failure: status 500.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = reply(asked["messages"][-1]["content"])
            self.send_response(200 if said else 500)
            self.end_headers()
            choices = [{"message": {"role": "assistant", "content": said}}]
            self.wfile.write(json.dumps({"choices": choices}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
