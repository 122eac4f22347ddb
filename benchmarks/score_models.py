"""Models ranked by running them, side by side with transformer-ranker 0.2.0 in one run: scores and times.

    .venv/bin/pip install -r benchmarks/requirements.txt
    .venv/bin/pytest -s benchmarks/score_models.py

Three cuts of MiniLM, three tasks. Both load the models from the same folders, run them on the CPU with the
same threads and score the same items; they take turns, and ratios are of medians of the processor's time,
so that other programs of the machine do not count. Nothing is cached.

Where both are right the scores are the same: of words, whose features both define as the mean of their
tokens. Elsewhere they differ for reasons that are checked here too: a text is a mean of means of words
without the special tokens there, of pairs the separator is written as a text ("[", "SEP", "]"), and
"lastlayer" is the first layer (its id is 0). Given the same features the scores agree.
"""

import logging
import statistics
import time
import warnings

import numpy as np
import pytest
import torch
import transformers

from transfergraph.data.dataset import Dataset, load_dataset
from transfergraph.models.checkpoints import find_installed
from transfergraph.models.layers import feature_blocks, with_layers
from transfergraph.models.loading import load_backbone
from transfergraph.recommend.score_models import score_models
from transfergraph.scores.registry import score

peer = pytest.importorskip(
    "transformer_ranker", reason="benchmarks/requirements.txt names transformer-ranker"
)
CUTS = (6, 4, 2)  # layers of MiniLM
ROUNDS = 3
TASKS = {"texts": 800, "pairs": 800, "words": 800}  # items


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Folders that both read."
    root, installed = tmp_path_factory.mktemp("models"), find_installed("minilm")
    for n_layers in CUTS:
        model = transformers.AutoModel.from_pretrained(installed, num_hidden_layers=n_layers)
        model.save_pretrained(root / f"{n_layers}-layers")
        transformers.AutoTokenizer.from_pretrained(installed).save_pretrained(root / f"{n_layers}-layers")
    return [root / f"{n_layers}-layers" for n_layers in CUTS]


def items_of(task: str) -> Dataset:
    "Texts by the library that they document; pairs of such that are of one library or not; tagged words."
    texts = load_dataset("libraries")
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(texts.labels["train"]))[: TASKS[task]]
    items, labels, names = texts.items["train"][rows], texts.labels["train"][rows], texts.label_names
    if task == "pairs":
        other = rng.permutation(len(items))
        same = labels == labels[other]
        items, labels, names = pairs_of(items, items[other]), same.astype(int), ["other", "same"]
    if task == "words":
        sentences = np.empty(len(items), object)
        sentences[:] = [text.split() for text in items]
        tags = np.empty(len(items), object)
        tags[:] = [tuple(min(len(word) // 3, 3) for word in words) for words in sentences]
        items, labels, names = sentences, tags, ["0", "1", "2", "3"]
    both = {"items": {"train": items, "test": items[:2]}, "labels": {"train": labels, "test": labels[:2]}}
    kind = "token-classification" if task == "words" else "classification"
    return Dataset(task, "text", **both, label_names=names, task=kind)


def pairs_of(first, second):
    pairs = np.empty(len(first), object)
    pairs[:] = list(zip(first, second))
    return pairs


def ranker(dataset: Dataset) -> "peer.TransformerRanker":
    "The peer, with the training items."
    import datasets

    items, labels = dataset.items["train"], [np.asarray(label).tolist() for label in dataset.labels["train"]]
    columns, how = {"text": list(items), "label": labels}, {}
    if isinstance(items[0], tuple):
        columns |= {"text": [a for a, _ in items], "other": [b for _, b in items]}
        how = {"text_pair_column": "other"}
    return peer.TransformerRanker(datasets.Dataset.from_dict(columns), **how)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def theirs(made, folders, estimator="logme", layers="layermean"):
    with torch.random.fork_rng():
        found = made.run(
            [str(f) for f in folders], estimator=estimator, layer_aggregator=layers, device="cpu"
        )
    return dict(found.scores)


def ours(dataset, folders, scores="LogME", layers="mean"):
    how = {"layers": layers, "cache": False, "progress": False, "device": "cpu"}
    return score_models(dataset, folders, scores, **how)


def in_turns(first, second):
    "Median seconds of the processor of each."
    first(), second()
    times = ([], [])
    for _ in range(ROUNDS):
        for call, seconds in zip((first, second), times):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
    return [statistics.median(seconds) for seconds in times]


@pytest.mark.parametrize("task", TASKS)
def test_one_score(task, folders):
    dataset = items_of(task)
    made = ranker(dataset)
    peers, own = in_turns(lambda: theirs(made, folders), lambda: ours(dataset, folders))
    print(f"\n  {task}: LogME, mean of layers: {peers / own:.2f} times as fast ({peers:.2f} s, {own:.2f} s)")


@pytest.mark.parametrize("task", TASKS)
def test_two_scores_of_two_ways(task, folders):
    dataset = items_of(task)
    made = ranker(dataset)
    ways = [(score, layers) for score in ("logme", "hscore") for layers in ("layermean", "bestlayer")]
    both = {"scores": ["LogME", "H-score"], "layers": ["mean", "best"]}
    peers, own = in_turns(
        lambda: [theirs(made, folders, *way) for way in ways], lambda: ours(dataset, folders, **both)
    )
    print(f"\n  {task}: LogME and H-score, mean and best layer: {peers / own:.2f} times as fast")


def test_scores_of_words_are_the_same(folders):
    dataset = items_of("words")
    made = ranker(dataset)
    for layers, how in (("mean", "layermean"), ("best", "bestlayer")):
        found = ours(dataset, folders, layers=layers).set_index("model")["score"]
        assert found.to_dict() == pytest.approx(theirs(made, folders, layers=how), rel=1e-3)
    tags = np.concatenate(dataset.labels["train"])
    of_first = {}
    for folder in folders:  # their "lastlayer" is the first
        backbone, widths = with_layers(load_backbone(folder), words=True, every=True)
        features = backbone.features(dataset.items["train"])
        of_first[str(folder)] = score(
            "LogME", dict(feature_blocks(features, widths, ["best"], True))["1"], tags
        )
    assert theirs(made, folders, layers="lastlayer") == pytest.approx(of_first, rel=1e-3)


@pytest.mark.parametrize("task", ["texts", "pairs"])
def test_scores_agree_on_the_same_features(task, folders):
    from transformer_ranker.embedder import Embedder

    dataset = items_of(task)
    made = ranker(dataset)
    their = theirs(made, folders)
    for folder in folders:
        embedder = Embedder(
            str(folder), layer_ids="all", layer_mean=True, sentence_pooling="mean", device="cpu"
        )
        features = torch.cat(embedder.embed(list(made.texts), show_progress=False)).numpy()
        assert score("LogME", features, dataset.labels["train"]) == pytest.approx(
            their[str(folder)], rel=1e-3
        )
    found = ours(dataset, folders).set_index("model")["score"]
    print(f"\n  {task}: LogME here {found.round(4).tolist()}, there {[round(v, 4) for v in their.values()]}")
