"""What detection_power plants and counts: spans of tokens, pooled scores, and the nulls' rule."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.audit.evidence.audit import Audit
from experiments.audit.phases import analysis
from experiments.benchmarks.audits import detection_power
from experiments.benchmarks.audits.audit_size import finished, of_run
from tests.support.oracles.planted_run import build

Run = tuple[Audit, detection_power.Answers]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which nothing is planted yet."""
    folder = tmp_path_factory.mktemp("unplanted") / "run"
    analysis.run(folder, build(folder, effect=0.0))
    audit = finished(folder)
    audited = of_run(folder, np.random.default_rng(0))
    return audit, detection_power.answers_of(audit, audited)


def test_spans_lie_within_answers_and_take_their_share() -> None:
    lengths, share = np.array([10, 4, 20, 7]), np.array([0.5, 0.01, 0.25, 1.0])
    starts = set()
    for seed in range(40):
        marked = detection_power.spans(lengths, share, 20, np.random.default_rng(seed))
        assert marked.sum(axis=1).tolist() == [5, 1, 5, 7]
        assert not any(row[n:].any() for row, n in zip(marked, lengths, strict=True))
        # one piece: a single step up
        assert (np.diff(marked.astype(int), prepend=0, axis=1) == 1).sum(axis=1).tolist() == [1] * 4
        starts.add(int(marked[0].argmax()))
    assert starts == set(range(6))


def test_tokens_are_those_of_the_run_and_their_mean_is_its_score(run: Run) -> None:
    audit, answers = run
    used = audit.part("calibration") | audit.part("held_out")
    rows = audit.rows.sel(trait=list(audit.traits)).isel(layer=audit.allowed, prompt=used)
    own, change = (np.nanmean(answers.tokens[kind], axis=-1) for kind in ("own", "change"))
    np.testing.assert_allclose(own, rows["score"].values, atol=1e-6)
    np.testing.assert_allclose(change, (rows["score"] - rows["clean_score"]).values, atol=1e-6)
    assert answers.lengths.tolist() == rows["length"].values.tolist()


def test_a_strong_direction_is_found_by_every_pooling_and_none_without_one(run: Run) -> None:
    poolings = ("mean", "rolling_max(width=4)")
    rows = detection_power.power(run[1], (0.0, 8.0), poolings, 6, seed=0)
    found = {(row["test"], row["d"]): int(str(row["rejected"])) for row in rows}
    tests = {f"{kind}, {pooling}" for kind in ("own", "change") for pooling in poolings}
    assert {test for test, _ in found} == tests
    for test in tests:
        assert found[test, 8.0] >= 5
        assert found[test, 0.0] <= 2


def test_each_rule_asks_for_more_than_the_one_before(run: Run) -> None:
    audit, answers = run
    rows = detection_power.beyond(audit, answers.audited, (0.0, 3.0), 8, seed=0)
    found = {(row["test"], row["d"]): int(str(row["rejected"])) for row in rows}
    effects, rules = (0.0, 3.0), detection_power.RULES
    by_kind = {
        kind: np.array([[found[f"{kind}, mean, {rule}", d] for rule in rules] for d in effects])
        for kind in detection_power.KINDS
    }
    assert all((np.diff(by_rule, axis=1) <= 0).all() for by_rule in by_kind.values())
    assert by_kind["change"][1, 0] >= 6
    none, strong = by_kind["own"]
    assert none[0] <= 2
    assert strong[0] >= 6
    assert strong[1] >= 2
    # directions of a change that is little but the planted one are that one themselves
    assert strong[2] < strong[1]


def test_a_run_that_pools_otherwise_is_refused(run: Run) -> None:
    audit, answers = run
    changed = replace(audit.settings.hypothesis, pooling="max")
    other = replace(audit, settings=replace(audit.settings, hypothesis=changed))
    with pytest.raises(ValueError, match="Give one by means"):
        detection_power.beyond(other, answers.audited, (0.0,), 1, seed=0)
