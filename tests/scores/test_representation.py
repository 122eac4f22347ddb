"""Scores that compare two models against definitions written with loops and full matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes as scipy_procrustes
from scipy.stats import spearmanr

from transfergraph.scores import pairwise as neighbours
from transfergraph.scores.representation import _DDS_FORMS, REFERENCE, dds, dse, procrustes, rsa

pytestmark = pytest.mark.filterwarnings("error")


def pair_of(case):
    rng = np.random.default_rng(11)
    n, d, other = {
        "n > d": (40, 6, 9),
        "n < d": (12, 30, 20),
        "between": (15, 6, 30),
        "n = d": (15, 15, 15),
        "rank-deficient": (20, 6, 6),
        "constant column": (20, 5, 5),
    }[case]
    x = rng.normal(1, 1, (n, d))
    reference = x @ rng.normal(size=(d, other)) + 2 * rng.normal(size=(n, other))
    if case == "rank-deficient":
        x, reference = x[:, :2] @ rng.normal(size=(2, d)), reference[:, :3] @ rng.normal(size=(3, other))
    if case == "constant column":
        x[:, 2] = 0.1
    return x, reference


CASES = ["n > d", "n < d", "between", "n = d", "rank-deficient", "constant column"]


def standardised(x):
    deviation = x.std(0)
    return np.where(deviation > 1e-12, (x - x.mean(0)) / np.where(deviation > 1e-12, deviation, 1), 0)


def distance(u, v, form):
    if form == "Euclidean":
        return np.sqrt(((u - v) ** 2).sum())
    if form == "Pearson":
        u, v = u - u.mean(), v - v.mean()
    return 1 - (u * v).sum() / np.sqrt((u**2).sum() * (v**2).sum())


def matrix(x, form):
    "All distances, one by one."
    return np.array(
        [[0 if i == j else distance(u, v, form) for j, v in enumerate(x)] for i, u in enumerate(x)]
    )


def slow_dds(x, reference, form):
    n = len(x)
    h = np.eye(n) - 1 / n
    if form == "CKA":
        k, m = x @ x.T, reference @ reference.T
    else:
        k, m = (matrix(standardised(y), form) for y in (x, reference))
    k, m = h @ k @ h, h @ m @ h
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


@pytest.mark.parametrize("tile", [7, 1024])
@pytest.mark.parametrize("form", _DDS_FORMS)
@pytest.mark.parametrize("case", CASES)
def test_dds_is_the_cosine_of_doubly_centred_matrices(case, form, tile, monkeypatch):
    monkeypatch.setattr(neighbours, "TILE", tile)
    x, reference = pair_of(case)
    assert dds(x, reference, form=form) == pytest.approx(slow_dds(x, reference, form), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("tile", [7, 1024])
@pytest.mark.parametrize("case", CASES)
def test_rsa_is_spearmans_correlation_of_dissimilarities(case, tile, monkeypatch):
    monkeypatch.setattr(neighbours, "TILE", tile)
    x, reference = pair_of(case)
    upper = np.triu_indices(len(x), 1)
    a, b = (np.round(matrix(y, "Pearson")[upper], 10) for y in (x, reference))
    assert rsa(x, reference) == pytest.approx(spearmanr(a, b).statistic, rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_procrustes_is_one_minus_the_disparity_after_alignment(case):
    x, reference = pair_of(case)
    width = max(x.shape[1], reference.shape[1])
    padded = [np.pad(y, ((0, 0), (0, width - y.shape[1]))) for y in (x, reference)]
    assert procrustes(x, reference) == pytest.approx(1 - scipy_procrustes(*padded)[2], rel=1e-6)


@pytest.mark.parametrize("case", ["n = d", "rank-deficient", "constant column"])
def test_the_rotation_form_is_the_distance_of_the_best_rotation_from_the_identity(case):
    x, reference = pair_of(case)
    if case == "rank-deficient":  # then the best rotation is not unique
        x, reference = x + np.eye(*x.shape), reference + np.eye(*reference.shape)[::-1]
    turn, _ = orthogonal_procrustes(x, reference)
    expected = -np.sqrt(((turn - np.eye(len(turn))) ** 2).sum())
    assert procrustes(x, reference, form="rotation") == pytest.approx(expected, rel=1e-6)


def test_a_model_aligned_with_itself_is_always_the_same_and_says_nothing():
    for case in CASES:
        x, _ = pair_of(case)
        assert (
            procrustes(x, x) == pytest.approx(1)
            and dds(x, x) == pytest.approx(1)
            and rsa(x, x) == pytest.approx(1)
        )


@pytest.mark.parametrize("case", ["n = d", "rank-deficient", "constant column"])
def test_dse_is_a_mean_of_cosines_or_the_cosine_of_means(case):
    x, reference = pair_of(case)
    cosines = [u @ v / np.sqrt((u @ u) * (v @ v)) for u, v in zip(x, reference, strict=True)]
    assert dse(x, reference) == pytest.approx(sum(cosines) / len(cosines), rel=1e-9)
    u, v = sum(x) / len(x), sum(reference) / len(x)
    assert dse(x, reference, form="mean") == pytest.approx(u @ v / np.sqrt((u @ u) * (v @ v)), rel=1e-9)


def test_golden_values():
    # From the slow definitions above on these inputs, DSE and PA from their formulas in NumPy.
    x, reference = np.sin(np.arange(40.0) ** 1.5).reshape(10, 4), np.cos(np.arange(40.0) ** 2).reshape(10, 4)
    found = [REFERENCE[name](x, reference) for name in REFERENCE]
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-6)


GOLDEN = [
    0.2227931489,
    0.4578953826,
    0.4808191962,
    0.6611336313,
    0.4793930331,
    -0.1044095177,
    0.4440081614,
    -3.1030470073,
]


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 30), st.integers(3, 30), st.integers(3, 30), st.integers(0, 10**6))
def test_what_does_not_change_a_score(n, d, other, seed):
    rng = np.random.default_rng(seed)
    x, reference = rng.normal(size=(n, d)), rng.normal(size=(n, other))
    order = rng.permutation(n)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    shift, stretch = rng.normal(size=d), rng.uniform(0.1, 10, d)
    close = dict(rel=1e-6, abs=1e-6)
    for score in (rsa, dds, procrustes, *(REFERENCE[f"DDS-{form}"] for form in _DDS_FORMS[1:])):
        value = pytest.approx(score(x, reference), **close)
        assert score(x[order], reference[order]) == value
        assert score(5 * x, reference) == value
        assert score(reference, x) == value
    for score in (dds, procrustes):
        assert score(x @ turn + shift, reference) == pytest.approx(score(x, reference), **close)
    for form in _DDS_FORMS[1:]:
        assert dds(x * stretch + shift, reference, form=form) == pytest.approx(
            dds(x, reference, form=form), **close
        )
    assert rsa(x + 3, reference) == pytest.approx(rsa(x, reference), **close)
    if d == other:
        assert dse(x[order], reference[order]) == pytest.approx(dse(x, reference), **close)
        assert dse(x @ turn, reference @ turn) == pytest.approx(dse(x, reference), **close)


@pytest.mark.parametrize("name", REFERENCE)
def test_tensors_and_a_mixture_with_arrays_give_the_same(name):
    x, reference = pair_of("n = d")
    value = pytest.approx(REFERENCE[name](x, reference), rel=1e-6)
    assert REFERENCE[name](torch.tensor(x), torch.tensor(reference)) == value
    assert REFERENCE[name](torch.tensor(x), reference) == value
    assert REFERENCE[name](x, torch.tensor(reference)) == value


def test_constant_features_resemble_nothing():
    constant, (_, reference) = np.full((20, 6), 0.1, np.float32), pair_of("rank-deficient")
    for name in ("RSA", "DDS", "DDS-Pearson", "DDS-Euclidean", "DDS-cosine", "PA"):
        assert REFERENCE[name](constant, reference) == REFERENCE[name](reference, constant) == 0
    assert dse(np.zeros((20, 6)), reference) == dse(np.zeros((20, 6)), reference, form="mean") == 0


def test_other_samples_widths_and_forms_are_refused():
    x, reference = pair_of("n > d")
    with pytest.raises(ValueError, match="features have 40 rows and reference 39; expected the same samples"):
        rsa(x, reference[1:])
    with pytest.raises(ValueError, match="features have 6 columns and reference 9; expected as many"):
        dse(x, reference)
    with pytest.raises(ValueError, match="features have 6 columns and reference 9; a rotation is"):
        procrustes(x, reference, form="rotation")
    with pytest.raises(ValueError, match="form is 'rbf'; expected one of CKA, Pearson, Euclidean, cosine"):
        dds(x, reference, form="rbf")
    with pytest.raises(ValueError, match="form is 'x'; expected samples or mean"):
        dse(x, x, form="x")
    with pytest.raises(ValueError, match="form is 'x'; expected similarity or rotation"):
        procrustes(x, x, form="x")
    reference[3, 1] = np.nan
    with pytest.raises(ValueError, match="reference: row 3, column 1 is nan"):
        rsa(x, reference)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_dse_does_not_see_the_length_of_rows(scale):
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(20, 6)), rng.normal(size=(20, 6))
    assert dse(a * scale, b) == pytest.approx(dse(a, b), rel=1e-12)
