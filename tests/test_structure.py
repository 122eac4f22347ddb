"""Rules of the repository: order, sizes, names, typed interfaces, and what is never committed."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "transfergraph"
MODULES = sorted(path for path in LIBRARY.rglob("*.py") if not path.name.startswith("_"))
PARTS = "run data scores zoo models graph predict build recommend evaluate report cli".split()
ALONE = {"metrics": 0}  # a single module, below all parts
TOUR = "00_tour.ipynb"  # exports nothing
MOST_MODULE_LINES, MOST_FUNCTION_LINES, MOST_MODULES, MOST_LINES = 450, 80, 80, 22_600

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


def module(path: Path) -> str:
    "Dotted name of a module inside the library, such as scores.logme."
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts)


def number(name: str) -> int:
    match = re.match(r"(\d\d)_", name)
    assert match, f"nbs/{name}: expected a number of two digits first"
    return int(match[1])


def chapters() -> dict[str, tuple[int, int]]:
    "Module -> (number of its part, number of its chapter there), from the names in nbs/."
    found = {}
    for path in sorted((ROOT / "nbs").rglob("[0-9]*.ipynb")):
        folder, cells = path.parent.name, json.loads(path.read_text(encoding="utf-8"))["cells"]
        place = (number(path.name), 0) if folder == "nbs" else (number(folder), number(path.name))
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        names = [m[1] for text in code for m in re.finditer(r"^\s*#\s*\|\s*default_exp\s+(\S+)", text, re.M)]
        if path.name == TOUR:
            assert names == [], f"{path}: exports to {names}; the tour shows what there is"
            continue
        assert len(names) == 1, f"{path}: exports to {names}; expected one module"
        assert names[0] not in found, f"{path}: {names[0]} is exported by another notebook too"
        part, stem = folder[3:] if folder != "nbs" else "", path.stem[3:]
        assert names[0] == ".".join(filter(None, [part, stem])), f"{path}: exports to {names[0]}"
        found[names[0]] = place
    return found


CHAPTERS = chapters()


def imported(tree: ast.AST, package: tuple[str, ...], known: set[str]) -> set[tuple[str, int]]:
    """(module of the library, line) for every import in `tree`, also those inside functions.

    Imports for types alone count too: who reads a type has to read its module first. `package` is that of
    the code, () for a module that lies beside the parts.
    """
    found = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["transfergraph", *package][: len(package) + 2 - node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        names = [name.removeprefix("transfergraph.") for name in names if name.startswith("transfergraph.")]
        found |= {(name, node.lineno) for name in names if name in known}
    return found


def imports_of(path: Path) -> set[tuple[str, int]]:
    package = path.relative_to(LIBRARY).parent.parts
    return imported(ast.parse(path.read_text(encoding="utf-8")), package, set(CHAPTERS))


def test_imports_are_found_wherever_they_stand():
    code = """
import transfergraph.p.a
from .b import f
from ..q.c import g
from .. import m
def g():
    from transfergraph.q import d
    from . import e
    if TYPE_CHECKING:
        from transfergraph.m import h
"""
    found = imported(ast.parse(code), ("p",), {"p.a", "p.b", "q.c", "q.d", "p.e", "m"})
    assert found == {("p.a", 2), ("p.b", 3), ("q.c", 4), ("m", 5), ("q.d", 7), ("p.e", 8), ("m", 10)}
    assert imported(ast.parse("from .p.a import f"), (), {"p.a"}) == {("p.a", 1)}


def test_the_parts_stand_in_the_order_of_their_numbers():
    folders = sorted(p.name for p in (ROOT / "nbs").iterdir() if p.is_dir() and re.match(r"\d", p.name))
    assert [name[3:] for name in folders] == PARTS
    assert [number(name) for name in folders] == list(range(1, len(PARTS) + 1))
    assert {name: place[0] for name, place in CHAPTERS.items() if "." not in name} == ALONE
    packages = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert packages == set(PARTS)


def test_chapters_of_a_part_are_numbered_without_gaps():
    for place, part in enumerate(PARTS, 1):
        numbers = sorted(chapter for name, (p, chapter) in CHAPTERS.items() if p == place)
        assert numbers == list(range(1, len(numbers) + 1)), part


def test_one_notebook_a_module_and_one_module_a_notebook():
    assert {module(path) for path in MODULES} == set(CHAPTERS)


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_a_module_imports_only_from_earlier_parts_and_chapters(path):
    "So there is no circle either."
    name = module(path)
    for other, line in imports_of(path):
        assert CHAPTERS[other] < CHAPTERS[name], f"{name}:{line} imports {other}, a later chapter"


def test_no_module_is_a_drawer_for_everything():
    assert not {name for name in CHAPTERS if re.search(r"util|helper|common|misc", name)}


def test_each_public_name_stands_for_one_thing():
    "In one module: what `__all__` of two modules holds means two things, or is one thing twice."
    homes = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                for name in ast.literal_eval(node.value):
                    homes.setdefault(name, []).append(module(path))
    assert len(homes) > 200
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_module_is_long():
    "A module that is longer is two ideas."
    assert {module(path): n for path in MODULES if (n := lines(path)) > MOST_MODULE_LINES} == {}


def test_no_function_is_long():
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    found = {
        f"{module(path)}.{node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, functions)
    }
    assert {name: n for name, n in found.items() if n > MOST_FUNCTION_LINES} == {}


def test_the_library_is_small():
    n = sum(map(lines, MODULES)) + lines(LIBRARY / "__init__.py")
    assert len(MODULES) <= MOST_MODULES and n <= MOST_LINES, f"{len(MODULES)} modules, {n} lines"


def test_tests_mirror_the_parts():
    "A folder for each part; beside them lies only what is of no part alone."
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == set(PARTS)
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), "pytest takes files of the same name for one"
    for path in (ROOT / "tests").glob("test_*.py"):
        assert path.stem.removeprefix("test_") not in {name.rpartition(".")[2] for name in CHAPTERS}


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


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_public_functions_are_typed(path):
    assert untyped(ast.parse(path.read_text(encoding="utf-8"))) == []


def loaded_by(*names: str) -> set[str]:
    "Packages that are loaded once these modules are."
    code = f"import sys, {', '.join(names)}; print(*(name.split('.')[0] for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_slow_imports_wait_until_they_are_needed():
    assert loaded_by("transfergraph.cli.program") & {*SLOW_IMPORTS, "pandas"} == set()
    everything = (f"transfergraph.{module(path)}" for path in MODULES)
    assert loaded_by(*everything) & SLOW_IMPORTS == set()


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
    # They are their authors' to share: a user gets them with `transfergraph zoo get`.
    names = re.compile(
        r"(^|/)(zoos|paper-image|paper-text|rank_final|result_analysis|embedded_dataset)/"
        r"|transferability_score_records|model_config_dataset|target_dataset_features|corr_(domain|task2vec)"
        r"|eval_accuracy|_correlation\.csv$|(image|sequence)_classification/records\.csv$"
    )
    columns = b"eval_" + b"accuracy"
    found = [name for path in committed if names.search(name := path.relative_to(ROOT).as_posix())]
    for path in committed:
        if path.suffix in {".csv", ".tsv"} and columns in path.read_bytes().split(b"\n", 1)[0]:
            found.append(f"{path.relative_to(ROOT)}: a column of the published records")
    assert found == []
