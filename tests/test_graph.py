"""Graph building: nothing of the target's fine-tuning results gets in, whatever the options."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfergraph.graph import EDGES, build_graph, classical_scaling, finetuned_on, similar_to, thin_history
from transfergraph.zoo import Zoo, hide_target


@st.composite
def zoos(draw, min_records=0):
    "A random zoo of one modality with at least one target."
    n_models, n_datasets = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    models, datasets = [f"m{i}" for i in range(n_models)], [f"d{i}" for i in range(n_datasets)]
    some = st.sampled_from(datasets)
    pairs = [(m, d) for m in models for d in datasets]
    unit = st.floats(0, 1)
    records = draw(st.lists(st.tuples(st.sampled_from(pairs), unit), min_size=min_records, max_size=20))
    scores = draw(
        st.lists(st.tuples(st.sampled_from(pairs), st.floats(-5, 5)), max_size=10, unique_by=lambda s: s[0])
    )
    known = draw(st.lists(st.integers(0, 100), min_size=n_datasets, max_size=n_datasets))
    i, j = np.triu_indices(n_datasets, 1)
    keep = [k for k in range(len(i)) if draw(st.booleans())]
    return Zoo(
        models=pd.DataFrame(
            {
                "model": models,
                "modality": "image",
                "family": draw(
                    st.lists(st.sampled_from(["vit", "swin", None]), min_size=n_models, max_size=n_models)
                ),
                "pretrained_on": draw(st.lists(st.none() | some, min_size=n_models, max_size=n_models)),
                "pretrained_accuracy": draw(st.lists(st.none() | unit, min_size=n_models, max_size=n_models)),
                "n_params": draw(
                    st.lists(st.none() | st.floats(0, 1e9), min_size=n_models, max_size=n_models)
                ),
            }
        ),
        datasets=pd.DataFrame({"dataset": datasets, "modality": "image", "role": "target", "n_samples": 10}),
        records=pd.DataFrame(
            {
                "model": [m for (m, _), _ in records],
                "dataset": [d for (_, d), _ in records],
                "accuracy": [a for _, a in records],
                "runtime_s": 1.0,
            }
        ),
        scores=pd.DataFrame(
            {
                "model": [m for (m, _), _ in scores],
                "dataset": [d for (_, d), _ in scores],
                "metric": "LogME",
                "score": [s for _, s in scores],
            }
        ),
        distances=pd.DataFrame(
            {
                "dataset": [datasets[i[k]] for k in keep],
                "other": [datasets[j[k]] for k in keep],
                "distance": [abs(known[i[k]] - known[j[k]]) for k in keep],
            }
        ),
    ).validate()


options = st.fixed_dictionaries(
    {},
    optional={
        "edges": st.lists(st.sampled_from(EDGES), unique=True).map(tuple),
        "accuracy_threshold": st.floats(-0.5, 1.5),
        "score_threshold": st.floats(-3, 3),
        "similarity_threshold": st.floats(-0.5, 1),
        "history_ratio": st.floats(0.01, 1),
        "model_ratio": st.floats(0.01, 1),
        "quality": st.none() | st.just(("ok",)),
        "random_state": st.integers(0, 3),
    },
)


@settings(max_examples=150, deadline=None)
@given(zoos(), options, st.data())
def test_no_finetuning_edge_or_label_of_the_target(zoo, options, data):
    target = data.draw(st.sampled_from(zoo.targets))
    graph = build_graph(zoo, target, **options)
    at = graph["dataset"].name.index(target)
    kind = ("model", "finetuned_on", "dataset")
    if kind in graph.edge_types:
        assert at not in graph[kind].edge_index[1] and at not in graph[kind].edge_label_index[1]
    graph.validate()


@settings(max_examples=60, deadline=None)
@given(zoos(min_records=1), options, st.data())
def test_the_targets_accuracies_change_nothing(zoo, options, data):
    target = data.draw(st.sampled_from(zoo.targets))
    other = zoo.records["accuracy"].where(zoo.records["dataset"] != target, 0.5)
    changed = Zoo(**{**vars(zoo), "records": zoo.records.assign(accuracy=other)})
    one, two = build_graph(zoo, target, **options), build_graph(changed, target, **options)
    assert one.edge_types == two.edge_types
    for store, same in zip(one.stores, two.stores, strict=True):
        for key, value in store.items():
            assert value.equal(same[key]) if hasattr(value, "equal") else value == same[key], key


@settings(max_examples=60, deadline=None)
@given(zoos(), st.floats(-0.5, 1.5))
def test_every_known_pair_is_an_edge_or_a_negative(zoo, threshold):
    positive, negative = finetuned_on(zoo, threshold)
    assert (positive["weight"] > threshold).all() and (negative["weight"] <= threshold).all()
    spread = zoo.records.groupby(["dataset", "model"])["accuracy"].mean().groupby("dataset")
    spread = spread.max() > spread.min()
    pairs = zoo.records[["model", "dataset"]].drop_duplicates()
    assert len(positive) + len(negative) == pairs["dataset"].isin(spread.index[spread]).sum()


@settings(max_examples=60, deadline=None)
@given(zoos())
def test_similarity_is_symmetric_and_between_0_and_1(zoo):
    edges = similar_to(zoo)
    assert edges["weight"].between(0, 1).all() and (edges["dataset"] != edges["other"]).all()
    forth = edges.set_index(["dataset", "other"])["weight"]
    back = edges.set_index(["other", "dataset"])["weight"]
    assert forth.index.is_unique and forth.sort_index().equals(
        back.sort_index().rename_axis(["dataset", "other"])
    )


def test_history_is_thinned_without_a_look_at_the_target():
    rng = np.random.default_rng(0)
    rows = [(f"m{i}", f"d{j}", rng.random()) for i in range(20) for j in range(5)]
    zoo = Zoo(
        models=pd.DataFrame({"model": [f"m{i}" for i in range(20)], "modality": "image"}),
        datasets=pd.DataFrame(
            {"dataset": [f"d{j}" for j in range(5)], "modality": "image", "role": "target"}
        ),
        records=pd.DataFrame(rows, columns=["model", "dataset", "accuracy"]),
    ).validate()
    hidden = hide_target(zoo, "d0")
    assert len(thin_history(hidden, 0.3, random_state=1).records) == 24
    fewer = thin_history(hidden, model_ratio=0.5, random_state=1).records
    assert fewer["model"].nunique() == 10 and len(fewer) == 40
    assert thin_history(hidden, 0.3, random_state=1).records.equals(
        thin_history(hidden, 0.3, random_state=1).records
    )
    assert not thin_history(hidden, 0.3, random_state=1).records.equals(thin_history(hidden, 0.3).records)
    with pytest.raises(ValueError, match=r"history_ratio is 1\.5"):
        thin_history(hidden, 1.5)


def test_scaling_gives_euclidean_distances_back(paper):
    from transfergraph.paper import read_paper
    from transfergraph.zoo import distance_matrix

    matrix = distance_matrix(read_paper(paper, "image")[0]).to_numpy()
    x = classical_scaling(matrix)
    found = np.linalg.norm(x[:, None] - x[None], axis=-1)
    assert np.abs(found - matrix).max() < 1e-3 * matrix.max()
    assert np.isfinite(classical_scaling(np.array([[0, np.nan], [np.nan, 0]]))).all()


def test_the_published_graph(paper):
    from transfergraph.paper import read_paper

    zoo, _ = read_paper(paper, "image")
    graph = build_graph(zoo, "pets", edges=EDGES)
    assert len(graph["model"].name) == 185 and len(graph["dataset"].name) == 78
    labels = graph["model", "finetuned_on", "dataset"].edge_label
    assert len(labels) == 2254 - 112 - 180 and 0.9 < labels.mean() < 1
    assert graph["model", "pretrained_on", "dataset"].num_edges == 185
    assert (
        graph["dataset", "similar_to", "dataset"].num_edges == 69 * 68 - 2
    )  # all but the farthest pair, both ways
