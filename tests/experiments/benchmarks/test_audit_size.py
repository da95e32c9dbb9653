"""The benchmark of the audit itself: noise is not found, what is planted is, and is named."""

from pathlib import Path

import numpy as np

from experiments.audit.phases import analysis
from experiments.benchmarks.audits import audit_size
from tests.support.oracles.planted_run import build


def test_exchanged_labels_are_seldom_significant() -> None:
    audited = audit_size.simulated(np.random.default_rng(0), prompts=6, samples=2)
    rows = {row["test"]: row for row in audit_size.size(audited, 30, seed=1)}
    assert {"detection, max-T", "A, max-T", "A or detection, Bonferroni"} <= set(rows)
    # 30 draws at 5 %: more than 6 has a chance of 0.3 %
    assert all(int(str(row["rejected"])) <= 6 for row in rows.values())


def test_a_planted_direction_is_found_and_none_is_not() -> None:
    audited = audit_size.simulated(np.random.default_rng(0), prompts=6, samples=2)
    found = {
        effect: [
            audit_size.planted(audited, effect, np.random.default_rng([seed, 7]))
            for seed in range(8)
        ]
        for effect in (0.0, 8.0)
    }
    for name in ("detection, max-T", "A, max-T"):
        assert sum(run[name] for run in found[8.0]) >= 6
        assert sum(run[name] for run in found[0.0]) <= 3


def test_a_run_brings_its_own_responses_and_a_direction_of_unseen_pairs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    analysis.run(folder, build(folder, effect=1.0))
    audited = audit_size.of_run(folder, np.random.default_rng(0))
    assert audited.fitted == {"chocolate", "vote"}
    assert len(audited.share) == len(audited.scores.label)
    assert 0 < audited.share.min() <= audited.share.max() <= 0.5
    assert audited.cosines.shape == audited.scores.values.shape[1:]
    # the direction comes from 12 pairs that the vector was not fitted on
    assert 0.5 < audited.cosines[-1, 0] < 0.999
    assert audited.token_deviation.shape == audited.cosines.shape[:1]
