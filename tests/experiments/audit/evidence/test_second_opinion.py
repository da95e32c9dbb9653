"""The audit's main numbers agree with those of other code, which reads the files alone."""

import shutil
from pathlib import Path

import numpy as np
import xarray as xr

from experiments.audit.evidence.audit import Audit
from experiments.audit.sections import mechanism as section
from experiments.audit.sections.detecting import by_change, competitors, detection
from tests.support.second_opinion import Opinion, mechanism, opinion

EXACT = {"rtol": 0, "atol": 1e-6}


def again(audit: Audit, folder: Path) -> Opinion:
    low, high = audit.settings.hypothesis.depth
    return opinion(folder, (low, high), audit.settings.null.seed)


def test_the_primary_line_and_the_interval_over_kinds_are_those_of_the_files(six: Audit) -> None:
    first, weighted, *traits = detection.primary(six)
    score = next(row for row in competitors.SECTION.table(six) if row.what == "trait score")
    other = again(six, six.folder)
    assert first.measure == f"max-T, layer {other.layer}"
    np.testing.assert_allclose(first.estimate, other.largest, **EXACT)
    np.testing.assert_allclose(first.p, other.p, **EXACT)
    np.testing.assert_allclose([row.estimate for row in traits], other.area, **EXACT)
    np.testing.assert_allclose([row.p for row in traits], other.p_trait, **EXACT)
    np.testing.assert_allclose([score.estimate, weighted.estimate], other.score_area, **EXACT)
    ours = score.kinds_low, score.kinds_high
    np.testing.assert_allclose(ours, (other.kinds_low, other.kinds_high), **EXACT)


def test_detection_by_the_change_is_that_of_the_files(six: Audit) -> None:
    low, high = six.settings.hypothesis.depth
    first, weighted, *traits = by_change.rows(six)
    asked = six.folder, (low, high), six.settings.null.seed
    other = opinion(*asked, draws=by_change.HEADING, less="clean")
    assert first.measure == f"max-T, layer {other.layer}"
    np.testing.assert_allclose(first.estimate, other.largest, **EXACT)
    np.testing.assert_allclose(first.p, other.p, **EXACT)
    np.testing.assert_allclose([row.estimate for row in traits], other.area, **EXACT)
    np.testing.assert_allclose([row.p for row in traits], other.p_trait, **EXACT)
    np.testing.assert_allclose(weighted.estimate, other.score_area, **EXACT)
    # the twin: without the clean weights' own scores, or with a control's, it is something else
    for less in ("", "control"):
        wrong = opinion(*asked, draws=by_change.HEADING, less=less)
        assert not np.allclose(wrong.area, other.area, **EXACT)


def test_one_label_or_one_value_of_the_files_changed_and_they_no_longer_agree(
    six: Audit, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(six.folder, tmp_path / "run"))
    path = copy / "projections" / "organism.organism.nc"
    whole = xr.open_dataset(path).load()
    row = int(np.flatnonzero(whole["part"].values == "held_out")[0])
    truth = again(six, six.folder)
    for change in ("label", "value"):
        changed = whole.copy(deep=True)
        if change == "label":
            changed["exploit"][row] = 1 - changed["exploit"][row]
        else:
            changed["cosine"][{"prompt": row}] += 0.2
        path.unlink()
        changed.to_netcdf(path)
        other = again(six, copy)
        assert not np.allclose(other.area, truth.area, **EXACT)
        assert abs(other.kinds_low - truth.kinds_low) > 1e-6


def test_the_mechanism_is_that_of_the_files(six: Audit, tmp_path: Path) -> None:
    low, high = six.settings.hypothesis.depth
    other = mechanism(six.folder, (low, high), six.settings.null.seed)
    assert (int(six.rows["spans"]), int(six.rows["matched"].sel(match="own sentences"))) == (
        other.spans,
        other.matched,
    )
    by_name = {row.what: row for row in section.rows(six)}
    what = section.at_spans("clean", "own sentences")
    rows = [by_name[f"{what}: {trait}"] for trait in six.traits]
    assert by_name[what].measure == f"max-T, layer {other.layer}"
    np.testing.assert_allclose(by_name[what].estimate, np.abs(other.t).max(), **EXACT)
    np.testing.assert_allclose([row.estimate for row in rows], other.estimate, **EXACT)
    np.testing.assert_allclose([row.p for row in rows], other.p, **EXACT)
    copy = Path(shutil.copytree(six.folder, tmp_path / "run"))
    path = copy / "logprobs.nc"
    whole = xr.open_dataset(path).load()
    whole[next(iter(whole.data_vars))][{"weights": 0, "prompt": slice(None, None, 3)}] -= 1.0
    path.unlink()
    whole.to_netcdf(path)
    assert not np.allclose(mechanism(copy, (low, high), 0).t, other.t, **EXACT)
