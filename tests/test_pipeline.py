"""The two pipelines: what they name exists, and the one of the published records runs on a made-up zoo."""

import base64
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml

from transfergraph.zoo import Zoo

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"nano": ROOT, "paper": ROOT / "paper"}
PARAMS = {name: yaml.safe_load((folder / "params.yaml").read_text()) for name, folder in FOLDERS.items()}
FOLDERS["study"], PARAMS["study"] = ROOT / "study", PARAMS["nano"]  # it has no settings of its own
PIPELINES = {name: yaml.safe_load((folder / "dvc.yaml").read_text()) for name, folder in FOLDERS.items()}


def tiny_zoo(n_models=20, n_datasets=6, seed=0):
    "Models of different quality on data sets of different difficulty; the first two are targets."
    rng = np.random.default_rng(seed)
    models = [f"maker/model-{i}" for i in range(n_models)]
    datasets = [f"set/{i}" for i in range(n_datasets)]
    quality, ease = rng.normal(size=(n_models, 1)), rng.normal(size=n_datasets)
    accuracy = 1 / (1 + np.exp(-(quality + ease + rng.normal(scale=0.4, size=(n_models, n_datasets)))))
    pairs = pd.MultiIndex.from_product([models, datasets], names=["model", "dataset"]).to_frame(index=False)
    records = pairs.assign(accuracy=accuracy.ravel(), runtime_s=rng.uniform(10, 100, len(pairs)))
    scores = pd.concat(
        pairs.assign(metric=m, score=accuracy.ravel() + rng.normal(size=len(pairs)))
        for m in ("LogME", "H-score")
    )
    at = rng.normal(size=(n_datasets, 3))
    return Zoo(
        models=pd.DataFrame(
            {
                "model": models,
                "modality": "image",
                "architecture": rng.choice(["ViT", "ResNet"], n_models),
                "family": rng.choice(["vit", "resnet"], n_models),
                "n_params": rng.integers(10**6, 10**8, n_models),
                "input_size": 224,
                "pretrained_on": rng.choice(datasets[2:], n_models),
                "pretrained_accuracy": rng.uniform(0.5, 0.9, n_models),
            }
        ),
        datasets=pd.DataFrame(
            {
                "dataset": datasets,
                "modality": "image",
                "n_samples": 1000,
                "n_classes": 10,
                "role": ["target"] * 2 + ["source"] * (n_datasets - 2),
            }
        ),
        records=records,
        scores=scores,
        distances=pd.DataFrame(
            [
                (datasets[i], datasets[j], np.linalg.norm(at[i] - at[j]))
                for i in range(n_datasets)
                for j in range(i)
            ],
            columns=["dataset", "other", "distance"],
        ),
    )


FEW = {
    "zoos": ["tiny"],
    "targets": {"first": {"zoo": "tiny", "target": "set/0"}, "second": {"zoo": "tiny", "target": "set/1"}},
    "seeds": [0],
    "jobs": 1,
    "resamples": 200,
    "predictors": ["LR"],
    "learners": ["N2V"],
    "features": ["all"],
    "baselines": ["mean", "LogME"],
    "headline": "TG:LR,N2V,all",
    "panels": ["mean", "TG:LR,N2V,all"],
    "ablation": {"features": ["LR{metadata}", "TG:LR,N2V,all"]},
    "published": {"others": ["mean"]},
    "sweep": {"ratios": [0.5], "methods": ["mean"], "seeds": [0]},
}


@pytest.mark.parametrize("pipeline", ["nano", "paper"])
def test_settings_name_what_exists(pipeline):
    predictors = pytest.importorskip("transfergraph.predictors")
    params = PARAMS[pipeline]
    combined = [
        f"TG:{p},{n},{f}"
        for p in params["predictors"]
        for n in params["learners"]
        for f in params["features"]
    ]
    studied = [method for methods in params["ablation"].values() for method in methods]
    named = [*params["baselines"], *combined, *studied, *params["sweep"]["methods"]]
    named += params.get("published", {}).get("others", [])
    for method in named:
        predictors.check_method(method)
    evaluated = {*params["baselines"], *combined, *studied}
    assert params["headline"] in evaluated and set(params["panels"]) <= evaluated
    assert len(params["panels"]) <= 6
    assert "mean" in params["baselines"]  # gains are measured against it
    assert {t["zoo"] for t in params["targets"].values()} == set(params["zoos"])


def test_the_small_settings_are_those_of_the_published_records():
    assert set(FEW) == set(PARAMS["paper"])


def test_the_specs_of_the_nano_zoos_are_right():
    building = pytest.importorskip("transfergraph.building")
    params = PARAMS["nano"]
    assert set(params["build"]) == set(params["zoos"])
    for name, content in params["build"].items():
        training = content["training"]
        spec = building.read_spec(
            name, content, {family: {"spec": family} for family in training["families"]}
        )
        pages = {t["target"] for t in params["targets"].values() if t["zoo"] == name}
        assert pages == set(spec.targets), name


@pytest.mark.parametrize("pipeline", ["nano", "paper"])
def test_every_setting_has_a_comment(pipeline):
    for line in (FOLDERS[pipeline] / "params.yaml").read_text().splitlines():
        if line and line[0] not in "# ":
            assert " # " in line, line


@pytest.mark.parametrize("pipeline", FOLDERS)
def test_what_a_stage_uses_is_what_it_depends_on(pipeline):
    "A setting or a chapter that a notebook uses and the stage does not name would leave a stale report."
    for name, stage in PIPELINES[pipeline]["stages"].items():
        text = "\n".join(
            cell.source
            for cell in nbformat.read(ROOT / f"nbs/stages/{name}.ipynb", as_version=4).cells
            if cell.cell_type == "code"
        )
        known = set(PARAMS[pipeline])
        used = {key for key in known if f'settings["{key}"]' in text or f"settings['{key}']" in text}
        named = stage["do"]["params"]
        if pipeline == "paper":
            (named,) = [part["paper/params.yaml"] for part in named]
            assert "-p settings paper/params.yaml" in stage["do"]["cmd"], name
        assert used - {"jobs"} == {key.split(".")[0] for key in named}, name
        modules = {
            line.split()[1].split(".")[1]
            for line in text.splitlines()
            if line.startswith("from transfergraph.")
        }
        assert {f"transfergraph/{module}.py" for module in modules} <= set(stage["do"]["deps"]), name
        assert f"nbs/stages/{name}.ipynb" in stage["do"]["deps"]


@pytest.fixture
def clone(tmp_path):
    "A copy of what git would have, with a small zoo and few settings, as a repository of its own."
    copy = tmp_path / "clone"
    for name in ("nbs/stages", "transfergraph"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        )
    for name in ("paper/dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    (copy / "paper" / "params.yaml").write_text(yaml.safe_dump(FEW))
    tiny_zoo().save(copy / "zoos" / "tiny")
    subprocess.run(["git", "init", "--quiet", str(copy)], check=True)
    return copy


def dvc(folder, *arguments):
    "Run dvc as a user would who has not activated the environment, only put its programs first."
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    env = os.environ | {"PATH": path, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    env = {k: v for k, v in env.items() if not k.startswith("GIT_")}
    command = [sys.executable, "-m", "dvc", *arguments]
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return run.stdout + run.stderr


def pictures(report):
    cells = nbformat.read(report, as_version=4).cells
    found = [
        o.data["image/png"] for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in found)
    return len(found)


def contents(folder):
    paths = [path for top in ("reports", "results") for path in (folder / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_pipeline_from_end_to_end(clone):
    pytest.importorskip("transfergraph.predictors")
    dvc(clone, "repro", "paper/dvc.yaml")
    reports, results = clone / "reports" / "tiny", clone / "results" / "tiny"
    found = {report.stem: pictures(report) for report in reports.glob("*.ipynb")}
    assert found == {"first": 3, "second": 3, "sweep": 2, "summary": 7, "published": 0}
    assert all(path.stat().st_size < 60_000 for path in reports.rglob("*.png"))
    summary = pd.read_csv(results / "summary" / "clean" / "summary.csv")
    assert set(summary["method"]) == {"mean", "LogME", "LR{metadata}", "TG:LR,N2V,all"}
    assert not list(clone.rglob(".parts")) and not list(clone.rglob("*.failed.ipynb"))
    shown = dvc(clone, "metrics", "show")
    assert "pearson.mean" in shown and "summary.json" in shown
    tracked = subprocess.run(
        ["git", "status", "--short", "--untracked-files=all"], cwd=clone, capture_output=True, text=True
    )
    assert "dvc.lock" in tracked.stdout
    assert not {"zoos/", "reports/", "results/"} & {w.split("/")[0] + "/" for w in tracked.stdout.split()}

    start = time.perf_counter()
    assert "Running stage" not in dvc(clone, "repro", "paper/dvc.yaml")
    assert time.perf_counter() - start < 10

    lock, before = (
        (clone / "paper" / "dvc.lock").read_bytes(),
        contents(clone),
    )
    dvc(
        clone,
        "repro",
        "--force",
        "--single-item",
        "paper/dvc.yaml:target@first",
        "paper/dvc.yaml:summary@tiny",
    )
    after = contents(clone)
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == set()
    assert (clone / "paper" / "dvc.lock").read_bytes() == lock
