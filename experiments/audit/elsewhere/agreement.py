"""Whether answers from elsewhere are the loaded model's: on a small sample of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from tracekit.errors import InputError
from tracekit.transcripts.encode import subset

ROWS, TOKENS = 8, 16
FAR = 1.0  # nats a token below what the model says itself
FEW = 0.5  # of greedy answers, whose first tokens are the model's own


def sample_of(runs: xr.Dataset) -> xr.Dataset:
    """The first tokens of some answers, from all over the prompts."""
    ids = runs.token_id.sel(token=slice(0, None)).transpose("prompt", "token").values
    said = np.flatnonzero((ids >= 0).any(axis=1))
    places = said[np.linspace(0, len(said) - 1, min(ROWS, len(said))).round().astype(int)]
    names = runs["prompt"].values[np.unique(places)].tolist()
    return subset(runs, prompt=names).sel(token=slice(None, TOKENS - 1))


def checked(
    model: Any, runs: xr.Dataset, temperature: float, seed: int, what: str
) -> Mapping[str, float]:
    """How a sample of answers stands to what the model, as it is, says to the same prompts.

    `nats`: the mean log-probability of their tokens under the model minus that of its own answers.
    Of greedy answers also `first_tokens`, the share whose first token is the model's own, and
    `alike`, the share of its own text that they begin with, whatever tokens a text is read as.

    Errors: `ValueError` for answers more than `FAR` nats a token less likely than its own, unless
    they are `FEW` alike, and for greedy ones of which fewer than `FEW` begin as its own.

    >>> said = tk.generate(model, tk.encode(model, ["Is snow white?", "Why?"]))
    >>> checked(model, said, 0.0, 0, "They")["first_tokens"]
    1.0
    """
    given = sample_of(runs)
    asked = given.sel(token=slice(None, -1))
    asked = subset(asked, prompt=asked["prompt"].values.tolist())
    length = int(given["token"].max()) + 1
    own = tk.generate(
        model, asked, max_new_tokens=length, temperature=temperature, seed=seed, progress=False
    )
    nats = [float(_said(tk.logprobs(model, rows)).mean()) for rows in (given, own)]
    firsts = [rows.token_id.sel(token=0).values for rows in (given, own)]
    told = {"nats": round(nats[0] - nats[1], 3), "rows": given.sizes["prompt"]}
    if not temperature:
        told["first_tokens"] = float((firsts[0] == firsts[1]).mean())
        told["alike"] = round(_alike(given, own, model.tokenizer), 3)
    first = told.get("first_tokens", 1.0)
    if (told["nats"] < -FAR and told.get("alike", 0.0) < FEW) or first < FEW:
        begun = "" if temperature else f", and {first:.0%} begin as its own greedy ones"
        raise InputError(
            f"{what} were checked against the loaded weights on {told['rows']} of them: a token is "
            f"{told['nats']:+.2f} nats as likely as those of its own answers{begun}, so something "
            "else said them. Give the answers of this model (and adapter) to these prompts."
        )
    return told


def _alike(given: xr.Dataset, own: xr.Dataset, tokenizer: Any) -> float:
    """The mean share of each of our own texts that the given one begins with."""
    shares = []
    sides = (one.token_id.sel(token=slice(0, None)).values for one in (given, own))
    for rows in zip(*sides, strict=True):
        there, here = (tokenizer.decode(row[row >= 0], skip_special_tokens=True) for row in rows)
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(there, here, strict=False))
        shares.append(sum(1 for _ in same) / max(len(here), 1))
    return float(np.mean(shares))


def refuse_exchanged(model: Any, adapter: str, runs: xr.Dataset, what: str) -> None:
    """Errors: `ValueError` where the bare model makes an adapter's answers likelier than it does.

    By more than 0.05 nats a token, on a sample: the two models are exchanged.
    """
    given, nats = sample_of(runs), []
    for one in (adapter, None):
        with tk.adapter(model, one):
            nats.append(float(_said(tk.logprobs(model, given)).mean()))
    if nats[0] - nats[1] < -0.05:
        raise InputError(
            f"{what} were checked on a sample: the bare model makes a token "
            f"{nats[1] - nats[0]:.2f} nats likelier than the adapter does, so they are another's. "
            "Look whether the two models or files are exchanged."
        )


def refuse_same(runs: xr.Dataset, clean: xr.Dataset, what: str) -> None:
    """Errors: `ValueError` where every answer is the clean one: no adapter was on."""
    texts = dict(zip(clean["group"].values.tolist(), clean["response"].values, strict=True))
    pairs = zip(runs["group"].values.tolist(), runs["response"].values, strict=True)
    if all(texts.get(group) == said for group, said in pairs):
        raise InputError(
            f"{what} are those of the clean arm, word for word, to all {runs.sizes['prompt']} "
            "prompts: no adapter was on. Look at the names that are served, or at the two files."
        )


def refuse_repeated(runs: xr.Dataset, what: str) -> None:
    """Errors: `ValueError` where all samples of each prompt are one text: nothing was sampled."""
    by_group: dict[str, set[str]] = {}
    for group, said in zip(runs["group"].values.tolist(), runs["response"].values, strict=True):
        by_group.setdefault(group, set()).add(str(said))
    if len(by_group) < runs.sizes["prompt"] and all(len(s) == 1 for s in by_group.values()):
        raise InputError(
            f"{what} were to be sampled, and all samples of every prompt are one text: the server "
            "answered greedily. Have it sample, or give --temperature 0 --samples 1."
        )


def _said(logprobs: xr.DataArray) -> xr.DataArray:
    return logprobs.sel(token=slice(0, None))
