"""Rules of the repository: the order of the chapters, typed interfaces, and what is never committed."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "transfergraph"
MODULES = sorted(path for path in LIBRARY.glob("*.py") if not path.name.startswith("_"))

# No module makes its user wait for these; `transfergraph --help` not for pandas either.
SLOW_IMPORTS = {
    "torch",
    "torch_geometric",
    "transformers",
    "timm",
    "datasets",
    "sklearn",
    "xgboost",
    "seaborn",
}


def chapters() -> dict[str, tuple[int, str]]:
    "Module -> number of the notebook that exports it; 09b comes after 09 and before 10."
    found = {}
    for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb")):
        number, letter = re.match(r"(\d+)([a-z]?)_", path.name).groups()
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            match = re.match(r"\s*#\s*\|\s*default_exp\s+(\S+)", "".join(cell["source"]))
            if cell["cell_type"] == "code" and match:
                assert match[1] not in found, f"{path.name}: {match[1]} is exported by another notebook too"
                found[match[1]] = (int(number), letter)
    return found


CHAPTERS = chapters()


def imported(tree: ast.AST, known: set[str]) -> set[tuple[str, int]]:
    "(module of the library, line) for every import in `tree`, also those inside functions."
    found = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join(filter(None, ["transfergraph" if node.level else "", node.module]))
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        parts = [name.split(".") for name in names]
        found |= {(p[1], node.lineno) for p in parts if p[0] == "transfergraph" and p[1:] and p[1] in known}
    return found


def test_imports_are_found_wherever_they_stand():
    code = """
import transfergraph.a
from .b import f
def g():
    from transfergraph import c
    from . import d
"""
    assert imported(ast.parse(code), set("abcde")) == {("a", 2), ("b", 3), ("c", 5), ("d", 6)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_from_lower_numbers(path):
    assert path.stem in CHAPTERS, f"{path.name} comes from no numbered notebook"
    for name, line in imported(ast.parse(path.read_text(encoding="utf-8")), set(CHAPTERS)):
        assert CHAPTERS[name] < CHAPTERS[path.stem], f"{path.name}:{line} imports {name}, a later chapter"


def test_no_module_is_a_drawer_for_everything():
    assert not {name for name in CHAPTERS if re.search(r"util|helper|common|misc", name)}


def untyped(tree: ast.AST) -> list[str]:
    "Public functions, and methods of public classes, in which a parameter or the return value has no type."
    found = []
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.If):  # a definition may stand under a condition, for instance a version
                visit(node.body + node.orelse, prefix)
            if not isinstance(node, (*functions, ast.ClassDef)) or node.name.startswith("_"):
                continue
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{node.name}.")
                continue
            a = node.args
            parameters = [*a.posonlyargs, *a.args]
            static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
            if prefix and not static:
                parameters = parameters[1:]
            parameters += [*a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]
            missing = [p.arg for p in parameters if p.annotation is None]
            missing += [] if node.returns else ["return"]
            found.extend(f"{prefix}{node.name}: {name}" for name in missing)

    visit(tree.body, "")
    return found


def test_untyped_parameters_are_found():
    code = """
def f(a: int, *b, c=1) -> int: ...
def _g(a): ...
class C:
    def __init__(self, a): ...
    def m(self, a: int): ...
    @staticmethod
    def s(a) -> int: ...
"""
    assert untyped(ast.parse(code)) == ["f: c", "f: b", "C.m: return", "C.s: a"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_public_functions_are_typed(path):
    assert untyped(ast.parse(path.read_text(encoding="utf-8"))) == []


def loaded_by(*names: str) -> set[str]:
    "Packages that are loaded once these modules are."
    code = f"import sys, {', '.join(names)}; print(*(name.split('.')[0] for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_slow_imports_wait_until_they_are_needed():
    assert loaded_by("transfergraph.cli") & {*SLOW_IMPORTS, "pandas"} == set()
    assert loaded_by(*(f"transfergraph.{path.stem}" for path in MODULES)) & SLOW_IMPORTS == set()


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    "Every file that is in git or would be added by `git add --all`."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout")
    return [path for name in run.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_holds_a_path_or_address_of_one_machine(committed):
    # Put together here, so that this file does not hold them itself.
    roots = ["/" + name + "/" for name in ("work", "root", "home/[a-z]+", "Users/[A-Za-z]+")]
    registries = [
        "pypi.org" + "/simple",
        "files.python" + "hosted.org",
        "download." + "pytorch.org",
        "index" + "-url",
    ]
    pattern = re.compile("|".join([rf"(?<![\w.~$}}-]){root}" for root in roots] + registries).encode())
    found = [
        f"{path.relative_to(ROOT)}: {m[0]!r}"
        for path in committed
        for m in pattern.finditer(path.read_bytes())
    ]
    assert found == []


def test_the_published_records_are_not_committed(committed):
    # They are their authors' to share: a user downloads them with `make paper`.
    names = re.compile(
        r"(^|/)(zoos|\.paper|paper-image|paper-text|rank_final|result_analysis|embedded_dataset)/"
        r"|transferability_score_records|model_config_dataset|target_dataset_features|corr_(domain|task2vec)"
        r"|eval_accuracy|_correlation\.csv$|(image|sequence)_classification/records\.csv$"
    )
    columns = b"eval_" + b"accuracy"
    found = [name for path in committed if names.search(name := path.relative_to(ROOT).as_posix())]
    for path in committed:
        if path.suffix in {".csv", ".tsv"} and columns in path.read_bytes().split(b"\n", 1)[0]:
            found.append(f"{path.relative_to(ROOT)}: a column of the published records")
    assert found == []
