"""`transfergraph rank` and `select` on images in a folder, with networks small enough to really run."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from transfergraph.build.zoo_spec import read_model_list
from transfergraph.cli.program import main
from transfergraph.recommend.candidates import describe_dataset, open_model
from transfergraph.recommend.score_models import score_candidates
from transfergraph.report.figures import figure_ranking, save_figure
from transfergraph.zoo.matrices import with_probe
from transfergraph.zoo.tables import TABLES, Zoo

PROBE = {"spec": "test_resnet", "input_size": 32, "random_state": 0}
MODELS = {
    "net-a": {"spec": "test_resnet", "input_size": 32, "random_state": 1},
    "net-b": {"spec": "test_resnet", "input_size": 32, "random_state": 2},
    "vit-a": {"spec": "test_vit", "input_size": 32, "random_state": 1},
    "vit-b": {"spec": "test_vit", "input_size": 32, "random_state": 2},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with a zoo, its models' list, and images of two colours."
    home = tmp_path_factory.mktemp("rank")
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("test", 6)):
        for label, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            (home / "mine" / split / label).mkdir(parents=True)
            for i in range(n):
                noise = rng.integers(-40, 40, (32, 32, 3))
                pixels = (np.array(colour) + noise).clip(0, 255).astype("uint8")
                Image.fromarray(pixels).save(home / "mine" / split / label / f"{i}.png")
    sets = ["a", "b", "c", "d"]
    empty = Zoo(
        models=pd.DataFrame({"model": list(MODELS), "modality": "image"}),
        datasets=pd.DataFrame({"dataset": sets, "modality": "image"}),
    )
    width = len(describe_dataset(empty, home / "mine", probe=PROBE, progress=False)[1].embedding)
    names = [f"net-{i}" for i in "abc"] + [f"vit-{i}" for i in "abc"]
    quality = np.repeat([0.9, 0.6], 3)[:, None] + rng.normal(scale=0.02, size=(6, 4))
    records = pd.DataFrame(quality.clip(0, 1), names, sets).rename_axis("model").reset_index()
    zoo = Zoo(
        models=pd.DataFrame(
            {
                "model": names,
                "modality": "image",
                "n_params": [5e5, 6e5, 3e7, 4e5, 5e5, 2e9],
                "family": ["net"] * 3 + ["vit"] * 3,
            }
        ),
        datasets=pd.DataFrame({"dataset": sets, "modality": "image", "n_samples": 40, "n_classes": 4}),
        records=records.melt("model", var_name="dataset", value_name="accuracy"),
        embeddings=with_probe(
            pd.DataFrame({"dataset": sets, "vector": list(rng.normal(size=(4, width)))}), PROBE
        ),
    ).validate()
    zoo.save(home / "zoo")
    (home / "models.json").write_text(json.dumps(MODELS))
    return home


@pytest.fixture
def call(home, monkeypatch, capsys):
    "Call the program in that folder; gives exit code, stdout, stderr."

    def run(*args):
        code = main([str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return run


def test_rank_prints_a_table(call):
    code, out, err = call("rank", "zoo", "--data", "mine", "--quiet")
    lines = out.splitlines()
    assert (
        code == 0 and lines[0].split() == "place by mean model accuracy is best loss parameters why".split()
    )
    assert len(lines) == 7 and "net" in lines[1] and "2.0 G" in out and "of 6 on" in lines[1]
    code, again, err = call("rank", "zoo", "--data", "mine", "--quiet", "--top", 2)
    assert (
        again.splitlines() == [line for line in again.splitlines() if line] and len(again.splitlines()) == 3
    )
    assert "fitting" not in err  # kept from the first call


def test_rank_for_programs(call):
    code, out, _ = call("rank", "zoo", "--data", "mine", "--json", "--quiet")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 6
    columns = "place model accuracy low high n_params family mean_place best loss why"
    assert list(rows[0]) == columns.split() and [row["place"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["low"] <= row["accuracy"] <= row["high"] and row["loss"] >= 0 for row in rows)
    assert sum(row["best"] for row in rows) == pytest.approx(1)
    code, out, _ = call("rank", "zoo", "--data", "mine", "--csv", "--quiet", "--family", "vit")
    assert [line.split(",")[1][:3] for line in out.splitlines()] == ["mod", "vit", "vit", "vit"]
    code, out, _ = call("rank", "zoo", "--data", "mine", "--json", "--quiet", "--max-params", "1e6")
    assert {row["model"] for row in json.loads(out)} == {"net-a", "net-b", "vit-a", "vit-b"}


def test_rank_explains_and_draws(call, home):
    code, out, _ = call("rank", "zoo", "--data", "mine", "--quiet", "--explain", "net-a")
    assert code == 0 and "effect: on what is expected" in out and "any model" in out and "itself on" in out
    code, out, _ = call("rank", "zoo", "--data", "mine", "--quiet", "--plot", "ranking.png")
    assert code == 0 and Image.open(home / "ranking.png").width > 500


def test_rank_with_scores_runs_the_most_promising(call):
    plain = json.loads(call("rank", "zoo", "--data", "mine", "--quiet", "--json", "--max-params", "1e6")[1])
    args = [
        "rank",
        "zoo",
        "--data",
        "mine",
        "--models",
        "models.json",
        "--max-params",
        "1e6",
        "--json",
        "--quiet",
    ]
    code, out, err = call(*args, "--with-scores", 3)
    scored = json.loads(out)
    assert code == 0, err
    assert {row["model"] for row in scored} == {row["model"] for row in plain}
    assert scored != plain or "the scores of 3 models on your data do not change the order" in err


def test_rank_by_another_probe_or_none(call, home):
    probe = "{spec: test_resnet, input_size: 32, random_state: 0}"
    same = [
        call("rank", "zoo", "--data", "mine", "--json", "--quiet", *p)[1] for p in ([], ["--probe", probe])
    ]
    assert same[0] == same[1]
    zoo = Zoo.load(home / "zoo")
    Zoo(models=zoo.models, datasets=zoo.datasets, records=zoo.records).save(home / "bare")
    code, out, err = call("rank", "bare", "--data", "mine", "--quiet")
    assert code == 0 and "nothing tells your dataset from others" in err and len(out.splitlines()) == 7


def test_select_fine_tunes_and_goes_on(call, home):
    args = ["select", "zoo", "--data", "mine", "--models", "models.json", "--max-params", "1e6"]
    args += ["--out", "chosen", "--settings", "{epochs: 2}", "--quiet"]
    code, out, err = call(*args, "--budget", 1)
    assert (
        code == 0 and "best: net-" in out and len((home / "chosen/log.jsonl").read_text().splitlines()) == 1
    )
    code, out, err = call(*args, "--budget", 2, "--json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 2 and err.count("net-") + err.count("vit-") == 1  # one was done before
    for row in rows:
        model = open_model("mine", {"mine": {"spec": row["checkpoint"]}}, "image")
        assert model.body is not None and 0.5 <= row["accuracy"] <= 1


def test_select_refuses_the_log_of_other_data_settings_or_zoo(call, home, tmp_path):
    "Other images in a folder of the same name are other data, whatever the name says."
    args = ["select", "zoo", "--models", "models.json", "--budget", 1, "--out", tmp_path / "o", "--quiet"]
    mine = ["--data", home / "mine", "--settings", "{epochs: 1, method: linear}"]
    assert call(*args, *mine)[0] == 0
    log = (tmp_path / "o/log.jsonl").read_text()
    shutil.copytree(home / "mine", tmp_path / "mine")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "mine/train/red/0.png")
    other = ["--data", tmp_path / "mine", *mine[2:]]
    code, _, err = call(*args, *other)
    assert code == 2 and "log.jsonl: line 1 is a run of other data (fingerprint " in err
    code, _, err = call(*args, *mine[:3], "{epochs: 2, method: linear}")
    assert code == 2 and "is a run of other settings" in err
    zoo = Zoo.load(home / "zoo")
    Zoo(**{t: getattr(zoo, t) for t in TABLES} | {"records": zoo.records[1:]}).save(tmp_path / "zoo")
    code, _, err = call("select", tmp_path / "zoo", *args[2:], *mine)
    assert code == 2 and "is a run of other zoo" in err
    assert call(*args, *mine)[0] == 0 and (tmp_path / "o/log.jsonl").read_text() == log


def test_a_log_that_does_not_say_what_it_is_of_is_refused(call, home, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"dataset": "mine", "model": "net-a", "accuracy": 0.5}\n')
    args = ["select", "zoo", "--data", home / "mine", "--models", "models.json", "--out", tmp_path]
    code, _, err = call(*args, "--quiet")
    assert code == 2 and "line 1 is a run of other zoo (fingerprint None" in err


def test_only_models_of_the_list_are_run(call, home, tmp_path):
    kept = {name: MODELS[name] for name in ("net-b", "vit-a")}
    (tmp_path / "models.json").write_text(json.dumps(kept))
    args = ["--data", home / "mine", "--models", tmp_path, "--quiet"]
    out = ["--budget", 3, "--out", tmp_path / "o", "--settings", "{epochs: 1, method: linear}", "--json"]
    code, out, err = call("select", "zoo", *args, *out)
    assert code == 0 and {row["model"] for row in json.loads(out)} == set(kept)
    assert f"4 of 6 models are not in {tmp_path} and are not run, first" in err
    code, _, err = call("rank", "zoo", *args, "--with-scores", 3)
    assert code == 0 and "4 of 6 models are not in" in err
    (tmp_path / "models.json").write_text('{"other": {"spec": "test_resnet"}}')
    code, _, err = call("rank", "zoo", *args, "--with-scores", 3)
    assert code == 2 and "lists no model of this zoo; expected one with" in err
    with pytest.raises(ValueError, match="net-a: not in the list of models; it has net-b, vit-a"):
        open_model("net-a", kept, "image")


def test_a_zoo_that_lists_its_models_needs_no_option(call, home, tmp_path):
    shutil.copytree(home / "zoo", tmp_path / "zoo")
    shutil.copy(home / "models.json", tmp_path / "zoo")
    code, _, err = call("rank", tmp_path / "zoo", "--data", home / "mine", "--with-scores", 1, "--quiet")
    assert code == 0, err


def test_data_are_read_before_anything_is_fitted(call, home, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no fit is kept
    code, _, err = call("rank", "zoo", "--data", home / "models.json", "--quiet")
    assert code == 2 and "fitting" not in err
    code, _, err = call("rank", "zoo", "--data", home / "mine", "--quiet")
    assert code == 0 and "fitting" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rank", "zoo"], "--data"),
        (["rank", "zoo", "--data", "nothing"], "nothing"),
        (["rank", "nowhere", "--data", "mine"], "nowhere"),
        (
            ["rank", "zoo", "--data", "mine", "--top", "0"],
            "'--top': Input should be greater than or equal to 1",
        ),
        (
            ["rank", "zoo", "--data", "mine", "--score-items", "1"],
            "'--score-items': Input should be greater than or equal to 2",
        ),
        (["rank", "zoo", "--data", "mine", "--plot", "x.pdf"], "ends in .png"),
        (["rank", "zoo", "--data", "mine", "--explain", "nobody"], "'nobody' is not in the zoo"),
        (["rank", "zoo", "--data", "mine", "--family", "swin"], "there are net, vit"),
        (["rank", "zoo", "--data", "mine", "--max-params", "10"], "no model is left"),
        (["rank", "zoo", "--data", "mine", "--probe", "{size: 3}"], "--probe: expected a model"),
        (["rank", "zoo", "--dataset", "a"], "has records that the fit has learnt from"),
        (["rank", "zoo", "--dataset", "zz"], "'zz' is not in the zoo"),
        (["rank", "zoo", "--dataset", "a", "--with-scores", "2"], "expected --data"),
        (["rank", "zoo", "--data", "mine", "--dataset", "a"], "not allowed"),
        (["rank", "zoo", "--data", "mine", "--with-scores", "2", "--models", "gone"], "gone: no such file"),
        (["select", "zoo", "--data", "mine"], "--out"),
        (["select", "zoo", "--data", "mine", "--out", "o", "--settings", "{epoch: 2}"], "'epoch' is not"),
        (["select", "zoo", "--data", "mine", "--out", "o", "--settings", "7"], "is not a setting"),
        (["select", "zoo", "--data", "mine", "--out", "o", "--budget", "0"], "expected 1 or more"),
    ],
)
def test_mistakes_are_one_line(call, home, args, message):
    code, out, err = call(*args, "--quiet")
    lines = [line for line in err.splitlines() if "fitting" not in line and "your dataset" not in line]
    assert code == 2 and out == "" and len(lines) == 1 and message in lines[0]
    assert not (home / "o").exists()


def test_a_zoo_of_texts_does_not_read_images(call, home):
    zoo = Zoo.load(home / "zoo")
    text = {"models": zoo.models.assign(modality="text"), "datasets": zoo.datasets.assign(modality="text")}
    Zoo(**text, records=zoo.records).save(home / "text")
    code, _, err = call("rank", "text", "--data", "mine", "--quiet")
    assert code == 2 and "holds images; the models of this zoo read texts" in err


def test_lists_of_models(home, tmp_path):
    assert (
        read_model_list(None) == {}
        and read_model_list(home / "models.json") == read_model_list(home) == MODELS
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "one/config.json").write_text("{}")
    assert read_model_list(tmp_path) == {"one": {"spec": str(tmp_path / "one")}}
    for text in ("[]", "{", '{"a": 1}', '{"a": {}}'):
        (tmp_path / "models.json").write_text(text)
        with pytest.raises(ValueError, match="no list of models"):
            read_model_list(tmp_path)


def test_scores_are_those_of_the_features(home):
    from transfergraph.scores.registry import score

    zoo = Zoo.load(home / "zoo")
    dataset, new = describe_dataset(zoo, home / "mine", progress=False)
    assert new.n_samples == 16 and new.majority_share == 0.5 and new.name == "mine"
    table = score_candidates(["net-a"], dataset, lambda n: open_model(n, MODELS, "image"), progress=False)
    features = open_model("net-a", MODELS, "image").features(dataset.items["train"])
    expected = score("LogME", features, dataset.labels["train"])
    assert np.isclose(table.set_index("metric").at["LogME", "score"], expected)


def test_scores_see_as_many_items_as_asked_and_say_so(home):
    from transfergraph.scores.registry import score

    dataset, _ = describe_dataset(Zoo.load(home / "zoo"), home / "mine", progress=False)
    network = open_model("net-a", MODELS, "image")
    with pytest.warns(UserWarning, match="scores see 12 of 16 training items; --score-items N takes others"):
        table = score_candidates(["net-a"], dataset, lambda n: network, ["LogME"], progress=False, items=12)
    drawn = np.sort(np.random.default_rng(0).choice(16, 12, replace=False))
    features = network.features(dataset.items["train"])[drawn]
    assert np.isclose(table["score"][0], score("LogME", features, dataset.labels["train"][drawn]))


def test_a_name_that_the_zoo_has_is_changed(home):
    zoo = Zoo.load(home / "zoo")
    named = Zoo(models=zoo.models, datasets=zoo.datasets.replace({"dataset": {"a": "mine"}}))
    assert describe_dataset(named, home / "mine", progress=False)[1].name == "my mine"


def test_figure_of_a_ranking_shows_every_model(tmp_path):
    rows = {"model": ["org/one", "two", "three"], "accuracy": [0.9, 0.8, 0.7], "low": [0.8, 0.7, np.nan]}
    figure = figure_ranking(pd.DataFrame(rows | {"high": [0.95, 0.9, np.nan]}), "mine")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["org/one", "two", "three"]
    points = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert points == [0.9, 0.8, 0.7] and len(ax.lines) == 5  # two have intervals
    save_figure(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_what_was_guessed_is_said_with_the_options_of_the_command(call, home):
    rng = np.random.default_rng(1)
    for place in ("first/a", "first/b", "second/a", "second/b"):
        (home / "folds" / place).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (32, 32, 3)).astype("uint8")
            Image.fromarray(pixels).save(home / "folds" / place / f"{i}.png")
    (home / "folds" / "first" / "a" / "5.heic").write_bytes(b"x")
    code, _, err = call("rank", "zoo", "--data", "folds", "--quiet")
    assert code == 2 and "splits, or classes?" in err and "--splits train=first" in err
    options = ("--splits", "train=first", "--splits", "test=second")
    code, _, err = call("rank", "zoo", "--data", "folds", "--quiet", *options)
    lines = [line for line in err.splitlines() if line.startswith("transfergraph: folds")]
    assert code == 0 and lines == [
        "transfergraph: folds: 1 files are not read (1 .heic), 1 of 9 of class 'a'"
    ]
    code, _, err = call("rank", "zoo", "--data", "folds", "--quiet", "--splits", "train")
    assert code == 2 and "--splits train: expected OURS=THEIRS" in err


def test_the_probe_sees_so_many_items_in_all_however_many_classes(tmp_path, home):
    from transfergraph.models.loading import load_backbone
    from transfergraph.zoo.matrices import domain_embedding

    rng = np.random.default_rng(2)
    for c in range(30):
        (tmp_path / "many" / f"c{c}").mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (32, 32, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "many" / f"c{c}" / f"{i}.png")
    dataset, new = describe_dataset(Zoo.load(home / "zoo"), tmp_path / "many", items=20, progress=False)
    seen = dataset.subsample(2, most=20)
    assert len(seen.labels["train"]) == len(set(seen.labels["train"])) == 20
    backbone = load_backbone(**PROBE, modality="image")
    assert np.allclose(new.embedding, domain_embedding(backbone.features(seen.items["train"])))


def test_landmarks_are_run_as_the_zoo_was_also_with_a_fit_that_is_kept(call, home):
    zoo = Zoo.load(home / "zoo")
    args = ["--data", "mine", "--models", "models.json", "--max-params", "1e6", "--landmarks", 1, "--quiet"]
    replace(zoo, records=zoo.records.assign(method="linear")).save(home / "probed")
    for _ in range(2):  # the second time the fit is there, and has no records
        code, _, err = call("rank", "probed", *args)
        assert code == 0 and "landmarks are fitted by method 'linear'" in err and "1 accuracies" in err
    replace(zoo, records=zoo.records.assign(method="reported")).save(home / "untrained")
    code, _, err = call("rank", "untrained", *args)
    assert code == 2 and "method 'reported'" in err and "--observed FILE.csv" in err
    code, _, err = call("rank", "probed", *args, "--with-scores", "all")
    assert code == 2 and "--with-scores: not read beside --landmarks" in err


def test_models_of_an_observed_file_keep_their_names(home, call):
    (home / "runs.csv").write_text("\ufeffmodel,accuracy\n007,0.5\n")
    code, _, err = call("rank", "zoo", "--data", "mine", "--quiet", "--observed", "runs.csv")
    assert code == 2 and "'007'" in err
