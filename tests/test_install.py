"""The package as pip installs it, away from the repository."""

import ast
import re
import subprocess
import sys
import sysconfig
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "transfergraph").rglob("*.py"))


def required():
    "Names of the distributions that settings.ini asks for, as packaging normalises them."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    keys = ("requirements", "ray_requirements", "s3_requirements", "site_requirements")
    names = " ".join(config["DEFAULT"][key] for key in keys).split()
    return {normal(re.split(r"[\[<>=!~]", name)[0]) for name in names}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_whatever_is_imported_is_required():
    "A package that only the environment of the developers has would be missing for everybody else."
    owners, missing = packages_distributions(), {}
    for path in LIBRARY:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - {
                *sys.stdlib_module_names,
                "transfergraph",
            }:
                if not {normal(owner) for owner in owners.get(name, [name])} & required():
                    missing.setdefault(name, path.relative_to(ROOT).as_posix())
    assert missing == {}


@pytest.mark.slow
def test_pip_install_gives_a_program_that_works(tmp_path):
    "Built from a copy of what git holds; the packages that it needs are those of this environment."
    source, place = tmp_path / "source", tmp_path / "empty"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    site = subprocess.run(
        [place / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    others = sysconfig.get_path("purelib") + "\n"  # searched after the folder of the library itself
    Path(site, "others.pth").write_text(others)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "--quiet"]
    alone = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--disable-pip-version-check"]
    subprocess.run([*pip, *alone, str(source)], check=True, cwd=tmp_path)

    def run(*words):
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    where = run(place / "bin" / "python", "-c", "import transfergraph; print(transfergraph.__file__)")
    assert where.stdout.startswith(site), where.stdout + where.stderr
    program = place / "bin" / "transfergraph"
    assert "rank" in run(program, "--help").stdout
    assert "text-recycling,1007,36,36211" in run(program, "zoo", "list", "--csv").stdout  # of a file of data
    (tmp_path / "results.csv").write_text("model,dataset,accuracy\na,x,0.9\nb,x,0.8\na,y,0.7\nb,y,0.6\n")
    made = run(program, "import-records", "results.csv", "zoo", "--modality", "image")
    assert made.returncode == 0 and "4 records added" in made.stdout, made.stderr
    scored = run(program, "evaluate", "zoo", "--method", "history-mean", "--quiet", "--csv")
    assert scored.returncode == 0 and "history-mean,pearson,1.0" in scored.stdout, scored.stderr
