"""`TG:kriging`: its formulas against direct computation, its promises where the truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from transfergraph.cli.program import main
from transfergraph.metrics import spearman
from transfergraph.predict.covariance import (
    CovarianceFit,
    KnownLabels,
    dataset_similarities,
    known_moments,
    normal_ranks,
    shared_share,
)
from transfergraph.predict.kriging import Kriging
from transfergraph.predict.landmarks import choose_landmarks, condition_on, fit_shapes, remaining_covariance
from transfergraph.predict.methods import needs_of, predict_target
from transfergraph.recommend.transfergraph import TransferGraph
from transfergraph.zoo.matrices import DatasetDescription, hide_target
from transfergraph.zoo.synthetic import toy_zoo
from transfergraph.zoo.tables import Zoo, write_tables


def themed_zoo(n=40, d=16, themes=2, luck=0.02, tell=True, seed=0, missing=0.0):
    "Models that are good or bad by theme; words tell the theme of a dataset, or nothing."
    rng = np.random.default_rng(seed)
    theme = np.arange(d) % themes
    skill = rng.normal(size=(n, themes)) + rng.normal(size=(n, 1))
    accuracy = 0.6 + 0.06 * skill[:, theme] + luck * rng.normal(size=(n, d))
    accuracy = np.where(rng.random((n, d)) < missing, np.nan, accuracy.clip(0, 1))
    family = [f"family {i % 4}" for i in range(n)]
    zoo = toy_zoo(pd.DataFrame(accuracy).add_prefix("d"), family=family, n_params=rng.uniform(1e6, 1e9, n))
    about = np.eye(themes)[theme] if tell else rng.normal(size=(d, themes))
    words = about + 0.2 * rng.normal(size=about.shape)
    rows = [(f"d{i}", "words", vector.tolist()) for i, vector in enumerate(words)]
    return replace(zoo, embeddings=pd.DataFrame(rows, columns=["dataset", "method", "vector"])).validate()


@pytest.mark.parametrize("learner", ["N2V", "SAGE"])
def test_words_change_a_graph_method_where_there_are_any_and_nothing_else(learner):
    names = [f"TG:LR,{learner},all", f"TG:LR,{learner},all+words"]
    zoo = themed_zoo(n=12, d=6)
    plain, told = predict_target(zoo, "d0", names).to_numpy().T
    assert np.abs(plain - told).max() > 1e-3
    mute = replace(zoo, embeddings=Zoo().embeddings)
    without, still = predict_target(mute, "d0", names).to_numpy().T
    assert (without == still).all() and (without == plain).all()


def true(zoo, name):
    return zoo.records[zoo.records["dataset"] == name].set_index("model")["accuracy"]


def test_what_is_expected_of_a_left_out_column_is_kriging_without_it():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(30, 7))
    labels[rng.random(labels.shape) < 0.3] = np.nan
    root = rng.normal(size=(7, 7))
    covariance = root @ root.T + np.eye(7)
    found = KnownLabels.of(labels).krige_others(covariance, np.arange(7))
    for column in range(7):
        others = np.setdiff1d(np.arange(7), column)
        rest = KnownLabels.of(labels[:, others])
        direct = rest.krige(covariance[np.ix_(others, others)], covariance[column, others])
        assert np.allclose(found[:, column], direct)


def test_weights_are_found_where_the_covariance_is_of_the_assumed_form():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    alike = points @ points.T
    truth = 0.4 + 0.4 * alike + 0.2 * np.eye(40)
    labels = rng.multivariate_normal(np.zeros(40), truth, 2000)
    fit = CovarianceFit(*known_moments(labels), {"words": alike}, strength=0.01, own_loadings=False)
    assert np.allclose(fit.covariance().weights, [0.4, 0.4], atol=0.04)
    assert np.linalg.eigvalsh(fit.covariance().matrix({"words": alike}, 40)).min() > 0


def test_weights_have_the_largest_likelihood():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    kinds = {"words": points @ points.T, "task": np.equal.outer(np.arange(20) % 4, np.arange(20) % 4) * 1.0}
    truth = 0.4 + 0.2 * kinds["words"] + 0.2 * kinds["task"] + 0.2 * np.eye(20)
    moments, counts = known_moments(rng.multivariate_normal(np.zeros(20), truth, 100))
    fit = CovarianceFit(moments, counts, kinds, strength=1e-6, own_loadings=False)
    found = fit.covariance()

    def likelihood(weights):
        matrix = replace(found, weights=weights).matrix(kinds, 20)
        return -np.linalg.slogdet(matrix)[1] - np.trace(np.linalg.solve(matrix, moments))

    moved = [found.weights + sign * 0.04 * which for sign in (1, -1) for which in np.eye(3)]
    apart = np.triu_indices(20, 1)
    columns = np.column_stack([np.ones(190), *(kind[apart] for kind in kinds.values())])
    moved.append(np.linalg.lstsq(columns, moments[apart])[0])
    assert likelihood(found.weights) > max(map(likelihood, moved))


def test_similarities_need_not_be_a_covariance():
    rng = np.random.default_rng(0)
    odd = np.where(np.eye(12, dtype=bool), 1.0, np.round(rng.random((12, 12))))
    odd = np.maximum(odd, odd.T)
    assert np.linalg.eigvalsh(odd).min() < -1
    labels = rng.normal(size=(40, 12)) + rng.normal(size=(40, 1))
    found = CovarianceFit(*known_moments(labels), {"probe": odd}).covariance(np.array([3]))
    assert np.isfinite(found.weights).all() and found.weights[0] > found.weights[1]


def test_a_dataset_of_noise_has_a_small_loading():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(500, 1)) + 0.5 * rng.normal(size=(500, 10))
    labels[:, 3] = rng.normal(size=500)
    loadings = CovarianceFit(*known_moments(labels), {}).covariance().loadings
    assert loadings[3] < 0.3 < 0.8 < np.delete(loadings, 3).min()


def test_ranks_ignore_columns_without_differences_and_facts_are_shared_parts():
    found = normal_ranks(np.array([[0.5, 0.1], [0.5, 0.2], [0.5, np.nan]]))
    assert np.isnan(found[:, 0]).all() and found[0, 1] < 0 < found[1, 1] and np.isnan(found[2, 1])
    assert shared_share(["a|b", "b", None]).tolist() == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("method", ["TG:kriging", "TG:factors"])
def test_words_tell_which_models_are_good_and_the_mean_does_not(method):
    zoo = themed_zoo()
    gains = []
    for name in ("d0", "d1", "d2"):
        scores = predict_target(zoo, name, [method, "history-mean"]).loc[true(zoo, name).index]
        worth = [spearman(true(zoo, name).to_numpy(), scores[m].to_numpy()) for m in scores]
        gains.append(worth[0] - worth[1])
    assert min(gains) > 0.05


def test_where_words_tell_nothing_little_is_lost():
    gains = []
    for seed in range(4):
        zoo = themed_zoo(n=30, d=10, themes=1, luck=0.06, tell=False, seed=seed)
        for name in ("d0", "d1", "d2"):
            scores = predict_target(zoo, name, ["TG:kriging", "history-mean"]).loc[true(zoo, name).index]
            worth = [spearman(true(zoo, name).to_numpy(), scores[m].to_numpy()) for m in scores]
            gains.append(worth[0] - worth[1])
    assert np.mean(gains) > -0.005 and min(gains) > -0.1


def test_the_targets_records_change_nothing():
    zoo = themed_zoo(missing=0.2)
    nonsense = zoo.records.assign(accuracy=zoo.records["accuracy"].where(zoo.records["dataset"] != "d3", 0.1))
    found = predict_target(zoo, "d3", ["TG:kriging"])
    again = predict_target(replace(zoo, records=nonsense), "d3", ["TG:kriging"])
    pd.testing.assert_frame_equal(found, again, check_exact=True)
    assert needs_of("TG:kriging") == "words"


def test_runs_on_the_dataset_tell_of_the_others():
    rng, gains = np.random.default_rng(0), []
    zoo = themed_zoo(n=40, themes=4, d=20, tell=False)
    for name in ("d0", "d1", "d2", "d3"):
        ranker = Kriging(intervals=False).fit(hide_target(zoo, name), "image")
        accuracy = true(zoo, name)
        runs = accuracy[rng.choice(accuracy.index, 10, replace=False)].to_dict()
        rest = accuracy.index.difference(list(runs))
        plain, told = (ranker.predict(name, given)["accuracy"] for given in (None, runs))
        assert told[list(runs)].to_dict() == pytest.approx(runs)
        worth = [spearman(accuracy[rest].to_numpy(), p[rest].to_numpy()) for p in (told, plain)]
        gains.append(worth[0] - worth[1])
    assert np.mean(gains) > 0.02


def test_conditioning_finds_level_and_spread():
    rng = np.random.default_rng(0)
    shapes = fit_shapes(0.5 + 0.1 * rng.normal(size=(300, 12)))
    mean, rows = np.linspace(-2, 2, 41), np.arange(0, 41, 4)
    covariance = 0.01 * np.eye(41)
    given = condition_on(mean, covariance[:, rows], rows, 0.7 + 0.09 * mean[rows], shapes)
    assert given.level == pytest.approx(0.7, abs=0.01) and given.width == pytest.approx(0.09, rel=0.15)
    assert np.allclose(given.accuracy(given.mean), 0.7 + 0.09 * mean, atol=0.01)
    left = remaining_covariance(covariance + 0.02, rows)
    assert np.diag(left)[rows].max() < 1e-4 and (np.diag(left) <= 0.03 + 1e-9).all()


def test_a_few_runs_turn_the_order_round_where_good_models_are_bad():
    zoo = themed_zoo(n=60, d=14, themes=1, seed=1)
    records = zoo.records.copy()
    odd = records["dataset"].isin(["d0", "d1"])  # one to learn from that such datasets exist, one to ask for
    records.loc[odd, "accuracy"] = 1.2 - records.loc[odd, "accuracy"]
    zoo = replace(zoo, records=records)
    ranker, accuracy = Kriging(intervals=False).fit(hide_target(zoo, "d0"), "image"), true(zoo, "d0")
    runs = accuracy[ranker.landmarks("d0", 10)].to_dict()
    rest = accuracy.index.difference(list(runs))
    plain, told = (ranker.predict("d0", given)["accuracy"][rest] for given in (None, runs))
    assert spearman(accuracy[rest].to_numpy(), plain.to_numpy()) < -0.5
    assert spearman(accuracy[rest].to_numpy(), told.to_numpy()) > 0.5


def test_conditioning_takes_the_shape_that_fits_the_runs():
    rng = np.random.default_rng(0)
    normal, labels = rng.normal(size=(200, 12)), np.linspace(-2, 2, 41)
    steps = np.where(normal > 0.8, 0.9, 0.3) + 0.02 * normal  # most models fail, a fifth does well
    shapes = fit_shapes(np.column_stack([0.5 + 0.1 * normal[:, :9], steps[:, 9:]]))
    covariance, rows = 0.05 * np.eye(41), np.arange(0, 41, 4)
    stepped = np.where(labels > 0.8, 0.9, 0.3) + 0.02 * labels
    given = condition_on(labels, covariance[:, rows], rows, stepped[rows], shapes)
    off = np.abs(given.accuracy(labels) - stepped)
    assert np.median(off) < 0.02
    only = replace(shapes, each=shapes.each[:1])
    typical = condition_on(labels, covariance[:, rows], rows, stepped[rows], only)
    assert np.median(np.abs(typical.accuracy(labels) - stepped)) > 2 * np.median(off)


def test_landmarks_are_cheap_and_unlike_each_other():
    kin = np.kron(np.eye(4), np.full((5, 5), 0.8)) + 0.2 * np.eye(20)
    assert sorted(row // 5 for row in choose_landmarks(kin, 4)) == [0, 1, 2, 3]
    costs = np.tile([1e10, 1e10, 1e6, 1e10, 1e10], 4)
    assert sorted(choose_landmarks(kin, 4, costs)) == [2, 7, 12, 17]
    allowed = np.arange(20) >= 15
    assert min(choose_landmarks(kin, 9, allowed=allowed)) >= 15


def test_probabilities_hold_on_datasets_that_were_left_out():
    said, was = [], []
    for seed in range(3):
        zoo = themed_zoo(n=25, d=14, luck=0.03, seed=seed)
        for name in zoo.targets[:6]:
            ranker = Kriging().fit(hide_target(zoo, name), "image")
            found, accuracy = ranker.chances(name), true(zoo, name)
            assert found["best"].sum() == pytest.approx(1) and found["first"].is_monotonic_increasing
            said.append(found["first"].iloc[4])
            was.append(accuracy[found.index[:5]].max() >= accuracy.max() - 0.01)
    assert abs(np.mean(said) - np.mean(was)) < 0.25


def test_a_model_without_records_is_expected_to_be_like_its_family():
    zoo = themed_zoo(n=24, d=8, themes=1)
    level = zoo.models["family"].map({"family 0": 0.2, "family 1": 0.1}).fillna(0.0)
    level = dict(zip(zoo.models["model"], level))
    records = zoo.records.assign(accuracy=zoo.records["accuracy"].clip(0.5, 0.6))
    records["accuracy"] += records["model"].map(level)
    records = records[~records["model"].isin(["m0", "m2"])].reset_index(drop=True)
    ranker = Kriging().fit(
        replace(hide_target(zoo, "d0"), records=records[records["dataset"] != "d0"]), "image"
    )
    expected = ranker.predict("d0")["accuracy"]
    assert expected["m0"] > expected["m2"]


@pytest.mark.parametrize("scored", [True, False])
def test_a_score_that_is_right_everywhere_is_trusted(scored):
    zoo = themed_zoo(n=20, d=6, tell=False, luck=0.05)
    rows = zoo.records.assign(metric="LogME", score=zoo.records["accuracy"])[
        ["model", "dataset", "metric", "score"]
    ]
    rows = rows if scored else rows[rows["dataset"] != "d0"]
    ranker = Kriging().fit(replace(hide_target(zoo, "d0"), scores=rows.reset_index(drop=True)), "image")
    worth = spearman(
        true(zoo, "d0").to_numpy(), ranker.predict("d0")["accuracy"][true(zoo, "d0").index].to_numpy()
    )
    assert (worth > 0.95) == scored


def test_a_fit_is_the_same_after_it_was_saved_and_refuses_what_it_cannot_read(tmp_path):
    zoo = hide_target(themed_zoo(missing=0.3), "d1")
    graph = TransferGraph(method="kriging").fit(zoo)
    graph.save(tmp_path / "fit")
    again = TransferGraph.load(tmp_path / "fit")
    for given in (None, {"m3": 0.9}):
        found = (g.rank("d1", observed=given) for g in (graph, again))
        pd.testing.assert_frame_equal(*found, check_exact=True)
    for wrong, told in (({"bert": 0.5}, "'bert' is not among"), ({"m1": 1.5}, "has accuracy 1.5")):
        with pytest.raises(ValueError, match=told):
            graph.rank("d1", observed=wrong)
    factors = TransferGraph(method="factors").fit(zoo)
    with pytest.raises(ValueError, match="method='kriging'"):
        factors.rank("d1", observed={"m1": 0.5})
    new = DatasetDescription("mine", "image", words=np.array([1.0, 0.0]))
    assert len(graph.landmarks(new, 5, ["m1", "m2", "m3"])) == 3


def test_kinds_of_similarity_that_tell_nothing_are_left_out():
    zoo = themed_zoo(d=6)
    ranker = Kriging().fit(replace(zoo, datasets=zoo.datasets.assign(task="digits")), "image")
    assert set(dataset_similarities(ranker.table)) == {"words", "words^4"}


def test_words_stand_in_for_a_sentence_that_a_dataset_has_not():
    zoo = themed_zoo(d=12)
    told = zoo.embeddings.assign(method="sentence")
    both = replace(zoo, embeddings=pd.concat([zoo.embeddings, told], ignore_index=True)).validate()
    ranker, words = Kriging().fit(both, "image"), np.array([1.0, 0.0])
    assert set(dataset_similarities(ranker.table)) == {"words", "words^4", "sentence", "sentence^4"}
    short, whole = (DatasetDescription("mine", "image", words=words, sentence=s) for s in (None, words))
    assert np.allclose(ranker.similarity(short), ranker.similarity(whole))
    assert ranker.similarity(short)[::2].min() > ranker.similarity(short)[1::2].max()


def test_rank_reads_accuracies_that_are_known(tmp_path, capsys):
    zoo = hide_target(themed_zoo(n=12, d=8), "d1")
    write_tables(tmp_path / "zoo", {table: getattr(zoo, table) for table in vars(zoo)})
    runs = tmp_path / "runs.csv"
    runs.write_text("model,accuracy\nm4,0.98\n")
    call = [
        "rank",
        str(tmp_path / "zoo"),
        "--dataset",
        "d1",
        "--observed",
        str(runs),
        "--json",
        "--top",
        "12",
    ]
    assert main(call) == 0
    out = capsys.readouterr()
    assert '"accuracy": 0.98,' in out.out and "1 accuracies on your data" in out.err
    runs.write_text("model,accuracy\nm4,98%\n")
    assert main(call) != 0 and "row 1, column 'accuracy': '98%'" in capsys.readouterr().err
    runs.write_text("name,accuracy\nm4,0.9\n")
    assert main(call) != 0 and "column 'model' is missing" in capsys.readouterr().err


def test_a_search_begins_with_what_is_good_in_general_and_finds_the_best(tmp_path):
    zoo = themed_zoo(n=30, d=14)
    truth = true(zoo, "d0").to_dict()
    graph = TransferGraph(method="kriging").fit(hide_target(zoo, "d0"))
    found = graph.select("d0", 6, truth.__getitem__, log=tmp_path / "log.jsonl").log
    means = pd.Series(graph.rankers["image"].candidates.means["mean"], graph.rankers["image"].table.models)
    assert found["model"].iloc[0] == means.idxmax() and found["model"].is_unique
    assert found["model"].iloc[2] == means.drop(found["model"].iloc[:2]).idxmax()
    assert found["accuracy"].max() >= max(truth.values()) - 0.02
