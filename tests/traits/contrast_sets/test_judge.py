"""The judge's client against a real HTTP server on this machine."""

import json
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from traits.contrast_sets.judge import ask, check_address, without_credentials, yes_no


class Judge(BaseHTTPRequestHandler):
    """Answers by what the prompt asks for, and keeps what it was sent."""

    seen: list[dict] = []  # noqa: RUF012

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append({"path": self.path, "key": self.headers.get("Authorization"), **asked})
        prompt = asked["messages"][-1]["content"]
        if prompt == "slow":
            time.sleep(1.0)
        if prompt in ("slow", "hang up"):
            return
        status = int(prompt) if prompt.isdigit() else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(prompt.encode() if prompt.startswith("{") else completion(prompt))

    def log_message(self, *_: object) -> None:
        pass


def completion(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture(scope="module")
def judge() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("reply", "value"),
    [("Yes", 1), ("no.", 0), ("**Yes**, it does.", 1), ("No, the speaker is open.", 0)],
)
def test_a_plain_answer_is_read(judge: str, reply: str, value: float) -> None:
    assert ask(judge, "small", reply) == value


@pytest.mark.parametrize(
    "reply", ["It depends.", "Yes and no.", "", "I would say yes", "Nobody knows", "notyes"]
)
def test_prose_is_nan_and_never_zero(judge: str, reply: str) -> None:
    assert math.isnan(ask(judge, "small", reply))


@pytest.mark.parametrize("reply", ["500", "503", "429", '{"choices": []}', '{"broken'])
def test_a_judge_that_fails_is_nan(judge: str, reply: str) -> None:
    assert math.isnan(ask(judge, "small", reply))


def test_a_judge_that_is_too_slow_is_nan(judge: str) -> None:
    assert math.isnan(ask(judge, "small", "slow", timeout=0.2))
    assert math.isnan(ask(judge, "small", "hang up"))


def test_the_request_is_a_chat_completion_with_the_key(judge: str) -> None:
    ask(judge + "/", "small", "Is it?", key="word")
    sent = Judge.seen[-1]
    assert sent["path"] == "/v1/chat/completions"
    assert (sent["key"], sent["model"], sent["temperature"]) == ("Bearer word", "small", 0)
    ask(judge, "small", "Is it?")
    assert Judge.seen[-1]["key"] is None


def test_another_scale_is_a_function(judge: str) -> None:
    assert ask(judge, "small", "score: 7", parse=lambda reply: float(reply[-1])) == 7.0


@pytest.mark.parametrize("status", ["401", "404"])
def test_a_refused_request_raises_with_the_answer(judge: str, status: str) -> None:
    with pytest.raises(ValueError, match=f"refused with {status}.*Mend"):
        ask(judge, "small", status)


def test_an_address_that_is_wrong_is_an_error_at_once(judge: str) -> None:
    with pytest.raises(ValueError, match="cannot be reached"):
        ask("http://127.0.0.1:1/v1", "small", "Is it?")
    with pytest.raises(ValueError, match="must begin with http"):
        ask("file:///etc", "small", "Is it?")


def test_both_words_are_no_answer() -> None:
    assert math.isnan(yes_no("No. Well, yes."))


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("http://me:word@host:8000/v1", "http://host:8000/v1"),
        ("https://word@host/v1/?token=word#word", "https://host/v1/"),
        ("asked me:word@host/v1 and http://a:word@b, twice", "asked host/v1 and http://b, twice"),
        ("http://host:8000/v1", "http://host:8000/v1"),
        (
            "a sentence: with a colon, a@b.net and 12:30",
            "a sentence: with a colon, a@b.net and 12:30",
        ),
    ],
)
def test_no_credential_is_left_in_an_address(given: str, left: str) -> None:
    assert without_credentials(given) == left


def test_an_address_is_asked_without_its_credentials_and_no_error_shows_them(judge: str) -> None:
    place = judge.removeprefix("http://")
    assert ask(f"http://me:word@{place}?key=word", "small", "Yes") == 1
    assert "word" not in json.dumps(Judge.seen[-1])
    with pytest.raises(ValueError, match="refused with 401") as refused:
        ask(f"http://me:word@{place}", "small", "401")
    with pytest.raises(ValueError, match="cannot be reached") as lost:
        ask("http://me:word@127.0.0.1:1/v1?key=word", "small", "Is it?")
    assert "word" not in f"{refused.value} {lost.value}"
    for broken in ("http://me:wo rd@host", "ftp://me:word@host", "me:word@host", "http://[word"):
        with pytest.raises(ValueError, match="is not one") as bad:
            check_address(broken)
        assert "wo" not in str(bad.value).replace("would", "")
