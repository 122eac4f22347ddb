"""What is said of datasets: the encoder, the language of texts, and what lies near what."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from transfergraph.build.catalogue import dataset_facts, read_catalogue
from transfergraph.models.loading import load_backbone
from transfergraph.models.words import (
    WORDS_PROBE,
    class_text,
    combine_words,
    dataset_words,
    embed_texts,
    guess_language,
    language_name,
    languages_in,
    split_name,
    telling_words,
    with_words,
    word_parts,
)
from transfergraph.zoo.matrices import WORDS_APART, distance_matrix, embeddings, probe_of
from transfergraph.zoo.tables import Zoo

# In other words than the descriptions of the catalogue; the way that parts are weighted was chosen by these.
LINES = Path(__file__).with_name("dataset_words.csv")
KNOWN = ("task", "languages", "domains", "description", "class_names")


@pytest.mark.slow
def test_the_encoder_is_that_of_the_library():
    texts = ["Photos of cars, by make", "x", "", "naïve café " * 90, "日本語", "two\nlines\tand tabs"]
    expected = load_backbone(WORDS_PROBE["spec"]).features(texts, progress=False)
    assert np.abs(embed_texts(texts) - expected).max() < 1e-5
    assert np.abs(embed_texts(texts[2:3]) - expected[2]).max() < 1e-5  # alone as among others


def test_texts_are_told_apart_by_meaning():
    cat, kitten, bond = embed_texts(["a sleeping cat", "a kitten takes a nap", "yields of government bonds"])
    assert cat @ kitten > 0.5 > 0.3 > cat @ bond


@pytest.mark.parametrize(
    "name, words",
    [
        ("FGVCAircraft", "FGVC Aircraft"),
        ("dtd", "dtd"),
        ("wds_vtab-dmlab", "wds vtab dmlab"),
        ("MNIST2D", "MNIST 2 D"),
        ("", ""),
    ],
)
def test_names_become_words(name, words):
    assert split_name(name) == words


def test_names_that_say_nothing_are_left_out():
    assert telling_words(["data", "train_images", "x", "label2", "beetles"]) == "beetles"
    assert class_text(["class_0", "class_1"]) == class_text(["0", "1", "2"]) == "" == class_text([])
    assert class_text(["neg", "pos"], "text") == "neg, pos"
    many = class_text([f"beetle {chr(97 + i % 26)}{i}" for i in range(500)])
    assert many.count(",") == 39 and many.startswith("beetle a") and "499" in many
    assert dataset_words("my_data", class_names=["1", "2"]) is None


SENTENCES = {
    "english": "We were told that the train would be late, and it was not on time.",
    "german": "Der Zug war nicht pünktlich, und wir haben auf dem Bahnsteig gewartet.",
    "french": "Le train était en retard et nous avons attendu sur le quai pour une heure.",
    "spanish": "El tren no llegó a tiempo y los viajeros que esperaban en el andén se fueron.",
    "italian": "Il treno era in ritardo e non è arrivato per la notte che ci aspettava.",
    "dutch": "De trein was te laat en we hebben op het perron van het station gewacht.",
    "polish": "Pociąg nie przyjechał na czas, ale to jest normalne i czekamy na peronie.",
    "swedish": "Tåget var inte i tid och vi fick vänta på perrongen med alla som ville av.",
    "finnish": "Juna ei ollut ajoissa, ja se oli kylmä, kun he odottivat; mutta hän tuli.",
    "hungarian": "A vonat nem volt pontos, és az emberek egy órát vártak a peronon.",
    "greek": "Το τρένο δεν ήταν στην ώρα του και η αναμονή για την άφιξη είναι μεγάλη.",
    "ukrainian": "Потяг не прийшов вчасно, але ми чекали на пероні, як і всі, що були там.",
    "one not in Latin letters": "列車は時間通りに来なかった",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_languages_are_told_by_function_words(language):
    assert guess_language([SENTENCES[language]] * 3) == language


@pytest.mark.parametrize(
    "text", ["", "1234 5678", "iPhone 12 mini 64GB", "def f(x): return x + 1", "GCATTAGCCA", "@user 50%"]
)
def test_what_is_no_prose_has_no_language(text):
    assert guess_language([text]) is None


def test_names_of_languages():
    assert {language_name(c) for c in ("de", "DEU", "deu-Latn", "de_AT", "German")} == {"german"}
    assert language_name("tlh") == "tlh"
    assert languages_in("Polish furniture reviews in the polish language") == ["polish"]


def test_texts_of_another_language_are_not_read():
    words = {"description": "hotel reviews", "modality": "text"}
    german = dataset_words(texts=[SENTENCES["german"]] * 3, **words)
    assert np.array_equal(german, dataset_words(**words))
    assert not np.array_equal(german, dataset_words(texts=[SENTENCES["english"]] * 3, **words))


def test_a_zoo_gets_words_once_and_keeps_what_it_has():
    zoo = Zoo(
        models=pd.DataFrame({"model": ["m"], "modality": "image"}),
        datasets=pd.DataFrame(
            {
                "dataset": ["OxfordPets", "digits", "blossoms"],
                "modality": "image",
                "description": ["cats and dogs", None, "photos of flowers"],
            }
        ),
        embeddings=embeddings({"digits": np.ones(3)}),
    ).validate()
    told = with_words(zoo)
    assert with_words(told) is told and probe_of(told, "words") == WORDS_PROBE
    assert told.embeddings["method"].tolist() == ["domain_similarity"] + ["words"] * 3 + ["sentence"] * 3
    assert np.allclose([np.linalg.norm(v) for v in told.embeddings["vector"][1:]], 1, atol=1e-5)
    matrix = distance_matrix(told, "words")
    assert matrix.loc["OxfordPets", "blossoms"] < matrix.loc["digits", ["OxfordPets", "blossoms"]].min()
    other = told.embeddings.assign(probe="{}")
    assert probe_of(with_words(Zoo(told.models, told.datasets, embeddings=other)), "words") == WORDS_PROBE


CLEAN = {
    "image-mieb": "mieb_image_linear",
    "text-mteb": "mteb_text_en_core",
    "text-recycling": "model_recycling",
    "clip": "open_clip_zeroshot",
    "image-vtab": "shift_vtab",
    "text-european": "euroeval_encoders",
}


@pytest.fixture(scope="session")
def vectors(records):
    "Of the datasets of each zoo, as the catalogue describes them: zoo -> names, (d, 384)."
    found, facts = {}, dataset_facts()
    for zoo, folder in CLEAN.items():
        told = pd.read_csv(records / "clean" / folder / "records.csv", usecols=["dataset"])["dataset"]
        names = [name for name in told.unique() if name in facts.index]
        modality = read_catalogue()[zoo].modality
        rows = [{k: v for k, v in facts.loc[name].items() if k in KNOWN and v} for name in names]
        parts = [word_parts(name, **row, modality=modality) for name, row in zip(names, rows)]
        found[zoo] = names, np.stack(combine_words(parts))
    return found


def near(vectors, zoo, words):
    "The three nearest datasets, and how far the first is."
    names, table = vectors[zoo]
    gaps = 1 - table @ dataset_words(description=words)
    order = np.argsort(gaps)[:3]
    return [names[i] for i in order], gaps[order[0]]


def read_lines(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_right(vectors, line):
    return bool(set(line["expected"].split("|")) & set(near(vectors, line["zoo"], line["description"])[0]))


@pytest.mark.slow
def test_words_find_the_right_neighbours(vectors):
    lines = read_lines(LINES)
    assert [line["description"] for line in lines if not is_right(vectors, line)] == [] and len(lines) == 60
    assert all(near(vectors, line["zoo"], line["description"])[1] < WORDS_APART for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "zoo, words",
    [
        ("image-mieb", "galaxies, spiral or elliptical"),
        ("image-mieb", "scanned invoices and receipts"),
        ("image-mieb", "chest X-rays with and without pneumonia"),
        ("text-mteb", "snippets of source code by programming language"),
        ("text-mteb", "sequences of amino acids"),
    ],
)
def test_what_is_like_nothing_lies_far(vectors, zoo, words):
    assert near(vectors, zoo, words)[1] > WORDS_APART


@pytest.mark.slow
def test_words_find_the_neighbours_that_others_expect(vectors, records):
    right = [is_right(vectors, line) for line in read_lines(records / "words.csv")]
    assert len(right) >= 20 and sum(right) >= 0.95 * len(right)


@pytest.mark.slow
@pytest.mark.parametrize(
    "zoo, classes, expected",
    [
        ("image-mieb", ["beagle", "siamese", "poodle", "persian_cat"], "OxfordPets"),
        ("image-mieb", ["tumour", "no_tumour"], "PatchCamelyon"),
        ("image-mieb", list("0123456789"), "MNIST"),
        ("text-mteb", ["lost_card", "billing_question", "refund", "locked"], "Banking77Classification"),
        ("text-recycling", ["entailment", "neutral", "contradiction"], "mnli"),
    ],
)
def test_classes_alone_find_sensible_neighbours(vectors, zoo, classes, expected):
    names, table = vectors[zoo]
    order = np.argsort(-table @ dataset_words("my_data", class_names=classes))[:3]
    assert expected in [names[i] for i in order]
