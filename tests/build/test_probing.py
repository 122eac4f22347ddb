"""Datasets of a zoo streamed from a server on this machine, and seen by a probe."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import commit, repository, serving
from PIL import Image
from waiting import PATIENCE

from transfergraph.build.hub_cards import UnavailableError
from transfergraph.build.probing import item_column, sample_rows
from transfergraph.models.loading import load_backbone
from transfergraph.zoo.matrices import domain_embedding, probe_of
from transfergraph.zoo.tables import Zoo

# A probe of 32 pixels whose weights are drawn from a seed; of texts, the installed one.
PROBE = {"spec": "test_resnet", "input_size": 32, "random_state": 0}


def test_every_row_that_passes_by_has_the_same_chance():
    rows = [{"text": str(i)} for i in range(60)]
    drawn = [int(t) for seed in range(400) for t in sample_rows(rows, "text", 6, random_state=seed)]
    counts = np.bincount(drawn, minlength=60)
    assert counts[30:].sum() == 0  # five times six pass by
    assert counts[:30].min() > 45 and counts[:30].max() < 120  # 80 each in the mean


def test_what_is_taken_is_bounded_by_bytes():
    assert len(sample_rows(({"text": "x" * 100} for _ in range(10**9)), "text", 10**6, max_bytes=1000)) == 10


def test_columns_without_items_are_told():
    with pytest.raises(UnavailableError, match="no column of images or texts; it has a, b"):
        item_column({"a": None, "b": None}, {"a": 1, "b": ""})
    assert item_column({}, {"question": "long enough", "id": "7", "sentence": "s"}) == ("sentence", "text")


def texts(folder, n=40):
    folder.mkdir(parents=True)
    rows = "".join(f"{word} number {i},{word}\n" for word in ("sun", "rain") for i in range(n))
    (folder / "train.csv").write_text("text,label\n" + rows)


def images(folder, colour, n=30, named=True):
    folder.mkdir(parents=True)
    rng, files = np.random.default_rng(0), []
    for _ in range(n):
        pixels = (np.array(colour) + rng.integers(-30, 30, (40, 40, 3))).clip(0, 255).astype("uint8")
        Image.fromarray(pixels).save(buffer := io.BytesIO(), "png")
        files.append({"bytes": buffer.getvalue(), "path": None})
    table = pa.table({"image": files, "label": [i % 2 for i in range(n)]})
    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})} if named else None
    pq.write_table(table.replace_schema_metadata(about), folder / "train.parquet")
    return [file["bytes"] for file in files]


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path / "hub") as told:
        data = told.root / "datasets" / "owner"
        repository(data / "closed", card="---\n---\n", weights=False)
        (data / "closed" / ".gated").touch()
        texts(data / "scripted")
        (data / "scripted" / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
        yield told


def run(tmp_path, server, *options):
    server.asked.clear()
    call = [sys.executable, "-c", "import sys; from transfergraph.cli.program import main; sys.exit(main())"]
    call += ["zoo", "embed", "zoo", "--cache", "cache", "--quiet", "--csv", *map(str, options)]
    env = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": server.url}
    told = subprocess.run(call, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    return told, Zoo.load(tmp_path / "zoo")


def zoo_of(folder, modality, hub_ids):
    names = [f"d{i}" for i in range(len(hub_ids))]
    Zoo(
        models=pd.DataFrame({"model": ["a"], "modality": modality}),
        datasets=pd.DataFrame({"dataset": names, "modality": modality, "hub_id": hub_ids}),
    ).save(folder)


@pytest.mark.slow
def test_texts_are_streamed_once_and_what_cannot_be_had_is_listed(tmp_path, server):
    data = server.root / "datasets" / "owner"
    for name in ("weather", "storms"):
        texts(data / name, 40 if name == "weather" else 7)
    ids = ["owner/weather", "owner/storms", "owner/closed", "owner/scripted", "owner/none", None, "../up"]
    zoo_of(tmp_path / "zoo", "text", ids)
    told, zoo = run(tmp_path, server, "--probe", "minilm", "--items", 8)
    assert told.returncode == 0, told.stderr
    report = pd.read_csv(io.StringIO(told.stdout)).set_index("dataset")
    assert report["status"].tolist() == ["asked"] * 2 + ["failed"] * 5
    assert report.loc["d0", "reason"] == "8 texts of column text"
    for name, why in (
        ("d2", "gated"),
        ("d3", "never run"),
        ("d4", "no such repository"),
        ("d5", "no hub_id"),
    ):
        assert why in report.loc[name, "reason"]
    assert "is no id of a hub" in report.loc["d6", "reason"] and not (tmp_path / "ran").exists()
    assert probe_of(zoo) == {"spec": "minilm"} and zoo.embeddings["dataset"].tolist() == ["d0", "d1"]
    assert zoo.distances["distance"].between(0, 1).all() and len(zoo.distances) == 1
    files = [line for line in server.asked if line.endswith(".csv") and "GET" in line]
    assert files and all(any(commit(data / n) in f for n in ("weather", "storms")) for f in files)
    again, same = run(tmp_path, server, "--probe", "minilm", "--items", 8, "--offline")
    assert server.asked == [] and again.returncode == 0
    assert same.embeddings["vector"].map(list).tolist() == zoo.embeddings["vector"].map(list).tolist()


@pytest.mark.slow
def test_images_are_seen_as_the_probe_sees_them(tmp_path, server):
    data = server.root / "datasets" / "owner"
    red = images(data / "red", (200, 30, 30))
    images(data / "blue", (30, 30, 200), named=False)  # a file that says not what its bytes are
    zoo_of(tmp_path / "zoo", "image", ["owner/red", "owner/blue"])
    told, zoo = run(tmp_path, server, "--probe", json.dumps(PROBE), "--items", 50)
    assert told.returncode == 0, told.stderr
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(f)).resize((32, 32))) for f in red])
    options = {key: value for key, value in PROBE.items() if key != "spec"}
    backbone = load_backbone(PROBE["spec"], **options, modality="image")
    expected = domain_embedding(backbone.features(pixels, progress=False))
    found = np.array(zoo.embeddings.set_index("dataset").loc["d0", "vector"])
    assert np.corrcoef(found, expected)[0, 1] > 0.99  # resizing differs by a hair
    assert zoo.distances["distance"].iloc[0] > 1e-3
