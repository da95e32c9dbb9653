"""Linear methods against scikit-learn on the same matrix: small, large, and streamed."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from traits.probes.fitting import linear
from traits.probes.fitting.linear import LINEAR, Rows
from traits.probes.fitting.method_table import balanced
from traits.probes.fitting.table import Table, of_array


def matrix(rows: int, dim: int) -> np.ndarray:
    draw = np.random.default_rng(rows)
    values = draw.normal(size=(rows, dim)) * np.linspace(0.5, 3, dim) + draw.normal(size=dim)
    values[:, 0] *= 300  # a massive dim
    values[: rows // 3, 1:4] += 1.5
    values[:, dim - 1] = 7.0  # one that does not vary
    return values.astype(np.float32)


def problem(values: np.ndarray, weighted: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Two targets' labels and balanced weights."""
    rows = np.arange(len(values))
    label = np.stack([rows < len(rows) // 3, rows % 5 == 0]).astype(np.int64)
    base = 1 / (1 + rows % 3) if weighted else np.ones(len(rows))
    return label, np.stack([balanced(base, one.astype(float)) for one in label])


def expected(name: str, values: np.ndarray, label, weight, inverse: float) -> np.ndarray:
    """Scikit-learn's scores of the rows, in double precision."""
    values = values.astype(np.float64)
    if name == "lda":
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
        return model.fit(values, label).decision_function(values)
    last = {
        "logistic": LogisticRegression(C=inverse, tol=1e-12, max_iter=20_000),
        "ridge": RidgeClassifier(alpha=1 / inverse),
    }[name]
    pipeline = make_pipeline(StandardScaler(), last)
    given = {f"{type(last).__name__.lower()}__sample_weight": weight}
    return pipeline.fit(values, label, **given).decision_function(values)


def scores(solved, values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) @ solved.weight + solved.offset


@pytest.mark.parametrize("name", ["logistic", "ridge", "lda"])
@pytest.mark.parametrize("shape", [(90, 20), (60, 150)])
def test_each_is_scikit_learns_to_1e5(name, shape):
    values = matrix(*shape)
    label, weight = problem(values)
    penalties = [0.01, 1.0]
    solved = LINEAR[name](Rows(of_array(values), label, weight, True), penalties)
    for target, one in enumerate(solved):
        for inverse, solution in zip(penalties, one, strict=False):
            right = expected(name, values, label[target], weight[target], inverse)
            np.testing.assert_allclose(scores(solution, values), right, atol=1e-5)
    changed = values.copy()
    changed[0, 2] += 0.1
    again = LINEAR[name](Rows(of_array(changed), label, weight, True), penalties)
    assert np.abs(scores(again[0][0], values) - scores(solved[0][0], values)).max() > 1e-5


def test_lda_without_balance_has_the_classes_own_shares():
    values = matrix(90, 20)
    label, weight = problem(values)
    [solved, _] = linear.lda(Rows(of_array(values), label, weight, False))
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(values, label[0])
    right = model.decision_function(values.astype(np.float64))
    np.testing.assert_allclose(scores(solved[0], values), right, atol=1e-5)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("name", "tolerance"), [("logistic", 3e-3), ("ridge", 1e-4), ("lda", 1e-4)]
)
def test_large_tables_are_fitted_in_blocks(name, tolerance, streamed, monkeypatch):
    monkeypatch.setattr(linear, "FEW", 4)
    monkeypatch.setattr("traits.probes.fitting.table.BLOCK", 32)
    monkeypatch.setattr("traits.probes.fitting.large.BLOCK", 16)
    values = matrix(150, 40)
    label, weight = problem(values)
    table = of_array(values.copy())
    if streamed:
        parts = [values[:50], values[50:]]
        table = Table(150, 40, None, lambda: iter([one.copy() for one in parts]))
    solved = LINEAR[name](Rows(table, label, weight, True), [0.01, 1.0])
    for target, one in enumerate(solved):
        for inverse, solution in zip([0.01, 1.0], one, strict=False):
            right = expected(name, values, label[target], weight[target], inverse)
            error = np.abs(scores(solution, values) - right).max()
            assert error < tolerance * right.std()
    right = expected(name, values, label[1], weight[0], 0.01)
    assert np.abs(scores(solved[0][0], values) - right).max() > tolerance * right.std()


def test_mean_diff_and_a_function_have_their_zero_between_the_classes():
    values = matrix(90, 20)
    label, weight = problem(values)
    rows = Rows(of_array(values), label, weight, True)
    found = linear.mean_diff(rows)[1][0]
    ends = [np.average(values[label[1] == v], 0, weight[1][label[1] == v]) for v in (0, 1)]
    np.testing.assert_allclose(found.weight, ends[1] - ends[0], atol=1e-5)
    assert found.weight @ (ends[0] + ends[1]) / 2 == pytest.approx(-found.offset)
    other = linear.by_function(lambda values, label, weight: np.arange(20.0), rows)[0][0]
    ends = [np.average(values[label[0] == v], 0, weight[0][label[0] == v]) for v in (0, 1)]
    assert np.arange(20.0) @ (ends[0] + ends[1]) / 2 == pytest.approx(-other.offset, rel=1e-5)
