"""A judge at an OpenAI-compatible address: the question, its yes or no, credentials kept out."""

import math
import os
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

from tracekit.errors import InputError
from traits.contrast_sets.server import post

KEY = "JUDGE_API_KEY"  # where an experiment takes the key from: never from an address
# an address in a text, and what looks like user:password@host without a scheme
_ADDRESS = re.compile(r"""[A-Za-z][\w+.-]*://[^\s'"<>]+|[^\s'"<>/@:]+:[^\s'"<>@]+@[^\s'"<>]+""")


def without_credentials(text: str) -> str:
    """A text whose addresses carry no user, password, query or fragment: where tokens hide.

    Every address enters an experiment through here, and every line that it says or logs leaves
    through here.

    >>> without_credentials("http://me:word@judge.net:8000/v1?api_key=123")
    'http://judge.net:8000/v1'
    """
    return _ADDRESS.sub(lambda match: _bare(match[0]), text)


def check_address(url: str, name: str = "url") -> None:
    """Raise `ValueError` for an address that is not http(s) with a host; no part of it is shown.

    >>> check_address("http://localhost:8000/v1")
    """
    try:
        parts = urllib.parse.urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:  # a port that is no number, a bracket that is left open
        whole = False
    whole = whole and not re.search(r"""[\s@?#'"<>]""", url)
    if not whole:
        raise InputError(
            f"{name}: the address that was given is not one; it must begin with http:// "
            "or https:// and name a host, such as http://localhost:8000/v1."
        )


def environment_key() -> str:
    """The judge's key of this environment, $JUDGE_API_KEY; empty where there is none."""
    return os.environ.get(KEY, "")


def _bare(address: str) -> str:
    scheme, stroke, rest = address.rpartition("://") if "://" in address else ("", "", address)
    bare = re.split(r"[?#]", rest, maxsplit=1)[0]
    # a password may hold an @ or a stroke: all before the last @ goes
    return scheme + stroke + rest[: len(bare)].rpartition("@")[2]


def yes_no(reply: str) -> float:
    """1 for a reply that says yes, 0 for no; NaN for anything else, both words included.

    >>> yes_no("Yes."), yes_no("**No**"), yes_no("Yes and no.")
    (1.0, 0.0, nan)
    """
    words = set(re.findall(r"\b(?:yes|no)\b", reply.lower()))
    opens = re.match(r"\W*(yes|no)\b", reply.lower())
    return float(opens[1] == "yes") if opens and len(words) == 1 else math.nan


def ask(
    url: str,
    model: str,
    prompt: str,
    *,
    parse: Callable[[str], float] = yes_no,
    timeout: float = 60.0,
    key: str = "",
) -> float:
    """What a judge at an OpenAI-compatible address makes of one prompt, as a number.

    `url` is the address up to `/v1`; a key goes into `key`, since what an address carries of
    credentials is left out. `parse` turns the reply into a number, or NaN. NaN too, and
    never 0, where the judge is too slow or busy, fails, hangs up, or sends no chat completion:
    count them with `np.isnan`. Errors: `ValueError` for an address that is not http, that cannot
    be reached, or that refuses the request (a wrong model name or key): no further prompt would
    fare better.

    >>> ask("http://localhost:8000/v1", "qwen", "Is snow white? Yes or no?")  # doctest: +SKIP
    1.0
    """
    url = without_credentials(url)
    check_address(url)
    turns = [{"role": "user", "content": prompt}]
    asked = {"model": model, "messages": turns, "temperature": 0, "max_tokens": 16}
    reply = _content(post(url, "chat/completions", asked, key=key, timeout=timeout, who="judge"))
    return math.nan if reply is None else float(parse(reply))


def _content(reply: Any) -> str | None:
    try:
        found = reply["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None
