"""Embedded image sets: the same on every call, balanced, and not the same image twice."""

import numpy as np
import pytest

from transfergraph.data.toy_images import DRAWN, TAKEN, TOY_IMAGES, as_uint8, generator


@pytest.fixture(scope="module")
def toy_images():
    return {name: make() for name, make in TOY_IMAGES.items()}


@pytest.mark.parametrize("name", TOY_IMAGES)
def test_a_set_is_balanced_and_has_both_splits(toy_images, name):
    items, labels, label_names, licence = toy_images[name]
    assert set(items) == set(labels) == {"train", "test"} and licence
    for split, images in items.items():
        assert images.dtype == np.uint8 and images.shape == (len(labels[split]), 32, 32, 3)
        counts = np.bincount(labels[split], minlength=len(label_names))
        assert len(counts) == len(label_names) and counts.min() == counts.max() > 0
    assert len(set(label_names)) == len(label_names)


@pytest.mark.parametrize("name", TOY_IMAGES)
def test_no_picture_is_in_a_set_twice(toy_images, name):
    items = np.concatenate(list(toy_images[name][0].values()))
    assert len(np.unique(items.reshape(len(items), -1), axis=0)) == len(items)


@pytest.mark.parametrize("name", ["weaves", "attractors", "cyrillic", "digits"])
def test_a_set_is_the_same_on_every_call(toy_images, name):
    items, labels, *_ = TOY_IMAGES[name]()
    for split in items:
        assert (items[split] == toy_images[name][0][split]).all()
        assert (labels[split] == toy_images[name][1][split]).all()


@pytest.mark.parametrize("name", TOY_IMAGES)
def test_classes_look_different(toy_images, name):
    "The nearest mean of a class is the right one more often than by chance, by pixels or by their spectrum."
    items, labels, label_names, _ = toy_images[name]

    def views(images):
        grey = images.mean(-1) - images.mean((1, 2, 3))[:, None, None]
        spectrum = np.abs(np.fft.fft2(grey)).reshape(len(grey), -1)
        return [
            images.reshape(len(images), -1).astype(float),
            np.abs(grey).reshape(len(grey), -1),
            spectrum,
        ]

    best = 0
    for train, test in zip(views(items["train"]), views(items["test"])):
        means = np.stack([train[labels["train"] == c].mean(0) for c in range(len(label_names))])
        nearest = ((means**2).sum(1) - 2 * test @ means.T).argmin(1)
        best = max(best, (nearest == labels["test"]).mean())
    assert best > 1.3 / len(label_names)


def test_glyphs_are_not_the_empty_box_of_their_font():
    import matplotlib
    from matplotlib.ft2font import FT2Font

    from transfergraph.data.toy_images import STYLES

    folder = matplotlib.get_data_path() + "/fonts/ttf/"
    written = {
        "ABCDEFGHIJKLMNOPQRSTUVWXYZБДЖЗИЛПФЦЧШЪЫЬЭЮЯЙ": STYLES,
        "აბგდევზთიკლმნოპჟრსტუ": [STYLES[0], STYLES[1], STYLES[8]],
    }
    for characters, styles in written.items():
        for style in styles:
            known = FT2Font(f"{folder}{style}.ttf").get_charmap()
            assert [c for c in characters if ord(c) not in known] == [], style


def test_random_numbers_depend_on_their_purpose_only():
    assert generator("a", 1).random() == generator("a", 1).random() != generator("a", 2).random()


def test_every_picture_has_sixteen_levels(toy_images):
    for name in TOY_IMAGES:
        assert (toy_images[name][0]["test"] % 17 == 0).all()
    assert as_uint8(np.full((1, 32, 32), 0.5)).ravel()[0] in (119, 136)


def test_drawn_and_taken_sets_are_told_apart(toy_images):
    assert not set(DRAWN) & set(TAKEN)
    assert all("own formulas" in toy_images[name][3] for name in DRAWN)
    assert not any("own formulas" in toy_images[name][3] for name in TAKEN)
