"""What chapters keep of their runs, how they speak of each other, and how they are run and compared."""

import base64
import copy
import io
import json
import re
from pathlib import Path

import chapter_outputs
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PATHS = chapter_outputs.paths()
NAMES = [path.relative_to(ROOT / "nbs").as_posix() for path in PATHS]
MOST_CELL_LINES = 380  # the longest class; a shorter one reads better


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_what_a_chapter_keeps_is_small_and_clean(path):
    kept = [cell["outputs"] for cell in cells(path, "code")]
    assert chapter_outputs.too_large(kept) == []
    assert [chapter_outputs.clean(outputs) for outputs in kept] == kept
    assert "<_io" not in json.dumps(kept) and str(Path.home()) not in json.dumps(kept)


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_cells_say_something_and_hold_one_idea(path):
    for cell in cells(path, "markdown"):
        text = "".join(cell["source"]).strip()
        assert text and not re.fullmatch(r"#+ .*", text), f"a heading alone: {text!r}"
    longest = max(len(cell["source"]) for cell in cells(path, "code"))
    assert longest <= MOST_CELL_LINES, f"a cell of {longest} lines; expected {MOST_CELL_LINES} at most"


def test_links_of_chapters_lead_somewhere():
    broken = []
    for path in PATHS:
        for cell in cells(path, "markdown"):
            text = re.sub(r"`[^`]*`|\$[^$]*\$", "", "".join(cell["source"]))
            for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
                if not re.match(r"[a-z]+:", link) and not (path.parent / link).exists():
                    broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert broken == []


def neighbours(text, before, after):
    "Words about the chapter before or after that do not name it, by its title and in a link to it."
    wrong = []
    for sentence in re.split(r"(?<=[.:;!?])\s+(?=[A-Z])|\n\n", text):
        for word in re.findall(r"\b(next|previous|following|preceding) (?:chapter|notebook)", sentence, re.I):
            other = after if word.lower() in ("next", "following") else before
            if other is None or f"[{other.stem[3:]}](" not in sentence or f"{other.name})" not in sentence:
                wrong.append(sentence)
    return wrong


def test_the_next_chapter_is_named_by_its_title():
    here = [Path("01_a.ipynb"), Path("03_c.ipynb")]
    good = "The next chapter, [c](03_c.ipynb), asks. See the previous chapter, [a](01_a.ipynb)."
    assert neighbours(good, *here) == []
    assert len(neighbours("The next chapter asks. The previous chapter, [c](03_c.ipynb), says.", *here)) == 2
    ends = [None, *PATHS, None]
    found = {
        name: wrong
        for name, path, before, after in zip(NAMES, PATHS, ends, ends[2:], strict=False)
        for cell in cells(path, "markdown")
        if (wrong := neighbours(" ".join("".join(cell["source"]).split()), before, after))
    }
    assert found == {}


def notebook(path, *sources):
    made = [{"cell_type": "code", "source": [source], "outputs": [], "metadata": {}} for source in sources]
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


CHANCE = """
import os, sys, tempfile, warnings
warnings.warn("said to nobody")
print(0, end="\\r"); print("end", file=sys.stderr)
print(object(), tempfile.mkdtemp(), os.getcwd())
"""
DRAWN = """
import matplotlib.pyplot as plt, numpy as np
_, ax = plt.subplots(figsize=(4, 3))
ax.imshow(np.random.default_rng(0).random((20, 20)), cmap="viridis");
"""


def test_a_run_is_cleaned_kept_and_compared(tmp_path):
    path = notebook(tmp_path / "nb.ipynb", CHANCE, DRAWN, "{'a': 0.123456}")
    runs = [chapter_outputs.run(path, str(tmp_path))[0] for _ in range(2)]
    assert runs[0] == runs[1]
    (printed,), (drawn,), (value,) = runs[0]
    assert printed["text"] == ["<object object> scratch/tmp scratch\n"]
    assert value["data"] == {"text/plain": ["{'a': 0.123456}"]}
    assert len(drawn["data"]["image/png"]) < 20_000 and drawn["data"]["text/plain"] == ["<Figure>"]
    assert chapter_outputs.store(path, runs[0]) and not chapter_outputs.store(path, runs[1])
    assert chapter_outputs.compare(path, runs[1]) == []
    last = copy.deepcopy(runs[0])
    last[2][0]["data"]["text/plain"] = ["{'a': 0.123457}"]
    assert chapter_outputs.compare(path, last) == []  # the last digit
    last[2][0]["data"]["text/plain"] = ["{'a': 0.133457}"]
    last[1] = []
    assert len(chapter_outputs.compare(path, last)) == 2


def test_a_cell_that_fails_is_named(tmp_path):
    path = notebook(tmp_path / "nb.ipynb", "1 + 1", "1 / 0")
    with pytest.raises(RuntimeError, match=r"(?s)Cell #2.*ZeroDivisionError"):
        chapter_outputs.run(path, str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("accuracy 0.487", "accuracy  0.488", True),
        ("accuracy 0.487", "accuracy 0.499", False),
        ("3 models", "4 models", False),
        ("1.25e-07", "1.26e-07", True),
        ("1.25e-07", "1.45e-07", False),
        ("nan", "0.5", False),
        ("[-0.50, 1.00]", "[-0.51, 1.00]", True),
        ("12e3456789ab", "12e3456789ac", False),
        ("resnet18.5", "resnet18.6", False),
        ("resnet 0.5", "vit 0.5", False),
    ],
)
def test_texts_are_the_same_but_for_the_last_digit(old, new, same):
    a, b = ([{"output_type": "stream", "name": "stdout", "text": [text]}] for text in (old, new))
    found = chapter_outputs.other(a, b)
    assert (found == "") == same
    assert same or (f"-{old}" in found and f"+{new}" in found)


def picture(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    data = {"image/png": base64.b64encode(out.getvalue()).decode()}
    return [{"output_type": "display_data", "data": data, "metadata": {}}]


def test_pictures_are_the_same_but_for_edges_of_letters():
    white = np.full((56, 64, 3), 255)
    letter, moved = white.copy(), white.copy()
    letter[20:24, 20] = 0
    moved[20:40, 20:40] = 0
    assert chapter_outputs.other(picture(white), picture(letter)) == ""
    assert chapter_outputs.other(picture(white), picture(white[1:, :-1])) == ""
    assert "pixels of a picture differ" in chapter_outputs.other(picture(white), picture(moved))
    large = np.full((400, 400, 3), 255)
    drawn = large.copy()
    drawn[:2] = 0
    assert "a part of a picture differs" in chapter_outputs.other(picture(large), picture(drawn))
    assert "(40, 64)" in chapter_outputs.other(picture(white), picture(white[16:]))


def test_what_is_too_large_is_named():
    long = [{"output_type": "stream", "name": "stdout", "text": ["a" * 9000]}]
    assert chapter_outputs.too_large([[], long]) == ["code cell 2: 9000 characters of text, at most 8000"]
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3))
    assert "image/png, at most" in chapter_outputs.too_large([picture(noise)])[0]


def test_a_path_that_is_no_chapter_is_refused():
    with pytest.raises(ValueError, match="no chapter"):
        chapter_outputs.paths(["nbs/stages"])


def test_outputs_of_another_processor_are_not_mixed_with_those_that_are_kept(tmp_path, monkeypatch):
    assert chapter_outputs.processor() == chapter_outputs.processor() != ""
    (tmp_path / "kept_on.txt").write_text("linux, another\n", encoding="utf-8")
    monkeypatch.setattr(chapter_outputs, "KEPT_ON", tmp_path / "kept_on.txt")
    with pytest.raises(ValueError, match=r"outputs are kept on linux, another, and this is .*: run all"):
        chapter_outputs.run_all(["nbs/00_metrics.ipynb"], True, 1)
