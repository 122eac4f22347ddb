"""Tasks on processes and on a real Ray cluster of three nodes, one of which is killed; shared runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

# DROPPED import from claims
from transfergraph.cli import main
from transfergraph.models.finetune import failures, finetune_all, read_lines, written
from transfergraph.models.loading import load_backbone
from transfergraph.models.training import Settings
from transfergraph.run.tasks import EXECUTORS, HERE, Executor, TaskError, read_executor, run_tasks

ROOT = Path(__file__).resolve().parents[2]
MODELS = [f"net-{i}" for i in range(6)]


def needs_ray():
    "Ray is an extra: a user may have none, the project's own environment has."
    try:
        return __import__("ray")
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("Ray is not installed: pip install 'transfergraph[ray]'")


@pytest.fixture
def cluster(monkeypatch):
    "A head and two more nodes of one CPU each, all on this machine."
    ray = needs_ray()
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    size = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=size)
    try:
        nodes.others = [nodes.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
        nodes.wait_for_nodes()
        yield nodes
    finally:
        if ray.is_initialized():
            ray.shutdown()
        nodes.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Six networks with weights of their own, and the settings of a zoo of them."
    home = tmp_path_factory.mktemp("executors")
    listed = {}
    for i, name in enumerate(MODELS):
        architecture = ("test_resnet", "test_vit")[i % 2]
        load_backbone(architecture, input_size=32, random_state=i).save(home / "models" / name)
        listed[name] = {"spec": str(home / "models" / name), "input_size": 32}
    (home / "models" / "models.json").write_text(json.dumps(listed))
    build = {
        "modality": "image",
        "probe": {"spec": str(home / "models" / MODELS[0]), "input_size": 32},
        "metrics": ["LogME", "H-score", "k-NN", "PARC", "RSA", "DDS-cosine"],
        "targets": {"digits": {"spec": "digits", "per_class": 6}},
        "finetune": {"epochs": 1, "batch_size": 16},
    }
    content = {"n_jobs": 2, "executor": "local", "build": {"tiny": build}}
    (home / "params.yaml").write_text(yaml.safe_dump(content))
    return home


def stage(home, out, executor, **options):
    "Start the features stage as the pipeline does."
    parameters = {
        "zoo": "tiny",
        "dataset": "digits",
        "settings": home / "params.yaml",
        "models": home / "models",
    }
    parameters |= {"out": out / "scores.parquet", "figures": out / "figures", "cache": out / "cache"}
    call = [sys.executable, "-c", "import sys; from transfergraph.cli import main; sys.exit(main())"]
    call += ["run-notebook", str(ROOT / "nbs" / "stages" / "features.ipynb"), str(out / "features.ipynb")]
    call += [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    environment = {**os.environ, HERE: executor}
    return subprocess.Popen(call, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


def finished(running, timeout=240):
    _, said = running.communicate(timeout=timeout)
    assert running.returncode == 0, said[-3000:]


def scores_of(folder):
    return pd.read_parquet(folder / "scores.parquet")


def test_a_cluster_gives_the_features_stage_the_same_table_even_when_a_node_dies(tmp_path, home, cluster):
    local, remote, lame = (tmp_path / name for name in ("local", "remote", "lame"))
    finished(stage(home, local, "local"))
    assert len(scores_of(local)) > 5 * len(MODELS)
    finished(stage(home, remote, f"ray:{cluster.address}"))
    pd.testing.assert_frame_equal(scores_of(remote), scores_of(local), check_exact=True)
    running = stage(home, lame, f"ray:{cluster.address}")
    deadline = time.monotonic() + 120
    while not list((lame / "cache").rglob("*.*")) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    assert running.poll() is None  # in the middle of it
    cluster.remove_node(cluster.others[0], allow_graceful=False)
    finished(running)
    pd.testing.assert_frame_equal(scores_of(lame), scores_of(local), check_exact=True)


def test_a_killed_node_takes_no_finished_task_with_it(tmp_path, cluster):
    log = tmp_path / "log"

    def slow(task):
        with open(log, "a") as file:
            file.write(f"{task}\n")
        time.sleep(0.4)
        return task**2

    found, done_before = {}, None
    for task, result in run_tasks(slow, range(24), f"ray:{cluster.address}"):
        found[task] = result
        if len(found) == 6:
            done_before = set(found)
            cluster.remove_node(cluster.others[1], allow_graceful=False)
    assert found == {task: task**2 for task in range(24)}
    made = [int(line) for line in log.read_text().split()]
    assert all(made.count(task) == 1 for task in done_before)  # what was finished is not run again
    assert 24 <= len(made) <= 26  # only what the node was at is


def test_errors_deaths_and_other_versions_are_told_apart(cluster, monkeypatch):
    import transfergraph

    def moody(task):
        if task == "raise":
            raise KeyError("no such thing")
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    executor = Executor("ray", cluster.address, retries=0)
    found = dict(run_tasks(moody, ["raise", "die", "work"], executor))
    assert str(found["raise"]) == "KeyError: 'no such thing'" and found["work"] == "work"
    assert isinstance(found["die"], TaskError) and "lost by the cluster" in str(found["die"])
    monkeypatch.setattr(transfergraph, "__version__", "99.0")
    with pytest.raises(RuntimeError, match=r"a machine of the cluster has .*; expected 99.0 as here"):
        list(run_tasks(abs, [1], f"ray:{cluster.address}"))


def test_what_no_machine_can_do_is_one_line(cluster, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=r"needs 1 CPUs and 0.5 GPUs, and the largest .* have 1 and 0;"):
        list(run_tasks(abs, [1], Executor("ray", cluster.address, num_gpus=0.5)))
    (tmp_path / "only_here.py").write_text("def double(n):\n    return 2 * n\n")
    monkeypatch.syspath_prepend(tmp_path)
    only_here = __import__("only_here")
    with pytest.raises(RuntimeError, match=r"can't load what it is to run .*only_here.*; expected the same"):
        list(run_tasks(only_here.double, [1], f"ray:{cluster.address}"))


def test_a_cluster_of_ones_own_starts_beside_another(cluster):
    ray = needs_ray()
    assert dict(run_tasks(abs, [-1], "ray")) == {-1: 1}
    ray.init(cluster.address, log_to_driver=False)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 3  # the other is as it was


def test_a_task_said_to_be_done_without_a_result_is_made_again(tmp_path, home):
    records = tmp_path / "records.jsonl"

    def tune():
        return finetune_all(
            nets(home)[:1], ["digits"], Settings(epochs=1), (0,), records, n_jobs=1, progress=False, lease=0.5
        )

    first = tune()
    for path in written(records)[0]:
        path.unlink(missing_ok=True)
    again = tune()
    assert again["accuracy"].tolist() == first["accuracy"].tolist()


@pytest.mark.slow
def test_rays_client_reaches_a_cluster_from_outside(monkeypatch):
    ray = needs_ray()
    monkeypatch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "300")  # 30 are few on a busy machine
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")  # with it, the server may die as it starts another
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=size | {"ray_client_server_port": port})
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        found = dict(run_tasks(lambda n: n + 1, [1, 2, 3], f"ray://127.0.0.1:{port}"))
        assert found == {1: 2, 2: 3, 3: 4}
    finally:
        if ray.is_initialized():
            ray.shutdown()
        nodes.shutdown()


@pytest.mark.slow
def test_no_cluster_is_one_line():
    needs_ray()
    for address in ("ray:127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(RuntimeError, match=r"no Ray cluster at (ray://)?127.0.0.1:1 \(.*refused\)"):
            list(run_tasks(abs, [1], address))


def test_a_server_that_fails_is_quoted_by_the_end_of_its_traceback(monkeypatch):
    ray = needs_ray()
    said = "Initialization failure:\nTraceback (most recent call last):\n  File ...\nRuntimeError: no room\n"

    def init(*args, **kwargs):
        raise ConnectionAbortedError(said)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RuntimeError, match=r"no Ray cluster at this machine \(RuntimeError: no room\)"):
        list(run_tasks(abs, [1], "ray"))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r"pip install 'transfergraph\[ray\]'"):
        list(run_tasks(abs, [1], "ray"))


def test_the_environment_goes_before_the_setting(monkeypatch):
    monkeypatch.setenv(HERE, "local:3")
    assert read_executor("ray") == Executor(n_jobs=3) and set(EXECUTORS) == {"local", "ray"}


def test_repro_hands_the_executor_to_its_stages(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(HERE, "local")
    assert main(["repro", "--executor", "slurm", str(tmp_path / "dvc.yaml")]) == 2
    assert "executor is 'slurm'; expected local" in capsys.readouterr().err
    monkeypatch.setattr("transfergraph.pipeline.run_chains", lambda pipeline: None)
    assert main(["repro", "--executor", "ray://head:10001"]) == 0
    assert os.environ[HERE] == "ray://head:10001"


JOIN = """
import os, sys, time
from transfergraph.models.finetune import finetune_all
from transfergraph.models.training import Settings
if __name__ == "__main__":
    home, records = sys.argv[1:]
    nets = [(f"net-{i}", f"{home}/models/net-{i}") for i in range(6)]
    finetune_all(nets, ["digits"], Settings(epochs=6), (0, 1), records, n_jobs=1, progress=False, lease=3)
"""


def nets(home):
    return [(name, f"{home}/models/{name}") for name in MODELS]


def test_machines_share_a_run_and_one_that_dies_is_replaced(tmp_path, home):
    "Two processes that know of each other by a folder only; one is killed while it is at a run."
    records = tmp_path / "records.jsonl"
    call = [sys.executable, "-c", JOIN, str(home), str(records)]
    running = [subprocess.Popen(call, cwd=ROOT) for _ in range(2)]
    deadline = time.monotonic() + 120

    def finished_runs():
        return [row["run"] for path in written(records)[0] for row in read_lines(path)]

    while len(finished_runs()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(running[0].pid, signal.SIGKILL)
    running[0].wait()
    before = finished_runs()
    assert running[1].wait(timeout=180) == 0
    made = finished_runs()
    assert len(made) == len(set(made)) == 12 and set(before) <= set(made)  # each run once, none lost
    assert len([path for path in written(records)[0] if path.exists()]) == 2  # one writer a file
    table = finetune_all(
        nets(home), ["digits"], Settings(epochs=6), (0, 1), records, n_jobs=1, progress=False
    )
    alone = tmp_path / "alone" / "records.jsonl"
    again = finetune_all(nets(home), ["digits"], Settings(epochs=6), (0, 1), alone, n_jobs=2, progress=False)
    pd.testing.assert_frame_equal(table.drop(columns="runtime_s"), again.drop(columns="runtime_s"))


def test_a_failed_run_is_not_waited_for(tmp_path, home):
    records = tmp_path / "records.jsonl"
    broken = [*nets(home)[:1], ("broken", str(tmp_path / "nowhere"))]
    with pytest.warns(UserWarning, match="1 of 2 runs failed"):
        table = finetune_all(
            broken, ["digits"], Settings(epochs=1), (0,), records, n_jobs=1, progress=False, lease=2
        )
    assert table["model"].tolist() == ["net-0"] and failures(records)["model"].tolist() == ["broken"]
    with pytest.raises(ValueError, match="expected it without a lease"):
        finetune_all(broken, ["digits"], records=records, lease=2, retry=True)


def test_only_one_can_claim(tmp_path):
    code = "import sys; from transfergraph.claims import Claims; c = Claims(sys.argv[1]); "
    code += "print(*[k for k in map(str, range(200)) if c.take(k)])"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(3)
    ]
    taken = [key for process in running for key in process.communicate(timeout=60)[0].split()]
    assert sorted(taken, key=int) == [str(k) for k in range(200)]
    with pytest.raises(ValueError, match="lease is 0"):
        Claims(tmp_path, 0)
