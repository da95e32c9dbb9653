"""Detection by the change finds a direction that detection does not, and says what cannot be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments.audit.evidence.audit import read_audit
from experiments.audit.run import Run
from experiments.audit.sections.detecting import by_change, detection
from tests.support.oracles.planted_run import build


def test_a_weak_direction_is_found_by_the_change_alone(tmp_path: Path) -> None:
    audit = read_audit(tmp_path / "run", build(tmp_path / "run", effect=0.5))
    (moved, _, *traits), (scored, *_) = by_change.rows(audit), detection.primary(audit)
    assert moved.p < 0.01
    assert moved.p_placebo < 0.05
    assert scored.p > 0.05
    # and it is the trait that was planted, first of three
    assert int(np.argmin([row.p for row in traits])) == 0


def test_no_direction_is_found_by_either(tmp_path: Path) -> None:
    audit = read_audit(tmp_path / "run", build(tmp_path / "run", effect=0.0))
    moved, *_ = by_change.rows(audit)
    assert moved.p > 0.05
    assert moved.p_directions > 0.05


def test_by_another_pooling_the_change_stays_one_of_means(tmp_path: Path) -> None:
    folder, settings = tmp_path / "run", build(tmp_path / "run", effect=0.5)
    expected = by_change.scores(read_audit(folder, settings)).values
    changed = replace(settings, hypothesis=replace(settings.hypothesis, pooling="max"))
    np.testing.assert_allclose(by_change.scores(read_audit(folder, changed)).values, expected)


@pytest.mark.parametrize("lacks", ["means", "both outcomes"])
def test_what_is_lacking_is_said(tmp_path: Path, lacks: str) -> None:
    folder = tmp_path / "run"
    settings = build(folder, effect=1.0, exploiting=lacks == "means")
    if lacks == "means":
        path = Run(folder).means
        with xr.open_dataset(path) as whole:
            kept = whole.sel(weights=whole["weights"] != "clean").load()
        path.unlink()
        kept.to_netcdf(path)
    first, *_ = by_change.rows(read_audit(folder, settings))
    if lacks == "means":
        assert "no unit means of clean" in first.no_null
        assert np.isnan(first.p_directions)
    else:
        assert "no calibration bias has both outcomes" in first.reason
