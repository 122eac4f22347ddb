"""All scores by name: what holds for every one of them, and what `score_all` shares among them."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from transfergraph.scores import base as decomposition
from transfergraph.scores.base import Features, Labels, UndefinedScoreError
from transfergraph.scores.logme import EVIDENCE
from transfergraph.scores.registry import QUICK, TRANSFERABILITY_SCORES, inputs_of, score, score_all
from transfergraph.scores.separation import SEPARATION

pytestmark = pytest.mark.filterwarnings("error")
N, D, Z, C = 60, 10, 7, 3
WANTED = {
    *("LogME", "H-score", "H-score-shrinkage", "N-LEEP", "TransRate", "GBC", "PARC", "SFDA"),
    *("PACTran-Dirichlet", "PACTran-Gamma", "PACTran-Gaussian", "LFC", "k-NN", "logistic", "MSC"),
    *("RSA", "DDS", "DSE", "PA", "LEEP", "NCE"),
}
BY_INPUT = {
    kind: [name for name in TRANSFERABILITY_SCORES if inputs_of(name) == kind]
    for kind in (("features", "labels"), ("features", "reference"), ("probabilities", "labels"))
}
FROM_FEATURES = BY_INPUT["features", "labels"]
ANY_LABELS = ["LogME", "H-score", "H-score-shrinkage", "PARC", "k-NN"]  # others are defined for classes only


def given(random_state=0, n=N):
    rng = np.random.default_rng(random_state)
    labels = np.r_[np.arange(C), rng.integers(0, C, n - C)]
    features = rng.normal(1, 1, (n, D)) + rng.normal(size=(C, D))[labels]
    reference = features + rng.normal(size=(n, D))
    logits = features @ rng.normal(size=(D, Z))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {"features": features, "labels": labels, "reference": reference, "probabilities": probabilities}


def inputs(metric, **changed):
    values = {**given(), **changed}
    return [values[name] for name in inputs_of(metric)]


def test_every_score_of_the_field_is_there():
    assert set(TRANSFERABILITY_SCORES) >= WANTED
    assert sum(map(len, BY_INPUT.values())) == len(TRANSFERABILITY_SCORES)
    assert set(QUICK) < set(FROM_FEATURES)


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_every_score_says_what_it_is_where_it_comes_from_and_what_it_costs(metric):
    function = TRANSFERABILITY_SCORES[metric]
    text = inspect.getdoc(function)
    for heading in ("Source", "Meaning", "Range", "Between models", "Cost"):
        assert f"**{heading}.**" in text, f"{metric}: {heading}"
    assert re.search(r"\b(19|20)\d\d\b", text), f"{metric}: no year of a source"


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_a_score_is_one_finite_number_and_the_same_again(metric):
    value = score(metric, *inputs(metric))
    assert type(value) is float and np.isfinite(value)
    assert score(metric, *inputs(metric)) == value


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_a_score_takes_tensors_and_single_precision(metric):
    arrays = [value.astype(np.float32) if value.dtype == float else value for value in inputs(metric)]
    expected = score(
        metric, *[value.astype(float) if value.dtype == np.float32 else value for value in arrays]
    )
    assert score(metric, *arrays) == pytest.approx(expected, rel=1e-3)
    assert score(metric, *map(torch.tensor, arrays)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_inputs_are_left_as_they_are(metric):
    arrays = inputs(metric)
    before = [value.copy() for value in arrays]
    score(metric, *arrays)
    for value, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(value, copy)


# DSE, RSA and the like compare with a reference that random features resemble as little as constant ones do.
@pytest.mark.parametrize("metric", [*FROM_FEATURES, "LEEP", "NCE"])
def test_knowing_the_class_scores_higher_than_knowing_nothing(metric):
    rng, labels = np.random.default_rng(1), np.repeat(np.arange(C), 20)
    if metric in FROM_FEATURES:
        noise = rng.normal(size=(N, D))
        know, guess = noise + 5 * np.eye(C, D)[labels], noise
    else:
        know, guess = 0.8 * np.eye(Z)[labels] + 0.2 / Z, rng.dirichlet(np.ones(Z), N)
    assert score(metric, know, labels) > score(metric, guess, labels)


@pytest.mark.parametrize("metric", BY_INPUT["features", "reference"])
def test_a_likeness_of_the_reference_scores_higher_than_noise(metric):
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(N, D))
    near, far = reference + 0.1 * rng.normal(size=(N, D)), rng.normal(size=(N, D))
    assert score(metric, near, reference) > score(metric, far, reference)


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_constant_inputs_have_a_defined_score(metric):
    constant = {"features": np.full((N, D), 0.1, np.float32), "probabilities": np.full((N, Z), 1 / Z)}
    assert np.isfinite(score(metric, *inputs(metric, **constant)))


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_wide_features_and_single_samples_have_a_defined_score(metric):
    few = {name: value[:6] for name, value in given().items()}
    few["labels"] = np.array([0, 0, 0, 0, 1, 2])
    assert np.isfinite(score(metric, *inputs(metric, **few)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_the_first_bad_row_of_each_input_is_named(metric, bad):
    for position, name in enumerate(inputs_of(metric)):
        if name == "labels":
            continue
        arrays = inputs(metric)
        arrays[position] = arrays[position].copy()
        arrays[position][[41, 50], 3] = bad
        with pytest.raises(ValueError, match=rf"^{name}.*\b41\b"):
            score(metric, *arrays)


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_bad_labels_and_lengths_are_refused(metric):
    first, second = inputs_of(metric)
    with pytest.raises(ValueError, match=r"\b59\b.*\b60\b|\b60\b.*\b59\b"):
        score(metric, inputs(metric)[0], inputs(metric)[1][:-1])
    with pytest.raises(ValueError, match=f"^{first}"):
        score(metric, inputs(metric)[0][:1], inputs(metric)[1][:1])
    with pytest.raises(ValueError, match=f"^{first}"):
        score(metric, inputs(metric)[0][:, 0] * 1.5, inputs(metric)[1])
    if second == "labels":
        with pytest.raises(ValueError, match="labels: row 4 is -2; classes are numbered from 0"):
            score(metric, *inputs(metric, labels=np.r_[0, 1, 2, 0, -2, np.zeros(N - 5, int)]))
        with pytest.raises(ValueError, match="labels hold one class only"):
            score(metric, *inputs(metric, labels=np.zeros(N, int)))


@pytest.mark.parametrize("metric", ANY_LABELS)
def test_scores_with_a_definition_for_it_take_several_labels_and_real_numbers(metric):
    values = given()
    table = np.random.default_rng(3).integers(0, 2, (N, 4))
    assert np.isfinite(score(metric, values["features"], table))
    truth = values["features"] @ np.arange(D)
    noise = np.random.default_rng(4).normal(size=N)
    assert score(metric, values["features"], truth) > score(metric, values["features"], noise)


@pytest.mark.parametrize("labels", [np.eye(N, 4, dtype=int), np.arange(N) / 7], ids=["several", "real"])
@pytest.mark.parametrize("metric", sorted({*FROM_FEATURES, "LEEP", "NCE"} - {*ANY_LABELS}))
def test_other_scores_take_classes_only(metric, labels):
    with pytest.raises(UndefinedScoreError, match="this score is defined for integer classes"):
        score(metric, *inputs(metric, labels=labels))


def test_score_all_gives_what_each_score_gives():
    values = given()
    found = score_all(**values)
    assert list(found) == list(TRANSFERABILITY_SCORES)
    for metric in TRANSFERABILITY_SCORES:
        assert found[metric] == pytest.approx(score(metric, *inputs(metric)), rel=1e-6), metric


def test_score_all_decomposes_the_features_once_for_all_label_sets(monkeypatch):
    values, calls = given(), []
    eigh = decomposition.scipy.linalg.eigh
    monkeypatch.setattr(
        decomposition.scipy.linalg, "eigh", lambda *a, **k: calls.append(a[0].shape) or eigh(*a, **k)
    )
    sets = {"three": values["labels"], "two": values["labels"] > 0, "real": values["features"][:, 0]}
    found = score_all(values["features"], sets, ["H-score", "LogME", "H-score-shrinkage"])
    assert calls.count((D, D)) == 1
    for name, labels in sets.items():
        assert list(found[name]) == ["H-score", "LogME", "H-score-shrinkage"]
        assert found[name]["LogME"] == pytest.approx(score("LogME", values["features"], labels), rel=1e-6)


def test_score_all_leaves_out_what_the_labels_do_not_allow_and_says_so_where_it_was_asked_for():
    values = given()
    real = values["features"][:, 0] + 0.5
    found = score_all(values["features"], real)
    assert "LogME" in found and "k-NN" in found and "SFDA" not in found
    assert not {"RSA", "LEEP"} & set(found)
    with pytest.raises(
        ValueError, match="labels are real numbers; this score is defined for integer classes"
    ):
        score_all(values["features"], real, ["LogME", "SFDA"])
    with pytest.raises(ValueError, match="RSA needs reference, which was not given"):
        score_all(values["features"], real, ["RSA"])
    wider = np.c_[values["reference"], values["reference"]]
    assert "DSE" not in score_all(values["features"], values["labels"], reference=wider)


def test_an_unknown_metric_is_answered_with_its_neighbours():
    with pytest.raises(ValueError, match="metric 'LogMe' is not known; did you mean LogME"):
        score("LogMe", *inputs("LogME"))
    with pytest.raises(ValueError, match="metric '!!' is not known; known are LogME, "):
        inputs_of("!!")
    with pytest.raises(ValueError, match="LogME takes features and labels; 1 inputs were given"):
        score("LogME", given()["features"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
def test_a_score_on_a_gpu_is_the_score_on_the_cpu(metric):
    moved = [torch.tensor(value).cuda() for value in inputs(metric)]
    assert score(metric, *moved) == pytest.approx(score(metric, *inputs(metric)), rel=1e-6)


def test_a_feature_matrix_that_is_already_checked_is_taken_as_it_is():
    values = given()
    features = Features(values["features"])
    assert score("H-score", features, values["labels"]) == score(
        "H-score", values["features"], values["labels"]
    )


CHECKS = [
    test_every_score_says_what_it_is_where_it_comes_from_and_what_it_costs,
    test_a_score_is_one_finite_number_and_the_same_again,
    test_a_score_takes_tensors_and_single_precision,
    test_inputs_are_left_as_they_are,
    test_knowing_the_class_scores_higher_than_knowing_nothing,
    test_constant_inputs_have_a_defined_score,
    test_wide_features_and_single_samples_have_a_defined_score,
    test_bad_labels_and_lengths_are_refused,
]


def test_the_template_of_the_chapter_holds_what_all_scores_hold(monkeypatch):
    notebook = Path(__file__).parents[2] / "nbs/03_scores/07_registry.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"]]
    template = next(cell for cell in cells if "def nearest_mean(" in cell)
    space = {**given(), "TRANSFERABILITY_SCORES": {}, "score": lambda *inputs: None}
    exec(template, space)
    for name, function in space["TRANSFERABILITY_SCORES"].items():
        monkeypatch.setitem(TRANSFERABILITY_SCORES, name, function)
        for check in CHECKS:
            check(name)
        test_the_first_bad_row_of_each_input_is_named(name, np.nan)
    assert space["TRANSFERABILITY_SCORES"]


def test_a_new_score_does_not_enlarge_the_quick_ones():
    assert set(QUICK) == {*EVIDENCE, *SEPARATION}


@pytest.mark.parametrize("metric", FROM_FEATURES)
def test_whole_numbers_as_real_ones_are_asked_about(metric):
    values = given()
    with pytest.raises(ValueError, match="labels hold whole numbers as float64; expected integers"):
        score(metric, values["features"], values["labels"].astype(float))
    classes = Labels(values["labels"].astype(float), kind="classes")
    assert score(metric, values["features"], classes) == score(metric, values["features"], values["labels"])
