"""Several requests through one loaded model: generated in one batch, and read in one forward."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.inspect_provider.asking import Asked
from tracekit.inspect_provider.model_arguments import Arguments, edited, opened
from tracekit.inspect_provider.stopping import cut
from tracekit.transcripts.encode import context_length


@dataclass(frozen=True)
class Answer:
    """One response: its text, why it ended, and what was read of it (plain values, for JSON)."""

    text: str
    ended: str
    prompt_tokens: int
    response_tokens: int
    logprobs: list[tuple[str, float]]
    read: dict[str, Any]


@functools.lru_cache(maxsize=1)
def loaded(name: str, loading: str) -> tk.Model:
    """The model of that name, loaded once; `loading` is JSON of `tk.load`'s arguments."""
    return tk.load(name, **json.loads(loading))


class Served:
    """A loaded model with its adapter, its edits, and what is read of each answer."""

    def __init__(self, name: str, arguments: Arguments) -> None:
        self.arguments = arguments
        base = loaded(name, json.dumps(dict(arguments.loading), sort_keys=True))
        self.model = functools.reduce(edited, arguments.edits, base)
        self.requests = self._requests()

    def key(self, asked: Asked) -> Hashable:
        """What the answers of a batch share, with the tokens that there is room for.

        Errors: `ValueError` for a prompt that the template or the context cannot hold.
        """
        return *asked.together, self._room(asked)

    def answers(self, asked: Sequence[Asked]) -> list[list[Answer]]:
        """The answers to requests of one key, one a choice."""
        first, room = asked[0], self._room(asked[0])
        seed = (
            first.seed if first.seed is not None else int(np.random.default_rng().integers(2**31))
        )
        arguments = self.arguments
        with tk.adapter(self.model, arguments.adapter, scale=arguments.scale) as model:
            runs = tk.generate(
                model,
                tk.encode(model, [one.prompt for one in asked]),
                max_new_tokens=room,
                temperature=first.temperature,
                samples=first.samples,
                seed=seed,
                progress=False,
                **json.loads(first.decoding),
            )
            rows = [one for one in asked for _ in range(first.samples)]
            runs, ended = cut(model, runs, [(one.stops, one.max_tokens) for one in rows], room)
            found, folder = self._read(model, runs, any(one.logprobs for one in asked))
        made = [self._answer(runs, n, one, ended[n], found, folder) for n, one in enumerate(rows)]
        return [made[n : n + first.samples] for n in range(0, len(made), first.samples)]

    def _room(self, asked: Asked) -> int:
        length = tk.encode(self.model, [asked.prompt]).sizes["token"]
        room = min(asked.max_tokens, context_length(self.model) - length)
        if room < 1:
            raise tk.InputError(
                f"A prompt of {length} tokens was given; this model's context holds "
                f"{context_length(self.model)}, and leaves none for an answer. Shorten it."
            )
        return room

    def _requests(self) -> dict[str, tk.Request]:
        arguments, made = self.arguments, {}
        layers, transfer = arguments.capture_layers, arguments.transfer
        if arguments.vectors is not None:
            chosen = {} if arguments.extraction is None else {"extraction": arguments.extraction}
            vectors = opened(self.model, arguments.vectors, chosen)
            made["projections"] = tk.Request(layers=layers, vectors=vectors, transfer=transfer)
        if arguments.probes:
            probes = {Path(path).stem: tk.open(path) for path in arguments.probes}
            made["scores"] = tk.Request(probes=probes, transfer=transfer)
        if arguments.traces is not None:
            made["traces"] = tk.Request(layers=layers)
        return made

    def _read(
        self, model: tk.Model, runs: xr.Dataset, logprobs: bool
    ) -> tuple[dict[str, xr.DataArray], Path | None]:
        requests = {
            **self.requests,
            **({"logprob": tk.Request(site="logprob")} if logprobs else {}),
        }
        if not requests:
            return {}, None
        paths, folder = {}, None
        if self.arguments.traces is not None:
            folder = self.arguments.traces.absolute() / f"batch-{uuid.uuid4().hex[:12]}"
            folder.mkdir(parents=True)
            tk.save(runs, folder / "transcripts.nc")
            paths = {"traces": folder / "traces"}
        return tk.capture_many(model, runs, requests, path=paths or None, progress=False), folder

    def _answer(
        self,
        runs: xr.Dataset,
        row: int,
        asked: Asked,
        ended: str,
        found: Mapping[str, xr.DataArray],
        folder: Path | None,
    ) -> Answer:
        mine = runs.isel(prompt=row)
        said = mine.sel(token=slice(0, None))
        said = said.isel(token=np.flatnonzero(said.token_id.values >= 0))
        name = str(mine["prompt"].values)
        values = {key: array.sel(prompt=name) for key, array in found.items() if key != "traces"}
        values = {
            key: array.sel(token=array.token.isin(said.token)) for key, array in values.items()
        }
        likely = values.pop("logprob", None)
        read = {"prompt": name, "response_ids": said.token_id.values.tolist(), **_means(values)}
        if self.arguments.per_token:
            read["tokens"] = {"text": said.token_text.values.tolist(), **_each(values)}
        if folder is not None:
            read |= {
                "traces": str(folder / "traces"),
                "transcripts": str(folder / "transcripts.nc"),
            }
        by = tk.provenance(runs)["text"]["by"]
        read["by"] = {key: by[key] for key in ("model", "weights", "adapter", "edits")}
        pairs = [] if likely is None else zip(said.token_text.values, likely.values, strict=True)
        return Answer(
            text=str(mine.response.values),
            ended=ended,
            prompt_tokens=int(mine.prompt_length.values),
            response_tokens=said.sizes["token"],
            logprobs=[(str(text), float(nats)) for text, nats in pairs] if asked.logprobs else [],
            read=read,
        )


def _means(values: Mapping[str, xr.DataArray]) -> dict[str, Any]:
    """Per trait and layer the mean over the response's tokens, per probe its pooled score."""
    made: dict[str, Any] = {}
    if "projections" in values:
        made["projections"] = _nested(values["projections"].mean("token"), ("trait", "layer"))
    if "scores" in values:
        scores = values["scores"]
        made["scores"] = _nested(scores.pooled, ("probe",))
        set_ = np.isfinite(scores.threshold.values)
        over = (scores.pooled > scores.threshold).isel(probe=np.flatnonzero(set_))
        made["over_threshold"] = {str(one.probe.values): bool(one) for one in over}
    return made


def _each(values: Mapping[str, xr.DataArray]) -> dict[str, Any]:
    """The same for every token of the response, in order."""
    dims = {"projections": ("trait", "layer"), "scores": ("probe",)}
    return {key: _nested(array, dims[key]) for key, array in values.items()}


def _nested(array: xr.DataArray, dims: Sequence[str]) -> Any:
    """Values by their labels, as JSON keeps them."""
    if not dims:
        return array.values.tolist()
    dim, *rest = dims
    if dim not in array.dims:
        named = str(array[dim].values) if dim in array.coords else "vector"
        return {named: _nested(array, rest)}
    return {
        str(label): _nested(array.isel({dim: n}), rest)
        for n, label in enumerate(array[dim].values.tolist())
    }
