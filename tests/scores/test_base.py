"""Checked features and labels, and the decomposition that the transferability scores share."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfergraph.scores.base import Features, Labels, as_features, as_labels

pytestmark = pytest.mark.filterwarnings("error")
SHAPES = {"n > d": (40, 9), "n = d": (12, 12), "n < d": (9, 40)}


def matrix(n, d, random_state=0):
    return np.random.default_rng(random_state).normal(2, 1, (n, d))


def rank_deficient(n=20, d=8, rank=3):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d)) + 5


@pytest.mark.parametrize(
    "kind", [np.asarray, torch.tensor, np.asfortranarray], ids=["array", "tensor", "fortran"]
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_decomposition_is_the_singular_value_decomposition_of_the_centred_features(shape, kind):
    x = matrix(*shape)
    labels = Labels(np.arange(shape[0]) % 3)
    features = Features(kind(x))
    u, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    rank = min(shape[0] - 1, shape[1])
    assert features.rank == rank
    np.testing.assert_allclose(features.spectrum, s[:rank] ** 2, rtol=1e-9)
    np.testing.assert_allclose(np.abs(features.axes), np.abs(vt[:rank].T), atol=1e-8)
    np.testing.assert_allclose(features.coordinates() @ features.axes.T + x.mean(0), x, atol=1e-9)
    np.testing.assert_allclose(features.coordinates(2), features.coordinates()[:, :2])
    np.testing.assert_allclose(
        np.abs(features.left(labels)), np.abs(u[:, :rank].T @ labels.targets), atol=1e-8
    )
    np.testing.assert_allclose(features.sums(labels), (x - x.mean(0)).T @ labels.targets, atol=1e-9)
    assert features.spread == pytest.approx(((x - x.mean(0)) ** 2).sum())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_many_small_blocks_give_what_one_block_gives(shape, monkeypatch):
    x = np.tile(matrix(*shape), (1, 20)) if shape[0] < shape[1] else np.tile(matrix(*shape), (20, 1))
    labels = Labels(np.arange(len(x)) % 4)
    whole = Features(x)
    whole.prepare(labels)
    expected = whole.gram, whole.sums(labels)
    monkeypatch.setattr("transfergraph.scores.base.BLOCK", 1)
    blocks = Features(x)
    assert len(list(blocks.row_blocks())) == -(-len(x) // 64)
    np.testing.assert_allclose(blocks.gram, expected[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(blocks.sums(labels), expected[1], atol=1e-9)
    np.testing.assert_allclose(np.diag(blocks.gram).sum(), whole.spread)


def test_preparing_gives_what_asking_one_by_one_gives():
    x, labels = matrix(50, 6), Labels(np.arange(50) % 3)
    prepared, plain = Features(x), Features(x)
    prepared.prepare(labels)
    np.testing.assert_allclose(prepared.gram, plain.gram, rtol=1e-12)
    np.testing.assert_allclose(prepared.sums(labels), plain.sums(labels), atol=1e-12)


def test_rank_is_found_behind_a_large_mean():
    assert Features(rank_deficient()).rank == 3
    assert Features(rank_deficient(8, 20)).rank == 3
    assert Features(rank_deficient() + 1e4).rank == 3


@pytest.mark.parametrize("n", [3, 1000, 100_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_feature_is_exactly_zero_when_centred(n, dtype):
    x = np.full((n, 2), 0.1, dtype)
    for features in Features(x), Features(torch.tensor(x)):
        assert not features.host(features.block()).any()
        assert features.rank == 0 and features.coordinates().shape == (n, 0)


def test_the_features_are_not_changed_and_single_precision_is_enough():
    x = matrix(60, 5).astype(np.float32)
    before = x.copy()
    features = Features(x)
    assert features.values is x and features.spectrum.dtype == np.float64
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(features.spectrum, Features(before.astype(np.float64)).spectrum, rtol=1e-12)
    half = Features(torch.tensor(x, dtype=torch.bfloat16))
    np.testing.assert_allclose(half.spectrum, features.spectrum, rtol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_rotating_and_shifting_features_changes_neither_spectrum_nor_labels_part(n, d, seed):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(n, d)), Labels(np.arange(n) % 2)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    a, b = Features(x), Features(x @ turn + rng.normal(size=d))
    np.testing.assert_allclose(a.spectrum, b.spectrum, rtol=1e-6)
    np.testing.assert_allclose(
        (a.left(labels) ** 2).sum(0), (b.left(labels) ** 2).sum(0), rtol=1e-6, atol=1e-9
    )


def test_a_checked_object_passes_through():
    features, labels = Features(matrix(4, 2)), Labels([0, 1, 0, 1])
    assert as_features(features) is features and as_labels(labels, 4) is labels


@pytest.mark.parametrize("kind", [np.array, torch.tensor], ids=["array", "tensor"])
@pytest.mark.parametrize(
    "features, message",
    [
        (
            [[0.0, 1.0], [2.0, np.nan], [np.nan, 0.0]],
            "features: row 1, column 1 is nan; finite numbers were expected",
        ),
        ([[0.0, 1.0], [-np.inf, 0.0]], "features: row 1, column 0 is -inf; finite numbers were expected"),
        ([0.0, 1.0], "features have shape (2,); expected (n, d) with d of at least 1"),
        ([[0.0, 1.0]], "features have 1 row(s); expected at least 2"),
        ([[], []], "features have shape (2, 0); expected (n, d) with d of at least 1"),
        ([[1j], [2j]], "features hold .*complex.*; expected a dense matrix of real numbers"),
    ],
)
def test_bad_features_are_refused_in_one_sentence(features, message, kind):
    with pytest.raises(ValueError, match=f"^{message.replace('(', '[(]').replace(')', '[)]')}$"):
        Features(kind(features))


def test_the_first_bad_row_is_found_in_a_later_block():
    x = np.zeros((5000, 2000), np.float32)
    x[4321, 7], x[4999, 0] = np.inf, np.nan
    with pytest.raises(ValueError, match="features: row 4321, column 7 is inf"):
        Features(x)


def test_text_features_are_refused():
    with pytest.raises(ValueError, match="features hold <U1; expected a dense matrix of real numbers"):
        Features(np.array([["a"], ["b"]]))


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 1, -1], "labels: row 2 is -1; classes are numbered from 0"),
        ([2, 2, 2], r"labels hold one class only \(2 in all 3 rows\); expected two or more"),
        ([0], r"labels have 1 row\(s\); expected at least 2"),
        ([0.5, np.nan], "labels: row 1 is nan; finite numbers were expected"),
        ([1.5, 1.5], "labels are the same in all 2 rows; expected at least two values"),
        ([[0, 1], [0, 2]], "labels: row 1, column 1 is 2; multi-label rows hold 0 and 1"),
        ([[0, 1], [0, 1]], "labels are the same in all 2 rows; expected at least two values"),
        ([[[0]], [[1]]], r"labels have shape \(2, 1, 1\); expected \(n,\) or \(n, c\)"),
        (["cat", "dog"], r"labels hold <U3; expected integers \(classes\) or real numbers"),
    ],
)
def test_bad_labels_are_refused_in_one_sentence(labels, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Labels(np.array(labels))


def test_labels_know_their_kind_and_leave_out_what_does_not_occur():
    classes = Labels(torch.tensor([5, 0, 5]))
    assert (classes.kind, classes.classes.tolist(), classes.codes.tolist()) == ("classes", [0, 5], [1, 0, 1])
    assert classes.targets.tolist() == [[0, 1], [1, 0], [0, 1]] and classes.squares.tolist() == [1, 2]
    multilabel = Labels(torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]))
    assert multilabel.kind == "multilabel" and multilabel.targets.tolist() == [[0, 1], [1, 0]]
    assert Labels(np.array([True, False])).kind == "classes"
    regression = Labels([[0.5, 1.0], [1.5, 3.0]])
    assert regression.kind == "regression" and regression.sums.tolist() == [2, 4]
    assert regression.squares.tolist() == [2.5, 10]


def test_labels_must_match_the_samples_and_the_score():
    with pytest.raises(ValueError, match="labels have 2 rows and features 3; expected as many"):
        as_labels([0, 1], 3)
    with pytest.raises(
        ValueError, match="labels are real numbers; this score is defined for integer classes"
    ):
        as_labels([0.5, 1.5], 2)


def test_a_column_whose_sum_overflows_is_named():
    values = np.ones((4, 3))
    values[:, 1] = [1.7e308, 1.6e308, 1.7e308, 1.7e308]
    with pytest.raises(ValueError, match="features: column 1 adds up to infinity; scale it"):
        Features(values)


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ([0, 1, 2], "regression", "regression"),
        ([True, False], "regression", "regression"),
        ([[0, 1], [1, 0]], "regression", "regression"),
        ([[0, 1], [1, 0]], None, "multilabel"),
        ([0.0, 2.0], "classes", "classes"),
    ],
)
def test_a_kind_that_is_said_is_the_kind(values, kind, found):
    assert Labels(np.array(values), kind=kind).kind == found


@pytest.mark.parametrize("values", [[0.5, 1.0], [[0, 1], [1, 0]], [[0.5], [1.0]], [1e20, 2e20]])
def test_what_is_no_class_is_refused_as_classes(values):
    with pytest.raises(ValueError, match=r"are no classes; expected \(n,\) whole numbers"):
        Labels(np.array(values), kind="classes")
    with pytest.raises(ValueError, match="kind is 'class'; expected 'classes', 'regression' or None"):
        Labels(np.array(values), kind="class")
