"""Nothing of train is in the test: copies are told by pixels and words, and kept on one side."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transfergraph.data.copies import contradictions, item_keys, not_seen_before
from transfergraph.data.dataset import EMBEDDED, few_rows, load_dataset, set_aside
from transfergraph.data.folders import group_copies, normalised


def said(path, **options):
    "The dataset, and what was said about it."
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dataset = load_dataset(path, progress=False, **({"size": 8} | options))
    return dataset, [str(warning.message) for warning in found]


def shared(dataset, one="train", other="test"):
    keys = {split: set(item_keys(items)) for split, items in dataset.items.items()}
    return len(keys[one] & keys[other])


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_rows_of_a_group_stay_on_one_side_and_each_class_on_both(rows, seed):
    labels = np.array([label for label, _ in rows] + [0, 0, 1, 1, 2, 2])
    groups = np.array([10 * label + item for label, item in rows] + list(range(100, 106)))
    train, test = set_aside(labels, 0.25, seed, groups)
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert not set(groups[train]) & set(groups[test])
    assert set(labels[train]) == set(labels[test]) == {0, 1, 2}


def test_without_copies_the_parts_are_those_without_groups():
    labels = np.random.default_rng(0).integers(0, 3, 50)
    for groups in (np.arange(50), np.random.default_rng(1).permutation(50)):
        alone, grouped = set_aside(labels, 0.3, 1), set_aside(labels, 0.3, 1, groups)
        assert all(np.array_equal(a, b) for a, b in zip(alone, grouped))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(1, 4), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_number_of_rows_in_all_covers_classes_evenly(labels, per_class, most):
    labels = np.array(labels)
    whole, rows = few_rows(labels, per_class), few_rows(labels, per_class, most=most)
    assert len(rows) == min(most, len(whole)) and set(rows) <= set(whole)
    counts, possible = np.bincount(labels[rows], minlength=31), np.bincount(labels[whole], minlength=31)
    short = counts < possible
    if short.any():
        assert counts.max() - counts[short].min() <= 1


def test_what_counts_as_the_same_text():
    same = ["Good  film", " good\tfilm", "ＧＯＯＤ film", "good\u00a0film"]
    assert len({normalised(text) for text in same}) == 1 and normalised("good-film") != normalised(
        "good film"
    )


def test_contents_are_only_read_where_their_sizes_agree():
    read = []
    contents = [lambda i=i: read.append(i) or b"ab"[i % 2 : i % 2 + 1] for i in range(4)]
    assert group_copies(contents, [1, 1, 1, 5]).tolist() == [0, 1, 0, 2] and read == [0, 1, 2]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_repeated_rows_stay_on_one_side(tmp_path, kind):
    texts = [f"text {i}" if k % 2 else f"TEXT  {i}" for k in range(4) for i in range(30)]
    frame = pd.DataFrame({"text": texts, "label": [i % 2 for i in range(30)] * 4})
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path) if kind == "parquet" else frame.to_json(path, orient="records", lines=True)
    dataset, (line,) = said(path)
    assert shared(dataset) == 0 and "90 of 120 items are copies of others" in line
    assert sum(map(len, dataset.labels.values())) == 120
    kept, lines = said(path, keep_copies=True)
    assert shared(kept) > 0 and not lines


def test_copies_of_train_are_left_out_of_test_and_validation(tmp_path):
    texts = {"train": "abcdef", "test": "Abghij", "validation": "ahklmn"}
    for split, found in texts.items():
        frame = pd.DataFrame({"text": list(found), "label": [0, 1] * 3})
        frame.to_csv(tmp_path / f"{split}.csv", index=False)
    dataset, lines = said(tmp_path)
    assert {s: "".join(v) for s, v in dataset.items.items()} == {
        "train": "abcdef",
        "test": "ghij",
        "validation": "klmn",
    }
    assert any(
        "2 of 6 items of test are also in train and are left out; keep_copies=True" in x for x in lines
    )
    assert any("2 of 6 items of validation are also in train or test" in line for line in lines)
    whole = said(tmp_path, keep_copies=True)[0]
    assert {len(labels) for labels in whole.labels.values()} == {6}


def test_a_test_that_is_all_of_train_is_made_anew(tmp_path):
    for split in ("train", "test"):
        frame = pd.DataFrame({"text": list("abcdefgh"), "label": [0, 1] * 4})
        frame.to_csv(tmp_path / f"{split}.csv", index=False)
    dataset, lines = said(tmp_path)
    assert shared(dataset) == 0 and {s: len(v) for s, v in dataset.labels.items()} == {"train": 6, "test": 2}
    assert any("no test item is left; a part of train is the test" in line for line in lines)


def test_an_item_with_two_labels_is_counted(tmp_path):
    frame = pd.DataFrame({"text": [*"abcdef", "A", "b"], "label": [0, 1, 0, 1, 0, 1, 1, 1]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert any("1 items occur with two labels" in line for line in said(tmp_path / "a.csv")[1])


@pytest.mark.parametrize("cache", [False, None])
def test_the_same_pixels_in_another_file_are_a_copy(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("TRANSFERGRAPH_CACHE", str(tmp_path / "cache"))
    for split, start in (("train", 0), ("test", 4)):
        for i in range(8):
            path = tmp_path / "data" / split / "xy"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(noise(start + i), compress_level=1 if split == "test" else 9))
    dataset, (line,) = said(tmp_path / "data", cache=cache)
    assert shared(dataset) == 0 and dataset.items["test"].shape == (4, 8, 8, 3)
    assert "4 of 8 items of test are also in train" in line
    labels = {item.tobytes(): y for item, y in zip(dataset.items["test"], dataset.labels["test"])}
    assert labels == {noise(8 + k).tobytes(): k % 2 for k in range(4)}


def test_copies_of_one_image_file_stay_on_one_side(tmp_path):
    for i in range(24):
        path = tmp_path / "xy"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(noise(i % 8)))
    dataset, (line,) = said(tmp_path, cache=False)
    assert shared(dataset) == 0 and "16 of 24 items are copies" in line
    assert {s: len(v) for s, v in dataset.labels.items()} == {"train": 18, "test": 6}


def test_keys_of_a_memory_map_are_those_of_the_array(tmp_path):
    images = np.random.default_rng(0).integers(0, 2, (700, 2, 2, 3)).astype(np.uint8)
    np.save(tmp_path / "a.npy", images)
    keys = item_keys(np.load(tmp_path / "a.npy", mmap_mode="r"))
    same = [[(images[i] == images[j]).all() for j in range(300)] for i in range(0, 300, 50)]
    assert same == [[keys[i] == keys[j] for j in range(300)] for i in range(0, 300, 50)]


def test_what_is_new_and_what_disagrees_is_told_from_keys():
    keys = {"train": [b"a", b"b"], "test": [b"b", b"c"], "validation": [b"c", b"d"]}
    fresh = {split: found.tolist() for split, found in not_seen_before(keys).items()}
    assert fresh == {"test": [False, True], "validation": [False, True]}
    labels = {"train": np.array([0, 1]), "test": np.array([1, 0]), "validation": np.array([1, 0])}
    assert contradictions(keys, labels) == 1


@pytest.mark.parametrize("name", ["digits", "letters"])
def test_embedded_datasets_are_taken_as_they_are(name):
    dataset, lines = said(name)
    items, labels, names, _ = EMBEDDED[name]()
    assert not lines and dataset.label_names == names
    for split, found in items.items():
        assert np.array_equal(dataset.items[split], found)
        assert np.array_equal(dataset.labels[split], labels[split])
