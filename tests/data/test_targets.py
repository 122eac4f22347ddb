"""Targets that are no classes: read as they stand, refused where they are something else."""

import json
import warnings

import numpy as np
import pytest

from transfergraph.data.dataset import Dataset, load_dataset

WORDS = "red green blue grey black white pink brown gold teal rust sand".split()


def load(path, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_dataset(path, progress=False, **how)


def lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def table(path, header, *rows):
    path.write_text("\n".join([header, *rows]))
    return path


def every(dataset, of):
    found = getattr(dataset, of)
    return [*found["train"].tolist(), *found["test"].tolist()]


def test_numbers_keep_their_values(tmp_path):
    file = table(tmp_path / "a.csv", "text,mass", *(f"{word} {i},{i / 8}" for i, word in enumerate(WORDS)))
    dataset = load(file, task="regression")
    given = {f"{word} {i}": i / 8 for i, word in enumerate(WORDS)}
    assert dict(zip(every(dataset, "items"), every(dataset, "labels"))) == given
    assert dataset.labels["train"].dtype == np.float64 and dataset.label_names == []


@pytest.mark.parametrize("bad", ["", "n/a", "1,5", "inf", "nan", "five"])
def test_a_number_that_is_none_is_named_by_its_row(tmp_path, bad):
    file = table(tmp_path / "a.csv", "text,mass", "a b,1.5", f'c d,"{bad}"', "e f,2.5")
    with pytest.raises(ValueError, match=r"a.csv: row 2: label .*expected a number such as 3.5"):
        load(file, task="regression", splits={"train": "a"})


def test_labels_in_columns_and_in_cells_are_the_same(tmp_path):
    both = [(f"{word} {i}", i % 2, int(i % 3 == 0)) for i, word in enumerate(WORDS)]
    columns = table(tmp_path / "c.csv", "text,odd,third", *(f"{t},{a},{b}" for t, a, b in both))
    cells = table(
        tmp_path / "d.csv",
        "text,labels",
        *(f"{t},{'|'.join(['odd'] * a + ['third'] * b)}" for t, a, b in both),
    )
    lists = lines(
        tmp_path / "e.jsonl", [{"text": t, "labels": ["odd"] * a + ["third"] * b} for t, a, b in both]
    )
    found = [load(columns, task="multi-label", label_column=["odd", "third"])]
    found += [load(file, task="multi-label") for file in (cells, lists)]
    for dataset in found:
        assert dataset.label_names == ["odd", "third"]
        by_text = dict(zip(every(dataset, "items"), every(dataset, "labels")))
        assert by_text == {t: [a, b] for t, a, b in both}
    assert len({dataset.fingerprint for dataset in found}) == 1


def test_a_sign_between_labels_is_said_and_two_are_refused(tmp_path):
    rows = [f"{word} {i},{'a;b' if i % 2 else 'a'}" for i, word in enumerate(WORDS)]
    file = table(tmp_path / "a.csv", "text,labels", *rows)
    with pytest.warns(UserWarning, match="several labels in a cell are divided at ';'"):
        load_dataset(file, task="multi-label", progress=False)
    table(file, "text,labels", *rows, "mauve,b|c")
    with pytest.raises(ValueError, match=r"labels are divided by '\|' and by ';'; expected one of them"):
        load(file, task="multi-label")


def test_files_of_conll_and_json_hold_the_same_words(tmp_path):
    sentences = [([word, "box", "fell"], ["B-C", "O", "O" if i % 2 else "V"]) for i, word in enumerate(WORDS)]
    blocks = ["-DOCSTART- -X- O"] + ["\n".join(f"{w} x {t}" for w, t in zip(*s)) for s in sentences]
    (tmp_path / "a.conll").write_text("\n\n".join(blocks) + "\n\n")
    rows = [{"id": i, "tokens": words, "ner_tags": tags} for i, (words, tags) in enumerate(sentences)]
    found = [load(tmp_path / "a.conll", task="token-classification")]
    found.append(load(lines(tmp_path / "b.jsonl", rows), task="token-classification"))
    assert found[0].label_names == ["B-C", "O", "V"]
    assert found[0].fingerprint == found[1].fingerprint
    code = found[0].label_names.index
    tags = {tuple(words): tuple(map(code, tags)) for words, tags in sentences}
    assert {tuple(w): t for w, t in zip(every(found[0], "items"), every(found[0], "labels"))} == tags


def test_splits_of_conll_are_files(tmp_path):
    for split, n in (("train", 8), ("dev", 3), ("test", 4)):
        text = "\n\n".join(f"{split}{i} A\nbox B" for i in range(n))
        (tmp_path / f"{split}.conll").write_text(text)
    dataset = load(tmp_path, task="token-classification")
    assert {split: len(items) for split, items in dataset.items.items()} == {
        "train": 8,
        "test": 4,
        "validation": 3,
    }


def test_names_of_tags_come_from_the_hub_s_features(tmp_path):
    import datasets

    names = ["O", "B-CITY", "I-CITY"]
    features = datasets.Features(
        tokens=datasets.List(datasets.Value("string")),
        ner_tags=datasets.List(datasets.ClassLabel(names=names)),
    )
    rows = {"tokens": [[word, "town"] for word in WORDS], "ner_tags": [[1, 2]] * 6 + [[0, 0]] * 6}
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "saved")
    dataset = load(tmp_path / "saved", task="token-classification")
    assert dataset.label_names == names
    assert set(every(dataset, "labels")) == {(1, 2), (0, 0)}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "line 13: 2 words and 1 tags; expected as many"),
        ({"tokens": "a b", "ner_tags": ["O", "O"]}, "line 13: 'a b'; expected a list of words"),
        ({"tokens": ["a"], "ner_tags": [None]}, r"line 13: labels \[None\]; expected a list of tags"),
        ({"tokens": ["a", 3], "ner_tags": ["O", "O"]}, "line 13: .*expected a text"),
    ],
)
def test_words_without_their_tags_are_named_by_their_line(tmp_path, row, message):
    rows = [{"tokens": [word, "box"], "ner_tags": ["B", "O"]} for word in WORDS]
    with pytest.raises(ValueError, match=message):
        load(lines(tmp_path / "a.jsonl", [*rows, row]), task="token-classification")


def test_without_a_task_other_targets_are_refused_with_the_task_that_reads_them(tmp_path):
    numbers = table(tmp_path / "a.csv", "text,mass", *(f"{word} {i},{i / 8}" for i, word in enumerate(WORDS)))
    several = lines(tmp_path / "b.jsonl", [{"text": word, "labels": ["a", "b"]} for word in WORDS])
    words = lines(tmp_path / "c.jsonl", [{"tokens": [word], "ner_tags": ["O"]} for word in WORDS])
    for file, task in ((numbers, "regression"), (several, "multi-label"), (words, "token-classification")):
        with pytest.raises(ValueError, match=f"task='{task}'"):
            load(file)
    with pytest.raises(ValueError, match="task: 'ner'; expected one of classification, multi-label"):
        load(words, task="ner")


def test_pairs_are_two_columns_in_their_order(tmp_path):
    rows = [f"{word},{other} {i},{i % 2}" for i, (word, other) in enumerate(zip(WORDS, WORDS[::-1]))]
    file = table(tmp_path / "a.csv", "question,answer,label", *rows)
    dataset = load(file, text_column=["answer", "question"])
    given = {(f"{other} {i}", word) for i, (word, other) in enumerate(zip(WORDS, WORDS[::-1]))}
    assert set(every(dataset, "items")) == given
    with pytest.raises(ValueError, match="columns question, answer, label and none for classification"):
        load(file, text_column=["question", "answer", "label"])
    with pytest.raises(ValueError, match="say text_column=NAME, twice for a pair"):
        load(table(tmp_path / "b.csv", "left,right,label", *rows))


def test_copies_of_pairs_and_of_sentences_stay_on_one_side(tmp_path):
    rows = [f"{word},same,{i % 2}" for i, word in enumerate(WORDS)] * 2
    pairs = load(table(tmp_path / "a.csv", "text,other,label", *rows), text_column=["text", "other"])
    sentences = [{"tokens": [word, "box"], "ner_tags": ["B", "O"]} for word in WORDS] * 2
    words = load(lines(tmp_path / "b.jsonl", sentences), task="token-classification")
    for dataset in (pairs, words):
        train, test = ({tuple(item) for item in dataset.items[split]} for split in ("train", "test"))
        assert len(train | test) == 12 and not train & test


def test_items_of_any_task_are_drawn(tmp_path):
    file = table(tmp_path / "a.csv", "text,mass", *(f"{word} {i},{i / 8}" for i, word in enumerate(WORDS)))
    dataset = load(file, task="regression", items=4)
    assert len(dataset.items["train"]) == 4 and len(dataset.items["test"]) == 3
    with pytest.raises(ValueError, match="per_class is for classification; items=N keeps some"):
        load(file, task="regression", per_class=2)


def test_a_dataset_of_words_says_what_is_wrong_with_it():
    items, tags = np.empty(2, object), np.empty(2, object)
    items[:], tags[:] = [["a", "b"], ["c"]], [(0, 1), (1, 1)]
    both = {"items": {"train": items, "test": items}, "labels": {"train": tags, "test": tags}}
    with pytest.raises(ValueError, match="train: item 1: expected a list of 2 words, one for each tag"):
        Dataset("x", "text", **both, label_names=["O", "B"], task="token-classification")
