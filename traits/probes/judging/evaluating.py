"""How well a probe tells responses that it has not seen, beside texts, nulls and other kinds."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from tracekit.transcripts.selection import Tokens
from traits.probes.fitting.rows import contents
from traits.probes.judging.baselines import BASELINES, text_scores
from traits.probes.judging.own_rows import parts_of
from traits.probes.judging.report_rows import along, labelled, refuse_one_class
from traits.probes.judging.score_measures import calibration_curve, chances, measured, names_of
from traits.probes.scoring import score
from traits.statistics import against_null, auroc, cluster_bootstrap, over_kinds, rank_auroc
from traits.statistics.kinds import FEWEST


def evaluate_probe(
    probe: xr.Dataset,
    traces: xr.DataArray,
    labels: xr.DataArray | str,
    *,
    kinds: xr.DataArray | str | None = None,
    groups: str | None = "group",
    texts: xr.DataArray | str | None = None,
    nulls: xr.DataArray | None = None,
    rates: Sequence[float] = (0.01, 0.05),
    resamples: int = 1000,
    tokens: Tokens | None = None,
    transfer: bool = False,
    generator: np.random.Generator,
) -> xr.Dataset:
    """How well a probe tells responses that neither fitted nor chose it.

    `traces`, `tokens` and `transfer` as `traits.score` takes them, or the pooled scores themselves
    (prompt); `labels` (prompt) are 1, 0 or NaN (left out), or a coordinate's name; `kinds`
    (prompt) of prompt, of which others are meant too; `texts` (prompt) the responses' texts. Rows
    of the probe's own parts "fit" and "select" are not reported on; the text baselines are learnt
    on the former. `nulls` (null, draw) are report AUROCs of what knows nothing of the labels,
    through the same choices (`traits.probe_nulls`).

    Returns over `measure` (`score_measures.measured`: AUROC, recall at `rates` of false
    positives, Brier score, calibration error of the probe's chances, and both rates at its own
    threshold): `estimate`, `low`, `high`, 95 % from a bootstrap over groups, for these kinds of
    prompt. With kinds: `by_kind` (kind, measure) and `n_by_kind`; `over_kinds_estimate`, `_low`,
    `_high`, the mean over kinds with an interval for other kinds too
    (`traits.statistics.over_kinds`; NaN below 3 kinds that have a value); `within_kind`, the
    AUROC within kinds. `within_group` is that within prompts that have answers of both classes.
    With texts, over `baseline` (TF-IDF, length): `baseline_auroc` with `_low` and `_high`, and
    `gain`, the probe's AUROC minus it, likewise. With nulls `null_p`, `null_quantile`. `curve_*`
    (bin) is the calibration curve; `n` (class), `n_groups`. The attribute `findings` is a JSON
    list of what could not be decided, with the numbers. Of a probe with targets (labels too) all
    have a dim `target`, and findings are by target.

    Errors: `ValueError` for labels that do not match, one class only, constant scores, and groups
    that are both in the report and in the fit.

    >>> draw = np.random.default_rng(0)
    >>> label = xr.DataArray(np.arange(60) % 2, dims="prompt")
    >>> probe = xr.Dataset({"calibration": ("coefficient", [2.0, -1.0])}, attrs={"kind": "probe"})
    >>> scores = label + xr.DataArray(draw.normal(size=60), dims="prompt")
    >>> result = evaluate_probe(probe, scores, label, resamples=99, generator=draw)
    >>> result.sizes["measure"], bool(result["low"].sel(measure="auroc") > 0.5)
    (7, True)
    """
    pooled = traces.dims in (("prompt",), ("prompt", "target"))
    scores = traces if pooled else score(probe, traces, tokens=tokens, transfer=transfer)
    if not pooled:
        scores = scores.assign_coords(part_ids=("prompt", contents(traces)))
    how: dict[str, Any] = {"kinds": kinds, "groups": groups, "texts": texts, "rates": rates}
    how |= {"resamples": resamples, "generator": generator}
    if "target" not in scores.dims:
        return _evaluated(probe, scores, labels, nulls=nulls, **how)
    names = scores["target"].values.astype(str).tolist()
    each = [
        _evaluated(
            probe.sel(target=name), *_of(name, scores, labels), nulls=_of(name, nulls)[0], **how
        )
        for name in names
    ]
    told = {name: json.loads(one.attrs["findings"]) for name, one in zip(names, each, strict=True)}
    index = xr.DataArray(np.array(names), dims="target", name="target")
    found = xr.concat(each, index, combine_attrs="drop")
    return found.assign_attrs(unit="group", findings=json.dumps(told))


def _of(name: str, *given: Any) -> list[Any]:
    """What is over `target` at one of them."""
    over = [isinstance(one, xr.DataArray) and "target" in one.dims for one in given]
    return [
        one.sel(target=name, drop=True) if there else one
        for one, there in zip(given, over, strict=True)
    ]


def _evaluated(
    probe: xr.Dataset,
    scores: xr.DataArray,
    labels: xr.DataArray | str,
    *,
    kinds: xr.DataArray | str | None,
    groups: str | None,
    texts: xr.DataArray | str | None,
    nulls: xr.DataArray | None,
    rates: Sequence[float],
    resamples: int,
    generator: np.random.Generator,
) -> xr.Dataset:
    rows = labelled(scores, labels, groups, kinds)
    (part, told), given = parts_of(probe, rows), []
    rows = _with_chances(rows, probe)
    if texts is not None:
        rows["text_score"] = _baselines(rows, part, along(texts, scores, "texts"))
    report = rows.isel(prompt=np.flatnonzero(part == "report"))
    refuse_one_class(report)
    names = names_of(rates)
    given.append(_intervals(report, names, rates, generator, resamples))
    given.append(_within(report))
    if kinds is not None:
        given.append(_by_kind(report, names, rates, generator, resamples))
    if nulls is not None:
        given.append(_beside(report, nulls))
    if np.isfinite(report["chance"]).all():
        given.append(calibration_curve(report["chance"].values, report["label"].values))
    result = xr.merge(given, join="exact", combine_attrs="drop").assign(_counts(report))
    return result.assign_attrs(unit="group", findings=json.dumps([*told, *_findings(result)]))


def _with_chances(rows: xr.Dataset, probe: xr.Dataset) -> xr.Dataset:
    none = np.full(2, np.nan)
    calibration = probe["calibration"].values if "calibration" in probe else none
    threshold = float(probe["threshold"]) if "threshold" in probe else np.nan
    chance = chances(rows["score"].values.astype(float), calibration)
    return rows.assign(chance=("prompt", chance), threshold=threshold)


def _baselines(rows: xr.Dataset, part: np.ndarray, texts: xr.DataArray) -> xr.DataArray:
    written = texts.sel(prompt=rows["prompt"].values) if "prompt" in texts.coords else texts
    found = text_scores(written.values.astype(str).tolist(), rows["label"].values, part == "fit")
    return xr.DataArray(found, {"baseline": list(BASELINES)}, ("prompt", "baseline"))


def _intervals(
    report: xr.Dataset,
    names: Sequence[str],
    rates: Sequence[float],
    generator: np.random.Generator,
    resamples: int,
) -> xr.Dataset:
    """One bootstrap of everything, so that gains over baselines are paired."""
    baselines = list(BASELINES) if "text_score" in report else []

    def statistic(rows: xr.Dataset) -> xr.DataArray:
        own = _measured(rows, rates)
        areas = np.array(
            [_area(rows["text_score"].values[:, k], rows) for k in range(len(baselines))]
        )
        return xr.DataArray(np.concatenate([own, areas, own[0] - areas]), dims="quantity")

    drawn = report.drop_vars("prompt", errors="ignore")
    found = cluster_bootstrap(drawn, statistic, generator=generator, repetitions=resamples)
    made = found.isel(quantity=slice(0, len(names))).rename(quantity="measure")
    made = made.assign_coords(measure=list(names))
    for number, name in enumerate(("baseline_auroc", "gain") if baselines else ()):
        first = len(names) + number * len(baselines)
        some = found.isel(quantity=slice(first, first + len(baselines)))
        some = some.rename(quantity="baseline").assign_coords(baseline=baselines)
        ends = {"estimate": name, "low": f"{name}_low", "high": f"{name}_high"}
        made = made.merge(some.rename(ends))
    return made


def _measured(rows: xr.Dataset, rates: Sequence[float]) -> np.ndarray:
    values, label, chance = (rows[name].values for name in ("score", "label", "chance"))
    return measured(values, label, chance, float(rows["threshold"]), rates)


def _area(scores: np.ndarray, rows: xr.Dataset) -> float:
    label = rows["label"].values
    both = 0 < label.sum() < len(label)
    return float(rank_auroc(scores[label == 1], scores[label == 0])) if both else float("nan")


def _within(report: xr.Dataset) -> xr.Dataset:
    """AUROCs within prompts, and within kinds: what separates these is not counted."""
    scores = report["score"].assign_coords(label=report["label"])
    found = {}
    for name in ("group", "kind"):
        if name in report and _mixed(report, name):
            area = auroc(scores.assign_coords(within=report[name]), within="within")
            found[f"within_{name}"] = area.item()
    return xr.Dataset(found)


def _mixed(report: xr.Dataset, name: str) -> list[str]:
    """The groups or kinds that have both classes."""
    label, names = report["label"].values, report[name].values
    every = dict.fromkeys(names.tolist())
    return [one for one in every if len(np.unique(label[names == one])) == 2]


def _by_kind(
    report: xr.Dataset,
    names: Sequence[str],
    rates: Sequence[float],
    generator: np.random.Generator,
    resamples: int,
) -> xr.Dataset:
    kinds = list(dict.fromkeys(report["kind"].values.tolist()))
    each = [report.isel(prompt=np.flatnonzero(report["kind"].values == kind)) for kind in kinds]
    values = np.stack([_measured(rows, rates) for rows in each])
    counts = [[int((rows["label"] == side).sum()) for side in (0, 1)] for rows in each]
    made = xr.Dataset(
        {"by_kind": (("kind", "measure"), values), "n_by_kind": (("kind", "class"), counts)},
        {"kind": kinds, "measure": list(names)},
    )
    ends = np.full((3, len(names)), np.nan)
    for place in range(len(names)):
        there = [kind for kind, row in zip(kinds, values, strict=True) if np.isfinite(row[place])]
        if len(there) >= FEWEST:
            some = report.isel(prompt=np.flatnonzero(np.isin(report["kind"].values, there)))
            found = _over(some, place, rates, generator, resamples)
            ends[:, place] = [found[name].item() for name in ("estimate", "low", "high")]
    bounds = dict(zip(("estimate", "low", "high"), ends, strict=True))
    return made.assign({f"over_kinds_{n}": ("measure", end) for n, end in bounds.items()})


def _over(
    some: xr.Dataset,
    place: int,
    rates: Sequence[float],
    generator: np.random.Generator,
    resamples: int,
) -> xr.Dataset:
    def statistic(rows: xr.Dataset) -> xr.DataArray:
        return xr.DataArray(_measured(rows, rates)[place])

    bare = some.drop_vars("prompt", errors="ignore")
    return over_kinds(bare, statistic, generator=generator, kind="kind", repetitions=resamples)


def _beside(report: xr.Dataset, nulls: xr.DataArray) -> xr.Dataset:
    observed = xr.DataArray(_area(report["score"].values, report))
    names = nulls["null"].values.astype(str).tolist()
    each = [
        against_null(observed, nulls.sel(null=name, drop=True).dropna("draw")) for name in names
    ]
    found = xr.concat(each, xr.Variable("null", names)).drop_vars("estimate")
    return found.rename(p="null_p").assign(null_draws=nulls.notnull().sum("draw"))


def _counts(report: xr.Dataset) -> dict[str, xr.DataArray]:
    counts = [int((report["label"] == side).sum()) for side in (0, 1)]
    groups = len(set(report["group"].values.tolist()))
    return {"n": xr.DataArray(counts, dims="class"), "n_groups": xr.DataArray(groups)}


def _findings(result: xr.Dataset) -> list[str]:
    """What a reader must know: what has no value, and why."""
    negative, positive = result["n"].values.tolist()
    told = []
    for name in result["measure"].values.astype(str):
        if np.isfinite(result["estimate"].sel(measure=name)):
            continue
        if name.startswith("recall_at_"):
            rate = float(name.removeprefix("recall_at_"))
            told.append(
                f"{name}: undecidable, {negative} negatives; {np.ceil(1 / rate):.0f} are due"
            )
        elif name in ("brier", "calibration_error"):
            told.append(f"{name}: the probe has no calibration")
        else:
            told.append(f"{name}: the probe has no threshold (traits.set_threshold)")
    if "by_kind" in result:
        told += _of_kinds(result)
    return [*told, f"reported on {positive} positive and {negative} negative responses"]


def _of_kinds(result: xr.Dataset) -> list[str]:
    counts = {
        str(k): result["n_by_kind"].sel(kind=k).values.tolist() for k in result["kind"].values
    }
    single = [
        f"{kind} ({no} negative, {yes} positive)"
        for kind, (no, yes) in counts.items()
        if not (no and yes)
    ]
    told = [f"kinds with one class, without an AUROC: {', '.join(single)}"] if single else []
    whole = len(counts) - len(single)
    if whole < FEWEST:
        told.append(f"other kinds: undecidable, {whole} kinds have both classes; {FEWEST} are due")
    return told
