"""Requests to a server at an OpenAI-compatible address: what it says, or why it does not."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tracekit.errors import InputError

PASSING = (408, 409, 425, 429)  # a server that is busy, not one that was asked wrongly


class RefusedError(InputError):
    """The request was refused (4xx); `code` is the status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(InputError):
    """There is no server at the address."""


def post(
    url: str, path: str, body: Mapping[str, Any], *, key: str, timeout: float, who: str = "server"
) -> Any:
    """The JSON that the server at `url` (up to `/v1`) replies to a body; None where it fails.

    None: too slow, busy, broken, or a reply that is no JSON; another try may fare better. `who` is
    what errors call it.

    Errors: `RefusedError`, `UnreachableError` (both `InputError`).

    >>> post("http://localhost:8000/v1", "completions", {}, key="", timeout=1)  # doctest: +SKIP
    """
    address = f"{url.rstrip('/')}/{path}"
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(address, json.dumps(dict(body)).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if 400 <= error.code < 500 and error.code not in PASSING:
            said = error.read(200).decode(errors="replace")
            raise RefusedError(
                f"The {who} at {address} was asked, and refused with {error.code}: {said!r}. "
                "Mend its address, model or key.",
                error.code,
            ) from error
        return None
    except (TimeoutError, ConnectionError, http.client.HTTPException, ValueError):
        return None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return None
        raise UnreachableError(
            f"The {who} at {address} was asked, and cannot be reached ({error.reason}). "
            "Start it, or mend the address."
        ) from error
