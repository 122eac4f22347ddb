"""Scores from assignments against slow definitions: loops over samples, classes and source labels."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma, gammaln
from scipy.stats import norm

from transfergraph.scores import leep as assignments
from transfergraph.scores.base import Features
from transfergraph.scores.leep import (
    as_probabilities,
    dirichlet_bound,
    gamma_bound,
    leep,
    mixture_posterior,
    n_leep,
    nce,
    pactran_dirichlet,
    pactran_gamma,
)

pytestmark = pytest.mark.filterwarnings("error")
CLUSTERED = [n_leep, pactran_dirichlet, pactran_gamma]


def slow_leep(theta, y):
    n, z = theta.shape
    total = 0.0
    for i in range(n):
        likelihood = 0.0
        for s in range(z):
            mass = sum(theta[j, s] for j in range(n))
            if mass > 0:
                likelihood += sum(theta[j, s] for j in range(n) if y[j] == y[i]) / mass * theta[i, s]
        total += math.log(likelihood)
    return total / n


def slow_nce(source, y):
    n, entropy = len(y), 0.0
    for s in set(source):
        members = [y[i] for i in range(n) if source[i] == s]
        for c in set(members):
            p = members.count(c) / len(members)
            entropy -= len(members) / n * p * math.log(p)
    return -entropy


def slow_dirichlet(theta, y, alpha=1.0, steps=3000):
    "Evidence lower bound with the assignment of every sample written out, term by term."
    (n, z), classes = theta.shape, sorted(set(y))
    a0 = np.array([alpha * sum(v == c for v in y) / n for c in classes])
    code = [classes.index(v) for v in y]
    q, last = theta.copy(), -np.inf
    for _ in range(steps):
        a = np.array(
            [
                [a0[c] + sum(q[i, s] for i in range(n) if code[i] == c) for s in range(z)]
                for c in range(len(a0))
            ]
        )
        elog = np.array(
            [[digamma(a[c, s]) - digamma(a[:, s].sum()) for s in range(z)] for c in range(len(a0))]
        )
        bound = 0.0
        for s in range(z):  # minus the divergence of the posterior Dirichlet distribution from the prior
            bound -= gammaln(a[:, s].sum()) - gammaln(a0.sum())
            bound -= sum(
                gammaln(a0[c]) - gammaln(a[c, s]) + (a[c, s] - a0[c]) * elog[c, s] for c in range(len(a0))
            )
        for i in range(n):
            for s in range(z):
                if q[i, s] > 0:
                    bound += q[i, s] * (math.log(theta[i, s]) + elog[code[i], s] - math.log(q[i, s]))
        if bound - last < 1e-12 * n:
            break
        last = bound
        for i in range(n):
            weights = theta[i] * np.exp(elog[code[i]] - elog[code[i]].max())
            q[i] = weights / weights.sum()
    return bound / n


def slow_gamma(theta, y, alpha=1.0, steps=20000):
    "The same for Gamma priors; every term of the bound is computed, also those that cancel at the optimum."
    (n, z), classes = theta.shape, sorted(set(y))
    c = len(classes)
    code = np.array([classes.index(v) for v in y])
    a0 = alpha * np.array([np.mean(code == k) for k in range(c)])
    q, b, last = theta.copy(), np.ones((c, z)), -np.inf
    hot = np.eye(c)[code]
    for _ in range(steps):
        a = a0[:, None] + hot.T @ q
        for _ in range(20):
            tangent = theta @ (a / b).sum(0)
            b = np.tile(1 + (theta / tangent[:, None]).sum(0), (c, 1))
        tangent = theta @ (a / b).sum(0)
        mean, elog = a / b, digamma(a) - np.log(b)
        prior = ((a0[:, None] - 1) * elog - mean - gammaln(a0)[:, None]).sum()
        entropy = (a - np.log(b) + gammaln(a) + (1 - a) * digamma(a)).sum()
        likelihood = 0.0
        for i in range(n):
            seen = theta[i] > 0
            likelihood += (q[i] * elog[code[i]])[seen].sum()
            used = q[i] > 0
            likelihood -= (q[i, used] * np.log(q[i, used] / theta[i, used])).sum()
            likelihood -= math.log(tangent[i]) + (theta[i] @ mean.sum(0)) / tangent[i] - 1
        bound = prior + entropy + likelihood
        if bound - last < 1e-12 * n:
            break
        last = bound
        weights = theta * np.exp(elog[code] - elog[code].max(1, keepdims=True))
        q = weights / weights.sum(1, keepdims=True)
    return bound / n


def evidence(theta, y, alpha):
    "Exact log evidence per sample: the sum over all assignments of samples to source labels."
    n, z = theta.shape
    a0 = {c: alpha * y.count(c) / n for c in y}
    total = 0.0
    for assigned in itertools.product(range(z), repeat=n):
        drawn, p = [], 1.0
        for i, s in enumerate(assigned):  # an urn for each source label
            before = [j for j in drawn if assigned[j] == s]
            p *= theta[i, s] * (a0[y[i]] + sum(y[j] == y[i] for j in before)) / (alpha + len(before))
            drawn.append(i)
        total += p
    return math.log(total) / n


def slow_posterior(x, components, energy=0.8, random_state=0):
    "The mixture by its definition: a loop over components, the same start, the same stop."
    from sklearn.cluster import KMeans

    centred = x - x.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    u, s = u[:, s > 1e-9 * s[0]], s[s > 1e-9 * s[0]]
    k = next(i for i in range(1, len(s) + 1) if (s[:i] ** 2).sum() >= (energy - 1e-9) * (s**2).sum())
    points = u[:, :k] * s[:k]
    points = points / np.sqrt((points**2).mean())
    points = points[order := np.argsort((points**2).sum(1), kind="stable")]
    start = KMeans(components, n_init=1, random_state=np.random.RandomState(random_state)).fit(points).labels_
    posterior, levels = np.eye(components)[start], [-np.inf]
    for _ in range(101):
        terms = []
        for j in range(components):
            r = posterior[:, j] / posterior[:, j].sum()
            mean = sum(r[i] * points[i] for i in range(len(r)))
            variance = sum(r[i] * (points[i] - mean) ** 2 for i in range(len(r))) + 0.01
            terms.append(np.log(posterior[:, j].mean()) + norm.logpdf(points, mean, np.sqrt(variance)).sum(1))
        joint = np.array(terms).T
        if len(levels) > 2 and abs(levels[-1] - levels[-2]) < 1e-3:
            break
        total = np.logaddexp.reduce(joint, axis=1)
        levels.append(total.mean())
        posterior = np.exp(joint - total[:, None])
    final = np.empty_like(joint)
    final[order] = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    return final


def source_predictions(n, z, sharpness=1.0, seed=0):
    logits = sharpness * np.random.default_rng(seed).normal(size=(n, z))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def labelled(case):
    rng = np.random.default_rng(7)
    theta = source_predictions(24, 5)
    y = np.arange(24) % 3
    return {
        "balanced": lambda: (theta, y),
        "sharp": lambda: (source_predictions(24, 5, 8), y),
        "unbalanced": lambda: (theta, np.r_[np.zeros(18, int), 1, 1, 1, 2, 2, 2]),
        "a single sample": lambda: (theta, np.r_[np.zeros(12, int), np.ones(11, int), 5]),
        "nothing at one source label": lambda: (np.c_[theta, np.zeros(24)], y),
        "certain": lambda: (np.eye(4)[rng.integers(0, 4, 24)], y),
        "one source label": lambda: (np.ones((24, 1)), y),
        "more source labels than samples": lambda: (source_predictions(24, 40, 2), y),
    }[case]()


CASES = [
    *("balanced", "sharp", "unbalanced", "a single sample", "nothing at one source label", "certain"),
    *("one source label", "more source labels than samples"),
]


@pytest.mark.parametrize("case", CASES)
def test_leep_and_nce_are_what_their_papers_define(case):
    theta, y = labelled(case)
    assert leep(theta, y) == pytest.approx(slow_leep(theta, y), rel=1e-9, abs=1e-12)
    expected = slow_nce([max(range(len(row)), key=row.__getitem__) for row in theta.tolist()], y.tolist())
    assert nce(theta, y) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_nce_takes_source_labels_as_they_are():
    source, y = np.array([4, 4, 9, 9, 9, 0]), np.array([0, 1, 1, 1, 0, 2])
    assert nce(source, y) == pytest.approx(slow_nce(source.tolist(), y.tolist()))
    assert nce(torch.tensor(source), torch.tensor(y)) == nce(source, y)
    with pytest.raises(ValueError, match="probabilities: row 2 is -9; source labels are numbered from 0"):
        nce(source * [1, 1, -1, 1, 1, 1], y)
    with pytest.raises(ValueError, match="labels have 5 rows and probabilities 6; expected as many"):
        nce(source, y[:5])
    with pytest.raises(ValueError, match=r"probabilities have 1 row\(s\); expected at least 2"):
        nce(source[:1], y[:1])


@pytest.mark.parametrize("alpha", [1.0, 0.3, 5.0])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bound, slow", [(dirichlet_bound, slow_dirichlet), (gamma_bound, slow_gamma)])
def test_a_bound_is_the_optimum_of_its_definition(bound, slow, case, alpha):
    theta, y = labelled(case)
    assert bound(theta, y, concentration=alpha) == pytest.approx(slow(theta, y.tolist(), alpha), rel=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_the_bounds_are_below_the_evidence_and_equal_to_it_where_assignments_are_certain(alpha):
    y = [0, 0, 1, 1, 0, 2, 1]
    for theta in (source_predictions(7, 2), source_predictions(7, 3, 4)):
        exact = evidence(theta, y, alpha)
        assert exact - 0.5 < dirichlet_bound(theta, y, concentration=alpha) < exact
    certain = np.eye(3)[[0, 0, 1, 1, 0, 2, 2]]
    exact = evidence(certain, y, alpha)
    assert dirichlet_bound(certain, y, concentration=alpha) == pytest.approx(exact, rel=1e-12)
    assert gamma_bound(certain, y, concentration=alpha) < exact


def test_the_gamma_bound_is_below_the_evidence_by_simulation():
    y, theta = np.array([0, 1, 1, 0, 1]), source_predictions(5, 2, 2)
    shapes = 2 * np.array([2, 3]) / 5
    w = np.random.default_rng(0).gamma(
        shapes[:, None], 1.0, size=(400_000, 2, 2)
    )  # draws, classes, source labels
    likelihood = np.ones(len(w))
    for i in range(5):
        likelihood *= w[:, y[i]] @ theta[i] / (w.sum(1) @ theta[i])
    exact = np.log(likelihood.mean()) / 5  # to 0.001
    assert exact - 0.3 < gamma_bound(theta, y, concentration=2) < exact


def test_a_hundred_rare_classes_do_not_underflow():
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(900, int), np.arange(1, 101)]
    flat = rng.dirichlet(np.full(600, 1e3), 1000)
    for bound in (dirichlet_bound, gamma_bound):
        assert -10 < bound(flat, y) < 0


def features_of(case):
    rng = np.random.default_rng(3)
    mean = 3 * rng.normal(size=(4, 100))
    group = np.arange(40) % 4
    return {
        "n < d": lambda: mean[group, :60] + rng.normal(size=(40, 60)),
        "n = d": lambda: mean[group, :40] + rng.normal(size=(40, 40)),
        "n > d": lambda: mean[group, :6] + rng.normal(size=(40, 6)),
        "rank-deficient": lambda: (mean[group, :3] + rng.normal(size=(40, 3))) @ rng.normal(size=(3, 8)),
        "constant column": lambda: np.c_[mean[group, :5] + rng.normal(size=(40, 5)), np.full(40, 2.0)],
        "one feature": lambda: mean[group, :1] + rng.normal(size=(40, 1)),
        "large mean": lambda: 1000 + mean[group, :6] + rng.normal(size=(40, 6)),
    }[case]()


LABELS = {
    "balanced": np.arange(40) // 2 % 2,
    "unbalanced": np.r_[np.zeros(30, int), np.ones(10, int)],
    "a single sample": np.r_[np.zeros(39, int), 3],
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize(
    "case", ["n < d", "n = d", "n > d", "rank-deficient", "constant column", "one feature", "large mean"]
)
def test_scores_of_features_are_scores_of_the_mixture_as_it_is_defined(case, labels):
    x, y = features_of(case), LABELS[labels]
    posterior = slow_posterior(x, 6)
    np.testing.assert_allclose(mixture_posterior(x, 6), posterior, atol=1e-6)
    options = {"components_per_class": 3}
    assert n_leep(x, y, **options) == pytest.approx(slow_leep(posterior, y), rel=1e-6, abs=1e-9)
    assert pactran_dirichlet(x, y, **options) == pytest.approx(
        slow_dirichlet(posterior, y.tolist()), rel=1e-6
    )
    assert pactran_gamma(x, y, **options) == pytest.approx(slow_gamma(posterior, y.tolist()), rel=1e-6)


def test_golden_values():
    # From the slow definitions above on these inputs.
    raw = 1 + np.sin(np.arange(60.0)).reshape(12, 5)
    theta = raw / raw.sum(1, keepdims=True)
    y = np.arange(12) % 3
    x = np.sin(np.arange(80.0)).reshape(20, 4)
    found = {
        "LEEP": leep(theta, y),
        "NCE": nce(theta, y),
        "Dirichlet": dirichlet_bound(theta, y),
        "Gamma": gamma_bound(theta, y),
        "N-LEEP": n_leep(x, np.arange(20) % 2, components_per_class=2),
        "PACTran-Dirichlet": pactran_dirichlet(x, np.arange(20) % 2, components_per_class=2),
        "PACTran-Gamma": pactran_gamma(x, np.arange(20) % 2, components_per_class=2),
    }
    assert found == pytest.approx(GOLDEN, rel=1e-6)


GOLDEN = {
    "LEEP": -1.071425445,
    "NCE": -0.939483747,
    "Dirichlet": -1.658669194,
    "Gamma": -1.900240737,
    "N-LEEP": -0.683086721,
    "PACTran-Dirichlet": -0.898443917,
    "PACTran-Gamma": -1.090320072,
}


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(1, 8),
    st.integers(2, 4),
    st.sampled_from([0.5, 3, 30]),
    st.integers(0, 10**6),
)
def test_names_and_order_of_samples_classes_and_source_labels_do_not_matter(n, z, c, sharpness, seed):
    rng = np.random.default_rng(seed)
    theta, y = source_predictions(n, z, sharpness, seed), np.r_[0, 1, rng.integers(0, c, n - 2)]
    order, names, source = rng.permutation(n), rng.permutation(c), rng.permutation(z)
    for score in (leep, nce, dirichlet_bound, gamma_bound):
        expected = pytest.approx(score(theta, y), rel=1e-6, abs=1e-6)
        assert score(theta[order], y[order]) == expected
        assert score(theta, 3 * names[y]) == expected
        assert score(theta[:, source], y) == expected
        assert score(np.c_[theta, np.zeros(n)], y) == expected
    # Splitting a source label in two equal halves adds nothing that LEEP could use.
    assert leep(np.c_[theta[:, :1] / 2, theta[:, :1] / 2, theta[:, 1:]], y) == pytest.approx(leep(theta, y))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 30), st.integers(1, 8), st.sampled_from([0.5, 3, 30]), st.integers(0, 10**6))
def test_scores_lie_between_minus_the_entropy_of_the_labels_and_zero(n, z, sharpness, seed):
    rng = np.random.default_rng(seed)
    theta, y = source_predictions(n, z, sharpness, seed), np.r_[0, 1, rng.integers(0, 3, n - 2)]
    shares = np.bincount(y)[np.bincount(y) > 0] / n
    lowest = float((shares * np.log(shares)).sum())
    assert lowest - 1e-9 <= leep(theta, y) <= 0
    assert lowest - 1e-9 <= nce(theta, y) <= 0
    # The logarithm is concave: with soft counts the conditional entropy is a bound of LEEP.
    joint = np.array([theta[y == c].sum(0) / n for c in set(y)])
    assert leep(theta, y) >= (joint * np.log(joint / joint.sum(0))).sum() - 1e-9
    assert dirichlet_bound(theta, y) <= 0 and gamma_bound(theta, y) <= 0


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(20, 60), st.integers(2, 40), st.integers(0, 10**6))
def test_clusters_do_not_see_order_rotation_scale_shift_or_class_names(n, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)) * np.linspace(1, 2, d), np.arange(n) % 2
    order = rng.permutation(n)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    for score in CLUSTERED:
        expected = pytest.approx(score(x, y, components_per_class=2), rel=1e-5, abs=1e-6)
        assert score(x[order], y[order], components_per_class=2) == expected
        assert score(1e-3 * (x @ turn) + 5, 1 - y, components_per_class=2) == expected


def test_the_mixture_is_shared_by_scores_and_let_go_with_the_features(monkeypatch):
    from sklearn.mixture import GaussianMixture

    x, y, calls = features_of("n > d"), LABELS["balanced"], []
    fit = GaussianMixture.fit
    count = lambda self, *a: calls.append(self.n_components) or fit(self, *a)  # noqa: E731
    monkeypatch.setattr(GaussianMixture, "fit", count)
    features = Features(x)
    together = [score(features, y, components_per_class=3) for score in CLUSTERED]
    assert calls == [6]
    n_leep(features, y, components_per_class=2)
    assert calls == [6, 4]
    assert together == [score(x, y, components_per_class=3) for score in CLUSTERED]
    held = len(assignments._posteriors)
    del features
    assert len(assignments._posteriors) < held


def test_options_of_the_mixture_do_what_they_say():
    x = np.random.default_rng(0).normal(size=(100, 5)) * [10, 1, 1, 1, 1]
    assert mixture_posterior(x, 7).shape == (100, 7)
    assert mixture_posterior(x, 50).shape == (100, 20)  # five samples to a component
    assert not np.allclose(mixture_posterior(x, 7), mixture_posterior(x, 7, random_state=1))
    first = mixture_posterior(x - x.mean(0), 7)
    second = x.copy()
    second[:, 1:] = np.random.default_rng(1).normal(size=(100, 4))  # 80 % of the energy is in the first
    assert np.corrcoef(first.argmax(1), mixture_posterior(second, 7).argmax(1))[0, 1] > 0.99
    for options, message in [
        ({"energy": 0}, "energy is 0; expected above 0 and up to 1"),
        ({"energy": 1.2}, "energy is 1.2; expected above 0 and up to 1"),
        ({"components_per_class": 0}, "components_per_class is 0; expected at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            n_leep(x, np.arange(100) % 2, **options)
    with pytest.raises(ValueError, match="concentration is 0; expected above 0"):
        pactran_gamma(x, np.arange(100) % 2, concentration=0)


def test_fewer_distinct_samples_than_components_raise_no_warning():
    x, y = np.repeat(np.eye(3), 20, axis=0), np.arange(60) % 2
    assert n_leep(x, y) == pytest.approx(np.log(0.5))
    assert n_leep(x, np.arange(60) // 20) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(pactran_dirichlet(x, y)) and np.isfinite(pactran_gamma(x, y))


@pytest.mark.parametrize("score", CLUSTERED)
def test_constant_features_and_few_samples_are_one_cluster(score):
    y = np.arange(30) % 2
    one = np.ones((30, 1))
    expected = {n_leep: leep, pactran_dirichlet: dirichlet_bound, pactran_gamma: gamma_bound}[score]
    for x in (np.full((30, 4), 0.1), np.zeros((30, 4)), np.full((30, 40), 1e6)):
        assert score(x, y) == expected(one, y)
    assert score(np.random.default_rng(0).normal(size=(9, 4)), y[:9]) == expected(one[:9], y[:9])
    assert n_leep(np.ones((30, 4)), y) == pytest.approx(-np.log(2))


@pytest.mark.parametrize("score", CLUSTERED)
def test_features_in_single_precision_and_tensors_give_the_same(score):
    x, y = features_of("n > d").astype(np.float32), LABELS["balanced"]
    expected = pytest.approx(score(x.astype(np.float64), y), rel=1e-6)
    assert score(x, y) == expected
    assert score(torch.tensor(x, requires_grad=True), torch.tensor(y)) == expected


@pytest.mark.parametrize("score", [leep, nce, dirichlet_bound, gamma_bound])
def test_probabilities_in_low_precision_and_tensors_give_the_same(score):
    theta, y = source_predictions(50, 200, 2), np.arange(50) % 3
    expected = score(theta, y)
    assert score(torch.tensor(theta, requires_grad=True), torch.tensor(y)) == expected
    assert score(theta.astype(np.float32), y) == pytest.approx(expected, rel=1e-5)
    for dtype in (torch.float16, torch.bfloat16):
        assert score(torch.tensor(theta, dtype=dtype), y) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    "bad, message",
    [
        ([[0.5, 0.5], [0.2, 0.9]], "row 1 adds up to 1.1; expected 0 or more, .* apply softmax first"),
        ([[0.5, 0.5], [1.5, -0.5]], "row 1, column 1 is -0.5; expected 0 or more, .* apply softmax first"),
        ([[0.5, 0.5], [np.nan, 1], [np.inf, 0]], "row 1, column 0 is nan; expected finite numbers"),
        ([[0.5, 0.5], [np.inf, -np.inf]], "row 1, column 0 is inf; expected finite numbers"),
        ([[1e308, 1e308], [0.5, 0.5]], "row 0 adds up to inf; expected"),
    ],
)
def test_what_are_no_probabilities_is_said_with_its_first_row(bad, message):
    with pytest.raises(ValueError, match=f"probabilities: {message}"):
        as_probabilities(bad)
    with pytest.raises(ValueError, match=f"probabilities: {message}"):
        leep(torch.tensor(bad, dtype=torch.float64), np.arange(len(bad)))


def test_shapes_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"probabilities have shape \(2,\); expected \(n, z\)"):
        as_probabilities([0.5, 0.5])
    with pytest.raises(ValueError, match=r"probabilities have shape \(2, 0\); expected \(n, z\)"):
        as_probabilities(np.zeros((2, 0)))
    with pytest.raises(ValueError, match=r"probabilities have 1 row\(s\); expected at least 2"):
        as_probabilities([[0.5, 0.5]])
    with pytest.raises(ValueError, match="probabilities hold complex128; expected real numbers"):
        as_probabilities([[0.5j, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="labels have 3 rows and probabilities 2; expected as many"):
        leep([[0.5, 0.5], [0.5, 0.5]], [0, 1, 1])
