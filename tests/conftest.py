"""What files of tests share: the published records, a clone with its outputs, and which tests are slow."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
LONG = [  # files that take a minute or more: they come first, so that no process waits for another at the end
    "test_make",
    "test_tasks",
    "test_zoo_spec",
    "test_methods",
    "test_robustness",
    "test_hub",
    "test_finetune",
    "test_evaluate",
    "test_recommend",
]
SLOW_FIXTURES = {
    "browser",
    "bucket",
    "cluster",
    "toy_images",
    "toy_texts",
}  # a test with one is slow


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "slow: takes long (clusters, kills, fresh clones, browsers, whole pipelines): make test-slow",
    )


def pytest_collection_modifyitems(items):
    "Long files first; tests that start a cluster, a browser or a server of their own are slow."
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))
    for item in items:
        if SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def paper():
    "The authors' folder resources/experiments; skipped on a machine without it, an error in CI."
    folder = Path(os.environ.get("TRANSFERGRAPH_PAPER") or ROOT.parent / "shared/paper/resources/experiments")
    if not folder.is_dir():
        _without(f"the published records are not at {folder}; set TRANSFERGRAPH_PAPER to their folder")
    return folder


@pytest.fixture(scope="session")
def records():
    "Tables that others published, as such and converted; skipped on a machine without them, an error in CI."
    folder = Path(os.environ.get("TRANSFERGRAPH_RECORDS") or ROOT.parent / "shared/records")
    if not folder.is_dir():
        _without(f"the published tables are not at {folder}; set TRANSFERGRAPH_RECORDS to their folder")
    return folder


@pytest.fixture(scope="session")
def text_with_lora(paper, tmp_path_factory):
    "The published text zoo with its LoRA runs; a copy whose `records.csv` lacks them has them in full/."
    from transfergraph.zoo.paper import read_paper

    text = paper / "sequence_classification"
    full = paper.parents[1] / "full" / text.name / "records.csv"
    source = tmp_path_factory.mktemp("with-lora") / text.name
    source.mkdir()
    for file in [full if full.is_file() else text / full.name, *text.glob("*.csv")]:
        if not (source / file.name).exists():
            (source / file.name).symlink_to(file)
    zoo, _ = read_paper(source.parent, "text")
    if not (zoo.records["method"] == "lora").any():
        _without(
            f"the published text records at {text} hold no LoRA runs; expected the authors' own records.csv"
        )
    return zoo


def _without(message):
    "Skip a test, or let it fail in CI, where everything that a test needs has to be there."
    pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)


@pytest.fixture(scope="session")
def pulled(tmp_path_factory, worker_id):
    "A clone of this repository with every output of its dvc.lock; made once for all workers: change a copy."
    if not (ROOT / ".git").exists():
        pytest.skip("the outputs of the pipeline are in the repository; this is a copy without it")
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    clone = shared / "pulled"
    with FileLock(f"{clone}.lock"):
        if not clone.is_dir():
            made = shared / "pulling"
            shutil.rmtree(made, ignore_errors=True)
            subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(made)], check=True)
            subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet"], cwd=made, check=True)
            made.rename(clone)
    return clone


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard():
    "A shell starts background commands deaf to SIGINT, and what they start inherits that."
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
