"""Several captures of the same ids in one forward of each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import xarray as xr
from nnsight import TransformersModel

from tracekit.errors import InputError
from tracekit.passes import batching, products
from tracekit.passes.beginnings import planning
from tracekit.passes.monitoring import Probes, ask_probes
from tracekit.passes.request import LOGPROB, Asked, Reduce, Site, ask, ask_logprobs
from tracekit.storage import shard
from tracekit.transcripts.selection import Tokens


@dataclass(frozen=True)
class Request:
    """What one of several captures asks for: the arguments that `capture` has by these names.

    `site="logprob"` is the log-probability of each token given those before it, in nats, as
    `tk.logprobs` has it: (prompt, token), of all tokens unless `tokens` says which. It needs the
    whole forward; without it the forward stops after the last layer asked for.
    """

    layers: int | Sequence[int] | None = None
    site: Site = "residual"
    dims: Sequence[str] | None = None
    tokens: Tokens | None = None
    reduce: Reduce | None = None
    vectors: xr.DataArray | None = None
    probes: Probes | None = None
    transfer: bool = False
    round_to: str | None = None
    nonfinite: str = "raise"


def capture_many(
    model: TransformersModel,
    transcripts: xr.Dataset,
    requests: Mapping[str, Request],
    *,
    path: str | Path | Mapping[str, str | Path] | None = None,
    token_budget: int | None = None,
    compression: str = shard.DEFAULT_CODEC,
    writers: int | None = None,
    progress: bool = True,
    share_prompts: bool = False,
) -> dict[str, xr.DataArray]:
    """What each request asks of the same ids, by its name: every batch goes through the model once.

    The arrays are those that `capture` gives for the same batches (a `token_budget`; by default
    what all requests together fit in). With `path` each lies in `path/<name>` as `capture` would
    write it, and is opened by itself; a killed run goes on with the batches that any of them
    lacks. A dict of paths by name says where each goes; those that it does not have stay in memory,
    and need every batch. `pattern` changes how attention is computed, and is captured alone.
    `share_prompts` reads what rows begin with once, as `capture` says.

    Errors: those of `capture`, with the name of the request; `ValueError` for no request, for a
    name that is no folder's, for `pattern` beside others, and for a function of the block beside
    other sites (in which order the forward reaches them is not known).

    >>> found = capture_many(
    ...     model,
    ...     runs,
    ...     {"window": Request(layers=range(12, 24)), "likely": Request(site="logprob")},
    ... )
    >>> {name: array.dims for name, array in found.items()}
    {'window': ('prompt', 'token', 'layer', 'dim'), 'likely': ('prompt', 'token')}
    """
    shard.require_codec(compression)
    _require_names(requests, path)
    asked = [_asked(model, name, request) for name, request in requests.items()]
    _refuse_apart(requests, asked)
    if path is None or isinstance(path, Mapping):
        places = {name: Path(place) for name, place in (path or {}).items()}
    else:
        places = {name: Path(path) / name for name in requests}
    paths = [places.get(name) for name in requests]
    require_path(paths, compression, writers)
    given = [place.resolve() for place in paths if place is not None]
    if len({*given}) < len(given):
        raise InputError(
            f"path= gives two requests one folder ({', '.join(map(str, places.values()))}). Give "
            "each its own."
        )
    made = products.of(
        *(model, transcripts, asked, paths, token_budget),
        *(compression, writers, progress, share_prompts),
    )
    return dict(zip(requests, made, strict=True))


def require_path(paths: Sequence[Path | None], compression: str, writers: int | None) -> None:
    """Errors: `ValueError` for how a folder is written, where none is."""
    given = {"compression": compression} if compression != shard.DEFAULT_CODEC else {}
    told = given | ({} if writers is None else {"writers": writers})
    if told and not any(paths):
        raise InputError(
            f"{', '.join(f'{n}={v!r}' for n, v in told.items())} was given without path=: nothing "
            "is written. Give path=, or leave it out."
        )


def budget_of(
    model: TransformersModel,
    transcripts: xr.Dataset,
    requests: Mapping[str, Request],
    share_prompts: bool = False,
) -> int:
    """The `token_budget` that `capture_many` takes for these requests by default.

    Under several weights that are asked for different things, the one of all of it: only what was
    read in the same batches may be compared.
    """
    asked = [_asked(model, name, request) for name, request in requests.items()]
    shortest = planning.shortest(transcripts, share_prompts)
    return batching.fitting_budget(model, asked, transcripts.sizes["token"], shortest)


def _asked(model: TransformersModel, name: str, request: Request) -> Asked:
    given = {field.name: getattr(request, field.name) for field in fields(request)}
    tokens = given.pop("tokens")
    try:
        if request.site == LOGPROB:
            every = "all" if tokens is None else tokens
            usual = {"site": LOGPROB, "transfer": False, "nonfinite": "raise"}
            others = {k: v for k, v in given.items() if k not in usual or v != usual[k]}
            return ask_logprobs(every, others)
        tokens = "response" if tokens is None else tokens
        probes, transfer, nonfinite = (given.pop(k) for k in ("probes", "transfer", "nonfinite"))
        if probes is not None:
            return ask_probes(model, probes, tokens, nonfinite, transfer, given)
        return ask(model, tokens=tokens, transfer=transfer, nonfinite=nonfinite, **given)
    except (InputError, TypeError) as error:
        raise type(error)(f"The request {name!r}: {error}") from error


def _require_names(requests: Any, path: Any) -> None:
    good = isinstance(requests, Mapping) and all(
        isinstance(one, Request) for one in requests.values()
    )
    if not good or not requests:
        raise InputError(
            f"capture_many was given {requests!r}; it needs a dict of tk.Request by name, such as "
            '{"window": tk.Request(layers=range(12, 24))}.'
        )
    if isinstance(path, Mapping):
        unknown = sorted({*path} - {*requests})
        if unknown:
            raise InputError(
                f"path= was given for {unknown[0]!r}, which is no request; there are "
                f"{', '.join(requests)}. Name one of those."
            )
        return
    wrong = [name for name in requests if name in ("", "..") or Path(name).name != name]
    if wrong:
        raise InputError(
            f"A request has the name {wrong[0]!r}; each is the name of a folder, so it needs one "
            "that is no path."
        )


def _refuse_apart(requests: Mapping[str, Request], asked: Sequence[Asked]) -> None:
    if len(asked) == 1:
        return
    names = dict(zip(requests, asked, strict=True))
    alone = [name for name, one in names.items() if one.is_pattern]
    if alone:
        raise InputError(
            f"The request {alone[0]!r} is of attention's pattern, which is computed by other code "
            "(eager) than the rest would be. Capture it alone."
        )
    sites = {id(one.site) if callable(one.site) else one.site for one in asked} - {LOGPROB}
    functions = [name for name, one in names.items() if callable(one.site)]
    if functions and len(sites) > 1:
        raise InputError(
            f"The request {functions[0]!r} reads by a function, and others read elsewhere; which "
            "the forward reaches first is not known. Capture it alone, or all by one function."
        )
