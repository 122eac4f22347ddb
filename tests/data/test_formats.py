"""The same table means the same in every format; what two rules read in two ways is refused with the line."""

import gzip
import json
import warnings

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfergraph.data.dataset import load_dataset


def refused(match):
    return pytest.raises(ValueError, match=match)


def loaded(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_dataset(path, progress=False, **options)


def said(path, **options):
    "The dataset, and what was said about it."
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dataset = load_dataset(path, progress=False, **options)
    return dataset, [str(warning.message) for warning in found]


def meaning(dataset):
    "What a dataset says of every text, whatever split it is in."
    pairs = [zip(items, dataset.labels[split].tolist()) for split, items in dataset.items.items()]
    return dataset.label_names, {text: dataset.label_names[label] for part in pairs for text, label in part}


def write_every_kind(frame, folder):
    "A table in every format that is read."
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_csv(folder / "b.tsv", index=False, sep="\t")
    frame.to_csv(folder / "c.csv", index=False, sep=";")
    frame.to_csv(folder / "d.csv.gz", index=False)
    frame.to_csv(folder / "e.csv", index=False, encoding="utf-16")
    frame.to_csv(folder / "f.txt", index=False, sep="|")
    frame.to_json(folder / "g.jsonl", orient="records", lines=True, force_ascii=False)
    frame.to_json(folder / "h.json", orient="records")
    frame.to_json(folder / "i.json")
    (folder / "j.ndjson").write_text("\r\n".join(json.dumps(row) for row in frame.to_dict("records")))
    frame.to_parquet(folder / "k.parquet")
    frame.to_feather(folder / "l.feather")
    datasets.Dataset.from_pandas(frame).save_to_disk(folder / "m")
    stream = folder / "n.arrow"
    table = pa.Table.from_pandas(frame)
    with pa.OSFile(str(stream), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return sorted(folder.iterdir())


KINDS = {
    "whole numbers": ([3, 10, 9] * 4, ["3", "9", "10"]),
    "whole numbers as real ones": ([1.0, 0.0, 2.0] * 4, ["0", "1", "2"]),
    "truth values": ([True, False, True] * 4, ["False", "True"]),
    "words with spaces": (["sci fi", "a, b; c", 'the "end"'] * 4, ["a, b; c", "sci fi", 'the "end"']),
    "written numbers": (["1", "1.0", "2"] * 4, ["1", "2"]),
    "words for nothing": (["NA", "None", "null"] * 4, ["NA", "None", "null"]),
    "leading zeros": (["01", "02", "10"] * 4, ["01", "02", "10"]),
    "dates": (["2020-01-31", "2021-12-01", "2020-02-29"] * 4, ["2020-01-31", "2020-02-29", "2021-12-01"]),
    "other scripts": (["ü", "ja\u2028nein", "日本"] * 4, ["ja\u2028nein", "ü", "日本"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_table_means_the_same_in_every_format(kind, tmp_path):
    labels, names = KINDS[kind]
    texts = [f'text {i}, "so"; a|b\tc' if i % 2 else f"text {i} NA" for i in range(len(labels))]
    found = [
        meaning(loaded(path))
        for path in write_every_kind(pd.DataFrame({"text": texts, "label": labels}), tmp_path)
    ]
    assert found[0][0] == names and len(found[0][1]) == 12
    for other in found[1:]:
        assert other == found[0]


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)


@given(
    st.lists(WORDS, min_size=4, max_size=12, unique=True),
    st.sampled_from([["a", "b"], [0, 1], [True, False]]),
)
@settings(max_examples=15, deadline=None)
def test_any_text_is_the_same_in_text_files_and_in_parquet(tmp_path_factory, words, names):
    folder = tmp_path_factory.mktemp("any")
    texts = [f"{i} {word} end" for i, word in enumerate(words)]
    frame = pd.DataFrame({"text": texts, "label": [names[i % 2] for i in range(len(texts))]})
    frame.to_parquet(folder / "a.parquet")
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_csv(folder / "a.tsv", index=False, sep="\t")
    frame.to_json(folder / "a.jsonl", orient="records", lines=True)
    found = [
        meaning(loaded(folder / f"a.{kind}", keep_copies=True)) for kind in ("parquet", "csv", "tsv", "jsonl")
    ]
    assert found[1:] == found[:1] * 3 and set(found[0][1]) == set(texts)


def test_one_and_one_point_zero_are_one_class_across_splits_and_formats(tmp_path):
    pd.DataFrame({"text": list("abcd"), "label": [0, 1, 0, 1]}).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame({"text": ["e", "f"], "label": [1.0, 0.0]}).to_parquet(tmp_path / "test.parquet")
    rows = [{"text": "g", "label": "1"}, {"text": "h", "label": 0}]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = loaded(tmp_path)
    assert dataset.label_names == ["0", "1"]
    assert [dataset.labels[s].tolist() for s in ("test", "validation")] == [[1, 0], [1, 0]]


def test_missing_labels_are_refused_and_empty_texts_are_counted_in_every_format(tmp_path):
    texts, labels = [f"text {i}" for i in range(8)], ["x", "y"] * 4
    gaps = pd.DataFrame({"text": texts, "label": [*labels[:5], None, *labels[6:]]})
    for path in write_every_kind(gaps, tmp_path):
        with refused(r"(row|line) \d+: label (''|None)"):
            loaded(path)
    empty = pd.DataFrame({"text": [*texts, None, " "], "label": [*labels, "x", "y"]})
    for folder in (tmp_path / "of" / "empty",):
        folder.mkdir(parents=True)
        for path in write_every_kind(empty, folder):
            dataset, lines = said(path)
            assert sum(map(len, dataset.labels.values())) == 8
            assert ["2 empty texts are left out" in line for line in lines] == [True]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(text="text {}", labels="xy", n=8, sep=","):
    return "\n".join(f"{text.format(i)}{sep}{labels[i % len(labels)]}" for i in range(n))


@pytest.mark.parametrize("mark", ['"', '" oh', '"oh" and'])
def test_a_mark_of_quotation_in_a_tsv_is_part_of_the_text(tmp_path, mark):
    text = "text\tlabel\n" + rows(sep="\t") + f"\n{mark} one\tx\n{mark} two\ty\n"
    dataset = loaded(write(tmp_path / "a.tsv", text))
    assert {f"{mark} one", f"{mark} two"} <= set(meaning(dataset)[1]) and len(meaning(dataset)[1]) == 10


@pytest.mark.parametrize(
    "middle, message",
    [
        ('"not closed,x\nb b,y\nc c,x\n",y\n', "line 10: a quotation mark that opens here spans 4 lines"),
        ('"not closed,x\nb b,y\n"c" c,x\n', "line 10: ',' expected after '\"'"),
        ('"not closed,x\nb b,y\n', "line 10: unexpected end of data"),
        ('"with \\" inside",x\n', "line 10: ',' expected after '\"'"),
    ],
)
def test_a_mark_that_swallows_rows_of_a_csv_is_refused_with_its_line(tmp_path, middle, message):
    end = "" if "end of data" in message else rows("more {}") + "\n"
    with refused(rf"a\.csv: cannot be read as a table: {message}"):
        loaded(write(tmp_path / "a.csv", f"text,label\n{rows()}\n{middle}{end}"))


def test_a_quoted_text_may_have_lines_that_look_like_none(tmp_path):
    text = 'text,label\n"Dear all,\nhello, you, there\n\nbye",x\n' + rows()
    assert "Dear all,\nhello, you, there\n\nbye" in meaning(loaded(write(tmp_path / "a.csv", text)))[1]


@pytest.mark.parametrize(
    "content",
    [
        "text;label\n" + rows("so, it is {}, yes", sep=";"),
        '"text";"label"\n' + rows('"so; it is {}"', sep=";"),
        "text|label\n" + rows(sep="|"),
        "text\tlabel\r\n" + rows(sep="\t").replace("\n", "\r\n"),
        "text\tlabel\r" + rows(sep="\t").replace("\n", "\r"),
        "sep=;\ntext;label\n" + rows(sep=";"),
        "\ufefftext, label\n" + rows(),
        "text,label,,\n" + rows().replace("\n", ",,\n") + ",,\n,,,\n",
        "text,label,\n" + rows(),
    ],
)
def test_separators_marks_and_columns_without_a_name_are_found_out(tmp_path, content):
    dataset, lines = said(write(tmp_path / "a.csv", content.replace("text,label,\n", "text,label\n")))
    assert sum(map(len, dataset.labels.values())) == 8 and dataset.label_names == ["x", "y"] and not lines


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "text,label\n" + rows() + "\nmore,x,y\n", "row 9 has 3 fields, the header 2"),
        (
            "a.csv",
            "text,label\ncaf\xe9,x\n".encode("cp1252"),
            r"line 2: b'\\xe9' is no utf-8.* encoding UTF-8",
        ),
        ("a.csv", "text,label\na,x\n".encode("utf-16-le"), "zero bytes, as in UTF-16 without a mark"),
        ("a.csv", "3,Wall St. is up\n4,Rain\n", r"which column holds the texts\?.* first line their names\?"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"body": "b", "label": 1}', "line 2: 'text' is missing"),
        ("a.jsonl", '{"text": "a", "label": 0, "label": 1}', "line 1: 'label' appears twice in one object"),
        ("a.json", '{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "which column holds the labels"),
        ("a.json", '{"images": [{"id": 1}], "boxes": [{"id": 1}]}', "expected a list of objects"),
        ("a.json", '{"text": "a"', "a.json: cannot be read as a table: line 1"),
        ("a.csv.gz", b"no gzip", r"a\.csv\.gz: cannot be read as a table: Not a gzipped file"),
        ("a.xlsx", b"PK\3\4", r"a\.xlsx: not a kind of file that is known; expected \.csv"),
        ("a.csv", "text,label\n1,x\n2,y\n", r"row 1: '1': a number as every other of its column"),
        ("a.csv", "image,label\ncat.png,x\ndog.png,y\n", "row 1: image file 'cat.png' is not there"),
        ("a.csv", "image,label\nhttp://x/1.png,x\n", "row 1: image file 'http://x/1.png' is an address"),
    ],
)
def test_what_cannot_be_read_names_the_file_and_the_place(tmp_path, name, content, message):
    with refused(message) as error:
        loaded(write(tmp_path / name, content))
    assert str(tmp_path / name) in str(error.value)


def test_a_list_in_json_and_lines_called_json_are_the_same(tmp_path):
    several = [{"text": f"text {i}", "label": i % 2} for i in range(8)]
    lines = "\n".join(map(json.dumps, several))
    columns = {"text": [row["text"] for row in several], "label": [row["label"] for row in several]}
    for name, content in (
        ("a.json", json.dumps(several, indent=1)),
        ("b.jsonl", json.dumps(several)),
        ("c.json", lines),
        ("d.json", json.dumps({"version": 1, "data": several})),
        ("e.json", json.dumps(columns, indent=1)),
    ):
        assert len(meaning(loaded(write(tmp_path / name, content)))[1]) == 8, name
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert len(meaning(loaded(tmp_path / "f.jsonl.gz"))[1]) == 8


def test_half_of_a_character_becomes_a_sign_for_it(tmp_path):
    content = "\n".join(f'{{"text": "{i} \\ud83d", "label": {i % 2}}}' for i in range(4))
    assert "0 \ufffd" in meaning(loaded(write(tmp_path / "a.jsonl", content)))[1]


# Columns and splits


@pytest.mark.parametrize("other", ["question", "premise", "text_b", "passage", "sentence2"])
def test_a_column_that_is_not_read_is_named_with_the_options(tmp_path, other):
    frame = pd.DataFrame({other: list("abcdefgh"), "sentence": list("ijklmnop"), "label": [0, 1] * 4})
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    dataset, (line,) = said(tmp_path / "pairs.csv")
    assert set(dataset.items["train"]) < set("ijklmnop")
    assert line.startswith(str(tmp_path / "pairs.csv")) and f"not read: '{other}'" in line
    assert "text_column=NAME" in line and "label_column=NAME" in line
    assert not said(tmp_path / "pairs.csv", text_column=other, label_column="label")[1]


def test_columns_of_train_are_required_of_every_split(tmp_path):
    pd.DataFrame({"text": list("abcd"), "label": [0, 1] * 2}).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame({"id": [0, 1], "text": ["e", "f"]}).to_csv(tmp_path / "test.csv", index=False)
    with refused(r"test\.csv: column 'label' of the training split is missing; there are id, text; splits="):
        loaded(tmp_path)
    assert len(loaded(tmp_path, splits={"train": "train"}).labels["test"]) == 2
    pd.DataFrame({"Label": [0, 1], "text": ["e", "f"]}).to_csv(tmp_path / "test.csv", index=False)
    assert loaded(tmp_path).labels["test"].tolist() == [0, 1]


@pytest.mark.parametrize("sign", [-1, "", "?", 0, 7])
@pytest.mark.parametrize("kind", ["csv", "parquet", "saved"])
def test_a_test_with_hidden_labels_is_left_out_and_validation_is_the_test(tmp_path, sign, kind):
    splits = {}
    for split in ("train", "validation", "test"):
        labels = [sign] * 20 if split == "test" else [0, 1] * 10
        column = pd.Series(labels, dtype=object).astype(str) if isinstance(sign, str) else labels
        splits[split] = pd.DataFrame({"text": [f"{split} {i}" for i in range(20)], "label": column})
    if kind == "saved":
        saved = {s: datasets.Dataset.from_pandas(frame) for s, frame in splits.items()}
        datasets.DatasetDict(saved).save_to_disk(tmp_path / "data")
    else:
        (tmp_path / "data").mkdir()
        for split, frame in splits.items():
            path = tmp_path / "data" / f"{split}.{kind}"
            frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    dataset, lines = said(tmp_path / "data")
    assert dataset.items["test"][0] == "validation 0" and set(dataset.labels) == {"train", "test"}
    assert any("labels of test are hidden" in line and "splits={'test': 'test'}" in line for line in lines)
    assert any("validation is the test" in line for line in lines)


def test_labels_are_matched_by_name_whatever_order_each_split_has(tmp_path):
    def table(names, said):
        features = datasets.Features(
            {"text": datasets.Value("string"), "y": datasets.ClassLabel(names=names)}
        )
        texts = [f"{name} {len(names)} {i}" for i, name in enumerate(said)]
        return datasets.Dataset.from_dict({"text": texts, "y": [names.index(s) for s in said]}, features)

    splits = {"train": table(["c", "a", "b"], "abcabc"), "test": table(["b", "a"], "abab")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    (tmp_path / "files").mkdir()
    for split, found in splits.items():
        found.to_parquet(tmp_path / "files" / f"{split}.parquet")
    for place in ("saved", "files"):
        dataset = loaded(tmp_path / place)
        assert dataset.label_names == ["c", "a", "b"]
        for split, items in dataset.items.items():
            assert [text[0] for text in items] == [dataset.label_names[y] for y in dataset.labels[split]]
    pd.DataFrame({"text": ["q", "r"], "y": [0, 1]}).to_parquet(tmp_path / "files" / "test.parquet")
    with refused("row 1: label 0 has no name, as labels of other splits have"):
        loaded(tmp_path / "files")


def test_a_column_that_says_the_split_is_followed(tmp_path):
    frame = pd.DataFrame(
        {"text": list("abcdef"), "label": [0, 1] * 3, "split": ["train"] * 4 + ["test", "dev"]}
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    dataset = loaded(tmp_path / "a.csv")
    assert {s: v.tolist() for s, v in dataset.items.items()} == {
        "train": list("abcd"),
        "test": ["e"],
        "validation": ["f"],
    }
    assert loaded(tmp_path / "a.csv", splits={"test": "dev"}).items["test"].tolist() == ["f"]


# Labels that are no classes


@pytest.mark.parametrize(
    "labels, message",
    [
        (["0.0", "0.2", "5.0"], r"label '0.2'; expected a word or a whole number; real numbers"),
        (["0,5", "1,0", "2"], r"label '0,5'; expected a word or a whole number; real numbers"),
        (["[2, 14]", "[27]", "[2]"], r"label '\[2, 14\]' holds several labels"),
        (["['joy' 'fear']", "['joy']", "['fear']"], "holds several labels"),
        (['{"joy": 1}', "x", "y"], "holds several labels"),
        (["joy|anger", "joy", "anger"], r"label 'joy\|anger' holds several labels"),
        (["joy|anger", "fear|joy", "anger|fear"], "holds several labels"),
        (["a, b", "a", "b"], "label 'a, b' holds several labels"),
        (["a;b", "a", "b"], "label 'a;b' holds several labels"),
        (["1", "NaN", "2"], "label 'NaN' among numbers"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_what_is_no_class_is_refused_in_every_format(tmp_path, labels, message, kind):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(12)], "label": labels * 4})
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path) if kind == "parquet" else frame.to_json(path, orient="records", lines=True)
    with refused(rf"a\.{kind}: (row|line) \d: .*{message}"):
        loaded(path)


@pytest.mark.parametrize(
    "labels", [["C, C++", "Go", "Java"], ["Paris, France", "Lyon, France", "Rome"], ["(a)", "[b", "c|"]]
)
def test_names_with_signs_are_names(tmp_path, labels):
    pd.DataFrame({"text": list("abcdefghi"), "label": labels * 3}).to_csv(tmp_path / "a.csv", index=False)
    assert loaded(tmp_path / "a.csv").label_names == sorted(labels)


IDS = [range(40), [*range(15)] * 2 + [*range(20, 30)], [f"id {i}" for i in range(40)]]


@pytest.mark.parametrize("labels", IDS)
def test_a_label_for_nearly_every_row_is_no_class(tmp_path, labels):
    labels = list(labels)
    for split in ("train", "test"):
        frame = pd.DataFrame({"text": [f"{split} {i}" for i in range(40)], "label": labels})
        frame.to_csv(tmp_path / f"{split}.csv", index=False)
    with refused(rf"row 1: label .* {len(set(labels))} labels in 40 rows look like ids or counts"):
        loaded(tmp_path)


def test_many_classes_of_a_few_items_each_are_classes(tmp_path):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(90)], "label": [i // 3 for i in range(90)]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert loaded(tmp_path / "a.csv").n_classes == 30


def test_labels_that_differ_in_case_alone_are_said(tmp_path):
    frame = pd.DataFrame({"text": list("abcdefgh"), "label": ["Yes", "yes", "no", "no"] * 2})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert any("'Yes', 'yes' are different classes" in line for line in said(tmp_path / "a.csv")[1])


# What is no text, no table, or a table of another shape


NO_TEXTS = {
    "clips/{}.wav": "the name of a file as every other",
    "documents/{}.txt": "the name of a file as every other",
    "12 255 0 {}": "numbers as every other",
    "[0.5, 1e-3, {}]": "numbers as every other",
    "iVBORw0KGgoAAAANSUhEUg{}": "an image written as text as every other",
    "data:image/png;base64,iVBOR{}": "an image written as text as every other",
    "<PIL.PngImagePlugin.PngImageFile image mode=RGB size=9x9 at 0x{}>": "a printed object as every other",
    "{{'bytes': b'abc', 'path': '{}.png'}}": "a printed object as every other",
    "https://example.org/{}.jpg?w=100": "is an address; expected a file",
    "photos/{}.png": "image file 'photos/0.png' is not there",
}


@pytest.mark.parametrize("form", NO_TEXTS)
def test_columns_of_what_is_no_text_are_refused(tmp_path, form):
    lines = [f'"{form.format(i)}",{"xy"[i % 2]}' for i in range(8)]
    path = write(tmp_path / "a.csv", "column,label\n" + "\n".join(lines))
    with refused(f"row 1: .*{NO_TEXTS[form]}"):
        loaded(path)
    write(path, "column,label\nwords between,x\n" + "\n".join(lines))
    if ".png" in form and "{{" not in form:
        with refused("row 1: image file 'words between' is not there"):
            loaded(path)
    elif "http" not in form:
        assert len(meaning(loaded(path))[1]) == 9  # one text among them, and they may be texts


@pytest.mark.parametrize(
    "content, message",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in, please</body></html>", "a web page in place of the file"),
        (b"PK\3\4 packed", "an archive or a workbook"),
        (b"\xef\xbb\xbf\r\n", "the file is empty"),
        (b"My results\n\ntext,label\na,x\n", r"is the first line, 'My results', that of the names\?"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_file_in_place_of_a_table_is_told_as_what_it_is(tmp_path, name, content, message):
    content = content.replace(b",", b"\t") if name == "a.tsv" and b"text" in content else content
    with refused(f"{name}: cannot be read as a table: .*{message}"):
        loaded(write(tmp_path / name, content))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_header_of_a_joined_file_is_no_row(tmp_path, mark):
    content = f"text,label\n{rows()}\n{mark}text,label\n{rows('other {}')}\n"
    dataset, lines = said(write(tmp_path / "a.csv", content))
    assert dataset.label_names == ["x", "y"] and len(meaning(dataset)[1]) == 16
    assert any("1 rows are the header again and are left out, the first is row 9" in line for line in lines)
    with refused(r"a\.csv: row 18: label ''"):
        loaded(write(tmp_path / "a.csv", content + "last,\n"))


@pytest.mark.parametrize("shape", ["index", "split", "table", "by split", "fastText"])
def test_other_shapes_of_the_same_rows(tmp_path, shape):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(8)], "label": ["x", "y"] * 4})
    if shape == "fastText":
        content = "\n".join(f"__label__{row.label} {row.text}" for row in frame.itertuples())
    elif shape == "by split":
        found = frame.to_dict("records")
        content = json.dumps({"train": found[:6], "dev": found[6:]})
    else:
        content = frame.to_json(orient=shape)
    dataset = loaded(write(tmp_path / ("a.txt" if shape == "fastText" else "a.json"), content))
    assert meaning(dataset) == (["x", "y"], dict(zip(frame["text"], frame["label"])))
    if shape == "by split":
        assert dataset.items["test"].tolist() == ["text 6", "text 7"]


def test_several_labels_of_fasttext_are_refused_with_the_line(tmp_path):
    content = "__label__x a\n\n__label__y __label__x b\n__label__x c\n"
    with refused(r"a\.txt: .* 3: label \['y', 'x'\]; expected a word"):
        loaded(write(tmp_path / "a.txt", content))


@pytest.mark.parametrize(
    "column, values, expected",
    [
        ("dataset", ["train", "test"], {"train": 6, "test": 2}),
        ("phase", ["TRAIN", "val"], {"train": 6, "test": 2}),
        ("is_valid", [False, True], {"train": 6, "test": 2}),
        ("is_train", [1, 0], {"train": 6, "test": 2}),
        ("split", ["train", "test", ""], {"train": 5, "test": 2}),
        ("split", ["train", "test", "unlabeled"], {"train": 5, "test": 2}),
        ("place", ["train station", "test site"], {"train": 6, "test": 2}),
        ("is_long", [True, False], {"train": 6, "test": 2}),
    ],
)
def test_a_column_of_splits_is_followed_whatever_its_name(tmp_path, column, values, expected):
    of_rows = [values[0]] * 6 + [values[1]] * 2
    if len(values) > 2:
        of_rows[0] = values[2]
    frame = pd.DataFrame({"text": list("abcdefgh"), "label": ["x", "y"] * 4, column: of_rows})
    frame.to_csv(tmp_path / "a.csv", index=False)
    dataset, lines = said(tmp_path / "a.csv")
    assert {split: len(found) for split, found in dataset.labels.items()} == expected
    followed = column not in ("place", "is_long")
    assert (dataset.items["test"].tolist() == ["g", "h"]) == followed
    assert followed == (not any(f"not read: {column!r}" in line for line in lines))
    if column in ("dataset", "phase", "is_valid", "is_train"):
        assert any(f"column {column!r} says the split; splits={{'train': 'a'}}" in line for line in lines)
        every = loaded(tmp_path / "a.csv", splits={"train": "a"})
        assert sorted([*every.items["train"], *every.items["test"]]) == list("abcdefgh")


def test_a_label_that_is_only_the_other_column_is_said(tmp_path):
    pd.DataFrame({"text": list("abcdefgh"), "length": [3, 4] * 4}).to_csv(tmp_path / "a.csv", index=False)
    (line,) = said(tmp_path / "a.csv")[1]
    assert "labels are in 'length', the only other column" in line
    assert not said(tmp_path / "a.csv", label_column="length")[1]


def test_a_test_without_rows_names_the_way_out(tmp_path):
    pd.DataFrame({"text": list("abcdefgh"), "label": [0, 1] * 4}).to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "test.csv").write_text("text,label\n")
    with refused("the test split has no items; splits="):
        loaded(tmp_path)
    assert len(loaded(tmp_path, splits={"train": "train"}).labels["test"]) == 2
