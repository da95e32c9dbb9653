"""A claim about traits is held against directions: planted traits stay, random ones are refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnsight import TransformersModel

import tracekit as tk
from experiments.audit.evidence import directions_null, standing
from experiments.audit.evidence.audit import Audit, read_audit
from experiments.audit.evidence.row import Row, from_dataset, to_dataset
from experiments.audit.evidence.spans import Match
from experiments.audit.phases import span_means
from experiments.audit.sections.detecting import detection, nulls
from experiments.audit.settings.groups import Null, Settings
from experiments.audit.verdict.criteria import LEVELS
from experiments.audit.verdict.judgement import Judgement
from experiments.benchmarks.audits import random_traits
from tests.support.oracles.planted_run import build
from traits import METHODS
from traits.vectors.nulls import shuffled_pairs

LEVEL, SETS = 0.05, 60
ASKED = {"primary line": "the primary hypothesis", "mechanism": "the weights' own change"}


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    folder = tmp_path_factory.mktemp("planted") / "run"
    settings = build(folder, effect=2.0)
    return folder, replace(settings, null=Null(directions=199, repetitions=20))


@pytest.fixture(scope="module")
def audit(planted: tuple[Path, Settings]) -> Audit:
    return read_audit(*planted)


@pytest.fixture
def copy(planted: tuple[Path, Settings], tmp_path: Path) -> tuple[Path, Settings]:
    return Path(shutil.copytree(planted[0], tmp_path / "run")), planted[1]


def judged(audit: Audit, line: str) -> Judgement:
    criteria = [criterion for level in LEVELS for criterion in level.criteria]
    (one,) = (criterion for criterion in criteria if criterion.asked.startswith(ASKED[line]))
    return one.judge(audit)


def test_projections_are_those_of_each_direction_at_length_one() -> None:
    samples, values = draws().normal(size=(6, 3, 5)), draws(1).normal(size=(4, 3, 5))
    directions = directions_null.matched(samples, 2, draws(2), 7)
    made = directions.projected(values)

    def by_hand(weights: np.ndarray) -> np.ndarray:
        about = samples - samples.mean(axis=0)
        whole = np.zeros((7, 4, 3, 2))
        for draw, layer, trait in np.ndindex(7, 3, 2):
            direction = sum(weights[draw, trait, n] * about[n, layer] for n in range(6))
            whole[draw, :, layer, trait] = values[:, layer] @ direction / np.linalg.norm(direction)
        return whole

    np.testing.assert_allclose(made, by_hand(directions.weights), atol=1e-12)
    other = directions.weights.copy()
    other[3, 1, 2] += 0.1
    assert not np.allclose(made, by_hand(other), atol=1e-12)
    # and some draws at a time give what all at once do
    blocks = [block.projected(values) for block in directions.blocks(3)]
    np.testing.assert_allclose(np.concatenate(blocks), made)
    # and what no statistic looks at is not read
    some = directions.projected(values, [2, 0])
    np.testing.assert_array_equal(some[:, :, [0, 2]], made[:, :, [0, 2]])
    assert np.isnan(some[:, :, 1]).all()


def test_shuffled_directions_and_their_projections_are_those_of_one_at_a_time() -> None:
    sides = [tuple(draws(n).normal(size=(2, 9, 3, 5))) for n in range(2)]
    made = list(nulls.shuffled_directions(sides, draws(7), 40))
    one = shuffled_pairs(METHODS["mean_diff"], generator=draws(7))
    expected = [np.stack([one(*pair) for pair in sides]) for _ in range(40)]
    np.testing.assert_allclose(made, expected, atol=1e-12)
    assert not np.allclose(made[0], made[1])
    values = draws(8).normal(size=(6, 3, 5))
    found = np.stack(list(directions_null.projections(values, iter(made), [1])))
    wanted = np.einsum("rd,ntd->nrt", values[:, 1], np.stack(expected)[:, :, 1])
    np.testing.assert_allclose(found[:, :, 1], wanted, atol=1e-12)
    assert np.isnan(found[:, :, [0, 2]]).all()


def test_placebo_sets_are_different_and_hold_a_trait_once() -> None:
    directions = directions_null.placebo(draws().normal(size=(8, 2, 5)), 3, draws(), 40)
    sets = [frozenset(np.nonzero(weights)[1].tolist()) for weights in directions.weights]
    assert {len(one) for one in sets} == {3}
    assert len(set(sets)) == len(sets) == 40
    # no more than there are: 8 choose 3
    assert directions_null.placebo(np.ones((8, 2, 5)), 3, draws(), 500).draws == 56


@pytest.mark.parametrize("line", ASKED)
def test_a_planted_trait_is_met_and_says_beside_what(audit: Audit, line: str) -> None:
    found = judged(audit, line)
    assert found.status == "met"
    assert "beside random directions p = 0.0" in found.found
    assert "placebo traits p = 0.0" in found.found


def test_random_directions_are_met_at_the_nominal_rate_and_without_the_null_far_more(
    audit: Audit,
) -> None:
    rows = {str(row["test"]): row for row in random_traits.rates(audit, SETS, draws(3))}
    rate = {name: float(str(row["rate"])) for name, row in rows.items()}
    held = {name: value for name, value in rate.items() if "beyond" in name}
    assert len(held) == 6
    # 60 sets at 5 %: more than 8 in 0.4 % of runs
    assert max(held.values()) <= 8 / SETS
    # the twin: the test alone calls most random directions traits
    for line in ASKED:
        assert rate[f"{line}, random sets of the change, test alone"] > 0.2


def test_noise_that_a_test_calls_significant_is_beside_nothing(audit: Audit) -> None:
    """The traits exchanged for random directions: their p beside others is no longer small."""
    statistic, values = detection.primary_statistic(audit)
    (drawn,) = directions_null.matched(
        standing.change_of(audit, "organism"), len(audit.traits), draws(5), 1
    ).blocks(1)
    observed = statistic(drawn.projected(values))[0]
    assert standing.beside(audit, observed, statistic, values).directions.min() > LEVEL


def test_an_old_run_is_readable_and_its_lines_say_why_they_are_undecidable(
    copy: tuple[Path, Settings],
) -> None:
    folder, settings = copy
    means = tk.open(folder / "means.nc").load()
    (folder / "means.nc").unlink()
    tk.save(means.sel(weights=["clean", "organism"]), folder / "means.nc")
    for name in ("span_contrasts.nc", "placebos.nc"):
        (folder / name).unlink()
    old = read_audit(folder, settings)
    primary, spans = (judged(old, line) for line in ASKED)
    assert (primary.status, spans.status) == ("undecidable", "undecidable")
    assert "no placebo traits were captured" in primary.found
    assert "no unit means at the spans of this run" in spans.found
    assert "\n" not in primary.found + spans.found
    row = old.once(detection.primary)[0]
    assert row.p < 0.01
    assert np.isfinite(row.p_directions)
    assert np.isnan(row.p_placebo)


def test_too_few_placebo_traits_decide_nothing(copy: tuple[Path, Settings]) -> None:
    folder, settings = copy
    placebos = tk.open(folder / "placebos.nc").load()
    (folder / "placebos.nc").unlink()
    tk.save(placebos.isel(trait=slice(0, 5)), folder / "placebos.nc")
    found = judged(read_audit(folder, settings), "primary line")
    assert found.status == "undecidable"
    assert "of 5 placebo traits no p below 0.167 is possible" in found.found


def test_overlapping_sets_of_placebo_traits_give_no_p_that_so_few_cannot(audit: Audit) -> None:
    """Traits beyond every placebo: of 22, in one of 23 cases at the least."""

    def size(projected: np.ndarray) -> np.ndarray:
        return np.abs(projected).max(axis=(1, 2))

    far = np.full(len(audit.traits), 1e9)
    values = audit.means.sel(weights="organism").values
    beside = standing.beside(audit, far, size, values)
    np.testing.assert_allclose(beside.placebo, 1 / 23)
    # sets alone say less than that
    placebos = standing.placebos_of(audit)
    assert isinstance(placebos, directions_null.Directions)
    sets = directions_null.largest(placebos, size, values)
    assert directions_null.p_of(far, sets).max() < 1 / 23


def test_unit_means_of_other_spans_are_refused(copy: tuple[Path, Settings]) -> None:
    folder, settings = copy
    spans = tk.open(folder / "span_contrasts.nc").load()
    (folder / "span_contrasts.nc").unlink()
    tk.save(spans.copy(data=np.roll(spans.values, 1, axis=3)), folder / "span_contrasts.nc")
    found = judged(read_audit(folder, settings), "mechanism")
    assert found.status == "undecidable"
    assert "are not of the same spans" in found.found


def test_rows_of_a_former_version_have_no_p_beside_directions() -> None:
    former = to_dataset([Row("A", "x", "mean", 0.5, p=0.01, n=9)])
    (row,) = from_dataset(former.drop_vars(["p_directions", "p_placebo", "no_null"]))
    assert (row.p, np.isnan(row.p_directions), row.no_null) == (0.01, True, "")
    shown = replace(row, p_directions=0.25, p_placebo=0.125).cells()
    assert shown[6:9] == ("0.0100", "0.2500", "0.1250")


def test_contrasts_at_spans_are_those_of_the_plain_model(tiny_llama: TransformersModel) -> None:
    texts = ["the red fox sees a tree and the blue bird", "a tree"]
    runs = tk.encode(tiny_llama, texts, template="raw")
    first = runs.sizes["token"] - int((runs["token_id"].values[0] >= 0).sum())
    pair = Match(0, (first + 1, first + 3), 0, (first + 4, first + 5))
    pairs = {"here": [pair], "there": []}
    marks = span_means.marked(runs, pairs)
    parts = tk.capture(tiny_llama, runs, tokens=marks, reduce=span_means.unit_mean)
    made = span_means.contrasts(parts, runs, pairs)
    ids = torch.tensor(runs["token_id"].values[:1, first:])
    with torch.no_grad():
        states = tiny_llama._module(ids, output_hidden_states=True).hidden_states[1:-1]
    for layer, state in enumerate(states):
        residual = (state[0] / state[0].norm(dim=-1, keepdim=True)).numpy()
        here = made.sel(match="here").values[0, layer]
        np.testing.assert_allclose(here, residual[1:3].mean(0) - residual[4], atol=1e-5)
        assert not np.allclose(here, residual[1:3].mean(0) - residual[5], atol=1e-5)
    assert made["prompt"].values.tolist() == runs["prompt"].values[:1].tolist()
    assert np.isnan(made.sel(match="there")).all()
