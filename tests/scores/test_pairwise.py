"""PARC, k-NN and MSC against definitions written with loops over pairs of samples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import silhouette_score

from transfergraph.scores import pairwise as neighbours
from transfergraph.scores.base import Features
from transfergraph.scores.pairwise import condensed, knn, msc, over_distances, parc

pytestmark = pytest.mark.filterwarnings("error")


def features_of(case):
    rng = np.random.default_rng(7)
    return {
        "n < d": lambda: rng.normal(1, 1, (15, 40)),
        "n = d": lambda: rng.normal(1, 1, (15, 15)),
        "n > d": lambda: rng.normal(1, 1, (40, 5)),
        "rank-deficient": lambda: rng.normal(size=(30, 2)) @ rng.normal(size=(2, 8)) + 3,
        "constant column": lambda: np.c_[rng.normal(size=(25, 4)), np.full(25, 0.1)],
        "repeated samples": lambda: np.repeat(rng.normal(size=(8, 6)), 3, axis=0),
        "grid": lambda: rng.integers(0, 3, (30, 4)).astype(float),
    }[case]()


CASES = ["n < d", "n = d", "n > d", "rank-deficient", "constant column", "repeated samples", "grid"]


def uneven_labels(n):
    "Classes of very different size, the last with one sample."
    labels = np.random.default_rng(8).choice([0, 0, 0, 1, 1, 2], n)
    labels[:3], labels[-1] = (0, 1, 2), 3
    return labels


def slow_pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return 0.0 if size < 1e-12 else (a * b).sum() / size


def slow_parc(x, rows):
    deviation = x.std(axis=0)
    z = np.array([[(v - m) / s if s > 1e-12 else 0 for v, m, s in zip(r, x.mean(0), deviation)] for r in x])
    pairs = [(i, j) for i in range(len(x)) for j in range(i + 1, len(x))]
    a = [round(1 - slow_pearson(z[i], z[j]), 10) for i, j in pairs]
    b = [round(1 - slow_pearson(rows[i], rows[j]), 10) for i, j in pairs]
    return spearmanr(a, b).statistic


@pytest.mark.parametrize("tile", [7, 1024])
@pytest.mark.parametrize("case", CASES)
def test_parc_is_spearmans_correlation_over_all_pairs(case, tile, monkeypatch):
    monkeypatch.setattr(neighbours, "TILE", tile)
    x = features_of(case)
    labels = uneven_labels(len(x))
    assert parc(x, labels) == pytest.approx(slow_parc(x, np.eye(4)[labels]), rel=1e-6, abs=1e-9)
    table = np.random.default_rng(9).integers(0, 2, (len(x), 4))
    assert parc(x, table) == pytest.approx(slow_parc(x, table.astype(float)), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("case", ["n < d", "n > d", "grid"])
def test_parc_of_real_numbers_takes_their_distance(case):
    x = features_of(case)
    y = x @ np.arange(x.shape[1]) + 0.5
    z = Features(x).block() / np.where(x.std(0) > 0, x.std(0), 1)
    upper = np.triu_indices(len(x), 1)
    by_numpy = np.round(1 - np.corrcoef(z), 10)[upper], np.round(abs(y[:, None] - y), 10)[upper]
    assert parc(x, y) == pytest.approx(spearmanr(*by_numpy).statistic, rel=1e-6)
    assert parc(x, np.c_[y, y]) == pytest.approx(parc(x, y), rel=1e-6)


@pytest.mark.parametrize("n", [2, 7, 8, 30])
def test_the_tiles_cover_each_pair_once(n, monkeypatch):
    monkeypatch.setattr(neighbours, "TILE", 7)
    matrix = np.arange(n * n, dtype=float).reshape(n, n)
    vector = condensed(n, lambda rows, columns: matrix[rows, columns])
    assert sorted(vector) == sorted(matrix[np.triu_indices(n, 1)])


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["array", "tensor"])
@pytest.mark.parametrize("case", CASES)
def test_distances_are_euclidean_and_zero_for_equal_samples(case, kind, monkeypatch):
    x = features_of(case)
    monkeypatch.setattr("transfergraph.scores.base.BLOCK", 1)
    reader = (lambda rows, columns, block: block), (lambda left, right: np.hstack([left, right]))
    [found] = over_distances(Features(kind(np.tile(x, (5, 1)))), reader)
    found = np.vstack([block for _, block in found])
    expected = ((np.tile(x, (5, 1))[:, None] - np.tile(x, (5, 1))) ** 2).sum(-1)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert (found[expected == 0] == 0).all()


def slow_knn(x, labels, k):
    "Predictions: of equally far samples the earlier, of equally frequent classes the lower."
    predicted = []
    for i in range(len(x)):
        far = [(round(float(((x[i] - x[j]) ** 2).sum()), 9), j) for j in range(len(x)) if j != i]
        votes = np.bincount([labels[j] for _, j in sorted(far)[:k]], minlength=labels.max() + 1)
        predicted.append(votes.argmax())
    return np.array(predicted)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("case", CASES)
def test_knn_is_leave_one_out_accuracy(case, k):
    x = features_of(case)
    labels = uneven_labels(len(x))
    assert knn(x, labels, k=k) == (slow_knn(x, labels, k) == labels).mean()


@pytest.mark.parametrize("k", [1, 3])
def test_knn_of_real_numbers_and_of_several_labels(k):
    x = features_of("n > d")
    y = np.c_[x @ np.arange(5.0), np.random.default_rng(1).normal(size=40)]
    nearest = np.argsort(((x[:, None] - x) ** 2).sum(-1) + np.diag(np.full(40, np.inf)), axis=1)[:, :k]
    guess = np.array([[np.mean([y[j, c] for j in nearest[i]]) for c in range(2)] for i in range(40)])
    expected = np.mean(
        [1 - ((y[:, c] - guess[:, c]) ** 2).sum() / ((y[:, c] - y[:, c].mean()) ** 2).sum() for c in (0, 1)]
    )
    assert knn(x, y, k=k) == pytest.approx(expected)
    table = (y > 0).astype(int)
    vote = np.array([[sum(table[j, c] for j in nearest[i]) > k / 2 for c in range(2)] for i in range(40)])
    assert knn(x, table, k=k) == pytest.approx((vote == table).mean())


@pytest.mark.parametrize("k", [0, 40, -1])
def test_knn_refuses_a_number_of_neighbours_that_there_is_not(k):
    with pytest.raises(ValueError, match=f"^k is {k}; expected 1 to 39, one less than there are samples$"):
        knn(features_of("n > d"), np.arange(40) % 2, k=k)


@pytest.mark.parametrize("case", CASES)
def test_msc_is_the_mean_silhouette(case):
    x = features_of(case)
    labels = uneven_labels(len(x))

    def silhouette(i):
        distance = np.sqrt(((x - x[i]) ** 2).sum(1))
        own = (labels == labels[i]) & (np.arange(len(x)) != i)
        if not own.any():
            return 0.0
        a = distance[own].mean()
        b = min(distance[labels == c].mean() for c in set(labels) - {labels[i]})
        return (b - a) / max(a, b) if max(a, b) > 0 else 0.0

    assert msc(x, labels) == pytest.approx(np.mean([silhouette(i) for i in range(len(x))]), rel=1e-6)
    assert msc(x, labels) == pytest.approx(silhouette_score(x, labels), rel=1e-5)


def test_golden_values():
    # From the slow definitions above on these inputs.
    x, labels = np.sin(np.arange(60.0)).reshape(15, 4), np.arange(15) % 3
    found = [parc(x, labels), knn(x, labels), knn(x, labels, k=3), msc(x, labels)]
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-6)


GOLDEN = [0.3456894697, 7 / 15, 9 / 15, 0.0800367571]


@settings(max_examples=20, deadline=None)
@given(st.integers(6, 40), st.integers(2, 30), st.integers(0, 10**6))
def test_what_does_not_change_a_score(n, d, seed):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(n, d)), np.arange(n) % 3
    order, names = rng.permutation(n), rng.permutation(3)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    shift, stretch = rng.normal(size=d), rng.uniform(0.1, 10, d)
    close = dict(rel=1e-6, abs=1e-6)
    for score in (parc, msc, knn):
        value = pytest.approx(score(x, labels), **close)
        assert score(x[order], labels[order]) == value
        assert score(7 * x + shift, labels) == value
        assert score(x, names[labels] * 3) == value
    assert parc(x * stretch, labels) == pytest.approx(parc(x, labels), **close)
    assert msc(x @ turn, labels) == pytest.approx(msc(x, labels), **close)
    assert knn(x @ turn, labels) == pytest.approx(knn(x, labels), **close)


def test_constant_features_know_nothing():
    x, labels = np.full((12, 3), 0.1, np.float32), np.arange(12) % 3
    assert parc(x, labels) == 0 and msc(x, labels) == 0
    assert parc(x, labels + 0.5) == 0
    assert (
        knn(x, labels) == (labels[1:] == 0).sum() / 12
    )  # everybody's neighbour is the first row, of class 0


def test_labels_that_are_all_different_have_no_pairs_to_compare():
    assert parc(features_of("n > d"), np.arange(40)) == 0


@pytest.mark.parametrize("scale", [1e-14, 1e14])
def test_the_scale_of_features_and_labels_does_not_matter(scale):
    x, labels = features_of("n > d"), np.arange(40) % 3
    y = x @ np.arange(5.0) + 0.5
    for score in (parc, knn, msc):
        assert score(scale * x, labels) == pytest.approx(score(x, labels), rel=1e-9)
    assert parc(x, scale * y) == pytest.approx(parc(x, y), rel=1e-9)


def test_one_sample_far_away_does_not_make_the_others_tie():
    x, labels = features_of("n > d"), np.arange(40) % 3
    x[17, 0] += 1e7
    assert knn(x, labels) == (slow_knn(x, labels, 1) == labels).mean()
