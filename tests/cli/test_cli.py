"""The command line as a user meets it: by its own process, and called as a function on a tiny zoo."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from waiting import PATIENCE, until

from transfergraph.cli.program import app, main
from transfergraph.evaluate.leave_one_out import evaluate_predictions
from transfergraph.evaluate.summary import COLUMNS
from transfergraph.report.terminal import aligned, summary_note, summary_rows, yaml_value
from transfergraph.zoo.tables import Zoo

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = "rank score select evaluate methods import-records zoo hub run-notebook site".split()
PROGRAM = [sys.executable, "-c", "import sys; from transfergraph.cli.program import main; sys.exit(main())"]


def transfergraph(*args, **settings):
    "Run the program with these settings in its environment."
    call = [*PROGRAM, *map(str, args)]
    return subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env=os.environ | settings)


@pytest.fixture(scope="module")
def zoo():
    rng = np.random.default_rng(0)
    models, targets = [f"m{i:02d}" for i in range(14)], ["x", "glue/y", "z"]
    logits = rng.normal(size=(14, 1)) + rng.normal(size=3) + 0.3 * rng.normal(size=(14, 3))
    accuracy = pd.DataFrame(1 / (1 + np.exp(-logits)), models, targets).rename_axis("model").reset_index()
    table = {"model": models, "modality": "text", "n_params": rng.integers(10**6, 10**8, 14)}
    scores = accuracy.melt("model", var_name="dataset", value_name="score").assign(metric="LogME")
    return Zoo(
        models=pd.DataFrame(table | {"architecture": ["A", "B"] * 7, "family": "f", "pretrained_on": "w"}),
        datasets=pd.DataFrame(
            {
                "dataset": [*targets, "w"],
                "modality": "text",
                "role": ["target"] * 3 + ["source"],
                "n_classes": 2,
            }
        ),
        records=accuracy.melt("model", var_name="dataset", value_name="accuracy"),
        scores=scores,
        embeddings=pd.DataFrame({"dataset": [*targets, "w"], "vector": list(rng.normal(size=(4, 3)))}),
    ).validate()


@pytest.fixture(scope="module")
def folder(zoo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoos") / "tiny"
    zoo.save(folder)
    return folder


@pytest.fixture(scope="module")
def guesses(zoo):
    rows = zoo.records[["dataset", "model", "accuracy"]].set_axis(["target", "model", "score"], axis=1)
    noise = np.random.default_rng(1).normal(scale=0.1, size=len(rows))
    return pd.concat(
        [rows.assign(method="history-mean", score=rows["score"] + noise), rows.assign(method="TG,a")]
    )


# --- start


def test_help_is_there_at_once():
    transfergraph("--help")  # compiles what has to be compiled
    times = []
    for _ in range(3):
        before = os.times()
        run = transfergraph("--help")
        after = os.times()  # of processors, whatever else they do
        times.append(sum(after[2:4]) - sum(before[2:4]))
    assert run.returncode == 0 and run.stderr == ""
    for command in COMMANDS:
        assert command in run.stdout
    assert min(times) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"Usage: transfergraph {command}" in out and err == ""


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("transfergraph 0.")


def test_the_installed_program_is_this_one():
    program = Path(sys.executable).with_name("transfergraph")
    if not program.exists():
        pytest.skip("the library is not installed in this environment")
    run = subprocess.run([program, "--version"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and run.stdout == transfergraph("--version").stdout


# --- wrong input


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Missing command; transfergraph --help shows what is expected"),
        (["rank-all"], "No such command 'rank-all'"),
        (["evaluate"], "transfergraph evaluate --help shows what is expected"),
        (["evaluate", "nowhere"], "nowhere: no such folder"),
        (
            ["evaluate", "ZOO", "--target", "q"],
            "target 'q' is not a dataset of this zoo; its targets: x, glue/y, z",
        ),
        (["evaluate", "ZOO", "--seeds", "one"], "Invalid value for '--seeds': "),
        (["evaluate", "ZOO", "--seeds", "-1"], "seed -1: expected a whole number, 0 or more"),
        (["evaluate", "ZOO", "--jobs", "0"], "jobs 0: expected a whole number, 1 or more"),
        (
            ["evaluate", "ZOO", "--history-ratio", "2"],
            "history_ratio 2.0: expected more than 0 and at most 1",
        ),
        (
            ["evaluate", "ZOO", "--protocol", "fair"],
            "Invalid value for '--protocol': 'fair' is not one of 'clean', 'published'",
        ),
        (["evaluate", "ZOO", "--json", "--csv"], "--csv: not allowed with --json"),
        (["evaluate", "ZOO", "--meth", "mean"], "No such option: --meth"),
        (["evaluate", "ZOO", "--out", "ZOO/models.parquet"], "is a file; --out expects a folder"),
        (["evaluate", "ZOO", "--predictions", "nowhere"], "nowhere: no such file or folder"),
        (
            ["evaluate", "ZOO", "--predictions", "ZOO"],
            "ZOO: holds neither predictions.csv nor <target>/<variant>/",
        ),
        (["evaluate", "ZOO", "--predictions", "ZOO", "--method", "mean"], "--method says what to run"),
        (["evaluate", "ZOO", "--predictions", "ZOO", "--model-ratio", "1"], "--model-ratio says what to run"),
        (["zoo", "get", "clap"], "no zoo is called 'clap'; the catalogue has text-recycling, "),
        (
            ["zoo", "get", "clip", "--from", "ZOO", "--out", "ZOO"],
            "ZOO: no docs/openclip_results.csv; expected",
        ),
        (["run-notebook", "no.ipynb", "out.ipynb"], "no.ipynb: no such notebook"),
        (["rank", "ZOO"], "expected one of --data, --dataset and --dataset-like"),
        (["rank", "ZOO", "--data", "a", "--dataset", "b"], "--dataset: not allowed with --data"),
        (
            ["rank", "ZOO", "--data", "a", "--plot", "a.pdf"],
            "--plot a.pdf: expected a file that ends in .png",
        ),
        (["select", "ZOO", "--data", "a"], "Missing option '--out'"),
        (["import-records", "a.csv", "ZOO", "--map", "accuracy"], "--map accuracy: expected OURS=THEIRS"),
        (["repro"], "No such command 'repro'"),
        (["run-notebook", "no.ipynb", "out.ipynb", "-p", "a"], "-p a: expected a name and a value"),
        (["run-notebook", "no.ipynb", "out.ipynb", "-p", "a", "[1"], "-p a: not YAML"),
        (["run-notebook", "no.ipynb", "out.ipynb", "--params-file", "no.yaml"], "no.yaml: No such file"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(folder, capsys, args, message):
    assert main([arg.replace("ZOO", str(folder)) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("transfergraph: ") and err.count("\n") == 1 and out == ""
    assert message.replace("ZOO", str(folder)) in err


def test_wrong_input_by_the_real_program(folder):
    run = transfergraph("evaluate", folder / "gone")
    assert run.returncode == 2 and run.stdout == ""
    assert (
        run.stderr.startswith(f"transfergraph: {folder / 'gone'}: no such folder")
        and run.stderr.count("\n") == 1
    )


def test_a_broken_table_is_named(zoo, tmp_path, capsys):
    zoo.save(tmp_path)
    (tmp_path / "records.parquet").unlink()
    zoo.records.assign(accuracy=7).to_csv(tmp_path / "records.csv", index=False)
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "records.csv: row 1, column 'accuracy': 7 breaks the rule" in capsys.readouterr().err


# --- scoring predictions made elsewhere


def test_scoring_a_table(zoo, folder, guesses, tmp_path, capsys):
    guesses.to_csv(tmp_path / "predictions.csv", index=False)
    expected = evaluate_predictions(zoo, guesses)
    command = ["evaluate", str(folder), "--predictions", str(tmp_path)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and f"predictions.csv, metrics.csv and summary.csv are in {tmp_path / 'out'}\n" in out
    summary = expected[2].set_index(["method", "metric"])
    row = summary.loc[("TG,a", "weighted_kendall")]
    line = next(
        line for line in out.splitlines() if line.split()[:1] == ["TG,a"] and f"{row['gain']:+.3f}" in line
    )
    assert "1.000" in line and f"[{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]" in line
    for table, name in zip(expected, COLUMNS):
        read = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-8)
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert list(rows[0]) == COLUMNS["summary"] and rows[0]["seed_sd"] is None and "nothing was written" in err
    assert main([*command[:-1], str(tmp_path / "predictions.csv"), "--csv"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == ",".join(COLUMNS["summary"]) and len(out.splitlines()) == 1 + len(rows)


def test_scoring_some_targets(folder, guesses, tmp_path, capsys):
    guesses.to_csv(tmp_path / "predictions.csv", index=False)
    command = ["evaluate", str(folder), "--predictions", str(tmp_path), "--json", "--target"]
    assert main([*command, "x", "--target", "z"]) == 0
    assert {row["n_targets"] for row in json.loads(capsys.readouterr().out)} == {2}
    assert main([*command, "w"]) == 2
    assert "target 'w' is not in" in capsys.readouterr().err


def test_scoring_a_tree_of_folders(zoo, folder, guesses, tmp_path, capsys):
    variant = "xgb_node2vec_all_normalize_without_transfer"
    own = guesses[guesses["method"] == "history-mean"]
    for target, rows in own.groupby("target"):
        place = tmp_path / "rank_final" / target.replace("/", "_") / variant
        place.mkdir(parents=True)
        twice = pd.concat([rows.assign(score=rows["score"] - 0.1), rows.assign(score=rows["score"] + 0.1)])
        twice[["model", "score"]].to_csv(place / "results_1.0_128_0.csv")  # as for a model with two records
    expected = evaluate_predictions(zoo, own.assign(method="TG:XGB,N2V,all"))[2]
    for place in (tmp_path / "rank_final", tmp_path):
        assert main(["evaluate", str(folder), "--predictions", str(place), "--json"]) == 0
        rows = pd.DataFrame(json.loads(capsys.readouterr().out))
        pd.testing.assert_frame_equal(rows.astype(expected.dtypes), expected)
    # `published` does not average: it takes a prediction for each run, and here every model has one run.
    assert main(["evaluate", str(folder), "--predictions", str(place), "--protocol", "published"]) == 2
    assert "is there twice for its target and method; expected once, or once for" in capsys.readouterr().err


def test_a_wrong_prediction_is_named_by_file_and_row(folder, guesses, tmp_path, capsys):
    path = tmp_path / "predictions.csv"
    guesses.assign(model=["m99", *guesses["model"][1:]]).to_csv(path, index=False)
    assert main(["evaluate", str(folder), "--predictions", str(tmp_path)]) == 2
    expected = f"transfergraph: {path}: row 1, column 'model': 'm99' is not a model of this zoo\n"
    assert capsys.readouterr().err == expected


@pytest.mark.slow
def test_a_reader_that_goes_away(folder, guesses, tmp_path):
    guesses.to_csv(tmp_path / "predictions.csv", index=False)
    args = ["evaluate", folder, "--predictions", tmp_path, "--out", tmp_path / "out"]
    for more in ([], ["--json"]):
        read, write = os.pipe()
        os.close(read)
        command = [*PROGRAM, *map(str, args), *more]
        run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        os.close(write)
        assert run.returncode == 141
        assert "Traceback" not in run.stderr and "Broken" not in run.stderr
        assert (tmp_path / "out" / "summary.csv").exists()


# --- running methods


@pytest.fixture()
def asked(monkeypatch, guesses, zoo):
    "What the command asks of `evaluate`, which is not run."
    import transfergraph.evaluate.leave_one_out

    asked = {}

    def stand_in(zoo, methods, **options):
        asked.update(options, methods=list(methods), fingerprint=zoo.fingerprint)
        return evaluate_predictions(zoo, guesses)

    monkeypatch.setattr(transfergraph.evaluate.leave_one_out, "evaluate", stand_in)
    return asked


def test_arguments_reach_evaluate(zoo, folder, asked, capsys):
    args = (
        "--method a,b --method mean --target x --target z --protocol published --seeds 4 5 --jobs 2".split()
    )
    args += "--history-ratio 0.5 --model-ratio 0.25 --out there --quiet".split()
    assert main(["evaluate", str(folder), *args]) == 0
    assert asked == {
        "methods": ["a,b", "mean"],
        "targets": ["x", "z"],
        "protocol": "published",
        "seeds": [4, 5],
        "n_jobs": 2,
        "history_ratio": 0.5,
        "model_ratio": 0.25,
        "out": "there",
        "progress": False,
        "fingerprint": zoo.fingerprint,
    }
    assert "are in there\n" in capsys.readouterr().out


def test_defaults_are_those_of_evaluate(folder, asked):
    assert main(["evaluate", str(folder)]) == 0
    asked.pop("fingerprint")
    expected = {"targets": None, "protocol": "clean", "out": None, "progress": True}
    assert asked == {"methods": ["history-mean", "TG:XGB,N2V,all", "TG:kriging"], **expected}


@pytest.mark.parametrize(
    ("error", "args", "code", "line"),
    [
        (KeyboardInterrupt(), [], 130, "interrupted; nothing is kept without --out"),
        (
            KeyboardInterrupt(),
            ["--out", "o"],
            130,
            "interrupted; finished tasks are kept in o, the same command",
        ),
        (ValueError("no such\n  thing"), [], 2, "no such thing"),
        (FileNotFoundError(2, "No such file", "a.csv"), [], 2, "a.csv: No such file"),
        (RuntimeError("KeyError: 'a' (target 'x')"), [], 1, "KeyError: 'a' (target 'x')"),
        (KeyError("a"), [], 1, "KeyError: 'a'"),
        (MemoryError(), [], 1, "MemoryError:"),
    ],
)
def test_errors_are_one_line(folder, monkeypatch, capsys, error, args, code, line):
    import transfergraph.evaluate.leave_one_out

    def fails(*args, **options):
        raise error

    monkeypatch.setattr(transfergraph.evaluate.leave_one_out, "evaluate", fails)
    assert main(["evaluate", str(folder), *args]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"transfergraph: {line}") and err.count("\n") == 1
    if code in (1, 2):
        assert main(["--traceback", "evaluate", str(folder), *args]) == code
        assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_methods_are_listed(capsys):
    assert main(["methods"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert {"history-mean", "random", "LogME", "LR{all,LogME}", "TG:XGB,N2V,all", "TG:LR,GAT,graph"} <= set(
        names
    )
    assert len(names) == len(set(names))
    assert main(["methods", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == names
    assert main(["methods", "--csv"]) == 0
    assert list(csv.reader(capsys.readouterr().out.splitlines())) == [["method"], *([name] for name in names)]


def test_an_unknown_method(folder, capsys):
    assert main(["evaluate", str(folder), "--method", "TG:XGB,N2W,all"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "N2W" in err


@pytest.mark.slow
def test_an_evaluation_by_the_real_program(folder, tmp_path):
    command = ["evaluate", folder, "--method", "mean", "--method", "LR{metadata}", "--seeds", "0", "1"]
    run = transfergraph(*command, "--out", tmp_path / "one", "--jobs", "1")
    assert run.returncode == 0, run.stderr
    assert "pearson" in run.stdout and "LR{metadata}" in run.stdout and "6/6" in run.stderr
    again = transfergraph(*command, "--out", tmp_path / "two", "--jobs", "2", "--quiet")
    assert again.returncode == 0, again.stderr
    assert again.stdout.replace("two", "one") == run.stdout and "task" not in again.stderr
    for name in COLUMNS:
        assert (tmp_path / "one" / f"{name}.csv").read_bytes() == (
            tmp_path / "two" / f"{name}.csv"
        ).read_bytes()


def test_graph_methods_run_from_the_command_line(folder, tmp_path, capsys):
    command = ["evaluate", str(folder), "--seeds", "0", "--target", "x", "--json", "--quiet"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    out, _ = capsys.readouterr()
    assert {row["method"] for row in json.loads(out)} == {"history-mean", "TG:XGB,N2V,all", "TG:kriging"}


@pytest.mark.slow
def test_ctrl_c_by_the_real_program(folder, tmp_path):
    seeds = [str(seed) for seed in range(5000)]  # far more than can be done before the signal comes
    command = [
        *PROGRAM,
        "evaluate",
        str(folder),
        "--method",
        "mean",
        "--out",
        str(tmp_path / "out"),
        "--seeds",
        *seeds,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    parts = tmp_path / "out" / ".parts"
    until(lambda: len(list(parts.glob("*.csv"))) >= 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and out == "" and "Traceback" not in err
    kept = (
        f"transfergraph: interrupted; finished tasks are kept in {tmp_path / 'out'}, the same command goes on"
    )
    assert err.splitlines()[-1].startswith(kept)
    assert len(list(parts.glob("*.csv"))) >= 3


# --- the paper's records


def test_the_papers_zoos_and_predictions(paper, tmp_path, capsys):
    get = ["zoo", "get", "paper-image", "paper-text", "--from", str(paper), "--out"]
    assert main([*get, str(tmp_path / "a")]) == 0
    out, _ = capsys.readouterr()
    assert f"{tmp_path / 'a' / 'paper-image'}: 185 models, " in out and " 2254 records, " in out
    assert f"every one of them: {tmp_path / 'a' / 'paper-text' / 'dropped.csv'}\n" in out
    assert any(line.split() == "dropped 4 columns are shifted".split() for line in out.splitlines())
    report = pd.read_csv(tmp_path / "a" / "paper-text" / "dropped.csv")
    assert main([*get, str(tmp_path / "b"), "--json"]) == 0
    rows = pd.DataFrame(json.loads(capsys.readouterr().out))
    text = rows[rows["zoo"].str.endswith("paper-text") & (rows["reason"] != "")]
    assert text["rows"].sum() == len(report) and set(text["item"]) == set(report["action"])
    metrics = ["evaluate", str(tmp_path / "a" / "paper-text"), "--json", "--predictions"]
    assert main([*metrics, str(paper / "sequence_classification" / "rank_final")]) == 0
    rows = pd.DataFrame(json.loads(capsys.readouterr().out)).set_index(["method", "metric"])
    assert rows.loc[("TG:XGB,GAT,all", "pearson"), "mean"] == pytest.approx(0.802, abs=5e-4)


def test_an_incomplete_source_is_named_and_nothing_is_written(tmp_path, capsys):
    (tmp_path / "image_classification").mkdir()
    get = ["zoo", "get", "paper-image", "--from", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(get) == 2
    err = capsys.readouterr().err
    assert "image_classification" in err and "expected the repository" in err and err.count("\n") == 2
    assert not (tmp_path / "out" / "paper-image").exists()


def test_zoo_list_and_info(tmp_path, capsys):
    assert main(["zoo", "list", "--out", str(tmp_path), "--json"]) == 0
    rows = pd.DataFrame(json.loads(capsys.readouterr().out)).set_index("zoo")
    assert len(rows) == 8 and rows.loc["clip", ["models", "datasets"]].tolist() == [121, 35]
    assert not rows["got"].any() and rows.loc["image-vtab", "licence"] == "none: import only"
    assert main(["zoo", "info", "text-recycling"]) == 0
    out = capsys.readouterr().out
    for word in ("Apache-2.0", "280 models", "EMNLP 2023", "noise of the seed", "SHA-256", "spearman"):
        assert word in out


# --- notebooks


def test_running_a_notebook(tmp_path, capsys):
    cell = nbformat.v4.new_code_cell("a = 0\nb = 0\nc = 0", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell("print(repr([a, b, c]))")])
    nbformat.write(notebook, tmp_path / "in.ipynb")
    (tmp_path / "params.yaml").write_text("a: 5\nb: [1, 2]\n")
    args = ["run-notebook", str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb")]
    args += ["--params-file", str(tmp_path / "params.yaml"), "-p", "a", "1e-3", "-p", "c", "glue/cola"]
    assert main(args) == 0
    capsys.readouterr()
    done = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "[0.001, [1, 2], 'glue/cola']" in done.cells[-1]["outputs"][0]["text"]


def test_parameters_reach_the_notebook(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("transfergraph.report.terminal.run_notebook", lambda *args: asked.append(args))
    (tmp_path / "in.ipynb").write_text("{}")
    params = tmp_path / "params.yaml"
    params.write_text("a: 1\nb: {c: null}\n")
    paths = [str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb")]
    assert (
        main(["run-notebook", *paths, "--params-file", str(params), "-p", "a", "[x]", "-p", "d", "-3"]) == 0
    )
    assert asked == [(*paths, {"a": ["x"], "b": {"c": None}, "d": -3})]
    params.write_text("- a\n")
    assert main(["run-notebook", *paths, "--params-file", str(params)]) == 2
    assert "expected names with values" in capsys.readouterr().err
    params.write_text("")
    assert main(["run-notebook", *paths, "--params-file", str(params)]) == 0 and asked[-1][2] == {}


def test_values_are_yaml():
    texts = [
        "1",
        "1.5",
        "1e-3",
        "-2E5",
        "true",
        "null",
        "[1, a]",
        "{a: 1}",
        "glue/cola",
        "1e",
        "e5",
        "'1e-3x'",
        "NO",
        "12:30",
        "2024-01-05",
    ]
    values = [1, 1.5, 0.001, -2e5, True, None, [1, "a"], {"a": 1}, "glue/cola", "1e", "e5", "1e-3x"]
    assert [yaml_value(text, "x") for text in texts] == [*values, "NO", "12:30", "2024-01-05"]


# --- printing


def test_the_summary_says_when_there_is_no_baseline():
    row = {"method": "a", "metric": "pearson", "mean": 0.5, "low": np.nan, "high": np.nan, "n_targets": 1}
    table = pd.DataFrame([row | dict.fromkeys(["gain", "gain_low", "gain_high", "seed_sd"], np.nan)])
    assert "nan" not in aligned(summary_rows(table))
    assert "no gains: the method history-mean is not among those evaluated" in summary_note(table)
    assert "gain: over" in summary_note(table.assign(method="history-mean"))


def test_columns_are_aligned():
    lines = aligned([["a", "1"], ["long", "100"]], right=[1]).splitlines()
    assert lines == ["a       1", "long  100"]


def test_every_option_is_explained():
    from typer.main import get_command

    commands, seen = [get_command(app)], 0
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        assert command.help and all(option.help for option in command.params)
        seen += 1
    assert seen == len(COMMANDS) + 6  # the program itself, `hub build`, and four of `zoo`


def test_a_table_is_plain_where_the_output_is_no_terminal(folder):
    run = transfergraph(
        "evaluate", folder, "--method", "LR{metadata}", "--seeds", "0", "--quiet", COLUMNS="20"
    )
    lines = run.stdout.splitlines()
    assert run.returncode == 0 and run.stdout.isascii() and "\x1b" not in run.stdout
    assert lines[0].split()[:3] == ["metric", "method", "mean"] and lines[0].endswith("seed sd  targets")
    assert len({line.index("LR{metadata}") for line in lines[1:5]}) == 1


def test_a_terminal_gets_a_ruled_table_that_is_as_wide_as_it_is(folder):
    "With nothing left out: names that do not fit go on in the next line, and brackets are no markup."
    pty = pytest.importorskip("pty")
    code = (
        "from transfergraph.report.terminal import print_rows; "
        "print_rows([['model', 'accuracy'], ['[bold]' + 'x' * 60, '0.500']], [1])"
    )
    ours, theirs = pty.openpty()
    env = os.environ | {"COLUMNS": "40", "TERM": "xterm", "PYTHONUTF8": "1"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, env=env, cwd=ROOT, check=True)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # how Linux says that nobody writes any more
        pass
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert text.count("x") == 60 and "[bold]" in text and "\u2500" in text and "\u2026" not in text
    assert max(map(len, text.splitlines())) <= 40 and "0.500" in text


def test_the_shell_completes_commands_and_options():
    for typed, wanted in (("transfergraph ev", "evaluate"), ("transfergraph evaluate --pro", "--protocol")):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        env = os.environ | {"_TRANSFERGRAPH_COMPLETE": "complete_bash"} | words
        run = subprocess.run(PROGRAM, capture_output=True, text=True, cwd=ROOT, env=env)
        assert run.stdout.split() == [wanted] and run.stderr == ""


def test_help_loads_nothing_heavy():
    code = "import sys; from transfergraph.cli.program import main; main(['--help'])"
    code += "; sys.exit(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in run.stderr.split()}
    assert not {"pandas", "numpy", "torch", "pydantic", "rich", "yaml"} & loaded and "typer" in loaded
