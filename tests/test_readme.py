"""README.md and the pages that it sends to, as a new user takes them: blocks are run in order."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_server import CARD, TIMM, repository, serving
from PIL import Image

from transfergraph.cli.program import app, main
from transfergraph.report.terminal import one_word_each
from transfergraph.zoo.tables import Zoo

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("zoos", "scale", "results", "python", "extend"))]
README = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
HOME = ".venv/bin/transfergraph"


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


def commands(text):
    "Command lines of a shell block: continued lines joined, comments left out."
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def understood(words):
    "Take arguments apart as the program does, without running anything; an error where they are wrong."
    from typer.main import get_command

    command, context = get_command(app), None
    words = one_word_each(words)
    while hasattr(command, "commands"):
        context = command.make_context("transfergraph", words[:1], parent=context)
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words, parent=context)


def alike(found, said, tolerance=0.03):
    "The same words in the same order; numbers may differ by rounding on another machine."
    number = re.compile(r"[+-]?\d+(?:\.\d+)?%?")
    assert number.sub("#", found).split() == number.sub("#", said).split(), found
    for a, b in zip(number.findall(found), number.findall(said), strict=True):
        a, b = (float(text.rstrip("%")) / (100 if "%" in text else 1) for text in (a, b))
        assert abs(a - b) <= tolerance, (a, b, found)


@pytest.fixture(scope="module")
def place(pulled, tmp_path_factory):
    "A clone of the repository with its reports, a user's images, and networks by the names of the zoo's."
    from transfergraph.data.dataset import load_dataset
    from transfergraph.models.loading import load_backbone

    clone = tmp_path_factory.mktemp("readme") / "clone"
    shutil.copytree(pulled, clone)
    mine = load_dataset("georgian").subsample(8)
    for i, (item, label) in enumerate(zip(mine.items["train"], mine.labels["train"])):
        folder = clone / "my_images" / mine.label_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(item)).save(folder / f"{i}.png")
    network = load_backbone("timm/test_resnet", random_state=0, input_size=32)
    models = Zoo.load(clone / "zoos" / "nano-image").models["model"]
    network.save(clone / "my_model")
    (clone / "models" / "nano-image").mkdir(parents=True)
    listed = {name: {"spec": str(clone / "my_model")} for name in models}
    (clone / "models" / "nano-image" / "models.json").write_text(json.dumps(listed))
    (clone / "results.csv").write_text(blocks("csv")[0])
    (clone / "list.yaml").write_text(blocks("yaml")[0])
    return clone


@pytest.fixture
def at(place, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    return place


def test_every_block_is_of_a_kind_that_is_run_here():
    assert {kind for kind, _ in BLOCKS} == {"", "sh", "python", "csv", "yaml", "bibtex"}
    assert len(blocks("sh")) >= 7 and len(blocks("python")) >= 7
    for words in [w for text in blocks("sh") for w in commands(text)]:
        assert words[0] in ("make", HOME) or words == [".venv/bin/dvc", "pull"], words


@pytest.mark.parametrize(
    "words", [w for t in blocks("sh") for w in commands(t) if w[0] == "make"], ids=" ".join
)
def test_targets_of_make_are_there(words):
    "`make repro` takes twenty minutes: its parts are other tests. Here: what it would do."
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout
    assert f"make {words[1]} " in shown


@pytest.mark.slow
def test_rank_prints_what_is_shown(at, capsys):
    lines = [w[1:] for t in blocks("sh") for w in commands(t) if w[1] == "rank"]
    assert main(lines[0]) == 0  # of words alone
    found = capsys.readouterr()
    alike(found.out, next(text for kind, text in BLOCKS if not kind and "why" in text))
    assert "most like hotels" in found.err and "does not beat the mean" in found.err
    own = next(words for words in lines if "my_images/" in words)
    assert main(own) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main(["georgian" if word == "my_images/" else word for word in own]) == 0
    assert "most like cyrillic" in capsys.readouterr().err


@pytest.mark.slow
def test_select_fine_tunes_and_says_which_is_best(at, capsys):
    words = next(w for t in blocks("sh") for w in commands(t) if w[1] == "select")
    settings = re.search(r"--settings '(\{.*?\})'", README)[1]
    assert main([*words[1:], "--settings", settings]) == 0
    found = capsys.readouterr().out
    assert [line.split()[0] for line in found.splitlines() if line] == ["model", "1", "2", "3", "best:"]
    best = re.search(r"best: (\S+), accuracy [\d.]+, saved in (\S+)", found)
    assert (at / best[2] / "model.safetensors").is_file() and (at / "chosen" / "log.jsonl").is_file()


def test_a_table_of_results_becomes_a_zoo(at, capsys):
    words = next(w for t in blocks("sh") for w in commands(t) if w[1] == "import-records")
    shutil.rmtree("zoos/ours", ignore_errors=True)
    assert main(words[1:]) == 0
    alike(capsys.readouterr().out, next(text for kind, text in BLOCKS if "records added" in text), 0)
    assert len(Zoo.load("zoos/ours").records) == 6


def test_a_list_of_names_becomes_a_zoo(at, tmp_path, monkeypatch, capsys):
    "Against a server of the hub's interface on this machine."
    for name in ("timm/resnet18.a1_in1k", "google/vit-base-patch16-224"):
        repository(tmp_path / "hub" / "models" / name, TIMM, CARD)
    repository(
        tmp_path / "hub" / "datasets" / "uoft-cs" / "cifar10", card="---\nlicense: mit\n---\n", weights=False
    )
    words = next(w for t in blocks("sh") for w in commands(t) if w[1] == "hub")
    with serving(tmp_path / "hub") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert main([*words[1:], "--cache", str(tmp_path / "cache")]) == 0
    assert "zoos/hub: 3 models" in capsys.readouterr().out and len(Zoo.load("zoos/hub").models) == 3


@pytest.mark.slow
def test_evaluate_prints_what_is_shown(at, capsys):
    lines = [w[1:] for t in blocks("sh") for w in commands(t) if w[1] in ("methods", "evaluate")]
    assert [words[0] for words in lines] == ["methods", "evaluate", "evaluate"]
    assert main(lines[0]) == 0 and "TG:ensemble" in capsys.readouterr().out.splitlines()
    assert main(lines[1]) == 0
    said = next(text for kind, text in BLOCKS if not kind and text.startswith("metric "))
    alike(capsys.readouterr().out, said)
    assert main(lines[2]) == 0 and "LogME" in capsys.readouterr().out


@pytest.fixture
def registries():
    "What a block adds to the library's registries is gone afterwards: other tests count what is in them."
    from transfergraph.graph.embedding import GRAPH_EMBEDDERS
    from transfergraph.predict.methods import PREDICTORS
    from transfergraph.scores.registry import TRANSFERABILITY_SCORES

    before = [
        (registry, dict(registry)) for registry in (TRANSFERABILITY_SCORES, GRAPH_EMBEDDERS, PREDICTORS)
    ]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.mark.slow
def test_python_blocks_run_in_order(at, registries):
    "And what a comment says of a value is so."
    tried = []

    def my_fine_tuning(name):
        tried.append(name)
        return 0.5

    namespace = {"my_fine_tuning": my_fine_tuning}
    for text in blocks("python"):
        exec(compile(text, "README.md", "exec"), namespace)  # the repository's own text
    assert len(tried) == 2
    value = re.search(r"^(tg\.score\(.*?\))  # ([\d.]+?)\.\.\.$", README, re.M)
    assert str(eval(value[1], namespace)).startswith(value[2])
    x, y = namespace["features"], namespace["labels"]
    assert 0.8 < namespace["tg"].score("nearest-mean", x, y) < 1
    table = namespace["predict_target"](
        Zoo.load("zoos/nano-image"), "digits", ["TG:KNN,SVD,all", "TG:LR,SVD,all"]
    )
    assert table.notna().all(axis=None) and table.nunique().min() > 5
    assert len(Zoo.load("zoos/tiny").records) == 4


@pytest.mark.parametrize(
    "name", ["TRANSFERABILITY_SCORES[", "GRAPH_EMBEDDERS[", "PREDICTORS[", 'save("zoos/tiny")']
)
def test_each_extension_takes_ten_lines_at_most(name):
    text = next(t for t in blocks("python") if name in t)
    assert len([line for line in text.splitlines() if line.strip()]) <= 10


def test_the_tables_of_chapters_are_those_of_the_folders():
    page = (ROOT / "docs" / "chapters.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "nbs").glob("**/[0-9]*.ipynb")):
        title = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        said = re.search(r"^> (.*)$", title, re.M)[1]
        part, name = path.parent.name.partition("_")[2], path.stem.partition("_")[2]
        link = "../" + path.relative_to(ROOT).as_posix()
        assert f"| [{part}/{name}]({link}) | {said} |".replace("[/", "[") in page, path
        assert page.count(f"]({link}) |") >= 1 and f"[{name}]({link})" in page, path
    listed = re.findall(r"^\| \[[\w/]+\]\((../nbs/\S+?\.ipynb)\) \| [^|]+\|$", page, re.M)
    assert len(listed) == len(set(listed)) == len(list((ROOT / "nbs").glob("**/[0-9]*.ipynb")))
    assert all(
        f"[{folder.name}](../nbs/{folder.name})" in page for folder in (ROOT / "nbs").glob("[0-9][0-9]_*/")
    )


def test_commands_in_other_documents_are_understood():
    found = 0
    for path in (ROOT / "docs").glob("*.md"):
        for text in re.findall(r"^```sh\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S):
            for words in commands(text):
                if words[0] == HOME:
                    understood(words[1:])
                    found += 1
    assert found >= 1
    prose = re.sub(r"^\| \[.*", "", README, flags=re.M)  # not the table of chapters
    for text in re.findall(r"`transfergraph ([^`]+)`", prose):
        understood(shlex.split(text))


def test_the_citation_file_is_whole():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= set(cited)
    version = re.search(r"^version *= *(\S+)", (ROOT / "settings.ini").read_text(), re.M)[1]
    assert cited["version"] == version and cited["license"] == "Apache-2.0"
    paper = cited["preferred-citation"]
    assert len(paper["authors"]) == 6 and paper["doi"] in README and paper["title"] in README


def test_no_link_of_the_documents_is_broken():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if not link.startswith(("http", "#")):
                assert (path.parent / link.partition("#")[0]).exists(), (path, link)
