"""Everything the statistics use of one adapter's answers, a row a response, from saved files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import tracekit as tk
from experiments.audit.evidence import spans
from experiments.audit.evidence.measures import response_mean, response_score
from experiments.audit.phases.projections import read
from experiments.audit.run import Run
from experiments.audit.settings.groups import MEAN
from tracekit.storage.provenance import read as provenance_of
from tracekit.storage.provenance import stamp
from tracekit.transcripts.encode import ids_of

KEPT = ("bias", "group", "part", "exploit", "prompt_length")


def gathered(folder: Path, weights: str, text: str, pooling: str = MEAN) -> xr.Dataset:
    """One row a response of `text`, scored under `weights` and under the clean weights.

    Over (prompt, layer, trait), of the cosine: `score` and `clean_score`, pooled over the
    response's tokens (by another `pooling` than the mean, their means are `mean` and `clean_mean`
    beside them); `outside`, the mean of (weights − clean) over the tokens outside exploit spans;
    `contrast`, with `match` before them, (weights − clean) at exploit spans minus at matched ones
    (`spans.MATCHES`; NaN where there is none); `scalar` and `clean_scalar`, the same as `score` in
    residual units;
    `norm` (prompt, layer); `length`, `onset` (−1: none), `response`. `spans`, `matched`,
    `deciles` and `nats` say how well spans were matched. Errors: `ValueError` for arms that may
    not be compared.
    """
    arms = {kind: _pair(folder, weights, text, kind) for kind in ("cosine", "scalar")}
    own, clean = arms["cosine"]
    moved = tk.difference(own, clean)
    runs = _aligned(tk.open(Run(folder).responses(text)), own)
    response = response_tokens(own)
    answers = answers_of(folder, text, own)
    matched = spans.by_match(answers)
    variables: dict[str, Any] = {
        "score": response_score(own, pooling),
        "clean_score": response_score(clean, pooling),
        "contrast": _contrast(moved, matched),
        "outside": response_mean(moved.where(~moved["exploit_span"])),
        "scalar": response_score(arms["scalar"][0], pooling),
        "clean_scalar": response_score(arms["scalar"][1], pooling),
        "norm": own["norm"].sel(token=slice(0, None)).mean("token"),
        "length": ("prompt", response.sum(axis=1).astype(np.int32)),
        "onset": ("prompt", _onset(own)),
        "response": ("prompt", runs["response"].values.astype(np.str_)),
    }
    if pooling != MEAN:
        variables |= {"mean": response_mean(own), "clean_mean": response_mean(clean)}
    dims = ("match", "prompt", "layer", "trait")
    whole = xr.Dataset(
        {
            name: value if isinstance(value, tuple) else _bare(value, dims)
            for name, value in variables.items()
        },
        coords={name: ("prompt", own[name].values) for name in KEPT},
    )
    whole = whole.merge(spans.quality(answers, matched))
    return stamp(whole, {**provenance_of(moved), "made_by": "experiments.audit.evidence.gather"})


def replayed(folder: Path, weights: str, rows: xr.Dataset) -> xr.Dataset:
    """Other weights on the organism's ids of `rows`: `shift_mean`, `contrast` by match."""
    own, clean = _pair(folder, weights, "organism", "cosine")
    moved = tk.difference(own, clean)
    matched = spans.by_match(answers_of(folder, "organism", own))
    variables = {"shift_mean": response_mean(moved), "contrast": _contrast(moved, matched)}
    dims = ("match", "prompt", "layer", "trait")
    whole = xr.Dataset({name: _bare(value, dims) for name, value in variables.items()})
    return whole.sel(prompt=rows["prompt"].values)


def edited_shift(folder: Path, text: str) -> xr.Dataset | None:
    """(organism − clean) on edited texts: `whole`, the response mean, and `span` where inserted.

    Over (prompt, layer, trait) with `group` and `bias`; None where nothing exploited, so that
    nothing was edited.
    """
    if not Run(folder).projections(f"organism/{text}").is_file():
        return None
    own, clean = _pair(folder, "organism", text, "cosine")
    moved = tk.difference(own, clean)
    marked = moved.where(moved["exploit_span"])
    dims = ("prompt", "layer", "trait")
    variables = {"whole": response_mean(moved), "span": marked.mean("token")}
    whole = xr.Dataset({name: _bare(value, dims) for name, value in variables.items()})
    return whole.assign_coords({n: ("prompt", moved[n].values) for n in ("group", "bias")})


def response_tokens(array: xr.DataArray | xr.Dataset) -> np.ndarray:
    """Which tokens are the response's own words: (prompt, token)."""
    roles = array["role"].transpose("prompt", "token").values.astype(str)
    return (roles == "assistant") & (array["token"].values >= 0)


def likelihood_ratio(folder: Path, rows: xr.Dataset) -> np.ndarray:
    """The mean over response tokens of log p(organism) − log p(clean), in nats: (prompt)."""
    logprobs = tk.open(Run(folder).logprobs).sel(prompt=rows["prompt"].values)
    gap = logprobs.sel(weights="organism") - logprobs.sel(weights="clean")
    return gap.mean("token").values


def _pair(folder: Path, weights: str, text: str, kind: str) -> tuple[xr.DataArray, xr.DataArray]:
    arms = [read(folder, f"{name}/{text}", kind) for name in (weights, "clean")]
    return arms[0], arms[1]


def answers_of(
    folder: Path,
    text: str,
    own: xr.DataArray | xr.Dataset,
    logprob: xr.DataArray | None = None,
) -> spans.Answers:
    """An arm's answers by token, as spans are matched in them; `own` has their labels.

    Likelihoods are those of the clean weights, and are known of the organism's answers alone:
    `logprob` (prompt, token), or what the run's file has.
    """
    texts, bare = own["token_text"].transpose("prompt", "token").values, own["part"] == "neutral"
    return spans.Answers(
        exploit=_marked(own),
        response=response_tokens(own),
        ends=spans.sentence_ends(texts),
        logprob=_likely(folder, text, own, logprob),
        bare=(bare | (own["exploit"] == 0)).values,
        part=own["part"].values.astype(str),
    )


def _contrast(moved: xr.DataArray, matched: dict[str, list[spans.Match]]) -> xr.DataArray:
    like = moved.isel(token=0, drop=True)
    means = [like.copy(data=spans.span_means(moved.values, pairs)) for pairs in matched.values()]
    return xr.concat(means, xr.Variable("match", list(matched)))


def _likely(
    folder: Path, text: str, own: xr.DataArray | xr.Dataset, logprob: xr.DataArray | None
) -> np.ndarray:
    if text != "organism":
        return np.full((own.sizes["prompt"], own.sizes["token"]), np.nan)
    clean = tk.open(Run(folder).logprobs).sel(weights="clean") if logprob is None else logprob
    clean = clean.sel(prompt=own["prompt"].values).reindex(token=own["token"].values)
    return clean.transpose("prompt", "token").values


def _marked(own: xr.DataArray | xr.Dataset) -> np.ndarray:
    return own["exploit_span"].transpose("prompt", "token").values.astype(bool)


def _onset(own: xr.DataArray) -> np.ndarray:
    marked = _marked(own)
    first = own["token"].values[marked.argmax(axis=1)]
    return np.where(marked.any(axis=1), first, -1).astype(np.int32)


def _aligned(runs: xr.Dataset, own: xr.DataArray) -> xr.Dataset:
    return runs.isel(prompt=[ids_of(runs).index(name) for name in ids_of(own)])


def _bare(array: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    named = [name for name in array.coords if name not in dims]
    order = [dim for dim in dims if dim in array.dims]
    return array.drop_vars(named).drop_attrs().transpose(*order)
