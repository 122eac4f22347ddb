"""Loading data: every form gives the same dataset, caches never lie, and errors name the item."""

import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from waiting import until

from transfergraph.data.dataset import (
    EMBEDDED,
    Dataset,
    class_counts,
    embedded_names,
    few_rows,
    load_dataset,
    set_aside,
)
from transfergraph.data.images import decode_image, decode_images, image_cache_folder
from transfergraph.data.readers import READABLE, read_arrow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def load(tmp_path):
    "`load_dataset` with a cache that only this test sees."
    return lambda spec, **options: load_dataset(spec, **({"cache": tmp_path / "cache", "size": 16} | options))


def refused(match, kind=ValueError):
    return pytest.raises(kind, match=match)


def encoded(pixels, kind="PNG", mode=None, **options):
    image = Image.fromarray(np.asarray(pixels))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def image(seed, height=20, width=30):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_folder(root, splits=("",), classes=("ant", "bee"), n=4):
    "An image folder of noise; returns its paths in the order of the labels."
    paths = []
    for i, (split, label, k) in enumerate((s, c, k) for s in splits for c in classes for k in range(n)):
        path = Path(root) / split / label / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image(i)))
        paths.append(path)
    return paths


TEXTS, LABELS = [f"text {i}" for i in range(8)], ["no", "yes"] * 4


# Choosing rows


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 8), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_few_rows_of_each_class_are_nested_and_in_order(labels, per_class, seed):
    labels = np.array(labels)
    rows, more = few_rows(labels, per_class, seed), few_rows(labels, per_class + 1, seed)
    assert np.all(np.diff(rows) > 0) and set(rows) <= set(more)
    assert np.array_equal(np.bincount(labels[rows]), np.minimum(np.bincount(labels), per_class))


@given(st.lists(st.integers(2, 30), min_size=1, max_size=5), st.floats(0.01, 0.99), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_test_part_takes_its_share_of_every_class(sizes, share, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    train, test = set_aside(labels, share, seed)
    assert sorted([*train, *test]) == list(range(len(labels)))
    for size, n in zip(sizes, np.bincount(labels[test], minlength=len(sizes))):
        assert 1 <= n <= size - 1 and abs(n - share * size) <= 1


def test_what_is_chosen_of_one_class_does_not_depend_on_the_others():
    alone, together = np.zeros(20, int), np.repeat([0, 1], [20, 30])
    assert set(few_rows(alone, 5)) == {row for row in few_rows(together, 5) if row < 20}
    assert set(set_aside(alone)[1]) == {row for row in set_aside(together)[1] if row < 20}


# Tables


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_every_kind_of_table_gives_the_same_data_set(load, tmp_path, kind):
    texts = ["a comma, a\ttab", 'a "quote"', "two\nlines", "NA", "null", "123", "ünï ☃ \u2028", " padded "]
    frame = pd.DataFrame({"id": range(8), "text": texts, "label": LABELS})
    path = tmp_path / f"some.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")), encoding="utf-8")
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    dataset = load(path, test_share=0.5)
    assert (dataset.name, dataset.modality, dataset.label_names) == ("some", "text", ["no", "yes"])
    train, test = set_aside(np.array([0, 1] * 4), 0.5)
    assert dataset.items["train"].tolist() == [texts[row] for row in train]
    assert dataset.items["test"].tolist() == [texts[row] for row in test]
    assert dataset.labels["test"].tolist() == [row % 2 for row in test]
    assert dataset.labels["train"].dtype == np.int64 and dataset.items["train"].dtype == object


def test_whole_numbers_as_labels_are_sorted_as_numbers_in_every_kind_of_table(load, tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "label": [10, 9] * 4})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet")
    frame.astype({"label": float}).to_parquet(tmp_path / "c.parquet")
    for name in ("a.csv", "b.parquet", "c.parquet"):
        dataset = load(tmp_path / name)
        assert dataset.label_names == ["9", "10"]
        assert dataset.labels["train"][dataset.items["train"] == "text 0"].tolist() in ([1], [])
        assert class_counts(dataset).to_numpy().sum() == 8


def test_a_folder_of_tables_is_one_data_set_with_their_splits(load, tmp_path):
    for split, texts in (("train", TEXTS[:4]), ("dev", TEXTS[4:6]), ("test", TEXTS[6:])):
        pd.DataFrame({"text": texts, "label": LABELS[: len(texts)]}).to_csv(
            tmp_path / f"{split}.csv", index=False
        )
    dataset = load(tmp_path)
    assert {s: v.tolist() for s, v in dataset.items.items()} == {
        "train": TEXTS[:4],
        "test": TEXTS[6:],
        "validation": TEXTS[4:6],
    }
    chosen = load(tmp_path, splits={"train": "dev", "test": "train"})
    assert chosen.items["train"].tolist() == TEXTS[4:6] and set(chosen.items) == {"train", "test"}
    with refused(r"split 'tset' is missing; there are dev, test, train"):
        load(tmp_path, splits={"train": "train", "test": "tset"})


def test_columns_with_names_of_their_own_are_named_by_the_caller(load, tmp_path):
    path = tmp_path / "a.csv"
    pd.DataFrame({"nr": range(8), "said": TEXTS, "by": LABELS}).to_csv(path, index=False)
    assert load(path, text_column="said", label_column="by").label_names == ["no", "yes"]
    with refused(r"a\.csv: which column holds the texts\? There are nr, said, by; say text_column="):
        load(path)
    with refused(r"a\.csv: column 'told' is missing; there are nr, said, by"):
        load(path, text_column="told", label_column="by")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "text,label\nx,1\n,0\n ,1\n", r"a\.csv: row 2: an empty text, as most in train"),
        ("a.csv", "text,label\nx,1\ny,\n", r"a\.csv: row 2: label ''; expected a word or a whole number"),
        ("a.csv", "text,label\nx,1\ny\n", r"a\.csv: .*row 2 has 1 fields, the header 2"),
        ("a.csv", 'text,label\nx,1\n"y,0\n', r"a\.csv: .*: line 3: unexpected end of data"),
        ("a.csv", "text,text,label\nx,y,1\n", r"a\.csv: .*column 'text' appears twice"),
        ("a.csv", "text,label\n", r"a\.csv: the train split has no items"),
        ("a.csv", "", r"a\.csv: cannot be read as a table: the file is empty"),
        ("a.csv", "text:label\nx:1\n", r"a\.csv: which column holds the labels\? There are text:label"),
        ("a.csv", "text,label\nx,1\ny,1\n", r"a\.csv: only one class, '1'; expected two or more"),
        ("a.csv", "text,label\nx,a\ny,a\nz,b\n", r"a\.csv: row 3: label 'b' occurs only here"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", r"a\.csv: .*: line 2: b'\\xff' is no utf-8"),
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n\n{"text": 5, "label": 0}',
            r"line 3: '5' \(int\); expected a text",
        ),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}', r"a\.jsonl: .*line 2: 'label' is missing"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": ', r"a\.jsonl: .*line 2: Expecting value"),
        ("a.jsonl", '{"text": "x", "label": 1}\n[1]', r"a\.jsonl: .*line 2: expected an object"),
        ("a.jsonl", '{"text": "x", "label": 0.5}', r"line 1: label 0\.5; expected a word or a whole number"),
        ("a.jsonl", '{"text": "x", "label": [1]}', r"line 1: label \[1\]; expected a word or a whole number"),
        ("a.parquet", b"PAR1 broken", r"a\.parquet: cannot be read as a table"),
        ("a.txt", "x", r"a\.txt: not a kind of file that is known; expected \.csv"),
    ],
)
def test_an_error_in_a_table_names_the_file_and_the_row(load, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(message) as error:
        load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_text_may_be_longer_than_the_csv_module_expects(load, tmp_path):
    path = tmp_path / "long.csv"
    pd.DataFrame({"text": ["x" * 200_000, *TEXTS[1:]], "label": LABELS}).to_csv(path, index=False)
    dataset = load(path)
    assert max(len(text) for items in dataset.items.values() for text in items) == 200_000


def test_a_test_label_that_training_never_saw_is_named(load, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "test.csv").write_text("text,label\na,x\nb,z\n")
    with refused(r"test\.csv: row 2: label 'z' of test does not occur in train"):
        load(tmp_path)


# Image folders


def test_an_image_folder_gives_sorted_labels_and_a_seeded_test_part(load, tmp_path):
    write_folder(tmp_path / "bugs", classes=("wasp", "ant", "bee"), n=8)
    dataset = load(tmp_path / "bugs")
    assert (dataset.name, dataset.modality, dataset.label_names) == ("bugs", "image", ["ant", "bee", "wasp"])
    assert class_counts(dataset).to_numpy().tolist() == [[6, 2]] * 3
    assert dataset.items["train"].shape == (18, 16, 16, 3) and dataset.items["train"].dtype == np.uint8
    assert load(tmp_path / "bugs").fingerprint == dataset.fingerprint
    assert load(tmp_path / "bugs", random_state=1).fingerprint != dataset.fingerprint


def test_every_image_keeps_its_label(load, tmp_path):
    for label, value in (("dark", 10), ("light", 240)):
        for i in range(5):
            path = tmp_path / label / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encoded(np.full((9, 5), value + i, np.uint8)))
    dataset = load(tmp_path, size=4)
    for split, items in dataset.items.items():
        assert ((items[:, 0, 0, 0] > 128) == dataset.labels[split]).all()


def test_split_folders_are_splits_and_other_folders_are_classes(load, tmp_path):
    write_folder(tmp_path / "split", splits=("train", "val"))
    assert {s: len(v) for s, v in load(tmp_path / "split").labels.items()} == {"train": 8, "test": 8}
    write_folder(tmp_path / "vehicles", classes=("train", "bus"))
    assert load(tmp_path / "vehicles").label_names == ["bus", "train"]
    write_folder(tmp_path / "named", splits=("fold1", "fold2"))
    chosen = load(tmp_path / "named", splits={"train": "fold1", "test": "fold2"})
    assert chosen.label_names == ["ant", "bee"] and len(chosen.labels["test"]) == 8


def test_an_error_in_an_image_folder_names_the_item(load, tmp_path):
    paths = write_folder(tmp_path / "bugs", n=2)
    whole = paths[3].read_bytes()
    for content, reason in (
        (whole[:-300], "truncated"),
        (b"", "the file is empty"),
        (b"text", "no known format"),
    ):
        paths[3].write_bytes(content)
        with refused(rf"bugs/bee/1\.png: cannot be read as an image: .*{reason}"):
            load(tmp_path / "bugs")
    assert not list((tmp_path / "cache").glob(".*"))
    paths[3].unlink()
    with refused(r"bugs/bee/0\.png: label 'bee' occurs only here"):
        load(tmp_path / "bugs")
    paths[2].unlink()
    with refused(r"bugs/bee: a class without images; expected \.bmp"):
        load(tmp_path / "bugs")
    paths[2].parent.rmdir()
    with refused(r"bugs: only one class, 'ant'; expected two or more"):
        load(tmp_path / "bugs")
    with refused(r"no data in this folder.*; local forms: an image folder"):
        load(paths[0].parent)


def test_split_folders_without_class_folders_are_not_taken_for_classes(load, tmp_path):
    write_folder(tmp_path, classes=("train", "test"))
    with refused(r"train: no folders in it; expected a folder of images for each class"):
        load(tmp_path)


def test_hidden_files_and_files_that_are_no_images_are_passed_over(load, tmp_path):
    root = tmp_path / "bugs"
    write_folder(root)
    before = load(root).fingerprint
    (root / ".hidden").mkdir()
    (root / "ant" / "._0.png").write_bytes(b"resource fork")
    (root / "ant" / "notes.txt").write_text("x")
    assert load(root).fingerprint == before


# One image


def test_the_shorter_side_is_resized_and_the_middle_is_kept():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (50, 200, 3))
    for pixels in (ramp, ramp.transpose(1, 0, 2)):
        small = decode_image(encoded(pixels), "ramp", 10)
        along = small[0, :, 0] if pixels is ramp else small[:, 0, 0]
        expected = 75 + 5 * np.arange(10) + 2  # the middle 50 of 200 pixels, five to one
        assert small.shape == (10, 10, 3) and np.abs(along.astype(int) - expected).max() <= 1


def test_every_mode_becomes_the_same_grey():
    grey = np.full((12, 16), 102, np.uint8)
    for mode in ("L", "LA", "P", "RGB", "RGBA", "CMYK"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        pixels = decode_image(encoded(grey, kind, mode), mode, 8)
        assert np.abs(pixels.astype(int) - 102).max() <= 1, mode
    for kind in ("PNG", "TIFF", "PPM"):
        assert (decode_image(encoded(grey.astype(np.uint16) * 257, kind), kind, 8) == 102).all()
    bits = decode_image(encoded(grey > 0, mode="1"), "1", 8)
    assert (bits == 255).all()


def test_transparent_parts_are_white():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4, 3] = 255
    shown = decode_image(encoded(pixels), "half", 8)
    assert (shown[:, :3] == 0).all() and (shown[:, 5:] == 255).all()
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0] * 768)
    file = io.BytesIO()
    palette.save(file, "GIF", transparency=3)
    assert (decode_image(file.getvalue(), "gif", 8) == 255).all()


def test_a_photo_is_turned_as_its_exif_data_say():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = decode_image(encoded(pixels, "JPEG", quality=95, exif=exif), "photo", 16)
    assert turned[:7].max() < 30 and turned[9:].min() > 225


def test_a_large_jpeg_looks_as_if_it_had_been_decoded_in_full():
    smooth = np.array(Image.fromarray(image(0, 8, 12)).resize((1200, 800), Image.Resampling.BICUBIC))
    full = decode_image(encoded(smooth), "png", 64).astype(int)
    drafted = decode_image(encoded(smooth, "JPEG", quality=95), "jpeg", 64).astype(int)
    assert np.abs(full - drafted).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97])
def test_a_cut_image_is_refused_in_every_format(kind, share):
    content = encoded(image(1, 90, 120), kind)
    assert decode_image(content, "whole").shape == (64, 64, 3)
    with refused(f"^cut.{kind}: cannot be read as an image: "):
        decode_image(content[: int(share * len(content))], f"cut.{kind}")


def test_deep_pixels_that_use_few_values_are_read_or_said(recwarn):
    grey = np.tile(np.arange(200, 232, dtype=np.int32), (9, 1))
    small = decode_image(encoded(grey, "TIFF"), "small", 9)
    assert (small == decode_image(encoded(grey.astype(np.uint8)), "eight", 9)).all() and not recwarn.list
    with pytest.warns(UserWarning, match="values below 4096 alone and come out nearly black"):
        decode_image(encoded((grey * 16).astype(np.uint16)), "twelve", 9)


def test_a_pointer_in_place_of_an_image_is_told_as_such():
    with refused(r"a\.png: cannot be read as an image: a pointer of Git LFS"):
        decode_image(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "a.png")


def test_pixels_that_are_no_colours_are_refused():
    deep = np.full((4, 4), 70_000, np.int32)
    with refused("x: cannot be read as an image: more than 16 bits a pixel"):
        decode_image(encoded(deep, "TIFF"), "x")
    with refused("x: cannot be read as an image: real numbers as pixels"):
        decode_image(encoded(deep.astype(np.float32), "TIFF"), "x")


# The cache


def cached(folder):
    return sorted(Path(folder).glob("*.npy"))


def test_the_second_load_reads_what_the_first_one_decoded(load, tmp_path):
    write_folder(tmp_path / "bugs")
    first = load(tmp_path / "bugs")
    assert isinstance(first.items["train"], np.memmap) and not first.items["train"].flags.writeable
    files = {path: path.stat().st_mtime_ns for path in cached(tmp_path / "cache")}
    assert len(files) == 2
    second = load(tmp_path / "bugs")
    assert {path: path.stat().st_mtime_ns for path in cached(tmp_path / "cache")} == files
    uncached = load(tmp_path / "bugs", cache=False)
    assert not isinstance(uncached.items["train"], np.memmap)
    assert first.fingerprint == second.fingerprint == uncached.fingerprint


def test_the_cache_follows_the_content_not_the_name(load, tmp_path):
    paths = write_folder(tmp_path / "bugs")
    load(tmp_path / "bugs")
    (tmp_path / "bugs").rename(tmp_path / "moved")
    load(tmp_path / "moved")
    assert len(cached(tmp_path / "cache")) == 2
    before = load(tmp_path / "moved").fingerprint
    changed = tmp_path / "moved" / paths[0].relative_to(tmp_path / "bugs")
    stamp = changed.stat()
    changed.write_bytes(encoded(image(99)))
    os.utime(changed, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert load(tmp_path / "moved").fingerprint != before and len(cached(tmp_path / "cache")) == 3
    assert load(tmp_path / "moved", size=8).items["test"].shape == (2, 8, 8, 3)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "header"])
def test_a_damaged_entry_is_noticed_and_made_anew(load, tmp_path, damage):
    write_folder(tmp_path / "bugs")
    before = load(tmp_path / "bugs").fingerprint
    for path in cached(tmp_path / "cache"):
        content = bytearray(path.read_bytes())
        content[-5 if damage == "flip" else 8] ^= 1
        path.write_bytes({"cut": content[:-100], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match="what was kept is damaged; it is made anew"):
        assert load(tmp_path / "bugs").fingerprint == before
    assert load(tmp_path / "bugs").fingerprint == before and len(cached(tmp_path / "cache")) == 2


LOAD = """
import sys
from transfergraph.data.dataset import load_dataset
print(load_dataset(sys.argv[1], cache=sys.argv[2]).fingerprint)
"""


def start(folder, cache):
    command = [sys.executable, "-c", LOAD, str(folder), str(cache)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_decodes_leaves_no_half_of_an_array(load, tmp_path):
    for i in range(40):
        path = tmp_path / "bugs" / ("ant", "bee")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.full((2000, 2000, 3), i, np.uint8)))
    cache = tmp_path / "cache"
    process = start(tmp_path / "bugs", cache)
    until(lambda: list(cache.glob(".*.part")), process, every=0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(cache.glob(".*.part")) and not cached(cache)
    whole = load(tmp_path / "bugs", cache=False)
    assert load(tmp_path / "bugs").fingerprint == whole.fingerprint and len(cached(cache)) == 2


def test_an_old_leftover_is_cleared_away_and_a_fresh_one_is_not(load, tmp_path):
    write_folder(tmp_path / "bugs")
    (tmp_path / "cache").mkdir()
    old, fresh = tmp_path / "cache" / ".a.part", tmp_path / "cache" / ".b.part"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(old, (time.time() - 1e6,) * 2)
    load(tmp_path / "bugs")
    assert fresh.exists() and not old.exists()


def test_two_processes_may_fill_one_cache_at_the_same_time(tmp_path):
    write_folder(tmp_path / "bugs", n=30)
    processes = [start(tmp_path / "bugs", tmp_path / "cache") for _ in range(2)]
    said = [process.communicate() for process in processes]
    assert {process.returncode for process in processes} == {0}, said
    assert len({out for out, _ in said}) == 1 and len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_named(load, tmp_path):
    write_folder(tmp_path / "bugs")
    (tmp_path / "file").write_text("")
    with refused(
        r"file: cannot keep decoded images: .*; expected a folder to write to, or cache=False", OSError
    ):
        load(tmp_path / "bugs", cache=tmp_path / "file")


def test_the_usual_cache_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSFERGRAPH_CACHE", str(tmp_path / "here"))
    write_folder(tmp_path / "bugs")
    load_dataset(tmp_path / "bugs", size=8)
    assert image_cache_folder() == tmp_path / "here" / "images" and len(cached(image_cache_folder())) == 2


# Few items


def test_few_items_a_class_are_the_same_before_and_after_loading(load, tmp_path):
    write_folder(tmp_path / "bugs", n=12)
    whole, few = load(tmp_path / "bugs"), load(tmp_path / "bugs", per_class=4)
    assert few.fingerprint == whole.subsample(4).fingerprint
    assert class_counts(few).to_numpy().tolist() == [[4, 3], [4, 3]]
    both = load(tmp_path / "bugs", per_class={"train": 2, "test": 1}, random_state=3)
    assert class_counts(both).to_numpy().tolist() == [[2, 1], [2, 1]]
    assert few.subsample(4).fingerprint == few.fingerprint
    with refused("per_class: 0 rows"):
        load(tmp_path / "bugs", per_class=0)
    with refused("per_class: split 'validation' is missing; there are train, test"):
        load(tmp_path / "bugs", per_class={"validation": 1})
    with refused("test_share: 1; expected a number between 0 and 1"):
        load(tmp_path / "bugs", test_share=1)


def test_images_that_are_not_wanted_are_not_decoded(load, tmp_path):
    paths = write_folder(tmp_path / "bugs", splits=("train", "test"), n=6)
    wanted = set(few_rows(np.repeat([0, 1], 6), 2))
    for row, path in enumerate(paths[:12]):
        if row not in wanted:
            path.write_bytes(b"broken")
    assert load(tmp_path / "bugs", per_class=2).items["train"].shape == (4, 16, 16, 3)
    with refused("cannot be read as an image"):
        load(tmp_path / "bugs")


# Saved datasets


def saved_images(n=4, seed=0):
    features = datasets.Features(
        {
            "caption": datasets.Value("string"),
            "image": datasets.Image(),
            "kind": datasets.ClassLabel(names=["z", "a"]),
        }
    )
    rows = [{"bytes": encoded(image(seed + i)), "path": None} for i in range(2 * n)]
    columns = {"caption": [f"x {seed + i}" for i in range(2 * n)], "image": rows, "kind": [0, 1] * n}
    return datasets.Dataset.from_dict(columns, features)


def test_saved_images_are_found_by_type_and_keep_the_order_of_their_labels(load, tmp_path):
    splits = {"train": saved_images(), "validation": saved_images(2, seed=50)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    dataset = load(tmp_path / "saved")
    assert (dataset.name, dataset.modality, dataset.label_names) == ("saved", "image", ["z", "a"])
    assert dataset.labels["train"].tolist() == [0, 1] * 4 and len(dataset.labels["test"]) == 4
    assert (dataset.items["train"][5] == decode_image(encoded(image(5)), "", 16)).all()
    texts = load(tmp_path / "saved", text_column="caption")
    assert texts.modality == "text" and texts.items["train"][0] == "x 0"


def test_an_image_folder_and_the_same_images_saved_have_the_same_content(load, tmp_path):
    paths = write_folder(tmp_path / "bugs", splits=("train", "test"))
    labels = [["ant", "bee"].index(path.parent.name) for path in paths]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    )
    whole = datasets.Dataset.from_dict({"image": [str(p) for p in paths], "label": labels}, features)
    splits = {"train": whole.select(range(8)), "test": whole.select(range(8, 16))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").fingerprint == load(tmp_path / "bugs").fingerprint


def test_one_saved_table_gets_a_test_part_and_plain_labels_are_sorted(load, tmp_path):
    datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS}).save_to_disk(tmp_path / "saved")
    dataset = load(tmp_path / "saved")
    assert dataset.label_names == ["no", "yes"] and len(dataset.labels["test"]) == 2
    pd.DataFrame({"text": TEXTS, "label": LABELS}).to_csv(tmp_path / "same.csv", index=False)
    assert load(tmp_path / "same.csv").fingerprint == dataset.fingerprint


def test_a_split_with_hidden_labels_is_passed_over(load, tmp_path):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "y"])}
    )
    labels = {"train": [0, 1] * 4, "validation": [1, 0] * 4, "test": [-1] * 8}
    splits = {
        s: datasets.Dataset.from_dict({"sentence": [f"{s} {t}" for t in TEXTS], "label": v}, features)
        for s, v in labels.items()
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "glue")
    assert load(tmp_path / "glue").labels["test"].tolist() == [1, 0] * 4
    with refused(r"glue: test, row 1: label -1; expected 0 to 1"):
        load(tmp_path / "glue", splits={"train": "train", "test": "test"})


def test_names_of_labels_survive_a_parquet_file_of_the_datasets_library(load, tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])}
    )
    table = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1] * 4}, features)
    table.to_parquet(tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet").label_names == ["z", "a"]


def test_an_error_in_a_saved_data_set_names_the_item(load, tmp_path):
    table = saved_images()
    broken = [{"bytes": encoded(image(i))[:-200], "path": None} for i in range(8)]
    wrong = datasets.Dataset.from_dict(
        {"image": broken, "kind": [0, 1] * 4}, table.select_columns(["image", "kind"]).features
    )
    wrong.save_to_disk(tmp_path / "broken")
    with refused(r"broken: train, row \d: cannot be read as an image: image file is truncated"):
        load(tmp_path / "broken")
    none = datasets.Dataset.from_dict({"image": [None] * 8, "kind": [0, 1] * 4}, wrong.features)
    none.save_to_disk(tmp_path / "none")
    with refused(r"none: train, row \d: no image; expected the bytes or the path of one"):
        load(tmp_path / "none")
    gone = [{"bytes": None, "path": str(tmp_path / "gone.png")}] * 8
    lost = datasets.Dataset.from_dict({"image": gone, "kind": [0, 1] * 4}, wrong.features)
    decode = functools.partial(decode_images, cache=False)
    with refused(r"lost: train, row 2: cannot be read: No such file"):
        read_arrow(lost, None, None, None, decode, "lost").parts["train"].fetch(np.array([1]))
    table.save_to_disk(tmp_path / "cut")
    (arrow,) = (tmp_path / "cut").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with refused(r"cut: cannot be read as a saved dataset: "):
        load(tmp_path / "cut")
    with refused(r"column 'labl' is missing; there are caption, image, kind"):
        table.save_to_disk(tmp_path / "fine")
        load(tmp_path / "fine", label_column="labl")


# Names that are no path


@pytest.mark.parametrize(
    "spec", ["gone.csv", "./gone", "/no/such/folder", "a/b/c", "~/no such folder", Path("gone"), ""]
)
def test_a_path_that_does_not_exist_never_asks_the_hub(load, spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(r"no such file or folder; local forms: ", FileNotFoundError):
        load(spec)


@pytest.mark.parametrize("spec", ["stanfordnlp/imdb", "glue:sst2"])
def test_without_the_hub_one_error_says_what_else_there_is(spec):
    code = f"from transfergraph.data.dataset import load_dataset; load_dataset({spec!r})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"ConnectionError: {spec}: nothing local has this name and the Hugging Face hub could not"
    )
    assert "HF_HUB_OFFLINE is set and its cache holds no copy" in last and READABLE in last


def test_importing_the_module_imports_no_heavy_library():
    heavy = {
        "torch",
        "PIL",
        "datasets",
        "transformers",
        "timm",
        "matplotlib",
        "transfergraph.data.toy_images",
    }
    code = "import sys, transfergraph.data.dataset; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not heavy & set(run.stdout.split())


def test_embedded_names_load_without_any_file(load):
    assert embedded_names() == list(EMBEDDED)
    if not embedded_names():
        pytest.skip("there are no embedded datasets yet")
    name = "digits" if "digits" in EMBEDDED else embedded_names()[0]
    dataset = load(name, per_class=3)
    items, labels, label_names, licence = EMBEDDED[name]()
    assert (dataset.name, dataset.label_names, dataset.licence) == (name, label_names, licence) and licence
    assert np.bincount(dataset.labels["train"]).max() <= 3
    assert np.array_equal(dataset.items["test"], items["test"])
    assert np.array_equal(dataset.labels["test"], labels["test"])


# The value itself


def test_a_data_set_that_contradicts_itself_is_refused():
    items = {"train": np.zeros((2, 4, 4, 3), np.uint8), "test": np.zeros((1, 4, 4, 3), np.uint8)}
    labels = {"train": np.array([0, 1]), "test": np.array([1])}
    dataset = Dataset("d", "image", items, labels, ["a", "b"])
    assert dataset.n_classes == 2 and repr(dataset) == "Dataset('d', image, 2 classes, 2 train, 1 test)"
    for wrong, message in (
        ({"labels": labels | {"test": np.array([2])}}, "test: label 2; expected 0 to 1"),
        ({"labels": labels | {"test": np.array([-1])}}, "test: label -1; expected 0 to 1"),
        (
            {"labels": labels | {"test": np.array([0, 1])}},
            "test: 1 items, int64 .* labels; expected one integer",
        ),
        (
            {"labels": labels | {"test": np.array([0.5])}},
            "test: 1 items, float64 .* labels; expected one integer",
        ),
        ({"items": {"train": items["train"]}}, "expected both of train, test"),
        ({"items": items | {"test": np.zeros((1, 4, 4))}}, r"test: float64 \(1, 4, 4\) as image items"),
        ({"modality": "sound"}, "as sound items"),
    ):
        with refused(message):
            Dataset(
                **{
                    "name": "d",
                    "modality": "image",
                    "items": items,
                    "labels": labels,
                    "label_names": ["a", "b"],
                }
                | wrong
            )
    with refused("split 'dev' is missing; there are train, test"):
        dataset.subsample(1, split="dev")


def test_the_fingerprint_tells_every_difference_in_content():
    texts = {"train": np.array(["a", "bc"], object), "test": np.array(["d"], object)}
    labels = {"train": np.array([0, 1]), "test": np.array([0])}

    def of(texts=texts, labels=labels, names=("x", "y")):
        return Dataset("n", "text", texts, labels, list(names)).fingerprint

    others = [
        of(texts | {"train": np.array(["ab", "c"], object)}),
        of(texts | {"test": np.array(["e"], object)}),
        of(labels=labels | {"test": np.array([1])}),
        of(names=("y", "x")),
    ]
    assert len({of(), *others}) == 5 and of() == of(labels={s: v.astype(np.int32) for s, v in labels.items()})
    assert len(of()) == 16 and int(of(), 16) >= 0
