"""Tasks in processes of this machine, some of which die, and on a real Ray cluster that loses a node."""

import json
import multiprocessing
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
from waiting import PATIENCE

from transfergraph.models.loading import load_backbone
from transfergraph.run.tasks import Executor, TaskError, map_unordered, read_executor, run_tasks

ROOT = Path(__file__).resolve().parents[2]
MODELS = [f"net-{i}" for i in range(6)]


def dies(n):
    if n == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if n == 3:
        os._exit(3)
    if n == 4:
        raise KeyError("no such thing")
    return n**2


def slowly(n):
    time.sleep(1)
    return n


def with_processes():
    assert sorted(map_unordered(slowly, range(4), n_jobs=2)) == [(n, n) for n in range(4)]


@pytest.mark.slow
def test_a_child_of_multiprocessing_does_not_wait_for_idle_processes():
    child = multiprocessing.get_context("fork").Process(target=with_processes)
    child.start()
    child.join(200)  # it was five minutes
    alive = child.is_alive()
    child.kill()
    assert not alive and child.exitcode == 0


@pytest.mark.slow
def test_who_dies_is_known_and_the_others_go_on():
    found = dict(map_unordered(dies, range(8), n_jobs=2))
    assert {n: result for n, result in found.items() if n not in (1, 3, 4)} == {
        n: n**2 for n in (0, 2, 5, 6, 7)
    }
    assert all(isinstance(found[n], TaskError) for n in (1, 3, 4))
    assert str(found[1]) == "process ended by SIGKILL, as for want of memory"
    assert str(found[3]) == "process ended by itself, with code 3"
    assert str(found[4]) == "KeyError: 'no such thing'"


@pytest.mark.slow
def test_a_task_that_dies_beside_others_has_another_go_alone(tmp_path):
    def greedy(n):
        if n == 2 and not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return n**2

    assert dict(map_unordered(greedy, range(4), n_jobs=2)) == {0: 0, 1: 1, 2: 4, 3: 9}


def test_no_process_goes_on_where_nobody_asks_for_the_rest(tmp_path):
    def slow(n):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(0 if n == 0 else 600)

    results = map_unordered(slow, range(4), n_jobs=2)
    assert next(results) == (0, None)
    results.close()
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{path.name}").exists() for path in tmp_path.iterdir()):
        assert time.monotonic() < deadline, "a process is left behind"
        time.sleep(0.1)


@pytest.mark.slow
def test_what_is_loaded_ahead_is_there_when_a_process_starts():
    code = """
import sys
from transfergraph.run.tasks import load_ahead, map_unordered
load_ahead(["colorsys", "no_such_module"])
load_ahead(["colorsys"])
print(sorted(map_unordered(lambda name: name in sys.modules, ["colorsys", "this"], n_jobs=2)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[('colorsys', True), ('this', False)]", run.stderr


@pytest.mark.slow
def test_processes_have_the_threads_that_they_are_told():
    def threads(_):
        import torch

        return torch.get_num_threads()

    assert {n for _, n in map_unordered(threads, range(4), n_jobs=2)} == {1}
    assert {n for _, n in map_unordered(threads, range(4), n_jobs=2, threads=2)} == {2}


def test_a_function_that_cannot_be_loaded_there_is_an_error_of_each_task(tmp_path, monkeypatch):
    code = "import os\nhome = os.environ['ONLY_HERE']\n\n\ndef double(n):\n    return 2 * n\n"
    (tmp_path / "only_here.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ONLY_HERE", "1")
    only_here = __import__("only_here")
    monkeypatch.delenv("ONLY_HERE")
    found = dict(map_unordered(only_here.double, [1, 2], n_jobs=2))
    assert all(isinstance(result, TaskError) for result in found.values()), found


@pytest.mark.parametrize(
    "value, said",
    [
        ("slurm", "executor is 'slurm'; expected local, local:4"),
        ({"name": "slurm"}, "executor: name is 'slurm'; expected local or ray"),
        ({"n_jobs": 0}, "executor: n_jobs is 0; expected a number, 1 or more"),
        ({"num_cpus": "two"}, "executor: num_cpus is 'two'; expected a number, 0 or more"),
        ({"retries": True}, "executor: retries is True; expected a whole number, 0 or more"),
    ],
)
def test_a_wrong_executor_is_one_line(value, said):
    with pytest.raises(ValueError) as error:
        read_executor(value)
    assert said in str(error.value) and "\n" not in str(error.value)


def needs_ray():
    "Ray is an extra: a user may have none, the project's own environment has."
    try:
        return __import__("ray")
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("Ray is not installed: pip install 'transfergraph[ray]'")


def persistently(make, error=Exception):
    "What is made, sooner or later: a node of Ray gives up after 15 seconds where the machine is busy."
    for _ in range(9):
        try:
            return make()
        except error:
            time.sleep(5)
    return make()


@pytest.fixture
def start_nodes(monkeypatch):
    "A function that starts a head and more nodes of one CPU each, all on this machine."
    ray = needs_ray()
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "300000")
    monkeypatch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "300")
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")  # with it, a client's server may die
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    nodes, size = Cluster(), {"num_cpus": 1, "object_store_memory": 80_000_000}

    def start(more, **head):
        persistently(lambda: nodes.add_node(include_dashboard=False, **size, **head))
        nodes.others = [persistently(lambda: nodes.add_node(**size)) for _ in range(more)]
        nodes.wait_for_nodes(timeout=300)
        return nodes

    yield start
    if ray.is_initialized():
        ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def cluster(start_nodes):
    "A head and two more nodes."
    return start_nodes(2)


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
    content = {"n_jobs": 2, "build": {"tiny": build}}
    (home / "params.yaml").write_text(yaml.safe_dump(content))
    return home


def stage(home, out, executor, **options):
    "Start the features stage as the pipeline does."
    settings = yaml.safe_load((home / "params.yaml").read_text()) | {"executor": executor}
    out.mkdir()
    (out / "params.yaml").write_text(yaml.safe_dump(settings))
    parameters = {
        "zoo": "tiny",
        "dataset": "digits",
        "settings": out / "params.yaml",
        "models": home / "models",
    }
    parameters |= {"out": out / "scores.parquet", "figures": out / "figures", "cache": out / "cache"}
    call = [sys.executable, "-c", "import sys; from transfergraph.cli.program import main; sys.exit(main())"]
    call += ["run-notebook", str(ROOT / "nbs" / "stages" / "features.ipynb"), str(out / "features.ipynb")]
    call += [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    return subprocess.Popen(call, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


def finished(running, timeout=600):
    _, said = running.communicate(timeout=timeout)
    assert running.returncode == 0, said[-3000:]


def scores_of(folder):
    return pd.read_parquet(folder / "scores.parquet")


@pytest.mark.slow
def test_a_cluster_gives_the_features_stage_the_same_table_even_when_a_node_dies(tmp_path, home, cluster):
    local, remote, lame = (tmp_path / name for name in ("local", "remote", "lame"))
    finished(stage(home, local, "local"))
    assert len(scores_of(local)) > 5 * len(MODELS)
    finished(stage(home, remote, f"ray:{cluster.address}"))
    pd.testing.assert_frame_equal(scores_of(remote), scores_of(local), check_exact=True)
    running = stage(home, lame, f"ray:{cluster.address}")
    deadline = time.monotonic() + PATIENCE
    while not list((lame / "cache").rglob("*.*")) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    assert running.poll() is None  # in the middle of it
    cluster.remove_node(cluster.others[0], allow_graceful=False)
    finished(running)
    pd.testing.assert_frame_equal(scores_of(lame), scores_of(local), check_exact=True)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_no_machine_can_do_is_one_line(cluster, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=r"needs 1 CPUs and 0.5 GPUs, and the largest .* have 1 and 0;"):
        list(run_tasks(abs, [1], Executor("ray", cluster.address, num_gpus=0.5)))
    (tmp_path / "only_here.py").write_text("def double(n):\n    return 2 * n\n")
    monkeypatch.syspath_prepend(tmp_path)
    only_here = __import__("only_here")
    with pytest.raises(RuntimeError, match=r"can't load what it is to run .*only_here.*; expected the same"):
        list(run_tasks(only_here.double, [1], f"ray:{cluster.address}"))


@pytest.mark.slow
def test_a_cluster_of_ones_own_starts_beside_another(cluster):
    ray = needs_ray()
    assert persistently(lambda: dict(run_tasks(abs, [-1], "ray")), RuntimeError) == {-1: 1}
    ray.init(cluster.address, log_to_driver=False)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 3  # the other is as it was


@pytest.mark.slow
def test_rays_client_reaches_a_cluster_from_outside(start_nodes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_nodes(0, ray_client_server_port=port)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    found = dict(run_tasks(lambda n: n + 1, [1, 2, 3], f"ray://127.0.0.1:{port}"))
    assert found == {1: 2, 2: 3, 3: 4}


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
