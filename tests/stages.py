"""What each stage of the pipelines depends on: the code that its notebook reaches.

python tests/stages.py          # exit 1 and the lists that dvc.yaml files should have
python tests/stages.py --write  # write them
"""

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "transfergraph"
PIPELINES = [ROOT / name for name in ("dvc.yaml", "paper/dvc.yaml", "study/dvc.yaml", "real/dvc.yaml")]


def module_file(name: str) -> Path | None:
    "File of a module or package of the library, such as `transfergraph.scores.logme`, or None."
    path = ROOT / Path(*name.split("."))
    found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return found[0] if found and found[0].is_relative_to(LIBRARY) else None


def modules_of(part: str) -> set[str]:
    "Modules of a part that is imported as a whole: which of them is used can't be read from the import."
    if part == "transfergraph" or (path := module_file(part)) is None or path.name != "__init__.py":
        return set()
    return {f"{part}.{module.stem}" for module in path.parent.glob("[!_]*.py")}


def imported(tree: ast.AST, package: str = "") -> set[str]:
    "Modules of the library that code imports, also inside functions, but not for types alone."
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            found |= imported(ast.Module(node.orelse, []), package)
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *filter(None, [node.module])])
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        found |= {name for name in names if module_file(name)}
        asked = names[1:] if isinstance(node, ast.ImportFrom) else names
        found |= {module for name in asked for module in modules_of(name)}
        found |= imported(node, package)
    return found


@cache
def reached_from(module: str) -> frozenset[Path]:
    "Files of the library that a module reaches, its own and those of its packages among them."
    seen, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        path = module_file(name)
        if path is None or path in seen:
            continue
        seen.add(path)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting |= imported(ast.parse(path.read_text(encoding="utf-8")), package)
        waiting |= {package}
    return frozenset(seen)


def code_of(notebook: Path) -> str:
    "The code of a notebook, without magic commands."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^%.*$", "", code, flags=re.M)


def reached(notebook: Path) -> set[Path]:
    "Files of the library that a stage's notebook reaches."
    code = code_of(notebook)
    if re.search(r"import transfergraph\b(?!\.)|from transfergraph import", code):  # found at run time only
        raise ValueError(f"{notebook}: imports transfergraph itself; expected the modules that it needs")
    return set().union(*(reached_from(name) for name in imported(ast.parse(code))))


def dependencies(notebook: Path) -> list[str]:
    "Folders of which a stage reaches all modules, and single modules of the others."
    files, found = reached(notebook), []
    for part in sorted(p for p in LIBRARY.iterdir() if (p / "__init__.py").is_file()):
        own = {path for path in part.glob("*.py") if path.name != "__init__.py"}
        if own and own <= files:
            found.append(part)
        else:
            found += sorted(own & files)
    found += sorted(p for p in files if p.parent == LIBRARY)
    return [path.relative_to(ROOT).as_posix() for path in found if path != LIBRARY / "__init__.py"]


def stages(pipeline: Path) -> dict[str, tuple[Path, list[str]]]:
    "Stage -> its notebook, and the code that it says it depends on."
    found = {}
    for name, stage in yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"].items():
        stage = stage.get("do", stage)
        notebook = ROOT / re.search(r"nbs/stages/\w+\.ipynb", stage["cmd"])[0]
        found[name] = notebook, [d for d in stage["deps"] if d.startswith("transfergraph/")]
    return found


def written(pipeline: Path) -> str:
    "The text of a pipeline with the dependencies that its stages should have."
    lines, stage, out = pipeline.read_text(encoding="utf-8").splitlines(), None, []
    wanted = {name: dependencies(notebook) for name, (notebook, _) in stages(pipeline).items()}
    for line in lines:
        if match := re.fullmatch(r"  (\w+):", line):
            stage = match[1]
        if re.match(r"\s+- transfergraph/", line):
            indent = line[: len(line) - len(line.lstrip())]
            out += [f"{indent}- {path}" for path in wanted.pop(stage, [])]
        else:
            out.append(line)
    if lost := [name for name, code in wanted.items() if code]:
        raise ValueError(f"{pipeline}: deps of {lost} name no code; expected a line '- transfergraph/...'")
    return "\n".join(out) + "\n"


def main() -> int:
    changed = [(path, text) for path in PIPELINES if (text := written(path)) != path.read_text("utf-8")]
    for path, text in changed:
        if "--write" in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        else:
            print(f"{path.relative_to(ROOT)}: `python tests/stages.py --write` writes its dependencies anew")
    return bool(changed) and "--write" not in sys.argv[1:]


if __name__ == "__main__":
    sys.exit(main())
