"""One score a response from the scores of its tokens: mean, maximum, rolling, top-k, attention …"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from tracekit.errors import InputError, InputTypeError, brief
from tracekit.transcripts.array_pooling import FUNCTIONS, weighted
from tracekit.transcripts.encode import ids_of
from tracekit.transcripts.selection import WORDS, Selection, Tokens, read_recorded

# each way with its options as they are by default
WAYS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mean": {},
        "max": {},
        "last": {},
        "rolling_max": {"width": 8},
        "top_k": {"k": 5},
        "softmax": {"temperature": 1.0},
        "ema": {"decay": 0.9, "take": "max"},
        "attention": {},
    }
)
RESPONSE = slice(0, None)
_TEXT = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*")
Values = Float[np.ndarray, "*row token"]
Function = Callable[[np.ndarray], Any]
# what an option may be: in words, of which types, within which bounds
_COUNT = ("a whole number of at least 1", int, lambda n: n >= 1)
_MAY_BE: Mapping[str, tuple[str, Any, Callable[[Any], bool]]] = MappingProxyType(
    {
        "width": _COUNT,
        "k": _COUNT,
        "temperature": ("a number over 0", int | float, lambda n: n > 0),
        "decay": ("a number from 0 to below 1", int | float, lambda n: 0 <= n < 1),
        "take": ("'max' or 'last'", str, lambda n: n in ("max", "last")),
    }
)


class Pooling:
    """How a row's token scores become one: a way with its options, or a function of one's own.

    | way | is | options |
    | --- | --- | --- |
    | `mean`, `max`, `last` | of the tokens | |
    | `rolling_max` | the largest mean of `width` neighbouring tokens | `width=8` |
    | `top_k` | the mean of the `k` largest | `k=5` |
    | `softmax` | the mean weighted by exp(score / temperature) | `temperature=1.0` |
    | `ema` | the largest (`take="last"`: the last) exponentially weighted mean, in which a token \
counts `decay` times as much as the next: `pandas.Series.ewm(alpha=1 - decay)` | `decay=0.9` |
    | `attention` | the mean weighted by the probe's own attention; of attention probes alone | |

    A row of fewer tokens than `width` or `k` has the mean of those it has. A function takes the
    scores of one row's tokens, (token), and gives a number. `str(pooling)` is a text that
    `Pooling.read` reads, except of a function.

    Errors: `ValueError` for an unknown way or option, and values that an option cannot have.

    >>> str(Pooling("rolling_max", width=10))
    'rolling_max(width=10)'
    """

    def __init__(self, way: str | Function = "mean", **options: Any) -> None:
        self.function = None if isinstance(way, str) else way
        if callable(way):
            name = getattr(way, "__qualname__", type(way).__name__)
            self.way, known = f"function:{name}", {}
        else:
            _require_way(way)
            self.way, known = way, dict(WAYS[way])
        _require_options(self.way, known, options)
        self.options: Mapping[str, Any] = MappingProxyType({**known, **options})

    @classmethod
    def read(cls, text: str | Function | Pooling) -> Pooling:
        """The pooling of a text such as "rolling_max(width=10)"; one that is made stays.

        Errors: `ValueError` for a text that is none.

        >>> Pooling.read("top_k(k=3)").options["k"]
        3
        """
        if isinstance(text, Pooling):
            return text
        if callable(text):
            return cls(text)
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise _unknown(text)
        return cls(match[1], **_options(text, match[2] or ""))

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.way}({options})" if options else self.way

    def __repr__(self) -> str:
        return f"Pooling.read({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pooling):
            return NotImplemented
        return str(self) == str(other) and self.function == other.function

    def __hash__(self) -> int:
        return hash((str(self), self.function))


Poolable = str | Pooling | Function


def pool(
    scores: xr.DataArray,
    pooling: Poolable = "mean",
    *,
    tokens: Tokens = RESPONSE,
    attention: xr.DataArray | None = None,
) -> xr.DataArray:
    """One value a row from the values of its tokens: (prompt, token, …) to (prompt, …).

    Of the response's own tokens (labels from 0), unless `tokens` says others, by the grammar that
    captures have; holes (NaN) are left out, and a row without any token is NaN. `pooling` is the
    name of a way, a `Pooling` with its options, or a function of one row's (token,) values;
    "attention" needs the `attention` logits, in the scores' shape. Units are those of the scores.
    Lazy (dask) scores stay lazy.

    Errors: `ValueError` for an unknown pooling, scores without `token`, and attention without
    logits.

    >>> scores = xr.DataArray([[0.1, 0.9, 0.2]], {"token": [-1, 0, 1]}, ("prompt", "token"))
    >>> pool(scores, "max").values, pool(scores, Pooling("top_k", k=2), tokens="all").values
    (array([0.9]), array([0.55]))
    """
    pooling = Pooling.read(pooling)
    if "token" not in scores.dims:
        raise InputError(
            f"A pooling ({pooling}) is over the dim 'token', and the scores have {scores.dims}. "
            "Give scores of each token, such as traits.project(traces, vectors)."
        )
    if (pooling.way == "attention") != (attention is not None):
        raise InputError(
            f"The pooling {str(pooling)!r} was asked for with attention="
            f"{'None' if attention is None else 'logits'}: the way 'attention' and the logits of "
            "an attention probe go together. Use traits.score, or another pooling."
        )
    given = [scores.where(chosen(scores, tokens))]
    given += [] if attention is None else [attention]
    # a keyword token= of chunk is something else
    whole = [one.chunk({"token": -1}) if one.chunks is not None else one for one in given]
    made = xr.apply_ufunc(
        lambda values, logits=None: pooled(values, pooling, logits),
        *whole,
        input_core_dims=[["token"]] * len(whole),
        dask="parallelized",
        output_dtypes=[np.float64],
        join="exact",
        keep_attrs=True,
    )
    kept = scores.dtype if scores.dtype.kind == "f" else np.float64
    rest = [dim for dim in scores.dims if dim != "token"]
    return made.astype(kept).transpose(*rest).rename(scores.name)


def chosen(scores: xr.DataArray, tokens: Tokens = RESPONSE) -> xr.DataArray:
    """Which of an array's (prompt, token) places `tokens` are: without labels, counted from 0.

    >>> chosen(xr.DataArray([[0.5, 0.5]], {"token": [-1, 0]}, ("prompt", "token"))).values
    array([False,  True])
    """
    axis = scores["token"].values if "token" in scores.coords else np.arange(scores.sizes["token"])
    selection = Selection(tokens)
    if not isinstance(tokens, xr.DataArray):
        return xr.DataArray(selection.labels(axis), dims="token")
    rows, ids = ids_of(scores), np.full((scores.sizes["prompt"], len(axis)), -1)
    if "token_id" in scores.coords:
        ids = scores["token_id"].transpose("prompt", "token").values
    known = np.ones(ids.shape, bool) if (ids < 0).all() else ids >= 0
    at = selection.at(rows, np.broadcast_to(axis, ids.shape), ids, known)
    return xr.DataArray(at, dims=("prompt", "token"))


def pooled(
    values: Values, pooling: Pooling, attention: Values | None = None
) -> Float[np.ndarray, "*row"]:
    """`pool` of plain arrays, along the last axis; NaN are holes.

    >>> pooled(np.array([[1.0, np.nan, 3.0]]), Pooling("mean")).tolist()
    [2.0]
    """
    values = np.asarray(values, np.float64)
    if pooling.function is not None:
        return _by_function(values, pooling.function)
    if attention is not None:
        return weighted(values, np.asarray(attention, np.float64))
    return np.asarray(FUNCTIONS[pooling.way](values, **pooling.options))


def as_read(pooling: Any, tokens: str, made: Mapping[str, Any]) -> tuple[Any, str]:
    """The pooling and tokens of what reads a capture that `made` (its provenance) describes.

    A capture with `reduce` has pooled already, its own tokens; of another one no tokens are read
    but those that it kept, where both are slices.

    >>> as_read("mean", "all", {"reduce": None, "tokens": "response"})
    ('mean', '-1:None:None')
    """
    kept = str(made.get("tokens"))
    if made.get("reduce") is not None:
        return str(made["reduce"]), kept
    own, other = _slice_of(tokens), _slice_of(kept)
    if own is None or other is None:
        return pooling, tokens
    start = max((n for n in (own.start, other.start) if n is not None), default=None)
    stop = min((n for n in (own.stop, other.stop) if n is not None), default=None)
    nothing = start is not None and stop is not None and start > stop
    return pooling, tokens if nothing or slice(start, stop) == own else f"{start}:{stop}:None"


def _slice_of(text: str) -> slice | None:
    """The slice that is recorded as this text, if it is one without a step."""
    try:
        tokens = read_recorded(text)
    except InputError:
        return None
    tokens = WORDS[tokens] if isinstance(tokens, str) else tokens
    return tokens if isinstance(tokens, slice) and tokens.step is None else None


def _by_function(values: Values, function: Function) -> Float[np.ndarray, "*row"]:
    rows = values.reshape(-1, values.shape[-1])
    there = [row[~np.isnan(row)] for row in rows]
    made = [
        np.asarray(function(row), np.float64) if len(row) else np.array(np.nan) for row in there
    ]
    wrong = next((one.shape for one in made if one.size != 1), None)
    if wrong is not None:
        raise InputError(
            f"The function {function!r} was given a row's token scores and gave values of shape "
            f"{wrong}; a pooling gives one number. Reduce them, as np.max does."
        )
    return np.array([one.item() for one in made]).reshape(values.shape[:-1])


def _options(text: str, inside: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise _unknown(text)
        return {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise _unknown(text) from error


def _require_way(way: str) -> None:
    if way not in WAYS:
        raise _unknown(way)


def _require_options(way: str, known: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in known:
            raise InputError(
                f"The pooling {way!r} was asked for with {name}={value!r}; its options are "
                f"{', '.join(known) or 'none'}. Leave it out."
            )
        words, kinds, right = _MAY_BE[name]
        if isinstance(value, bool) or not isinstance(value, kinds) or not right(value):
            raise InputError(
                f"The pooling {way!r} was asked for with {name}={value!r}; it is {words}."
            )


def _unknown(asked: Any) -> InputError:
    kind = InputError if isinstance(asked, str) else InputTypeError
    return kind(
        f"The pooling {brief(asked)} was asked for; there are {', '.join(WAYS)}, with options as "
        "in 'rolling_max(width=10)', and functions of one row's token scores."
    )
