"""Nothing that is read can run, nothing typed reaches a shell, and the list of what is installed is whole."""

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pytest

# DROPPED import from pipeline

ROOT = Path(__file__).resolve().parent.parent
# Between processes of one run, here or on one's own Ray cluster: bytes that this program wrote a moment ago.
OWN_PROCESSES = {("executors.py", "cloudpickle.loads"), ("workers.py", "cloudpickle.loads")}
UNSAFE = {
    *(f"{m}.{f}" for m in ("pickle", "cloudpickle", "dill", "marshal", "joblib") for f in ("load", "loads")),
    *("pickle.Unpickler", "shelve.open", "pd.read_pickle", "pandas.read_pickle", "eval", "exec", "os.system"),
    *("os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "yaml.unsafe_load", "yaml.full_load"),
}


def named(node):
    "The dotted name that is called, or an empty text."
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def unsafe_calls(source):
    "Calls that could run what they read, as (line, what is wrong)."
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, given = named(node.func), {k.arg: k.value for k in node.keywords}
        is_true = {
            k for k, v in given.items() if not (isinstance(v, ast.Constant) and v.value in (False, None))
        }
        if name in UNSAFE:
            yield node.lineno, name
        if name == "torch.load" and getattr(given.get("weights_only"), "value", None) is not True:
            yield node.lineno, "torch.load without weights_only=True"
        if name == "yaml.load" and named(given.get("Loader")) not in ("yaml.SafeLoader", "yaml.CSafeLoader"):
            yield node.lineno, "yaml.load without a safe loader"
        if name in ("np.load", "numpy.load") and "allow_pickle" in is_true:
            yield node.lineno, "np.load with allow_pickle"
        for option in {"shell", "trust_remote_code"} & is_true:
            yield node.lineno, f"{name}({option}=...)"


def sources():
    for path in [*ROOT.glob("transfergraph/*.py"), *ROOT.glob("benchmarks/*.py"), ROOT / "setup.py"]:
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in ROOT.glob("nbs/**/*.ipynb"):
        for i, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "code":
                yield f"{path.relative_to(ROOT).as_posix()}, cell {i}", cell.source


def test_nothing_that_is_read_can_run():
    found, seen = [], 0
    for where, source in sources():
        if source.lstrip().startswith(("%", "!")):
            continue
        seen += 1
        for line, what in unsafe_calls(source):
            if where.endswith(".py") and (where.partition("/")[2], what) in OWN_PROCESSES:
                continue
            if where.startswith(("nbs/04b_workers", "nbs/04c_executors")) and what == "cloudpickle.loads":
                continue
            found.append(f"{where}:{line}: {what}")
    assert not found and seen > 300


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(x)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "yaml.load(f)",
        "yaml.load(f, Loader=yaml.Loader)",
        "np.load(f, allow_pickle=True)",
        "subprocess.run(c, shell=True)",
        "subprocess.run(c, shell=flag)",
        "os.system(c)",
        "load_dataset(n, trust_remote_code=True)",
        "eval(s)",
    ],
)
def test_the_search_sees_what_it_is_for(source):
    assert list(unsafe_calls(source))


def test_names_of_the_pipeline_stand_in_quotes():
    "In the commands that DVC gives to a shell, every value from params.yaml."
    import yaml

    for file in ("dvc.yaml", "paper/dvc.yaml", "study/dvc.yaml"):
        for stage in yaml.safe_load((ROOT / file).read_text())["stages"].values():
            bare = stage.get("do", stage)["cmd"].split("'")[::2]
            assert not any("${" in text for text in bare), (file, bare)


def test_a_name_that_would_end_its_quotes_runs_nothing(tmp_path):
    for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  zoo:\n    foreach: ${zoos}\n    do:\n"
        "      cmd: transfergraph run-notebook n.ipynb 'reports/${item}.ipynb'\n"
    )
    (tmp_path / "params.yaml").write_text("""zoos: ["a b", "$(touch pwned)"]\n""")
    assert find_chains(tmp_path / "dvc.yaml")  # the quotes hold
    (tmp_path / "params.yaml").write_text("""zoos: ["a'; touch pwned; '"]\n""")
    with pytest.raises(
        ValueError, match=r"stage zoo@.* is not made of plain words and quoted names: .*touch pwned"
    ):
        find_chains(tmp_path / "dvc.yaml")
    assert not (tmp_path / "pwned").exists()
    (tmp_path / "params.yaml").write_text(f"""zoos: ["{"long " * 2000}'; touch pwned; '"]\n""")
    with pytest.raises(ValueError, match="is not made of plain words"):  # at once, however long it is
        find_chains(tmp_path / "dvc.yaml")


def test_make_sbom_lists_everything_that_is_installed(tmp_path):
    made = []
    if not (ROOT / ".venv" / ".installed").exists():
        pytest.skip("make sbom lists .venv, which is not here")
    for name in ("one.json", "two.json"):
        call = ["make", "sbom", f"OUT={tmp_path / name}"]
        subprocess.run(call, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "MAKEFLAGS": ""})
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    bom = json.loads(made[0])
    assert bom["bomFormat"] == "CycloneDX" and tuple(map(int, bom["specVersion"].split("."))) >= (1, 6)

    def plain(name):
        return name.lower().replace("_", "-").replace(".", "-")

    listed = {(plain(c["name"]), c["version"]) for c in bom["components"]}
    inside = [str(p) for p in (ROOT / ".venv" / "lib").glob("python*/site-packages")]
    there = {(plain(d.metadata["Name"]), d.version) for d in distributions(path=inside)}
    assert listed >= there and len(there) > 200
    pinned = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    wanted = {plain(line.split("==")[0]) for line in pinned}
    assert {name for name, _ in listed} >= wanted
