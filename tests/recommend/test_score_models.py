"""Models ranked by running them, each task against hidden states and scores computed another way."""

import json
import warnings
from functools import partial

import networks
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from PIL import Image
from scipy.optimize import minimize

import transfergraph
from transfergraph.cli.program import main
from transfergraph.data.dataset import load_dataset
from transfergraph.models.checkpoints import find_installed
from transfergraph.models.loading import load_backbone
from transfergraph.recommend.score_models import score_candidates, score_models, target_labels

NOUNS = "bank river money boat loan shore credit fish debt sail".split()
VERBS = "rose sank grew fell".split()


def logme(features, targets):
    "Log of N(y; 0, I / beta + F F' / alpha) per sample at its largest, mean over the columns of targets."
    values, vectors = np.linalg.eigh(features.astype(float) @ features.astype(float).T)

    def cost(logs, turned):
        variance = np.exp(-logs[1]) + np.exp(-logs[0]) * values.clip(0)
        return 0.5 * (np.log(2 * np.pi * variance) + turned**2 / variance).mean()

    def least(turned):
        how = {"method": "Nelder-Mead", "options": {"xatol": 1e-5, "fatol": 1e-10, "maxiter": 2000}}
        return min(minimize(cost, start, (turned,), **how).fun for start in [(0, 2), (6, 2), (-4, 7)])

    return -np.mean([least(vectors.T @ column) for column in targets.T.astype(float)])


def one_hot(labels):
    return (np.asarray(labels)[:, None] == np.unique(labels)).astype(float)


@pytest.fixture(scope="module")
def encoder():
    "MiniLM without this library: layers of hidden states of every token, (n_layers, n_tokens, d)."
    folder = find_installed("minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    def states(*texts, **how):
        tokens = tokenizer(*texts, return_tensors="pt", **how)
        with torch.inference_mode():
            hidden = model(**tokens, output_hidden_states=True).hidden_states[1:]
        return np.stack([layer[0].numpy() for layer in hidden]), tokens

    return states


def embedding(states):
    "Mean of the tokens of the last layer, of length 1, as the checkpoint's own modules say."
    mean = states[-1].mean(0)
    return mean / np.linalg.norm(mean)


def sentence(i):
    return f"the {NOUNS[i % 10]} near the {NOUNS[(3 * i + 1) % 10]} {VERBS[i % 4]} by {i}"


def run(data, **how):
    how = {"models": ["minilm"], "cache": False, "progress": False, "keep_copies": True} | how
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score_models(data, **how)


def training(data, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_dataset(data, keep_copies=True, progress=False, **how)


def write(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_numbers_as_targets(tmp_path, encoder):
    rows = [{"text": sentence(i), "stars": round((i % 10) / 3, 2)} for i in range(24)]
    data, how = write(tmp_path / "stars.csv", rows), {"task": "regression", "label_column": "stars"}
    found, dataset = run(data, **how), training(data, **how)
    features = np.stack([embedding(encoder(text)[0]) for text in dataset.items["train"]])
    expected = logme(features, dataset.labels["train"][:, None])
    assert found["score"].tolist() == pytest.approx([expected], rel=1e-4)
    assert sorted(dataset.labels["train"].tolist() + dataset.labels["test"].tolist()) == sorted(
        row["stars"] for row in rows
    )


def test_several_numbers_are_scored_one_by_one(tmp_path, encoder):
    rows = [{"text": sentence(i), "a": i % 10 / 3, "b": i % 4, "c": 1} for i in range(24)]
    how = {"task": "regression", "label_column": ["a", "b", "c"]}
    found, dataset = (f(write(tmp_path / "d.csv", rows), **how) for f in (run, training))
    features = np.stack([embedding(encoder(text)[0]) for text in dataset.items["train"]])
    expected = logme(features, dataset.labels["train"][:, :2])  # the third never varies
    assert found["score"][0] == pytest.approx(expected, rel=1e-4)


def test_pairs_of_texts_go_in_together(tmp_path, encoder):
    rows = [
        {"premise": sentence(i), "claim": sentence(i + i % 3), "label": "yn"[i % 3 > 0]} for i in range(28)
    ]
    data, how = write(tmp_path / "pairs.csv", rows), {"text_column": ["premise", "claim"]}
    found, dataset = run(data, **how), training(data, **how)
    assert dataset.items["train"][0] == (rows[0]["premise"], rows[0]["claim"])
    features = np.stack([embedding(encoder(*pair)[0]) for pair in dataset.items["train"]])
    expected = logme(features, one_hot(dataset.labels["train"]))
    assert found["score"].tolist() == pytest.approx([expected], rel=1e-4)
    alone = np.stack([embedding(encoder(" ".join(pair))[0]) for pair in dataset.items["train"]])
    assert abs(logme(alone, one_hot(dataset.labels["train"])) - expected) > 1e-3


def test_several_labels_of_an_item(tmp_path, encoder):
    def topics(i):
        return [word for word, every in (("money", 2), ("water", 3), ("both", 5)) if i % every == 0]

    file = tmp_path / "topics.jsonl"
    file.write_text("\n".join(json.dumps({"text": sentence(i), "labels": topics(i)}) for i in range(28)))
    found, dataset = run(file, task="multi-label"), training(file, task="multi-label")
    assert dataset.label_names == ["both", "money", "water"]
    features = np.stack([embedding(encoder(text)[0]) for text in dataset.items["train"]])
    expected = logme(features, dataset.labels["train"])
    assert found["score"].tolist() == pytest.approx([expected], rel=1e-4)


def conll(n):
    for i in range(n):
        words = sentence(i).split()
        tags = ["B-X" if word in NOUNS else "I-X" if word in VERBS else "O" for word in words]
        yield "\n".join(f"{word} {tag}" for word, tag in zip(words, tags))


def of_words(encoder, sentences, layer=-1):
    rows = []
    for words in sentences:
        states, tokens = encoder(words, is_split_into_words=True)
        places = np.array([-1 if word is None else word for word in tokens.word_ids()])
        chosen = states[layer] if layer is not None else states.mean(0)
        rows += [chosen[places == word].mean(0) for word in range(len(words))]
    return np.stack(rows)


def test_a_tag_for_each_word(tmp_path, encoder):
    file = tmp_path / "chunks.conll"
    file.write_text("\n\n".join(conll(12)))
    how = {"task": "token-classification"}
    found = run(file, layers=["last", "mean", "best"], scores=["LogME", "k-NN"], **how)
    dataset = training(file, **how)
    tags = np.concatenate(dataset.labels["train"])
    ways = {"last": -1, "mean": None} | {str(i + 1): i for i in range(6)}
    expected = {
        name: logme(of_words(encoder, dataset.items["train"], at), one_hot(tags)) for name, at in ways.items()
    }
    found = found[found["metric"] == "LogME"].set_index("layers")
    assert found.at["last", "score"] == pytest.approx(expected["last"], rel=1e-4)
    assert found.at["mean", "score"] == pytest.approx(expected["mean"], rel=1e-4)
    del expected["mean"], expected["6"]
    best = max(expected, key=expected.get)
    assert found.at["best", "layer"] == best
    assert found.at["best", "score"] == pytest.approx(expected[best], rel=1e-4)


def test_words_of_a_sentence_that_is_too_long_are_all_there(tmp_path):
    networks.save_tiny(tmp_path / "net", "bert")
    backbone = load_backbone(tmp_path / "net")
    file = tmp_path / "long.jsonl"
    rows = [
        {"tokens": ["the", "cat", "sat"] * (4 + 5 * i), "ner_tags": [0, 1, 2] * (4 + 5 * i)} for i in range(6)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    dataset = training(file, task="token-classification")
    assert max(map(len, dataset.items["train"])) > 2 * backbone.preparation.max_length
    found = score_models(dataset, [backbone], cache=False, progress=False)
    assert np.isfinite(found["score"][0]) and target_labels(dataset).n == sum(
        map(len, dataset.items["train"])
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    "Images in three colours, brighter and brighter, with a table of labels of every kind; a small network."
    folder = tmp_path_factory.mktemp("pictures")
    rng, rows = np.random.default_rng(0), []
    for i in range(24):
        pixels = rng.integers(0, 40, (32, 32, 3)) + 6 * i
        pixels[:, :, i % 3] += 60
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
        flags = {"bright": int(i > 11), "red": int(i % 3 == 0)}
        rows.append({"file_name": f"{i:02d}.png", "label": "rgb"[i % 3], "light": i / 7, **flags})
    write(folder / "metadata.csv", rows)
    networks.save_timm(folder / "net")
    return folder


def timm_features(folder, images):
    "Of a network as timm itself loads it, with timm's transform."
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
    with torch.inference_mode():
        return model(pixels).numpy()


@pytest.mark.parametrize(
    ("task", "label_column"),
    [("classification", "label"), ("multi-label", ["bright", "red"]), ("regression", "light")],
)
def test_images(pictures, task, label_column):
    how = {"task": task, "label_column": label_column, "size": 32}
    found = run(pictures, models=[pictures / "net"], **how)
    dataset = training(pictures, **how)
    features = timm_features(pictures / "net", dataset.items["train"])
    labels = dataset.labels["train"]
    targets = one_hot(labels) if task == "classification" else labels.reshape(len(labels), -1)
    assert found["reason"].isna().all()
    assert found["score"].tolist() == pytest.approx([logme(features, targets)], rel=1e-4)


def test_layers_of_a_network_of_images(pictures):
    how = {"label_column": "label", "size": 32, "models": [pictures / "net"]}
    found = run(pictures, layers=["last", "best"], **how).set_index("layers")
    assert found.at["best", "score"] >= found.at["last", "score"]
    assert "have no mean" in run(pictures, layers="mean", **how)["reason"][0]


def test_a_model_that_fails_is_a_row_with_its_reason(pictures, tmp_path):
    (tmp_path / "config.json").write_text("{")
    models = [tmp_path, "minilm", pictures / "net", tmp_path / "nothing"]
    found = run(pictures, label_column="label", size=32, models=models).set_index("model")
    assert found.index[0] == str(pictures / "net") and found["score"].notna().sum() == 1
    assert "expected a model for images" in found.at["minilm", "reason"]
    assert "expected a folder" in found.at[str(tmp_path / "nothing"), "reason"]
    assert "config.json" in found.at[str(tmp_path), "reason"]


def test_a_score_that_is_not_defined_is_refused_with_those_that_are(tmp_path):
    data = write(tmp_path / "d.csv", [{"text": sentence(i), "y": i / 3} for i in range(12)])
    how = {"label_column": "y", "task": "regression"}
    with pytest.raises(ValueError, match="SFDA is not defined for numbers; expected some of LogME, H-score"):
        run(data, scores="SFDA", **how)
    with pytest.raises(ValueError, match="RSA compares two models; expected some of"):
        run(data, scores=["LogME", "RSA"], **how)
    with pytest.raises(ValueError, match="layers: 'first'; expected some of last, mean, best"):
        run(data, layers="first", **how)
    with pytest.raises(ValueError, match="labels are the same in all 9 rows"):
        run(write(tmp_path / "e.csv", [{"text": sentence(i), "y": 2} for i in range(12)]), **how)


def test_predictions_of_a_head(tmp_path, pictures):
    from transfergraph.scores.registry import score

    found = run(
        pictures, models=[pictures / "net", "test_resnet"], scores="LEEP", label_column="label", size=32
    )
    backbone, dataset = load_backbone(pictures / "net"), training(pictures, label_column="label", size=32)
    expected = score("LEEP", backbone.probabilities(dataset.items["train"]), dataset.labels["train"])
    assert found["score"][0] == pytest.approx(expected, rel=1e-5)


def test_what_was_computed_is_not_computed_again(tmp_path, pictures):
    how = {"label_column": "label", "size": 32, "cache": tmp_path}
    backbone = load_backbone(pictures / "net")
    first = run(pictures, models=[backbone], **how)

    def stopped(batch):
        raise RuntimeError("the network was run again")

    backbone.body.forward = stopped
    again = run(pictures, models=[backbone], scores=["LogME", "k-NN"], **how)
    assert again["score"][0] == first["score"][0] and again["reason"].isna().all()
    assert (
        "the network was run again" in run(pictures, models=[backbone], **how | {"cache": False})["reason"][0]
    )


def test_items_are_drawn_where_there_are_many(tmp_path):
    rows = [{"text": sentence(i), "label": i % 2} for i in range(40)]
    with pytest.warns(UserWarning, match="8 of 30 items of train are drawn; items=N"):
        found = score_models(
            write(tmp_path / "d.csv", rows),
            ["minilm"],
            items=8,
            cache=False,
            progress=False,
            keep_copies=True,
        )
    assert np.isfinite(found["score"][0])


def test_candidates_that_fail_are_named_and_the_others_scored(pictures):
    dataset = training(pictures, label_column="label", size=32)
    load = {"net": partial(load_backbone, pictures / "net"), "none": partial(load_backbone, "./none")}
    with pytest.warns(UserWarning, match="none: ./none: expected a folder .* is ranked without scores"):
        table = score_candidates(load, dataset, lambda name: load[name](), progress=False)
    assert table["model"].tolist() == ["net"] * 3 and table["metric"].tolist() == [
        "H-score",
        "LogME",
        "logistic",
    ]
    with pytest.raises(ValueError, match="expected a folder"):
        score_candidates(["none"], dataset, lambda name: load[name](), progress=False)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "stars.csv", [{"text": sentence(i), "stars": i / 7} for i in range(20)])
    asked = ["score", "--data", "stars.csv", "--models", "minilm", "./none", "--quiet", "--cache", "kept"]
    assert main(asked) == 2
    assert "reads them with --task regression" in capsys.readouterr().err
    assert main([*asked, "--task", "regression", "--score", "LogME", "k-NN", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["model"], row["metric"]) for row in rows] == [
        ("minilm", "LogME"),
        ("./none", "LogME"),
        ("minilm", "k-NN"),
        ("./none", "k-NN"),
    ]
    expected = transfergraph.score_models(
        "stars.csv", "minilm", task="regression", cache="kept", progress=False
    )
    assert rows[0]["score"] == pytest.approx(expected["score"][0]) and rows[1]["score"] is None
    assert (
        main(["score", "--data", "stars.csv", "--models", "./none", "--task", "regression", "--quiet"]) == 2
    )
    assert "none of the models could be run; ./none: expected a folder" in capsys.readouterr().err
