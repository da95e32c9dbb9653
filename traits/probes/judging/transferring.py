"""From one data set to another: a probe of each, on the report of every other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tracekit.errors import InputError
from tracekit.transcripts.selection import Tokens
from traits.probes.fit import fit
from traits.probes.fitting.rows import contents
from traits.probes.judging.evaluating import evaluate_probe
from traits.probes.judging.own_rows import parts_of
from traits.probes.judging.report_rows import along, labelled
from traits.probes.scoring import score

ENDS = {"estimate": "auroc", "low": "low", "high": "high"}


def transfer_matrix(
    sets: Mapping[str, tuple[xr.DataArray, xr.DataArray | str]],
    *,
    parts: Mapping[str, xr.DataArray] | None = None,
    groups: str | None = "group",
    resamples: int = 1000,
    generator: np.random.Generator,
    **how: Any,
) -> xr.Dataset:
    """How far a probe of each data set tells the others: AUROC (fitted_on, scored_on).

    `sets` maps a name to traces and labels, as `traits.fit` takes them, of one model and the same
    layers; `parts` to a split of one's own (else each is drawn); `how` is the rest of `fit`'s
    arguments, such as `method=` and `pooling=`. A probe is fitted and chosen on its own set alone,
    and every column is scored on the same responses: that set's part "report", so that the
    diagonal and the rest of a column compare. An AUROC well under 0.5 says that the direction is
    there, and means the opposite.

    Returns `auroc`, `low`, `high` (95 %, a bootstrap over groups), `layer` (fitted_on) and `n`
    (scored_on, class), negatives and positives. Errors: `ValueError` for fewer than two sets, for
    what `fit` refuses, and for a set whose prompts fitted another's probe.

    >>> draw, label = np.random.default_rng(0), xr.DataArray(np.arange(40) % 2, dims="prompt")
    >>> values = draw.normal(size=(2, 40, 1, 4)) + label.values[:, None, None]
    >>> dims = ("set", "prompt", "layer", "dim")
    >>> traces = xr.DataArray(values, {"layer": [3], "prompt": range(40)}, dims)
    >>> sets = {name: (traces[n].assign_coords(prompt=[f"{name}/{i}" for i in range(40)]), label)
    ...         for n, name in enumerate("ab")}
    >>> found = transfer_matrix(sets, groups=None, resamples=19, generator=draw)
    >>> found["auroc"].dims, bool((found["auroc"] > 0.5).all())
    (('fitted_on', 'scored_on'), True)
    """
    if len(sets) < 2:
        raise InputError(
            f"A transfer matrix of {list(sets)} was asked for; it takes two data sets at least. "
            "For one, fit a probe and evaluate it (traits.evaluate_probe)."
        )
    given, tokens = parts or {}, how.get("tokens")
    probes = {
        name: fit(traces, labels, groups=groups, part=given.get(name), generator=generator, **how)
        for name, (traces, labels) in sets.items()
    }
    cells = np.array(
        [
            [
                _cell(probe, *sets[name], probes[name], tokens, groups, resamples, generator)
                for name in sets
            ]
            for probe in probes.values()
        ]
    )
    dims = ("fitted_on", "scored_on")
    names = np.array(list(sets), np.str_)
    found = {name: (dims, cells[..., n]) for n, name in enumerate(ENDS.values())}
    counts = cells[0, :, len(ENDS) :].astype(int)
    layers = [int(probe["layer"]) for probe in probes.values()]
    made = xr.Dataset(found, {dim: names for dim in dims})
    return made.assign(n=(("scored_on", "class"), counts), layer=("fitted_on", layers))


def _cell(
    probe: xr.Dataset,
    traces: xr.DataArray,
    labels: xr.DataArray | str,
    own: xr.Dataset,
    tokens: Tokens | None,
    groups: str | None,
    resamples: int,
    generator: np.random.Generator,
) -> list[float]:
    """AUROC, its bounds, and the numbers of negatives and positives."""
    report = np.flatnonzero((own["part"] == "report").values)
    some = traces.isel(prompt=report)
    known = along(labels, traces, "labels").isel(prompt=report)
    scores = score(probe, some, tokens=tokens)
    scores = scores.assign_coords(part_ids=("prompt", contents(some)))
    used = parts_of(probe, labelled(scores, known, groups))[0] != "report"
    if used.any() and not used.all():
        raise InputError(
            f"{used.sum()} of {len(used)} responses to report on, such as "
            f"{str(some['prompt'].values[0])!r}, have ids or groups of prompts that fitted or "
            "chose the probe of another set. Give each set prompts of its own ids."
        )
    found = evaluate_probe(
        probe,
        scores,
        known,
        groups=groups,
        rates=(),
        resamples=resamples,
        generator=generator,
    )
    ends = [found[end].sel(measure="auroc").item() for end in ENDS]
    return [*ends, *found["n"].values.astype(float).tolist()]
