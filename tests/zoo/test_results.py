"""Results of one's own: every layout that people have, every mistake in one line, all or nothing."""

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from transfergraph.cli.program import main
from transfergraph.recommend.transfergraph import TransferGraph
from transfergraph.zoo.matrices import accuracy_matrix
from transfergraph.zoo.results import join_results, read_results
from transfergraph.zoo.tables import Zoo, ZooError

PLAIN = """architecture,source,target,accuracy
resnet50,imagenet-1k,pets,0.9
vit_base,imagenet-1k,pets,0.8
resnet50,imagenet-1k,cars,0.5
vit_base,imagenet-1k,cars,0.6
"""


def write(tmp_path, content, name="results.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def test_four_columns_are_a_zoo(tmp_path, capsys):
    path = write(tmp_path, PLAIN)
    assert main(["import-records", str(path), str(tmp_path / "zoo"), "--modality", "image"]) == 0
    line = capsys.readouterr().out.strip()
    assert line.endswith("zoo: 4 records added, 0 were there already; 2 new models, 3 new datasets")
    zoo = Zoo.load(tmp_path / "zoo")
    assert zoo.models["model"].tolist() == ["resnet50/imagenet-1k", "vit_base/imagenet-1k"]
    assert zoo.models["family"].tolist() == ["resnet", "vit"] and zoo.targets == ["pets", "cars"]
    assert zoo.records["method"].eq("full").all() and zoo.distances.empty
    before = zoo.fingerprint
    assert main(["import-records", str(path), str(tmp_path / "zoo"), "--json"]) == 0
    rows = {row["item"]: row["rows"] for row in json.loads(capsys.readouterr().out)}
    assert rows == {"models": 0, "datasets": 0, "records": 0, "repeated": 4}
    assert Zoo.load(tmp_path / "zoo").fingerprint == before


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";"),
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in PLAIN.splitlines()),
        PLAIN.replace("resnet50", " resnet50 "),
    ],
    ids=["bom", "crlf", "semicolon", "quotes", "spaces"],
)
def test_layouts(tmp_path, content):
    plain = read_results(write(tmp_path, PLAIN, "plain.csv"))
    pd.testing.assert_frame_equal(read_results(write(tmp_path, content)), plain)


def test_tabs_and_parquet(tmp_path):
    plain = read_results(write(tmp_path, PLAIN))
    pd.testing.assert_frame_equal(read_results(write(tmp_path, PLAIN.replace(",", "\t"), "r.tsv")), plain)
    pd.read_csv(tmp_path / "results.csv").to_parquet(tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(read_results(tmp_path / "r.parquet"), plain)


def test_other_names_are_mapped_and_other_columns_kept(tmp_path):
    content = "checkpoint,set,top1,lr,who\na,x,91,0.1,me\nb,x,85,,you\nNA,x,80,0.2,\n"
    mapping = {"model": "checkpoint", "dataset": "set", "accuracy": "top1", "learning_rate": "lr"}
    results = read_results(write(tmp_path, content), mapping, percent=True)
    zoo = join_results(results, modality="text").zoo
    assert zoo.models["model"].tolist() == ["a", "b", "NA"]
    assert zoo.records["accuracy"].tolist() == [0.91, 0.85, 0.8]
    assert zoo.records["learning_rate"].isna().tolist() == [False, True, False]
    assert zoo.records["who"].tolist() == ["me", "you", ""]


def test_row_numbers_that_a_program_wrote_are_no_column(tmp_path):
    rows = PLAIN.splitlines()
    content = "\n".join(f"{'' if i == 0 else i},{row}" for i, row in enumerate(rows))
    pd.testing.assert_frame_equal(
        read_results(write(tmp_path, content, "numbered.csv")), read_results(write(tmp_path, PLAIN))
    )


def test_shares_are_not_taken_for_per_cent(tmp_path):
    with pytest.raises(ZooError, match=r"no accuracy is above 0\.9; expected per cent, or no --percent"):
        read_results(write(tmp_path, PLAIN), percent=True)


def test_own_results_make_targets_of_what_cards_have_named(tmp_path, capsys):
    "A zoo of a hub knows datasets from cards, as sources; fine-tuned on, they can be evaluated."
    models = pd.DataFrame({"model": list("abc"), "modality": "image", "pretrained_on": "web"})
    models["revision"] = ["1", "2", "3"]
    datasets = pd.DataFrame({"dataset": ["pets", "web"], "modality": "image", "role": "source"})
    said = pd.DataFrame({"model": ["a"], "dataset": ["pets"], "method": "reported", "accuracy": [0.5]})
    Zoo(models, datasets, said).save(tmp_path / "zoo")
    assert main(["evaluate", str(tmp_path / "zoo"), "--method", "mean"]) == 2
    runs = [(m, d, f"0.{i}{j}") for i, m in enumerate("abc", 4) for j, d in enumerate(["pets", "cars"])]
    path = write(tmp_path, "model,dataset,accuracy\n" + "".join(f"{m},{d},{a}\n" for m, d, a in runs))
    assert main(["import-records", str(path), str(tmp_path / "zoo")]) == 0
    zoo = Zoo.load(tmp_path / "zoo")
    assert zoo.targets == ["pets", "cars"] and zoo.models["revision"].tolist() == ["1", "2", "3"]
    assert zoo.records["method"].tolist() == ["reported"] + ["full"] * 6
    capsys.readouterr()
    arguments = ["--method", "mean", "--seeds", "0", "--quiet", "--json"]
    assert main(["evaluate", str(tmp_path / "zoo"), *arguments]) == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["spearman"]["n_targets"] == 2 and rows["spearman"]["mean"] == pytest.approx(1)


def test_what_a_card_reported_makes_no_target(tmp_path):
    content = "model,dataset,method,accuracy\na,x,reported,0.5\na,y,full,0.5\n"
    assert join_results(read_results(write(tmp_path, content)), modality="text").zoo.targets == ["y"]


def test_runs_that_differ_in_a_setting_are_two_runs(tmp_path):
    content = "model,dataset,learning_rate,seed,accuracy\na,x,0.1,0,0.5\na,x,0.2,0,0.5\na,x,0.1,0,0.5\n"
    joined = join_results(read_results(write(tmp_path, content)), modality="text")
    assert joined.counts["records"] == 2 and joined.counts["repeated"] == 1 and joined.differing.empty


def test_a_run_with_another_accuracy_is_kept_and_told(tmp_path, capsys):
    zoo = str(tmp_path / "zoo")
    content = "model,dataset,seed,accuracy\na,x,0,0.5\nb,x,,0.5\n"
    assert main(["import-records", str(write(tmp_path, content)), zoo, "--modality", "text"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["import-records", str(write(tmp_path, content.replace("0.5", "0.6"))), zoo]) == 0
    told = capsys.readouterr()
    assert "2 records added" in told.out
    what = "1 of them have the seed and settings of another run but not its accuracy; first a on x, 0.6"
    assert told.err == f"transfergraph: {what}\n"


def test_a_data_set_without_records_is_ranked_for_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path, PLAIN)
    assert main(["import-records", str(path), str(tmp_path / "zoo"), "--modality", "image"]) == 0
    capsys.readouterr()
    assert main(["rank", str(tmp_path / "zoo"), "--dataset", "imagenet-1k", "--json"]) == 0
    models = [row["model"] for row in json.loads(capsys.readouterr().out)]
    assert sorted(models) == ["resnet50/imagenet-1k", "vit_base/imagenet-1k"]


def test_names_of_all_kinds_survive(tmp_path):
    names = ["日本/モデル", "a b;c", "=1+1", "../x", "it's", 'say "so"', "🤗"]
    frame = pd.DataFrame({"model": names, "dataset": "x", "accuracy": np.linspace(0.1, 0.7, 7)})
    frame.to_csv(tmp_path / "r.csv", index=False)
    assert (
        main(["import-records", str(tmp_path / "r.csv"), str(tmp_path / "zoo"), "--modality", "image"]) == 0
    )
    assert set(Zoo.load(tmp_path / "zoo").models["model"]) == set(names)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "cannot be read as a table"),
        ("architecture,source,target,accuracy\n", "holds no row"),
        (
            "a,b\n1,2\n",
            "no column 'model' and none 'dataset' and none 'accuracy'; it has 'a', 'b'; "
            "say --map model=THEIRS --map dataset=THEIRS --map accuracy=THEIRS",
        ),
        ("net,data,acc\na,x,1\n", "say --map model=net --map dataset=data --map accuracy=acc$"),
        (
            "model,accuracy\na,1\n",
            "no column 'dataset'; it has 'model', 'accuracy'; say --map dataset=THEIRS",
        ),
        (
            "m,model,target,accuracy,n_params\n1,a,x,1,25.5\n",
            "row 1, .*25.5; expected a number of .*--millions",
        ),
        ("model,target,accuracy,quality\na,x,1,ok\nb,x,1,good\n", "row 2, .*'good'; expected ok, at-chance"),
        ('{"model": "a", "accuracy": 0.5}\n', "it is JSON; expected a table"),
        (b"PK\x03\x04sheet", "a workbook or an archive; expected a table, such as its sheet saved as CSV"),
        ("model,target,accuracy\n".encode("utf-16"), "UTF-16, as Excel's Unicode text is; expected UTF-8"),
        ("model,target,accuracy\n\u00e9,x,1\n".encode("latin-1"), "not UTF-8|decode"),
        ("model,target,accuracy\na,x,\n", "row 1, column 'accuracy' is empty"),
        ("model,target,accuracy\na,x,1\n,x,1\n", "row 2, column 'model' is empty"),
        ("model,target,accuracy\na,x,high\n", "row 1, column 'accuracy': 'high'; expected a number"),
        ("model,target,accuracy\na,x,inf\n", "row 1, column 'accuracy': 'inf'"),
        (
            "model,target,accuracy\na,x,0.5\nb,x,91.5\n",
            r"row 2, column 'accuracy': 91.5; expected 0 to 1; --percent",
        ),
        ("model,target,accuracy\na,x,-0.5\n", "row 1, column 'accuracy': -0.5"),
        ("model,dataset,target,accuracy,n_params\na,x,x,1,many\n", "column 'n_params': 'many'"),
        ("model,target,target,accuracy\na,x,y,1\n", "column 'target' appears twice"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
        ("model,target,accuracy\na,x,0.5\nb,x,0.5,7\n", "row 2 has 4 fields, the header 3"),
        ("model,target,accuracy\na,x\n", "row 1 has 2 fields, the header 3"),
        ('model,target,accuracy\na,"x,0.5\n', "cannot be read as a table"),
        ('model,target,accuracy\na,"x\ny",0.5\n', "row 1, column 'dataset': 'x.*expected one line of text"),
        ("model,target,accuracy\na,\x1b[2Jx,0.5\n", "row 1, column 'dataset': .*expected one line of text"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, content, message):
    path = write(tmp_path, content)
    code = main(["import-records", str(path), str(tmp_path / "zoo"), "--modality", "image"])
    line = capsys.readouterr().err
    assert code == 2 and line.count("\n") == 1 and re.search(message, line) and "results.csv" in line
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "images or texts?"),
        (["--map", "accuracy"], "expected OURS=THEIRS"),
        (["--map", "size=x"], "nothing is called 'size'"),
        (["--map", "accuracy=top1"], "no column 'top1'"),
        (["--map", "accuracy=source"], "'accuracy' is there, and 'source' is to be it"),
        (["--percent"], "no accuracy is above 0.9; expected per cent"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, arguments, message):
    path = write(tmp_path, PLAIN)
    assert main(["import-records", str(path), str(tmp_path / "zoo"), *arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and message in line


def test_a_contradiction_is_told_and_the_zoo_stays_as_it_was(tmp_path, capsys):
    extra = "model,dataset,accuracy,n_params\na,x,0.5,1000\nb,x,0.6,2000\n"
    zoo = join_results(read_results(write(tmp_path, extra)), modality="image").zoo
    zoo.save(tmp_path / "zoo")
    other = write(tmp_path, "model,dataset,accuracy,n_params\nc,y,0.5,1000\na,y,0.5,1001\n", "other.csv")
    assert main(["import-records", str(other), str(tmp_path / "zoo")]) == 2
    assert "model 'a' has n_params 1001; the zoo says 1000" in capsys.readouterr().err
    assert Zoo.load(tmp_path / "zoo").fingerprint == zoo.fingerprint
    itself = write(tmp_path, "model,dataset,accuracy,n_classes\na,y,0.5,2\nb,y,0.5,3\n", "itself.csv")
    assert main(["import-records", str(itself), str(tmp_path / "zoo")]) == 2
    assert "dataset 'y' has n_classes 2 and 3" in capsys.readouterr().err
    texts = write(tmp_path, "model,dataset,accuracy\na,y,0.5\n", "texts.csv")
    assert main(["import-records", str(texts), str(tmp_path / "zoo"), "--modality", "text"]) == 2
    assert "has modality 'text'; the zoo says 'image'" in capsys.readouterr().err


def test_gaps_are_filled_and_runs_of_other_seeds_are_kept(tmp_path):
    first = join_results(
        read_results(write(tmp_path, "model,dataset,accuracy\na,x,0.5\n")), modality="image"
    ).zoo
    more = "model,dataset,accuracy,n_params,n_classes,seed\na,x,0.5,1000,7,1\na,x,0.6,1000,7,2\n"
    joined = join_results(read_results(write(tmp_path, more)), first)
    assert joined.counts == {"models": 0, "datasets": 0, "records": 2, "repeated": 0}
    assert joined.zoo.models["n_params"].tolist() == [1000] and joined.zoo.datasets["n_classes"].tolist() == [
        7
    ]


@pytest.mark.parametrize("method", ["ensemble", "factors"])
def test_models_are_ranked_without_any_distance(tmp_path, method):
    rng = np.random.default_rng(0)
    rows = [
        (net, "imagenet", f"set-{j}", min(0.99, 0.5 + 0.04 * i + 0.02 * rng.normal()))
        for i, net in enumerate(["alexnet", "vgg16", "resnet18", "resnet50", "vit_small", "vit_base"])
        for j in range(5)
    ]
    pd.DataFrame(rows, columns=["architecture", "source", "target", "accuracy"]).to_csv(
        tmp_path / "r.csv", index=False
    )
    zoo = join_results(read_results(tmp_path / "r.csv"), modality="image").zoo
    mine = pd.DataFrame([{"dataset": "mine", "modality": "image", "role": "target"}])
    zoo = replace(zoo, datasets=pd.concat([zoo.datasets, mine], ignore_index=True)).validate()
    ranking = TransferGraph(method=method).fit(zoo).rank("mine")
    assert ranking["model"].iloc[0] == "vit_base/imagenet" and ranking["model"].iloc[-1] == "alexnet/imagenet"


def test_evaluate_and_rank_from_the_command_line(tmp_path, capsys):
    main(["import-records", str(write(tmp_path, PLAIN)), str(tmp_path / "zoo"), "--modality", "image"])
    assert main(["evaluate", str(tmp_path / "zoo"), "--method", "mean", "--seeds", "0", "--quiet"]) == 0
    assert "mean" in capsys.readouterr().out


def test_a_zoo_that_is_a_file_is_refused(tmp_path, capsys):
    path = write(tmp_path, PLAIN)
    assert main(["import-records", str(path), str(path), "--modality", "image"]) == 2
    assert "is a file" in capsys.readouterr().err
    with pytest.raises(ZooError, match="no such file"):
        read_results(tmp_path / "nothing.csv")


def test_runs_without_a_seed_are_runs_though_they_reached_the_same(tmp_path):
    content = "model,dataset,accuracy\na,x,0.9\na,x,0.9\na,x,0.6\nb,x,0.7\n"
    results = read_results(write(tmp_path, content))
    joined = join_results(results, modality="image")
    assert joined.counts["records"] == 4 and accuracy_matrix(joined.zoo).loc["a", "x"] == pytest.approx(0.8)
    assert join_results(results, joined.zoo).counts["repeated"] == 4
    more = read_results(write(tmp_path, content + "a,x,0.9\n"))
    assert join_results(more, joined.zoo).counts["records"] == 1


@pytest.mark.parametrize("name", ["top1_err", "error rate", "test/error", "eval_loss", "Top-1 Err."])
def test_an_error_is_no_accuracy(tmp_path, name):
    path = write(tmp_path, f"model,dataset,{name}\na,x,0.2\n")
    with pytest.raises(ZooError, match="is an error by its name; expected an accuracy"):
        read_results(path, {"accuracy": name})
    with pytest.raises(ZooError, match=r"say --map accuracy=THEIRS$"):  # it is not proposed either
        read_results(path)


def test_names_that_speak_of_errors_by_chance_are_accuracies(tmp_path):
    path = write(tmp_path, "model,dataset,terrain_acc\na,x,0.2\n")
    assert read_results(path, {"accuracy": "terrain_acc"})["accuracy"].tolist() == [0.2]


def test_both_vocabularies_name_columns(tmp_path):
    path = write(tmp_path, "net,corpus,data,acc\na,y,x,0.5\n")
    mapping = {"architecture": "net", "source": "corpus", "target": "data", "accuracy": "acc"}
    results = read_results(path, mapping)
    assert results[["model", "dataset", "pretrained_on"]].values.tolist() == [["a/y", "x", "y"]]


def test_what_is_taken_for_what_is_said(tmp_path):
    path = write(tmp_path, "model,target,source,accuracy\na,x,leaderboard,0.5\n")
    with pytest.warns(UserWarning) as told:
        results = read_results(path)
    assert [str(w.message).partition("; ")[2] for w in told] == [
        "--map pretrained_on= names another, or none",
    ]
    assert results["pretrained_on"].tolist() == ["leaderboard"]
    left = read_results(path, {"dataset": "target", "source": None})
    assert "pretrained_on" not in left and left["dataset"].tolist() == ["x"]
    own = write(tmp_path, "model,dataset,accuracy,quality\na,x,0.5,good\n", "own.csv")
    assert "quality" not in read_results(own, {"quality": None})


@pytest.mark.parametrize("row", [1, 2])
def test_a_share_among_per_cent_is_refused(tmp_path, row):
    lines = ["model,dataset,accuracy", "a,x,91.3", "b,x,84.9"]
    lines[row] = lines[row].replace("91.3", "0.93").replace("84.9", "1")
    with pytest.raises(ZooError, match=f"row {row}, .*beside .*; expected per cent in every row"):
        read_results(write(tmp_path, "\n".join(lines)), percent=True)


def test_per_cent_are_those_of_every_accuracy(tmp_path):
    path = write(tmp_path, "model,dataset,accuracy,pretrained_accuracy\na,x,91.3,76\nb,x,0,71\n")
    results = read_results(path, percent=True)
    found = results[["accuracy", "pretrained_accuracy"]].to_numpy()
    assert found == pytest.approx(np.array([[0.913, 0.76], [0, 0.71]]))


def test_millions_are_multiplied_where_it_is_said(tmp_path):
    path = write(tmp_path, "model,dataset,accuracy,n_params\na,x,0.5,25.56\nb,x,0.5,\n")
    assert read_results(path, millions=True)["n_params"].tolist()[0] == 25.56e6
    with pytest.raises(ZooError, match=r"row 1, .*2.556e.07; expected a number .*of millions"):
        read_results(
            write(tmp_path, "model,dataset,accuracy,n_params\na,x,0.5,25560000\n", "n.csv"), millions=True
        )


def test_decimal_commas_are_read_where_they_can_be_nothing_else(tmp_path):
    path = write(tmp_path, "model;dataset;accuracy;n_params\na;x;0,91;25000000\nb;x;1;5000\n")
    with pytest.warns(UserWarning, match="decimal commas in column 'accuracy': '0,91' is read as 0.91"):
        results = read_results(path)
    assert results["accuracy"].tolist() == [0.91, 1]
    thousands = write(tmp_path, 'model,dataset,accuracy,n_params\na,x,0.5,"25,560"\n', "t.csv")
    with pytest.raises(ZooError, match="row 1, column 'n_params': '25,560'; expected a number"):
        read_results(thousands)


def test_names_that_are_almost_alike_are_told(tmp_path):
    rows = "ResNet50,pets,0.5\nresnet-50,pets,0.6\nvit,Pets,0.7\n"
    results = read_results(write(tmp_path, "model,dataset,accuracy\n" + rows))
    with pytest.warns(UserWarning) as told:
        zoo = join_results(results, modality="image").zoo
    said = " | ".join(str(w.message) for w in told)
    assert "'ResNet50' and 'resnet-50' are taken as two models" in said
    assert "'pets' and 'Pets' are taken as two datasets" in said and len(zoo.models) == 3
    more = read_results(write(tmp_path, "model,dataset,accuracy\nViT,pets,0.5\n"))
    with pytest.warns(UserWarning, match="'vit' and 'ViT' are taken as two models"):
        join_results(more, zoo)


def test_runs_that_may_be_of_several_models_are_told(tmp_path):
    rows = "resnet50,web,pets,0.5,a1\nresnet50,web,pets,0.7,a2\n"
    path = write(tmp_path, "architecture,source,target,accuracy,recipe\n" + rows)
    with pytest.warns(
        UserWarning, match="1 times runs of one model and dataset differ in 'recipe'.*model=recipe"
    ):
        join_results(read_results(path), modality="image")
    seeds = write(tmp_path, "model,dataset,accuracy,seed,night\na,x,0.5,0,mon\na,x,0.6,1,tue\n", "s.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        join_results(read_results(seeds), modality="image")


def test_json_lines_are_the_same_table(tmp_path):
    plain = read_results(write(tmp_path, PLAIN))
    lines = "".join(
        json.dumps(row) + "\n" for row in pd.read_csv(tmp_path / "results.csv").to_dict("records")
    )
    pd.testing.assert_frame_equal(read_results(write(tmp_path, lines, "r.jsonl")), plain)


@pytest.mark.parametrize("name", ["r.xlsx", "all_results.json", "r.csv.gz", "r"])
def test_other_kinds_of_files_are_refused_by_name(tmp_path, name):
    with pytest.raises(ZooError, match=r"not a kind of table that is known; expected .csv, .tsv"):
        read_results(write(tmp_path, PLAIN, name))


def rows_of(content, tmp_path, mapping=None, name="results.csv", **options):
    "Results of a table of three columns, what was said of it, and the zoo that they make."
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        results = read_results(write(tmp_path, content, name), mapping, **options)
        zoo = join_results(results, modality="image").zoo
    return results, " | ".join(str(line.message) for line in told), zoo


PLAIN_HEAD = "model,dataset,accuracy"


@pytest.mark.parametrize(
    "cell", ["net\u00a0s", "net\u202fs", "\ufeffnet s", "ne\u200bt s", "net s\u2060", "n\u00adet s\u00a0"]
)
def test_what_is_not_seen_makes_no_other_name_or_number(tmp_path, cell):
    content = f"model\u200b,dataset,accuracy\u00a0\n{cell},x,\u00a00.25\u200b\nnet s,x,0.5\n"
    results, said, zoo = rows_of(content, tmp_path)
    assert zoo.models["model"].tolist() == ["net s"] and said == ""
    assert results["accuracy"].tolist() == [0.25, 0.5]


def test_quotation_marks_after_a_blank_are_no_part_of_a_name(tmp_path):
    results, said, _ = rows_of('"model", "dataset", accuracy\n"a", "x", 0.5\n', tmp_path)
    assert results.to_dict("list") == {"model": ["a"], "dataset": ["x"], "accuracy": [0.5]} and said == ""


def test_a_header_that_comes_again_is_left_out_and_said(tmp_path):
    path = write(tmp_path, f"{PLAIN_HEAD}\na,x,0.5\n{PLAIN_HEAD}\nb,x,0.4\n")
    with pytest.warns(UserWarning, match="1 rows are the header again and are left out, the first is row 2"):
        assert read_results(path)["model"].tolist() == ["a", "b"]


@pytest.mark.parametrize("cell", ["84.2 ± 0.3", "84.2%", "**84.2**", "84.2*", "84-86", "—", "N/A", "8_4"])
def test_a_cell_that_is_more_than_a_number_is_refused(tmp_path, cell):
    with pytest.raises(ZooError, match=r"row 2, column 'accuracy': .*without unit or spread"):
        read_results(write(tmp_path, f"{PLAIN_HEAD}\na,x,80\nb,x,{cell}\n"), percent=True)


@pytest.mark.parametrize("cell", ["23.4M", "23 M", "23,400,000", "23 400 000", "23'400'000"])
def test_parameters_with_a_unit_are_refused(tmp_path, cell):
    with pytest.raises(ZooError, match="row 1, column 'n_params'"):
        read_results(write(tmp_path, f'{PLAIN_HEAD},n_params\na,x,0.5,"{cell}"\n'))


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"model": "a", "dataset": "x", "accuracy": true}', "'True'"),
        ('{"model": ["a"], "dataset": "x", "accuracy": 0.5}', "column 'model'"),
        ('{"model": "a", "dataset": "x", "accuracy": {"top1": 0.5}}', "column 'accuracy'"),
    ],
)
def test_what_is_neither_a_name_nor_a_number_is_refused(tmp_path, content, rows):
    with pytest.raises(ZooError, match=f"row 1, .*{rows}|row 1, {rows}"):
        read_results(write(tmp_path, content, "r.jsonl"))


def test_lines_of_json_may_have_other_keys_and_lists(tmp_path):
    lines = [
        {"accuracy": 0.5},
        {"accuracy": 0.5, "seed": 3, "curve": [0.1, 0.5]},
        {"accuracy": 0.7, "seed": 4},
    ]
    content = "\n".join(json.dumps({"model": "a", "dataset": "x"} | line) for line in lines)
    results, _, zoo = rows_of(content, tmp_path, name="r.jsonl")
    assert results["seed"].fillna(-1).tolist() == [-1, 3, 4] and len(zoo.records) == 3


def test_parquet_of_any_types_is_the_same_table(tmp_path):
    frame = pd.DataFrame({"dataset": ["x", "y"], "accuracy": [0.5, 0.6], "all": [[1], [2, 3]]})
    frame["dataset"] = frame["dataset"].astype("category")
    frame.set_axis(pd.Index([18.0, 34.0], name="model")).to_parquet(tmp_path / "r.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo = join_results(read_results(tmp_path / "r.parquet"), modality="image").zoo
    assert zoo.models["model"].tolist() == ["18", "34"] and zoo.targets == ["x", "y"]
    frame.assign(model=pd.to_datetime(["2024-03-01", "2024-03-02"])).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(ZooError, match=r"row 1, column 'model': '2024-03-01.*expected one line of text"):
        read_results(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,dataset,accuracy\n" + "a,x,0.5\n" * 2000 + "\u00e9,x,0.5\n", "line 2002: .*is no utf-8"),
        (PLAIN.encode("utf-16-le"), "UTF-16; expected UTF-8"),
        (b"\x1f\x8b\x08\x00", "compressed; expected it unpacked"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "a workbook of an older Excel"),
        ("| model | dataset |\n|---|---|\n", "it is Markdown"),
        ("<table><tr><td>model</td></tr></table>", "it is HTML"),
        ("Results of May\nmodel,dataset,accuracy\na,x,1\n", "the first line is expected to name the columns"),
        ("Results,,\nmodel,dataset,accuracy\na,x,1\n", "no column 'model' and none 'dataset'"),
        ("model dataset accuracy\na x 1\n", "one column only; expected commas, semicolons or tabs"),
        (
            "model,pets,cars\na,0.5,0.6\n",
            "a column for each dataset or model is refused: expected model, data",
        ),
        ("dataset,resnet,vit\npets,0.5,0.6\n", "a column for each dataset or model is refused"),
        (PLAIN_HEAD + ",Accuracy\na,x,0.5,0.6\n", "columns 'accuracy' and 'Accuracy' may both be accuracy"),
        (
            "model,dataset,target,accuracy\na,x,y,0.5\n",
            "'dataset' and 'target' may both be dataset; say --map",
        ),
        (
            PLAIN_HEAD + ",method\na,x,0.5,ours\n",
            "'ours'; expected full, .* --map method= leaves the column out",
        ),
        (PLAIN_HEAD + ",modality\na,x,0.5,vision\n", "'vision'; expected image or text; --map modality="),
        (
            PLAIN_HEAD + ",n_params\na,x,0.5,0\n",
            "row 1, column 'n_params': 0; expected a number of parameters",
        ),
        (
            PLAIN_HEAD + ",split\na,x,0.9,train\na,x,0.5,test\n",
            "row 1, column 'split': 'train'; expected .* test",
        ),
        (PLAIN_HEAD + ",seed,phase\na,x,0.9,0,val\na,x,0.5,0,test\n", "column 'phase' has several values"),
        (
            PLAIN_HEAD + ",metric\na,x,0.9,acc\na,x,0.5,f1\n",
            "column 'metric' has several values for one model",
        ),
        (PLAIN_HEAD + ",metric\na,x,0.9,loss\nb,x,0.5,loss\n", "'loss' is an error by its name"),
        (
            PLAIN_HEAD + ",class_id\na,x,0.9,0\na,x,0.5,1\n",
            "column 'class_id' has several values for one model",
        ),
        (
            PLAIN_HEAD + ",epoch\na,x,0.3,1\na,x,0.6,2\n",
            "'epoch' has several values for one run; .*epochs=epoch",
        ),
        (
            PLAIN_HEAD + ",_step,Run ID\na,x,0.3,10,q\na,x,0.6,20,q\n",
            "'_step' has several values for one run",
        ),
    ],
)
def test_tables_that_would_be_misread_are_refused(tmp_path, content, message):
    encoding = "cp1252" if "\u00e9" in str(content) else "utf-8"
    with pytest.raises(ZooError, match=message):
        read_results(write(tmp_path, content, encoding=encoding))


@pytest.mark.parametrize(
    ("head", "row", "mapping", "message"),
    [
        (
            "Model,DATA_SET,Accuracy",
            "a,x,0.5",
            {"dataset": "DATA_SET"},
            "column 'Model' is taken for model, ",
        ),
        (PLAIN_HEAD + ",N Params", "a,x,0.5,5000", {}, "column 'N Params' is taken for n_params"),
        (PLAIN_HEAD + ",fold", "a,x,0.5,3", {}, "column 'fold' is taken for seed; --map seed="),
        ("model,dataset,train_acc", "a,x,0.5", {"accuracy": "train_acc"}, "is called 'train'"),
        ("model,dataset,eval_f1", "a,x,0.5", {"accuracy": "eval_f1"}, "is called 'f1'"),
        ("model,dataset,acc__MAX", "a,x,0.5", {"accuracy": "acc__MAX"}, "is called 'MAX'"),
        ("model,dataset,token_acc", "a,x,0.5", {"accuracy": "token_acc"}, "is called 'token'"),
        (
            "model,dataset,acc (%)",
            "a,x,0.5",
            {"accuracy": "acc (%)"},
            "is read as shares: 0.9 is 90 per cent",
        ),
        (
            PLAIN_HEAD,
            "Average,x,0.5",
            {},
            "model 'Average' is taken as a model; it may be of several results",
        ),
        (PLAIN_HEAD, "a,avg.,0.5", {}, "dataset 'avg.' is taken as a dataset; it may be of several results"),
        (PLAIN_HEAD, "nan,x,0.5", {}, "it may be an empty cell by its name"),
        (PLAIN_HEAD, "a,1-Mar,0.5", {}, "it may be a date, as spreadsheets make of names"),
        (PLAIN_HEAD, "a,x,0.5\na*,x,0.5", {}, "'a' and 'a*' are taken as two models"),
        (PLAIN_HEAD + ",n_classes", "a,x,0.04,10", {}, "accuracy 0.04 of 'a' on 'x' is far below chance"),
        (PLAIN_HEAD + ",State", "a,x,0.5,crashed", {}, "1 rows are crashed by column 'State'"),
        (
            PLAIN_HEAD + ",lr",
            "a,x,0.5,1\na,x,0.6,2",
            {},
            "differ in 'lr': they are averaged; keep the rows of",
        ),
        (PLAIN_HEAD + ",epochs", "a,x,0.3,1\na,x,0.4,2\na,x,0.5,3", {}, "column 'epochs' counts up"),
    ],
)
def test_what_may_be_meant_in_another_way_is_said(tmp_path, head, row, mapping, message):
    assert message in rows_of(f"{head}\n{row}\n", tmp_path, mapping)[1]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN_HEAD + ",epoch,run_name\na,x,0.5,9,q\na,x,0.6,7,r\n",
        PLAIN_HEAD + ",epochs\na,x,0.5,10\nb,x,0.6,20\n",
        PLAIN_HEAD + ",split\na,x,0.5,test\nb,x,0.6,test\n",
        PLAIN_HEAD + ",status,metric\na,x,0.5,finished,acc\n",
        PLAIN_HEAD + ",accuracy_std\na,x,0.5,0.01\n",
    ],
)
def test_rows_that_are_runs_are_taken(tmp_path, content):
    results, _, zoo = rows_of(content, tmp_path)
    assert zoo.records["accuracy"].tolist() == results["accuracy"].tolist()


def test_numbered_runs_that_reached_the_same_are_runs_in_every_file(tmp_path):
    rows = "a,x,0.5,1\na,x,0.5,2\n"
    first = rows_of(f"{PLAIN_HEAD},run\n{rows}", tmp_path)[2]
    assert first.records["seed"].tolist() == [1, 2]
    with pytest.warns(UserWarning, match="'run' is taken for seed"):
        more = read_results(write(tmp_path, f"{PLAIN_HEAD},run\na,x,0.5,2\na,x,0.5,3\n"))
    assert join_results(more, first).counts["records"] == 1
    folds = read_results(write(tmp_path, f"{PLAIN_HEAD},seed,fold\na,x,0.5,0,1\na,x,0.5,0,2\na,x,0.5,0,2\n"))
    joined = join_results(folds, modality="image")
    assert joined.counts["records"] == 2 and join_results(folds, joined.zoo).counts["records"] == 0


def test_columns_change_places_and_are_each_mapped_once(tmp_path, capsys):
    path = write(tmp_path, "model,dataset,accuracy,top1\nx,a,0.1,0.5\n")
    swapped = {"model": "dataset", "dataset": "model", "accuracy": "top1"}
    with pytest.raises(ZooError, match="'accuracy' is there, and 'top1' is to be it"):
        read_results(path, swapped)
    results = read_results(path, swapped | {"accuracy": "accuracy"})
    assert results[["model", "dataset"]].values.tolist() == [["a", "x"]]
    with pytest.raises(ZooError, match="--map dataset=model dataset=dataset: expected each column once"):
        read_results(path, {"dataset": "model", "target": "dataset"})
    twice = ["--map", "accuracy=accuracy", "--map", "accuracy=top1"]
    assert main(["import-records", str(path), str(tmp_path / "zoo"), *twice]) == 2
    assert "--map accuracy=top1: accuracy is mapped twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("head", "advice"),
    [
        (
            "source_dataset,target_dataset,net,acc",
            "model=net --map dataset=target_dataset --map accuracy=acc",
        ),
        (
            "dataset_name,model_name,Top 1",
            "model=model_name --map dataset=dataset_name --map accuracy='Top 1'",
        ),
        ("Name,params.model,params.data,train_acc,test_acc", "model=params.model --map dataset=params.data "),
        ("model,dataset,train_acc,eval_acc", "say --map accuracy=eval_acc"),
    ],
)
def test_the_likeliest_columns_are_proposed(tmp_path, head, advice):
    with pytest.raises(ZooError, match=re.escape(advice)):
        read_results(write(tmp_path, f"{head}\n{','.join(head.split(','))}\n"))


def test_a_comma_in_a_name_is_no_separator(tmp_path):
    results, _, _ = rows_of("model;dataset;accuracy;seen by, whom, when, why\na;x;0,91;me\n", tmp_path)
    assert results["accuracy"].tolist() == [0.91]


WANDB = """"Name","State","Created","Runtime","model_name","dataset_name","seed","test/accuracy","train/loss"
"sun-1","finished","2024-05-01T10:00:00.000Z","120","bert","imdb","1","0.9","0.2"
"oak-2","crashed","2024-05-01T10:20:00.000Z","3","roberta","imdb","1","",""
"fox-3","finished","2024-05-01T10:30:00.000Z","133","roberta","sst2","1","0.94","0.1"
"""
MLFLOW = """run_id,experiment_id,status,metrics.test_accuracy,params.model,params.dataset,params.seed
0a,1,FINISHED,0.9,bert,imdb,1
0b,1,FAILED,,roberta,imdb,1
0c,1,FINISHED,0.94,roberta,sst2,1
"""
PARAMS = {column: f"params.{column}" for column in ("model", "dataset", "seed")}


@pytest.mark.parametrize(
    ("export", "mapping"),
    [
        (WANDB, {"model": "model_name", "dataset": "dataset_name", "accuracy": "test/accuracy"}),
        (MLFLOW, {"accuracy": "metrics.test_accuracy", **PARAMS}),
    ],
)
def test_exports_of_trackers_without_the_runs_that_failed(export, mapping, tmp_path):
    with pytest.raises(ZooError, match=r"say --map model=.* --map dataset=.* --map accuracy=.*test"):
        read_results(write(tmp_path, export))
    with pytest.warns(UserWarning, match="1 runs have failed without an accuracy, and are left out"):
        results = read_results(write(tmp_path, export), mapping)
    want = [["bert", "imdb", 0.9, 1], ["roberta", "sst2", 0.94, 1]]
    assert results[["model", "dataset", "accuracy", "seed"]].values.tolist() == want
    broken = export.replace("roberta", "", 1)  # of a run that failed: nobody misses its model
    with pytest.warns(UserWarning, match="are left out"):
        assert len(read_results(write(tmp_path, broken), mapping)) == 2
    with pytest.raises(ZooError, match="row 3, column 'accuracy' is empty"):
        read_results(write(tmp_path, export.replace("0.94", "")), mapping)
