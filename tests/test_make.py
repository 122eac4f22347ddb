"""The commands that README begins with, run by make in fresh clones, with small settings."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from transfergraph.zoo.synthetic import make_zoo

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow
NANO = {
    "zoos": ["nano-image"],
    "targets": {n: {"zoo": "nano-image", "target": n} for n in ("digits", "cyrillic")},
    "seeds": [0],
    "resamples": 200,
    "predictors": ["LR"],
    "learners": ["N2V"],
    "methods": ["random", "mean", "TG:factors"],
    "headline": "TG:factors",
    "panels": ["mean", "TG:LR,N2V,all"],
    "ablation": {"features": ["LR{metadata}", "TG:LR,N2V,all"]},
    "sweep": {"ratios": [0.5, 1.0], "methods": ["mean"], "seeds": [0]},
    "selection": {"seeds": [0, 1]},
}
CUT = {"models": 20, "targets": 2, "methods": ["TG:LR,N2V,all+words"]}
PAPER = NANO | {
    "zoos": ["paper-image"],
    "targets": {n: {"zoo": "paper-image", "target": n} for n in ("pets", "svhn")},
    "parts": {"seeds": [0], "folds": 2},
    "published": {"others": ["mean"]},
}


def clone_of(at):
    "A clone of this repository that uses the environment of the tests."
    environment = Path(sys.prefix)
    if not (ROOT / ".git").exists() or not (environment / ".installed").exists():
        pytest.skip("make and its environment are those of a clone; this is a copy without them")
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(at)], check=True)
    (at / ".venv").symlink_to(environment)
    for name in ("requirements.txt", "settings.ini", "setup.py"):  # not newer than what they installed
        os.utime(at / name, (0, 0))
    return at


def settings(path, **changes):
    "Change a file of settings."
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return content


def smaller(clone):
    "Four models, two targets, an epoch each."
    content = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
    zoo = content["build"]["nano-image"]
    zoo |= {"metrics": ["LogME", "H-score"], "models": {}, "probe_items": 40}
    zoo["sources"] = {name: zoo["sources"][name] for name in ("letters", "mnist")}
    zoo["targets"] = {name: zoo["targets"][name] for name in NANO["targets"]}
    zoo["finetune"] |= {"epochs": 1}
    families = {name: zoo["training"]["families"][name] for name in ("resnet", "efficientnet")}
    zoo["training"]["families"] = {n: family | {"settings": {"epochs": 1}} for n, family in families.items()}
    settings(clone / "params.yaml", **NANO, build={"nano-image": zoo})


def make(clone, *words, wait=True):
    "Run make as a user does; what it printed, or the process."
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "OMP_", "PYTEST_"))}
    env |= {"XDG_CACHE_HOME": str(clone.parent / "cache"), "PYTHONHASHSEED": str(len(clone.name))}
    env |= {"OMP_NUM_THREADS": "1"}  # two clones at a time: threads that wait for each other take longer
    running = subprocess.Popen(
        ["make", *words], cwd=clone, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return ended(running, words) if wait else running


def ended(running, words):
    printed = running.communicate()[0]
    assert running.returncode == 0, f"make {' '.join(words)}:\n{printed[-4000:]}"
    return printed


@pytest.fixture(scope="module")
def repro(tmp_path_factory):
    "Two clones in which `make repro` was run."
    at = tmp_path_factory.mktemp("make")
    clones = [clone_of(at / name) for name in ("one", "other")]
    for clone in clones:
        smaller(clone)
    running = [make(clone, "repro", wait=False) for clone in clones]
    for process in running:
        ended(process, ["repro"])
    return clones


def outputs(clone):
    "Every output of the pipeline, by path."
    folders = [clone / name / "nano-image" for name in ("zoos", "reports", "results", "models")]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(clone).as_posix(): path for path in found}


def test_make_repro_builds_a_zoo_and_its_reports(repro):
    clone, _ = repro
    assert {p.stem for p in (clone / "reports" / "nano-image").glob("*.ipynb")} >= {
        "digits",
        "summary",
        "sweep",
    }
    methods = pd.read_csv(clone / "results" / "nano-image" / "summary" / "methods.csv")
    assert {"history-mean", "LogME", "TG:LR,N2V,all", "TG:factors"} <= set(methods["method"])
    assert len(pd.read_parquet(clone / "zoos" / "nano-image" / "records.parquet")) == 4 * 2


def test_two_runs_from_nothing_give_the_same_bytes(repro):
    "Models, records, reports, figures: dvc.lock holds their hashes, and the runs had other hash seeds."
    locks = [(clone / "dvc.lock").read_bytes() for clone in repro]
    assert locks[0] == locks[1]
    one, other = (outputs(clone) for clone in repro)
    assert one.keys() == other.keys() and len(one) > 40
    assert not [name for name in one if one[name].read_bytes() != other[name].read_bytes()]


def test_a_second_make_repro_has_nothing_to_do(repro):
    clone, _ = repro
    before = (clone / "dvc.lock").read_bytes(), {n: p.stat().st_mtime_ns for n, p in outputs(clone).items()}
    make(clone, "repro")
    after = (clone / "dvc.lock").read_bytes(), {n: p.stat().st_mtime_ns for n, p in outputs(clone).items()}
    assert before == after


def last_line(clone):
    "What `make site` says at the end, once it has made the pages."
    return f"{len(list((clone / 'site').rglob('*.html')))} pages, site/index.html is the first"


def test_make_study_and_make_site_show_what_there_is(repro):
    clone, _ = repro
    make(clone, "study")
    assert (clone / "reports" / "nano-image" / "selection.ipynb").is_file()
    printed = make(clone, "site").splitlines()
    assert printed[-1] == last_line(clone) and "Warning" not in "".join(printed)


def test_make_published_runs_the_pipeline_of_the_published_records(paper, repro):
    clone, _ = repro
    settings(clone / "paper" / "params.yaml", **PAPER)
    make(clone, "published", f"SOURCE={paper}")
    summary = pd.read_csv(clone / "results" / "paper-image" / "summary" / "methods.csv").set_index("method")
    assert summary.loc["history-mean", "pearson"] == pytest.approx(0.8, abs=0.2)
    names = {p.stem for p in (clone / "reports" / "paper-image").glob("*.ipynb")}
    assert names == {"pets", "svhn", "summary", "sweep", "ensemble", "published"}
    changed = {"params.yaml", "dvc.lock", "study/dvc.lock", "paper/params.yaml", "paper/dvc.lock"}
    changed |= {"real/params.yaml", "real/dvc.lock"}
    assert set(status(clone)) <= changed


def test_make_real_evaluates_the_zoos_that_are_here_and_fetches_none(repro):
    clone, other = repro
    zoo = make_zoo(24, 8, 6, n_targets=1).zoo
    replace(zoo, datasets=zoo.datasets.assign(role="target")).save(clone / "zoos" / "clip")
    settings(clone / "real" / "params.yaml", zoos=["text-mteb", "clip"], resamples=200, cut=CUT)
    with pytest.raises(AssertionError, match="holds none of the zoos"):
        make(other, "real")
    make(clone, "real")
    table = pd.read_csv(clone / "results" / "real-summary" / "spearman.csv").set_index("method")
    assert "clip" in table and "text-mteb" not in table
    assert {p.stem for p in (clone / "reports" / "real").glob("*.ipynb")} == {"clip", "summary"}


def status(clone):
    "Files that git would commit."
    call = ["git", "status", "--porcelain", "--untracked-files=all"]
    run = subprocess.run(call, cwd=clone, capture_output=True, text=True, check=True)
    return [line[3:] for line in run.stdout.splitlines()]


def test_make_site_alone_fetches_the_reports_of_the_repository(tmp_path):
    clone = clone_of(tmp_path / "clone")
    printed = make(clone, "site").splitlines()
    assert printed[-1] == last_line(clone) and len(list((clone / "site").rglob("summary.html"))) > 1
    assert status(clone) == []
