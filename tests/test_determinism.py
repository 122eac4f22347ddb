"""The same input gives the same bytes: whatever the hash seed, the number of threads and of processes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from transfergraph.zoo.tables import Zoo

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow  # whole runs, in processes of their own
METHODS = (
    "random mean mean:z LogME LR{metadata} LR{all,LogME} XGB{metadata+distance} TG:LR,N2V,all TG:XGB,N2V+,all"
)
METHODS = f"{METHODS} TG:RF,SAGE,all TG:LR,GAT,all TG:ensemble TG:factors".split()
SCRIPT = """
import hashlib, json, sys
import numpy as np
from pathlib import Path
from transfergraph.evaluate.leave_one_out import evaluate
from transfergraph.scores.registry import TRANSFERABILITY_SCORES, inputs_of, score
from transfergraph.zoo.tables import Zoo

zoo, out, n_jobs = Zoo.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
methods = json.loads(sys.argv[4])
evaluate(zoo, methods, targets=zoo.targets[:1], seeds=[0], n_jobs=n_jobs, progress=False, out=out)
found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("*.csv"))}
rng = np.random.default_rng(0)
x, y = rng.normal(size=(300, 40)).astype(np.float32), rng.integers(0, 5, 300)
x += rng.normal(size=(5, 40))[y]
inputs = {"features": x, "labels": y, "reference": x @ rng.normal(size=(40, 40)) + rng.normal(size=(300, 40))}
inputs["probabilities"] = rng.dirichlet(np.ones(7), 300)
scores = {m: repr(score(m, *(inputs[i] for i in inputs_of(m)))) for m in TRANSFERABILITY_SCORES}
print(json.dumps({"tables": found, "scores": scores}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A zoo of twenty models and seven datasets, with everything that methods look at."
    at, rng = tmp_path_factory.mktemp("determinism") / "zoo", np.random.default_rng(0)
    m, d = [f"m{i:02d}" for i in range(20)], [f"d{i}" for i in range(7)]
    pairs = [(a, b) for a in m for b in d]
    quality, ease = rng.normal(size=20), rng.normal(size=7)
    accuracy = 1 / (1 + np.exp(-(quality[:, None] + ease + rng.normal(size=(20, 7))).ravel()))
    Zoo(
        pd.DataFrame(
            {
                "model": m,
                "modality": "image",
                "family": [f"f{i % 4}" for i in range(20)],
                "n_params": rng.integers(1e6, 1e8, 20).astype(float),
                "pretrained_on": [f"d{i % 3}" for i in range(20)],
            }
        ),
        pd.DataFrame({"dataset": d, "modality": "image", "role": "target", "n_samples": 100, "n_classes": 5}),
        pd.DataFrame([(*p, a) for p, a in zip(pairs, accuracy)], columns=["model", "dataset", "accuracy"]),
        pd.DataFrame(
            [
                (*p, s, v)
                for s in ("LogME", "H-score")
                for p, v in zip(pairs, accuracy + rng.normal(size=140))
            ],
            columns=["model", "dataset", "metric", "score"],
        ),
        embeddings=pd.DataFrame({"dataset": d, "vector": list(rng.normal(size=(7, 16)))}),
    ).save(at)
    return at


def run(folder, out, n_jobs=1, methods=METHODS, **environment):
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)} | environment
    call = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        SCRIPT,
        str(folder),
        str(out),
        str(n_jobs),
        json.dumps(methods),
    ]
    done = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def first(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("first")
    return run(folder, out), out


def test_neither_the_run_nor_the_hash_seed_matters(folder, first, tmp_path):
    again = run(folder, tmp_path / "out", PYTHONHASHSEED="12345")
    assert again == first[0] and len(again["tables"]) == 3


def test_neither_threads_nor_processes_matter_to_tables(folder, first, tmp_path):
    again = run(folder, tmp_path / "out", n_jobs=2, OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2")
    assert again["tables"] == first[0]["tables"]


def test_scores_agree_to_ten_digits_with_other_threads(folder, first, tmp_path):
    "BLAS adds in another order: docs/determinism.md."
    again = run(folder, tmp_path / "out", methods=["mean"], OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2")
    for metric, value in first[0]["scores"].items():
        loose = 1e-4 if metric in ("N-LEEP", "logistic", "PACTran-Gaussian") else 1e-9  # these iterate
        assert float(again["scores"][metric]) == pytest.approx(float(value), rel=loose, abs=loose), metric


def test_the_order_of_rows_does_not_matter_to_what_is_learnt_in_closed_form(folder, tmp_path):
    zoo = Zoo.load(folder)
    shuffled = Zoo(
        **{t: getattr(zoo, t) for t in ("models", "datasets", "distances", "embeddings")},
        records=zoo.records.sample(frac=1, random_state=1).reset_index(drop=True),
        scores=zoo.scores.sample(frac=1, random_state=2).reset_index(drop=True),
    )
    shuffled.save(tmp_path / "zoo")
    methods = ["mean", "mean:z", "LogME", "LR{metadata}"]
    tables = [
        run(at, tmp_path / f"out-{i}", methods=methods)["tables"]
        for i, at in enumerate((folder, tmp_path / "zoo"))
    ]
    assert tables[0] == tables[1]


def test_what_the_committed_lock_names_can_be_pulled(pulled):
    "Every output of the last commit's `dvc.lock` is in the remote of the repository, with that hash."
    import yaml

    lock = yaml.safe_load((pulled / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    outs = [out for stage in lock.values() for out in stage.get("outs", [])]
    outs = [out for out in outs if not out["path"].startswith("models/")]  # large, and not kept
    store, missing = pulled / ".dvc-store" / "files" / "md5", []
    for out in outs:
        path = store / out["md5"][:2] / out["md5"][2:]
        held = path.is_file() and hashlib.md5(path.read_bytes()).hexdigest()
        if held != out["md5"].removesuffix(".dir") or not (pulled / out["path"]).exists():
            missing.append(out["path"])
    assert not missing and len(outs) > len(lock) > 30
