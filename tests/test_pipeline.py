import subprocess
import sys
from pathlib import Path

import pytest

from transfergraph.cli import main
from transfergraph.pipeline import find_chains, run_chains
from transfergraph.workers import SHARE, share_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path):
    "A DVC project; give it the content of its dvc.yaml."
    for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)

    def made(stages):
        (tmp_path / "dvc.yaml").write_text("stages:\n" + stages)
        return tmp_path / "dvc.yaml"

    return made


def stage(name, deps, out, before=""):
    command = f"{before}cat {' '.join(deps)} > {out}"
    return f"  {name}: {{cmd: '{command}', deps: [{', '.join(deps)}], outs: [{out}]}}\n"


def test_the_nano_zoos_are_two_chains_and_a_stage_comes_after_what_it_needs():
    chains = find_chains(ROOT / "dvc.yaml")
    assert list(chains) == ["nano-image", "nano-text"]
    for name, stages in chains.items():
        assert stages[0] == f"pretrain@{name}" and stages[-1] == f"summary@{name}"
        kinds = [s.partition("@")[0] for s in stages]
        assert kinds.index("zoo") > max(i for i, kind in enumerate(kinds) if kind in ("features", "finetune"))
    assert not set(chains["nano-image"]) & set(chains["nano-text"])


def test_stages_that_share_one_are_one_chain(project):
    file = project(stage("a", ["in"], "x") + stage("b", ["x"], "y") + stage("c", ["x"], "z"))
    assert find_chains(file) == {"b+c": ["a", "b", "c"]}


def test_chains_run_side_by_side_and_change_nothing_the_second_time(project):
    meet = "touch {0}; for i in $(seq 300); do test -f {1} && break; sleep 0.1; done; test -f {1}; "
    file = project(
        stage("a", ["in"], "x", meet.format("here", "there"))
        + stage("b", ["in"], "y", meet.format("there", "here"))
    )
    (file.parent / "in").write_text("1\n")
    run_chains(file, say=[].append)  # each waits for the other
    lock = (file.parent / "dvc.lock").read_bytes()
    again = []
    run_chains(file, say=again.append)
    assert (file.parent / "dvc.lock").read_bytes() == lock and (file.parent / "y").read_text() == "1\n"
    assert sorted(line.split()[-2:] for line in again) == [["a", "done"], ["b", "done"]]


def test_a_chain_that_fails_does_not_stop_the_others(project, capsys, monkeypatch):
    file = project(stage("a", ["in"], "x", "echo out of luck; false && ") + stage("b", ["in"], "y"))
    (file.parent / "in").write_text("1\n")
    monkeypatch.chdir(file.parent)
    assert main(["repro"]) == 1
    said = capsys.readouterr()
    assert "b  done" in said.out and "a  failed" in said.out and (file.parent / "y").exists()
    assert "1 of 2 chains failed: a: " in said.err and "'a'" in said.err and said.err.count("\n") == 1


def test_a_stage_that_takes_long_says_how_far_it_is(project):
    bar = 'printf "tuning:  40%%|##  | 4/10 [00:01<00:02, 3.1s/it]\\r" >&2; sleep 3; '
    file = project(stage("slow", ["in"], "x", bar.replace("'", "''")))
    (file.parent / "in").write_text("1\n")
    lines = []
    run_chains(file, every=0.5, say=lines.append)
    assert any(line.endswith("slow  1/1  slow: tuning 40% (4/10)") for line in lines), lines


def test_without_a_pipeline_it_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dvc.yaml: no such pipeline"):
        find_chains(tmp_path / "dvc.yaml")


def test_chains_share_the_processors(project, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    file = project("".join(stage(n, ["in"], f"{n}-out", f"printenv {SHARE} > {n}-jobs; ") for n in "ab"))
    (file.parent / "in").write_text("1\n")
    run_chains(file, say=[].append)
    assert {(file.parent / f"{n}-jobs").read_text() for n in "ab"} == {"3\n"}


@pytest.mark.parametrize(("given", "jobs", "found"), [("", 4, 4), ("1", 4, 1), ("8", 4, 4)])
def test_a_share_is_at_most_what_the_settings_allow(monkeypatch, given, jobs, found):
    monkeypatch.setenv(SHARE, given)
    assert share_of(jobs) == found


@pytest.mark.parametrize("given", ["0", "-1", "two"])
def test_a_share_is_a_number(monkeypatch, given):
    monkeypatch.setenv(SHARE, given)
    with pytest.raises(ValueError, match=f"{SHARE} is '{given}'; expected a whole number"):
        share_of(2)
