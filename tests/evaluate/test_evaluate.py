"""Metrics against slow definitions and published tables; runs that fail, resume and use several processes."""

import itertools
import math
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from waiting import PATIENCE, group_is_gone, until

from transfergraph.evaluate.leave_one_out import (
    Task,
    evaluate,
    evaluate_predictions,
    plan_tasks,
    predict_tasks,
    task_key,
)
from transfergraph.evaluate.summary import (
    COLUMNS,
    check_predictions,
    over_seeds,
    per_seed_metrics,
    read_predictions,
    score_predictions,
    summarise,
    true_accuracy,
)
from transfergraph.metrics import RANK_METRICS, bootstrap_mean
from transfergraph.run.files import write_csv
from transfergraph.zoo.matrices import accuracy_matrix, score_matrix
from transfergraph.zoo.paper import read_paper, read_published, read_rank_final, read_rank_tree
from transfergraph.zoo.tables import Zoo

ROOT = Path(__file__).resolve().parents[2]
RANKS = (
    "spearman",
    "kendall",
    "weighted_kendall",
    "regret@1",
    "regret@5",
    "top@1",
    "top@3",
    "top@5",
    "ndcg@10",
)
CORRELATIONS = ("pearson", "spearman", "kendall", "weighted_kendall")


# --- metrics: slow definitions, written from the textbook and without numpy


def slow_pearson(x, y):
    if min(len(set(x)), len(set(y))) == 1:  # the mean of equal numbers is not quite that number
        return 0.0
    mx, my = sum(x) / len(x), sum(y) / len(y)
    sxy = sum((a - mx) * (b - my) for a, b in zip(x, y))
    sxx, syy = sum((a - mx) ** 2 for a in x), sum((b - my) ** 2 for b in y)
    return sxy / math.sqrt(sxx * syy) if sxx * syy else 0.0


def slow_ranks(x):
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


def sign(a, b):
    return (a > b) - (a < b)


def slow_tau(x, y, weight):
    "Vigna's weighted tau: a weighted inner product of signs over its norms; weight(i, j) = 1 is tau-b."
    pairs = list(itertools.permutations(range(len(x)), 2))

    def inner(u, v):
        return sum(sign(u[i], u[j]) * sign(v[i], v[j]) * weight(i, j) for i, j in pairs)

    norm = math.sqrt(inner(x, x) * inner(y, y))
    return inner(x, y) / norm if norm else 0.0


def slow_weighted_kendall(x, y):
    def by(first, second):
        order = sorted(range(len(first)), key=lambda i: (-first[i], -second[i]))
        place = {i: p for p, i in enumerate(order)}
        return slow_tau(x, y, lambda i, j: 1 / (1 + place[i]) + 1 / (1 + place[j]))

    return (by(x, y) + by(y, x)) / 2


def slow_top(x, y, k):
    left = list(range(len(x)))
    chosen = []
    while left and len(chosen) < k:
        best = left[0]
        for i in left:  # strictly better only: of equal ones the first stays
            best = i if y[i] > y[best] else best
        left.remove(best)
        chosen.append(x[best])
    return chosen


def slow_ndcg(x, y, k=10):
    if max(x) == min(x):
        return 1.0
    gain = [(a - min(x)) / (max(x) - min(x)) for a in x]

    def dcg(gains):
        return sum(g / math.log2(place + 1) for place, g in enumerate(gains, start=1))

    return dcg(slow_top(gain, y, k)) / dcg(sorted(gain, reverse=True)[:k])


SLOW = {
    "pearson": slow_pearson,
    "spearman": lambda x, y: slow_pearson(slow_ranks(x), slow_ranks(y)),
    "kendall": lambda x, y: slow_tau(x, y, lambda i, j: 1),
    "weighted_kendall": slow_weighted_kendall,
    "regret@1": lambda x, y: max(x) - max(slow_top(x, y, 1)),
    "regret@5": lambda x, y: max(x) - max(slow_top(x, y, 5)),
    "top@1": lambda x, y: max(slow_top(x, y, 1)),
    "top@3": lambda x, y: max(slow_top(x, y, 3)),
    "top@5": lambda x, y: max(slow_top(x, y, 5)),
    "mean_top@5": lambda x, y: sum(slow_top(x, y, 5)) / len(slow_top(x, y, 5)),
    "ndcg@10": slow_ndcg,
    "n_models": lambda x, y: len(x),
}

few = st.integers(0, 20).map(lambda i: i / 20)  # coarse, so that ties are common
lists = st.integers(2, 14).flatmap(lambda n: st.tuples(*[st.lists(few, min_size=n, max_size=n)] * 2))


@pytest.mark.parametrize("name", RANK_METRICS)
@settings(max_examples=60, deadline=None)
@given(lists)
def test_a_metric_is_its_definition(name, pair):
    x, y = pair
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = RANK_METRICS[name](np.array(x), np.array(y))
    assert type(value) is float
    assert value == pytest.approx(SLOW[name](x, y), abs=1e-9)


def test_values_by_hand():
    true, predicted = np.array([0.5, 0.7, 0.6, 0.9, 0.4, 0.8]), np.array([6, 5, 4, 3, 2, 1])
    value = {name: metric(true, predicted) for name, metric in RANK_METRICS.items()}
    assert value["regret@1"] == pytest.approx(0.4) and value["regret@5"] == pytest.approx(0)
    assert value["top@1"] == 0.5 and value["top@3"] == 0.7 and value["top@5"] == 0.9
    assert value["mean_top@5"] == pytest.approx(0.62) and value["n_models"] == 6
    # ranks by accuracy 2 4 3 6 1 5, by prediction 6 5 4 3 2 1: squared differences 16 1 1 9 1 16
    assert value["spearman"] == pytest.approx(1 - 6 * 44 / (6 * 35))
    assert value["kendall"] == pytest.approx((6 - 9) / 15)


@settings(max_examples=60, deadline=None)
@given(lists, st.integers(1, 5), st.integers(-3, 3))
def test_rank_metrics_see_only_the_order_of_predictions(pair, scale, shift):
    x, y = map(np.array, pair)
    for name in (*RANKS, "mean_top@5"):
        assert RANK_METRICS[name](x, np.exp(scale * y) + shift) == pytest.approx(
            RANK_METRICS[name](x, y), abs=1e-12
        )
    assert RANK_METRICS["pearson"](x, scale * y + shift) == pytest.approx(
        RANK_METRICS["pearson"](x, y), abs=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(lists)
def test_metrics_keep_their_bounds(pair):
    x, y = map(np.array, pair)
    value = {name: metric(x, y) for name, metric in RANK_METRICS.items()}
    assert value["regret@1"] >= value["regret@5"] >= 0
    assert value["top@1"] <= value["top@3"] <= value["top@5"] <= x.max()
    assert value["regret@5"] == pytest.approx(x.max() - value["top@5"])
    assert 0 <= value["ndcg@10"] <= 1 + 1e-12
    assert all(-1 - 1e-12 <= value[name] <= 1 + 1e-12 for name in CORRELATIONS)
    assume(np.ptp(x) > 0)
    perfect = {name: RANK_METRICS[name](x, x) for name in (*CORRELATIONS, "ndcg@10", "regret@1")}
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0) | {"regret@1": 0.0})


@settings(max_examples=60, deadline=None)
@given(lists, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(pair, random):
    x, y = pair
    names = [f"m{i:02d}" for i in range(len(x))]
    zoo = Zoo(
        models=pd.DataFrame({"model": names, "modality": "text"}),
        datasets=pd.DataFrame({"dataset": ["t"], "modality": "text", "role": "target"}),
        records=pd.DataFrame(
            {"model": names, "dataset": "t", "method": "full", "accuracy": x, "quality": "ok"}
        ),
    )
    rows = pd.DataFrame({"target": "t", "method": "m", "model": names, "score": y})
    order = random.sample(range(len(x)), len(x))
    one, other = score_predictions(zoo, rows), score_predictions(zoo, rows.iloc[order])
    pd.testing.assert_frame_equal(one, other)
    by_name = {
        name: metric(np.array(x), np.array(y)) for name, metric in RANK_METRICS.items()
    }  # names are sorted
    assert one.set_index("metric")["value"].to_dict() == pytest.approx(by_name)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e300, 5e-324])
def test_constant_lists_order_nothing_and_warn_nobody(constant):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in CORRELATIONS:
            assert RANK_METRICS[name]([0.1, 0.2, 0.7], [constant] * 3) == 0
            assert RANK_METRICS[name]([constant] * 3, [0.1, 0.2, 0.7]) == 0


def test_pearson_of_numbers_at_the_ends_of_the_range():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RANK_METRICS["pearson"]([0.1, 0.2, 0.3], [-1.7e308, 0, 1.7e308]) == pytest.approx(1)
        assert RANK_METRICS["pearson"]([0.1, 0.2, 0.3], [1e-310, 2e-310, 3e-310]) == pytest.approx(1)
        assert RANK_METRICS["pearson"]([0.5, 0.5 + 2**-53], [1, 2]) == pytest.approx(1)
    x = np.array([0.9, 0.3, 0.6])  # rounding alone would give 1.0000000000000002
    assert RANK_METRICS["pearson"](x, 3 * x) == 1 and RANK_METRICS["pearson"](x, -3 * x) == -1


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([0.1], [0.1], "1 models to score; expected 2 or more"),
        ([0.1, 0.2], [0.1], "same length"),
        ([[0.1, 0.2]], [[0.1, 0.2]], "expected two lists"),
        ([0.1, 0.2], [0.1, np.nan], "finite"),
        ([0.1, np.inf], [0.1, 0.2], "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(true, predicted, message):
    for metric in RANK_METRICS.values():
        with pytest.raises(ValueError, match=message):
            metric(true, predicted)


# --- the authors' own figures


@pytest.mark.parametrize("protocol", ["published", "clean"])
def test_the_published_image_tables_come_out_of_the_authors_predictions(paper, protocol):
    zoo, _ = read_paper(paper, "image")
    folder = paper / "image_classification"
    metrics = score_predictions(zoo, read_rank_final(folder / "rank_final", zoo.targets), protocol)
    published = read_published(folder / "result_analysis")
    both = metrics.merge(published, on=["target", "method", "metric"], suffixes=("", "_published"))
    both = both[both["metric"].isin(["pearson", "spearman", "weighted_kendall"])]
    variants = {f"TG:{p},{g},all" for p in ("LR", "RF", "XGB") for g in ("N2V", "N2V+", "SAGE", "GAT")}
    assert set(both["method"]) == variants and set(both["target"]) == set(zoo.targets)
    assert len(both) == 12 * 8 * 3
    assert (both["value"] - both["value_published"]).abs().max() < 1e-4
    means = summarise(metrics).set_index(["method", "metric"])["mean"]
    assert means["TG:XGB,N2V,all", "pearson"] == pytest.approx(
        0.848, abs=5e-4
    )  # the plain mean of the paper's row


def test_the_published_text_tables_come_out_of_the_authors_predictions(paper, text_with_lora):
    "A model counts once for each of its runs: without that, 41 of the 96 Pearson correlations are off."
    zoo, folder = text_with_lora, paper / "sequence_classification"
    rows, _ = read_rank_tree(folder / "rank_final", zoo.targets, "published")
    baselines = [
        score_matrix(zoo, name)[zoo.targets].melt(var_name="target", value_name="score", ignore_index=False)
        for name in ("LogME", "H-score")
    ]
    baselines = pd.concat(baselines, keys=["LogME", "Reg-H-Score"], names=["method", "model"]).reset_index()
    metrics = score_predictions(zoo, pd.concat([rows, baselines.assign(seed=0)]), "published")
    published = read_published(folder / "result_analysis")
    both = published.merge(metrics, on=["target", "method", "metric"], suffixes=("_published", ""))
    off = (both["value"] - both["value_published"]).abs()
    assert len(both) == len(published) == 4 * 14 * 8 and set(both["target"]) == set(zoo.targets)
    assert off.max() < 1e-9
    once, _ = read_rank_tree(folder / "rank_final", zoo.targets)
    n_models = (score_predictions(zoo, t, "published").query("metric == 'n_models'") for t in (rows, once))
    assert pd.Series.equals(*(table["value"] for table in n_models))


def test_the_authors_text_predictions_over_all_models(paper):
    # Known beforehand: 0.802 over all models, where the published rule gives 0.856 from a subset.
    zoo, _ = read_paper(paper, "text")
    # A model that was fine-tuned twice was predicted twice, from features that differ between its runs.
    rows, _ = read_rank_tree(paper / "sequence_classification", zoo.targets)
    summary = summarise(score_predictions(zoo, rows)).set_index(["method", "metric"])
    assert summary.loc[("TG:XGB,GAT,all", "pearson"), "mean"] == pytest.approx(0.802, abs=5e-4)


# --- truth and tables


def make_zoo(n_models=10, n_targets=4, seed=0):
    rng = np.random.default_rng(seed)
    models, targets = [f"m{i:02d}" for i in range(n_models)], [f"t{i}" for i in range(n_targets)]
    logits = (
        rng.normal(size=(n_models, 1))
        + rng.normal(size=n_targets)
        + 0.5 * rng.normal(size=(n_models, n_targets))
    )
    table = pd.DataFrame(1 / (1 + np.exp(-logits)), models, targets).rename_axis("model").reset_index()
    return Zoo(
        models=pd.DataFrame({"model": models, "modality": "image"}),
        datasets=pd.DataFrame({"dataset": targets, "modality": "image", "role": "target"}),
        records=table.melt("model", var_name="dataset", value_name="accuracy"),
    ).validate()


@pytest.fixture(scope="module")
def zoo():
    return make_zoo()


def with_records(rows):
    columns = ["model", "dataset", "method", "accuracy", "quality"]
    return Zoo(
        models=pd.DataFrame({"model": ["a", "b", "c"], "modality": "text"}),
        datasets=pd.DataFrame({"dataset": ["s", "t"], "modality": "text", "role": "target"}),
        records=pd.DataFrame(rows, columns=columns),
    ).validate()


def test_the_published_rule_on_made_up_rows():
    rows = [
        ["a", "t", "full", 0.70, "ok"],
        ["a", "t", "full", 0.80, "ok"],
        ["a", "t", "lora", 0.75, "ok"],  # best is full: in
        ["b", "t", "lora", 0.95, "ok"],
        ["b", "t", "full", 0.90, "ok"],  # best is lora: out
        ["c", "t", "full", 0.60, "at-chance"],
        ["c", "t", "lora", 0.60, "ok"],  # a tie, full comes first: in, whatever its quality
        ["b", "s", "full", 0.99, "ok"],  # another dataset
    ]
    assert true_accuracy(with_records(rows), "t", "published").to_dict() == {"a": 0.8, "c": 0.6}
    assert true_accuracy(with_records(rows), "t", "clean").to_dict() == pytest.approx({"a": 0.75, "b": 0.9})
    rows[5], rows[6] = rows[6], rows[5]  # the tie the other way round: lora comes first
    assert true_accuracy(with_records(rows), "t", "published").to_dict() == {"a": 0.8}


def test_under_published_a_model_counts_once_for_each_full_run():
    rows = [["a", "t", "full", 0.7, "ok"], ["a", "t", "full", 0.9, "ok"], ["a", "t", "lora", 0.5, "ok"]]
    rows += [["b", "t", "full", 0.4, "ok"], ["c", "t", "full", 0.6, "ok"], ["c", "s", "full", 0.6, "ok"]]
    zoo = with_records(rows)
    table = pd.DataFrame({"target": "t", "method": "m", "model": list("abca"), "score": [0.3, 0.5, 0.1, 0.8]})

    def value(rows, metric):
        return score_predictions(zoo, rows, "published").set_index("metric").loc[metric, "value"]

    expected = np.corrcoef([0.9, 0.9, 0.4, 0.6], [0.3, 0.8, 0.5, 0.1])[0, 1]
    assert value(table, "pearson") == pytest.approx(expected) == value(table[::-1], "pearson")
    once = np.corrcoef([0.9, 0.9, 0.4, 0.6], [0.3, 0.3, 0.5, 0.1])[0, 1]
    assert value(table[:3], "pearson") == pytest.approx(once)  # one prediction stands for both runs
    assert value(table, "n_models") == value(table[:3], "n_models") == 3
    no_opinion = table.assign(score=[np.nan, 0.5, 0.1, 0.8])  # about one of the runs
    assert value(no_opinion, "pearson") == pytest.approx(np.corrcoef([0.9, 0.4, 0.6], [0.8, 0.5, 0.1])[0, 1])
    for wrong, protocol, message in (
        (table, "clean", "row 4, column 'model': 'a' is there twice for its target and method$"),
        (pd.concat([table, table[:1]]), "published", "'a' is there twice .* once for each of its runs"),
        (pd.concat([table, table[1:2]]), "published", "row 5, column 'model': 'b' is there twice"),
        (table.assign(target="s"), "published", "row 4, column 'model': 'a' is there twice"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_predictions(zoo, wrong, protocol=protocol)
    assert len(evaluate_predictions(zoo, table, protocol="published")[0]) == 4


def test_truth_that_is_not_there_is_said_so():
    zoo = with_records([["a", "t", "lora", 0.7, "ok"], ["a", "s", "full", 0.7, "at-chance"]])
    for target, protocol in (("t", "clean"), ("t", "published"), ("s", "clean")):
        with pytest.raises(
            ValueError, match=f"target '{target}' has no fine-tuning that protocol '{protocol}'"
        ):
            true_accuracy(zoo, target, protocol)
    with pytest.raises(ValueError, match="target 'x' is not a dataset of this zoo; its targets: s, t"):
        true_accuracy(zoo, "x")
    with pytest.raises(ValueError, match="protocol 'dirty' is unknown; expected one of clean, published"):
        true_accuracy(zoo, "t", "dirty")


def test_models_without_a_score_or_a_truth_are_left_out_and_counted(zoo):
    scores = accuracy_matrix(zoo)["t0"].rename("score").reset_index().assign(target="t0", method="m")
    scores.loc[[1, 4], "score"] = np.nan
    less = Zoo(zoo.models, zoo.datasets, zoo.records[zoo.records["model"] != "m07"]).validate()
    values = score_predictions(less, scores).set_index("metric")["value"]
    assert values["n_models"] == 7 and values["kendall"] == 1
    with pytest.raises(ValueError, match="no target has two models"):
        score_predictions(zoo, scores.assign(score=np.nan))


def test_a_seed_that_a_method_lacks_is_not_made_up(zoo):
    rows = [
        (m, "t0", method, seed)
        for m in zoo.models["model"]
        for method, seed in (("a", 0), ("a", 1), ("b", 0))
    ]
    table = pd.DataFrame(rows, columns=["model", "target", "method", "seed"])
    table["score"] = np.random.default_rng(0).random(len(table))
    found = per_seed_metrics(zoo, table).groupby(["method", "seed"]).size()
    assert found.to_dict() == dict.fromkeys([("a", 0), ("a", 1), ("b", 0)], len(RANK_METRICS))
    assert over_seeds(per_seed_metrics(zoo, table)).groupby("method")["n_seeds"].first().to_dict() == {
        "a": 2,
        "b": 1,
    }


def test_two_models_are_enough():
    two = make_zoo(n_models=2)
    metrics = evaluate(two, ["random"], seeds=[0], n_jobs=1, progress=False)[1]
    assert set(metrics["target"]) == set(two.targets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "tx"}, r"p.csv: row 2, column 'target': 'tx' is not a dataset of this zoo"),
        ({"model": "mx"}, r"p.csv: row 2, column 'model': 'mx' is not a model of this zoo"),
        ({"model": "m00"}, r"p.csv: row 2, column 'model': 'm00' is there twice for its target and method"),
        ({"score": np.inf}, r"p.csv: row 2, column 'score': inf is not a finite number"),
        ({"score": "good"}, r"p.csv: row 2, column 'score': 'good' is not a finite number"),
        ({"method": None}, r"p.csv: row 2, column 'method': (None|nan) is not a name"),
        ({"method": ""}, r"p.csv: row 2, column 'method': '' is not a name"),
    ],
)
def test_a_wrong_prediction_is_named(zoo, change, message):
    rows = pd.DataFrame(
        {"target": "t0", "method": "m", "model": ["m00", "m01", "m02"], "score": [1.0, 2.0, 3.0]}
    )
    for column, value in change.items():
        rows[column] = rows[column].astype(object)
        rows.loc[1, column] = value
    with pytest.raises(ValueError, match=message):
        score_predictions(zoo, rows, origin="p.csv")


def test_wrong_predictions_are_counted_and_missing_columns_named(zoo):
    rows = pd.DataFrame({"target": "t0", "method": "m", "model": ["m00", "m01", "m02", "m03"], "score": 1.0})
    for wrong, more in (([1], ""), ([1, 2], r" \(and 1 more\)"), ([1, 2, 3], r" \(and 2 more\)")):
        bad = rows.assign(target=["tx" if i in wrong else "t0" for i in range(4)])
        with pytest.raises(
            ValueError, match=f"^p: row 2, column 'target': 'tx' is not a dataset.*zoo{more}$"
        ):
            check_predictions(zoo, bad, "p")
    for i, column in enumerate(rows):
        expected = f"p: column '{column}' is missing; expected target, method, model, score, seed"
        for gone in ([column], list(rows)[i:]):
            with pytest.raises(ValueError) as e:
                check_predictions(zoo, rows.drop(columns=gone), "p")
            assert str(e.value) == expected
    assert (check_predictions(zoo, rows)["seed"] == 0).all()
    assert (per_seed_metrics(zoo, rows)["seed"] == 0).all()
    assert check_predictions(zoo, rows.assign(seed=3))["seed"].tolist() == [3] * 4


def test_reading_predictions_made_elsewhere(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text('note,model,target,method,score\nx,NA,t,"a,b",0.1234567890123456\ny,null,t,1,\n')
    rows = read_predictions(tmp_path)
    pd.testing.assert_frame_equal(rows, read_predictions(path))
    assert list(rows.columns) == COLUMNS["predictions"] and rows["seed"].tolist() == [0, 0]
    assert rows["model"].tolist() == ["NA", "null"] and rows["method"].tolist() == ["a,b", "1"]
    assert rows["score"][0] == 0.1234567890123456 and np.isnan(rows["score"][1])
    for text, message in (
        ("target,method,model\n", "column 'score' is missing"),
        ("target,method,model,score\nt,m,a,1\nt,m,b,high\n", "row 2, column 'score': 'high' is not a number"),
        (
            "target,method,model,score,seed\nt,m,a,1,0.5\n",
            "row 1, column 'seed': '0.5' is not a whole number",
        ),
        ("target,method,model,score,seed\nt,m,a,1,\n", "row 1, column 'seed': '' is not a whole number"),
        (
            "target,method,model,score,seed\nt,m,a,1,inf\n",
            "row 1, column 'seed': 'inf' is not a whole number",
        ),
        ("a\n1,2\n1,2,3\n", "cannot be read as a table"),
        ("", "cannot be read as a table"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            read_predictions(path)
        assert str(path) in str(error.value)
    with pytest.raises(
        FileNotFoundError, match="no such file; expected columns target, method, model, score"
    ):
        read_predictions(tmp_path / "none.csv")


# --- bootstrap


def slow_bootstrap(values, n_resamples, level, random_state):
    counts = np.random.default_rng(random_state).multinomial(
        len(values), [1 / len(values)] * len(values), n_resamples
    )
    means = [np.mean(np.repeat(values, count)) for count in counts]
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2])


def test_the_bootstrap_is_its_loop():
    values = np.random.default_rng(1).normal(size=(3, 8))
    values[1, [2, 5]] = np.nan
    values[2, 1:] = np.nan
    mean, low, high = bootstrap_mean(values, 500, 0.9, random_state=3)
    assert mean == pytest.approx(np.nanmean(values, axis=1))
    for i in (0, 1):
        known = values[i][~np.isnan(values[i])]
        assert (low[i], high[i]) == pytest.approx(tuple(slow_bootstrap(known, 500, 0.9, 3)))
    assert np.isnan([low[2], high[2]]).all()  # one target says nothing about the next
    assert np.isnan(bootstrap_mean(np.full((1, 3), np.nan))[0]).all()


def test_ten_thousand_resamples_unless_told():
    values = np.random.default_rng(1).normal(size=(2, 30))
    np.testing.assert_array_equal(bootstrap_mean(values), bootstrap_mean(values, 10_000, 0.95, 0))
    assert bootstrap_mean(values)[1].tolist() != bootstrap_mean(values, 10_001)[1].tolist()


def test_the_interval_is_that_of_the_normal_approximation_where_it_holds():
    values = np.random.default_rng(2).normal(size=(1, 400))
    _, low, high = bootstrap_mean(values)
    error = values.std() / 20
    assert (low[0], high[0]) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.01
    )


def random_metrics(seed=0, methods=("history-mean", "a", "b"), n_targets=6, seeds=(0, 1, 2)):
    rng = np.random.default_rng(seed)
    keys = itertools.product([f"t{i}" for i in range(n_targets)], methods, ["pearson", "regret@5"], seeds)
    table = pd.DataFrame(keys, columns=["target", "method", "metric", "seed"])
    return table.assign(value=rng.normal(size=len(table)))


def test_summary_by_hand():
    table = random_metrics()
    table = table[~((table["method"] == "b") & (table["target"] == "t0"))]  # b lacks a target
    table = table[
        ~((table["method"] == "a") & (table["target"] == "t3") & (table["seed"] == 2))
    ]  # and a a seed there
    summary = summarise(table, n_resamples=500)
    assert list(summary.columns) == COLUMNS["summary"]
    assert summary[["method", "metric"]].apply(tuple, axis=1).tolist() == list(
        itertools.product(["history-mean", "a", "b"], ["pearson", "regret@5"])
    )
    by = over_seeds(table).set_index(["method", "metric", "target"])["value"].sort_index()
    rows = summary.set_index(["method", "metric"])
    for (method, metric), row in rows.iterrows():
        own, base = by[method, metric], by["history-mean", metric]
        assert row["mean"] == pytest.approx(own.mean()) and row["n_targets"] == len(own)
        shared = (own - base[own.index]).to_numpy()
        assert row["gain"] == pytest.approx(shared.mean())
        assert (row["gain_low"], row["gain_high"]) == pytest.approx(
            tuple(slow_bootstrap(shared, 500, 0.95, 0))
        )
        assert (row["low"], row["high"]) == pytest.approx(tuple(slow_bootstrap(own.to_numpy(), 500, 0.95, 0)))
        one = table[(table["method"] == method) & (table["metric"] == metric)]
        means = one.groupby("seed")["value"].mean()
        if method == "a":
            means = means[[0, 1]]  # seed 2 lacks a target: its mean is over other targets
        assert row["seed_sd"] == pytest.approx(means.std())
    assert (rows.loc["history-mean", ["gain", "gain_low", "gain_high"]] == 0).all(axis=None)


def test_summary_without_baseline_or_seeds():
    table = random_metrics(methods=("a", "b"))
    summary = summarise(table)
    assert (
        summary[["gain", "gain_low", "gain_high"]].isna().all(axis=None) and summary["seed_sd"].notna().all()
    )
    again = summarise(over_seeds(table))
    assert again["seed_sd"].isna().all()
    pd.testing.assert_frame_equal(again.drop(columns="seed_sd"), summary.drop(columns="seed_sd"))
    with pytest.raises(ValueError, match="twice"):
        summarise(pd.concat([table, table[:1]]))


def test_a_method_has_the_same_interval_whoever_else_is_there():
    table = random_metrics(methods=("history-mean", "a", "b", "c"))
    alone = table[table["method"].isin(["history-mean", "c"])]
    rows = [summarise(t).set_index(["method", "metric"]).loc["c"] for t in (table, alone)]
    pd.testing.assert_frame_equal(*rows)


def test_paired_intervals_are_about_differences():
    hard = np.linspace(0.1, 0.9, 8)
    table = pd.DataFrame(
        [
            (f"t{i}", m, "pearson", h + g)
            for i, h in enumerate(hard)
            for m, g in (("history-mean", 0.0), ("a", 0.02))
        ],
        columns=["target", "method", "metric", "value"],
    )
    row = summarise(table).set_index("method").loc["a"]
    assert row["high"] - row["low"] > 0.3 and row["gain_high"] - row["gain_low"] < 1e-9


# --- runs


def predict(zoo, target, methods, *, random_state=0, **options):
    "Stands in for the library's own: the mean over other datasets, and noise by target and seed."
    others = accuracy_matrix(zoo).drop(columns=target).mean(axis=1)
    rng = np.random.default_rng([random_state, *target.encode()])
    noise = pd.Series(rng.normal(size=len(others)), others.index)
    return pd.DataFrame(
        {m: others if m == "history-mean" else others + 0.2 * len(m) * noise for m in methods}
    )


def learner_of(method):
    return method.split(",")[1] if "," in method else None


METHODS = ["TG,N2V,a", "history-mean", "TG,N2V,bb", "TG,GAT"]
OPTIONS = {"predict": predict, "learner_of": None, "progress": False}


def run(zoo, out=None, methods=METHODS, **options):
    return evaluate(zoo, methods, out=out, **(OPTIONS | options))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_methods_that_share_a_learner_are_one_task():
    tasks = plan_tasks(["x", "y"], METHODS, [0, 1], learner_of)
    assert len(tasks) == 2 * 2 * 3
    assert [t.methods for t in tasks[:3]] == [("TG,N2V,a", "TG,N2V,bb"), ("history-mean",), ("TG,GAT",)]
    assert [(t.target, t.seed) for t in tasks[::3]] == [("x", 0), ("x", 1), ("y", 0), ("y", 1)]


def test_tables_and_their_order(zoo, tmp_path):
    predictions, metrics, summary = run(
        zoo, tmp_path, targets=["t2", "t0"], seeds=[1, 0, 1], learner_of=learner_of
    )
    for table, name in zip((predictions, metrics, summary), COLUMNS):
        assert list(table.columns) == COLUMNS[name]
        read = pd.read_csv(tmp_path / f"{name}.csv", float_precision="round_trip")
        pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-8)
    keys = predictions[["target", "method", "seed", "model"]].apply(tuple, axis=1).tolist()
    assert keys == list(itertools.product(["t0", "t2"], METHODS, [0, 1], [f"m{i:02d}" for i in range(10)]))
    assert metrics[["target", "method", "metric"]].apply(tuple, axis=1).tolist() == list(
        itertools.product(["t0", "t2"], METHODS, RANK_METRICS)
    )
    assert sorted(files(tmp_path)) == ["metrics.csv", "predictions.csv", "summary.csv"]
    # What was written gives the same metrics as what was computed, to the last digit.
    again = evaluate_predictions(zoo, read_predictions(tmp_path), out=tmp_path / "again")
    pd.testing.assert_frame_equal(again[1], metrics)
    assert files(tmp_path / "again") == {n: (tmp_path / n).read_bytes() for n in files(tmp_path / "again")}


def test_seeds_are_averaged_and_their_spread_is_shown(zoo):
    predictions, metrics, summary = run(zoo, methods=["mean", "noisy"], seeds=[3, 4])
    values = (
        per_seed_metrics(zoo, predictions)
        .set_index(["target", "method", "metric", "seed"])["value"]
        .sort_index()
    )
    row = metrics.set_index(["target", "method", "metric"]).loc[("t1", "noisy", "spearman")]
    both = values["t1", "noisy", "spearman"]
    assert row["value"] == pytest.approx(both.mean()) and row["seed_sd"] == pytest.approx(both.std())
    assert row["n_seeds"] == 2
    assert (summary[summary["method"] == "history-mean"]["seed_sd"] == 0).all()
    assert summary.set_index(["method", "metric"]).loc[("noisy", "spearman"), "seed_sd"] > 0


@pytest.mark.slow
def test_several_processes_write_the_same_bytes_as_one(zoo, tmp_path):
    run(zoo, tmp_path / "one", learner_of=learner_of)
    run(zoo, tmp_path / "two", learner_of=learner_of, n_jobs=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_tasks_run_here_or_in_processes_of_one_thread(zoo):
    import torch

    tasks = plan_tasks(["t0", "t1", "t2"], ["mean", "TG,GAT"], [0], learner_of)
    before, seen = torch.get_num_threads(), []

    def asking(zoo, target, methods, **options):
        seen.append(target)
        values = (os.getpid(), torch.get_num_threads())
        return pd.DataFrame({m: values for m in methods}, ["m00", "m01"])

    torch.set_num_threads(2)
    try:
        here = predict_tasks(zoo, tasks, {}, asking, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == ["t0", "t0", "t1", "t1", "t2", "t2"]
    assert set(here["score"][::2]) == {os.getpid()} and set(here["score"][1::2]) == {1}
    there = predict_tasks(zoo, tasks, {}, asking, 2, progress=False)
    assert len(seen) == 6 and os.getpid() not in set(there["score"][::2]) and set(there["score"][1::2]) == {1}
    assert here.index.tolist() == there.index.tolist() == list(range(12))


def test_results_of_other_code_have_other_names(tmp_path, monkeypatch):
    import transfergraph
    from transfergraph.run.files import code_version

    def version(*parts):
        code_version.cache_clear()
        return code_version(*parts)

    (tmp_path / "part").mkdir()
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "part" / "b.py").write_text("2")
    monkeypatch.setattr(transfergraph, "__file__", str(tmp_path / "__init__.py"))
    first, task = version(), Task("t0", 0, None, ("mean",))
    key = task_key("zoo", task, {}, len)
    assert version() == first
    (tmp_path / "part" / "b.py").write_text("3")  # a module in a sub-package
    assert version() != first and task_key("zoo", task, {}, len) != key
    (tmp_path / "part" / "b.py").write_text("2")
    (tmp_path / "b.txt").write_text("no code")
    assert version() == first
    of_part = version("part")
    (tmp_path / "a.py").write_text("4")
    assert version() != first and version("part") == of_part
    monkeypatch.setattr(transfergraph, "__version__", "0")
    assert version("part") != of_part
    monkeypatch.undo()
    code_version.cache_clear()


def test_a_table_may_go_to_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "c.csv"
    write_csv(pd.DataFrame({"x": [1 / 3]}), path)
    write_csv(pd.DataFrame({"x": [2 / 3]}), path)
    assert path.read_text() == "x\n0.666666667\n" and list(path.parent.iterdir()) == [path]


class Counting:
    "Fails on some calls, counts all; as an instance it has no name, so all of them share one."

    def __init__(self, fail_at=None, error=KeyboardInterrupt):
        self.calls, self.fail_at, self.error = [], fail_at, error

    def __call__(self, zoo, target, methods, **options):
        self.calls.append((target, options["random_state"]))
        if len(self.calls) == self.fail_at:
            raise self.error("stop")
        return predict(zoo, target, methods, **options)

    def __repr__(self):
        return "Counting"


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt, KeyboardInterrupt), (ValueError, ValueError), (KeyError, RuntimeError)],
)
def test_a_stopped_run_goes_on_where_it_stood(zoo, tmp_path, error, raised):
    run(zoo, tmp_path / "whole", predict=Counting(), seeds=[0])
    with pytest.raises(raised) as stop:
        run(zoo, tmp_path / "out", predict=Counting(3, error), seeds=[0])
    if raised is not KeyboardInterrupt:
        assert "stop" in str(stop.value) and "target 't2', seed 0, methods TG,N2V,a history-mean" in str(
            stop.value
        )
    assert len(files(tmp_path / "out" / ".parts")) == 2 and len(list((tmp_path / "out").iterdir())) == 1
    rest = Counting()
    run(zoo, tmp_path / "out", predict=rest, seeds=[0])
    assert rest.calls == [("t2", 0), ("t3", 0)]
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["digit", "cut", "empty", "other"])
def test_a_damaged_result_of_a_task_is_made_again(zoo, tmp_path, damage):
    run(zoo, tmp_path / "whole", predict=Counting(), seeds=[0])
    with pytest.raises(KeyboardInterrupt):
        run(zoo, tmp_path / "out", predict=Counting(3, KeyboardInterrupt), seeds=[0])
    first, second = sorted((tmp_path / "out" / ".parts").iterdir())
    content = first.read_bytes()
    at = content.rindex(b".") + 1
    first.write_bytes(
        {
            "digit": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :],
            "cut": content[: content.rindex(b"\n", 0, -1) + 1],
            "empty": b"",
            "other": second.read_bytes(),
        }[damage]
    )
    rest = Counting()
    run(zoo, tmp_path / "out", predict=rest, seeds=[0])
    assert len(rest.calls) == 3 and rest.calls[1:] == [("t2", 0), ("t3", 0)]
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_parts_of_another_question_are_not_taken_up(zoo, tmp_path):
    def stopped_run(zoo, **options):
        with pytest.raises(KeyboardInterrupt):
            run(zoo, tmp_path, **({"predict": Counting(4), "seeds": [0]} | options))

    stopped_run(zoo)
    other = Zoo(zoo.models, zoo.datasets, zoo.records.assign(accuracy=zoo.records["accuracy"] / 2)).validate()
    for options in (
        {"seeds": [1]},
        {"methods": METHODS[:2]},
        {"protocol": "published"},
        {"history_ratio": 0.5},
        {"model_ratio": 0.5},
        {"graph": {"threshold": 0.4}},
    ):
        stopped_run(zoo, **options)
    stopped_run(other)
    assert len(files(tmp_path / ".parts")) == 3 * 8
    task = plan_tasks(["t0"], METHODS, [0], learner_of)[0]
    assert task_key(zoo.fingerprint, task, {}, predict) == task_key(make_zoo().fingerprint, task, {}, predict)
    assert task_key(zoo.fingerprint, task, {}, predict) != task_key(zoo.fingerprint, task, {}, learner_of)


def test_a_failing_task_in_another_process_is_named(zoo, tmp_path):
    def fails(zoo, target, methods, **options):
        if target == "t3":
            raise ZeroDivisionError("no luck")
        return predict(zoo, target, methods, **options)

    with pytest.raises(
        RuntimeError, match=r"ZeroDivisionError: no luck \(target 't3', seed 0, methods history-mean\)"
    ):
        run(zoo, tmp_path, methods=["mean"], seeds=[0], predict=fails, n_jobs=2)
    assert len(files(tmp_path / ".parts")) >= 1
    run(zoo, tmp_path, methods=["mean"], seeds=[0])
    assert sorted(files(tmp_path)) == ["metrics.csv", "predictions.csv", "summary.csv"]


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.slow
def test_ctrl_c_keeps_finished_tasks_and_leaves_no_process(tmp_path, n_jobs):
    make_zoo().save(tmp_path / "zoo")
    script = f"""
        import time
        from transfergraph.evaluate.leave_one_out import evaluate
        from transfergraph.zoo.matrices import accuracy_matrix, score_matrix
        from transfergraph.zoo.tables import Zoo

        def slow(zoo, target, methods, **options):
            if target == "t3":
                time.sleep(600)
            return accuracy_matrix(zoo)[["t0"]].set_axis(methods, axis=1)

        evaluate(Zoo.load({str(tmp_path / "zoo")!r}), ["mean"], seeds=[0], predict=slow, n_jobs={n_jobs},
                 out={str(tmp_path / "out")!r})
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=ROOT,
    )
    parts = tmp_path / "out" / ".parts"
    until(lambda: len(list(parts.glob("*.csv"))) == 3, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
    _, stderr = process.communicate(timeout=PATIENCE)
    assert b"KeyboardInterrupt" in stderr and process.returncode != 0
    assert len(list(parts.glob("*.csv"))) == 3 == len(list(parts.iterdir()))
    until(lambda: group_is_gone(process.pid))  # workers included


def test_a_score_that_is_missing_stays_missing_and_an_infinite_one_is_an_error(zoo):
    def partly(zoo, target, methods, **options):
        scores = predict(zoo, target, methods, **options)
        scores.iloc[:3] = np.nan
        return scores

    predictions, metrics, _ = run(zoo, methods=["mean"], seeds=[0], predict=partly)
    assert predictions["score"].isna().sum() == 3 * 4
    assert (metrics[metrics["metric"] == "n_models"]["value"] == 7).all()
    with pytest.raises(ValueError, match=r"infinite score \(target 't0', seed 0"):
        run(zoo, predict=lambda *a, **o: predict(*a, **o) * np.inf)
    with pytest.raises(ValueError, match="expected one per method"):
        run(zoo, predict=lambda zoo, target, methods, **o: predict(zoo, target, methods[:1], **o))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": []}, "no methods to evaluate"),
        ({"targets": []}, "no targets to evaluate"),
        ({"seeds": []}, "no seeds to evaluate"),
        ({"targets": ["t9"]}, "target 't9' is not a dataset of this zoo; its targets: t0, t1, t2, t3"),
        ({"seeds": [0.5]}, "seed 0.5: expected a whole number"),
        ({"seeds": [-1]}, "seed -1: expected a whole number"),
        ({"n_jobs": 0}, "jobs 0: expected a whole number, 1 or more"),
        ({"history_ratio": 0}, "history_ratio 0: expected more than 0 and at most 1"),
        ({"model_ratio": 1.5}, "model_ratio 1.5: expected"),
        ({"protocol": "dirty"}, "protocol 'dirty' is unknown"),
    ],
)
def test_a_wrong_question_is_refused_before_anything_runs(zoo, tmp_path, options, message):
    counting = Counting()
    with pytest.raises(ValueError, match=message):
        run(zoo, tmp_path, **({"predict": counting} | options))
    assert counting.calls == [] and list(tmp_path.iterdir()) == []


def test_the_bar_goes_to_stderr(zoo, capsys):
    run(zoo, targets=["t1"], seeds=[0], learner_of=learner_of, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err and "t1 GAT" in err
    run(zoo, targets=["t1"], seeds=[0])
    assert capsys.readouterr() == ("", "")
    evaluate(zoo, ["mean"], targets=["t1"], seeds=[0], predict=predict)
    assert "1/1" in capsys.readouterr().err


def test_an_unknown_method_is_refused_by_the_library_s_own_predictors(zoo, tmp_path):
    for wrong in ("LogMe", "TG:LR,N2V,nothing"):
        with pytest.raises(ValueError, match=wrong):
            evaluate(zoo, ["mean", wrong], progress=False, out=tmp_path)
    assert list(tmp_path.iterdir()) == []  # before anything runs


def test_check_predictions_leaves_its_argument_alone(zoo):
    rows = pd.DataFrame(
        {"target": "t0", "method": "m", "model": ["m00", "m01"], "score": [1, 2]}, index=[7, 9]
    )
    checked = check_predictions(zoo, rows)
    assert list(rows.columns) == ["target", "method", "model", "score"] and rows.index.tolist() == [7, 9]
    assert checked.index.tolist() == [0, 1] and checked["score"].dtype == float
