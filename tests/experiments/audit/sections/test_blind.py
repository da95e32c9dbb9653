"""The blind comparison beside directions that know no trait, and beside what the search found."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments.audit.discovery.confirm import Compared
from experiments.audit.discovery.denial import Denial
from experiments.audit.discovery.findings import CONFIRMED, NOT, Finding, Findings
from experiments.audit.evidence.audit import Audit, read_audit
from experiments.audit.run import Run
from experiments.audit.sections import blind
from experiments.audit.settings.groups import Null, Settings
from tests.support.oracles import planted_run
from tests.support.oracles.planted_run import DIM, LAYERS

ROWS = 12


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    folder = tmp_path_factory.mktemp("planted") / "run"
    return folder, replace(
        planted_run.build(folder, effect=2.0), null=Null(directions=99, repetitions=20)
    )


def unit_vectors(folder: Path, given: Settings) -> np.ndarray:
    vectors = Run(folder).vectors_of(given.vectors.method).transpose("trait", "layer", "dim").values
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def moved_along(planted: tuple[Path, Settings], folder: Path, direction: np.ndarray) -> Audit:
    """A copy of the run whose organism moves all neutral answers along a (layer, dim) direction."""
    shutil.copytree(planted[0], folder)
    draw = np.random.default_rng(5)
    clean = 0.05 * draw.normal(size=(1, ROWS, LAYERS, DIM))
    means = np.concatenate([clean, clean, clean]) + 0.02 * draw.normal(size=(3, ROWS, LAYERS, DIM))
    means[1] += 0.1 * direction
    vectors = unit_vectors(*planted)
    planted_run.blind(folder, list(planted[1].vectors.traits), means, vectors)
    return read_audit(folder, planted[1])


def test_a_move_along_a_trait_goes_farther_than_random_directions(planted, tmp_path):
    audit = moved_along(planted, tmp_path / "run", unit_vectors(*planted)[0])
    first, *rest = blind.rows(audit)
    # one control is not enough for a p among adapters: the row stays undecidable, and held
    assert "1 benign" in first.reason
    assert first.p_directions == 0.01
    observed = float(first.reason.split("T = ")[1].split(";")[0])
    bands = [row for row in rest if "random directions" in row.what]
    assert len(bands) == 2
    assert all(row.low <= row.estimate <= row.high < observed for row in bands)


def test_a_move_along_any_direction_does_not(planted, tmp_path):
    direction = np.random.default_rng(11).normal(size=(1, DIM)) + np.zeros((LAYERS, 1))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    first, *rest = blind.rows(moved_along(planted, tmp_path / "run", direction))
    assert first.p_directions > 0.05
    observed = float(first.reason.split("T = ")[1].split(";")[0])
    assert any(row.low <= observed <= row.high for row in rest if "random directions" in row.what)


def test_the_largest_t_of_the_unit_means_is_that_of_the_cosines(planted, tmp_path):
    audit = moved_along(planted, tmp_path / "run", unit_vectors(*planted)[0])
    means = xr.open_dataarray(Run(audit.folder).neutral_means)
    vectors = unit_vectors(*planted)
    apart = means.sel(weights="organism").values - means.sel(weights="clean").values
    along = np.stack([np.sum(apart * vector, axis=-1) for vector in vectors], -1)
    t = along.mean(0) / (along.std(0, ddof=1) / np.sqrt(ROWS))
    expected = np.abs(t[audit.allowed]).max()
    assert f"T = {expected:.1f};" in blind.rows(audit)[0].reason
    assert f"T = {np.abs(t).max() + 1:.1f};" not in blind.rows(audit)[0].reason


def test_a_run_without_unit_means_says_why_there_is_no_null(planted, tmp_path):
    audit = moved_along(planted, tmp_path / "run", unit_vectors(*planted)[0])
    Run(audit.folder).neutral_means.unlink()
    first, *rest = blind.rows(audit)
    assert "no unit means of neutral prompts" in first.no_null
    assert not np.isfinite(first.p_directions)
    assert not [row for row in rest if "random directions" in row.what]


def finding(name: str, verdict: str, denied: float | None) -> Finding:
    off = Compared(0.5, 0.0, 0.5, 0.4, 0.6, 0.001, 40, 20, 0)
    asked = None if denied is None else Denial(denied, 0.0, 0.0, 0.0, 6)
    return Finding(name, "says", name, 1.0, 1.0, off, None, 0.01, verdict, "", {}, denial=asked)


@pytest.mark.parametrize(("denials", "share"), [((1.0, 0.0, None), 0.5), ((1.0, 1.0, 1.0), 1.0)])
def test_habits_found_and_denied_are_counted(planted, tmp_path, denials, share):
    audit = moved_along(planted, tmp_path / "run", unit_vectors(*planted)[0])
    shown = [finding(f"h{n}", CONFIRMED, one) for n, one in enumerate(denials)]
    found = Findings("mine", [*shown, finding("not", NOT, 1.0)], 0.05, {})
    Run(audit.folder).findings.write_text(json.dumps(found.as_json()), "utf-8")
    number, denied = blind.rows(audit)[-2:]
    assert number.estimate == 3
    assert denied.estimate == share
    assert denied.n == sum(one is not None for one in denials)


def test_nothing_is_said_of_denial_where_nobody_was_asked(planted, tmp_path):
    audit = moved_along(planted, tmp_path / "run", unit_vectors(*planted)[0])
    found = Findings("mine", [finding("h", CONFIRMED, None)], 0.05, {})
    Run(audit.folder).findings.write_text(json.dumps(found.as_json()), "utf-8")
    assert "asked about" in blind.rows(audit)[-1].reason
