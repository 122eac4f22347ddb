"""Scores of class separation against slow definitions, written from the equations of their papers."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from transfergraph.scores import separation
from transfergraph.scores.base import Features
from transfergraph.scores.separation import (
    SEPARATION,
    gbc,
    h_score,
    lfc,
    regularised_h_score,
    sfda,
    shrinkage,
    transrate,
)

pytestmark = pytest.mark.filterwarnings("error")


def slow_h_score(x, y):
    "tr(cov(f)^+ cov(E[f|y])), Bao et al."
    means = np.array([x[y == label].mean(axis=0) for label in y])
    cov_f, cov_g = np.atleast_2d(np.cov(x.T)), np.atleast_2d(np.cov(means.T))
    return np.trace(np.linalg.pinv(cov_f, rcond=1e-10, hermitian=True) @ cov_g)


def slow_regularised_h_score(x, y):
    "tr(cov_alpha(f)^-1 (1 - alpha) cov(E[f|y])), Ibrahim et al., covariances divided by n."
    fitted = LedoitWolf().fit(x)
    means = np.array([x[y == label].mean(axis=0) for label in y])
    between = np.atleast_2d(np.cov(means.T, bias=True))
    return (1 - fitted.shrinkage_) * np.trace(np.linalg.solve(fitted.covariance_, between))


def slow_canonical(x, table, cov_f):
    "tr(C_ff^+ C_fy C_yy^+ C_yf)"
    x, table = x - x.mean(axis=0), table - table.mean(axis=0)
    cross, cov_y = x.T @ table / len(x), table.T @ table / len(x)
    inverse_f = np.linalg.pinv(cov_f, rcond=1e-10, hermitian=True)
    return np.trace(inverse_f @ cross @ np.linalg.pinv(cov_y, rcond=1e-10, hermitian=True) @ cross.T)


def slow_transrate(x, y, epsilon=1e-4, rank=None):
    "R(Z) - sum of n_c / n R(Z^c), Huang et al., with one eigenvalue at a time."

    def rate(z):
        values = np.linalg.svd(z, compute_uv=False)[:rank] ** 2
        return sum(0.5 * math.log1p(value / (len(z) * epsilon)) for value in values)

    z = x - x.mean(axis=0)
    return rate(z) - sum(np.mean(y == label) * rate(z[y == label]) for label in np.unique(y))


def slow_gbc(x, y, covariance="diagonal", k=64):
    "Minus the sum of exp(-D_B) over ordered pairs, Pandy et al., after a principal component analysis."
    z = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    keep = min(k, (s > 1e-9 * s[0]).sum())
    z = (u * s)[:, :keep]
    floor = 1e-4 * np.mean(z.var(axis=0))
    total = 0.0
    for i in np.unique(y):
        for j in np.unique(y):
            if i != j:
                covariances = [np.diag(np.maximum(z[y == label].var(axis=0), floor)) for label in (i, j)]
                if covariance == "spherical":
                    covariances = [np.eye(keep) * np.trace(one) / keep for one in covariances]
                middle, gap = sum(covariances) / 2, z[y == i].mean(axis=0) - z[y == j].mean(axis=0)
                log_dets = [np.linalg.slogdet(one)[1] for one in (middle, *covariances)]
                distance = gap @ np.linalg.solve(middle, gap) / 8
                distance += (log_dets[0] - (log_dets[1] + log_dets[2]) / 2) / 2
                total += math.exp(-distance)
    return -total


def slow_lfc(x, y):
    "Cosine of the two n x n kernels, both centred in rows and columns."
    n = len(x)
    h = np.eye(n) - 1 / n
    k = h @ (x @ x.T) @ h
    labels = h @ np.array([[1.0 if a == b else -1.0 for b in y] for a in y]) @ h
    return np.sum(k * labels) / np.linalg.norm(k) / np.linalg.norm(labels)


def slow_sfda(x, y, a=5.0):
    "Shao et al., equations 1 to 7; eigenvectors of the pair of scatter matrices, samples one at a time."
    classes, n, d = np.unique(y), len(x), x.shape[1]
    q = [np.mean(y == c) for c in classes]

    def regularised_fda(x, lam):
        mean, means = x.mean(axis=0), [x[y == c].mean(axis=0) for c in classes]
        within, between = np.zeros((d, d)), np.zeros((d, d))
        for point, label in zip(x, y):
            centre = means[list(classes).index(label)]
            within += np.outer(point - centre, point - centre) / n
            between += np.outer(centre - mean, centre - mean) / n
        lam = math.exp(-a * np.linalg.eigvalsh(within)[-1]) if lam is None else lam
        ridge = max(lam, 1e-12 * sum(x.var(axis=0)))
        _, vectors = scipy.linalg.eigh(between, (1 - lam) * within + ridge * np.eye(d))
        u = vectors[:, ::-1][:, : min(d, len(classes) - 1)]
        log_p = []
        for point, label in zip(x, y):
            delta = [
                (point - mean) @ u @ u.T @ (m - mean)
                - 0.5 * ((m - mean) @ u) @ ((m - mean) @ u)
                + math.log(share)
                for m, share in zip(means, q)
            ]
            own = delta[list(classes).index(label)]
            log_p.append(own - np.logaddexp.reduce(delta))
        return np.array(log_p), means, lam

    log_p, means, lam = regularised_fda(x, None)
    harder = np.zeros_like(x)
    for i, label in enumerate(y):
        others = np.mean([m for m, c in zip(means, classes) if c != label], axis=0)
        harder[i] = math.exp(log_p[i]) * x[i] + (1 - math.exp(log_p[i])) * others
    return np.mean(regularised_fda(harder, lam)[0])


def features_of(case):
    rng = np.random.default_rng(3)
    return {
        "n < d": lambda: rng.normal(1, 0.2, (20, 50)),
        "n < d, few": lambda: rng.normal(0, 0.1, (7, 100)),
        "n = d": lambda: rng.normal(0, 0.3, (25, 25)),
        "n > d": lambda: rng.normal(2, 0.4, (60, 8)),
        "n > d, wider than 64": lambda: rng.normal(0, 0.4, (100, 70)),
        "one feature": lambda: rng.normal(0, 0.5, (20, 1)),
        "rank-deficient": lambda: 0.2 * rng.normal(size=(40, 3)) @ rng.normal(size=(3, 10)),
        "rank-deficient, n < d": lambda: 0.1 * rng.normal(size=(15, 3)) @ rng.normal(size=(3, 40)),
        "constant column": lambda: np.c_[0.4 * rng.normal(size=(30, 4)), np.full(30, 2.0)],
        "large mean": lambda: rng.normal(100, 0.5, (40, 6)),
        "uneven scales": lambda: rng.normal(size=(50, 8)) * 10.0 ** np.arange(-3, 1).repeat(2),
    }[case]()


CASES = [
    *("n < d", "n < d, few", "n = d", "n > d", "n > d, wider than 64", "one feature"),
    *("rank-deficient", "rank-deficient, n < d", "constant column", "large mean", "uneven scales"),
]
SLOW = {
    "H-score": slow_h_score,
    "H-score-shrinkage": slow_regularised_h_score,
    "TransRate": slow_transrate,
    "GBC": slow_gbc,
    "LFC": slow_lfc,
    "SFDA": slow_sfda,
}
WAYS = {"array": Features, "tensor": lambda x: Features(torch.tensor(x))}


def unbalanced(n):
    "Four classes, one of them with a single sample, that are not numbered in a row."
    return np.array([5, 0, 0, 1, 3, 1, 0])[np.r_[0, 1 + np.random.default_rng(4).permutation(n - 1) % 6]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SLOW)
def test_the_score_is_its_definition(name, case, way):
    x = features_of(case)
    y = unbalanced(len(x))
    value = SEPARATION[name](WAYS[way](x), torch.tensor(y) if way == "tensor" else y)
    assert type(value) is float
    assert value == pytest.approx(SLOW[name](x, y), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("case", ["n < d", "n > d", "rank-deficient"])
@pytest.mark.parametrize("name", SLOW)
def test_a_decomposition_that_is_there_already_changes_nothing(name, case):
    x = features_of(case)
    features, y = Features(x), np.arange(len(x)) % 3
    assert features.rank and features.decomposed
    assert SEPARATION[name](features, y) == pytest.approx(SEPARATION[name](x, y), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", SLOW)
def test_blocks_are_put_together_again(name, monkeypatch):
    x, y = 0.4 * np.random.default_rng(6).normal(size=(300, 40)), unbalanced(300) % 3
    expected = SEPARATION[name](x, y)
    monkeypatch.setattr("transfergraph.scores.base.BLOCK", 1)
    monkeypatch.setattr(separation, "BLOCK", 1)
    assert SEPARATION[name](x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["regression", "one target", "multi-label", "redundant", "one-hot"])
@pytest.mark.parametrize("case", ["n < d", "n > d", "rank-deficient", "large mean"])
def test_h_scores_of_targets_are_canonical_correlations(case, kind):
    x = features_of(case)
    rng = np.random.default_rng(5)
    real = np.c_[x[:, :2], 1e3 + rng.normal(size=len(x))] + 0.1 * rng.normal(size=(len(x), 3))
    y = {
        "regression": lambda: real,
        "one target": lambda: real[:, 0],
        "multi-label": lambda: (real > real.mean(axis=0)).astype(int),
        "redundant": lambda: np.c_[real, 2 * real[:, 0] - real[:, 1]],
        "one-hot": lambda: np.eye(3, dtype=int)[np.arange(len(x)) % 3],
    }[kind]()
    table = np.asarray(y, float).reshape(len(x), -1)
    covariance = np.cov(x.T, bias=True)
    assert h_score(x, y) == pytest.approx(slow_canonical(x, table, covariance), rel=1e-6)
    fitted = LedoitWolf().fit(x)
    expected = (1 - fitted.shrinkage_) * slow_canonical(x, table, fitted.covariance_)
    assert regularised_h_score(x, y) == pytest.approx(expected, rel=1e-6)
    if kind == "one-hot":
        assert h_score(x, y) == pytest.approx(h_score(x, np.arange(len(x)) % 3), rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_shrinkage_is_that_of_ledoit_and_wolf(case):
    x = features_of(case)
    assert shrinkage(x) == pytest.approx(ledoit_wolf_shrinkage(x), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("case", ["n < d", "n > d", "rank-deficient"])
@pytest.mark.parametrize("k", [1, 3, 64])
@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
def test_gbc_is_its_definition_for_each_option(case, k, covariance):
    x = features_of(case)
    y = unbalanced(len(x))
    value = gbc(x, y, covariance=covariance, n_components=k)
    assert value == pytest.approx(slow_gbc(x, y, covariance, k), rel=1e-6)


def test_transrate_is_its_definition_for_each_precision():
    x, y = features_of("n > d"), unbalanced(60)
    for epsilon in (1e-8, 1e-2, 10.0):
        assert transrate(x, y, epsilon=epsilon) == pytest.approx(slow_transrate(x, y, epsilon), rel=1e-6)


def test_transrate_survives_features_that_dwarf_its_precision():
    x, y = 1e9 * features_of("rank-deficient"), unbalanced(40)
    assert transrate(x, y) == pytest.approx(slow_transrate(x, y, rank=3), rel=1e-6)


@pytest.mark.parametrize("strength", [0.5, 5.0, 20.0])
def test_sfda_is_its_definition_for_each_strength(strength):
    x, y = features_of("n > d"), np.arange(60) % 5
    assert sfda(x, y, strength=strength) == pytest.approx(slow_sfda(x, y, strength), rel=1e-6)


@pytest.mark.parametrize("apart", [0, 1, 3, 8])
def test_sfda_is_its_definition_when_only_some_samples_are_in_doubt(apart):
    rng = np.random.default_rng(1)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 70)) * np.r_[np.ones(5), np.full(65, 0.05)]
    x[:, :3] += apart * np.eye(3)[y]
    assert sfda(x, y) == pytest.approx(slow_sfda(x, y), rel=1e-6, abs=1e-9)


def test_sfda_stays_right_where_features_that_separate_classes_do_not_vary_within():
    # The first feature tells three pairs of classes apart, constant in each; the second tells within a pair.
    rng = np.random.default_rng(2)
    y = np.arange(120) % 6
    x = 10 * rng.normal(size=(120, 8))
    x[:, 0], x[:, 1] = 10 * (y // 2), x[:, 1] + 20 * (y % 2)
    turn, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    assert sfda(x @ turn, y) == pytest.approx(slow_sfda(x, y), rel=1e-4)
    assert -1 < slow_sfda(x, y) < -0.1


def test_golden_values():
    # From the slow definitions above on these inputs.
    x, y = np.sin(np.arange(60.0) ** 1.5) * np.tile([1, 0.5, 0.25, 0.1], 15), np.arange(15) % 4 % 3
    for name, (tall, wide) in GOLDEN.items():
        assert SEPARATION[name](x.reshape(15, 4), y) == pytest.approx(tall, rel=1e-6), name
        assert SEPARATION[name](x.reshape(6, 10), y[:6]) == pytest.approx(wide, rel=1e-6), name


GOLDEN = {
    "H-score": (0.42875314802, 2),
    "H-score-shrinkage": (0.271813054203, 0.560874171705),
    "TransRate": (0.777629602789, 9.65857752024),
    "GBC": (-3.68517546895, -0.18326660956),
    "LFC": (0.114535488328, 0.423968891473),
    "SFDA": (-0.983666348692, -0.132499649639),
}


@settings(max_examples=20, deadline=None)
@given(st.integers(6, 30), st.integers(1, 30), st.integers(2, 4), st.integers(0, 10**6))
def test_scores_do_not_see_order_origin_rotation_or_names(n, d, c, seed):
    rng = np.random.default_rng(seed)
    x, y = 0.4 * rng.normal(size=(n, d)), np.arange(n) % c
    order, names = rng.permutation(n), rng.permutation(c)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    for name, score in SEPARATION.items():
        value = pytest.approx(score(x, y), rel=1e-6, abs=1e-8)
        assert score(x[order], y[order]) == value, name
        assert score(x + rng.normal(size=d), y) == value, name
        assert score(x @ turn, y) == value, name
        assert score(x, names[y] * 3) == value, name


@settings(max_examples=20, deadline=None)
@given(st.integers(6, 30), st.integers(2, 30), st.floats(1e-4, 1e4), st.integers(0, 10**6))
def test_some_scores_do_not_see_scale_nor_constant_features(n, d, scale, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), np.arange(n) % 3
    for name in ("H-score", "H-score-shrinkage", "GBC", "LFC"):
        assert SEPARATION[name](scale * x, y) == pytest.approx(SEPARATION[name](x, y), rel=1e-6), name
    for name in set(SEPARATION) - {"H-score-shrinkage"}:  # which takes the mean variance of the features
        padded = SEPARATION[name](np.c_[x, np.full(n, 3.0)], y)
        assert padded == pytest.approx(SEPARATION[name](x, y), rel=1e-6, abs=1e-8), name


@settings(max_examples=20, deadline=None)
@given(st.integers(6, 40), st.integers(1, 30), st.integers(2, 4), st.integers(0, 10**6))
def test_scores_stay_within_their_range(n, d, c, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)) * rng.choice([1e-3, 1, 30]), np.arange(n) % c
    plain = h_score(x, y)
    assert -1e-9 <= plain <= min(d, c - 1) + 1e-9
    assert -1e-9 <= regularised_h_score(x, y) <= plain + 1e-9
    assert 0 <= lfc(x, y) <= 1 + 1e-9 and transrate(x, y) >= 0
    assert -c * (c - 1) - 1e-9 <= gbc(x, y) <= 0 and sfda(x, y) <= 0


@pytest.mark.parametrize("name", SLOW)
def test_single_precision_gives_nearly_the_same(name):
    x, y = features_of("n > d").astype(np.float32), np.arange(60) % 3
    exact = SEPARATION[name](x.astype(np.float64), y)
    assert SEPARATION[name](x, y) == pytest.approx(exact, rel=1e-9)
    assert SEPARATION[name](torch.tensor(x, requires_grad=True), torch.tensor(y)) == pytest.approx(
        exact, rel=1e-9
    )
    assert SEPARATION[name](x.astype(np.float16), y) == pytest.approx(exact, rel=1e-2)


CONSTANT = {"H-score": 0, "H-score-shrinkage": 0, "TransRate": 0, "GBC": -6, "LFC": 0, "SFDA": None}


@pytest.mark.parametrize("shape", [(12, 3), (12, 40), (12, 1)])
@pytest.mark.parametrize("name", SLOW)
def test_constant_features_have_the_value_that_is_documented(name, shape):
    y = np.array([0] * 6 + [1] * 4 + [2] * 2)
    entropy = -sum(q * math.log(q) for q in (6 / 12, 4 / 12, 2 / 12))
    expected = -entropy if name == "SFDA" else CONSTANT[name]
    assert SEPARATION[name](np.full(shape, 0.1), y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(30, 5), (210, 100), (30, 100)])
@pytest.mark.parametrize("name", SLOW)
def test_classes_that_have_collapsed_to_points_are_no_trouble(name, shape):
    y = np.arange(shape[0]) % 3
    points = np.random.default_rng(0).normal(size=(3, shape[1]))
    value = SEPARATION[name](points[y], y)
    assert np.isfinite(value) and value > SEPARATION[name](points[y[::-1] // 2], y)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x, y: transrate(x, y, epsilon=0), "epsilon is 0; expected a positive number"),
        (lambda x, y: sfda(x, y, strength=-1), "strength is -1; expected a positive number"),
        (
            lambda x, y: gbc(x, y, covariance="full"),
            "covariance is 'full'; expected 'diagonal' or 'spherical'",
        ),
        (lambda x, y: gbc(x, y, n_components=0), "n_components is 0; expected at least 1"),
    ],
)
def test_bad_options_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(features_of("n > d"), np.arange(60) % 3)


def test_a_thousand_classes_need_no_table_of_pairs_by_features():
    import tracemalloc

    rng = np.random.default_rng(0)
    y = np.arange(3000) % 1000
    x = (rng.normal(size=(1000, 20))[y] + 0.5 * rng.normal(size=(3000, 20))).astype(np.float32)
    features = Features(x)
    assert features.rank == 20
    tracemalloc.start()
    value = gbc(features, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert -1000 * 999 < value < 0 and peak < 1000 * 1000 * 20 * 8


def test_nothing_is_shrunk_where_the_covariance_is_that_of_a_sphere():
    assert shrinkage(np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])) == 0


def test_the_largest_of_close_eigenvalues_is_found():
    rng = np.random.default_rng(5)
    vectors = np.linalg.qr(rng.normal(size=(120, 120)))[0]
    matrix = (vectors * np.linspace(1, 1.01, 120)) @ vectors.T
    assert separation._largest_eigenvalue(matrix) == pytest.approx(1.01, rel=1e-5)
