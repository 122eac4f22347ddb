"""Zoo tables: what is refused, and that nothing is lost when it is."""

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfergraph.zoo import TABLES, Zoo, ZooError, accuracy_matrix, distance_matrix, hide_target


def small_zoo():
    return Zoo(
        models=pd.DataFrame({"model": ["a", "b"], "modality": "text", "n_params": [1.0, 2.0]}),
        datasets=pd.DataFrame({"dataset": ["x", "y"], "modality": "text", "role": ["target", "source"]}),
        records=pd.DataFrame(
            {"model": ["a", "b", "b"], "dataset": ["x", "x", "y"], "accuracy": [0.1, 0.2, 0.3]}
        ),
        scores=pd.DataFrame({"model": ["a"], "dataset": ["x"], "metric": "LogME", "score": [-0.5]}),
        distances=pd.DataFrame({"dataset": ["x"], "other": ["y"], "distance": [1.5]}),
    ).validate()


def write_csv(zoo, folder):
    for table in TABLES:
        if len(rows := getattr(zoo, table)):
            rows.to_csv(folder / f"{table}.csv", index=False)


@pytest.mark.parametrize(
    ("table", "column", "row", "value", "says"),
    [
        ("models", "modality", 1, "sound", "row 2, column 'modality': 'sound' breaks the rule 'isin("),
        ("models", "model", 1, "a", "row 2, column 'model': 'a' breaks the rule 'one row per model'"),
        ("models", "n_params", 0, -1, "row 1, column 'n_params': -1"),
        ("datasets", "role", 0, "goal", "row 1, column 'role': 'goal'"),
        ("records", "accuracy", 2, 1.01, "row 3, column 'accuracy': 1.01"),
        ("records", "accuracy", 0, "", "row 1, column 'accuracy': nan breaks the rule 'filled in'"),
        ("records", "accuracy", 1, "good", "row 2, column 'accuracy': 'good' breaks the rule 'a number'"),
        ("records", "model", 1, "c", "row 2, column 'model': 'c' breaks the rule 'listed in models'"),
        ("records", "method", 1, "magic", "row 2, column 'method': 'magic'"),
        ("scores", "score", 0, "-inf", "row 1, column 'score': -inf breaks the rule 'finite'"),
        ("scores", "dataset", 0, "z", "row 1, column 'dataset': 'z' breaks the rule 'listed in datasets'"),
        ("distances", "distance", 0, -2, "row 1, column 'distance': -2"),
        ("distances", "other", 0, "x", "row 1, column 'distance': 1.5 breaks the rule 'no distance"),
    ],
)
def test_a_wrong_table_is_refused_by_file_row_column_and_rule(tmp_path, table, column, row, value, says):
    zoo = small_zoo()
    write_csv(zoo, tmp_path)
    rows = getattr(zoo, table).astype(object)
    rows.loc[row, column] = value
    rows.to_csv(tmp_path / f"{table}.csv", index=False)
    with pytest.raises(ZooError) as e:
        Zoo.load(tmp_path)
    assert str(e.value).startswith(f"{tmp_path / table}.csv: ") and says in str(e.value)
    assert "\n" not in str(e.value)


def test_csv_and_parquet_load_alike(tmp_path):
    zoo = small_zoo()
    (tmp_path / "csv").mkdir()
    write_csv(zoo, tmp_path / "csv")
    text = (tmp_path / "csv/models.csv").read_text()
    (tmp_path / "csv/models.csv").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    zoo.save(tmp_path / "parquet")
    assert Zoo.load(tmp_path / "csv").fingerprint == Zoo.load(tmp_path / "parquet").fingerprint


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(ZooError, match="no such folder"):
        Zoo.load(tmp_path / "nowhere")
    with pytest.raises(ZooError, match=r"models\.parquet: no such file"):
        Zoo.load(tmp_path)
    small_zoo().save(tmp_path)
    (tmp_path / "records.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ZooError, match=r"records\.parquet: cannot be read as a table"):
        Zoo.load(tmp_path)


def test_a_save_that_fails_leaves_the_old_zoo(tmp_path, monkeypatch):
    old = small_zoo()
    old.save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    new = Zoo(**{t: getattr(old, t) for t in TABLES} | {"records": old.records.assign(accuracy=0.9)})
    write, written = pd.DataFrame.to_parquet, []

    def full_disk(frame, path, **options):
        written.append(path)
        if len(written) == 3:
            raise OSError("no space left on device")
        return write(frame, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full_disk)
    with pytest.raises(OSError, match="no space"):
        new.save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_saving_replaces_csv_and_drops_tables_that_are_gone(tmp_path):
    write_csv(small_zoo(), tmp_path)
    zoo = Zoo.load(tmp_path)
    Zoo(models=zoo.models, datasets=zoo.datasets).save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["datasets.parquet", "models.parquet"]
    assert Zoo.load(tmp_path).records.empty


def test_repeated_runs_are_kept_and_averaged():
    zoo = small_zoo()
    twice = Zoo(
        models=zoo.models,
        datasets=zoo.datasets,
        records=pd.DataFrame({"model": ["a", "a"], "dataset": "x", "accuracy": [0.2, 0.6]}),
    ).validate()
    assert len(twice.records) == 2 and accuracy_matrix(twice).loc["a", "x"] == pytest.approx(0.4)


def test_methods_and_qualities_are_kept_apart():
    zoo = small_zoo()
    rows = {"model": "a", "dataset": "x", "accuracy": [0.2, 0.9, 0.5], "method": ["full", "lora", "full"]}
    records = pd.DataFrame(rows | {"quality": ["ok", "ok", "at-chance"]})
    zoo = Zoo(models=zoo.models, datasets=zoo.datasets, records=records).validate()
    assert accuracy_matrix(zoo).loc["a", "x"] == 0.2
    assert accuracy_matrix(zoo, "lora").loc["a", "x"] == 0.9
    assert accuracy_matrix(zoo, quality=None).loc["a", "x"] == pytest.approx(0.35)


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_valid_zoo_survives_a_round_trip(tmp_path_factory, data):
    models = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
    datasets = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
    pick = st.tuples(st.sampled_from(models), st.sampled_from(datasets), st.floats(0, 1))
    records = data.draw(st.lists(pick, max_size=6))
    zoo = Zoo(
        models=pd.DataFrame({"model": models, "modality": "image"}),
        datasets=pd.DataFrame({"dataset": datasets, "modality": "image"}),
        records=pd.DataFrame(records, columns=["model", "dataset", "accuracy"]),
    ).validate()
    folder = tmp_path_factory.mktemp("zoo")
    zoo.save(folder)
    assert Zoo.load(folder).fingerprint == zoo.fingerprint
    hidden = hide_target(zoo, datasets[0])
    assert datasets[0] not in set(hidden.records["dataset"])
    assert len(hidden.records) == sum(r[1] != datasets[0] for r in records)


def test_distances_come_from_embeddings_where_none_are_listed():
    zoo = small_zoo()
    vectors = pd.DataFrame({"dataset": ["x", "y"], "vector": [[0.0, 0.0], [3.0, 4.0]]})
    zoo = Zoo(models=zoo.models, datasets=zoo.datasets, embeddings=vectors).validate()
    assert distance_matrix(zoo).to_numpy().tolist() == [[0, 5], [5, 0]]
    vectors["vector"] = [[0.0, 0.0], [np.nan, 4.0]]
    with pytest.raises(ZooError, match="row 2, column 'vector'"):
        Zoo(models=zoo.models, datasets=zoo.datasets, embeddings=vectors).validate()
