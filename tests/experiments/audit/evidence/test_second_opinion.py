"""The audit's main numbers agree with those of other code, which reads the files alone."""

import shutil
from pathlib import Path

import numpy as np
import xarray as xr

from experiments.audit.evidence.audit import Audit
from experiments.audit.sections.detecting import competitors, detection
from tests.support.second_opinion import Opinion, opinion

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
