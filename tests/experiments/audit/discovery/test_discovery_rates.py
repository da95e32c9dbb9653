"""q of a search: the false discovery rate over tests that few prompts decide."""

import math

import numpy as np

from experiments.audit.discovery import confirm


def test_q_values_are_those_of_the_tests_own_ladders():
    counts = [[(9, 0)], [(7, 1), (12, 3)], [(5, 0), (0, 0)], [(2, 0)], [(3, 5)], [(7, 1)]]
    tests = [[_differing(*pair) for pair in sides] for sides in counts]
    p = [max(_tail(*pair) for pair in sides) for sides in counts]
    slow = []
    for t in p:
        odds = []
        for sides in counts:
            ladders = [[_tail(k, m + n - k) for k in range(m + n + 1)] for m, n in sides]
            chance = min(max((x for x in ladder if x <= t), default=0) for ladder in ladders)
            odds.append(np.inf if chance == 1 else chance / (1 - chance))
        slow.append(sum(odds) / sum(x <= t for x in p))
    slow = [min(1, max(q for q, x in zip(slow, p, strict=True) if x <= t)) for t in p]
    np.testing.assert_allclose(confirm.q_values(tests), slow)
    ranked = [x * len(p) / sum(y <= x for y in p) for x in p]
    assert slow[0] < ranked[0]
    assert slow[2] == 1  # five differ in one comparison, none in the other


def test_q_values_hold_the_rate_among_tests_of_few_prompts():
    generator = np.random.default_rng(0)
    false, found = [], []
    for _ in range(400):
        differ = generator.integers(0, 12, 60)
        true = generator.random(60) < 0.1
        more = generator.binomial(differ, np.where(true, 0.97, 0.5))
        pairs = zip(more.tolist(), (differ - more).tolist(), strict=True)
        called = confirm.q_values([[_differing(*pair)] for pair in pairs]) <= 0.2
        false.append((called & ~true).sum() / max(called.sum(), 1))
        found.append((called & true).sum())
    assert np.mean(false) < 0.2 + 3 * np.std(false) / 20
    assert np.mean(found) > 1


def _tail(more, less):
    return sum(math.comb(more + less, k) for k in range(more, more + less + 1)) / 2 ** (more + less)


def _differing(more, less):
    on = {str(n): float(n < more) for n in range(more + less)} or {"a": 0.0}
    return confirm.compared(on, {k: 1 - v if more + less else 0.0 for k, v in on.items()})
