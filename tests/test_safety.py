"""Nothing that is read can run, nothing typed reaches a shell, and the list of what is installed is whole."""

import ast
import json
import os
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
# Between processes of one run, here or on one's own Ray cluster: bytes that this program wrote a moment ago.
OWN_PROCESSES = {
    ("transfergraph/run/tasks.py", "cloudpickle.loads"),
    ("nbs/01_run/02_tasks.ipynb", "cloudpickle.loads"),
}
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
    for path in [*ROOT.glob("transfergraph/**/*.py"), *ROOT.glob("benchmarks/*.py"), ROOT / "setup.py"]:
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
            if (where.partition(",")[0], what) in OWN_PROCESSES:
                continue
            found.append(f"{where}:{line}: {what}")
    assert not found and seen > 600


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

    for file in ("dvc.yaml", "paper/dvc.yaml", "study/dvc.yaml", "real/dvc.yaml"):
        for stage in yaml.safe_load((ROOT / file).read_text())["stages"].values():
            bare = stage.get("do", stage)["cmd"].split("'")[::2]
            assert not any("${" in text for text in bare), (file, bare)


def test_no_name_of_the_pipeline_ends_its_quotes():
    "Those of zoos, datasets and targets in the settings; dvc puts them into commands as they are."
    import yaml

    found = set()
    for file in ("params.yaml", "paper/params.yaml", "real/params.yaml"):
        content = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
        targets = content.get("targets", {})
        found |= {
            *content["zoos"],
            *targets,
            *(name for target in targets.values() for name in target.values()),
        }
    assert len(found) > 20 and not [name for name in found if not re.fullmatch(r"[\w./+ -]+", str(name))]


@pytest.mark.slow
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
