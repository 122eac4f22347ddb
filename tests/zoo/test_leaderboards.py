"""Readers of tables that others publish, on tables made up here; see test_catalogue.py for the real ones."""

import numpy as np
import pandas as pd
import pytest

from transfergraph.zoo.leaderboards import (
    long_records,
    misaligned,
    read_euroeval,
    read_open_clip,
    read_recycling,
    read_shift,
)
from transfergraph.zoo.tables import ZooError

EURO = "Task,,,,Sentiment,~~~Names~~~,,hidden,,\n"
EURO += "Model,Type,Parameters,Open,tweets,news,books,tweets_version,news_version,books_version\n"
TASKS = {"Sentiment": {"place": 1, "metric": "macro-F1"}, "Names": {"place": 0, "metric": "micro-F1"}}
SHIFT = "model_identifier,framework,train_dataset_name,epochs,batch_size,configs,train_slice,test_accuracy\n"


def written(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    return tmp_path


def test_rows_under_the_wrong_heads_are_found_whichever_way_they_are_turned():
    rng = np.random.default_rng(1)
    ease = np.linspace(0.3, 0.95, 12)
    values = pd.DataFrame(np.clip(ease + rng.normal(0, 0.02, (200, 12)), 0, 1))
    turned = {3: 1, 50: 4, 90: 6, 120: 11}
    for row, by in turned.items():
        values.loc[row] = np.roll(values.loc[row], by)
    values.loc[7] = rng.normal(0.5, 0.01, 12)  # collapsed: bad, not misaligned
    values.loc[8] = values.loc[8].where(values.columns < 1)  # one value: nothing speaks against it
    found = misaligned(values)
    assert set(found.index[found != ""]) - {7} == set(turned)


def test_one_value_that_is_too_good_is_believed_in_a_row_that_looks_right():
    rng = np.random.default_rng(2)
    values = pd.DataFrame(np.linspace(0.3, 0.9, 12) + rng.normal(0, 0.01, (3000, 12)))
    values.loc[5, 3] += 0.1
    assert (misaligned(values) == "").all()
    values.loc[5, 4] += 0.1
    assert misaligned(values).loc[5].endswith("two or more are above what well-aligned rows have")


def test_recycling_says_what_became_of_each_row(tmp_path):
    head = "model_name,base_model,size,model_type,mnli_lp,cola,rte,stsb\n"
    rows = ["me/a,b,1e8,bert,0.5,0.8,0.6,0.9", "me/a,b,1e8,bert,0.5,0.1,0.1,0.1", "me/b,b,1e8,bert,,,,"]
    rows += ["me/c,b,1e8,bert,0.5,0,1.2,0.88", "me/d,b,1e8", "b,b,1e8,bert,0.5,0.7,0.5,0.8"]
    written(tmp_path, "t.csv", head + "\n".join(rows) + "\n")
    runs = [("cola", 0.7, ""), ("cola", 0.0, ""), ("cola", 0.9, ""), ("stsb", "", 0.5), ("rte", 0.5, "")]
    lines = [f"{i}\t{d}\t{a}\t{s}\n" for i, (d, a, s) in enumerate(runs)]
    written(tmp_path, "b.csv", "\tdataset name\taccuracy\tspearmanr\n" + "".join(lines))
    zoo, report = read_recycling(tmp_path, "t.csv", {"b": "b.csv"}, ["stsb"])
    got = zoo.records.set_index(["model", "dataset"])["accuracy"].to_dict()
    assert got.pop(("b", "cola")) == pytest.approx(0.8)
    want = {("me/a", "cola"): 0.8, ("me/a", "rte"): 0.6, ("me/a", "stsb"): 0.9, ("me/c", "stsb"): 0.88}
    assert got == want | {("b", "stsb"): 0.5, ("b", "rte"): 0.5}
    reasons = report.groupby("line")["reason"].agg(list)
    assert reasons[3] == ["named twice; the first is kept", "no accuracy above 0: the run failed"]
    assert reasons[4] == ["no results"] and reasons[6] == ["3 fields, expected 8"]
    assert sorted(reasons[5]) == [
        "accuracy '1.2' is not between 0 and 1",
        "no accuracy above 0: the run failed",
    ]
    assert zoo.models.set_index("model").loc["b", ["family", "n_params"]].tolist() == ["bert", 1e8]


def test_open_clip_knows_a_model_by_name_and_data(tmp_path):
    table = "name,pretrained,params (M),FLOPs (B),Average perf.,MNIST,Flickr\n"
    table += "A,x,1,1,0,0.5,0.1\nA,y,1,1,0,0.6,0.1\nA,x,1,1,0,0.7,0.1\nB,x,1,1,0,,0.1\n"
    written(tmp_path, "r.csv", table)
    written(tmp_path, "p.csv", "model,image_size\nA,224\n")
    zoo, report = read_open_clip(tmp_path, "r.csv", "p.csv", {"Flickr": "retrieval"})
    assert zoo.records.values.tolist() == [["A|x", "MNIST", 0.5], ["A|y", "MNIST", 0.6]]
    assert sorted(report["reason"]) == ["named twice; the first is kept", "retrieval"]
    assert zoo.models["input_size"].tolist()[:2] == [224, 224] and zoo.models["n_params"].iloc[0] == 1e6


def test_euroeval_takes_the_metric_of_the_task(tmp_path):
    cell = "{} ± 1.0 / {} ± 1.96@@x"
    row = [
        "<a href='x'>me/e</a>",
        "🔍",
        "1e8",
        "✓",
        cell.format(20, 40),
        cell.format(80, 70),
        "-@@-1",
        "1",
        "1",
        "1",
    ]
    other = ["me/f (val)", "🔍", "?", "✗", *row[4:]]
    chat = ["me/chat", "🤔", "?", "✗", *row[4:]]
    written(tmp_path, "danish_nlu.csv", EURO + "\n".join(map(",".join, (row, other, chat))) + "\n")
    zoo, report = read_euroeval(tmp_path, ["danish_nlu.csv"], TASKS)
    got = zoo.records.set_index("dataset")
    assert got["accuracy"].to_dict() == {"tweets": 0.4, "news": 0.8}
    assert got["metric"].to_dict() == {"tweets": "macro-F1", "news": "micro-F1"}
    assert got["se"].tolist() == pytest.approx([0.01, 0.01 / 1.96])
    reasons = [
        "its scores are of validation data",
        "not an encoder: it was asked, not fine-tuned",
        "no result",
    ]
    assert report["reason"].tolist() == reasons and report["file"].eq("danish_nlu.csv").all()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "its second line lacks Model, Open, Parameters, Type"),
        ("a\nModel,Type\n", "its second line lacks 1 columns"),
        (
            EURO.replace("Sentiment", "Poetry"),
            "column 'tweets' is of task 'Poetry'; expected Sentiment, Names",
        ),
    ],
)
def test_a_leaderboard_of_another_layout_is_named(content, told, tmp_path):
    written(tmp_path, "danish_nlu.csv", content)
    with pytest.raises(ZooError, match=r"danish_nlu\.csv: " + told):
        read_euroeval(tmp_path, ["danish_nlu.csv"], TASKS)


def test_shift_keeps_one_protocol_and_the_best_of_repeats(tmp_path):
    line = "me/a,{},{},{},64,\"{{'lr': {}, 'label_name': 'label_azimuth', 'preprocess': '{}'}}\",{},{}\n"
    rows = [
        ("HuggingFace", "smallnorb", 25, 0.01, "", ":800", 0.3),
        ("HuggingFace", "smallnorb", 25, 0.01, "", ":800", 0.5),
        ("HuggingFace", "clevr", 25, 0.01, "clevr_distance", ":800", 0.4),
        ("HuggingFace", "dtd", 25, 0.1, "", ":800", 0.02),
        ("HuggingFace", "dtd", 1, 0.01, "", ":800", 0.1),
        ("HuggingFace", "dtd", 25, 0.01, "", ":80%", 0.7),
        ("HuggingFaceText", "glue/cola", 25, 0.01, "", ":800", 0.7),
        ("HuggingFace", "dtd", 25, 0.01, "", ":800", "nan"),
    ]
    broken = "me/b,HuggingFace,dtd,25,64,\"{'lr': \",:800,0.5\n"
    broken += line.format("HuggingFace", "dtd", 25, "9" * 400, "", ":800", 0.6)
    written(tmp_path, "r.csv", SHIFT + "".join(line.format(*row) for row in rows) + broken)
    zoo, report = read_shift(tmp_path, "r.csv")
    got = zoo.records[["dataset", "accuracy", "n_runs"]].values.tolist()
    assert got == [["smallnorb_azimuth", 0.5, 2], ["clevr_distance", 0.4, 1]]
    assert sorted(report["line"]) == [2, 5, 6, 7, 8, 9, 10, 11]
    assert report.set_index("line").loc[10, "reason"] == "its learning rate is not said"
    assert report.set_index("line").loc[2, "reason"] == "a repeat of this run is better"


def test_a_column_that_is_missing_is_named(tmp_path):
    written(tmp_path, "r.csv", "name,pretrained\nA,x\n")
    with pytest.raises(ZooError, match=r"r\.csv: no column 'params \(M\)'; it has name, pretrained"):
        read_open_clip(tmp_path, "r.csv", "p.csv", {})
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_shift(tmp_path, "none.csv")


def test_a_table_without_a_column_of_results_gives_no_record():
    rows = pd.DataFrame({"model": ["a"], "d": [""]}, index=[2])
    records, outside = long_records(rows, [], "empty.csv")
    assert records.empty and outside.empty


def test_a_leaderboard_of_other_tasks_is_refused(tmp_path):
    head = EURO.replace("Sentiment", "Mood").replace("Names", "Moods")
    written(tmp_path, "danish_nlu.csv", head + "me/e,🔍,1e8,✓,20.5 ± 1.0 / 45.5 ± 1.9,,,1,1,1\n")
    with pytest.raises(ZooError, match=r"danish_nlu.csv: .*(no results|expected)"):
        read_euroeval(tmp_path, ["danish_nlu.csv"], TASKS)
