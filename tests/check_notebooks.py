"""Are the notebooks clean, is the library their export, and is README.md made from nbs/index.ipynb?

Everything is made anew in a temporary copy and compared, so the working tree stays as it is.

    python tests/check_notebooks.py                 # exit 1 and the first lines of each difference
    python tests/check_notebooks.py --write-readme  # write README.md
    python tests/check_notebooks.py --write-results # copy what `make real` found into docs/results.md
    python tests/check_notebooks.py --run           # run all chapters; do they give the outputs they keep?
    python tests/check_notebooks.py --write-outputs nbs/03_scores  # run these chapters, keep their outputs
"""

import argparse
import base64
import contextlib
import difflib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<=\]\()[^)\s]+|(?<=src=\")[^\"]+")
DIFF_LINES = 15
CHAPTERS = "docs/chapters.md"  # the tables of parts and of chapters
REAL = "results/real-summary/results.md"  # written by `make real`
REAL_FIGURES = "reports/real/figures/summary"  # those that docs/results.md shows: regret.png, chances.png
BORDERS = "<!-- what `make real` found -->\n", "<!-- up to here -->\n"  # in docs/results.md
IDEA = "docs/idea.png"  # the drawing that the tour keeps, for README.md
TITLE = """# Chapters

A folder of `nbs/` is a part of the method, a package of the library and a folder of `tests/`. Parts and
chapters are read, and import, in the order of their numbers: what stands lower knows nothing of what stands
higher. The tour uses all of them. The tables are made from the folders.

"""
QUESTIONS = {  # part -> what it answers
    "tour": "what is all this, in ten cells?",
    "metrics": "what is a ranking worth?",
    "run": "how do tasks run, and files stay whole?",
    "data": "which labelled images and texts are there?",
    "scores": "what do a model's features tell about the labels?",
    "zoo": "what is known of models, datasets and fine-tunings?",
    "models": "how is a pre-trained network loaded, looked through and fine-tuned?",
    "graph": "how does a zoo become a graph, and vectors?",
    "predict": "how does history become a predicted accuracy?",
    "build": "how does a zoo come to be?",
    "recommend": "which model for my data?",
    "evaluate": "how right are the methods?",
    "report": "what came out, to look at?",
    "cli": "what do I type?",
}


def chapters(root: Path) -> str:
    "docs/chapters.md: the parts of nbs/ and their chapters as two tables."

    def first_cell(path: Path) -> str:
        return "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])

    parts = ["| part | question | chapters |", "| --- | --- | --- |"]
    lines = ["| chapter | what it holds |", "| --- | --- |"]
    for path in sorted((root / "nbs").glob("[0-9]*"), key=lambda path: (path.stem != "00_tour", path.name)):
        part = path.stem.partition("_")[2]
        if part not in QUESTIONS:
            raise ValueError(
                f"nbs/{path.name}: no question is known of this part; expected one of {', '.join(QUESTIONS)}"
            )
        names = []
        for chapter in sorted(path.glob("[0-9]*.ipynb")) if path.is_dir() else [path]:
            link = "../" + chapter.relative_to(root).as_posix()
            name = chapter.stem.partition("_")[2]
            said = re.search(r"^> *(.+)$", first_cell(chapter), re.M)
            if said is None:
                raise ValueError(f"{link[3:]}: the title cell has no line that begins with '>'")
            names.append(f"[{name}]({link})")
            lines.append(f"| [{f'{part}/{name}' if path.is_dir() else name}]({link}) | {said[1]} |")
        parts.append(f"| [{path.stem}](../nbs/{path.name}) | {QUESTIONS[part]} | {', '.join(names)} |")
    return TITLE + "\n".join(parts) + "\n\n" + "\n".join(lines) + "\n"


def readme(root: Path) -> str:
    "README.md as nbs/index.ipynb gives it, its links turned into those of a file in the top folder."
    import nbformat
    from nbconvert import MarkdownExporter

    index = root / "nbs" / "index.ipynb"
    if not index.exists():
        raise ValueError("nbs/index.ipynb is missing: README.md is made from it")

    def from_top(match: re.Match) -> str:
        link, _, anchor = match[0].partition("#")
        if not link or re.match(r"[a-z][a-z0-9+.-]*:|/", link):
            return match[0]
        link = os.path.normpath(os.path.join("nbs", link))
        if not (root / link).exists():
            raise ValueError(f"nbs/index.ipynb links to {match[0]}, which is not in the repository")
        return link + (f"#{anchor}" if anchor else "")

    notebook = nbformat.read(index, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(from_top, cell.source)
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    if resources.get("outputs"):
        raise ValueError("nbs/index.ipynb holds an image: save it in docs/ or reports/ and link to the file")
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)  # blank lines in code stay
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", part) for part in parts[::2]]
    return "".join(parts).strip() + "\n"


def drawing(root: Path) -> bytes:
    "The drawing of the idea, as nbs/00_tour.ipynb keeps it."
    tour = json.loads((root / "nbs" / "00_tour.ipynb").read_text(encoding="utf-8"))
    for cell in tour["cells"]:
        for output in cell.get("outputs", []) if "figure_idea(" in "".join(cell["source"]) else []:
            if "image/png" in output.get("data", {}):
                return base64.b64decode("".join(output["data"]["image/png"]))
    raise ValueError(
        "nbs/00_tour.ipynb keeps no drawing of the idea; `make outputs CHAPTERS=nbs/00_tour.ipynb`"
    )


def write_pages(root: Path) -> None:
    "README.md, its drawing, and docs/chapters.md."
    (root / "docs").mkdir(exist_ok=True)
    (root / IDEA).write_bytes(drawing(root))
    (root / CHAPTERS).write_text(chapters(root), encoding="utf-8")
    (root / "README.md").write_text(readme(root), encoding="utf-8")


def write_results(root: Path) -> None:
    "The part of docs/results.md that `make real` finds, and its figures."
    figures = [root / REAL_FIGURES / f"{name}.png" for name in ("regret", "chances")]
    for path in (root / REAL, *figures):
        if not path.is_file():
            raise ValueError(f"{path.relative_to(root)} is missing: `make real` writes it")
    page, (begin, end) = root / "docs" / "results.md", BORDERS
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"docs/results.md: expected a line {begin.strip()!r} and below it {end.strip()!r}")
    for path in figures:
        shutil.copyfile(path, root / "docs" / f"real-{path.name}")
    text = (root / REAL).read_text(encoding="utf-8").strip()
    page.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")


def remake(root: Path) -> None:
    "Clean the notebooks in `root`, write the library from them, README.md and the table of chapters."
    os.environ.pop("IN_TEST", None)  # nbdev exports nothing, and says nothing, where this is set
    os.chdir(root)  # nbdev finds settings.ini from here
    from nbdev.clean import nbdev_clean
    from nbdev.config import get_config
    from nbdev.doclinks import nbdev_export

    library = get_config().lib_path
    for module in library.rglob("*.py"):  # a module without a notebook would otherwise stay unnoticed
        if module.name != "__init__.py":
            module.unlink()
    nbdev_clean()
    nbdev_export()
    write_pages(root)


def files(root: Path) -> dict[str, str]:
    "Text of every notebook and module, of README.md and the table of chapters, and the drawing, by path."
    paths = [
        *root.glob("nbs/**/*.ipynb"),
        *root.glob("transfergraph/**/*.py"),
        *root.glob("README.md"),
        *root.glob(CHAPTERS),
    ]
    found = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in sorted(paths)}
    if (root / IDEA).is_file():
        found[IDEA] = f"a picture, SHA-256 {hashlib.sha256((root / IDEA).read_bytes()).hexdigest()}\n"
    return found


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    "One paragraph for each path whose text is not the same on both sides."
    found = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        if after is None:
            found.append(f"{path}: no notebook makes this module")
        elif before is None:
            found.append(f"{path}: missing")
        else:
            name = "not clean" if path.endswith(".ipynb") else "not what the notebooks give"
            diff = list(
                difflib.unified_diff(
                    before.splitlines(), after.splitlines(), "is", "should be", lineterm="", n=0
                )
            )
            diff = diff or ["", "", "the end of a line, or of the file"]
            lines = [f"    {line[:150]}" for line in diff[2 : 2 + DIFF_LINES]]
            rest = [f"    ... {len(diff) - 2 - DIFF_LINES} lines more"] if len(diff) > 2 + DIFF_LINES else []
            found.append("\n".join([f"{path}: {name}", *lines, *rest]))
    return found


def check() -> list[str]:
    "What is wrong with the working tree, one paragraph each."
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / ROOT.name
        shutil.copytree(ROOT, copy, ignore=lambda at, names: top(at, names) | hidden(at, names))
        old = files(copy)
        for path, text in old.items():
            if path.endswith(".ipynb"):
                try:
                    json.loads(text)
                except ValueError as error:
                    raise ValueError(f"{path}: not a notebook: {error}") from None
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                remake(copy)
            return differences(old, files(copy))
        finally:
            os.chdir(ROOT)


def top(at: str, names: list[str]) -> set[str]:
    "Of the top folder, leave out what neither a notebook nor a link of README.md needs."
    return {"zoos", "build", "dist", "site"} & set(names) if Path(at) == ROOT else set()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-readme", action="store_true", help="write README.md and stop")
    parser.add_argument("--write-results", action="store_true", help="write docs/results.md and stop")
    parser.add_argument("--run", action="store_true", help="run chapters and compare their outputs")
    parser.add_argument("--write-outputs", action="store_true", help="run chapters and keep their outputs")
    parser.add_argument("paths", nargs="*", help="chapters or folders of chapters to run; none: all")
    parser.add_argument("--workers", type=int, default=2, help="chapters that are run at a time")
    options = parser.parse_args()
    help_line = "`make export` and `make readme` write these files."
    try:
        if options.write_readme or options.write_results:
            (write_pages if options.write_readme else write_results)(ROOT)
            return 0
        if options.run or options.write_outputs:
            from chapter_outputs import run_all  # beside this file

            found = run_all(options.paths, options.write_outputs, options.workers)
            help_line = "`make outputs` runs the chapters and keeps what they give."
        else:
            found = check()
    except ValueError as error:
        print(error)
        return 1
    if found:
        print(*found, help_line, sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
