"""A probe from labelled traces: fitted on one part, chosen on another, silent about the third."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from tracekit.storage.identity import digest
from tracekit.storage.provenance import read as provenance_of
from tracekit.transcripts.pooling import RESPONSE, Poolable, Pooling, as_read
from tracekit.transcripts.selection import Tokens
from traits.probes.calibration import platt
from traits.probes.fitting import choosing, splits
from traits.probes.fitting.asked import Asked, Traces, asked_of, opened, with_layers
from traits.probes.fitting.choosing import Candidates
from traits.probes.fitting.labels import Labels, matched
from traits.probes.fitting.linear import Function
from traits.probes.fitting.method_table import Parameters, Target, solutions
from traits.probes.fitting.rows import Source, contents, source
from traits.probes.record import tokens_said, written

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
FRACTIONS: Mapping[str, float] = MappingProxyType({"fit": 0.6, "select": 0.2, "report": 0.2})


def fit(
    traces: Traces,
    labels: xr.DataArray | str | Sequence[str],
    *,
    method: str | Function = "logistic",
    pooling: Poolable | Sequence[Poolable] | None = None,
    layers: int | Sequence[int] | None = None,
    tokens: Tokens = RESPONSE,
    groups: str | xr.DataArray | None = "group",
    targets: Sequence[str] | None = None,
    inverse_penalty: float | Sequence[float] = PENALTIES,
    fractions: Mapping[str, float] = FRACTIONS,
    part: xr.DataArray | None = None,
    class_weight: str | None = "balanced",
    rows: str | None = None,
    generator: np.random.Generator | None = None,
) -> xr.Dataset:
    """A probe fitted on labelled traces, with its layer, pooling and penalty chosen.

    `traces` are (prompt, token, layer, dim), (prompt, layer, dim), or the path of a capture,
    which is read one layer at a time. `labels` are 1, 0 or NaN (not labelled), or true and false:
    over (prompt), over (prompt, token) for tokens or spans (`tk.find`), over (prompt, target) for
    several probes at once; or the name of a coordinate, or several as targets.

    | method | is |
    | --- | --- |
    | `logistic` | `make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty))` |
    | `ridge` | `make_pipeline(StandardScaler(), RidgeClassifier(alpha=1 / inverse_penalty))` |
    | `lda` | `LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")`, rows without weights |
    | `mean_diff` | the difference of the classes' means, and their midpoint as 0 |
    | `attention`, `mlp` | weights by attention over tokens; one hidden layer a token |
    | a function | (row, dim) values, labels and weights (row) to weights (dim) |

    The linear ones equal scikit-learn's on the same matrix. Beyond 1,024 rows and as many dims, or
    8 million values, `logistic` is minimised in single precision, and agrees to about 1e-3 of the
    scores' spread; memory is about one layer's rows (up to 1 GB; what is more is read again at
    every pass), and for `lda` and `ridge` of as many a covariance (dim, dim) or two.

    Responses are fitted as `rows="mean"`, one row a response (its mean over `tokens`), or
    "tokens", a row a token, in which prompts weigh alike: by default where tokens are labelled,
    and for an `mlp`. Attention always has the tokens.
    `class_weight="balanced"` lets both classes weigh the same.

    Prompts are parted by `groups` (a coordinate, an array, or None: each alone) in `fractions`, or
    as `part` (prompt) says. The probe is fitted on "fit"; where there are several `layers` (all
    those of the traces), poolings or penalties, the one with the highest AUROC on "select" is
    taken: of pooled scores, or of tokens where all responses have tokens of both classes. "report"
    is never looked at. Poolings are `tk.Pooling`s ("mean"; "attention" for that method).

    Returns `weight` (dim) in residual units, `offset`, `layer`: a token's score is weight ·
    residual + offset (the log-odds of `logistic` and `lda`). Further `inverse_penalty`,
    `selection` (candidate) with every AUROC, `part` (prompt), counts `n_<part>_<class>`, and
    `calibration`, Platt's curve on the pooled scores of "select" (`traits.probability`; NaN where
    that lacks a class), and `threshold` as NaN. With targets all of them have a dim `target`, each
    with its own layer and penalty, and one pooling. `tk.save` keeps it; `traits.score` uses it.

    Errors: `ValueError` for labels that do not match the traces, a part with one class or too few
    prompts, a group in two parts, tokens that are not finite, and scores that are all the same.

    >>> traces = xr.DataArray(
    ...     np.random.default_rng(0).normal(size=(40, 2, 8)), dims=("prompt", "layer", "dim"),
    ...     coords={"prompt": [f"a/{n}" for n in range(40)], "layer": [3, 4]},
    ... )
    >>> label = xr.DataArray(np.arange(40) % 2, dims="prompt")
    >>> probe = fit(traces + 3 * label, label, groups=None)
    >>> probe.weight.sizes["dim"], probe.n_fit_positive.item()
    (8, 12)
    """
    traces = opened(traces)
    held = source(with_layers(traces, layers), tokens)
    label = matched(labels, held, targets)
    asked = asked_of(method, pooling, held, inverse_penalty, class_weight, rows, label, generator)
    part_of = _parts(held, label, groups, fractions, part, asked)
    area, probes = fitted(asked, held, label, part_of)
    chosen, places = choosing.best(area, asked.candidates)
    parameters = [probes[layer][t][penalty] for t, (layer, penalty) in enumerate(places)]
    _refuse_constant(held, asked, label, part_of, places, parameters)
    made = written(
        choosing.stacked(parameters),
        [asked.candidates.layers[layer] for layer, _ in places],
        label.targets,
        _attributes(asked, label, as_read(str(chosen), tokens_said(tokens), _made(traces))),
        _provenance(asked, traces, label, groups),
    )
    made = _with_numbers(made, asked.candidates, places, area, label, held, part_of)
    made = made.assign(_rows(traces, groups))
    curves = _calibrations(held, made, chosen, parameters, label, part_of)
    return made.assign(calibration=made["calibration"].copy(data=curves))


def _parts(
    held: Source,
    labels: Labels,
    groups: str | xr.DataArray | None,
    fractions: Mapping[str, float],
    part: xr.DataArray | None,
    asked: Asked,
) -> np.ndarray:
    names = splits.group_names(groups, held.traces)
    known = labels.classes.any((1, 2))
    if part is not None:
        made = np.where(known, splits.given_parts(part, held.traces, names), "")
    else:
        made = np.full(len(names), "", dtype="U16")
        some = labels.classes[known], names[known]
        made[known] = splits.split(*some, fractions, asked.generator)
    needed = {"fit": 2} | ({"select": 1} if asked.candidates.number > 1 else {})
    splits.require_classes(labels.classes, made, labels.targets, needed)
    return made


def fitted(
    asked: Asked, held: Source, labels: Labels, part: np.ndarray
) -> tuple[np.ndarray, list[list[list[Parameters]]]]:
    """Every candidate's AUROC (target, layer, pooling, penalty), and its parameters."""
    count, chooses = labels.prompt.shape[1], asked.candidates.number > 1
    of_targets = [_target(labels, part, asked, n) for n in range(count)]
    select = np.flatnonzero(part == "select")
    probes, area = [], []
    for layer in asked.candidates.layers:
        probes.append(_solved(asked, held, layer, of_targets))
        if chooses:
            found = choosing.areas(
                held, layer, probes[-1], asked.candidates.poolings, labels, select
            )
        else:
            found = np.full((count, 1, 1), np.nan)
        area.append(found)
    return np.stack(area, 1), probes


def _solved(
    asked: Asked, held: Source, layer: int, targets: Sequence[Target]
) -> list[list[Parameters]]:
    given = held, layer, targets, asked.candidates.penalties, asked.kind, asked.generator
    return solutions(asked.method, *given)


def _target(labels: Labels, part: np.ndarray, asked: Asked, number: int) -> Target:
    rows = np.flatnonzero((part == "fit") & ~np.isnan(labels.prompt[:, number]))
    token = None if labels.token is None else labels.token[rows, :, number]
    return Target(rows, labels.prompt[rows, number], token, asked.balanced)


def _refuse_constant(
    held: Source,
    asked: Asked,
    labels: Labels,
    part: np.ndarray,
    places: Sequence[tuple[int, int]],
    parameters: Sequence[Parameters],
) -> None:
    # each chosen layer is read once, of the smaller part
    rows = np.flatnonzero(part == ("select" if asked.candidates.number > 1 else "fit"))
    names = [f" of target {name!r}" for name in labels.targets or ()] or [""]
    for place in dict.fromkeys(layer for layer, _ in places):
        here = [n for n, (layer, _) in enumerate(places) if layer == place]
        probes = {names[n]: parameters[n] for n in here}
        choosing.refuse_constant(held, asked.candidates.layers[place], probes, rows)


def _made(traces: xr.DataArray) -> dict[str, Any]:
    return provenance_of(traces) if "provenance" in traces.attrs else {}


def _attributes(asked: Asked, labels: Labels, said: tuple[str, str]) -> dict[str, str]:
    return {
        "method": _name(asked.method),
        "pooling": said[0],
        "tokens": said[1],
        "rows": asked.kind,
        "class_weight": "balanced" if asked.balanced else "none",
        "classes": json.dumps([f"not {labels.name}", labels.name]),
    }


def _provenance(
    asked: Asked, traces: xr.DataArray, labels: Labels, groups: str | xr.DataArray | None
) -> dict[str, Any]:
    made = _made(traces)
    values = labels.prompt if labels.token is None else labels.token
    return {
        "made_by": "traits.fit",
        "method": _name(asked.method),
        "rows": asked.kind,
        "site": made.get("site", "residual"),
        "labels": {"name": labels.name, "hash": digest(np.nan_to_num(values, nan=-1).tolist())},
        "groups": groups if groups is None or isinstance(groups, str) else "given",
        "source": made or None,
    }


def _with_numbers(
    probe: xr.Dataset,
    candidates: Candidates,
    places: Sequence[tuple[int, int]],
    area: np.ndarray,
    labels: Labels,
    held: Source,
    part: np.ndarray,
) -> xr.Dataset:
    """The probe with what chose it, and how many prompts of which class were in each part."""
    lead = () if labels.targets is None else ("target",)
    whole = slice(None) if lead else 0
    penalty = np.array([candidates.penalties[place] for _, place in places])
    found = area.reshape(len(area), -1)
    variables: dict[str, Any] = {
        "inverse_penalty": (lead, penalty[whole]),
        "selection": ((*lead, "candidate"), found[whole]),
        "part": ("prompt", part.astype(np.str_)),
    }
    counts = splits.counts(labels.classes, part)
    variables |= {name: (lead, number[whole]) for name, number in counts.items()}
    coords = {**candidates.coordinates(), "prompt": held.prompts.astype(np.str_)}
    return probe.assign(variables).assign_coords(coords)


def _rows(traces: xr.DataArray, groups: str | xr.DataArray | None) -> dict[str, Any]:
    """What tells the prompts again besides their ids: groups, and hashes of what they hold."""
    names = splits.group_names(groups, traces).astype(np.str_)
    return {
        "part_group": ("prompt", names),
        "part_ids": ("prompt", np.array(contents(traces), dtype=np.str_)),
    }


def _calibrations(
    held: Source,
    probe: xr.Dataset,
    pooling: Pooling,
    parameters: Sequence[Parameters],
    labels: Labels,
    part: np.ndarray,
) -> np.ndarray:
    """Platt's curve of each target's pooled scores on "select"; NaN where a class is lacking."""
    curves = np.full((len(parameters), 2), np.nan)
    layers = np.atleast_1d(probe["layer"].values)
    for number, (layer, one) in enumerate(zip(layers, parameters, strict=True)):
        truth = labels.prompt[:, number]
        rows = np.flatnonzero((part == "select") & ~np.isnan(truth))
        if choosing.both(truth[rows]):
            scores = choosing.pooled_scores(held, int(layer), one, pooling, rows)
            curves[number] = platt(scores, truth[rows] == 1)
    return curves if labels.targets is not None else curves[0]


def _name(method: str | Function) -> str:
    return method if isinstance(method, str) else getattr(method, "__qualname__", repr(method))
