"""Linear probes against slow definitions: Newton's method on the whole Hessian, cross-validation by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from transfergraph.scores import logme as probes
from transfergraph.scores.base import Features, Labels
from transfergraph.scores.logme import PROBES, deal, logistic, pactran_gaussian, softmax_regression

pytestmark = pytest.mark.filterwarnings("error")


def slow_minimum(x, y, penalty):
    "Minimum of the penalised cross-entropy by damped Newton steps: loss, W, b, Hessian of the mean loss."
    (n, d), classes = x.shape, sorted(set(y.tolist()))
    c = len(classes)
    design = np.c_[x - x.mean(0), np.ones(n)]
    hot = np.array([[float(v == k) for k in classes] for v in y.tolist()])
    theta = np.zeros((d + 1, c))

    def loss(theta):
        total = 0.5 * penalty * (theta[:d] ** 2).sum()
        for i in range(n):
            logits = design[i] @ theta
            total -= (logits @ hot[i] - np.logaddexp.reduce(logits)) / n
        return total

    for _ in range(200):
        slope, hessian = np.zeros((d + 1, c)), np.zeros(((d + 1) * c, (d + 1) * c))
        for i in range(n):
            logits = design[i] @ theta
            p = np.exp(logits - np.logaddexp.reduce(logits))
            slope += np.outer(design[i], p - hot[i]) / n
            hessian += np.kron(np.outer(design[i], design[i]), np.diag(p) - np.outer(p, p)) / n
        slope[:d] += penalty * theta[:d]
        penalised = hessian + np.diag(np.repeat([penalty] * d + [1e-9], c))  # a shift of all biases is free
        step = np.linalg.solve(penalised, slope.ravel()).reshape(d + 1, c)
        size, before = 1.0, loss(theta)
        while loss(theta - size * step) > before and size > 1e-10:
            size /= 2
        theta -= size * step
        if np.abs(slope).max() < 1e-12 or size <= 1e-10:
            break
    assert np.abs(slope).max() < 1e-9
    return loss(theta), theta[:d], theta[d], hessian[: d * c, : d * c]


def slow_pactran(x, y, temperature=0.1, variance=100.0):
    (n, d), c = x.shape, len(set(y.tolist()))
    strength, prior = temperature * n * d, variance / d
    risk, _, _, hessian = slow_minimum(x, y, 1 / (strength * prior))
    return -risk - c * d / (2 * strength) * math.log(1 + strength * prior / (c * d) * np.trace(hessian))


def features_of(case):
    rng = np.random.default_rng(3)
    return {
        "n < d": lambda: rng.normal(1, 1, (15, 25)),
        "n = d": lambda: rng.normal(0, 1, (16, 16)),
        "n > d": lambda: rng.normal(2, 1, (60, 5)),
        "one feature": lambda: rng.normal(0, 1, (20, 1)),
        "rank-deficient": lambda: rng.normal(size=(40, 3)) @ rng.normal(size=(3, 8)),
        "rank-deficient, n < d": lambda: rng.normal(size=(15, 3)) @ rng.normal(size=(3, 20)),
        "constant column": lambda: np.c_[rng.normal(size=(30, 4)), np.full(30, 2.0)],
        "large mean": lambda: rng.normal(1000, 1, (40, 4)),
        "small scale": lambda: 1e-3 * rng.normal(size=(40, 4)),
        "uneven scales": lambda: rng.normal(size=(50, 4)) * 10.0 ** np.arange(-2, 2),
    }[case]()


CASES = [
    *("n < d", "n = d", "n > d", "one feature", "rank-deficient", "rank-deficient, n < d"),
    *("constant column", "large mean", "small scale", "uneven scales"),
]


def labels_of(kind, n):
    return {
        "balanced": np.random.default_rng(4).permutation(np.arange(n) % 3),
        "unbalanced": np.r_[np.zeros(n - 4, int), 1, 1, 1, 1],
        "a single sample": np.r_[np.arange(n - 1) % 2, 7],
    }[kind]


@pytest.mark.parametrize("kind", ["balanced", "unbalanced", "a single sample"])
@pytest.mark.parametrize("case", CASES)
def test_pactran_gaussian_is_the_bound_as_it_is_defined(case, kind):
    x = features_of(case)
    y = labels_of(kind, len(x))
    assert pactran_gaussian(x, y) == pytest.approx(slow_pactran(x, y), rel=1e-6)


def test_pactran_gaussian_follows_its_options():
    x = features_of("n > d")
    y = labels_of("balanced", len(x))
    for options in ({"temperature": 1.0, "variance": 1.0}, {"temperature": 0.01, "variance": 10.0}):
        assert pactran_gaussian(x, y, **options) == pytest.approx(slow_pactran(x, y, **options), rel=1e-6)
    for name in ("temperature", "variance"):
        with pytest.raises(ValueError, match=f"{name} is 0; expected above 0"):
            pactran_gaussian(x, y, **{name: 0})


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_vanishes_at_the_minimum(case):
    x = features_of(case)
    y, penalty = labels_of("balanced", len(x)), 1 / (10 * len(x))
    features = Features(x)
    risk, weights, bias = softmax_regression(features, y, penalty)
    points = x - x.mean(0) if len(x) >= x.shape[1] else features.coordinates()
    logits = points @ weights + bias
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    errors = (p - np.eye(3)[y]) / len(x)
    # The gradient is bounded where features have a mean square of 1.
    size = np.sqrt(((x - x.mean(0)) ** 2).mean())
    assert np.abs(points.T @ errors + penalty * weights).max() < 2e-8 * size
    assert np.abs(errors.sum(0)).max() < 2e-8
    assert risk == pytest.approx(slow_minimum(x, y, penalty)[0], rel=1e-6)


def test_the_minimum_is_the_one_that_scikit_learn_finds():
    x = features_of("n > d")
    y = labels_of("balanced", len(x))
    _, weights, bias = softmax_regression(x, y, 1 / (10 * len(x)))
    peer = LogisticRegression(C=10, tol=1e-10, max_iter=10_000).fit(x - x.mean(0), y)
    np.testing.assert_allclose(weights.T, peer.coef_, atol=1e-5)
    np.testing.assert_allclose(bias - bias.mean(), peer.intercept_ - peer.intercept_.mean(), atol=1e-5)
    with pytest.raises(ValueError, match="penalty is 0; expected above 0"):
        softmax_regression(x, y, 0)


def test_blocks_of_rows_add_up_to_the_whole(monkeypatch):
    for case in ("n > d", "n < d"):
        x = np.random.default_rng(0).normal(size=(300, 4) if case == "n > d" else (80, 200))
        y = labels_of("balanced", len(x))
        whole = pactran_gaussian(x, y)
        monkeypatch.setattr("transfergraph.scores.base.BLOCK", 1)
        assert len(list(probes._blocks(Features(x), 1))) > 1
        assert pactran_gaussian(x, y) == pytest.approx(whole, rel=1e-7)
        monkeypatch.undo()


def slow_logistic(x, y, folds=5, strength=1.0):
    "Cross-validation by hand: another solver, double precision, all features."
    fold = deal(Features(x), Labels(y), min(folds, len(x)))
    points = (x - x.mean(0)) / np.sqrt(((x - x.mean(0)) ** 2).mean())
    right = 0
    for held_out in set(fold.tolist()):
        train, test = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        if len(set(y[train].tolist())) == 1:
            guess = [y[train][0]] * len(test)
        else:
            probe = LogisticRegression(C=strength, solver="newton-cg", tol=1e-8, max_iter=1000)
            guess = probe.fit(points[train], y[train]).predict(points[test])
        right += sum(g == y[i] for g, i in zip(guess, test))
    return right / len(x)


@pytest.mark.parametrize("kind", ["balanced", "unbalanced", "a single sample"])
@pytest.mark.parametrize("case", CASES)
def test_logistic_is_the_share_of_held_out_samples_that_are_classified_rightly(case, kind):
    x = features_of(case)
    y = labels_of(kind, len(x))
    # One sample may lie so near to a boundary that the precision decides.
    assert logistic(x, y) == pytest.approx(slow_logistic(x, y), abs=1.01 / len(x))


GOLDEN = {
    "PACTran-Gaussian": -1.569762008,
    "PACTran-Gaussian, n < d": -3.154473576,
    "logistic": 0.8,
}


def test_golden_values():
    # From the slow definitions above on these inputs.
    x, wide = np.sin(np.arange(80.0)).reshape(20, 4), np.sin(np.arange(80.0)).reshape(8, 10)
    y = (x[:, 0] + np.cos(3 * np.arange(20)) > 0).astype(int)
    found = {
        "PACTran-Gaussian": pactran_gaussian(x, y),
        "PACTran-Gaussian, n < d": pactran_gaussian(wide, np.arange(8) % 2),
        "logistic": logistic(x, y),
    }
    assert found == pytest.approx(GOLDEN, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 40), st.integers(1, 30), st.integers(2, 4), st.integers(0, 10**6))
def test_pactran_gaussian_does_not_see_order_rotation_shift_or_names(n, d, c, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0.5, 1, (n, d)), np.arange(n) % c
    order, names = rng.permutation(n), rng.permutation(c)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    expected = pytest.approx(pactran_gaussian(x, y), rel=1e-5)
    assert pactran_gaussian(x[order], y[order]) == expected
    assert pactran_gaussian(x @ turn + 7, y) == expected
    assert pactran_gaussian(x, 2 * names[y]) == expected
    # The prior is for features of a given scale: twice the features is half the standard deviation.
    assert pactran_gaussian(2 * x, y, variance=25) == expected


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(10, 40), st.integers(2, 30), st.integers(2, 3), st.integers(0, 10**6))
def test_logistic_does_not_see_order_rotation_scale_shift_or_names(n, d, c, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % c
    x = rng.normal(size=(n, d)) + np.eye(c)[y] @ rng.normal(size=(c, d))
    order, names = rng.permutation(n), rng.permutation(c)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    expected = pytest.approx(logistic(x, y), abs=1.01 / n)
    assert logistic(x[order], y[order]) == expected
    assert logistic(1e-3 * (x @ turn) + 2, y) == expected
    assert logistic(x, 5 * names[y]) == expected


@settings(max_examples=20, deadline=None)
# Two samples are equally far from their mean.
@given(st.integers(3, 40), st.integers(2, 6), st.integers(2, 4), st.integers(0, 10**6))
def test_samples_are_dealt_evenly_in_each_class_and_in_all(n, folds, c, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)), np.r_[0, 1, rng.integers(0, c, n - 2)]
    fold = deal(Features(x), Labels(y), folds, seed)
    assert set(fold) <= set(range(folds))
    for members in [np.ones(n, bool), *(y == k for k in set(y))]:
        assert np.ptp(np.bincount(fold[members], minlength=folds)) <= 1
    order = rng.permutation(n)
    np.testing.assert_array_equal(deal(Features(x[order]), Labels(c - y[order]), folds, seed), fold[order])


def test_another_random_state_deals_anew():
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    first, second = (deal(Features(x), Labels(y), 5, seed) for seed in (0, 1))
    assert (first != second).mean() > 0.5
    assert logistic(x, y, random_state=0) == logistic(x, y)


@pytest.mark.parametrize("score", PROBES.values())
def test_single_precision_and_tensors_give_the_same(score):
    for case in ("n > d", "n < d"):
        x = features_of(case).astype(np.float32)
        y = labels_of("balanced", len(x))
        expected = pytest.approx(score(x.astype(np.float64), y), rel=1e-6)
        assert score(x, y) == expected
        assert score(torch.tensor(x, requires_grad=True), torch.tensor(y)) == expected


@pytest.mark.parametrize("x", [np.full((20, 3), 0.1), np.zeros((20, 3)), np.full((20, 40), 1e6)])
def test_constant_features_leave_what_is_known_without_them(x):
    y = np.r_[np.zeros(13, int), np.ones(7, int)]
    entropy = -(13 * math.log(13 / 20) + 7 * math.log(7 / 20)) / 20
    assert pactran_gaussian(x, y) == pytest.approx(-entropy)
    assert logistic(x, y) == 13 / 20


def test_two_samples_are_enough_for_a_value():
    x, y = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1])
    assert logistic(x, y) == 0  # each is taken for the other, which is all that was seen
    assert pactran_gaussian(x, y) == pytest.approx(slow_pactran(x, y), rel=1e-6)


def test_options_of_the_probe_do_what_they_say():
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(30, int), np.ones(70, int)]
    x = rng.normal(size=(100, 5)) + y[:, None]
    assert logistic(x, y, strength=1e-6) == 0.7  # weights of nothing: the most common class
    assert logistic(x, y) > 0.8
    calls = []
    fit = LogisticRegression.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogisticRegression, "fit", lambda self, x, y: calls.append(len(x)) or fit(self, x, y))
        logistic(x, y, folds=4)
    assert calls == [75] * 4
    for options, message in [
        ({"folds": 1}, "folds is 1; expected at least 2"),
        ({"strength": 0}, "strength is 0; expected above 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            logistic(x, y, **options)
