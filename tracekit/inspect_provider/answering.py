"""Several requests through one loaded model: generated in one batch, and read in one forward."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.inspect_provider.asking import Asked
from tracekit.inspect_provider.model_arguments import Arguments, edited, opened
from tracekit.inspect_provider.reporting import Answer, answer
from tracekit.inspect_provider.stopping import cut
from tracekit.model.load import model_provenance
from tracekit.storage.files import sha256
from tracekit.storage.identity import digest
from tracekit.transcripts.encode import context_length


@functools.lru_cache(maxsize=1)
def loaded(name: str, loading: str) -> tk.Model:
    """The model of that name, loaded once; `loading` is JSON of `tk.load`'s arguments."""
    return tk.load(name, **json.loads(loading))


class Served:
    """A loaded model with its adapter, its edits, and what is read of each answer."""

    def __init__(self, name: str, arguments: Arguments) -> None:
        self.arguments, self._written = arguments, arguments.written
        base = loaded(name, json.dumps(dict(arguments.loading), sort_keys=True))
        self.model = functools.reduce(edited, arguments.edits, base)
        self.requests = self._requests()
        self.identity = self._identity()

    @property
    def is_stale(self) -> bool:
        """Whether a file that it was made of was written anew."""
        return self._written != self.arguments.written

    def key(self, asked: Asked) -> Hashable:
        """What the answers of a batch share, with the tokens that there is room for.

        Errors: `ValueError` for a prompt that the template or the context cannot hold.
        """
        return *asked.together, self._room(asked)

    def answers(self, asked: Sequence[Asked]) -> list[list[Answer]]:
        """The answers to requests of one key: a list each, of its choices."""
        first, arguments = asked[0], self.arguments
        # rows of a batch draw from one stream; unseeded, it is a new one each time
        seed = int(np.random.default_rng().integers(2**31)) if first.seed is None else first.seed
        with tk.adapter(self.model, arguments.adapter, scale=arguments.scale) as model:
            runs = tk.generate(
                model,
                tk.encode(model, [one.prompt for one in asked]),
                max_new_tokens=self._room(first),
                temperature=first.temperature,
                samples=first.samples,
                seed=seed,
                progress=False,
                **json.loads(first.decoding),
            )
            rows = [one for one in asked for _ in range(first.samples)]
            runs, ended = cut(model, runs, [one.stops for one in rows], first.max_tokens)
            found, paths = self._read(model, runs, first.logprobs)
        each = self.arguments.per_token
        made = [answer(runs, n, why, found, per_token=each) for n, why in enumerate(ended)]
        made = [replace(one, read={**one.read, **paths}) for one in made]
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

    def _identity(self) -> str:
        """A hash of all that decides an answer and what is read of it, but for the request.

        Errors: `ValueError` for an adapter, vectors or probes that do not fit the model.
        """
        arguments = self.arguments
        hashes = [sha256(Path(path)) for path in arguments.files]
        with tk.adapter(self.model, arguments.adapter, scale=arguments.scale) as model:
            by = model_provenance(model)
            if self.requests:
                # a short forward: what does not fit is refused now, and not at some sample
                short = tk.encode(model, ["."], ["."], template="raw")
                tk.capture_many(model, short, self.requests, progress=False)
        kept = [str(arguments.traces), arguments.capture_layers, arguments.per_token]
        return digest([by, hashes, arguments.extraction, *kept])

    def _requests(self) -> dict[str, tk.Request]:
        arguments = self.arguments
        made: dict[str, tk.Request] = {}
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
    ) -> tuple[dict[str, xr.DataArray], dict[str, str]]:
        """What is kept in memory, by name, and where the rest lies."""
        requests = dict(self.requests)
        if logprobs:
            requests["logprob"] = tk.Request(site="logprob")
        paths = {}
        if "traces" in requests:
            assert self.arguments.traces is not None
            # of several processes too, no two batches have one name
            folder = self.arguments.traces.absolute() / f"batch-{uuid.uuid4().hex[:12]}"
            folder.mkdir(parents=True)
            tk.save(runs, folder / "transcripts.nc")
            paths = {"traces": str(folder / "traces")}
        if not requests:
            return {}, {}
        found = tk.capture_many(model, runs, requests, path=paths, progress=False)
        files = {"transcripts": str(folder / "transcripts.nc")} if paths else {}
        return {k: v for k, v in found.items() if k not in paths}, {**paths, **files}
