"""Embedded text sets: the same on every machine, balanced, without leaks between splits or sets."""

import hashlib
import os
import re
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from transfergraph.data.toy_texts import (
    _LIBRARY_NAMES,
    LIBRARIES,
    TOY_TEXTS,
    WORD_ORDERS,
    digest,
    divide,
    half,
    library,
    parse,
    prose,
    sentences,
)

TARGETS = ("topics", "code", "verbs", "disorder", "animals", "hotels")
SOURCES = tuple(name for name in TOY_TEXTS if name not in TARGETS)
RULED = {  # sets that no package has a part in, and the digest of what they have always held
    "scripts": "2d7218d3216c457c",
    "people": "2947f195911439c4",
    "animals": "a0771b9633d0e1cf",
    "meals": "8963faab2aa2e6ca",
    "hotels": "c685e76a95f37fb7",
}


@pytest.fixture(scope="module")
def toy_texts():
    return {name: build() for name, build in TOY_TEXTS.items()}


def content(values):
    items, labels, names, _ = values
    whole = [
        f"{split} {names[y]} {text}"
        for split in ("train", "test")
        for text, y in zip(items[split], labels[split])
    ]
    return hashlib.sha256("\n".join(whole).encode("utf-8")).hexdigest()[:16]


@pytest.mark.parametrize("name", TOY_TEXTS)
def test_classes_are_of_one_size_and_no_text_appears_twice(toy_texts, name):
    items, labels, names, licence = toy_texts[name]
    assert names == sorted(set(names)) and 4 <= len(names) <= 40 and licence
    for split in ("train", "test"):
        assert items[split].dtype == object and labels[split].dtype == np.int64
        assert len(set(np.bincount(labels[split], minlength=len(names)))) == 1
    everything = [*items["train"], *items["test"]]
    assert len(set(everything)) == len(everything) and all(
        text == text.strip() and text for text in everything
    )


def test_sources_are_large_enough_to_pre_train_and_targets_to_test(toy_texts):
    assert len(SOURCES) >= 6 and len(TARGETS) >= 5
    for name in SOURCES:
        assert 150 <= len(toy_texts[name][0]["train"]) <= 1500
    for name in TARGETS:
        per_class = len(toy_texts[name][0]["train"]) / len(toy_texts[name][2])
        assert 8 <= per_class <= 24 and len(toy_texts[name][0]["test"]) >= 300


@pytest.mark.parametrize("source, target", list(product(SOURCES, TARGETS)))
def test_no_text_of_a_target_is_in_a_source(toy_texts, source, target):
    ours, theirs = (
        {text.lower() for part in toy_texts[name][0].values() for text in part} for name in (source, target)
    )
    assert not ours & theirs


def test_reordered_sentences_of_a_target_are_not_those_of_a_source(toy_texts):
    words = {
        name: {frozenset(t.split()) for part in toy_texts[name][0].values() for t in part}
        for name in ("order", "disorder")
    }
    assert not words["order"] & words["disorder"]


@pytest.mark.parametrize("name", RULED)
def test_sets_made_by_rules_hold_what_they_have_always_held(toy_texts, name):
    assert content(toy_texts[name]) == RULED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code", "topics", "languages"])
def test_a_fresh_process_with_another_hash_seed_builds_the_same(toy_texts, name):
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_toy_texts as t; "
    code += f"print(t.content(t.TOY_TEXTS[{name!r}]()))"
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert run.stdout.strip() == content(toy_texts[name]), run.stderr


def test_libraries_are_read_without_importing_them():
    code = "import sys; from transfergraph.data.toy_texts import prose; n = len(prose('sympy', 'sets')); "
    code += "print(n > 20, 'sympy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["True", "False"], run.stderr


def test_no_text_names_the_library_that_it_is_labelled_with(toy_texts):
    for name in ("libraries", "kinds", "statements", "code", "topics"):
        for split in ("train", "test"):
            assert not [text for text in toy_texts[name][0][split] if _LIBRARY_NAMES.search(text)]
    items, labels, names, _ = toy_texts["topics"]
    assert not [t for t, y in zip(items["train"], labels["train"]) if names[y].rstrip("s") in t.lower()]


def test_the_hidden_word_does_not_stand_in_front(toy_texts):
    items, _, _, _ = toy_texts["verbs"]
    assert not [t for t in items["train"] if t.split()[0] in ("check", "compute", "get", "return")]
    items, labels, names, _ = toy_texts["statements"]
    for text, y in zip(items["train"], labels["train"]):
        assert not re.match(rf"(el)?{names[y]}\b", text)


def test_every_order_can_be_told_from_the_words_alone(toy_texts):
    for name in ("order", "disorder"):
        items, labels, names, _ = toy_texts[name]
        for text, y in zip(items["test"], labels["test"]):
            words = text.split()
            repeats = len(words) - len(set(words))
            assert repeats == (names[y] == "doubled") and 7 <= len(set(words)) <= 9
            if names[y] in ("alphabetical", "by length"):
                assert WORD_ORDERS[names[y]](words) == words


def test_who_acts_is_read_off_the_sentence(toy_texts):
    for name in ("people", "animals"):
        items, labels, names, _ = toy_texts[name]
        for text, y in zip(items["test"], labels["test"]):
            first, second = (word for word in text.split() if word in names)
            passive = re.search(r"(was|got) \w+ by the", text)
            object_first = re.search(rf"the {first} (whom|that) the {second}", text)
            after_who = text.startswith("who ")
            assert names[y] == (second if passive or object_first or after_who else first), text


def test_not_bad_is_praise(toy_texts):
    praise = "excellent fresh good lovely pleasant beautiful clean great nice perfect".split()
    for name in ("meals", "hotels"):
        items, labels, names, _ = toy_texts[name]
        for text, y in zip(items["test"], labels["test"]):
            halves = re.split(" (?:and|but|while) ", text)
            first, second = (("not" in h.split()) != (h.split()[-1] in praise) for h in halves)
            wanted = {(1, 1): "both", (1, 0): "first", (0, 1): "second", (0, 0): "neither"}[first, second]
            assert names[y] == wanted, text


def test_a_licence_names_each_package_with_its_version(toy_texts):
    for name in ("libraries", "code"):
        for package in LIBRARIES:
            name_on_pypi = {"IPython": "ipython", "sklearn": "scikit-learn"}.get(package, package)
            assert re.search(rf"\b{name_on_pypi} \d+\.\d+\S* \(", toy_texts[name][3])
    assert "CLDR" in toy_texts["languages"][3] and "Apache-2.0" in toy_texts["people"][3]


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(FileNotFoundError, match=r"'no_such_package_at_all'.* is not installed"):
        library("no_such_package_at_all")


def test_a_class_with_too_few_texts_of_its_own_is_named():
    with pytest.raises(ValueError, match="class 'b' has 1 texts of its own; expected at least 2"):
        divide({"a": ["x", "y", "z"], "b": ["x", "w", "w"]}, train=1, test=1)


def test_the_order_in_which_texts_come_changes_nothing():
    texts = [f"text {i}" for i in range(30)]
    there, back = divide({"a": texts}, 10, 10), divide({"a": texts[::-1]}, 10, 10)
    assert (
        there[0]["train"].tolist() == back[0]["train"].tolist()
        and there[0]["test"].tolist() == back[0]["test"].tolist()
    )


def test_halves_do_not_overlap_and_are_about_equal():
    texts = [f"text {i}" for i in range(2000)]
    first, second = half(texts, 0), half(texts, 1)
    assert not set(first) & set(second) and len(first) + len(second) == 2000 and 900 < len(first) < 1100
    assert len({digest(t) for t in texts}) == 2000


def test_examples_tables_and_formulas_are_not_sentences():
    assert sentences(">>> fit(model, data)") == sentences("name  kind\n----  ----") == []
    assert sentences("f(x) = (x - m)**2 / (2 s**2) + 1") == []
    assert sentences("Use :func:`fit` to learn a model. And more.") == ["Use fit to learn a model"]


def test_a_file_that_is_no_python_of_today_is_passed_over():
    assert parse("print 'hello'") == ([], [])
    assert parse("x = '\\d is an old escape'\n")[1] == [("assignment", "x = '\\d is an old escape'")]


def test_prose_repeats_nothing():
    found = prose("networkx", "generators", 200_000)
    assert len(found) == len(set(found)) > 20
