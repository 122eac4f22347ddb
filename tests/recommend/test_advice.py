"""What a ranking rests on: places, likeness, words, gains; and rankings that do no harm."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from transfergraph.cli.program import main
from transfergraph.models.words import dataset_words, with_words
from transfergraph.predict.rankers import gain_over_mean, history_means
from transfergraph.recommend.advice import advise, rank_in_general, trained_elsewhere
from transfergraph.recommend.candidates import choose_to_run, describe_dataset, describe_words, guess_task
from transfergraph.recommend.transfergraph import TransferGraph
from transfergraph.zoo.matrices import embeddings, extend, find_likeness, with_probe
from transfergraph.zoo.synthetic import toy_zoo
from transfergraph.zoo.tables import Zoo

ABOUT = {
    "stars": "Customer reviews of products, how many stars, one to five",
    "films": "Reviews of films, did the visitor like the film",
    "bank": "Messages that customers write to their bank about cards and transfers",
    "speaker": "Commands to a smart speaker: play music, set an alarm, weather",
    "news": "Newspaper articles by section: sports, business, politics",
    "toxic": "Rude and insulting comments under articles",
}
TASKS = ["sentiment", "sentiment", "intent", "intent", "topic", "toxicity"]


def zoo_of_texts(modality="text"):
    "Six models, of which three are good at opinions and three at intents."
    rng = np.random.default_rng(0)
    opinion = np.array([1, 1, 0, 0, 0, 0.5])[None] * np.repeat([1, -1], 3)[:, None]
    accuracy = 0.7 + 0.1 * opinion + rng.normal(scale=0.01, size=(6, 6))
    zoo = toy_zoo(pd.DataFrame(accuracy, [f"m{i}" for i in range(6)], list(ABOUT)), modality=modality)
    facts = {"description": list(ABOUT.values()), "task": TASKS, "languages": ["en|de", *["en"] * 5]}
    return with_words(replace(zoo, datasets=zoo.datasets.assign(**facts)).validate())


@pytest.fixture(scope="module")
def graph():
    return TransferGraph(n_jobs=1, method="ensemble").fit(zoo_of_texts())


def test_words_change_the_order_and_the_columns_show_it(graph):
    told = {w: describe_words(graph.zoo, modality="text", words=w) for w in (ABOUT["films"], ABOUT["bank"])}
    film, bank = (advise(graph, new) for new in told.values())
    assert graph.distance == "words"
    assert film.ranking["model"].tolist() != bank.ranking["model"].tolist()
    for advice, like in ((film, "films"), (bank, "bank")):
        table = advice.ranking
        assert table["place"].tolist() == [1, 2, 3, 4, 5, 6]
        assert sorted(table["mean_place"]) == [1, 2, 3, 4, 5, 6] and not advice.general
        line = next(note for note in advice.notes if "counts as most like" in note)
        assert like in line and "by words" in line
        first = table.sort_values("mean_place")["model"].head(5)
        assert line.endswith("would be " + ", ".join(first))


def test_the_place_by_mean_is_that_of_the_baseline(graph):
    ranker = graph.rankers["text"]
    accuracy = graph.zoo.records.pivot_table(index="model", columns="dataset", values="accuracy")
    scaled = (accuracy - accuracy.min()) / (accuracy.max() - accuracy.min())
    found = pd.Series(history_means(ranker.table), ranker.table.models)
    pd.testing.assert_series_equal(found, scaled.mean(axis=1)[found.index], check_names=False)
    without = history_means(ranker.table, without=0)
    assert np.allclose(without, scaled[ranker.table.datasets[1:]].mean(axis=1)[ranker.table.models])


def test_a_dataset_like_nothing_is_told_so(graph):
    far = describe_words(graph.zoo, modality="text", words="sequences of amino acids in proteins")
    assert advise(graph, far).notes[0].startswith("your dataset is like nothing in the zoo: ")
    assert not find_likeness(
        graph.zoo, describe_words(graph.zoo, modality="text", words="film critics")
    ).unlike


def test_the_task_is_that_of_the_nearest_if_they_agree():
    zoo = zoo_of_texts()
    more = [("hotels", "Reviews of hotels by guests"), ("books", "Reviews of books by readers")]
    rows = pd.DataFrame(
        [{"dataset": n, "modality": "text", "description": d, "task": "sentiment"} for n, d in more]
    )
    wide = with_words(replace(zoo, datasets=pd.concat([zoo.datasets, rows], ignore_index=True)).validate())
    words = dataset_words(description="what guests think of restaurants: reviews")
    assert guess_task(wide, words, "text", None) == "sentiment"
    assert guess_task(wide, dataset_words(description="questions to a bank about news"), "text", None) is None
    assert guess_task(wide, words, "text", "german") == "sentiment"  # there is one german dataset
    assert guess_task(wide, None, "text", None) is None


def test_facts_go_into_the_zoo(graph):
    new = describe_words(
        graph.zoo, modality="text", words="German film reviews", task="sentiment", domains="films"
    )
    longer = extend(graph.zoo, new, "words")
    own = longer.embeddings[longer.embeddings["dataset"] == "my dataset"]
    assert set(own["method"]) == {"words", "sentence"}  # it is as well described as those of the zoo
    row = longer.datasets.set_index("dataset").loc["my dataset"]
    assert row[["task", "languages", "domains"]].tolist() == ["sentiment", "german", "films"]


class LeftOut:
    "A ranker whose expectations of left-out datasets are given."

    def __init__(self, table, expected):
        self.table, self.expected = table, expected

    def left_out(self):
        return dict(enumerate(self.expected.T))


def test_gains_are_over_the_mean_of_the_other_datasets(graph):
    table = graph.rankers["text"].table
    right = gain_over_mean(LeftOut(table, table.accuracy))
    assert right["gain"] > 0.5 and right["low"] > 0 and right["regret"] == 0 and right["datasets"] == 6
    assert 0 < right["regret_of_mean"] < 0.3
    means = np.column_stack([history_means(table, column) for column in range(6)])
    same = gain_over_mean(LeftOut(table, means))
    assert same["gain"] == same["low"] == 0 and same["regret"] == same["regret_of_mean"]
    assert gain_over_mean(LeftOut(table, -table.accuracy))["high"] < 0
    assert gain_over_mean(object()) is None


def test_where_history_does_not_beat_the_mean_it_is_said_with_the_regret(graph):
    new = describe_words(graph.zoo, modality="text", words=ABOUT["films"])
    kept = graph.gains
    try:
        graph.gains = {
            "text": dict(gain=-0.02, low=-0.04, high=0.01, regret=0.05, regret_of_mean=0.03, datasets=6)
        }
        line = advise(graph, new).notes[-1]
        assert "does not beat the mean" in line and "-0.020 [-0.040, +0.010]" in line and "0.050" in line
        graph.gains = {"text": graph.gains["text"] | {"low": 0.01, "gain": 0.1}}
        assert not any("does not beat" in note for note in advise(graph, new).notes)
    finally:
        graph.gains = kept


def test_of_few_datasets_nobody_knows_how_sure_a_ranking_is():
    for d, told in ((3, False), (5, True)):
        rng = np.random.default_rng(0)
        accuracies = {f"d{k}": 0.5 + 0.1 * np.arange(4) + 0.02 * rng.normal(size=4) for k in range(d)}
        fit = TransferGraph().fit(toy_zoo(accuracies, modality="text"))
        advice = advise(fit, describe_words(fit.zoo, modality="text", words="reviews"))
        assert ("best" in advice.ranking) == any("with probability" in note for note in advice.notes) == told
        assert any("how sure this is cannot be told" in note for note in advice.notes) != told
        every = dict(zip(fit.zoo.models["model"], (0.5, 0.6, 0.7, 0.8)))
        notes = advise(fit, describe_words(fit.zoo, modality="text", words="reviews"), observed=every).notes
        assert not any("cannot be told" in note for note in notes)  # all were run


def test_gains_are_kept_with_the_fit(graph, tmp_path):
    graph.save(tmp_path / "fit")
    assert TransferGraph.load(tmp_path / "fit").gains == graph.gains and set(graph.gains) == {"text"}


def test_what_comes_from_elsewhere():
    zoo = Zoo(
        models=pd.DataFrame(
            {
                "model": ["own", "hub", "own-but-of-world", "unknown"],
                "modality": "image",
                "source": ["local", "timm", "local", None],
                "pretrained_on": ["shapes", "imagenet", None, None],
            }
        ),
        datasets=pd.DataFrame(
            {"dataset": ["shapes", "imagenet"], "modality": "image", "n_samples": [500, 1e6]}
        ),
    ).validate()
    assert trained_elsewhere(zoo, zoo.models["model"]).tolist() == [False, True, True, True]
    table = pd.DataFrame({"model": zoo.models["model"], "n_params": [9e9, 1.0, 2.0, np.nan], "family": None})
    ranked = rank_in_general(zoo, table.assign(mean=np.nan))
    assert ranked["model"].tolist() == ["own-but-of-world", "hub", "unknown", "own"]
    scores = pd.DataFrame({"model": ["own"], "metric": "logistic", "score": [0.3]})
    assert rank_in_general(zoo, table.assign(mean=np.nan), scores)["model"].iloc[0] == "own"


def test_unlike_models_are_run_too():
    ranking = pd.DataFrame({"model": list("abcdefg"), "family": list("xxxxyzz")})
    assert choose_to_run(ranking, 3) == ["a", "b", "c", "e", "f"]
    assert choose_to_run(ranking.assign(own=[True] * 5 + [False] * 2), 1) == [
        "a",
        "f",
    ]  # from elsewhere first
    assert choose_to_run(ranking, 7) == list("abcdefg")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    def run(*args):
        code = main([str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return run


def test_words_alone_rank_and_a_zoo_that_is_not_there_is_one_command(call, tmp_path):
    zoo_of_texts().save(tmp_path / "zoos" / "text-mteb")
    words = ("--dataset-like", "customers' reviews of films, five stars", "--json")
    code, out, err = call("rank", *words, "--modality", "text")
    assert code == 0, err
    assert "zoos/text-mteb is taken" in err and "counts as most like stars, films" in err
    assert len(json.loads(out)) == 6
    assert call("rank", "zoos/text-mteb", *words)[1] == out
    code, out, err = call("rank", "--dataset-like", "photos of dogs", "--modality", "image")
    assert (
        (code, out) == (2, "")
        and err.count("\n") == 1
        and "`transfergraph zoo get image-mieb` gets it" in err
    )
    assert "--modality image or text" in call("rank", *words)[2]
    assert "no usual one for modality 'audio'" in call("rank", *words, "--modality", "audio")[2]
    assert "expected a few words" in call("rank", "zoos/text-mteb", "--dataset-like", " ")[2]
    both = call("rank", "zoos/text-mteb", *words, "--data", "x.csv")
    assert both[0] == 2 and "--dataset-like: not allowed with --data" in both[2]


def test_data_without_a_zoo_take_the_usual_one(call, tmp_path):
    zoo_of_texts().save(tmp_path / "zoos" / "text-mteb")
    rows = [
        f"das war nicht der beste Film und die Musik ist {w} {i},{w}"
        for w in ("gut", "mies")
        for i in range(8)
    ]
    Path("filme.csv").write_text("text,label\n" + "\n".join(rows))
    code, _, err = call("rank", "--data", "filme.csv", "--quiet", "--json")
    assert code == 0 and "no zoo was named: zoos/text-mteb is taken" in err
    assert "the texts look german, which the model of words does not know" in err
    code, _, err = call("rank", "--data", "filme.csv", "--quiet", "--json", "--describe", ABOUT["films"])
    assert code == 0 and "the texts look german" not in err and "most like films" in err
    assert call("rank", "zoos/text-mteb", "--dataset", "films", "--describe", "x")[0] == 2


def test_a_zoo_without_records_ranks_by_cards(call, tmp_path):
    zoo = zoo_of_texts("image")
    models = zoo.models.assign(n_params=[1e6, 5e6, 3e6, 2e6, 9e6, 4e6], source="timm")
    Zoo(models=models, datasets=zoo.datasets).save(tmp_path / "zoo")
    code, out, err = call("rank", "zoo", "--dataset-like", "photos", "--json", "--top", 2)
    assert code == 0 and "no fine-tuning records" in err and "import-records" in err
    assert [row["model"] for row in json.loads(out)] == ["m4", "m1"]
    small = call("rank", "zoo", "--dataset-like", "x y", "--json", "--max-params", "3e6")
    assert [row["model"] for row in json.loads(small[1])] == ["m2", "m3", "m0"]


def test_how_many_are_run_is_a_number_all_or_none(call, tmp_path):
    zoo_of_texts().save(tmp_path / "zoo")
    for wrong in ("0", "some", "-1"):
        assert (
            "expected a number of 1 or more, all or none"
            in call("rank", "zoo", "--data", "x.csv", f"--with-scores={wrong}")[2]
        )


def photos(folder):
    "Four classes of crops of photographs that libraries bring; turned, mirrored, grey, some negative."
    import matplotlib
    import sklearn

    images = Path(sklearn.__file__).parent / "datasets" / "images"
    portrait = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    parts = {
        "face": (portrait, (120, 20, 400, 330)),
        "uniform": (portrait, (60, 330, 480, 600)),
        "flower": (images / "flower.jpg", (180, 30, 480, 400)),
        "temple": (images / "china.jpg", (150, 100, 560, 330)),
    }
    rng = np.random.default_rng(0)
    for name, (file, box) in parts.items():
        (folder / name).mkdir(parents=True)
        part = ImageOps.grayscale(Image.open(file).crop(box))
        for i in range(40):
            side = int(min(part.size) * rng.uniform(0.55, 0.95))
            x, y = (int(rng.integers(0, length - side + 1)) for length in part.size)
            crop = part.crop((x, y, x + side, y + side)).resize((96, 96)).rotate(rng.uniform(-25, 25))
            crop = ImageOps.mirror(crop) if rng.random() < 0.5 else crop
            (ImageOps.invert(crop) if rng.random() < 0.5 else crop).save(folder / name / f"{i}.png")


@pytest.mark.slow
def test_photos_get_the_network_that_has_seen_photos(call, tmp_path):
    "A zoo of small networks on drawings, whose only real network did worst on them."
    toys, probe = ["letters", "shapes", "flags", "textures"], {"spec": "efficientnet-lite0", "input_size": 64}
    bare = Zoo(
        models=pd.DataFrame({"model": ["x"], "modality": "image"}),
        datasets=pd.DataFrame({"dataset": ["y"], "modality": "image"}),
    ).validate()
    seen = [describe_dataset(bare, name, probe=probe, per_class=8, progress=False)[1] for name in toys]
    models = {f"toy-{i}": {"spec": "test_resnet", "input_size": 32, "random_state": i} for i in range(4)}
    models["efficientnet-lite0"] = {"spec": "efficientnet-lite0", "input_size": 32}
    rng = np.random.default_rng(0)
    quality = np.array([0.9, 0.8, 0.85, 0.7, 0.3])[:, None] + rng.normal(scale=0.02, size=(5, 4))
    zoo = toy_zoo(pd.DataFrame(quality, list(models), toys), modality="image")
    cards = {"source": ["local"] * 4 + ["timm"], "pretrained_on": ["letters"] * 4 + ["imagenet-1k"]}
    vectors = with_probe(embeddings({n: d.embedding for n, d in zip(toys, seen)}), probe)
    zoo = replace(zoo, models=zoo.models.assign(**cards), embeddings=vectors)
    zoo = replace(zoo, datasets=zoo.datasets.assign(n_samples=500, n_classes=10))
    zoo.save(tmp_path / "zoo")
    (tmp_path / "models.json").write_text(json.dumps(models))
    photos(tmp_path / "photos")
    asked = ("rank", "zoo", "--data", "photos", "--quiet", "--json")
    for how_many in ("all", 1, None):
        more = ("--models", "models.json", "--with-scores", how_many) if how_many else ()
        code, out, err = call(*asked, *more)
        assert code == 0 and "is like nothing in the zoo" in err, err
        first = json.loads(out)[0]
        assert first["model"] == "efficientnet-lite0" and first["mean_place"] == 5
        assert not more or first["accuracy"] > 0.8
    own = call("rank", "zoo", "--data", "shapes", "--quiet", "--json", "--with-scores", "none")
    assert json.loads(own[1])[-1]["model"] == "efficientnet-lite0" and "like nothing" not in own[2]
