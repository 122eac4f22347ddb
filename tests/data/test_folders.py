"""Which file of a folder is what: splits, classes, tables and images, and what is left out."""

import csv
import io
import json
import os
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from transfergraph.data.dataset import load_dataset
from transfergraph.data.folders import choose_splits, split_of
from transfergraph.data.images import decode_image


def refused(match):
    return pytest.raises(ValueError, match=match)


def said(path, **options):
    "The dataset, and what was said about it."
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dataset = load_dataset(path, progress=False, cache=False, size=8, **options)
    return dataset, [str(warning.message) for warning in found]


def loaded(path, **options):
    return said(path, **options)[0]


def sizes(dataset):
    return {split: len(labels) for split, labels in dataset.labels.items()}


def png(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


SEEN = iter(range(10**6))


def images(folder, n=4):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / f"{i}.png").write_bytes(png(next(SEEN)))


def layout(root, *folders, n=4):
    for folder in folders:
        images(root / folder, n)
    return root


@pytest.mark.parametrize(
    "train, test, other",
    [
        ("training_set", "test_set", None),
        ("seg_train", "seg_test", None),
        ("train", "eval", None),
        ("train", "holdout", None),
        ("TRAIN", "Dev", None),
        ("trainset", "valid", None),
        ("TrainImages", "TestImages", "ValImages"),
        ("cats_training", "cats_evaluation", "cats_validation"),
        ("train2017", "test2017", "val2017"),
        ("train", "test", "eval"),
    ],
)
def test_splits_are_known_by_the_words_in_their_names(tmp_path, train, test, other):
    splits = [s for s in (train, test, other) if s]
    dataset = loaded(layout(tmp_path, *(f"{s}/{c}" for s in splits for c in ("ant", "bee"))))
    assert dataset.label_names == ["ant", "bee"] and set(sizes(dataset).values()) == {8}
    assert set(sizes(dataset)) == {"train", "test", *(["validation"] if other else [])}


@pytest.mark.parametrize(
    "name", ["contest", "trainer", "latest", "valley", "developer", "train_test", "strain", "bus"]
)
def test_other_words_are_no_splits(name):
    assert split_of(name) is None


def test_names_of_classes_may_hold_the_word_of_a_split(tmp_path):
    assert loaded(layout(tmp_path, "steam train", "bus", "test tube")).n_classes == 3


@pytest.mark.parametrize(
    "folders, message",
    [
        (["fold1/a", "fold1/b", "fold2/a", "fold2/b"], r"fold1, fold2 each hold a, b: splits, or classes\?"),
        (["train_a/x", "train_a/y", "train_b/x", "train_b/y", "test/x"], "may each be the train split"),
        (["train/cat", "train/dog", "photos"], r"train holds cat, dog: splits, or classes\?"),
        (["train", "test"], "train: no folders in it; expected a folder of images for each class"),
    ],
)
def test_a_layout_that_may_mean_two_things_is_refused_with_the_option(tmp_path, folders, message):
    with refused(message) as error:
        loaded(layout(tmp_path, *folders))
    assert "splits={'train': " in str(error.value)


def test_the_option_decides(tmp_path):
    layout(tmp_path, "fold1/a", "fold1/b", "fold2/a", "fold2/b")
    assert loaded(tmp_path, splits={"train": "fold1", "test": "fold2"}).label_names == ["a", "b"]
    assert loaded(tmp_path, splits={"train": "."}).label_names == ["fold1", "fold2"]


def test_splits_may_lie_inside_classes_and_folders_around_it_all(tmp_path):
    inside = loaded(layout(tmp_path / "a", "cat/train", "cat/test", "dog/train", "dog/test"))
    assert inside.label_names == ["cat", "dog"] and sizes(inside) == {"train": 8, "test": 8}
    around = loaded(layout(tmp_path / "b", "archive/data/cat", "archive/data/dog"))
    assert around.label_names == ["cat", "dog"]


def test_a_test_without_classes_has_no_labels_and_is_left_out(tmp_path):
    layout(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "test")
    dataset, lines = said(tmp_path)
    assert sizes(dataset) == {"train": 8, "test": 8}
    assert any("test has no folders for classes" in line for line in lines)


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path):
    names = ("__MACOSX", "@eaDir", "System Volume Information", "lost+found", "$RECYCLE.BIN", ".git")
    layout(tmp_path, "cat", "dog", ".ipynb_checkpoints", *(f"{name}/cat" for name in names), "cat/@eaDir")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    dataset, lines = said(tmp_path)
    assert dataset.label_names == ["cat", "dog"] and sum(sizes(dataset).values()) == 8 and not lines


def test_links_are_followed_once_and_never_into_another_class(tmp_path):
    layout(tmp_path, "cat", "dog")
    os.symlink(".", tmp_path / "cat" / "latest")
    os.symlink("0.png", tmp_path / "dog" / "again.png")
    assert sum(sizes(loaded(tmp_path)).values()) == 8
    os.symlink("../dog", tmp_path / "cat" / "more")
    with refused("is also in class '(cat|dog)' by a link; expected each item in one class"):
        loaded(tmp_path)


@pytest.mark.parametrize("suffix", [".HEIC", ".avif", ".jp2", ".CR2", ".JPG~", ".txt", ""])
def test_files_that_are_not_read_are_counted(tmp_path, suffix):
    layout(tmp_path, "cat", "dog")
    for i in range(6):
        (tmp_path / "dog" / f"IMG_{i}{suffix}").write_bytes(b"x")
    dataset, (line,) = said(tmp_path)
    assert sum(sizes(dataset).values()) == 8
    assert f"6 files are not read (6 {suffix or 'without suffix'}), 6 of 10 of class 'dog'" in line
    for path in (tmp_path / "dog").glob("*.png"):
        path.unlink()
    with refused(rf"dog: a class without images \(6 {suffix or 'files without suffix'}\)"):
        loaded(tmp_path)


def test_hidden_images_are_counted(tmp_path):
    layout(tmp_path, "cat", "dog")
    (tmp_path / "cat" / ".hidden.png").write_bytes(png(1))
    assert any("1 hidden" in line for line in said(tmp_path)[1])


def texts(folder, n=4):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (folder / f"{i}_7.txt").write_text(f"text {next(SEEN)} caf\u00e9", encoding="utf-8")


def test_folders_of_text_files_are_texts(tmp_path):
    for place in ("train/pos", "train/neg", "train/unsup", "test/pos", "test/neg"):
        texts(tmp_path / place)
    (tmp_path / "train" / "urls.txt").write_text("x")
    dataset, lines = said(tmp_path)
    assert dataset.modality == "text" and dataset.label_names == ["neg", "pos"]
    assert sizes(dataset) == {"train": 8, "test": 8} and any("unsup is no class" in line for line in lines)
    (tmp_path / "test" / "neg" / "9.txt").write_bytes("caf\u00e9".encode("cp1252"))
    with refused(r"neg/9\.txt: line 1: .* is no utf-8"):
        loaded(tmp_path)
    (tmp_path / "test" / "neg" / "9.txt").write_text(" \n")
    assert any("1 empty texts are left out" in line for line in said(tmp_path)[1])


# Tables and images beside each other


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def labelled(names):
    return [["file_name", "label"], *([name, ("cat", "dog")[i % 2]] for i, name in enumerate(names))]


def test_a_table_beside_images_labels_them(tmp_path):
    images(tmp_path / "flat", 8)
    table(tmp_path / "flat" / "metadata.csv", labelled([f"{i}.png" for i in range(8)]))
    images(tmp_path / "sub" / "images", 8)
    table(tmp_path / "sub" / "labels.csv", labelled([f"{i}.png" for i in range(8)]))
    for split in ("train", "test"):
        images(tmp_path / "split" / split, 6)
        rows = labelled([f"{i}.png" for i in range(6)])
        table(tmp_path / "split" / split / "metadata.csv", [["file_name", "breed"], *rows[1:]])
    images(tmp_path / "one" / "train", 6)
    images(tmp_path / "one" / "test", 2)
    names = [f"train/{i}.png" for i in range(6)] + ["test/0.png", "test/1.png"]
    table(tmp_path / "one" / "metadata.csv", labelled(names))
    expected = {"flat": {"train": 6, "test": 2}, "sub": {"train": 6, "test": 2}}
    expected |= {"split": {"train": 6, "test": 6}, "one": {"train": 6, "test": 2}}
    for name, found in expected.items():
        dataset = loaded(tmp_path / name)
        assert (dataset.modality, dataset.label_names, sizes(dataset)) == ("image", ["cat", "dog"], found), (
            name
        )
    assert loaded(tmp_path / "flat" / "metadata.csv").modality == "image"
    (tmp_path / "flat" / "3.png").unlink()
    with refused(r"metadata\.csv: row 4: image file '3\.png' is not there"):
        loaded(tmp_path / "flat")


def test_folders_are_the_classes_where_a_table_beside_them_has_no_labels(tmp_path):
    layout(tmp_path, "cat", "dog")
    names = [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(4)]
    table(tmp_path / "metadata.csv", [["file_name", "width"], *([name, 9] for name in names)])
    dataset, (line,) = said(tmp_path)
    assert dataset.label_names == ["cat", "dog"] and "not read: metadata.csv" in line


def test_bytes_beside_texts_are_no_images(tmp_path):
    frame(0).assign(key=[b"k"] * 8).to_parquet(tmp_path / "a.parquet")
    assert loaded(tmp_path / "a.parquet").modality == "text"


def test_a_table_that_names_no_image_beside_it_is_no_dataset_of_texts(tmp_path):
    images(tmp_path, 8)
    table(tmp_path / "labels.csv", [["id", "text", "label"], *([i, f"t {i}", i % 2] for i in range(8))])
    with refused(r"images, and tables beside them \(labels\); expected a metadata\.csv"):
        loaded(tmp_path)


def frame(seed, n=8):
    return pd.DataFrame({"text": [f"text {seed} {i}" for i in range(n)], "label": [i % 2 for i in range(n)]})


def test_a_folder_as_hubs_lay_it_out_is_read(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / "data").mkdir()
    for seed, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001-ab12")):
        frame(seed).to_parquet(tmp_path / "data" / f"{name}.parquet")
    for place in (tmp_path, tmp_path / "data"):
        assert sizes(loaded(place)) == {"train": 16, "test": 8}
    (tmp_path / "data" / "train-00001-of-00002.parquet").unlink()
    with refused("part 1 of 0 to 1 is missing beside it"):
        loaded(tmp_path)


def test_configurations_are_named_and_folders_of_splits_are_read(tmp_path):
    for i, place in enumerate(("en/train/0000.parquet", "en/test/0000.parquet", "de/train/0000.parquet")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        frame(i).to_parquet(tmp_path / place)
    with refused("de, en each hold tables; expected one of them, such as .*de"):
        loaded(tmp_path)
    assert sizes(loaded(tmp_path / "en")) == {"train": 8, "test": 8}


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "train.parquet"),
        ("train.csv", "training.csv"),
        ("train_a.csv", "train_b.csv"),
        ("train.csv", "train.csv.gz"),
    ],
)
def test_two_files_for_one_split_are_refused(tmp_path, names):
    for seed, name in enumerate([*names, "test.csv"]):
        path = tmp_path / name
        frame(seed).to_parquet(path) if path.suffix == ".parquet" else frame(seed).to_csv(path, index=False)
    with refused("expected one for a split|may each be the train split"):
        loaded(tmp_path)


def test_other_files_beside_the_splits_are_said_not_to_be_read(tmp_path):
    for seed, name in enumerate(("train", "test", "sample_submission", "train_old")):
        frame(seed).to_csv(tmp_path / f"{name}.csv", index=False)
    dataset, (line,) = said(tmp_path)
    assert dataset.items["train"][0] == "text 0 0" and "not read: sample_submission, train_old" in line
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    for i in range(3):
        frame(i).to_csv(numbered / f"train_{i}.csv", index=False)
    dataset, (line,) = said(numbered)
    assert (
        sum(sizes(dataset).values()) == 24 and "train_0.csv, train_1.csv, train_2.csv are read as one" in line
    )


def test_images_in_parquet_are_read_row_by_row(tmp_path):
    cells = [{"bytes": png(i), "path": f"{i}.png"} for i in range(8)]
    (tmp_path / "data").mkdir()
    for split, start in (("train", 0), ("test", 4)):
        part = pd.DataFrame({"image": cells[start : start + 4], "label": ["x", "y"] * 2, "id": range(4)})
        part.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", row_group_size=3)
    dataset = loaded(tmp_path)
    assert dataset.modality == "image" and sizes(dataset) == {"train": 4, "test": 4}
    alone = pd.DataFrame({"image": [cell["bytes"] for cell in cells], "label": ["x", "y"] * 4})
    alone.to_parquet(tmp_path / "alone.parquet")
    whole = loaded(tmp_path / "alone.parquet")
    pixels = {image.tobytes() for items in whole.items.values() for image in items}
    assert pixels == {image.tobytes() for items in dataset.items.values() for image in items}
    alone.assign(image=[None, *alone.image[1:]]).to_parquet(tmp_path / "alone.parquet")
    with refused("row 1: no image"):
        loaded(tmp_path / "alone.parquet")


def test_a_folder_here_goes_before_an_embedded_dataset_of_its_name(tmp_path, monkeypatch):
    layout(tmp_path / "digits", "a", "b")
    monkeypatch.chdir(tmp_path)
    dataset, (line,) = said("digits")
    assert (
        dataset.label_names == ["a", "b"] and "the folder ./digits is read, not the embedded dataset" in line
    )
    assert not said("./digits")[1] and loaded("./digits").fingerprint == dataset.fingerprint


def test_names_that_are_no_utf8_are_names(tmp_path):
    layout(tmp_path, "a", "b")
    os.rename(os.fsencode(tmp_path / "b"), os.fsencode(tmp_path) + b"/caf\xe9")
    assert loaded(tmp_path).label_names == ["a", "caf\\udce9"]


@pytest.mark.parametrize(
    "found, wanted, chosen",
    [
        (["train", "test"], None, {"train": "train", "test": "test"}),
        (["train", "dev", "eval"], None, {"train": "train", "test": "eval", "validation": "dev"}),
        (["train", "dev", "test"], {"test": "dev"}, {"train": "train", "test": "dev"}),
        (["a", "b"], {"train": "b"}, {"train": "b"}),
    ],
)
def test_splits_are_chosen_as_asked_or_by_name(found, wanted, chosen):
    assert choose_splits(found, wanted, "x") == chosen


# Folders that are no classes


@pytest.mark.parametrize(
    "folders",
    [
        ["images", "masks"],
        ["JPEGImages", "SegmentationClass"],
        ["train/images", "train/masks", "test/images", "test/masks"],
        ["train/img", "train/gt", "train/more"],
        ["train2017", "val2017", "annotations"],
    ],
)
def test_images_beside_what_is_marked_in_them_are_no_classes(tmp_path, folders):
    with refused("look like images and what is marked in them, not like classes"):
        loaded(layout(tmp_path, *folders))


def test_boxes_in_files_beside_images_are_no_class(tmp_path):
    for split in ("train", "val"):
        images(tmp_path / "images" / split)
        texts(tmp_path / "labels" / split)
    with refused("images and labels look like images and what is marked in them"):
        loaded(tmp_path)


def test_classes_may_be_called_as_annotations(tmp_path):
    assert loaded(layout(tmp_path / "a", "mask", "no_mask")).label_names == ["mask", "no_mask"]
    layout(tmp_path / "b", "images", "labels")
    assert loaded(tmp_path / "b", splits={"train": "."}).label_names == ["images", "labels"]


@pytest.mark.parametrize("other", ["extra", "more_images", "pictures"])
def test_flat_splits_beside_another_folder_are_no_classes(tmp_path, other):
    with refused("train: no folders in it; expected a folder of images for each class"):
        loaded(layout(tmp_path, "train", "test", other))


@pytest.mark.parametrize("only", ["images", "unknown", "test"])
def test_a_test_in_one_folder_of_no_class_has_no_labels(tmp_path, only):
    layout(tmp_path, "train/cat/images", "train/dog/images", "val/cat", "val/dog", f"test/{only}")
    dataset, lines = said(tmp_path)
    assert sizes(dataset) == {"train": 8, "test": 8} and dataset.label_names == ["cat", "dog"]
    assert any("test has no folders for classes of train, so no labels" in line for line in lines)


def test_images_outside_of_classes_are_counted(tmp_path):
    layout(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog", "train", n=3)
    dataset, (line,) = said(tmp_path)
    assert sizes(dataset) == {"train": 6, "test": 6} and "3 images lie in no folder of a class" in line


def test_names_of_folders_that_are_almost_alike_are_said_or_refused(tmp_path):
    dataset, (line,) = said(layout(tmp_path / "a", "Cat", "cat", "dog"))
    assert dataset.n_classes == 3 and "labels 'Cat', 'cat' are different classes" in line
    with refused("another folder has the same name"):
        loaded(layout(tmp_path / "b", "caf\u00e9", "cafe\u0301", "tea"))


NAMES = {  # how a table calls the images {images/0.png, ...} -> whether a line says how they were found
    "images/{}.png": False,
    "images\\{}.png": False,
    "./images/{}.png": False,
    "{}.png": False,
    "Images/{}.PNG": False,
    "D:\\mine\\images\\{}.png": True,
    "/data/photos/{}.png": True,
    "{}": True,
}


@pytest.mark.parametrize("form", NAMES)
def test_images_are_found_by_the_names_that_another_machine_gave_them(tmp_path, form):
    images(tmp_path / "images", 8)
    rows = [["file", "label"], *([form.format(i), "xy"[i % 2]] for i in range(8))]
    table(tmp_path / "labels.csv", rows)
    dataset, lines = said(tmp_path)
    assert (dataset.modality, dataset.label_names) == ("image", ["x", "y"])
    seen = {}
    for split, items in dataset.items.items():
        seen |= {item.tobytes(): dataset.label_names[y] for item, y in zip(items, dataset.labels[split])}
    side = dataset.items["train"].shape[1]
    files = [(tmp_path / "images" / f"{i}.png").read_bytes() for i in range(8)]
    assert [seen[decode_image(file, "", side).tobytes()] for file in files] == list("xyxyxyxy")
    assert any("are looked for as" in line for line in lines) == NAMES[form]


def test_an_image_of_another_class_never_stands_for_one_that_is_missing(tmp_path):
    layout(tmp_path / "photos", "cat", "dog")
    names = [f"photos/{label}/{i}.png" for label in ("cat", "dog") for i in range(4)]
    table(tmp_path / "metadata.csv", labelled(names))
    assert loaded(tmp_path).modality == "image"
    (tmp_path / "photos" / "cat" / "3.png").unlink()
    with refused(r"metadata\.csv: row 4: image file 'photos/cat/3\.png' is not there"):
        loaded(tmp_path)


def test_names_without_a_suffix_are_found_in_several_folders(tmp_path):
    for part in (1, 2):
        images(tmp_path / f"part_{part}", 4)
        for i in range(4):
            (tmp_path / f"part_{part}" / f"{i}.png").rename(tmp_path / f"part_{part}" / f"i{part}{i}.png")
    names = [f"i{part}{i}" for part in (1, 2) for i in range(4)]
    table(tmp_path / "metadata.csv", labelled(names))
    assert sizes(loaded(tmp_path)) == {"train": 6, "test": 2}


def test_addresses_and_rows_without_a_key_beside_names_of_images_do_not_matter(tmp_path):
    images(tmp_path, 8)
    rows = [
        {"url": f"https://example.org/{i}.png", "file_name": f"{i}.png", "label": i % 2} for i in range(8)
    ]
    rows[3]["note"] = "blurred"
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert sizes(loaded(tmp_path)) == {"train": 6, "test": 2}


def test_each_table_beside_images_is_a_split(tmp_path):
    images(tmp_path / "images", 12)
    for name, found in (("train", range(8)), ("test", range(8, 12))):
        table(tmp_path / f"{name}.csv", labelled([f"images/{i}.png" for i in found]))
    table(tmp_path / "sample_submission.csv", labelled([f"images/{i}.png" for i in range(8, 12)]))
    dataset, lines = said(tmp_path)
    assert sizes(dataset) == {"train": 8, "test": 4} and not lines


def test_a_table_of_images_that_are_all_missing_is_named(tmp_path):
    images(tmp_path / "images", 8)
    table(tmp_path / "labels.csv", labelled([f"photo_{i}.jpg" for i in range(8)]))
    with refused(r"labels\.csv: none of the images in column 'file_name', such as 'photo_0\.jpg', is there"):
        loaded(tmp_path)


@pytest.mark.parametrize("suffix, advice", [(".tar", "unpack it"), (".xlsx", "save it as CSV")])
def test_what_must_be_unpacked_or_saved_first_is_said(tmp_path, suffix, advice):
    (tmp_path / f"a{suffix}").write_bytes(b"x")
    with refused(f"a{suffix}: not a kind of file that is known; .*; {advice}"):
        loaded(tmp_path / f"a{suffix}")
    with refused(rf"no data in this folder \(it has 1 {suffix}; {advice}\)"):
        loaded(tmp_path)


def test_masks_beside_images_in_a_class_are_said(tmp_path):
    layout(tmp_path, "benign", "malignant", n=8)
    for label in ("benign", "malignant"):
        for i in range(4):
            (tmp_path / label / f"{i + 4}.png").rename(tmp_path / label / f"{i}_mask.png")
    (line,) = said(tmp_path)[1]
    assert "8 images are called as masks of others and are read as images" in line


@pytest.mark.parametrize("name", ["README.txt", "LICENSE.TXT"])
def test_notes_among_texts_are_no_texts(tmp_path, name):
    texts(tmp_path / "good")
    texts(tmp_path / "bad")
    (tmp_path / "good" / name).write_text("about these data")
    dataset, (line,) = said(tmp_path)
    assert sum(map(len, dataset.labels.values())) == 8 and "1 files are not read" in line


def test_an_address_is_not_fetched():
    with pytest.raises(FileNotFoundError, match="addresses are not fetched; download it"):
        loaded("https://example.org/reviews.csv")


def test_an_image_that_a_parquet_file_names_and_is_not_there_is_named_by_row(tmp_path):
    cells = [{"bytes": None, "path": f"{i}.png"} for i in range(8)]
    pd.DataFrame({"image": cells, "label": ["x", "y"] * 4}).to_parquet(tmp_path / "a.parquet")
    with refused(r"a\.parquet: row 1: cannot be read: No such file or directory, .*0\.png"):
        loaded(tmp_path / "a.parquet")
