"""LogME against its definition: the density of a normal distribution, maximised by a general optimiser."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from transfergraph.scores import logme as evidence
from transfergraph.scores.base import Features, Labels
from transfergraph.scores.logme import log_evidence, logme

pytestmark = pytest.mark.filterwarnings("error")


def by_definition(x, column):
    "Largest log density per sample of `column` under N(0, X X^T / alpha + I / beta), a dense covariance."
    n = len(x)

    def minus(point):
        alpha, beta = np.exp(np.clip(point, -40, 40))
        covariance = x @ x.T / alpha + np.eye(n) / beta
        sign, log_det = np.linalg.slogdet(covariance)
        quadratic = column @ np.linalg.solve(covariance, column)
        return 0.5 * (n * np.log(2 * np.pi) + log_det + quadratic) / n if sign > 0 else np.inf

    starts = [(0, 0), (4, 4), (-4, 4), (7, 1), (4, -3), (10, 2)]
    options = dict(xatol=1e-7, fatol=1e-13, maxiter=5000)
    return -min(minimize(minus, start, method="Nelder-Mead", options=options).fun for start in starts)


def features_of(case):
    rng = np.random.default_rng(3)
    return {
        "n < d": lambda: rng.normal(1, 1, (20, 50)),
        "n < d, few": lambda: rng.normal(0, 1, (6, 100)),
        "n = d": lambda: rng.normal(0, 1, (25, 25)),
        "n = d + 1": lambda: rng.normal(0, 1, (26, 25)),
        "n > d": lambda: rng.normal(2, 1, (60, 8)),
        "one feature": lambda: rng.normal(0, 1, (20, 1)),
        "rank-deficient": lambda: rng.normal(size=(40, 3)) @ rng.normal(size=(3, 10)),
        "rank-deficient, n < d": lambda: rng.normal(size=(15, 3)) @ rng.normal(size=(3, 40)),
        "constant column": lambda: np.c_[rng.normal(size=(30, 4)), np.full(30, 2.0)],
        "zero column": lambda: np.c_[rng.normal(size=(30, 4)), np.zeros(30)],
        "constant, n < d": lambda: np.c_[rng.normal(size=(10, 14)), np.full(10, 2.0)],
        "large mean": lambda: rng.normal(1000, 1, (40, 6)),
        "all constant": lambda: np.full((20, 3), 1.5),
        "uneven scales": lambda: rng.normal(size=(50, 10)) * 10.0 ** np.arange(-3, 2).repeat(2),
    }[case]()


CASES = [
    *("n < d", "n < d, few", "n = d", "n = d + 1", "n > d", "one feature"),
    *("rank-deficient", "rank-deficient, n < d", "constant column", "zero column", "constant, n < d"),
    *("large mean", "all constant", "uneven scales"),
]


@pytest.mark.parametrize("way", ["tridiagonal", "eigenvectors", "tensor"])
@pytest.mark.parametrize("case", CASES)
def test_logme_is_the_maximum_of_the_evidence_as_it_is_defined(case, way):
    x = features_of(case)
    labels = np.random.default_rng(4).permutation(np.arange(len(x)) % 3)
    features = Features(torch.tensor(x) if way == "tensor" else x)
    if way == "eigenvectors":
        assert features.spectrum is not None and features.decomposed
    values = log_evidence(features, labels)
    expected = [by_definition(x, (labels == c).astype(float)) for c in range(3)]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)
    assert logme(features, labels) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("case", ["n < d", "n > d", "rank-deficient", "large mean"])
def test_regression_and_multi_label_columns_are_scored_one_by_one(case):
    x = features_of(case)
    rng = np.random.default_rng(5)
    y = np.c_[x @ rng.normal(size=x.shape[1]) + rng.normal(size=len(x)), 3 + rng.normal(size=len(x))]
    np.testing.assert_allclose(log_evidence(x, y), [by_definition(x, column) for column in y.T], rtol=1e-4)
    assert logme(x, y[:, 0]) == pytest.approx(log_evidence(x, y)[0])
    table = (y > y.mean(0)).astype(int)
    np.testing.assert_allclose(
        log_evidence(x, table), [by_definition(x, column) for column in table.T], rtol=1e-4
    )


def test_two_classes_are_two_columns_that_need_not_be_equal():
    x, labels = features_of("n > d"), np.arange(60) % 2
    first, second = log_evidence(x, labels)
    assert first == pytest.approx(log_evidence(x, Labels(1.0 * (labels == 0), kind="regression"))[0])
    assert logme(x, labels) == pytest.approx((first + second) / 2)


def test_wide_noise_is_noise():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(500, 2048)), rng.integers(0, 20, 500)
    # Without the d - n directions of no variance, the usual iteration gives about 20 here.
    white = np.array([-0.5 * (np.log(2 * np.pi * np.mean(labels == c)) + 1) for c in range(20)])
    values = log_evidence(x, labels)
    assert (values >= white - 1e-9).all() and (values < white + 0.1).all()


def test_golden_values():
    # From `by_definition` on these inputs.
    x = np.sin(np.arange(48.0)).reshape(12, 4)
    assert logme(x, np.arange(12) % 3) == pytest.approx(GOLDEN["tall"], rel=1e-6)
    assert logme(x.T, np.arange(4) % 2) == pytest.approx(GOLDEN["wide"], rel=1e-6)
    assert logme(x, np.cos(np.arange(12.0))) == pytest.approx(GOLDEN["regression"], rel=1e-6)


GOLDEN = {"tall": -0.790775091, "wide": -1.072364943, "regression": -1.072247342}


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 40), st.integers(1, 40), st.integers(2, 4), st.integers(0, 10**6))
def test_logme_does_not_see_order_rotation_scale_or_names(n, d, c, seed):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(0.5, 1, (n, d)), np.arange(n) % c
    order, names = rng.permutation(n), rng.permutation(c)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    score = pytest.approx(logme(x, labels), rel=1e-4, abs=1e-4)
    assert logme(x[order], labels[order]) == score
    assert logme(x @ turn, labels) == score
    assert logme(1e3 * x, labels) == score
    assert logme(x, names[labels] * 2) == score
    assert logme(np.c_[x, np.zeros(n)], labels) == score


def test_single_precision_and_tensors_give_the_same():
    x, labels = features_of("n > d").astype(np.float32), np.arange(60) % 3
    expected = logme(x.astype(np.float64), labels)
    assert logme(x, labels) == pytest.approx(expected, rel=1e-9)
    assert logme(torch.tensor(x, requires_grad=True), torch.tensor(labels)) == pytest.approx(
        expected, rel=1e-6
    )


def test_a_perfect_fit_is_large_but_finite():
    labels = np.arange(30) % 3
    perfect, good = (
        np.eye(3)[labels],
        np.eye(3)[labels] + 1e-3 * np.random.default_rng(0).normal(size=(30, 3)),
    )
    assert np.isfinite(logme(perfect, labels)) and logme(perfect, labels) > logme(good, labels) > 4


def test_constant_features_leave_the_evidence_of_the_mean():
    labels = np.arange(20) % 2
    zero = -0.5 * (
        np.log(2 * np.pi * 0.5) + 1
    )  # no features at all: white noise with the labels' mean square
    assert logme(np.zeros((20, 3)), labels) == pytest.approx(zero)
    assert logme(np.ones((20, 3)), labels) > zero


def test_the_way_without_eigenvectors_is_taken_for_few_columns_only(monkeypatch):
    x = features_of("n > d")
    monkeypatch.setattr(evidence, "Spectral", None)
    assert np.isfinite(logme(x, np.arange(60) % 3))
    with pytest.raises(TypeError):
        logme(x, np.arange(60))
