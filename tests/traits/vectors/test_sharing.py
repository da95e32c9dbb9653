"""Vectors on the hub: the folder, its card, what goes over the wire, and what comes back."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from safetensors.numpy import load_file

import tracekit as tk
import traits
from tests.support.vector_files import vectors
from tracekit.storage.provenance import stamp

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A hub on this machine, as far as an upload goes: its address, and what it was sent."""
    sent: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            lines = [json.loads(line) for line in body.splitlines() if line]
            sent.append((self.path, lines))
            url = f"http://127.0.0.1:{server.server_port}/me/honesty"
            reply: dict[str, Any] = {"url": url, "name": "me/honesty"}
            if "preupload" in self.path:
                asked = lines[0]["files"]
                reply = {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in asked
                    ]
                }
            elif "/commit/" in self.path:
                reply = {"commitUrl": f"{url}/commit/{COMMIT}", "commitOid": COMMIT}
            self._send(reply)

        def do_GET(self) -> None:
            self._send({"id": "me/honesty", "sha": COMMIT, "siblings": []})

        def _send(self, reply: Any) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_folder_holds_the_vectors_and_a_card(tmp_path):
    folder = traits.vectors_folder(vectors(), tmp_path / "v", "me/honesty", "From stories.")
    back = traits.pull_vectors(folder)
    np.testing.assert_array_equal(back.values, vectors().values)
    assert not np.array_equal(back.values, -vectors().values)
    assert back.trait.values.tolist() == vectors().trait.values.tolist()
    assert tk.provenance(back) == tk.provenance(vectors())
    assert len(load_file(folder / "vectors.safetensors")) == 6
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "tracekit"
    for words in ("# honesty", "From stories.", "`placebo/tense`", "0 to 3, 4 in all", "| dim | 8"):
        assert words in card
    made = re.findall(r"```json\n(.*?)```", card, re.DOTALL)
    assert json.loads(made[0]) == tk.provenance(vectors())


@pytest.mark.parametrize("site", ["mlp", "residual"])
def test_the_card_says_the_site_that_the_traces_had(site, tmp_path):
    made = stamp(vectors(), {"made_by": "traits.extract", "source": {"site": site}})
    card = (traits.vectors_folder(made, tmp_path / "v", "me/honesty") / "README.md").read_text()
    assert f"| site | {site} |" in card
    assert f"(site: {site})" in card
    assert ("residual stream" in card) == (site == "residual")


def test_these_two_files_are_what_is_uploaded(hub, tmp_path, monkeypatch):
    at, sent = hub
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    address = traits.push_vectors(vectors(), "me/honesty", token="hf_x", endpoint=at)
    assert address == f"{at}/me/honesty"
    made = dict(sent)
    (created,) = made["/api/repos/create"]
    assert created["name"] == "honesty"
    assert created.get("private") is True or created.get("visibility") == "private"
    lines = next(lines for path, lines in sent if "/commit/main" in path)
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }
    folder = traits.vectors_folder(vectors(), tmp_path / "v", "me/honesty")
    assert files.keys() == {path.name for path in folder.iterdir()}
    assert files["README.md"] == (folder / "README.md").read_bytes()
    (folder / "vectors.safetensors").write_bytes(files["vectors.safetensors"])
    back = traits.pull_vectors(folder)  # its checksum, too
    np.testing.assert_array_equal(back.values, vectors().values)


def test_they_come_back_from_the_hubs_cache_without_a_network(tmp_path, monkeypatch):
    cache = tmp_path / "hub" / "models--me--honesty"
    traits.vectors_folder(vectors(), cache / "snapshots" / COMMIT, "me/honesty")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for pin in (None, COMMIT):
        back = traits.pull_vectors("me/honesty", revision=pin)
        np.testing.assert_array_equal(back.values, vectors().values)
    with pytest.raises(FileNotFoundError, match="'me/other' were asked for, and the hub did not"):
        traits.pull_vectors("me/other")


def test_what_is_no_repository_is_refused(tmp_path):
    for name in ("honesty", "a/b/c", str(tmp_path / "nowhere")):
        with pytest.raises(tk.InputError, match="one of the hub is owner/name"):
            traits.pull_vectors(name)
        with pytest.raises(tk.InputError, match="one of the hub is owner/name"):
            traits.push_vectors(vectors(), name)
