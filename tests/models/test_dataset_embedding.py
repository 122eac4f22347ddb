"Similarity: against the definitions, one sample and one class at a time, on real networks."

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from transfergraph.models.dataset_embedding import (
    feature_information,
    filter_information,
    filter_layers,
    fit_head,
    task2vec,
)
from transfergraph.models.loading import load_backbone
from transfergraph.zoo.matrices import DISTANCE_NAMES, distances, domain_embedding, embeddings, task_distance
from transfergraph.zoo.tables import Zoo


def by_definition(probe, items, weight, bias, layers):
    "Gradient of each log probability by torch.func, squared, weighted with the probability."
    body = copy.deepcopy(probe.body).eval()
    chosen = filter_layers(body, layers)
    names = [f"{name}.weight" for name in chosen]
    values = {name: value.detach() for name, value in body.named_parameters()}
    fixed = {n: v for n, v in values.items() if n not in names} | dict(body.named_buffers())
    weight, bias = torch.tensor(weight).float(), torch.tensor(bias).float()
    total = [torch.zeros_like(values[name]) for name in names]
    for i in range(len(items)):
        batch = probe.prepare(items[i : i + 1])

        def log_p(free, batch=batch):
            return torch.log_softmax(
                torch.func.functional_call(body, fixed | free, (batch,)) @ weight + bias, 1
            )[0]

        free = {name: values[name] for name in names}
        p = log_p(free).exp()
        for k in range(len(p)):
            gradients = torch.func.grad(lambda free, k=k: log_p(free)[k])(free)
            for t, name in zip(total, names):
                t += p[k].detach() * gradients[name] ** 2 / len(items)
    means = []
    for t, layer in zip(total, chosen.values()):
        means.append(t.mean(0) if type(layer).__name__ == "Conv1D" else t.flatten(1).mean(1))
    return torch.cat(means).numpy()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_filter_information_of_image_networks_is_the_definition(name):
    rng = np.random.default_rng(0)
    probe = load_backbone(name, input_size=32 if name != "test_vit" else None, random_state=0)
    items = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    head = 5 * rng.normal(size=(probe.n_features, 4)) / np.sqrt(probe.n_features), rng.normal(size=4)
    slow = by_definition(probe, items, *head, layers="all")
    fast = filter_information(probe, items, *head, batch_size=2)
    assert fast.shape == slow.shape and slow.max() > 0
    np.testing.assert_allclose(fast, slow, rtol=2e-3, atol=1e-5 * slow.max())


@pytest.fixture(scope="module")
def texts():
    return np.array(
        ["one", "two words", "and now three words more", "a b c d e f g", "one two"], dtype=object
    )


def save_text_model(folder, kind):
    import transformers

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"one two words and now three more a b c d e f g".split(),
    ]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    sizes = {"vocab_size": len(words), "max_position_embeddings": 32}
    if kind == "gpt2":
        sizes |= {
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 32,
            "bos_token_id": 2,
            "eos_token_id": 3,
        }
        model = transformers.GPT2Model(transformers.GPT2Config(**sizes))
    else:
        sizes |= {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        }
        model = transformers.BertModel(transformers.BertConfig(**sizes))
    model.save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_filter_information_of_text_networks_is_the_definition_padding_or_not(kind, texts, tmp_path):
    torch.manual_seed(0)
    probe = load_backbone(str(save_text_model(tmp_path / kind, kind)))
    rng = np.random.default_rng(0)
    head = rng.normal(size=(probe.n_features, 3)), np.zeros(3)
    slow = by_definition(probe, texts, *head, layers="all")
    fast = filter_information(probe, texts, *head, batch_size=4)
    assert (slow > 0).sum() > 50
    np.testing.assert_allclose(fast, slow, rtol=2e-3, atol=1e-5 * slow.max())


def test_last_layers_are_the_end_of_all_layers():
    rng = np.random.default_rng(1)
    probe = load_backbone("test_resnet", input_size=32, random_state=0)
    items, head = (
        rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8),
        (rng.normal(size=(96, 3)), np.zeros(3)),
    )
    every = filter_information(probe, items, *head)
    last = filter_information(probe, items, *head, layers=2)
    np.testing.assert_allclose(last, every[-len(last) :], rtol=1e-4)
    assert 0 < len(last) < len(every)


def test_the_probe_stays_as_it_was():
    probe = load_backbone("test_resnet", input_size=32, random_state=0)
    before = probe.revision
    items = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    task2vec(probe, np.array([0, 1, 0, 1, 0, 1]), items, layers=1)
    assert probe.revision == before and all(
        p.requires_grad and p.grad is None for p in probe.body.parameters()
    )
    assert not any(m._forward_hooks for m in probe.body.modules())


def test_feature_information_is_the_information_of_gains():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 5)) + 2, rng.integers(0, 3, 40)
    weight, bias = fit_head(x, labels)
    gains = torch.ones(5, dtype=torch.float64)
    total = torch.zeros(5, dtype=torch.float64)
    for row in torch.tensor(x):
        log_p = lambda g, row=row: torch.log_softmax((row * g) @ torch.tensor(weight) + torch.tensor(bias), 0)  # noqa: E731
        jacobian = torch.func.jacrev(log_p)(gains)
        total += (log_p(gains).exp()[:, None] * jacobian**2).sum(0) / len(x)
    np.testing.assert_allclose(feature_information(x, weight, bias), total.numpy(), rtol=1e-9)


def test_names_of_the_classes_and_the_order_of_the_items_make_no_difference():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 6)), rng.integers(0, 3, 60)
    x[labels == 1, 2] += 2
    order = rng.permutation(60)
    np.testing.assert_allclose(
        task2vec(x, labels), task2vec(x[order], (labels[order] + 1) % 3 * 7), rtol=5e-3
    )


def test_a_task_knows_which_features_it_needs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6))
    first, second = task2vec(x, (x[:, 0] > 0).astype(int)), task2vec(x, (x[:, 3] > 0).astype(int))
    assert first.argmax() == 0 and second.argmax() == 3
    alike = task2vec(x, (x[:, 0] + 0.2 * x[:, 1] > 0).astype(int))
    assert task_distance(first, alike) < task_distance(first, second)


def test_a_network_and_its_features_agree_on_which_tasks_are_alike():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.repeat((digits.images * 15.9).astype(np.uint8).repeat(4, 1).repeat(4, 2)[..., None], 3, -1)
    probe = load_backbone("test_resnet", input_size=32, random_state=0)
    few = slice(0, 200)
    questions = {
        "digit": digits.target[few],
        "odd": digits.target[few] % 2,
        "low": (digits.target[few] < 5).astype(int),
        "0": (digits.target[few] == 0).astype(int),
        "0 or 6": np.isin(digits.target[few], [0, 6]).astype(int),
    }
    features = probe.features(images[few])
    deep = {
        q: task2vec(probe, y, images[few], layers=3, features=features, max_items=60)
        for q, y in questions.items()
    }
    flat = {q: task2vec(features, y) for q, y in questions.items()}
    pairs = [distances(v, "task2vec")["distance"] for v in (deep, flat)]
    assert spearmanr(*pairs).statistic > 0.5


@pytest.mark.parametrize("method", sorted(DISTANCE_NAMES))
def test_distances_enter_a_zoo(method):
    rng = np.random.default_rng(0)
    vectors = {f"d{i}": rng.random(8) for i in range(4)}
    table = distances(vectors, method)
    assert (
        len(table) == 6 and set(table["method"]) == {DISTANCE_NAMES[method]} and table["distance"].gt(0).all()
    )
    zoo = Zoo(
        models=pd.DataFrame({"model": ["m"], "modality": "image"}),
        datasets=pd.DataFrame({"dataset": list(vectors), "modality": "image", "role": "target"}),
        records=pd.DataFrame({"model": ["m"], "dataset": "d0", "accuracy": [0.5]}),
        distances=table,
        embeddings=embeddings(vectors),
    ).validate()
    assert len(zoo.distances) == 6 and len(zoo.embeddings) == 4
    pd.testing.assert_frame_equal(table, distances(pd.DataFrame(vectors).T, method))


def test_distances_are_those_of_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.random(6), rng.random(6)
    by = {m: distances({"a": a, "b": b}, m)["distance"][0] for m in DISTANCE_NAMES}
    assert by["correlation"] == pytest.approx(1 - np.corrcoef(a, b)[0, 1])
    assert by["cosine"] == pytest.approx(1 - a @ b / np.sqrt(a @ a * (b @ b)))
    assert by["euclidean"] == pytest.approx(np.linalg.norm(a - b))
    x, y = a / (a + b), b / (a + b)
    assert by["task2vec"] == pytest.approx(1 - x @ y / np.sqrt(x @ x * (y @ y)))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: distances({"a": np.arange(3.0), "b": np.arange(4.0)}), "the vector of 'b' has shape"),
        (lambda: distances({"a": np.arange(3.0), "b": np.ones(3)}), "the vector of 'b' is constant"),
        (lambda: distances({"a": np.arange(3.0), "b": np.zeros(3)}, "cosine"), "the vector of 'b' is zero"),
        (lambda: distances({"a": np.array([1, np.nan])}), "the vector of 'a' holds NaN"),
        (lambda: distances({"a": np.array([1.0, -1])}, "task2vec"), "the vector of 'a' is negative"),
        (lambda: distances({}, "l1"), "method is 'l1'; expected one of correlation"),
        (lambda: domain_embedding(np.array([[1.0, 2], [np.inf, 1]])), "row 2 holds NaN or infinity"),
        (lambda: task2vec(np.ones((3, 2)), np.zeros(3, int)), "expected two classes"),
        (lambda: task2vec(np.ones((3, 2)), np.zeros(2, int)), "labels are 2 for features"),
        (lambda: filter_layers(torch.nn.ReLU()), "no linear or convolutional layer"),
        (lambda: filter_layers(torch.nn.Linear(2, 2), 0), "layers is 0; expected 'all' or a number"),
    ],
)
def test_what_is_wrong_is_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()
