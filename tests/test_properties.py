"""What holds for any input: estimators and the evaluator (zoo and graph: in their own files)."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfergraph.evaluate.leave_one_out import evaluate, evaluate_predictions
from transfergraph.evaluate.summary import summarise
from transfergraph.metrics import bootstrap_mean
from transfergraph.scores.registry import TRANSFERABILITY_SCORES, inputs_of, score, score_all
from transfergraph.zoo.tables import Zoo

KINDS = ("noise", "separable", "constant", "collinear", "wide", "huge", "tiny", "sparse", "repeated")
FEATURE_SCORES = [m for m in TRANSFERABILITY_SCORES if inputs_of(m) == ("features", "labels")]
quick = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def samples(draw):
    "Features of every awkward kind, and labels with at least two classes."
    kind, seed = draw(st.sampled_from(KINDS)), draw(st.integers(0, 10**6))
    n, d, c = draw(st.integers(6, 40)), draw(st.integers(1, 12)), draw(st.integers(2, 4))
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(c), rng.integers(0, c, n - c)])
    x = rng.normal(size=(n, 60 if kind == "wide" else d))
    if kind == "separable":
        x += 50 * rng.normal(size=(c, x.shape[1]))[labels]
    elif kind == "constant":
        x[:] = 3.0
    elif kind == "collinear":
        x = x[:, :1] * np.arange(1, x.shape[1] + 1)
    elif kind in ("huge", "tiny"):
        x *= 1e12 if kind == "huge" else 1e-12
    elif kind == "sparse":
        x *= rng.random(x.shape) < 0.1
    elif kind == "repeated":
        x = x[rng.integers(0, 3, n)]
    return x, labels, rng


def value_of(metric, x, labels, rng):
    "A score, or the reason why there is none."
    try:
        if inputs_of(metric) == ("features", "labels"):
            return score(metric, x, labels)
        if inputs_of(metric) == ("features", "reference"):
            return score(metric, x, np.random.default_rng(5).normal(size=(len(x), 7)))
        p = np.random.default_rng(6).dirichlet(np.ones(5), len(x))
        return score(metric, p, labels)
    except ValueError as e:
        assert str(e).strip()
        return None


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
@quick
@given(samples())
def test_a_score_is_a_number_or_a_reason(metric, sample):
    "Whatever the features: never NaN, never another exception, and the inputs are left as they were."
    x, labels, rng = sample
    before = x.copy(), labels.copy()
    found = value_of(metric, x, labels, rng)
    assert found is None or (isinstance(found, float) and not math.isnan(found)), (metric, found)
    assert np.array_equal(x, before[0]) and np.array_equal(labels, before[1])
    again = value_of(metric, x, labels, rng)
    assert found == again


# Those that draw samples, mixtures or starts do so in the order of the rows.
ORDERLY = [m for m in FEATURE_SCORES if m not in ("N-LEEP", "PACTran-Dirichlet", "PACTran-Gamma")]


@pytest.mark.parametrize("metric", ORDERLY)
@quick
@given(samples())
def test_order_of_samples_and_names_of_classes_do_not_matter(metric, sample):
    x, labels, rng = sample
    if metric in ("k-NN", "logistic") and len(np.unique(x, axis=0)) < len(x):
        return  # equal samples of two classes: a vote that is a tie goes by their order
    found = value_of(metric, x, labels, rng)
    order, names = rng.permutation(len(x)), np.array([7, 2, 100, 5])
    moved = value_of(metric, x[order], names[labels[order]], rng)
    assert (found is None) == (moved is None)
    if found is not None and np.ptp(x, axis=0).max() > 1e-9:
        assert moved == pytest.approx(found, rel=2e-3, abs=2e-3 * max(1.0, abs(found)))


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
@pytest.mark.parametrize("wrong", ["nan", "inf", "length", "one class", "empty", "words", "three axes"])
def test_what_cannot_be_scored_is_a_value_error(metric, wrong):
    rng = np.random.default_rng(0)
    first = (
        rng.dirichlet(np.ones(5), 20) if "probabilities" in inputs_of(metric) else rng.normal(size=(20, 5))
    )
    second = np.arange(20) % 3 if "labels" in inputs_of(metric) else rng.normal(size=(20, 4))
    if wrong in ("nan", "inf"):
        first[3, 2] = float(wrong)
    elif wrong == "length":
        second = second[:-1]
    elif wrong == "one class":
        second = np.zeros_like(second)
        if "labels" not in inputs_of(metric):
            first = first[:0]
    elif wrong == "empty":
        first, second = first[:0], second[:0]
    elif wrong == "words":
        first = np.array([["a"] * 5] * 20)
    else:
        first = first[:, :, None]
    try:
        found = score(metric, first, second)
    except ValueError as e:
        assert str(e).strip()
    else:
        assert wrong == "one class" and not math.isnan(found), (metric, found)


@quick
@given(samples())
def test_scores_together_are_those_one_by_one(sample):
    x, labels, rng = sample
    together = score_all(x, labels, random_state=0)
    for metric in ("LogME", "H-score", "TransRate", "GBC", "PARC"):
        alone = value_of(metric, x, labels, rng)
        if metric in together and alone is not None and np.ptp(x, axis=0).max() > 1e-9:
            assert together[metric] == pytest.approx(alone, rel=1e-6, abs=1e-6 * max(1.0, abs(alone)))


@st.composite
def zoos(draw):
    "A zoo in which every dataset has at least two models."
    n, k, seed = draw(st.integers(2, 7)), draw(st.integers(2, 4)), draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    coarse = draw(st.booleans())
    rows = [
        (f"m{i}", f"d{j}", round(rng.random(), 1 if coarse else 6))
        for i in range(n)
        for j in range(k)
        if i < 2 or rng.random() < 0.7
    ]
    return Zoo(
        pd.DataFrame({"model": [f"m{i}" for i in range(n)], "modality": "image", "n_params": 1e6}),
        pd.DataFrame({"dataset": [f"d{j}" for j in range(k)], "modality": "image", "role": "target"}),
        pd.DataFrame(rows, columns=["model", "dataset", "accuracy"]),
    ).validate()


def guesses(zoo, make):
    "Predictions of a made-up method."
    rows = [("d", make(r), r) for r in zoo.records.to_dict("records")]
    table = pd.DataFrame([(r["dataset"], "made", r["model"], s, 0) for _, s, r in rows])
    return table.set_axis(["target", "method", "model", "score", "seed"], axis=1)


def metrics_of(zoo, predictions):
    table = evaluate_predictions(zoo, predictions)[1]
    return table.pivot(index="target", columns="metric", values="value")


@quick
@given(zoos(), st.integers(0, 10**6))
def test_metrics_stay_in_their_range_and_know_a_perfect_ranking(zoo, seed):
    rng = np.random.default_rng(seed)
    random = metrics_of(zoo, guesses(zoo, lambda r: rng.normal()))
    for metric in ("pearson", "spearman", "kendall", "weighted_kendall"):
        assert random[metric].dropna().between(-1 - 1e-9, 1 + 1e-9).all()
    for metric in ("regret@1", "regret@5"):
        assert random[metric].between(0, 1).all()
    assert (random["regret@1"] >= random["regret@5"] - 1e-12).all()
    assert random["ndcg@10"].between(0, 1 + 1e-9).all()
    perfect = metrics_of(zoo, guesses(zoo, lambda r: 3 * r["accuracy"] - 1))
    differ = zoo.records.groupby("dataset")["accuracy"].nunique() > 1
    varied = [d for d in perfect.index if differ[d]]
    assert np.allclose(perfect.loc[varied, ["pearson", "spearman"]], 1)
    assert (perfect["regret@1"] == 0).all() and np.allclose(perfect["ndcg@10"], 1)


@quick
@given(zoos(), st.integers(0, 10**6))
def test_metrics_do_not_see_the_order_of_rows_or_the_names_of_models(zoo, seed):
    rng = np.random.default_rng(seed)
    guess = guesses(zoo, lambda r: round(rng.normal(), 1))
    before = metrics_of(zoo, guess)
    shuffled = metrics_of(zoo, guess.sample(frac=1, random_state=seed % 1000))
    pd.testing.assert_frame_equal(before, shuffled)
    if (guess.groupby("target")["score"].nunique() == guess.groupby("target").size()).all():
        names = {m: f"z{9 - i}" for i, m in enumerate(zoo.models["model"])}
        renamed = Zoo(
            zoo.models.replace({"model": names}), zoo.datasets, zoo.records.replace({"model": names})
        ).validate()
        after = metrics_of(renamed, guess.replace({"model": names}))
        pd.testing.assert_frame_equal(before, after, rtol=1e-9)


@quick
@given(zoos(), st.floats(0, 1))
def test_what_is_known_of_the_target_never_reaches_a_prediction(zoo, other):
    "Leave-one-out leaves out: with other accuracies on the target, predictions for it are the same."
    methods = ["mean", "mean:z", "LR{metadata}"]

    def predictions(z):
        try:
            return evaluate(z, methods, targets=["d0"], seeds=[0], n_jobs=1, progress=False)[0]
        except ValueError as e:
            return str(e)

    changed = zoo.records.copy()
    at = changed["dataset"] == "d0"
    changed.loc[at, "accuracy"] = (changed.loc[at, "accuracy"] + other) % 1
    left, right = predictions(zoo), predictions(Zoo(zoo.models, zoo.datasets, changed).validate())
    if isinstance(left, str):
        assert left == right
    else:
        pd.testing.assert_frame_equal(left, right)


@quick
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.integers(0, 1000))
def test_a_bootstrap_interval_holds_its_mean_and_stays_within_the_values(values, seed):
    mean, low, high = (float(v[0]) for v in bootstrap_mean(np.array([values]), 500, random_state=seed))
    if len(values) == 1:
        assert math.isnan(low) and math.isnan(high)
        low = high = mean
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert mean == pytest.approx(np.mean(values))


@quick
@given(zoos())
def test_the_baseline_gains_nothing_over_itself(zoo):
    try:
        metrics = evaluate(zoo, ["mean"], seeds=[0], n_jobs=1, progress=False)[1]
    except ValueError:
        return
    summary = summarise(metrics.assign(seed=0), n_resamples=100)
    assert (summary["gain"].dropna() == 0).all() and (summary["gain_low"].dropna() == 0).all()
