"""A zoo that is trained here: stored images, training that goes on, figures on how hard choosing is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from transfergraph.build.zoo_spec import settings_of, starts, store_drawn, train_models, trained_models
from transfergraph.data.dataset import load_dataset
from transfergraph.data.toy_images import DRAWN
from transfergraph.evaluate.summary import over_scratch, spread_and_noise, swaps, variance_shares

ROOT = Path(__file__).resolve().parents[2]


def test_stored_pictures_are_those_that_are_drawn(tmp_path):
    store_drawn(tmp_path, ["weaves"])
    stored = load_dataset(tmp_path / "weaves", size=32, cache=False)
    items, labels, label_names, _ = DRAWN["weaves"]()
    assert stored.label_names == label_names
    for split in items:
        assert (stored.items[split] == items[split]).all() and (stored.labels[split] == labels[split]).all()


@pytest.mark.skipif(
    not (ROOT / "data" / "pictures").is_dir(), reason="data/ is not there; `dvc pull data` gets it"
)
@pytest.mark.parametrize("name", DRAWN)
def test_the_tracked_pictures_are_those_that_are_drawn(name):
    "Up to a rounding on another processor: at most one pixel in ten thousand by one step."
    stored = load_dataset(ROOT / "data" / "pictures" / name, size=32, cache=False)
    items = DRAWN[name]()[0]
    for split in items:
        different = stored.items[split] != items[split]
        assert different.mean() <= 1e-4
        assert np.abs(stored.items[split].astype(int) - items[split])[different].max(initial=0) <= 17


@pytest.fixture(scope="module")
def small():
    digits = load_dataset("digits").subsample(8)
    families = {"resnet": {"architecture": "test_resnet"}, "byobnet": {"architecture": "test_byobnet"}}
    return families, [digits], settings_of({"epochs": 1, "batch_size": 16}, families)


def test_models_are_trained_once_and_kept(small, tmp_path):
    from transfergraph.models.loading import load_backbone

    families, sources, how = small
    first = train_models(families, sources, how, tmp_path, input_size=32, n_jobs=1, progress=False)
    folders = {n: Path(o["spec"]) for n, o in trained_models(families, sources, how, tmp_path, 32).items()}
    assert list(folders) == ["resnet-digits", "byobnet-digits"] and all(f.is_dir() for f in folders.values())
    before = {f: f.stat().st_mtime_ns for f in folders.values()}
    second = train_models(families, sources, how, tmp_path, input_size=32, n_jobs=1, progress=False)
    pd.testing.assert_frame_equal(first, second)
    assert {f: f.stat().st_mtime_ns for f in folders.values()} == before
    loaded = load_backbone(folders["resnet-digits"])
    assert loaded.metadata["pretrained_on"] == "digits" and loaded.metadata["family"] == "resnet"
    assert loaded.metadata["pretrained_accuracy"] == pytest.approx(first["accuracy"].iloc[0])
    assert loaded.label_names == sources[0].label_names


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_scratch_twin_has_other_layers_and_the_real_embeddings_if_asked(embeddings):
    families = {"minilm": {"spec": "minilm", "layers": 1}}
    (_, real), (_, twin) = *starts(families), *starts(families, scratch=True, embeddings=embeddings)
    real, twin = real().body.state_dict(), twin().body.state_dict()
    embedded = [name for name in real if "word_embeddings" in name]
    assert embedded and all((real[n] == twin[n]).all() == embeddings for n in embedded)
    layers = [n for n in real if "layer.0" in n and n.endswith("query.weight")]
    assert layers and not any((real[n] == twin[n]).all() for n in layers)


def test_a_family_has_one_origin():
    with pytest.raises(ValueError, match="family x: expected either"):
        starts({"x": {"layers": 2}})


def simulated(spread, noise, seeds=3, n=40, targets=("t",), seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for target in targets:
        level = rng.normal(0.5, spread, n)
        for s in range(seeds):
            rows += [(f"m{i}", target, s, level[i] + rng.normal(0, noise)) for i in range(n)]
    return pd.DataFrame(rows, columns=["model", "dataset", "seed", "accuracy"])


def test_spread_over_noise_is_that_of_the_simulation():
    table = spread_and_noise(simulated(0.1, 0.02, seeds=4, n=400)).loc["t"]
    assert table["noise"] == pytest.approx(0.02, rel=0.05)
    assert table["spread"] == pytest.approx(np.hypot(0.1, 0.02 / 2), rel=0.08)
    assert table["ratio"] == pytest.approx(table["spread"] / table["noise"])


def test_variance_shares_are_those_of_a_slow_definition():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.random((3, 5)), list("pqr"), list("uvwxy"))
    rows = [(f + s, "t", table.at[f, s]) for f in table.index for s in table.columns]
    records = pd.DataFrame(rows, columns=["model", "dataset", "accuracy"])
    records = pd.concat([records, pd.DataFrame([("raw", "t", 0.9)], columns=records.columns)])
    found = variance_shares(records, {r[0]: r[0][0] for r in rows}, {r[0]: r[0][1] for r in rows}).loc["t"]
    mean = np.mean([r[2] for r in rows])
    total = sum((r[2] - mean) ** 2 for r in rows)
    source = sum((np.mean([q[2] for q in rows if q[0][1] == r[0][1]]) - mean) ** 2 for r in rows)
    family = sum((np.mean([q[2] for q in rows if q[0][0] == r[0][0]]) - mean) ** 2 for r in rows)
    assert found["source"] == pytest.approx(source / total) and found["family"] == pytest.approx(
        family / total
    )
    with pytest.raises(ValueError, match="no model of family p and source u"):
        variance_shares(records.iloc[1:], {r[0]: r[0][0] for r in rows}, {r[0]: r[0][1] for r in rows})


def test_swaps_are_found_where_there_are_any_and_rare_where_there_are_none():
    "With one order for both targets, about 1 in 2,000 pairs is a swap at two standard errors each."
    one = simulated(0.0, 0.02, n=30)
    both = pd.concat([one, one.assign(dataset="u", accuracy=simulated(0.0, 0.02, n=30, seed=5)["accuracy"])])
    assert len(swaps(both)) <= 0.01 * 30 * 29
    turned = pd.concat([simulated(0.1, 0.01), simulated(0.1, 0.01, seed=3).assign(dataset="u")])
    assert len(swaps(turned)) > 50
    clearest = swaps(turned).iloc[0]
    assert (
        clearest["gain"] > 0 and clearest["loss"] > 0 and clearest["errors"] == swaps(turned)["errors"].max()
    )


def test_models_are_held_against_their_own_twin():
    records = pd.DataFrame([("a-x", "t", 0.8), ("b-x", "t", 0.5)], columns=["model", "dataset", "accuracy"])
    twins = pd.DataFrame([("a", "t", 0.6), ("b", "t", 0.7)], columns=["model", "dataset", "accuracy"])
    table = over_scratch(records, twins, {"a-x": "a", "b-x": "b"}).loc["t"]
    assert (table["pretrained"], table["scratch"], table["wins"]) == pytest.approx((0.65, 0.65, 0.5))
