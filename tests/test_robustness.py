"""What was tried to break it: a test for each row of docs/robustness.md."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from file_server import serving_files
from waiting import until

from transfergraph.cli.program import main
from transfergraph.recommend.transfergraph import TransferGraph, open_fit
from transfergraph.run.files import folder_lock
from transfergraph.zoo.matrices import DatasetDescription
from transfergraph.zoo.tables import TABLES, Zoo, ZooError

ROOT = Path(__file__).resolve().parent.parent
LEARNT = ["LR{all,LogME}", "TG:XGB,N2V,all", "TG:RF,GAT,all", "TG:ensemble", "TG:factors"]


def small(models=6, sets=4, seed=0, accuracy=None, named=str):
    "A zoo of random accuracies, scores and distances."
    rng = np.random.default_rng(seed)
    m, d = [named(f"m{i}") for i in range(models)], [named(f"d{i}") for i in range(sets)]
    pairs = [(a, b) for a in m for b in d]
    return Zoo(
        pd.DataFrame(
            {"model": m, "modality": "image", "family": "f", "n_params": 1e6 * np.arange(1, models + 1)}
        ),
        pd.DataFrame({"dataset": d, "modality": "image", "role": "target", "n_samples": 100, "n_classes": 5}),
        pd.DataFrame(
            [(*p, accuracy or rng.random()) for p in pairs], columns=["model", "dataset", "accuracy"]
        ),
        pd.DataFrame(
            [(*p, "LogME", rng.normal()) for p in pairs], columns=["model", "dataset", "metric", "score"]
        ),
        pd.DataFrame(
            [(d[i], d[j], rng.random()) for i in range(sets) for j in range(i)],
            columns=["dataset", "other", "distance"],
        ),
    ).validate()


def with_rows(zoo, **tables):
    return Zoo(**{name: tables.get(name, getattr(zoo, name)) for name in TABLES})


@pytest.fixture
def folder(tmp_path):
    small().save(tmp_path / "zoo")
    return tmp_path / "zoo"


def as_csv(folder, table):
    "Turn one table of a zoo into a CSV; its path."
    frame = pd.read_parquet(folder / f"{table}.parquet")
    (folder / f"{table}.parquet").unlink()
    frame.to_csv(folder / f"{table}.csv", index=False)
    return folder / f"{table}.csv"


def said(args, capsys, code=2):
    "The one line on standard error of a command that fails, and nothing else."
    assert main([str(a) for a in args]) == code
    err = capsys.readouterr().err
    lines = [line for line in re.split(r"[\r\n]+", err) if line.startswith("transfergraph")]
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def evaluated(zoo, methods, seeds=(0,)):
    from transfergraph.evaluate.leave_one_out import evaluate

    return evaluate(zoo, methods, seeds=seeds, n_jobs=1, progress=False)[1]


# ---- tables


@pytest.mark.parametrize("table", ["models", "records"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_truncated_parquet_table_is_named(folder, table, share, capsys):
    path = folder / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert f"{path}: " in said(["evaluate", folder, "--method", "mean"], capsys)


def test_a_truncated_csv_is_refused_by_row_and_column(folder, capsys):
    path = as_csv(folder, "records")
    path.write_text(path.read_text()[:-60].rpartition("\n")[0] + "\nm3,d2,fu")
    line = said(["evaluate", folder, "--method", "mean"], capsys)
    assert f"{path}: row 23, column 'method': 'fu' breaks the rule" in line or "column 'accuracy'" in line


def test_empty_tables(folder, capsys):
    path = as_csv(folder, "records")
    header = path.read_text().splitlines()[0]
    path.write_text("")
    assert f"{path}: " in said(["evaluate", folder, "--method", "mean"], capsys)
    path.write_text(header + "\n")
    assert len(Zoo.load(folder).records) == 0
    assert "has no fine-tuning" in said(["evaluate", folder, "--method", "mean"], capsys)


@pytest.mark.slow
def test_a_huge_table_loads_and_one_wrong_cell_in_it_is_found(tmp_path):
    zoo, n = small(1000, 1000), 1_000_000
    zoo.save(tmp_path / "zoo")
    assert len(Zoo.load(tmp_path / "zoo").records) == n
    records = zoo.records.copy()
    records.loc[n - 5, "accuracy"] = 1.5
    records.to_parquet(tmp_path / "zoo" / "records.parquet")
    with pytest.raises(
        ZooError, match=r"records.parquet: row 999996, column 'accuracy': 1.5 breaks the rule"
    ):
        Zoo.load(tmp_path / "zoo")


def test_a_csv_with_bom_crlf_and_quotes_is_the_same_table(folder):
    before = Zoo.load(folder)
    path = as_csv(folder, "records")
    lines = path.read_text().splitlines()
    quoted = [",".join(f'"{cell}"' if cell else "" for cell in line.split(",")) for line in lines]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(quoted).encode() + b"\r\n")
    pd.testing.assert_frame_equal(Zoo.load(folder).records, before.records)


def test_formula_cells_are_text_and_stay_text(folder, tmp_path, capsys):
    path = as_csv(folder, "models")
    path.write_text(path.read_text().replace(",f,", ',"=HYPERLINK(""http://x"",1)",'))
    assert set(Zoo.load(folder).models["family"]) == {'=HYPERLINK("http://x",1)'}
    path = as_csv(folder, "records")
    path.write_text(re.sub(r"(m0,d0,full),[^,]*", r"\1,=1+1", path.read_text()))
    line = said(["evaluate", folder, "--method", "mean"], capsys)
    assert "row 1, column 'accuracy'" in line and "=1+1" in line


def test_duplicate_names_are_refused(folder, capsys):
    path = as_csv(folder, "models")
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    line = said(["evaluate", folder, "--method", "mean"], capsys)
    assert f"{path}: row 7, column 'model': 'm0'" in line


ODD = {
    "slash": "google/{}",
    "space": " {} b ",
    "dots": "../../{}",
    "shell": "{}; touch pwned $(touch pwned) `touch pwned` | 'x' \"y\" &",
    "unicode": "模型 ünï {} \u202e😀",
    "composed": "e\u0301{}",
    "looks like an option": "--{}",
    "newline": "{}\nx",
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_names_go_through_unchanged(kind, tmp_path, monkeypatch, capsys):
    "Saved, loaded, evaluated and written down; no file appears anywhere else."
    zoo = small(named=ODD[kind].format)
    (tmp_path / "at" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "at" / "work")
    zoo.save("zoo")
    before = Zoo.load("zoo")
    assert before.models["model"].tolist() == zoo.models["model"].tolist()
    for table in TABLES:
        if len(getattr(zoo, table)):
            as_csv(Path("zoo"), table)
    assert Zoo.load("zoo").fingerprint == before.fingerprint
    args = [
        "evaluate",
        "zoo",
        "--method",
        "mean",
        "--method",
        "TG:LR,N2V,all",
        "--seeds",
        "0",
        "--out",
        "out",
    ]
    assert main(args) == 0
    capsys.readouterr()
    found = pd.read_csv("out/predictions.csv", keep_default_na=False)
    assert set(found["model"]) == set(zoo.models["model"]) and set(found["target"]) == set(
        zoo.datasets["dataset"]
    )
    assert sorted(p.name for p in Path(".").iterdir()) == ["out", "zoo"]
    assert sorted(p.name for p in tmp_path.rglob("*") if "pwned" in p.name or "m0" in p.name) == []
    assert [p.name for p in tmp_path.iterdir()] == ["at"] and [p.name for p in Path("..").iterdir()] == [
        "work"
    ]


@pytest.mark.parametrize("command", ["rank", "hub", "probe", "select"])
def test_the_home_of_nobody_is_a_place_that_is_not_there(command, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lost, spec = "~nobody-of-this-name/data", tmp_path / "list.yaml"
    spec.write_text(f"models:\n  - {{path: {lost}}}\n")
    args = {
        "rank": ["rank", folder, "--data", lost],
        "probe": ["rank", folder, "--data", "digits", "--probe", lost],
        "select": ["select", folder, "--data", lost, "--budget", 1, "--out", tmp_path / "out"],
        "hub": ["hub", "build", spec, tmp_path / "out", "--offline"],
    }[command]
    assert main([str(a) for a in args]) == 2
    assert lost in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "", "1e999"])
@pytest.mark.parametrize(
    ("table", "column"), [("scores", "score"), ("records", "accuracy"), ("distances", "distance")]
)
def test_values_that_are_not_finite_are_refused(folder, table, column, value, capsys):
    path = as_csv(folder, table)
    frame = pd.read_csv(path, dtype=str)
    frame.loc[2, column] = value
    frame.to_csv(path, index=False)
    assert f"{path}: row 3, column '{column}'" in said(["evaluate", folder, "--method", "mean"], capsys)


def test_scores_may_be_missing_for_some_models_or_all():
    zoo = small()
    fewer = with_rows(zoo, scores=zoo.scores.iloc[::3].reset_index(drop=True))
    metrics = evaluated(fewer, ["mean", "LR{all,LogME}"])
    assert np.isfinite(metrics.loc[metrics["metric"] == "regret@1", "value"]).all()
    without = evaluated(with_rows(zoo, scores=zoo.scores[:0]), ["LogME"]).set_index("metric")["value"]
    assert (without["pearson"] == 0).all() and without[
        "regret@1"
    ].notna().all()  # it knows nothing, and says so


# ---- zoos with hardly anything in them


def test_one_model_cannot_be_ranked():
    with pytest.raises(ValueError, match="has one model with a true accuracy; expected 2 or more to rank"):
        evaluated(small(1, 4), ["mean"])


@pytest.mark.parametrize("method", LEARNT)
def test_one_data_set_leaves_nothing_to_learn_from(method):
    with pytest.raises(ValueError, match=r"has nothing to learn from: on no dataset other than 'd0'"):
        evaluated(small(6, 1), [method])


@pytest.mark.parametrize("method", LEARNT)
def test_equal_accuracies_leave_nothing_to_learn_from(method):
    with pytest.raises(
        ValueError, match=r"has nothing to learn from: on no dataset other than .* do accuracies"
    ):
        evaluated(small(accuracy=0.5), [method])
    metrics = evaluated(small(accuracy=0.5), ["mean"])
    assert (metrics.loc[metrics["metric"] == "regret@1", "value"] == 0).all()


@pytest.mark.parametrize("method", LEARNT)
def test_models_that_share_no_data_set_are_ranked_all_the_same(method):
    "Each model was tried on one dataset and each dataset has two models."
    zoo = small(8, 4)
    own = [int(m[1:]) % 4 == int(d[1:]) for m, d in zip(zoo.records["model"], zoo.records["dataset"])]
    metrics = evaluated(with_rows(zoo, records=zoo.records[own].reset_index(drop=True)), [method])
    assert metrics["value"].notna().any() and set(metrics["target"]) == {"d0", "d1", "d2", "d3"}


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNT)
def test_a_graph_in_pieces_is_learnt(method):
    "Two halves of the zoo without a record, a score or a distance between them."
    zoo = small(8, 6)
    near = {
        name: [
            (int(a[1:]) < 4) == (int(b[1:]) < 3)
            for a, b in zip(getattr(zoo, name)["model"], getattr(zoo, name)["dataset"])
        ]
        for name in ("records", "scores")
    }
    parts = {name: getattr(zoo, name)[rows].reset_index(drop=True) for name, rows in near.items()}
    metrics = evaluated(with_rows(zoo, **parts, distances=zoo.distances[:0]), [method])
    assert np.isfinite(metrics.loc[metrics["metric"] == "regret@1", "value"]).all()


def test_distances_that_are_not_symmetric_are_refused(folder, capsys):
    path = as_csv(folder, "distances")
    path.write_text(path.read_text() + "d0,d1,domain_similarity,0.987\n")
    line = said(["evaluate", folder, "--method", "mean"], capsys)
    assert f"{path}: row 7" in line and "0.987" in line


# ---- disks, rights, other runs


@pytest.fixture
def tiny_disk(tmp_path):
    "A file system of 64 kB."
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only the superuser can mount a small file system")
    at = tmp_path / "tiny"
    at.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(at)], capture_output=True
    ).returncode:
        pytest.skip("this machine mounts no file system")
    yield at
    subprocess.run(["umount", "-l", str(at)], check=True)


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tiny_disk, tmp_path, capsys):
    small().save(tiny_disk / "zoo")
    before = {p.name: p.read_bytes() for p in (tiny_disk / "zoo").iterdir()}
    rows = pd.DataFrame({"model": [f"new-{i}" for i in range(9000)], "dataset": "d0", "accuracy": 0.5})
    rows.to_csv(tmp_path / "results.csv", index=False)
    assert "No space left" in said(["import-records", tmp_path / "results.csv", tiny_disk / "zoo"], capsys)
    assert {p.name: p.read_bytes() for p in (tiny_disk / "zoo").iterdir()} == before
    (tiny_disk / "fill").write_bytes(b"x" * (os.statvfs(tiny_disk).f_bavail * os.statvfs(tiny_disk).f_bsize))
    small().save(tmp_path / "zoo")
    out = tiny_disk / "out"
    assert "No space left" in said(["evaluate", tmp_path / "zoo", "--method", "mean", "--out", out], capsys)
    assert not [p for p in out.rglob("*.csv")] if out.exists() else True


def test_a_download_that_does_not_fit_is_one_line_and_leaves_nothing(tiny_disk, tmp_path, records, capsys):
    with serving_files(records / "raw") as (url, _, _):
        command = ["zoo", "get", "text-recycling", "--mirror", url + "/{repository}/{path}", "--quiet"]
        command += ["--cache", tiny_disk, "--out", tmp_path / "zoos", "--retries", "0"]
        assert "No space left" in said(command, capsys)
    assert not [path for path in tiny_disk.rglob("*") if path.is_file()]
    assert not (tmp_path / "zoos" / "text-recycling").exists()


def without_privileges():
    "In a child, before it starts: rights of files count for the superuser, too."
    import ctypes

    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "the superuser keeps its rights here")


def as_anybody(args, cwd):
    "Run the program as a user whom rights of files hold back."
    call = [sys.executable, "-c", "from transfergraph.cli.program import main; raise SystemExit(main())"]
    return subprocess.run(
        [*call, *map(str, args)], cwd=cwd, capture_output=True, text=True, preexec_fn=without_privileges
    )


@pytest.mark.parametrize("command", ["evaluate", "import-records", "site", "zoo"])
def test_a_folder_that_may_not_be_written_to_is_one_line(command, folder, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept / "zoo")
    (tmp_path / "results.csv").write_text("model,dataset,accuracy\nm0,d9,0.5\n")
    before = {p: p.read_bytes() for p in kept.rglob("*") if p.is_file()}
    for path in [kept, kept / "zoo"]:
        path.chmod(0o555)
    args = {
        "evaluate": ["evaluate", folder, "--method", "mean", "--out", kept / "out"],
        "import-records": ["import-records", tmp_path / "results.csv", kept / "new", "--modality=image"],
        "zoo": ["import-records", tmp_path / "results.csv", kept / "zoo"],
        "site": ["site", "--reports", ROOT, "--out", kept / "site"],
    }[command]
    done = as_anybody(args, tmp_path)
    for path in [kept, kept / "zoo"]:
        path.chmod(0o755)
    lines = done.stderr.strip().splitlines()
    assert done.returncode and "Traceback" not in done.stderr and "Permission denied" in lines[-1], (
        done.stderr
    )
    assert {p: p.read_bytes() for p in kept.rglob("*") if p.is_file()} == before


def test_a_zoo_in_a_read_only_folder_can_be_used(folder, tmp_path):
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o444 if path.is_file() else 0o555)
    done = as_anybody(["evaluate", folder, "--method", "mean"], tmp_path)
    folder.chmod(0o755)
    assert done.returncode == 0 and "pearson" in done.stdout, done.stderr


HOLD = """
import sys, time
from transfergraph.recommend.transfergraph import TransferGraph, open_fit
from transfergraph.run.files import folder_lock
from transfergraph.zoo.matrices import DatasetDescription
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


SITE = pytest.param("site", marks=pytest.mark.slow)


@pytest.mark.parametrize("command", ["evaluate", "import-records", "zoo", "hub", "select", SITE])
def test_two_runs_at_once_on_one_folder(command, folder, tmp_path, monkeypatch, capsys):
    "The second is refused and told which process is there; when the first is killed, its lock is gone."
    out = {"import-records": folder, "zoo": tmp_path / "clip"}.get(command, tmp_path / "out")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "results.csv").write_text("model,dataset,accuracy\nm0,d9,0.5\n")
    (tmp_path / "spec.yaml").write_text("models: []\ndatasets: []\n")
    reports = tmp_path / "reports"
    (reports / "zoo").mkdir(parents=True)
    cells = [nbformat.v4.new_markdown_cell("# Summary")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), reports / "zoo" / "summary.ipynb")
    args = {
        "evaluate": ["evaluate", folder, "--method", "mean", "--out", out],
        "import-records": ["import-records", tmp_path / "results.csv", out],
        "zoo": ["zoo", "get", "clip", "--from", tmp_path, "--out", tmp_path],
        "hub": ["hub", "build", tmp_path / "spec.yaml", out, "--offline"],
        "select": ["select", folder, "--data", "digits", "--budget", "1", "--out", out, "--quiet"],
        "site": ["site", "--reports", reports, "--zoos", tmp_path, "--results", tmp_path, "--out", out],
    }[command]
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert first.stdout.readline() == "held\n"
        before = list(out.iterdir())
        assert main([str(a) for a in args]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert re.search(
            rf"{re.escape(str(out))}: another run( \(process \d+\))? is writing here; wait", line
        )
        if sys.platform == "linux" and f":{out.stat().st_ino} " in Path("/proc/locks").read_text():
            assert f"(process {first.pid})" in line
        assert list(out.iterdir()) == before
    finally:
        first.kill()
        first.wait()
    code = main([str(a) for a in args])
    assert "another run" not in capsys.readouterr().err
    assert code == 0 or command in ("zoo", "hub", "select")  # these lack a copy, models, a model


def test_a_lock_ends_with_its_process_and_leaves_no_file(tmp_path):
    with folder_lock(tmp_path / "out"):
        (tmp_path / "out" / "table.csv").touch()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["table.csv"]
    with folder_lock(tmp_path / "never written to"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


STAGE = """{"cells": [
 {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "outputs": [],
  "execution_count": null,
  "source": ["seconds = 0"]},
 {"cell_type": "code", "id": "b", "metadata": {}, "outputs": [], "execution_count": null,
  "source": ["import pathlib, time\\npathlib.Path('begun').touch()\\n",
             "time.sleep(seconds)\\nprint('all of it')"]}],
 "metadata": {}, "nbformat": 4, "nbformat_minor": 5}"""


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_stage_that_is_killed_leaves_the_older_report_or_none(tmp_path, begun, again):
    "At its start, and in the middle of a cell."
    (tmp_path / "stage.ipynb").write_text(STAGE)
    call = [
        sys.executable,
        "-c",
        "from transfergraph.cli.program import main; main()",
        "run-notebook",
        "stage.ipynb",
        "out.ipynb",
    ]
    older = None
    if again:
        subprocess.run(call, cwd=tmp_path, check=True, capture_output=True)
        older = (tmp_path / "out.ipynb").read_bytes()
        (tmp_path / "begun").unlink()
    running = subprocess.Popen([*call, "-p", "seconds", "600"], cwd=tmp_path, start_new_session=True)
    if begun:
        until((tmp_path / "begun").exists, running)
    os.killpg(running.pid, 9)
    running.wait()
    if older:
        assert (tmp_path / "out.ipynb").read_bytes() == older
    else:
        assert not (tmp_path / "out.ipynb").exists()
    subprocess.run(call, cwd=tmp_path, check=True, capture_output=True)
    assert "all of it" in (tmp_path / "out.ipynb").read_text()


# ---- caches


@pytest.fixture(scope="module")
def saved_fit(tmp_path_factory):
    home = tmp_path_factory.mktemp("fit")
    TransferGraph(n_jobs=1).fit(small()).save(home / "fit")
    return home / "fit"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
@pytest.mark.parametrize("file", ["image.safetensors", "zoo/models.parquet", "zoo/datasets.parquet"])
def test_a_damaged_fit_is_not_loaded(saved_fit, tmp_path, file, damage):
    kept = shutil.copytree(saved_fit, tmp_path / "fit")
    content = bytearray((kept / file).read_bytes())
    changed = {"cut": content[: len(content) // 2], "empty": b"", "other": b"something else altogether"}
    content[len(content) // 2] ^= 0x40
    (kept / file).write_bytes(changed.get(damage, content))
    with pytest.raises(ValueError, match="not as it was written"):
        TransferGraph.load(kept)


@pytest.mark.parametrize("damage", ["gone", "empty", "bytes", "list", "seed", "distance", "tables"])
def test_a_fit_whose_description_is_damaged_is_not_loaded(saved_fit, tmp_path, damage):
    "Also one that was removed half-way, which leaves the folder without fit.json."
    kept = shutil.copytree(saved_fit, tmp_path / "fit")
    said = (kept / "fit.json").read_text()
    if damage == "gone":
        (kept / "fit.json").unlink()
    elif damage == "tables":
        shutil.rmtree(kept / "zoo")
    else:
        content = {
            "empty": b"",
            "bytes": b"\xff\xfe\x00",
            "list": b"[1]",
            "seed": said.replace('"random_state": 0', '"random_state": 4').encode(),
            "distance": said.replace("domain_similarity", "domain_simularity").encode(),
        }[damage]
        assert content != said.encode()
        (kept / "fit.json").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError)):
        TransferGraph.load(kept)


def test_a_fit_that_cannot_be_loaded_is_made_anew(folder, tmp_path):
    cache, heard = tmp_path / "fits", []
    first = open_fit(folder, cache, heard.append)
    assert len(heard) == 1 and open_fit(folder, cache, heard.append) and len(heard) == 1
    (kept,) = cache.iterdir()
    content = bytearray((kept / "image.safetensors").read_bytes())
    content[len(content) // 2] ^= 0x40
    (kept / "image.safetensors").write_bytes(content)
    again = open_fit(folder, cache, heard.append)
    assert len(heard) == 2 and "damaged" in heard[1], "the damage was not noticed"
    new = DatasetDescription("new", "image", 100, 5, distances={"d0": 0.2, "d1": 0.4, "d2": 0.6, "d3": 0.8})
    pd.testing.assert_frame_equal(first.rank(new), again.rank(new))
    (kept / "fit.json").unlink()
    open_fit(folder, cache, heard.append)
    assert len(heard) == 3


# ---- a GPU without room


@pytest.mark.parametrize("most", [1, 3, 64])
def test_features_come_in_smaller_batches_where_the_gpu_has_no_room(most, monkeypatch):
    from transfergraph.models.loading import load_backbone

    backbone = load_backbone("timm/test_resnet", random_state=0, input_size=32)
    items = np.random.default_rng(0).integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)
    whole, forward, sizes = backbone.features(items, batch_size=1), backbone.body.forward, []

    def crowded(batch):
        import torch

        sizes.append(len(batch))
        if len(batch) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(batch)

    monkeypatch.setattr(backbone.body, "forward", crowded)
    found = backbone.features(items, batch_size=16)
    assert np.allclose(found, whole, atol=1e-5) and max(sizes) == 16 and sizes[-1] <= most
    assert sum(n for n in sizes if n <= most) == 21


def crowded_training(most, batch_size=16):
    "Accuracies of a small training whose forward pass has no room for more than `most` items."
    import torch

    from transfergraph.data.dataset import load_dataset
    from transfergraph.models.finetune import finetune
    from transfergraph.models.loading import load_backbone
    from transfergraph.models.training import Settings

    dataset = load_dataset("digits").subsample(4)
    backbone = load_backbone("timm/test_vit", random_state=0, input_size=32)
    kind, sizes = type(backbone.body), []
    before = kind.forward

    def forward(self, x, *args, **kwargs):
        sizes.append(len(x))
        if len(x) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return before(self, x, *args, **kwargs)

    kind.forward = forward
    try:
        result = finetune(backbone, dataset, Settings(epochs=2, batch_size=batch_size, dropout=0.0), 0, "cpu")
    finally:
        kind.forward = before
    return result, sizes


def test_fine_tuning_adds_up_the_gradients_of_smaller_batches():
    whole, _ = crowded_training(10_000)
    parts, sizes = crowded_training(5)
    assert max(sizes) > 5 and min(sizes) <= 5
    assert parts.accuracy == pytest.approx(whole.accuracy, abs=0.02)
    losses = [[epoch["loss"] for epoch in result.history] for result in (whole, parts)]
    assert np.allclose(*losses, atol=1e-3)


def test_a_model_that_never_fits_is_recorded_as_failed(tmp_path, monkeypatch):
    import torch

    from transfergraph.models.finetune import failures, finetune_all
    from transfergraph.models.loading import load_backbone
    from transfergraph.models.training import Settings

    good = load_backbone("timm/test_resnet", random_state=0, input_size=32)
    large = load_backbone("timm/test_vit", random_state=0, input_size=32)

    def never(self, *args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(type(next(large.body.children())), "forward_features", never)
    with pytest.warns(UserWarning, match="1 of 2 runs failed"):
        table = finetune_all(
            [("large", large), ("good", good)],
            ["digits"],
            Settings(epochs=1),
            records=tmp_path / "records.jsonl",
            n_jobs=1,
            progress=False,
        )
    assert table["model"].tolist() == ["good"]
    assert failures(tmp_path / "records.jsonl")["quality"].tolist() == ["failed: out of memory"]


# ---- locales


@pytest.mark.slow
def test_a_locale_without_utf_8(tmp_path):
    small(named="模型-ü-{}".format).save(tmp_path / "zoo")
    for table in ("models", "records"):
        as_csv(tmp_path / "zoo", table)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIOENCODING"))}
    env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    call = [sys.executable, "-c", "from transfergraph.cli.program import main; raise SystemExit(main())"]
    done = subprocess.run(
        [*call, "evaluate", "zoo", "--method", "mean", "--out", "out"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert "模型-ü-m0" in (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8")
    done = subprocess.run(
        [*call, "rank", "zoo", "--dataset", "模型-ü-d9"], cwd=tmp_path, env=env, capture_output=True
    )
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert "dataset '模型-ü-d9' is not in the zoo" in done.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_names_are_taken_and_printed_in_a_locale_without_utf_8(form, tmp_path):
    "As arguments, as folders, and in the answer."
    zoo, new = small(named="模型-ü-{}".format), "模型-ü-d3"
    with_rows(zoo, records=zoo.records[zoo.records["dataset"] != new].reset_index(drop=True)).save(
        tmp_path / "zoo-ü"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIOENCODING"))}
    env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "XDG_CACHE_HOME": str(tmp_path)}
    call = [sys.executable, "-c", "from transfergraph.cli.program import main; raise SystemExit(main())"]
    done = subprocess.run(
        [*call, "rank", "zoo-ü", "--dataset", new, *form], cwd=tmp_path, env=env, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert all(f"模型-ü-m{i}" in done.stdout.decode() for i in range(6))


@pytest.mark.slow
def test_signs_that_the_output_has_not_are_escaped(tmp_path):
    zoo, new = small(named="模型-ü-{}".format), "模型-ü-d3"
    with_rows(zoo, records=zoo.records[zoo.records["dataset"] != new].reset_index(drop=True)).save(
        tmp_path / "zoo"
    )
    env = os.environ | {"PYTHONIOENCODING": "latin-1", "XDG_CACHE_HOME": str(tmp_path)}
    call = [sys.executable, "-c", "from transfergraph.cli.program import main; raise SystemExit(main())"]
    done = subprocess.run(
        [*call, "rank", "zoo", "--dataset", new], cwd=tmp_path, env=env, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert r"\u6a21\u578b-ü-m0" in done.stdout.decode("latin-1")


# ---- the table itself


def test_every_row_of_the_table_names_its_tests():
    text = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    for row in rows:
        named = row.split("|")[3].strip().split(", ")
        assert row.count("|") == 4 and named != [""], row
        for name in named:
            there = (ROOT / "tests" / f"{name}.py").is_file() or (
                name[-1] == "/" and (ROOT / "tests" / name).is_dir()
            )
            assert there, f"{name}: {row[:60]}"
