"""Folders of results: what mteb and the Trainer of transformers leave, and what of it is no result."""

import json

import pytest

from transfergraph.build.run_folders import language_codes, read_mteb, read_run_folder, read_trainer_runs
from transfergraph.cli.program import main
from transfergraph.zoo.tables import Zoo, ZooError

CARD = """---
base_model: me/base
model-index:
- name: it
  results:
  - dataset: {name: imdb, type: stanfordnlp/imdb, split: test}
    task: {type: text-classification}
    metrics: [{type: accuracy, value: 0.5}]
---
### Training hyperparameters
- learning_rate: 2e-05
- train_batch_size: 16
- seed: 7
"""


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def task(main=0.5, runs=(0.4, 0.6), split="test", **more):
    score = {"hf_subset": "default", "main_score": main, "accuracy": main}
    score["scores_per_experiment"] = [{"accuracy": run} for run in runs]
    return {"scores": {split: [score | more]}}


# ---- mteb


def test_tasks_splits_and_parts(tmp_path):
    at = tmp_path / "me__m" / "abc"
    write(at / "Mood.json", {"scores": task()["scores"] | task(0.9, split="validation")["scores"]})
    write(at / "News.json", task(0.7, hf_subset="deu"))
    write(at / "Only.json", task(0.3, split="train"))
    write(at / "Search.json", {"scores": {"test": [{"main_score": 0.4, "hf_subset": "default"}]}})
    zoo, report = read_mteb(tmp_path)
    assert zoo.records.set_index("dataset")["accuracy"].to_dict() == {
        "Mood": 0.5,
        "News:deu": 0.7,
        "Only": 0.3,
    }
    assert zoo.records["se"].round(6).eq(0.1).all() and zoo.models["model"].tolist() == ["me/m"]
    assert report["reason"].tolist() == ["of the split 'validation'", "not of a classification"]
    zoo, report = read_mteb(tmp_path, ["Mood", "News:eng"], {"Mood": "validation"}, least=1)
    assert zoo.records["accuracy"].tolist() == [0.9]
    assert "of News:deu, which is not asked for" in report["reason"].tolist()


def test_a_model_with_few_results_is_left_out(tmp_path):
    for model, tasks in (("a", "XYZ"), ("b", "X")):
        for name in tasks:
            write(tmp_path / model / "1" / f"{name}.json", task())
    zoo, report = read_mteb(tmp_path, least=2)
    assert zoo.models["model"].tolist() == ["a"] and len(zoo.records) == 3
    assert report["reason"].tolist() == ["fewer than 2 results of this model"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not JSON"),
        ([1], "holds list; expected an object"),
        ({"scores": [1]}, "no lists of scores by split"),
        ({"scores": {"test": [1]}}, "a score is 1; expected an object"),
        (task(1.5), "main_score of X is 1.5; expected a number from 0 to 1"),
        (task(main="good"), "main_score of X is 'good'"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_broken_file_is_named(content, told, tmp_path):
    write(tmp_path / "m" / "r" / "X.json", content)
    with pytest.raises(ZooError, match=rf"X\.json: {told}"):
        read_mteb(tmp_path)


def test_languages_are_written_as_in_zoos():
    assert language_codes(["eng-Latn", "deu_Latn", "en", "zho-Hans"]) == "de|en|zh"
    assert language_codes(["swa-Latn"]) == "swa" and language_codes([None, ""]) is None


def test_a_folder_of_mteb_joins_a_zoo(tmp_path, capsys):
    meta = {
        "name": "me/m",
        "n_parameters": 5e7,
        "license": "mit",
        "modalities": ["text"],
        "open_weights": True,
    }
    for name in ("Mood", "News"):
        write(tmp_path / "results" / "me__m" / "abc" / f"{name}.json", task())
    write(tmp_path / "results" / "me__m" / "abc" / "model_meta.json", meta)
    assert main(["import-records", str(tmp_path), str(tmp_path / "zoo")]) == 0
    assert "2 records added" in capsys.readouterr().out
    zoo = Zoo.load(tmp_path / "zoo")
    assert zoo.models[["modality", "licence", "n_params", "hub_id"]].values.tolist() == [
        ["text", "mit", 5e7, "me/m"]
    ]
    assert zoo.records["method"].eq("linear").all() and zoo.records["n_runs"].eq(2).all()
    assert main(["import-records", str(tmp_path), str(tmp_path / "zoo")]) == 0
    assert "0 records added, 2 were there already" in capsys.readouterr().out


# ---- Trainer


def test_a_run_tells_its_model_and_dataset_by_its_card(tmp_path):
    write(tmp_path / "run" / "README.md", CARD)
    write(
        tmp_path / "run" / "all_results.json", {"epoch": 3.0, "eval_accuracy": 0.8, "predict_accuracy": 0.7}
    )
    table = read_trainer_runs(tmp_path)
    row = table.iloc[0].to_dict()
    assert row == {"model": "me/base", "dataset": "stanfordnlp/imdb", "accuracy": 0.7, "epochs": 3.0} | {
        "method": "full",
        "learning_rate": 2e-5,
        "batch_size": 16,
        "seed": 7,
    }


def test_folders_tell_what_a_layout_says(tmp_path, capsys):
    for seed in (1, 2):
        at = tmp_path / "runs" / "bert" / "imdb" / f"seed-{seed}"
        write(at / "all_results.json", {"eval_accuracy": seed / 4, "epoch": 2})
        write(at / "checkpoint-500" / "trainer_state.json", {"log_history": []})  # of the same run
    command = ["import-records", str(tmp_path / "runs"), str(tmp_path / "zoo"), "--modality", "text"]
    assert main(command) == 2 and "say --layout model/dataset" in capsys.readouterr().err
    assert main([*command, "--layout", "model/dataset"]) == 2
    assert "lies 3 folders deep; expected model/dataset" in capsys.readouterr().err
    assert main([*command, "--layout", "model/set/seed"]) == 2
    assert "'set'; expected model, dataset, seed, *" in capsys.readouterr().err
    assert main([*command, "--layout", "model/dataset/seed"]) == 0
    assert "2 of 2 accuracies are called eval_accuracy" in capsys.readouterr().err
    records = Zoo.load(tmp_path / "zoo").records
    assert records["accuracy"].tolist() == [0.25, 0.5] and records["seed"].tolist() == [1, 2]


def test_the_kept_checkpoint_counts_else_the_last_evaluation(tmp_path):
    log = [{"epoch": e, "eval_accuracy": a} for e, a in ((1, 0.7), (2, 0.9), (3, 0.8))]
    write(tmp_path / "m" / "a" / "trainer_state.json", {"log_history": log})
    kept = {"log_history": log, "best_metric": 0.9, "best_model_checkpoint": "x"}
    write(tmp_path / "m" / "b" / "trainer_state.json", kept)
    write(tmp_path / "m" / "b" / "adapter_config.json", {})
    with pytest.warns(UserWarning, match="the last of 3 evaluations is taken|are called eval_accuracy"):
        table = read_trainer_runs(tmp_path, "model/dataset")
    assert table["accuracy"].tolist() == [0.8, 0.9] and table["method"].tolist() == ["full", "lora"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"eval_loss": 1}, "no accuracy; expected one of predict_accuracy, test_accuracy, eval_accuracy"),
        ({"eval_accuracy": 91.0}, "eval_accuracy is 91.0; expected a number from 0 to 1"),
        ({"eval_accuracy": "high"}, "eval_accuracy is 'high'"),
        ({"eval_accuracy": float("nan")}, "eval_accuracy is nan"),
        ("nothing", "is not JSON"),
    ],
)
def test_a_run_without_an_accuracy_is_named(content, told, tmp_path):
    write(tmp_path / "m" / "d" / "all_results.json", content)
    with pytest.raises(ZooError, match=rf"all_results\.json: {told}"):
        read_trainer_runs(tmp_path, "model/dataset")


def test_a_folder_without_results_and_options_of_the_other_kind(tmp_path, capsys):
    with pytest.raises(ZooError, match="holds no results; expected <model>/<revision>/<task>"):
        read_run_folder(tmp_path)
    (tmp_path / "t.csv").write_text("model,dataset,accuracy\na,x,0.5\n")
    command = ["import-records", str(tmp_path / "t.csv"), str(tmp_path / "zoo"), "--layout", "model/dataset"]
    assert (
        main(command) == 2 and "is a table; expected it with a folder of runs only" in capsys.readouterr().err
    )
    assert main(["import-records", str(tmp_path), str(tmp_path / "zoo"), "--percent"]) == 2
    assert "--percent: " in capsys.readouterr().err
