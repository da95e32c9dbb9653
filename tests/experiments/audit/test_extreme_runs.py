"""Runs whose numbers are extreme: a row that says so, and a page that opens, never a NaN."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from experiments.audit.evidence import layer_curves
from experiments.audit.evidence.audit import read_audit
from experiments.audit.evidence.choice import Scores
from experiments.audit.evidence.row import HEADER, Row, from_dataset, to_dataset
from experiments.audit.phases import analysis
from experiments.audit.sections import blind, data, pairs
from experiments.audit.settings.groups import Decomposition, Null, Settings
from experiments.audit.verdict import judgement, rules
from experiments.benchmarks.audits.audit_matrix import unfit
from tests.support.oracles.planted_run import build

pytestmark = pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    folder = tmp_path_factory.mktemp("planted") / "run"
    settings = build(folder, effect=2.0)
    return folder, replace(settings, null=Null(directions=19, repetitions=20))


@pytest.fixture
def run(planted: tuple[Path, Settings], tmp_path: Path) -> tuple[Path, Settings]:
    return Path(shutil.copytree(planted[0], tmp_path / "run")), planted[1]


def change(path: Path, edit: Callable[[np.ndarray], None]) -> None:
    """The file again, with every float array in it edited."""
    whole = tk.open(path).load()
    arrays = [whole] if isinstance(whole, xr.DataArray) else whole.data_vars.values()
    for array in arrays:
        edit(array.values)
    path.unlink()
    tk.save(whole, path)


def written(folder: Path, settings: Settings) -> str:
    """The table of a run, once it and the page are found to hold no NaN and no infinity."""
    analysis.run(folder, settings)
    assert not unfit(folder)
    return (folder / "table.txt").read_text("utf-8")


def fill(value: float, *place: int) -> Callable[[np.ndarray], None]:
    def edit(values: np.ndarray) -> None:
        values[place] = value

    return edit


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("projections/clean.organism.nc", fill(math.nan, 3)),
        ("projections/organism.organism.nc", fill(math.inf, 3, 9)),
        ("projections/organism.organism.nc", fill(math.nan, 3, 9, 1, 1)),
        ("projections/control.organism.nc", fill(1e30, 3, 9)),
        ("means.nc", fill(math.nan, 0, 3)),
        ("logprobs.nc", fill(-math.inf, 1, 3, 2)),
    ],
)
def test_an_answer_without_numbers_is_named(
    run: tuple[Path, Settings], file: str, edit: Callable[[np.ndarray], None]
) -> None:
    folder, settings = run
    names = tk.open(folder / "projections/clean.organism.nc")["prompt"].values
    assert data.rows(read_audit(folder, settings)) == []
    change(folder / file, edit)
    (row,) = data.rows(read_audit(folder, settings))
    assert (row.decided, row.what) == (False, "1 answer")
    assert f"{names[3]} ({file})" in row.reason


def test_numbers_are_those_of_a_run_without_the_answer(
    run: tuple[Path, Settings], tmp_path: Path
) -> None:
    folder, settings = run
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    places = {3: math.nan, 5: math.inf, 8: 1e30}
    for place, value in places.items():
        change(folder / "projections" / "organism.organism.nc", fill(value, place))
    names = tk.open(folder / "means.nc")["prompt"].values[list(places)]
    for path in [*(other / "projections").glob("*.nc"), other / "means.nc"]:
        whole = tk.open(path).load()
        path.unlink()
        tk.save(whole.drop_sel(prompt=names, errors="ignore"), path)
    table = written(folder, settings)
    line = next(line for line in table.splitlines() if line.startswith("data "))
    assert "undecidable" in line
    assert set(names).isdisjoint(tk.open(folder / "scores.nc")["prompt"].values)
    analysis.run(other, settings)
    ours, theirs = (from_dataset(tk.open(place / "rows.nc")) for place in (folder, other))
    ours = [row for row in ours if row.section != data.HEADING]
    assert repr(ours) == repr(theirs)
    assert repr([*ours[:-1], replace(ours[-1], n=ours[-1].n + 1)]) != repr(theirs)


def test_an_arm_without_any_number_is_refused(run: tuple[Path, Settings]) -> None:
    folder, settings = run
    change(folder / "projections" / "control.organism.nc", fill(math.nan))
    with pytest.raises(ValueError, match=r"not one of 80 answers is finite .*control.organism"):
        analysis.run(folder, settings)


def test_arms_that_are_all_alike_end_with_a_table(run: tuple[Path, Settings]) -> None:
    folder, settings = run
    for path in (folder / "projections").glob("*.nc"):
        change(path, fill(0.25))
    assert "the clean weights read all answers alike" in written(folder, settings)


def test_no_p_comes_from_a_nan() -> None:
    draw = np.random.default_rng(0)
    names = np.array(["v"] * 8)
    responses = pairs.Responses(draw.normal(size=(8, 5)), np.tile([1, 0], 4), names)
    pair = Decomposition("a without b", "a", "b", (1, -1))
    vectors = draw.normal(size=(2, 5))
    assert 0 < pairs.against_random(responses, vectors, pair, draw, 19)[2] <= 1
    with pytest.raises(ValueError, match="not finite"):
        pairs.against_random(responses, vectors * np.nan, pair, draw, 19)
    scores = Scores(draw.normal(size=(8, 4, 2)), np.tile([1, 0], 4), names, np.arange(8))
    assert layer_curves.curves(scores, draw, 19)["p_family"].max() <= 1
    scores.values[0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        layer_curves.curves(scores, draw, 19)


def test_the_blind_comparison_of_a_nan_is_undecidable() -> None:
    draw = np.random.default_rng(0)
    organism, *others = draw.normal(size=(40, 9, 2, 1))
    benign = {str(n): rows for n, rows in enumerate(others)}
    given = np.arange(2), 0.05
    assert blind.unlike_benign(organism, benign, *given)[0].decided
    organism[2, 1] = np.nan
    row = blind.unlike_benign(organism, benign, *given)[0]
    assert (row.decided, row.reason) == (False, "not finite on some neutral prompt: the organism")
    benign["3"][0] = np.inf
    assert blind.unlike_benign(organism, benign, *given)[0].reason.endswith("the organism, 3")


def test_a_row_or_a_line_without_a_number_is_undecidable() -> None:
    row = Row("A", "x", "mean", math.inf)
    assert not row.decided
    blank = [""] * (len(HEADER) - 6)
    assert row.cells()[3:] == ("undecidable", *blank, "0", "the estimate is not finite")
    assert repr(from_dataset(to_dataset([row]))) == repr([row])
    assert Row("A", "x", "mean", 1.0).decided
    interval = ("r", (math.nan, 0.2, 0.6), 0.5, 20, 0.1)
    assert judgement.by_interval(*interval).status == rules.UNDECIDABLE
    test = (0.05, (0.4, 0.7), 0.6, 50)
    assert judgement.by_test(math.nan, *test).found == "p or its interval is not finite"
    assert judgement.by_test(0.01, *test).status == rules.MET
