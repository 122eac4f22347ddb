"""Graph building: nothing of the target's fine-tuning results gets in, whatever the options."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfergraph.graph.build import (
    EDGE_TYPES,
    MOST_KINDS,
    alike_by_all,
    build_graph,
    classical_scaling,
    finetuned_on,
    learn_similarity,
    pretrained_on,
    similar_to,
    transfers_to,
)
from transfergraph.zoo.matrices import hide_target, min_max, subsample_records, z_score
from transfergraph.zoo.synthetic import toy_zoo
from transfergraph.zoo.tables import Zoo
from zoos import zoos

options = st.fixed_dictionaries(
    {},
    optional={
        "edges": st.lists(st.sampled_from(EDGE_TYPES), unique=True).map(tuple),
        "accuracy_threshold": st.floats(-0.5, 1.5),
        "score_threshold": st.floats(-3, 3),
        "similarity_threshold": st.floats(-0.5, 1),
        "history_ratio": st.floats(0.01, 1),
        "model_ratio": st.floats(0.01, 1),
        "quality": st.none() | st.just(("ok",)),
        "random_state": st.integers(0, 3),
    },
)


@settings(max_examples=20, deadline=None)
@given(zoos(), options, st.data())
def test_no_finetuning_edge_or_label_of_the_target(zoo, options, data):
    target = data.draw(st.sampled_from(zoo.targets))
    graph = build_graph(zoo, target, **options)
    at = graph["dataset"].name.index(target)
    kind = ("model", "finetuned_on", "dataset")
    if kind in graph.edge_types:
        assert at not in graph[kind].edge_index[1] and at not in graph[kind].edge_label_index[1]
    graph.validate()


@settings(max_examples=10, deadline=None)
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


@settings(max_examples=10, deadline=None)
@given(zoos(), st.floats(-0.5, 1.5))
def test_every_known_pair_is_an_edge_or_a_negative(zoo, threshold):
    positive, negative = finetuned_on(zoo, threshold)
    assert (positive["weight"] > threshold).all() and (negative["weight"] <= threshold).all()
    spread = zoo.records.groupby(["dataset", "model"])["accuracy"].mean().groupby("dataset")
    spread = spread.max() > spread.min()
    pairs = zoo.records[["model", "dataset"]].drop_duplicates()
    assert len(positive) + len(negative) == pairs["dataset"].isin(spread.index[spread]).sum()


@settings(max_examples=20, deadline=None)
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
    assert len(subsample_records(hidden, 0.3, random_state=1).records) == 24
    fewer = subsample_records(hidden, model_ratio=0.5, random_state=1).records
    assert fewer["model"].nunique() == 10 and len(fewer) == 40
    assert subsample_records(hidden, 0.3, random_state=1).records.equals(
        subsample_records(hidden, 0.3, random_state=1).records
    )
    assert not subsample_records(hidden, 0.3, random_state=1).records.equals(
        subsample_records(hidden, 0.3).records
    )
    with pytest.raises(ValueError, match=r"history_ratio is 1\.5"):
        subsample_records(hidden, 1.5)


def test_scaling_gives_euclidean_distances_back(paper):
    from transfergraph.zoo.matrices import distance_matrix
    from transfergraph.zoo.paper import read_paper

    matrix = distance_matrix(read_paper(paper, "image")[0]).to_numpy()
    x = classical_scaling(matrix)
    found = np.linalg.norm(x[:, None] - x[None], axis=-1)
    assert np.abs(found - matrix).max() < 1e-3 * matrix.max()
    assert np.isfinite(classical_scaling(np.array([[0, np.nan], [np.nan, 0]]))).all()


def test_the_published_graph(paper):
    from transfergraph.zoo.paper import read_paper

    zoo, _ = read_paper(paper, "image")
    graph = build_graph(zoo, "pets", edges=EDGE_TYPES)
    assert len(graph["model"].name) == 185 and len(graph["dataset"].name) == 78
    labels = graph["model", "finetuned_on", "dataset"].edge_label
    assert len(labels) == 2254 - 112 - 180 and 0.9 < labels.mean() < 1
    assert graph["model", "pretrained_on", "dataset"].num_edges == 185
    assert (
        graph["dataset", "similar_to", "dataset"].num_edges == 69 * 68 - 2
    )  # all but the farthest pair, both ways


# --- values by hand


def test_columns_are_scaled_each_by_itself():
    values = pd.DataFrame({"a": [1.0, 3.0, 2.0], "b": [-4.0, np.nan, 4.0], "c": 7.0, "d": np.nan})
    scaled, standard = min_max(values), z_score(values)
    assert scaled["a"].tolist() == [0, 1, 0.5] and standard["a"].tolist() == [-1, 1, 0]
    np.testing.assert_array_equal(scaled["b"], [0, np.nan, 1])
    np.testing.assert_allclose(standard["b"], [-(0.5**0.5), np.nan, 0.5**0.5])
    for column in "cd":
        assert scaled[column].isna().all() and standard[column].isna().all()


def test_numbers_too_small_for_a_deviation_have_no_z_scores():
    tiny = pd.DataFrame({"a": [0.0, 5.6e-291], "b": [0.0, 1.0]})
    assert z_score(tiny)["a"].isna().all() and np.isfinite(z_score(tiny)["b"]).all()


def history(n_models=4, n_datasets=3):
    rows = [
        (f"m{i}", f"d{j}", (i + j) / (n_models + n_datasets))
        for i in range(n_models)
        for j in range(n_datasets)
    ]
    return Zoo(
        models=pd.DataFrame({"model": [f"m{i}" for i in range(n_models)], "modality": "image"}),
        datasets=pd.DataFrame({"dataset": [f"d{j}" for j in range(n_datasets)], "modality": "image"}),
        records=pd.DataFrame(rows, columns=["model", "dataset", "accuracy"]),
    ).validate()


def test_a_thinner_history_is_a_part_in_the_old_order():
    zoo = history()
    assert subsample_records(zoo).records.equals(zoo.records)
    for ratio, left in ((1e-9, 1), (0.1, 1), (0.25, 3), (0.5, 6), (0.99, 12)):
        thin = subsample_records(zoo, ratio).records
        assert len(thin) == left and thin.index.tolist() == list(range(left))
        where = [
            zoo.records.index[(zoo.records[["model", "dataset"]] == row).all(axis=1)][0]
            for row in thin[["model", "dataset"]].to_numpy()
        ]
        assert where == sorted(set(where)) and list(thin) == list(zoo.records)
        assert thin.equals(subsample_records(zoo, ratio, 1.0, 0).records)
    for ratio, left in ((1e-9, 1), (0.25, 1), (0.5, 2), (0.9, 4)):
        thin = subsample_records(zoo, model_ratio=ratio).records
        assert thin["model"].nunique() == left and len(thin) == 3 * left
        assert thin.index.tolist() == list(range(3 * left))
    both = subsample_records(zoo, 0.5, 0.5).records
    assert both["model"].nunique() <= 2 and len(both) == 3
    rng = np.random.default_rng(7)  # the draws themselves: published figures come from them
    assert subsample_records(zoo, 0.5, random_state=7).records.equals(
        zoo.records.iloc[np.sort(rng.choice(12, 6, replace=False))].reset_index(drop=True)
    )
    none = replace(zoo, records=zoo.records[:0])
    assert subsample_records(none, 0.5, 0.5).records.empty
    one = replace(zoo, records=zoo.records[:1])
    assert len(subsample_records(one, 0.4).records) == len(subsample_records(one, 1.0, 0.4).records) == 1


@pytest.mark.parametrize("name", ["history_ratio", "model_ratio"])
@pytest.mark.parametrize("ratio", [0, -0.5, 1.01, 2, np.nan])
def test_a_share_of_the_history_is_above_0_and_at_most_1(name, ratio):
    with pytest.raises(ValueError) as e:
        subsample_records(history(), **{name: ratio})
    assert str(e.value) == f"{name} is {ratio}; expected a share above 0 and at most 1"


def test_coordinates_are_the_widest_first_with_their_largest_entry_positive():
    line = np.array([[0.0, 3.0, 7.0], [3.0, 0.0, 4.0], [7.0, 4.0, 0.0]])
    x = classical_scaling(line)
    assert x.shape == (3, 1)
    np.testing.assert_allclose(x[:, 0], [-10 / 3, -1 / 3, 11 / 3], atol=1e-9)
    points = np.array([[0, 0], [5, 0], [0, 2], [5, 2.5], [1, 1]], float)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    x = classical_scaling(distances)
    assert x.shape == (5, 2) and x[:, 0].std() > 2 * x[:, 1].std()
    np.testing.assert_allclose(np.linalg.norm(x[:, None] - x[None], axis=-1), distances, atol=1e-9)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-9)
    assert (x.max(0) == np.abs(x).max(0)).all()


def test_an_unknown_distance_counts_as_the_mean_one():
    gaps = np.array([[0, 1, np.nan], [1, 0, 4], [np.nan, 4, 0]], float)
    filled = np.where(np.isnan(gaps), np.nanmean(gaps), gaps)
    assert np.nanmean(gaps) == pytest.approx(10 / 7)
    np.testing.assert_array_equal(classical_scaling(gaps), classical_scaling(filled))
    assert classical_scaling(np.full((2, 2), np.nan)).shape == (2, 0)
    assert classical_scaling(np.zeros((3, 3))).shape == (3, 0)
    # Distances of no Euclidean space: what has a negative eigenvalue is left out.
    odd = np.array([[0, 1, 5], [1, 0, 1], [5, 1, 0]], float)
    assert classical_scaling(odd).shape == (3, 1)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_distances_does_not_matter(unit):
    line = np.array([[0.0, 3.0, 7.0], [3.0, 0.0, 4.0], [7.0, 4.0, 0.0]])
    np.testing.assert_allclose(classical_scaling(line * unit), classical_scaling(line) * unit, rtol=1e-9)


def small_zoo():
    models = pd.DataFrame(
        {
            "model": ["a", "b", "c", "t"],
            "modality": ["image", "image", "image", "text"],
            "n_params": [1e6, 1e8, None, 1e7],
            "input_size": [224, 224, 384, None],
            "pretrained_on": ["z", "y", "elsewhere", "w"],
            "pretrained_accuracy": [0.5, None, 0.9, None],
            "architecture": ["vit", "swin", "vit", "bert"],
            "family": [None, "s", "v", None],
        }
    )
    datasets = pd.DataFrame(
        {"dataset": ["x", "w", "y", "z"], "modality": ["image", "text", "image", "image"], "role": "target"}
    )
    records = pd.DataFrame(
        [
            ("a", "y", "full", 0.25, "ok"),
            ("b", "y", "full", 0.75, "ok"),
            ("c", "y", "full", 0.5, "ok"),
            ("a", "z", "full", 0.1, "ok"),
            ("b", "z", "full", 0.9, "ok"),
            ("c", "z", "full", 0.8, "odd"),
            ("c", "z", "lora", 0.3, "ok"),
            ("a", "z", "lora", 0.7, "ok"),
            ("a", "x", "full", 0.3, "ok"),
            ("b", "x", "full", 0.5, "ok"),
            ("t", "w", "full", 0.5, "ok"),
        ],
        columns=["model", "dataset", "method", "accuracy", "quality"],
    )
    scores = pd.DataFrame(
        [
            (m, d, n, s)
            for d in "xy"
            for n, k in (("LogME", 1), ("A", -1), ("Z", -2))
            for m, s in zip("abc", (1.0 * k, 2.0 * k, 3.0 * k), strict=True)
        ],
        columns=["model", "dataset", "metric", "score"],
    )
    distances = pd.DataFrame(
        [
            ("x", "y", "domain_similarity", 1.0),
            ("y", "z", "domain_similarity", 3.0),
            ("x", "z", "domain_similarity", 2.0),
            ("x", "y", "other", 2.0),
            ("y", "z", "other", 2.0),
        ],
        columns=["dataset", "other", "method", "distance"],
    )
    return Zoo(models, datasets, records, scores, distances).validate()


def triples(edges):
    return sorted(edges.round(9).itertuples(index=False, name=None))


def test_records_become_edges_above_the_threshold_and_negatives_at_it():
    zoo = small_zoo()
    positive, negative = finetuned_on(zoo)
    assert list(positive) == list(negative) == ["model", "dataset", "weight"]
    assert triples(positive) == [("b", "x", 1), ("b", "y", 1), ("b", "z", 1)]
    assert triples(negative) == [("a", "x", 0), ("a", "y", 0), ("a", "z", 0), ("c", "y", 0.5)]
    positive, negative = finetuned_on(zoo, 0.49)  # one record of a dataset has no spread: t is in neither
    assert len(positive) == 4 and len(negative) == 3
    positive, negative = finetuned_on(zoo, 0.5, "lora")
    assert triples(positive) == [("a", "z", 1)] and triples(negative) == [("c", "z", 0)]
    positive, _ = finetuned_on(zoo, quality=None)
    assert ("c", "z", 0.875) in triples(positive)


def test_a_card_s_data_set_is_an_edge_and_the_mean_stands_for_what_it_does_not_say():
    zoo = small_zoo()
    assert triples(pretrained_on(zoo)) == [("a", "z", 0.5), ("b", "y", 0.7), ("t", "w", 0.7)]
    silent = replace(zoo, models=zoo.models.assign(pretrained_accuracy=np.nan))
    assert triples(pretrained_on(silent)) == [("a", "z", 1), ("b", "y", 1), ("t", "w", 1)]


def test_scores_become_edges_above_a_z_score():
    zoo = small_zoo()
    assert triples(transfers_to(zoo)) == [("c", "x", 1), ("c", "y", 1)]
    assert (
        triples(transfers_to(zoo, "A")) == triples(transfers_to(zoo, "Z")) == [("a", "x", 1), ("a", "y", 1)]
    )
    assert transfers_to(zoo, threshold=1.0).empty and len(transfers_to(zoo, threshold=-1.0)) == 4
    assert len(transfers_to(zoo, threshold=0.0)) == 2 and len(transfers_to(zoo, threshold=-1.5)) == 6


def test_similarity_is_one_less_the_scaled_distance_both_ways():
    zoo = small_zoo()
    assert similar_to(zoo).to_numpy().tolist() == [
        ["x", "y", 1.0], ["x", "z", 0.5], ["y", "x", 1.0], ["z", "x", 0.5]
    ]  # fmt: skip
    every = similar_to(zoo, threshold=-0.1)
    assert every.index.tolist() == list(range(6))
    assert ["y", "z", 0.0] in every.to_numpy().tolist() and len(every) == 6
    assert len(similar_to(zoo, threshold=0.5)) == 2
    # Without spread all known pairs are as near as can be; x - z is not known.
    assert triples(similar_to(zoo, "other")) == [
        ("x", "y", 1), ("y", "x", 1), ("y", "z", 1), ("z", "y", 1)
    ]  # fmt: skip
    assert similar_to(zoo, "none").empty
    assert list(similar_to(zoo, "none")) == ["dataset", "other", "weight"]


def edges_of(graph, kind):
    store = graph[kind]
    source, target = graph[kind[0]].name, graph["dataset"].name
    pairs = [(source[i], target[j]) for i, j in store.edge_index.T.tolist()]
    return sorted(
        (*pair, round(weight, 6)) for pair, weight in zip(pairs, store.edge_weight.tolist(), strict=True)
    )


def labels_of(graph):
    store = graph["model", "finetuned_on", "dataset"]
    names = graph["model"].name, graph["dataset"].name
    pairs = [(names[0][i], names[1][j]) for i, j in store.edge_label_index.T.tolist()]
    return dict(zip(pairs, store.edge_label.tolist(), strict=True))


FINETUNED, PRETRAINED = ("model", "finetuned_on", "dataset"), ("model", "pretrained_on", "dataset")
TRANSFERS, SIMILAR = ("model", "transfers_to", "dataset"), ("dataset", "similar_to", "dataset")


def test_a_graph_by_hand():
    zoo = small_zoo()
    graph = build_graph(zoo, "x", edges=EDGE_TYPES)
    assert graph["model"].name == ["a", "b", "c"] and graph["dataset"].name == ["x", "y", "z"]
    assert graph.target == "x" and set(graph.edge_types) == {FINETUNED, PRETRAINED, TRANSFERS, SIMILAR}
    assert edges_of(graph, FINETUNED) == [("b", "y", 1), ("b", "z", 1)]
    assert labels_of(graph) == {("b", "y"): 1, ("b", "z"): 1, ("a", "y"): 0, ("a", "z"): 0, ("c", "y"): 0}
    assert edges_of(graph, PRETRAINED) == [("a", "z", 0.5), ("b", "y", 0.7)]
    assert edges_of(graph, TRANSFERS) == [("c", "x", 1), ("c", "y", 1)]
    assert edges_of(graph, SIMILAR) == [("x", "y", 1), ("x", "z", 0.5), ("y", "x", 1), ("z", "x", 0.5)]
    assert set(build_graph(zoo, "x").edge_types) == {FINETUNED, PRETRAINED, SIMILAR}
    for kind in EDGE_TYPES:
        assert [k for _, k, _ in build_graph(zoo, "x", edges=(kind,)).edge_types] == [kind]
    texts = build_graph(zoo, "w")  # of the target's modality only
    assert texts["model"].name == ["t"] and texts["dataset"].name == ["w"]


def test_options_of_a_graph_reach_its_edges():
    zoo = small_zoo()
    low = build_graph(zoo, "x", accuracy_threshold=0.4)
    assert edges_of(low, FINETUNED) == [("b", "y", 1), ("b", "z", 1), ("c", "y", 0.5)]
    assert labels_of(low)["c", "y"] == 1
    assert labels_of(build_graph(zoo, "x", method="lora")) == {("a", "z"): 1, ("c", "z"): 0}
    assert labels_of(build_graph(zoo, "x", quality=None))["c", "z"] == 1
    scores = build_graph(zoo, "x", edges=("transfers_to",), score_metric="A", score_threshold=-0.5)
    assert edges_of(scores, TRANSFERS) == [("a", "x", 1), ("a", "y", 1), ("b", "x", 0), ("b", "y", 0)]
    assert build_graph(zoo, "x", similarity_threshold=0.5)[SIMILAR].edge_index.shape == (2, 2)
    assert build_graph(zoo, "x", distance="other")[SIMILAR].edge_index.shape == (2, 4)
    few = build_graph(zoo, "x", history_ratio=0.1, random_state=3)
    assert labels_of(few) == {}  # one record has no spread
    for seed in range(4):
        thin = subsample_records(hide_target(zoo, "x"), 1.0, 0.75, seed)
        expected = {(m, d) for f in finetuned_on(thin) for m, d, _ in triples(f)}
        assert set(labels_of(build_graph(zoo, "x", model_ratio=0.75, random_state=seed))) == expected
    large = history(20, 3)
    thin = [subsample_records(hide_target(large, "d0"), 0.5, 1.0, seed).records for seed in (0, 1)]
    assert not thin[0].equals(thin[1])
    default, first = (build_graph(large, "d0", history_ratio=0.5, **o) for o in ({}, {"random_state": 0}))
    assert labels_of(default) == labels_of(first)
    assert labels_of(default) != labels_of(build_graph(large, "d0", history_ratio=0.5, random_state=1))
    for kinds, first in ((("finetuned_on", "tuned", "asked"), "asked"), (["near"], "near")):
        with pytest.raises(ValueError) as e:
            build_graph(zoo, "x", edges=kinds)
        assert str(e.value) == f"unknown kind of edge {first!r}; expected some of {', '.join(EDGE_TYPES)}"


def test_features_of_models_by_hand():
    x = build_graph(small_zoo(), "x")["model"].x.numpy()
    # log10 of the size, input size and reported accuracy, standardised; a gap is the mean, which is 0
    half, third = 0.5**0.5, 3**0.5 / 3
    numbers = [[-half, -third, -half], [half, -third, 0], [0, 2 * third, half]]
    kinds = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]  # swin, vit; s, v
    np.testing.assert_allclose(x, np.hstack([numbers, kinds]), atol=1e-6)
    zoo = small_zoo()
    zoo = replace(zoo, models=zoo.models.assign(n_params=[0.0, 10.0, 100.0, 1.0]))  # none is as good as one
    x = build_graph(zoo, "x")["model"].x.numpy()
    np.testing.assert_allclose(x[:, 0], [-1, 0, 1], atol=1e-6)


def test_the_most_common_kinds_get_a_column():
    n = MOST_KINDS + 20
    architecture = [f"a{i:03d}" for i in range(n)] + ["a270"] * 2
    models = pd.DataFrame(
        {"model": [f"m{i}" for i in range(n + 2)], "modality": "image", "architecture": architecture}
    )
    zoo = Zoo(models, pd.DataFrame({"dataset": ["x"], "modality": "image", "role": "target"})).validate()
    x = build_graph(zoo, "x")["model"].x.numpy()
    assert MOST_KINDS == 256 and x.shape == (n + 2, 3 + 256)
    assert sorted(x.sum(0), reverse=True)[:2] == [3, 1]
    # Of equally common ones the first by name.
    assert x[:255].sum(1).tolist() == [1] * 255 and x[255:270].sum() == 0 and x[270].sum() == 1


def test_features_of_data_sets_by_hand():
    zoo = small_zoo()
    x = build_graph(zoo, "x")["dataset"].x.numpy()  # from distances 1, 2 and 3: on a line y, x, z
    expected = np.array([-1, -4, 5]) / 3
    np.testing.assert_allclose(x[:, 0], expected / expected.std(), atol=1e-5)
    assert build_graph(zoo, "x", distance="none")["dataset"].x.tolist() == [[0], [0], [0]]
    vectors = pd.DataFrame(
        {"dataset": ["z", "x", "w", "y"], "vector": [[1.0, 3.0], [5.0, 7.0], [100.0, 9.0], [8.0, 8.0]]}
    )
    vectors["method"] = ["e", "e", "e", "f"]
    zoo = replace(zoo, embeddings=vectors).validate()
    x = build_graph(zoo, "x", distance="e")["dataset"].x.numpy()
    scale = np.std([1, 3, 5, 7])
    np.testing.assert_allclose(x * scale, [[2, 2], [0, 0], [-2, -2]], atol=1e-6)  # y is not known
    x = build_graph(zoo, "x", distance="f")["dataset"].x.numpy()
    assert x.tolist() == [[0, 0]] * 3  # one dataset alone is its own mean


def themed_zoo(words=True, n=40):
    "Models that are good by theme; words tell the theme, a probe tells nothing."
    rng = np.random.default_rng(0)
    skill, theme = rng.normal(size=(n, 2)), np.arange(8) % 2
    accuracy = 0.5 + 0.1 * skill[:, theme] + 0.01 * rng.normal(size=(n, 8))
    zoo = toy_zoo(dict(zip("abcdefgh", accuracy.T.clip(0, 1))))
    told = np.eye(2)[theme] + 0.1 * rng.normal(size=(8, 2))
    ways = {"domain_similarity": rng.normal(size=(8, 3))} | ({"words": told} if words else {})
    rows = [(d, way, v.tolist()) for way, vs in ways.items() for d, v in zip("abcdefgh", vs)]
    return replace(zoo, embeddings=pd.DataFrame(rows, columns=["dataset", "method", "vector"])).validate()


def test_ways_of_comparing_datasets_count_as_far_as_they_agree_with_the_records():
    _, weights = learn_similarity(hide_target(themed_zoo(), "a"))
    assert weights["words"] > 0.3 > 10 * weights["domain_similarity"]
    edges = alike_by_all(hide_target(themed_zoo(), "a"))
    assert set(edges.loc[edges["dataset"] == "a", "other"]) == set("ceg")  # whose records are not read
    assert edges["weight"].max() == 1 and edges["weight"].min() > 0
    assert {*zip(edges["dataset"], edges["other"])} == {*zip(edges["other"], edges["dataset"])}


def test_words_change_a_graph_where_there_are_any_and_nothing_else():
    import torch

    def store(graph):
        return graph["dataset", "similar_to", "dataset"]

    plain, told = (build_graph(themed_zoo(), "a", words=words) for words in (False, True))
    assert told["dataset"].x.shape[1] == plain["dataset"].x.shape[1] + 2
    assert store(told).num_edges < store(plain).num_edges
    plain, told = (build_graph(themed_zoo(words=False), "a", words=words) for words in (False, True))
    assert torch.equal(told["dataset"].x, plain["dataset"].x)
    assert torch.equal(store(told).edge_index, store(plain).edge_index)
    assert torch.equal(store(told).edge_weight, store(plain).edge_weight)
