"""A change of code makes those results stale that it reaches, and no other."""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest
import stages
from stages import LIBRARY, PIPELINES, ROOT, dependencies, imported, module_file, reached

STAGES = [
    pytest.param(pipeline, name, id=f"{pipeline.relative_to(ROOT)}:{name}")
    for pipeline in PIPELINES
    for name in stages.stages(pipeline)
]


def covered(named):
    "Modules that a list of files and folders holds; a part's empty `__init__.py` is no code."
    paths = [ROOT / name for name in named]
    found = {file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}
    return {file for file in found if file.name != "__init__.py"}


@pytest.mark.parametrize(("pipeline", "name"), STAGES)
def test_a_stage_depends_on_what_its_notebook_reaches_and_on_nothing_else(pipeline, name):
    notebook, named = stages.stages(pipeline)[name]
    code = {path for path in reached(notebook) if path.name != "__init__.py"}
    assert code and covered(named) - code == set(), "it depends on code that the notebook does not reach"
    assert code - covered(named) == set(), "it reaches code on which it does not depend"
    assert named == dependencies(notebook), "`python tests/stages.py --write` writes the list"
    text = pipeline.read_text(encoding="utf-8")
    assert text.count(f"- {notebook.relative_to(ROOT).as_posix()}\n") >= 1


def test_every_stage_notebook_belongs_to_a_stage():
    used = {notebook for pipeline in PIPELINES for notebook, _ in stages.stages(pipeline).values()}
    assert used == set((ROOT / "nbs" / "stages").glob("*.ipynb"))


@pytest.mark.parametrize("name", ["target", "features"])
def test_what_python_loads_for_a_stage_is_among_what_it_reaches(name):
    notebook = ROOT / "nbs" / "stages" / f"{name}.ipynb"
    names = sorted(imported(ast.parse(stages.code_of(notebook))))
    code = (
        f"import sys, {', '.join(names)}; print(*(m for m in sys.modules if m.startswith('transfergraph')))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {module_file(module) for module in run.stdout.split()}
    assert len(loaded) > 10 and loaded <= reached(notebook)


def test_packages_of_parts_hold_nothing_public_and_nothing_is_imported_by_a_text():
    "Neither is seen by what reads imports."
    for path in LIBRARY.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name == "__init__.py":
            if path.parent != LIBRARY:
                assert not imported(tree, "transfergraph"), path
                made = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
                assert not [n.name for n in made if not n.name.startswith("_")], path
            continue
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not called & {"import_module", "importlib.import_module", "__import__"}, path
        froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level]
        taken = [n for n in froms if n.module == "transfergraph"]
        assert not [a.name for n in taken for a in n.names if not module_file(f"transfergraph.{a.name}")], (
            path
        )


def test_imports_are_found_wherever_they_stand():
    code = """
import transfergraph.zoo.tables
from .logme import logme
from ..zoo import matrices
if TYPE_CHECKING:
    from ..report.site import build_site
else:
    from ..run import files
def f():
    from transfergraph.graph import build
    try:
        from .. import metrics
    except ImportError:
        pass
"""
    names = imported(ast.parse(code), "transfergraph.scores")
    assert imported(ast.parse("from transfergraph import graph"), "") >= {"transfergraph.graph.embedding"}
    assert {module_file(name).relative_to(LIBRARY).as_posix() for name in names} - {"__init__.py"} == {
        "zoo/tables.py",
        "scores/logme.py",
        "zoo/__init__.py",
        "zoo/matrices.py",
        "run/__init__.py",
        "run/files.py",
        "graph/__init__.py",
        "graph/build.py",
        "metrics.py",
    }


def test_a_list_that_lacks_a_module_is_written_anew(tmp_path, monkeypatch):
    text = PIPELINES[0].read_text(encoding="utf-8")
    place = tmp_path / "dvc.yaml"
    place.write_text(
        text.replace("        - transfergraph/graph\n", "        - transfergraph/scores/leep.py\n")
    )
    assert place.read_text(encoding="utf-8") != text and stages.written(place) == text
    place.write_text(re.sub(r" +- transfergraph/.*\n", "", text))
    with pytest.raises(ValueError, match="name no code"):
        stages.written(place)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "The pipelines, their code and settings, as dvc sees them in a folder of its own."
    from dvc.repo import Repo

    at = tmp_path_factory.mktemp("stages")
    bare = shutil.ignore_patterns("__pycache__", "*.ipynb")
    for name in ("transfergraph", "paper", "study", "real"):
        shutil.copytree(ROOT / name, at / name, ignore=bare)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, at / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(at)
        patch.setenv("DVC_NO_ANALYTICS", "1")
        Repo.init(no_scm=True).close()
        yield at


def code_dependencies(project):
    "Every stage of the three pipelines that dvc makes of them, with its dependencies on code."
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        for stage in repo.index.stages:
            yield (
                stage,
                [dep for dep in stage.deps if dep.def_path.replace("../", "").startswith("transfergraph")],
            )


def hashes(project):
    "Stage as 'pipeline:name' -> what dvc keeps of its code in a lock."
    found = {}
    for stage, deps in code_dependencies(project):
        for dep in deps:
            dep.save()
        where = os.path.relpath(os.path.dirname(stage.path), project)
        key = f"{where}:{stage.name.partition('@')[0]}"
        found.setdefault(key, {})[stage.name] = {dep.def_path: dep.hash_info.value for dep in deps}
    return found


@pytest.fixture(scope="module")
def before(project):
    return hashes(project)


def stale(before, after):
    return {name for name in before if before[name] != after[name]}


BUILD = {".:pretrain", ".:features", ".:finetune", ".:zoo"}
EDITS = {  # module -> stages that have to run again, stages that must not
    "scores/logme": ({".:features", ".:zoo", ".:target"}, {".:pretrain", ".:finetune"}),
    "predict/factorisation": ({".:target", "paper:target"}, BUILD),
    "graph/embedding": ({".:target", "paper:published"}, BUILD),
    "build/zoo_spec": (BUILD | {"study:selection"}, {".:target", "paper:target"}),
    "report/site": (set(), {"all"}),
    "cli/rank": (set(), {"all"}),
}


@pytest.mark.parametrize("module", EDITS)
def test_an_edit_makes_stale_what_it_reaches(project, before, module):
    "By the hashes that dvc itself computes, in every stage that it makes of the three pipelines."
    path, (reruns, stays) = project / "transfergraph" / f"{module}.py", EDITS[module]
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n# edited\n", encoding="utf-8")
    try:
        found = stale(before, hashes(project))
    finally:
        path.write_text(text, encoding="utf-8")
    assert reruns <= found and not (found if stays == {"all"} else found & stays)
    assert len(before) == len(STAGES)


def test_an_import_makes_nothing_stale(project, before):
    "Python writes `__pycache__` into the folders on which stages depend."
    for folder in [p for p in (project / "transfergraph").rglob("*") if p.is_dir()]:
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "module.cpython-310.pyc").write_bytes(b"compiled")
    assert stale(before, hashes(project)) == set()


def test_dvc_says_so_after_a_run(tmp_path, monkeypatch):
    "`dvc status` of a stage that depends on a part: clean after an import of it, stale after an edit."
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("a = 1\n")
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: echo 1 > out\n    deps: [code]\n    outs: [out]\n"
    )
    with Repo.init(no_scm=True) as repo:
        repo.reproduce()
    (tmp_path / "code" / "__pycache__").mkdir()
    (tmp_path / "code" / "__pycache__" / "a.pyc").touch()
    with Repo() as repo:
        assert repo.status() == {}
    (tmp_path / "code" / "a.py").write_text("a = 20\n")
    with Repo() as repo:
        assert repo.status() == {"one": [{"changed deps": {"code": "modified"}}]}
