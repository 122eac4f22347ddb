"""The pipeline of dvc.yaml, really run on a made-up zoo in a copy of the working tree."""

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
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())


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


def test_settings_name_what_exists():
    predictors = pytest.importorskip("transfergraph.predictors")
    combined = [
        f"TG:{p},{n},{f}"
        for p in PARAMS["predictors"]
        for n in PARAMS["learners"]
        for f in PARAMS["features"]
    ]
    studied = [method for methods in PARAMS["ablation"].values() for method in methods]
    named = [
        *PARAMS["baselines"],
        *combined,
        *studied,
        *PARAMS["published"]["others"],
        *PARAMS["sweep"]["methods"],
    ]
    for method in named:
        predictors.check_method(method)
    evaluated = {*PARAMS["baselines"], *combined, *studied}
    assert (
        PARAMS["headline"] in evaluated and set(PARAMS["panels"]) <= evaluated and len(PARAMS["panels"]) <= 6
    )
    assert "mean" in PARAMS["baselines"]  # gains are measured against it
    assert {t["zoo"] for t in PARAMS["targets"].values()} == set(PARAMS["zoos"])
    assert set(FEW) == set(PARAMS)


def test_every_setting_has_a_comment():
    for line in (ROOT / "params.yaml").read_text().splitlines():
        if line and line[0] not in "# ":
            assert " # " in line, line


def test_what_a_stage_uses_is_what_it_depends_on():
    "A setting or a chapter that a notebook uses and the stage does not name would leave a stale report."
    for name, stage in PIPELINE["stages"].items():
        text = "\n".join(
            cell.source
            for cell in nbformat.read(ROOT / f"nbs/stages/{name}.ipynb", as_version=4).cells
            if cell.cell_type == "code"
        )
        used = {key for key in PARAMS if f'settings["{key}"]' in text or f"settings['{key}']" in text}
        assert used - {"jobs"} == set(stage["do"]["params"]), name
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
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    (copy / "params.yaml").write_text(yaml.safe_dump(FEW))
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
    dvc(clone, "repro")
    reports, results = clone / "reports" / "tiny", clone / "results" / "tiny"
    found = {report.stem: pictures(report) for report in reports.glob("*.ipynb")}
    assert found == {"first": 1, "second": 1, "sweep": 2, "summary": 7}
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
    assert "Running stage" not in dvc(clone, "repro")
    assert time.perf_counter() - start < 10

    lock, before = (
        (clone / "dvc.lock").read_bytes(),
        contents(clone),
    )
    dvc(clone, "repro", "--force", "--single-item", "target@first", "summary@tiny")
    after = contents(clone)
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == set()
    assert (clone / "dvc.lock").read_bytes() == lock
