"""Walks against the published transition probabilities, and learners against themselves."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfergraph.graph import embedding as learners
from transfergraph.graph.build import build_graph
from transfergraph.graph.embedding import GRAPH_EMBEDDERS, Node2Vec, random_walks, step_weights, to_csr


def slow_step(weights, previous, current, p, q, plus):
    "Transition probabilities from the definitions, on a dense matrix; None where there is no way out."
    n = len(weights)
    mean = [weights[u][weights[u] > 0].mean() if (weights[u] > 0).any() else 0.0 for u in range(n)]
    out = np.zeros(n)
    for x in range(n):
        w = weights[current, x]
        if w == 0:
            continue
        alpha = 1.0
        if previous is not None:
            if x == previous:
                alpha = 1 / p
            elif plus:  # Liu et al., 2023, equation 4
                back, threshold = weights[previous, x], mean[x]
                if back >= threshold:
                    alpha = 1.0
                elif w < mean[current]:
                    alpha = min(1.0, 1 / q)
                else:
                    alpha = 1 / q + (1 - 1 / q) * back / threshold
            else:  # Grover and Leskovec, 2016, equation 2
                alpha = 1.0 if weights[previous, x] > 0 else 1 / q
        out[x] = alpha * w
    return out / out.sum() if out.sum() else None


@st.composite
def graphs(draw):
    n = draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    weights = rng.uniform(0.05, 1, (n, n)) * (rng.random((n, n)) < draw(st.floats(0.2, 1)))
    if draw(st.booleans()):
        weights = (weights + weights.T) / 2
    if draw(st.booleans()):
        weights = (weights > 0).astype(float)
    np.fill_diagonal(weights, 0)
    return weights


@settings(max_examples=200, deadline=None)
@given(graphs(), st.floats(0.1, 8), st.floats(0.1, 8), st.booleans())
def test_transition_probabilities_are_the_published_ones(weights, p, q, plus):
    n = len(weights)
    index = np.stack(np.nonzero(weights))
    indptr, indices, w = to_csr(index, weights[tuple(index)], n)
    degree = np.diff(indptr)
    means = np.bincount(np.repeat(np.arange(n), degree), w, n) / np.maximum(degree, 1)
    for previous in [None, *range(n)]:
        for current in range(n):
            if previous is not None and weights[previous, current] == 0:
                continue
            expected = slow_step(weights, previous, current, p, q, plus)
            out = np.zeros(max(1, degree.max()))
            step_weights(
                indptr, indices, w, means, -1 if previous is None else previous, current, p, q, plus, out
            )
            found = np.zeros(n)
            found[indices[indptr[current] : indptr[current + 1]]] = out[: degree[current]]
            if expected is None:
                assert found.sum() == 0
            else:
                np.testing.assert_allclose(found / found.sum(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.25, 4), (4, 0.25)])
def test_walks_follow_the_probabilities(p, q, plus):
    rng = np.random.default_rng(5)
    weights = rng.uniform(0.05, 1, (6, 6)) * (rng.random((6, 6)) < 0.7)
    np.fill_diagonal(weights, 0)
    index = np.stack(np.nonzero(weights))
    csr = to_csr(index, weights[tuple(index)], 6)
    walks = random_walks(csr, np.repeat(np.arange(6), 30_000), 4, rng, p, q, plus)
    for previous, current in zip(*np.nonzero(weights), strict=True):
        expected = slow_step(weights, previous, current, p, q, plus)
        if expected is None:
            continue
        steps = np.concatenate([walks[:, 0:3], walks[:, 1:4]])
        taken = steps[(steps[:, 0] == previous) & (steps[:, 1] == current)][:, 2]
        if len(taken) < 3000:
            continue
        found = np.bincount(taken, minlength=6) / len(taken)
        assert np.abs(found - expected).max() < 5 * np.sqrt(0.25 / len(taken))


@settings(max_examples=50, deadline=None)
@given(graphs(), st.floats(0.1, 8), st.floats(0.1, 8), st.booleans(), st.integers(0, 10**6))
def test_compiled_walks_are_those_of_the_same_code_in_python(weights, p, q, plus, seed):
    n, rng = len(weights), np.random.default_rng(seed)
    index = np.stack(np.nonzero(weights))
    csr = to_csr(index, weights[tuple(index)], n)
    starts, draws = rng.integers(0, n, 9), rng.random((9, 5))
    means = rng.random(n)
    for function, more in ((learners._walk_first_order, ()), (learners._walk, (p, q, plus))):
        given = (*csr, *((means,) if more else ()), starts, draws, *more)
        assert np.array_equal(function(*given), function.py_func(*given))
    for previous, current in [(-1, 0), *zip(*index)]:
        out = np.zeros((2, n))
        for row, function in zip(out, (step_weights, step_weights.py_func)):
            function(*csr, means, previous, current, p, q, plus, row)
        assert np.allclose(out[0], out[1], rtol=1e-12, atol=0)
        back = [f(*csr, current, previous) for f in (learners._weight_of, learners._weight_of.py_func)]
        assert back[0] == back[1] == weights[current, previous] or previous < 0


@pytest.mark.parametrize("positive", [True, False])
def test_a_compiled_step_is_that_of_the_same_code_in_python_and_of_torch(positive):
    import torch

    rng = np.random.default_rng(1)
    z = rng.normal(size=(7, 5)).astype(np.float32)
    windows = np.stack([rng.choice(6, 4, replace=False) for _ in range(11)])  # the last node is in none
    found = []
    for step, adam in (
        (learners.window_gradient, learners._adam),
        (learners.window_gradient.py_func, learners._adam.py_func),
    ):
        moved, m, s = z.copy(), np.zeros_like(z), np.zeros_like(z)
        losses, gradient = [], np.zeros_like(z)
        for t in (1, 2, 3):
            losses.append(step(moved, windows, positive, gradient))
            adam(moved, gradient, m, s, t, 0.01)
            assert not gradient.any()
        found.append((losses, moved))
    vectors = torch.nn.Embedding(7, 5, sparse=True)
    vectors.weight.data = torch.tensor(z)
    optimiser, losses = torch.optim.SparseAdam(vectors.parameters(), lr=0.01), []
    for _ in range(3):
        x = (vectors(torch.tensor(windows[:, :1])) * vectors(torch.tensor(windows[:, 1:]))).sum(2)
        loss = torch.nn.functional.softplus(-x if positive else x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    found.append((losses, vectors.weight.detach().numpy()))
    for losses, moved in found[1:]:
        assert np.allclose(losses, found[0][0], rtol=1e-5) and np.allclose(moved, found[0][1], atol=1e-5)
    assert np.array_equal(found[0][1][6], z[6])


def test_walks_stay_where_there_is_no_way_out():
    csr = to_csr(np.array([[0], [1]]), np.array([1.0]), 3)
    walks = random_walks(csr, np.array([0, 1, 2]), 4, np.random.default_rng(0), p=2)
    assert walks.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1], [2, 2, 2, 2]]


def test_parallel_edges_keep_the_largest_weight():
    indptr, indices, weights = to_csr(np.array([[0, 0, 1], [1, 1, 0]]), np.array([0.2, 0.7, 0.5]), 2)
    assert indptr.tolist() == [0, 1, 2] and indices.tolist() == [1, 0] and weights.tolist() == [0.7, 0.5]


def image_graph(paper):
    from transfergraph.zoo.paper import read_paper

    return build_graph(read_paper(paper, "image")[0], "pets")


@pytest.mark.parametrize("name", GRAPH_EMBEDDERS)
def test_learners_on_the_published_graph(paper, name):
    graph = image_graph(paper)
    one, two = (GRAPH_EMBEDDERS[name](random_state=3).fit_transform(graph) for _ in range(2))
    assert one.models.equals(two.models) and one.datasets.equals(two.datasets)
    assert one.models.shape == (185, 128) and one.datasets.shape == (78, 128)
    assert np.isfinite(one.models.to_numpy()).all() and one.models.index.tolist() == graph["model"].name
    other = GRAPH_EMBEDDERS[name](random_state=4).fit_transform(graph)
    assert not np.allclose(one.models, other.models)
    edges = graph["model", "finetuned_on", "dataset"]
    z, d = one.models.to_numpy(), one.datasets.to_numpy()
    score = (z[edges.edge_label_index[0]] * d[edges.edge_label_index[1]]).sum(1)
    good = edges.edge_label.numpy() == 1
    assert score[good].mean() > score[~good].mean()  # edges are told from negative pairs


@pytest.mark.slow
def test_a_learner_does_not_depend_on_the_hash_seed():
    code = (
        "import numpy as np; from transfergraph.graph.embedding import *; "
        "from torch_geometric.data import HeteroData; import torch; "
        "g = HeteroData(); g['model'].name = list('abcd'); g['dataset'].name = list('xy'); "
        "s = g['model', 'finetuned_on', 'dataset']; "
        "s.edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]]); s.edge_weight = torch.ones(3); "
        "s.edge_label_index = torch.tensor([[0, 3], [0, 1]]); s.edge_label = torch.tensor([1.0, 0.0]); "
        "print(Node2Vec(epochs=3).fit_transform(g).models.to_numpy().tobytes().hex()[:64])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and len(runs[0]) == 65


def test_wrong_settings_are_refused(paper):
    graph = image_graph(paper)
    with pytest.raises(ValueError, match="context_size is 20"):
        Node2Vec(context_size=20).fit_transform(graph)
    with pytest.raises(ValueError, match="model_features is 'name'"):
        GRAPH_EMBEDDERS["SAGE"](model_features="name").fit_transform(graph)
    from transfergraph.zoo.paper import read_paper

    bare = build_graph(read_paper(paper, "image")[0], "pets", edges=("similar_to",))
    with pytest.raises(ValueError, match="no 'finetuned_on' edges"):
        GRAPH_EMBEDDERS["GAT"]().fit_transform(bare)
    assert Node2Vec(epochs=1).fit_transform(bare).models.shape == (185, 128)
