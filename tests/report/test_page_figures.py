"""What a page shows of a dataset and of a choice."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from transfergraph.data.dataset import Dataset
from transfergraph.evaluate.summary import score_correlations, search_costs
from transfergraph.report.figures import BLUE, ORANGE, PURPLE, RED, figure_png
from transfergraph.report.page_figures import (
    figure_idea,
    figure_items,
    figure_map,
    figure_scores,
    sample_texts,
)
from transfergraph.zoo.synthetic import toy_zoo

ACCURACY = pd.Series([0.2, 0.5, 0.9, 0.895], list("abcd"))


def test_costs_of_a_search_are_counted_by_hand():
    scores = pd.Series([4.0, 3.0, 2.0, 1.0], list("abcd"))
    table = search_costs({"bad": scores, "score": -scores}, ACCURACY, 10, {"score": True})
    best, near, passes = table.columns
    assert table.loc["bad", [best, near, passes]].tolist() == [3, 3, 90]
    assert table.loc["score", [best, near, passes]].tolist() == [2, 1, 30 + 4]  # d is within a hundredth of c
    assert table.loc["at random (mean)", [best, near, passes]].tolist() == pytest.approx([2.5, 5 / 3, 50])
    assert table.loc["all of them", [best, near, passes]].tolist() == [4, 4, 120]


def test_the_mean_of_a_random_search_is_that_of_all_orders():
    from itertools import permutations

    good = ACCURACY >= ACCURACY.max() - 0.01
    tries = [min(i for i, m in enumerate(order, 1) if good[m]) for order in permutations(ACCURACY.index)]
    table = search_costs({}, ACCURACY, 1)
    assert table.loc["at random (mean)", "tries until within 0.01"] == pytest.approx(np.mean(tries))


def test_a_model_without_a_score_is_tried_last():
    table = search_costs({"few": pd.Series({"a": 1.0})}, ACCURACY, 1)
    assert table.loc["few", "tries until the best"] == 3


def test_scores_are_ordered_by_rank_correlation_and_models_counted():
    rows = [(m, "x", "up", v**3) for m, v in ACCURACY.items()]
    rows += [(m, "x", "down", -v) for m, v in ACCURACY.items()]
    rows += [(m, "x", "part", v) for m, v in ACCURACY.iloc[:3].items()] + [("a", "x", "one", 1.0)]
    table = score_correlations(pd.DataFrame(rows, columns=["model", "dataset", "metric", "score"]), ACCURACY)
    assert table["spearman"].round(9).to_dict() == {"up": 1, "part": 1, "down": -1}
    assert table["models"].to_dict() == {"up": 4, "part": 3, "down": 4}


def test_a_text_of_each_class_is_shown():
    texts, labels = np.array(["x " * 80, "b", "c", "a"], object), np.array([1, 0, 2, 1])
    data = Dataset(
        "t", "text", {"train": texts, "test": texts}, {"train": labels, "test": labels}, list("pqr")
    )
    table = sample_texts(data, width=20)
    assert table["class"].tolist() == list("pqr") and table["text"].str.len().max() <= 20
    assert table["text"].tolist()[0] == "b" and len(sample_texts(data, most=2)) == 2


@pytest.mark.parametrize("n_classes", [2, 9, 40])
def test_figures_are_small_and_the_same_each_time(n_classes):
    rng = np.random.default_rng(0)
    labels = np.arange(3 * n_classes) % n_classes
    items = rng.integers(0, 255, (len(labels), 32, 32, 3), dtype=np.uint8)
    names = [f"class with a long name {i}" for i in range(n_classes)]
    data = Dataset("t", "image", {"train": items, "test": items}, {"train": labels, "test": labels}, names)
    vectors = pd.DataFrame(rng.normal(size=(4, 5)), ACCURACY.index)
    sets = pd.DataFrame(rng.normal(size=(n_classes, 5)), [f"set {i}" for i in range(n_classes)])
    rows = [(m, "x", f"s{k}", v * k) for m, v in ACCURACY.items() for k in range(1, min(n_classes, 12))]
    scores = pd.DataFrame(rows, columns=["model", "dataset", "metric", "score"])
    for draw in (
        lambda: figure_items(data, per_class=4),
        lambda: figure_map(vectors, sets, "set 0", ACCURACY),
        lambda: figure_map(vectors, sets, "set 1"),
        lambda: figure_scores(scores, ACCURACY),
    ):
        png = figure_png(draw())
        assert png == figure_png(draw()) and len(png) < 100_000


@pytest.fixture
def idea():
    table = pd.DataFrame({"pets": [0.7, 0.5], "digits": [0.6, np.nan]}, ["vit", "glyph"])
    zoo = toy_zoo(table, pretrained_on=["photos", None], vectors={"photos": [0.0]}, sources=["photos"])
    return zoo, "mine", {"digits": 0.9}, {"vit": 0.63, "glyph": 0.87}


def test_the_idea_shows_every_edge_once_and_the_best_prediction_in_bold(idea):
    ax = figure_idea(*idea).axes[0]
    lines = [note.arrow_patch for note in ax.texts if getattr(note, "arrow_patch", None)]
    colours = Counter(to_hex(line.get_edgecolor()) for line in lines)
    assert colours == {ORANGE: 1, BLUE: 3, PURPLE: 1, RED: 2}
    said = {note.get_text(): note.get_weight() for note in ax.texts}
    assert said["0.87"] == said["glyph"] == said["mine"] == "bold" and said["0.63"] == said["vit"] == "normal"
    assert {"photos", "pets", "digits"} <= said.keys()


def test_the_idea_is_drawn_of_a_few_models_that_are_in_the_zoo(idea):
    zoo, new, similar, _ = idea
    with pytest.raises(ValueError, match="predictions for bert; expected"):
        figure_idea(zoo, new, similar, {"bert": 0.5})
    many = toy_zoo({"pets": np.linspace(0, 1, 13)})
    with pytest.raises(ValueError, match="13 models, 1 datasets"):
        figure_idea(many, new, {}, {})
