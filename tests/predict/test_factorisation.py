"""`TG:factors` against its definition, its promises, and zoos of which the truth is known."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import PATIENCE

from transfergraph.cli.program import main
from transfergraph.graph.build import build_graph, finetuned_on
from transfergraph.metrics import weighted_kendall
from transfergraph.predict.covariance import dataset_similarities
from transfergraph.predict.factorisation import (
    BayesianMatrixFactorization,
    fit_variational,
    model_features,
    standardise,
)
from transfergraph.predict.gaussian_process import EvidenceRidge, fit_nystrom, smooth, target_features
from transfergraph.predict.records import RecordTable, nearness
from transfergraph.recommend.transfergraph import TransferGraph, open_fit
from transfergraph.zoo.matrices import (
    DatasetDescription,
    accuracy_matrix,
    accuracy_pairs,
    min_max,
)
from transfergraph.zoo.synthetic import make_zoo
from transfergraph.zoo.tables import Zoo, read_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def drawn():
    "600 models on 120 datasets, 12,000 records: enough for factors to be chosen."
    return make_zoo(600, n_datasets=120, n_targets=12)


@pytest.fixture(scope="module")
def zoo(drawn):
    return drawn.zoo.validate()


@pytest.fixture(scope="module")
def fitted(zoo):
    return TransferGraph().fit(zoo)


def test_a_table_holds_the_mean_of_each_pair(zoo):
    twice = pd.concat([zoo.records, zoo.records.head(50).assign(accuracy=0.0)], ignore_index=True)
    other = zoo.records.head(5).assign(method="lora")
    bad = zoo.records.tail(5).assign(quality="chance")
    full = replace(zoo, records=pd.concat([twice, other, bad], ignore_index=True)).validate()
    table = RecordTable.from_zoo(full, "image")
    matrix = accuracy_matrix(full).reindex(index=table.models, columns=table.datasets)
    assert np.allclose(matrix.to_numpy()[table.rows, table.columns], table.values)
    assert len(table.rows) == matrix.notna().to_numpy().sum()
    assert not {"accuracy", "labels", "scores", "name_similarity"} & set(vars(table))  # nothing dense unasked
    with pytest.raises(ValueError, match="no fine-tuning record of text models"):
        RecordTable.from_zoo(full, "text")


def test_a_models_vector_is_the_posterior_of_a_linear_regression():
    "Given the datasets' vectors, exactly: Bishop, equations 3.50 and 3.51, with the expectation of v v'."
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(rng.random((40, 15)) < 0.4)
    z = rng.normal(size=len(rows))
    priors = (
        EvidenceRidge(np.hstack([np.full((40, 1), 10.0), rng.normal(size=(40, 2))])),
        EvidenceRidge(np.full((15, 1), 10.0)),
    )
    found = fit_variational(z, rows, columns, *priors, size=2, rounds=3)
    expected = priors[0].features @ found.model_weights
    for model in (0, 7, 39):
        mine = rows == model
        v, cov = found.datasets[columns[mine]], found.dataset_covariance[columns[mine]]
        precision = np.linalg.inv(found.spread_models)
        outer = np.einsum("ip,iq->pq", v, v) + cov.sum(0)
        covariance = np.linalg.inv(precision + outer / found.noise)
        right = precision @ expected[model] + v.T @ z[mine] / found.noise
        right -= (v * found.offsets[columns[mine], None]).sum(0) / found.noise
        assert np.allclose(found.models[model], covariance @ right)
        assert np.allclose(found.model_covariance[model], covariance)


def test_known_vectors_are_recovered():
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(400, 3)), rng.normal(size=(80, 3))
    truth = w @ v.T
    rows, columns = np.nonzero(rng.random(truth.shape) < 0.2)
    priors = EvidenceRidge(np.full((400, 1), 10.0)), EvidenceRidge(np.full((80, 1), 10.0))
    z = truth[rows, columns] + 0.1 * rng.normal(size=len(rows))
    found = fit_variational(z, rows, columns, *priors, size=3, rounds=60)
    hidden = np.ones(truth.shape, bool)
    hidden[rows, columns] = False
    guess = found.models @ found.datasets.T + found.offsets
    assert np.corrcoef(guess[hidden], truth[hidden])[0, 1] > 0.98 and found.noise < 0.05


def test_the_order_of_records_does_not_matter(zoo, drawn):
    shuffled = replace(zoo, records=zoo.records.sample(frac=1, random_state=0))
    one, other = (
        BayesianMatrixFactorization(intervals=False).fit(z, "image").predict(drawn.targets[0])["accuracy"]
        for z in (zoo, shuffled)
    )
    assert np.allclose(one, other, atol=1e-9)  # a pair may have two records


def test_threads_do_not_matter(tmp_path, zoo):
    zoo.save(tmp_path / "zoo")
    code = (
        "import sys; from transfergraph.predict.factorisation import *;"
        "from transfergraph.zoo.tables import *; z = Zoo.load(sys.argv[1]);"
        "f = BayesianMatrixFactorization().fit(z, 'image');"
        "print(f.learnt.vectors.models.sum().hex(), f.errors.sum().hex())"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "zoo")],
            env={**os.environ, "OMP_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n, "PYTHONHASHSEED": n},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        ).stdout
        for n in ("1", "2")
    ]
    assert said[0] == said[1] != ""


def test_they_order_models_better_than_the_mean_and_know_how_far_they_err(zoo, drawn, fitted):
    assert isinstance(fitted.rankers["image"], BayesianMatrixFactorization)
    names = zoo.models["model"]
    by_mean = min_max(accuracy_matrix(zoo)).mean(axis=1).reindex(names).fillna(0.5).to_numpy()
    gains, inside = [], []
    for target, truth in zip(drawn.targets, drawn.truth, strict=True):
        ranked = fitted.rank(target).set_index("model").reindex(names)
        gains.append(
            weighted_kendall(truth, ranked["accuracy"].to_numpy()) - weighted_kendall(truth, by_mean)
        )
        inside.append(((truth >= ranked["low"]) & (truth <= ranked["high"])).mean())
    assert np.mean(gains) > 0.03 and min(gains) > -0.02
    assert 0.8 < np.mean(inside) <= 1


def test_models_without_records_are_placed_by_what_is_known_of_them(zoo, drawn):
    rng = np.random.default_rng(0)
    new = set(rng.choice(zoo.models["model"], 120, replace=False))
    known = replace(zoo, records=zoo.records[~zoo.records["model"].isin(new)].reset_index(drop=True))
    graph, at = TransferGraph(method="factors").fit(known), zoo.models["model"].isin(new).to_numpy()
    found = [
        weighted_kendall(
            truth[at], graph.rank(t).set_index("model")["accuracy"].reindex(zoo.models["model"])[at]
        )
        for t, truth in zip(drawn.targets, drawn.truth, strict=True)
    ]
    assert np.mean(found) > 0.2
    ranking = graph.rank(drawn.targets[0]).set_index("model")
    assert ranking.loc[sorted(new), "why"].str.startswith("no record; family").all()


def test_other_records_move_the_models_vectors_only(zoo, fitted, drawn):
    learnt = fitted.rankers["image"].learnt
    table, target = learnt.table, target_features(learnt.table, learnt.nystrom, drawn.targets[0])
    assert np.allclose(learnt.read(table).expect(target), learnt.expect(target))
    none = replace(table, rows=table.rows[:0], columns=table.columns[:0], values=table.values[:0])
    alone = learnt.read(none)
    assert np.allclose(alone.vectors.models, learnt.features @ learnt.vectors.model_weights)
    with pytest.raises(ValueError, match="other models or datasets"):
        learnt.read(table.assume(models=table.models[1:]))


def test_what_explain_lists_adds_up(fitted, drawn):
    learnt = fitted.rankers["image"].learnt
    z = learnt.vectors.models @ learnt.vector(target_features(learnt.table, learnt.nystrom, drawn.targets[3]))
    for row in (0, 17):
        table = fitted.explain(f"model-{row}", drawn.targets[3])
        assert np.isclose(table["effect"].iloc[:-1].sum(), table["effect"].iloc[-1])
        assert np.isclose(table["effect"].iloc[-1], z[row] - z.mean())
        assert table["records"].iloc[-1] == (learnt.table.rows == row).sum()
    with pytest.raises(ValueError, match="model 'nobody' is not in the zoo"):
        fitted.explain("nobody", drawn.targets[3])


def test_why_names_the_two_nearest_data_sets_with_their_ranks(fitted, drawn, zoo):
    row = fitted.rank(drawn.targets[0], top=1).iloc[0]
    told = row["why"].split(", ")
    assert len(told) == 2
    place, _, count, _, name = told[0].split()
    pairs = accuracy_pairs(zoo)
    there = pairs[pairs["dataset"] == name].set_index("model")["accuracy"]
    assert int(count) == len(there) and int(place) == 1 + (there > there[row["model"]]).sum()


def test_a_saved_fit_ranks_as_before_and_holds_no_records(tmp_path, fitted, drawn):
    fitted.save(tmp_path / "fit")
    again = TransferGraph.load(tmp_path / "fit")
    for target in drawn.targets[:2]:
        pd.testing.assert_frame_equal(again.rank(target), fitted.rank(target))
        pd.testing.assert_frame_equal(again.explain("model-3", target), fitted.explain("model-3", target))
    assert not (tmp_path / "fit" / "zoo" / "records.parquet").exists() and again.zoo.records.empty
    with pytest.raises(ValueError, match="has records that the fit has learnt from"):
        again.rank("set-0")


@pytest.mark.parametrize("name", ["offsets", "records.rows", "datasets", "nystrom.vectors"])
def test_damaged_arrays_are_refused(fitted, zoo, name):
    arrays, facts = fitted.rankers["image"].state()
    arrays[name] = arrays[name] + 10**6 if name == "records.rows" else arrays[name][1:]
    with pytest.raises(ValueError, match=r"expected \d+ rows|not there"):
        BayesianMatrixFactorization.from_state(zoo, arrays, facts)


def test_a_search_replayed_from_the_truth(fitted, drawn, tmp_path):
    names, truth = fitted.zoo.models["model"], drawn.truth[1]
    of = dict(zip(names, truth, strict=True))
    found = fitted.select(drawn.targets[1], 8, of.get, log=tmp_path / "log.jsonl")
    top = fitted.rank(drawn.targets[1], 8)["model"].map(of)
    assert found.best["accuracy"] >= np.sort(truth)[-30] and found.best["accuracy"] >= top.max() - 0.02
    some = list(names[:5])
    assert set(fitted.select(drawn.targets[1], 9, of.get, models=some).log["model"]) == set(some)


def test_two_modalities_are_fitted_apart(drawn, zoo):
    small = make_zoo(60, n_datasets=30, n_targets=1, random_state=1)
    texts = {
        "models": small.zoo.models.assign(modality="text", model="t-" + small.zoo.models["model"]),
        "datasets": small.zoo.datasets.assign(modality="text", dataset="t-" + small.zoo.datasets["dataset"]),
        "records": small.zoo.records.assign(
            model="t-" + small.zoo.records["model"], dataset="t-" + small.zoo.records["dataset"]
        ),
        "embeddings": small.zoo.embeddings.assign(dataset="t-" + small.zoo.embeddings["dataset"]),
    }
    both = Zoo(**{k: pd.concat([getattr(zoo, k), rows], ignore_index=True) for k, rows in texts.items()})
    graph = TransferGraph().fit(both.validate())
    mine = replace(small.targets[0], name="mine", modality="text")
    assert graph.rank(mine)["model"].str.startswith("t-").all() and len(graph.rank(mine)) == 60
    assert len(graph.rank(drawn.targets[0])) == 600
    with pytest.raises(ValueError, match="model 'model-0' is not in the zoo as one for texts"):
        graph.explain("model-0", mine)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "set-3"}, "is in the zoo already"),
        ({"modality": "text"}, "of modality 'text'"),
        ({"embedding": np.ones(3)}, "expected 64 finite numbers"),
        ({"embedding": np.full(64, np.nan)}, "expected 64 finite numbers"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(fitted, drawn, change, message):
    with pytest.raises(ValueError, match=message):
        fitted.rank(replace(drawn.targets[0], **change))


def test_a_data_set_of_which_nothing_is_known_gets_the_general_order(fitted):
    ranking = fitted.rank(DatasetDescription("dark", "image"))
    assert len(ranking) == 600 and np.isfinite(ranking["accuracy"]).all()


def test_a_method_that_is_none_is_refused():
    with pytest.raises(ValueError, match="method is 'graph'"):
        TransferGraph(method="graph")


def toy(accuracy, **cards):
    rows, columns = np.nonzero(~np.isnan(accuracy))
    models, sets = (np.array([f"{kind}{i}" for i in range(n)]) for kind, n in zip("md", accuracy.shape))
    records = {"model": models[rows], "dataset": sets[columns], "accuracy": accuracy[rows, columns]}
    zoo = Zoo(
        models=pd.DataFrame({"model": models, "modality": "image", **cards}),
        datasets=pd.DataFrame({"dataset": sets, "modality": "image"}),
        records=pd.DataFrame(records),
    )
    return RecordTable.from_zoo(zoo.validate(), "image")


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(1, 6),
    st.sampled_from(["equal", "random", "extreme"]),
)
def test_whatever_the_records_predictions_are_accuracies(seed, n, d, kind):
    rng = np.random.default_rng(seed)
    values = {
        "equal": np.full((n, d), 0.5),
        "random": rng.random((n, d)),
        "extreme": rng.integers(0, 2, (n, d)) * 1.0,
    }
    accuracy = np.where(rng.random((n, d)) < 0.6, values[kind], np.nan)
    accuracy = accuracy[:, ~np.isnan(accuracy).all(0)]
    if not accuracy.shape[1]:
        return
    factors = BayesianMatrixFactorization(rounds=5).learn(toy(accuracy))
    found = factors.predict(DatasetDescription("new", "image", majority_share=0.1))
    assert found["accuracy"].between(-1e-3, 1 + 1e-3).all() and len(found) == n


def test_scales_do_not_break_where_all_is_equal():
    z, centre, spread = standardise(toy(np.full((4, 2), 0.7)))
    assert (z == 0).all() and (spread == 1).all() and np.allclose(centre, 0.7)


def test_rare_kinds_share_no_column():
    table = toy(np.eye(6), family=["a", "a", "b", "b", "c", None])
    features, told = model_features(table, most=2)
    assert told[5:] == ["family a", "family b"] and features.shape == (6, 7)
    assert features[4, 5:].nnz == features[5, 5:].nnz == 0


def test_a_dataset_among_the_known_has_their_coordinates():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 4))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    table = toy(1 / (1 + np.exp(-rng.normal(size=(50, 4)) @ points.T))).assume(distances=distances)
    nystrom, alike = fit_nystrom(table, dataset_similarities(table))
    assert np.allclose(np.diag(alike), 1) and np.isclose(sum(nystrom.weights.values()), 1)
    row = nystrom.similarity({"probe": nearness(distances, table.length_scale)[7:8]}, (1, 30))
    assert np.allclose(nystrom.coordinates(row), nystrom.coordinates(alike)[7:8])


def test_smooth_prefers_nothing_to_noise():
    rng = np.random.default_rng(0)
    taken = [smooth(rng.normal(size=(40, 5)), rng.normal(size=40), np.ones(40)) for _ in range(40)]
    assert np.mean([np.abs(weights).max() < 0.2 for weights, _ in taken]) > 0.6


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 10)), min_size=1, max_size=40))
def test_edges_of_the_graph_are_those_of_the_dense_definition(rows):
    records = pd.DataFrame(rows, columns=["model", "dataset", "accuracy"])
    records = records.assign(
        model="m" + records["model"].astype(str), dataset="d" + records["dataset"].astype(str)
    )
    zoo = Zoo(
        models=pd.DataFrame({"model": [f"m{i}" for i in range(6)], "modality": "image"}),
        datasets=pd.DataFrame({"dataset": [f"d{i}" for i in range(5)], "modality": "image"}),
        records=records.assign(accuracy=records["accuracy"] / 10),
    ).validate()
    positive, negative = finetuned_on(zoo)
    dense = min_max(accuracy_matrix(zoo))
    for table, asked in ((positive, dense > 0.5), (negative, dense <= 0.5)):
        pairs = set(zip(table["model"], table["dataset"], strict=True))
        assert pairs == {(m, d) for m in dense.index for d in dense.columns if asked.at[m, d]}
        assert all(
            w == dense.at[m, d] for m, d, w in table[["model", "dataset", "weight"]].itertuples(index=False)
        )


def test_a_graph_of_many_architectures_keeps_its_columns_bounded():
    n = 700
    zoo = Zoo(
        models=pd.DataFrame({"model": [f"m{i}" for i in range(n)], "modality": "image"}).assign(
            architecture=lambda f: f["model"]
        ),
        datasets=pd.DataFrame({"dataset": ["x"], "modality": "image", "role": "target"}),
    ).validate()
    assert build_graph(zoo, "x")["model"].x.shape[1] <= 3 + 256


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_only_what_is_asked_for_is_read(tmp_path, zoo, kind):
    records = zoo.records.head(300).copy()
    records.loc[::3, "method"], records.loc[1::3, "method"] = "lora", None
    records = records.drop(columns=[c for c in records if records[c].isna().all() and c != "method"])
    records = records.drop(columns="quality")
    getattr(records, f"to_{kind}")(tmp_path / f"records.{kind}", index=False)
    where = {"method": ["full"], "quality": ["ok"]}
    few, _ = read_table(tmp_path, "records", ["model", "accuracy"], where)
    expected = records[records["method"].fillna("full") == "full"][["model", "accuracy"]].reset_index(
        drop=True
    )
    pd.testing.assert_frame_equal(few.reset_index(drop=True), expected)
    assert read_table(tmp_path, "records", where={"quality": ["chance"]})[0].empty


def test_a_zoo_whose_fit_is_kept_is_not_read_again(tmp_path, zoo, drawn, monkeypatch):
    zoo.save(tmp_path / "zoo")
    said = []
    first = open_fit(tmp_path / "zoo", tmp_path / "cache", said.append)
    load = Zoo.load.__func__

    def only_the_fit(cls, folder, **options):
        assert str(tmp_path / "cache") in str(folder)
        return load(cls, folder, **options)

    monkeypatch.setattr(Zoo, "load", classmethod(only_the_fit))
    again = open_fit(tmp_path / "zoo", tmp_path / "cache", said.append)
    assert len(said) == 1
    pd.testing.assert_frame_equal(again.rank(drawn.targets[0]), first.rank(drawn.targets[0]))


def test_the_command_line_on_a_large_zoo(tmp_path, zoo, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mine = pd.DataFrame([{"dataset": "mine", "modality": "image", "role": "target", "n_classes": 4.0}])
    vector = pd.DataFrame(
        {"dataset": ["mine"], "method": "domain_similarity", "vector": [zoo.embeddings["vector"][3]]}
    )
    more = {"datasets": mine, "embeddings": vector}
    both = {k: pd.concat([getattr(zoo, k), rows], ignore_index=True) for k, rows in more.items()}
    replace(zoo, **both).save(tmp_path / "zoo")
    call = ["rank", str(tmp_path / "zoo"), "--dataset", "mine"]
    assert main([*call, "--top", "3", "--family", "family-0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "of" in lines[1]
    assert main([*call, "--explain", "model-1"]) == 0
    assert "expected" in capsys.readouterr().out
