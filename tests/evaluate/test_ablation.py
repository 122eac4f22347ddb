"""What the default method knows of a left-out dataset, pooled gains, the stages of `make real` on toys."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from transfergraph.evaluate.ablation import PARTS, keep_part, needs_of_row, study_kriging
from transfergraph.evaluate.summary import gains_by_target, pool_zoos, reliability
from transfergraph.predict.kriging import Kriging
from transfergraph.predict.methods import needs_of, predict_target
from transfergraph.report.terminal import run_notebook
from transfergraph.zoo.matrices import accuracy_matrix, hide_target
from transfergraph.zoo.synthetic import toy_zoo

ROOT = Path(__file__).resolve().parent.parent.parent


def themed_zoo(n=30, d=10, seed=0):
    "Models that are good by theme; words tell the theme of a dataset."
    rng = np.random.default_rng(seed)
    theme = np.arange(d) % 2
    skill = rng.normal(size=(n, 2)) + rng.normal(size=(n, 1))
    accuracy = (0.6 + 0.06 * skill[:, theme] + 0.01 * rng.normal(size=(n, d))).clip(0, 1)
    zoo = toy_zoo(pd.DataFrame(accuracy).add_prefix("d"), n_params=rng.uniform(1e6, 1e9, n))
    words = np.eye(2)[theme] + 0.2 * rng.normal(size=(d, 2))
    rows = [(f"d{i}", "words", vector.tolist()) for i, vector in enumerate(words)]
    return replace(zoo, embeddings=pd.DataFrame(rows, columns=["dataset", "method", "vector"])).validate()


def test_a_study_says_what_is_predicted_without_it_and_never_reads_what_it_hides():
    zoo = themed_zoo()
    study = study_kriging(zoo, "d0", (5,), budget=7)
    rows = study["predictions"].set_index("model")
    plain = predict_target(zoo, "d0", ["TG:kriging", "history-mean"])
    mine = rows[rows["among"] == "all models"]
    for method in plain:
        np.testing.assert_allclose(
            mine[mine["method"] == method]["score"].reindex(plain.index), plain[method]
        )
    other = zoo.records.assign(accuracy=zoo.records["accuracy"].where(zoo.records["dataset"] != "d0", 0.5))
    other.loc[other["dataset"] == "d0", "accuracy"] += np.linspace(0, 0.1, 30)
    again = study_kriging(replace(zoo, records=other), "d0", (5,), budget=7)
    for table in ("predictions", "parts"):
        first, second = (t[table].query("among == 'all models'") for t in (study, again))
        pd.testing.assert_frame_equal(first, second)
    left = set(rows[rows["among"] == "the rest of 5"].index)
    assert len(left) == 25 and set(rows["method"]) == {
        "history-mean",
        "history-mean:z",
        "TG:kriging",
        "TG:kriging, 5 landmarks",
    }
    truth = accuracy_matrix(zoo)["d0"]
    search = study["search"].set_index(["rule", "runs"])["regret"]
    order = plain["history-mean"].sort_values(ascending=False, kind="stable").index
    assert np.isclose(search["static order", 2], truth.max() - truth[order[:2]].max())
    ran = truth[truth.index.difference(sorted(left))]
    assert search["5 landmarks, then ranking", 5] == truth.max() - ran.max()


def test_parts_are_taken_away_by_what_they_use():
    ranker = Kriging(intervals=False).fit(hide_target(themed_zoo(), "d0"), "image")
    names = {part: set(keep_part(ranker, keep).mixture().names) for part, keep in PARTS.items()}
    kinds = {name: set(covariance.kinds) for name, covariance in ranker.candidates.covariances.items()}
    assert names["whole"] == set(ranker.mixture().names) and names["means only"] == {"mean", "mean:z"}
    assert not any(kinds.get(name) for name in names["records only"])
    assert any("words" in kinds.get(name, ()) for name in names["whole"])
    assert not any("words" in kinds.get(name, ()) for name in names["without words"])
    whole, mute = (keep_part(ranker, PARTS[p]).predict("d0")["accuracy"] for p in ("whole", "without words"))
    pd.testing.assert_series_equal(whole, ranker.predict("d0")["accuracy"])
    truth = accuracy_matrix(themed_zoo())["d0"]
    assert truth.corr(whole, "spearman") > truth.corr(mute, "spearman") + 0.05


def test_rows_say_what_they_read():
    zoo = themed_zoo()
    scores = pd.DataFrame({"model": zoo.models["model"], "dataset": "d0", "metric": "LogME", "score": 1.0})
    for there in (zoo, replace(zoo, scores=scores).validate()):
        assert needs_of_row("TG:kriging", there) == "words"  # which is fitted without scores
        assert needs_of_row("TG:kriging, 10 landmarks", there) == "runs"
        assert needs_of_row("TG:kriging, scores", there) == needs_of_row("LogME", there) == "scores"
        assert needs_of_row("TG:LR,N2V,all", there) == "nothing"
        assert needs_of_row("TG:LR,N2V,all+words", there) == "words"
    assert needs_of("TG:kriging", there) == "scores" and needs_of("TG:kriging", zoo) == "words"
    with pytest.raises(ValueError, match="no method is called"):
        needs_of_row("TG:krige", zoo)


def test_gains_are_over_the_same_models():
    zoo = toy_zoo({"x": [0.1, 0.2, 0.3, 0.4]})
    rows = [("mean", m, s, "all") for m, s in zip(zoo.models["model"], [1, 2, 3, 4])]
    rows += [("mean", m, s, "some") for m, s in zip(zoo.models["model"][:3], [3, 2, 1])]
    rows += [("mine", m, s, "some") for m, s in zip(zoo.models["model"][:3], [1, 2, 3])]
    table = pd.DataFrame(rows, columns=["method", "model", "score", "among"]).assign(target="x")
    found = gains_by_target(zoo, table).query("metric == 'spearman'").set_index(["among", "method"])["gain"]
    assert found["all", "history-mean"] == 0 and found["some", "mine"] == 2
    with pytest.raises(ValueError, match="among 'some' there is no 'best'"):
        gains_by_target(zoo, table[table["among"] == "some"], "best")


def test_zoos_count_alike_and_datasets_are_drawn_within_them():
    rng = np.random.default_rng(0)
    sizes = {"big": 200, "small": 4}
    rows = [("m", zoo, t, rng.normal(k)) for k, (zoo, n) in enumerate(sizes.items()) for t in range(n)]
    table = pd.DataFrame(rows, columns=["method", "zoo", "target", "gain"])
    (row,) = pool_zoos(table, "gain", ["method"]).itertuples()
    means = table.groupby("zoo")["gain"].agg(["mean", lambda v: v.var(ddof=0) / len(v)])
    error = np.sqrt(means.iloc[:, 1].sum()) / 2
    assert np.isclose(row.mean, means["mean"].mean()) and row.zoos == 2 and row.targets == 204
    assert np.isclose((row.high - row.low) / 2, 1.96 * error, rtol=0.1)


def test_reliability_finds_a_boast():
    claims = pd.DataFrame({"zoo": "z", "target": range(100), "chance": 0.9, "happened": [True, False] * 50})
    (row,) = reliability(claims).itertuples()
    assert np.isclose([row.chance, row.happened, row.error], [0.9, 0.5, 0.4]).all() and row.claims == 100
    assert row.low < 0.5 < row.high < 0.65
    assert len(reliability(claims.assign(chance=1.0))) == 1


def test_what_was_found_is_copied_between_two_lines_of_the_docs(tmp_path):
    from check_notebooks import BORDERS, REAL, REAL_FIGURES, write_results

    page, found, figures = tmp_path / "docs" / "results.md", tmp_path / REAL, tmp_path / REAL_FIGURES
    page.parent.mkdir()
    page.write_text("\n".join(["before", BORDERS[0] + "old", BORDERS[1] + "after"]))
    with pytest.raises(ValueError, match="`make real` writes it"):
        write_results(tmp_path)
    found.parent.mkdir(parents=True)
    found.write_text("new\n")
    with pytest.raises(ValueError, match=r"regret.png is missing: `make real` writes it"):
        write_results(tmp_path)
    figures.mkdir(parents=True)
    for name in ("regret", "chances"):
        (figures / f"{name}.png").write_text(name)
    for _ in range(2):
        write_results(tmp_path)
        assert (tmp_path / "docs" / "real-regret.png").read_text() == "regret"
        assert (tmp_path / "docs" / "real-chances.png").read_text() == "chances"
        assert page.read_text() == f"before\n{BORDERS[0]}\nnew\n\n{BORDERS[1]}after"
    page.write_text("before")
    with pytest.raises(ValueError, match="expected a line"):
        write_results(tmp_path)
    assert all(border in (ROOT / "docs" / "results.md").read_text(encoding="utf-8") for border in BORDERS)


@pytest.mark.slow
def test_the_stages_of_real_zoos_on_toys(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = yaml.safe_load((ROOT / "real" / "params.yaml").read_text(encoding="utf-8"))
    cut = {"models": 20, "targets": 2, "methods": ["TG:LR,N2V,all", "TG:LR,N2V,all+words"]}
    settings |= {"zoos": ["one", "two", "three"], "landmarks": [5], "resamples": 200, "n_jobs": 1, "cut": cut}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    common = {"settings": str(tmp_path / "params.yaml")}
    for seed, name in enumerate(["one", "two"]):
        themed_zoo(24, 6, seed).save(tmp_path / name)
        places = {"out": str(tmp_path / "results" / name), "figures": str(tmp_path / "figures" / name)}
        places["zoo"] = str(tmp_path / name)
        run_notebook("nbs/stages/real.ipynb", tmp_path / f"{name}.ipynb", common | places, progress=False)
    places = {"results": str(tmp_path / "results"), "out": str(tmp_path / "out")}
    places["figures"] = str(tmp_path / "figures")
    run_notebook("nbs/stages/real_summary.ipynb", tmp_path / "summary.ipynb", common | places, progress=False)
    said = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    table = pd.read_csv(tmp_path / "out" / "spearman.csv").set_index("method")
    assert (
        list(table.columns) == ["needs", "one", "two", "pooled"]
        and table.loc["TG:kriging", "needs"] == "words"
    )
    assert float(table.loc["TG:kriging", "pooled"].split()[0]) > 0.05 and "TG:LR,N2V,all+words" in said
    assert {"gains.png", "variants.png", "regret.png", "chances.png"} <= {
        path.name for path in (tmp_path / "figures").iterdir()
    }
    assert "in no figure below: three" in (tmp_path / "summary.ipynb").read_text(encoding="utf-8")
