"""How well a trait's vectors do on pairs that neither fitted nor selected them, beside nulls."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.storage.difference import norm
from tracekit.transcripts.pooling import Poolable, Pooling
from traits import statistics
from traits.statistics.permutation import QUANTILES
from traits.vectors.extraction import extract, refuse_identical, trait_name
from traits.vectors.measures import measure, with_chances
from traits.vectors.methods import Method
from traits.vectors.pairing import (
    joined,
    pairs,
    refuse_known,
    select_part,
    split_pairs,
    windowed_pairs,
)
from traits.vectors.projection import project
from traits.vectors.selection import (
    PATH,
    Scored,
    Scores,
    Sides,
    best_candidate,
    candidate_scores,
    fit_candidates,
    named_methods,
    null_candidates,
    null_reports,
    oriented_candidates,
    placebo_candidates,
)
from traits.vectors.summary_table import findings
from traits.vectors.token_sides import token_sides

PARTS = ("fit", "select", "report")
MEAN = Pooling("mean")
Pair = tuple[xr.DataArray, xr.DataArray]


def evaluate(
    traces: xr.DataArray,
    methods: Sequence[str] | Mapping[str, Method] = ("mean_diff", "probe", "whitened"),
    *,
    generator: np.random.Generator,
    part: xr.DataArray | None = None,
    windows: Mapping[str, slice] | None = None,
    kind: str = "scalar",
    pooling: Poolable = "mean",
    placebos: xr.DataArray | None = None,
    report: xr.DataArray | None = None,
    samples: xr.DataArray | None = None,
    draws: int = 200,
    resamples: int = 1000,
) -> xr.Dataset:
    """How well a trait's vector tells its own held-out pairs apart, and what would by chance.

    Vectors are fitted on the pairs of the part "fit" by every method, window and layer; the one
    with the highest AUROC on "select" is judged on "report", which neither step has seen.

    `traces` as for `extract` (with `token` where `windows` are given, or with a dim `window` of
    its own); `part` is a split made by `split_pairs` (drawn here if None); `kind` is scalar or
    cosine; `pooling` is how a text gets its score from its tokens (as in `tk.pool`; vectors are
    fitted on means): by any but "mean" each vector reads every token, and nulls are pooled alike;
    `placebos` are vectors (trait, layer, dim), with `extraction` and `window` if they have them,
    about nothing of interest; `report` are contrast traces of other pairs (chats, say) to judge on
    instead of the part of that name; `samples` (sample, layer, dim) give the covariance-matched
    null another covariance. `draws` is the number of null directions (0: none), `resamples` that
    of the bootstrap over pairs.

    Returns: `estimate`, `low`, `high` over `measure` (see `measures.measure`); the permutation
    `p` of the AUROC; `null_p`, `null_quantile`, `null_draws` over `null`, each sent through the
    same selection; the AUROC of every candidate on select and report (`curve`) with `p_family`
    for the best of the report curve and `null_curve` by layer; `selected_*`, the path; `n`. The
    attribute `findings` is a JSON list of what a reader must know. Raises ValueError for a set
    too small to split, for constant scores, and for a `report` of fitted or selected pairs.

    >>> draw = np.random.default_rng(0)
    >>> rows = {"label": ("prompt", [1, 0] * 40), "group": ("prompt", np.repeat(range(40), 2))}
    >>> values = draw.normal(size=(80, 2, 8))
    >>> traces = xr.DataArray(values, dims=("prompt", "layer", "dim"), coords=rows)
    >>> result = evaluate(traces, ["mean_diff"], generator=draw, draws=9, resamples=9)
    >>> result.sizes["measure"], result.sizes["null"]
    (6, 2)
    """
    sides = windowed_pairs(traces, windows)
    part = split_pairs(sides[0]["pair"], generator=generator) if part is None else part
    functions = named_methods(methods)
    fit = _part(sides, part, "fit")
    refuse_identical(*fit)
    how = Pooling.read(pooling)
    seen = {name: _seen(traces, sides, part, name, windows, kind, how) for name in PARTS}
    if report is not None:
        seen["report"] = _elsewhere(report, sides, part, kind, how)
    vectors = fit_candidates(list(functions.values()), fit)
    scores = {name: candidate_scores(vectors, seen[name]) for name in PARTS}
    path = best_candidate(*scores["select"])
    given = _rows(samples, sides)
    nulls = null_candidates(list(functions.values()), fit, generator, draws, given) if draws else {}
    if placebos is not None:
        found = placebo_candidates(placebos, sides[0])
        nulls["placebo"] = (oriented_candidates(vector, fit) for vector in found)
    rivals = {n: null_reports(null, seen["select"], seen["report"]) for n, null in nulls.items()}
    labels = {PATH[0]: np.array(list(functions)), **{d: sides[0][d].values for d in PATH[1:]}}
    result = xr.merge(
        [
            _measured({name: _chosen(scores[name], path) for name in PARTS}, generator, resamples),
            _searched(scores, path, labels, generator),
            *_compared(_area(scores["report"], path), rivals, labels["layer"]),
            _selected(path, labels, part).assign(n_report=seen["report"][0].shape[0]),
        ],
        join="exact",
        combine_attrs="drop",
    ).assign_coords(trait=trait_name(sides[0]))
    return result.assign_attrs(
        unit="pair", kind=kind, pooling=str(how), findings=json.dumps(findings(result))
    )


def held_out_auroc(
    traces: xr.DataArray, method: str | Method = "mean_diff", *, generator: np.random.Generator
) -> xr.DataArray:
    """The AUROC by layer of a vector fitted on one half of the pairs, on the other half.

    `traces` as for `extract`; the split is by pair, and by template where there is one. Returns
    (layer), with the numbers of pairs as attributes. A layer picked from this curve is not
    thereby evaluated: `evaluate` splits three ways.

    >>> draw = np.random.default_rng(0)
    >>> rows = {"label": ("prompt", [1, 0] * 20), "group": ("prompt", np.repeat(range(20), 2))}
    >>> values = draw.normal(size=(40, 3, 8))
    >>> traces = xr.DataArray(values, dims=("prompt", "layer", "dim"), coords=rows)
    >>> held_out_auroc(traces, generator=draw).sizes["layer"]
    3
    """
    part = split_pairs(
        pairs(traces)[0]["pair"], fractions={"fit": 0.5, "report": 0.5}, generator=generator
    )
    vector = extract(select_part(traces, part, "fit"), method)
    positive, negative = pairs(select_part(traces, part, "report"))
    area = statistics.paired_auroc(project(positive, vector), project(negative, vector))
    counts = {f"{name}_pairs": int((part == name).sum()) for name in ("fit", "report")}
    return area.assign_attrs(counts)


def _part(sides: Pair, part: xr.DataArray, name: str) -> Sides:
    rows = part["pair"].values[(part == name).values]
    positive, negative = (side.sel(pair=rows).values for side in sides)
    return positive, negative


def _seen(
    traces: xr.DataArray,
    sides: Pair,
    part: xr.DataArray,
    name: str,
    windows: Mapping[str, slice] | None,
    kind: str,
    pooling: Pooling,
) -> Scored:
    means = _measurable(sides, kind)
    if pooling == MEAN:
        return _part(means, part, name)
    rows = part["pair"].values[(part == name).values].tolist()
    return token_sides(traces, rows, windows, kind, pooling)


def _elsewhere(
    report: xr.DataArray, sides: Pair, part: xr.DataArray, kind: str, pooling: Pooling
) -> Scored:
    report = report.sel(layer=sides[0]["layer"].values)
    found = windowed_pairs(report)
    refuse_known(sides, found, part)
    if pooling != MEAN:
        rows = list(dict.fromkeys(report["group"].values.tolist()))
        whole = {str(name): None for name in sides[0]["window"].values}
        return token_sides(report, rows, whole, kind, pooling)
    if found[0].sizes["window"] == 1:
        # one mean over the response stands against every window of the stories
        every = [0] * sides[0].sizes["window"]
        found = (found[0].isel(window=every), found[1].isel(window=every))
    positive, negative = (side.values for side in _measurable(found, kind))
    if positive.shape[1:] != sides[0].shape[1:]:
        raise InputError(
            f"The report's traces have (window, layer, dim) {positive.shape[1:]} and the fitted "
            f"ones {sides[0].shape[1:]}. Capture the same windows and layers of the same model."
        )
    return positive, negative


def _measurable(sides: Pair, kind: str) -> Pair:
    if kind not in ("scalar", "cosine"):
        raise InputError(f"The kind {kind!r} was asked for; evaluate has 'scalar' and 'cosine'.")
    if kind == "scalar":
        return sides
    positive, negative = (side / norm(side) for side in sides)
    return positive, negative


def _rows(samples: xr.DataArray | None, sides: tuple[xr.DataArray, ...]) -> np.ndarray | None:
    if samples is None:
        return None
    rows = samples.transpose("sample", "layer", "dim")
    return rows.sel(layer=sides[0]["layer"].values).values


def _chosen(scores: tuple[Scores, Scores], path: tuple[int, ...]) -> xr.Dataset:
    positive, negative = (side[path] for side in scores)
    if np.ptp(np.concatenate([positive, negative])) == 0:
        raise InputError(
            f"All {2 * len(positive)} scores of the chosen vector are {positive[0]:.4g}: there is "
            "nothing to evaluate. Take other layers or tokens."
        )
    return xr.Dataset({"positive": ("pair", positive), "negative": ("pair", negative)})


def _area(scores: tuple[Scores, Scores], path: tuple[int, ...]) -> float:
    return float(statistics.rank_auroc(scores[0][path], scores[1][path]))


def _measured(
    scores: Mapping[str, xr.Dataset], generator: np.random.Generator, resamples: int
) -> xr.Dataset:
    middle = (scores["fit"]["positive"].mean() + scores["fit"]["negative"].mean()) / 2
    rows = with_chances(scores["report"], scores["select"]).assign(threshold=middle)
    found = statistics.cluster_bootstrap(
        rows,
        measure,
        generator=generator,
        dim="pair",
        group=None,
        repetitions=resamples,
        many=True,
    )
    return found.assign(threshold=middle)


def _searched(
    scores: Mapping[str, tuple[Scores, Scores]],
    path: tuple[int, ...],
    labels: Mapping[str, np.ndarray],
    generator: np.random.Generator,
) -> xr.Dataset:
    dims = (*PATH, "pair")
    ranks = {
        name: statistics.rank_differences(
            xr.DataArray(scores[name][0], dims=dims, coords=labels),
            xr.DataArray(scores[name][1], dims=dims, coords=labels),
        )
        for name in PARTS[1:]
    }
    tested = statistics.sign_flip(
        ranks["report"],
        generator=generator,
        dim="pair",
        group=None,
        family=PATH,
        alternative="greater",
    )
    place = dict(zip(PATH, path, strict=True))
    curve = joined([0.5 + rank.mean("pair") for rank in ranks.values()], "part", ranks)
    p = tested["p"].isel(place, drop=True)
    return xr.Dataset({"p": p, "p_family": tested["p_family"], "curve": curve})


def _compared(
    observed: float, rivals: Mapping[str, xr.DataArray], layers: np.ndarray
) -> list[xr.Dataset]:
    found = []
    for null in rivals.values():
        beside = statistics.against_null(xr.DataArray(observed), null["chosen"])
        curve = null.drop_vars("chosen").assign_coords(layer=layers).quantile(QUANTILES, "draw")
        curve = curve.rename(quantile="level")
        beside = beside.drop_vars("estimate").rename(p="null_p")
        found.append(beside.assign(null_curve=curve, null_draws=null.sizes["draw"]))
    return [joined(found, "null", rivals)] if rivals else []


def _selected(
    path: tuple[int, ...], labels: Mapping[str, np.ndarray], part: xr.DataArray
) -> xr.Dataset:
    names = {f"selected_{dim}": labels[dim][k] for dim, k in zip(PATH, path, strict=True)}
    counts = {f"n_{name}": int((part == name).sum()) for name in PARTS}
    return xr.Dataset({**names, **counts})
