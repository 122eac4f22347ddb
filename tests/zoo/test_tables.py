"""Zoo tables: what is refused, and that nothing is lost when it is."""

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pandera.errors
import pandera.pandas as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfergraph.zoo.matrices import (
    accuracy_matrix,
    accuracy_pairs,
    distance_matrix,
    hide_target,
    score_matrix,
)
from transfergraph.zoo.tables import (
    MORE_COLUMNS,
    RANGES,
    TABLES,
    Zoo,
    ZooError,
    check_table,
    read_table,
    write_tables,
)


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
        ("models", "source", 1, "disk", "row 2, column 'source': 'disk' breaks the rule 'isin("),
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


@settings(max_examples=15, deadline=None)
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


# --- rules, each at its limit

FULL_ROWS = {  # a row of each table with every column filled in
    "models": ["a", "text", "bert", "bert", 0.0, 0.0, "x", 0.0, "timm"],
    "datasets": ["x", "text", 1.0, 2.0, 0.0, "target"],
    "records": ["a", "x", "full", 0.0, -3.0, 0.0, 0.0, 0.0, 0.0, "ok"],
    "scores": ["a", "x", "LogME", -1e300, 0.0],
    "distances": ["x", "y", "m", 0.0],
    "embeddings": ["x", "m", [0.0]],
}


def full_row(table, **cells):
    columns = dict(zip(TABLES[table], FULL_ROWS[table], strict=True)) | cells
    return pd.DataFrame({column: [value] for column, value in columns.items()}).astype(object)


def refusal(table, **cells):
    with pytest.raises(ZooError) as e:
        check_table(table, full_row(table, **cells))
    return str(e.value)


@pytest.mark.parametrize("table", TABLES)
def test_the_least_that_the_rules_allow_is_allowed(table):
    checked = check_table(table, full_row(table))
    assert checked.iloc[0].tolist() == FULL_ROWS[table] and list(checked) == list(TABLES[table])


@pytest.mark.parametrize(
    ("table", "column", "low", "high"),
    [
        ("models", "n_params", 0, None),
        ("models", "input_size", 0, None),
        ("models", "pretrained_accuracy", 0, 1),
        ("datasets", "n_samples", 1, None),
        ("datasets", "n_classes", 2, None),
        ("datasets", "majority_share", 0, 1),
        ("records", "accuracy", 0, 1),
        ("records", "seed", None, None),
        ("records", "epochs", 0, None),
        ("records", "batch_size", 0, None),
        ("records", "learning_rate", 0, None),
        ("records", "runtime_s", 0, None),
        ("scores", "score", None, None),
        ("scores", "runtime_s", 0, None),
        ("distances", "distance", 0, None),
    ],
)
def test_numbers_keep_their_bounds(table, column, low, high):
    value = check_table(table, full_row(table, **{column: 1e300 if high is None else high}))
    assert value[column].tolist() == [1e300 if high is None else high]
    where = f"{table}: row 1, column {column!r}: "
    if low is not None:
        rule = f"in_range({low}, {np.inf if high is None else high})"
        assert refusal(table, **{column: low - 0.01}) == f"{where}{low - 0.01!r} breaks the rule '{rule}'"
    else:
        assert check_table(table, full_row(table, **{column: -1e300}))[column].tolist() == [-1e300]
    if high is not None:
        assert refusal(table, **{column: high + 0.01}).startswith(f"{where}{high + 0.01!r} breaks the rule")
    assert "finite" in refusal(table, **{column: np.inf}) or high is not None
    if column in ("accuracy", "score", "distance"):
        assert refusal(table, **{column: None}) == f"{where}None breaks the rule 'filled in'"
    else:
        assert check_table(table, full_row(table, **{column: None}))[column].isna().all()


@pytest.mark.parametrize("table", TABLES)
def test_text_is_filled_in_where_it_must_be(table):
    may_be_null = {"architecture", "family", "pretrained_on", "source"}  # or they have a default
    for column, value in zip(TABLES[table], FULL_ROWS[table], strict=True):
        if not isinstance(value, str):
            continue
        assert f"{table}: row 1, column {column!r}: '' breaks the rule" in refusal(table, **{column: ""})
        if column in may_be_null:
            assert check_table(table, full_row(table, **{column: None}))[column].tolist() == [None]
        elif column not in ("role", "quality", "method"):
            says = f"{table}: row 1, column {column!r}: None breaks the rule 'filled in'"
            assert refusal(table, **{column: None}) == says


def test_names_that_must_be_known_ones():
    for table, column in (("models", "source"), ("datasets", "role")):
        assert f"column {column!r}: 'x' breaks the rule 'isin(" in refusal(table, **{column: "x"})
    for table, column, allowed in (
        ("models", "modality", ("image", "text", "audio")),
        ("models", "source", ("timm", "transformers", "local")),
        ("datasets", "role", ("target", "source")),
        ("records", "method", ("full", "lora", "linear", "reported")),
    ):
        for value in allowed:
            assert check_table(table, full_row(table, **{column: value}))[column].tolist() == [value]


def test_what_only_some_zoos_know_is_checked_where_it_is_there():
    known = full_row("records", metric="f1", protocol="probe", n_runs=5, se=0.01)
    assert check_table("records", known)[["metric", "n_runs"]].values.tolist() == [["f1", 5.0]]
    assert list(check_table("records", full_row("records"))) == list(TABLES["records"])
    for table, column, value in (("records", "se", -1), ("models", "access", "x"), ("datasets", "task", "")):
        assert f"{table}: row 1, column {column!r}: {value!r} breaks" in refusal(table, **{column: value})


@pytest.mark.parametrize("vector", [[], [[1.0, 2.0]], [1.0, np.inf], [np.nan], 3.0])
def test_a_vector_is_a_list_of_finite_numbers(vector):
    says = refusal("embeddings", vector=vector)
    assert says.startswith("embeddings: row 1, column 'vector': ")
    assert "breaks the rule 'a list of finite numbers'" in says


def test_defaults_fill_columns_and_cells():
    records = pd.DataFrame({"model": ["a", "b"], "dataset": "x", "accuracy": 0.5}, index=[4, 7])
    checked = check_table("records", records)
    assert checked["method"].tolist() == ["full"] * 2 and checked["quality"].tolist() == ["ok"] * 2
    assert checked.index.tolist() == [0, 1] and checked["epochs"].isna().all()
    checked = check_table("records", records.assign(method=[None, "lora"], quality=["odd", None]))
    assert checked["method"].tolist() == ["full", "lora"] and checked["quality"].tolist() == ["odd", "ok"]
    datasets = pd.DataFrame({"dataset": ["x", "y"], "modality": "text"})
    assert check_table("datasets", datasets)["role"].tolist() == ["source", "source"]
    pair = pd.DataFrame({"dataset": ["x"], "other": ["y"], "distance": [1], "note": ["n"]})
    checked = check_table("distances", pair)
    assert checked["method"].tolist() == ["domain_similarity"]
    assert list(checked) == ["dataset", "other", "method", "distance", "note"]
    vectors = check_table("embeddings", pd.DataFrame({"dataset": ["x"], "vector": [[1.0]]}))
    assert vectors["method"].tolist() == ["domain_similarity"]


@pytest.mark.parametrize("names", [[7, 8], [7.5, 8.5], [True, False], [7, "b"]])
def test_names_become_text(names):
    models = pd.DataFrame({"model": names, "modality": "text", "family": names})
    checked = check_table("models", models)
    assert checked["model"].tolist() == [str(name) for name in names]
    assert checked["family"].tolist() == [str(name) for name in names]


def test_columns_that_are_missing_or_twice_there():
    expected = ", ".join(TABLES["scores"])
    frame = full_row("scores")
    for gone in (["score"], ["dataset", "metric"]):
        with pytest.raises(ZooError) as e:
            check_table("scores", frame.drop(columns=gone), "s.csv")
        assert str(e.value) == f"s.csv: column {gone[0]!r} is missing; expected {expected}"
    twice = pd.concat([frame, frame[["metric", "score"]]], axis=1)
    with pytest.raises(ZooError, match=r"^scores: column 'metric' appears twice; expected each column once$"):
        check_table("scores", twice)


@pytest.mark.parametrize(
    ("wrong", "says"), [([1], ""), ([1, 2], " (and 1 more)"), ([1, 2, 3], " (and 2 more)")]
)
def test_the_first_wrong_row_is_named_and_the_others_counted(wrong, says):
    zoo = small_zoo()
    rows = pd.DataFrame({"model": "a", "dataset": "x", "accuracy": [0.5, 0.5, 0.5, 0.5, 0.5]})
    rows.loc[wrong, "accuracy"] = [2.0, 3.0, 4.0][: len(wrong)]
    with pytest.raises(ZooError) as e:
        check_table("records", rows)
    rule = "in_range(0, 1)"
    assert str(e.value) == f"records: row 2, column 'accuracy': 2.0 breaks the rule '{rule}'{says}"
    rows = rows.assign(accuracy=0.5).astype({"model": object})
    rows.loc[wrong, "model"] = ["c", "d", "e"][: len(wrong)]
    with pytest.raises(ZooError) as e:
        replace(zoo, records=rows).validate({"records": "r.csv"})
    assert str(e.value) == f"r.csv: row 2, column 'model': 'c' breaks the rule 'listed in models'{says}"


# --- references between tables


def two_kinds():
    return Zoo(
        models=pd.DataFrame({"model": ["a", "b"], "modality": ["text", "image"]}),
        datasets=pd.DataFrame({"dataset": ["x", "y", "z"], "modality": ["text", "text", "image"]}),
    )


@pytest.mark.parametrize(
    ("table", "rows", "says"),
    [
        ("datasets", [["x", "text"], ["x", "text"]], "row 2, column 'dataset': 'x' .* 'one row per dataset'"),
        (
            "scores",
            [["a", "x", "m", 1], ["a", "x", "n", 1], ["a", "y", "m", 1], ["a", "x", "m", 2]],
            "row 4, column 'model': 'a' .* 'one row per model and dataset and metric'",
        ),
        (
            "embeddings",
            [["x", "m", [1]], ["x", "n", [1]], ["x", "m", [2]]],
            "row 3, column 'dataset': 'x' .* 'one row per dataset and method'",
        ),
        ("records", [["a", "w", 1]], "row 1, column 'dataset': 'w' .* 'listed in datasets'"),
        ("scores", [["c", "x", "m", 1]], "row 1, column 'model': 'c' .* 'listed in models'"),
        ("distances", [["w", "x", "m", 1]], "row 1, column 'dataset': 'w' .* 'listed in datasets'"),
        ("distances", [["x", "w", "m", 1]], "row 1, column 'other': 'w' .* 'listed in datasets'"),
        ("embeddings", [["w", "m", [1]]], "row 1, column 'dataset': 'w' .* 'listed in datasets'"),
        (
            "records",
            [["a", "x", 1], ["b", "y", 1]],
            "row 2, column 'model': 'b' .* 'model and dataset are of one modality'",
        ),
        (
            "scores",
            [["a", "z", "m", 1]],
            "row 1, column 'model': 'a' .* 'model and dataset are of one modality'",
        ),
        (
            "distances",
            [["x", "y", "m", 1], ["y", "x", "n", 2], ["y", "x", "m", 1 + 1e-5]],
            "row 3, column 'distance': 1.00001 .* 'the same distance in both directions'",
        ),
        (
            "distances",
            [["x", "x", "m", 0.5]],
            "row 1, column 'distance': 0.5 .* 'no distance from a dataset",
        ),
        (
            "embeddings",
            [["x", "m", [1, 2]], ["x", "n", [1]], ["y", "m", [1]]],
            "row 3, column 'vector': .* 'as long as the other vectors of its method'",
        ),
    ],
)
def test_what_tables_say_of_each_other_is_checked(table, rows, says):
    required = [column for column, needed in TABLES[table].items() if needed]
    if table in ("distances", "embeddings"):
        required.insert(-1, "method")
    zoo = two_kinds()
    with pytest.raises(ZooError, match=f"^{table}: {says}"):
        replace(zoo, **{table: pd.DataFrame(rows, columns=required)}).validate()
    good = replace(zoo, **{table: pd.DataFrame(rows[:-1], columns=required)})
    assert len(getattr(good.validate(), table)) == len(rows) - 1


def test_distances_may_differ_by_rounding_and_be_zero():
    rows = [["x", "y", 1.0], ["y", "x", 1 + 1e-7], ["x", "x", 0.0], ["x", "z", 0.0], ["z", "x", 1e-10]]
    distances = pd.DataFrame(rows, columns=["dataset", "other", "distance"])
    assert len(replace(two_kinds(), distances=distances).validate().distances) == 5


# --- files


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_only_the_rows_and_columns_that_are_asked_for_are_read(tmp_path, kind):
    rows = {"model": ["a", "b", "a", "b"], "dataset": ["x", "x", "y", "z"], "accuracy": [0.1, 0.2, 0.3, 0.4]}
    plain, marked = pd.DataFrame(rows), pd.DataFrame(rows | {"method": ["lora", None, "full", "linear"]})

    def read(frame, **options):
        frame.to_csv(tmp_path / "records.csv", index=False) if kind == "csv" else frame.to_parquet(
            tmp_path / "records.parquet", index=False
        )
        table, path = read_table(tmp_path, "records", **options)
        assert path == str(tmp_path / f"records.{kind}")
        return table

    assert read(plain)["accuracy"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert read(plain, where={"dataset": ["x"]})["accuracy"].tolist() == [0.1, 0.2]
    assert read(plain, where={"dataset": iter(["x", "z"]), "model": ["b"]})["accuracy"].tolist() == [0.2, 0.4]
    assert list(read(plain, columns=["accuracy", "model", "seed"])) == ["model", "accuracy"]
    assert list(read(plain, columns=["model"], where={"dataset": ["y"]})["model"]) == ["a"]
    # A column that is not there holds its default, and so does an empty cell.
    assert len(read(plain, where={"method": ["full", "lora"]})) == 4
    assert len(read(plain, where={"method": ["lora"]})) == 0
    assert len(read(plain, where={"family": ["f"]})) == 0
    assert read(marked, where={"method": ["full"]})["accuracy"].tolist() == [0.2, 0.3]
    assert read(marked, where={"method": ["lora"]})["accuracy"].tolist() == [0.1]
    assert read(marked, where={"method": ["lora", "linear"]})["accuracy"].tolist() == [0.1, 0.4]


def test_a_zoo_loads_only_what_is_asked_for(tmp_path):
    zoo = small_zoo()
    zoo.save(tmp_path)
    columns = {"records": ["model", "dataset", "accuracy"]}
    part = Zoo.load(tmp_path, columns, {"records": {"dataset": ["x"]}})
    assert part.records["accuracy"].tolist() == [0.1, 0.2] and part.records["method"].eq("full").all()
    assert len(part.scores) == 1


def test_no_table_two_tables_and_tables_without_sense(tmp_path):
    assert read_table(tmp_path, "scores") == (None, str(tmp_path / "scores.parquet"))
    small_zoo().save(tmp_path)
    (tmp_path / "models.csv").write_text("model,modality\na,text\n")
    with pytest.raises(ZooError) as e:
        Zoo.load(tmp_path)
    says = f"{tmp_path}/models.parquet: models.csv stands beside it; expected one file per table"
    assert str(e.value) == says
    (tmp_path / "models.parquet").unlink()
    (tmp_path / "models.csv").write_text("")
    with pytest.raises(ZooError) as e:
        Zoo.load(tmp_path)
    assert str(e.value) == f"{tmp_path}/models.csv: cannot be read as a table (No columns to parse from file)"
    with pytest.raises(ZooError) as e:
        Zoo.load(tmp_path / "none")
    assert str(e.value) == f"{tmp_path}/none: no such folder; expected one that holds {', '.join(TABLES)}"
    (tmp_path / "models.csv").write_text("model,modality\na,text\n")
    (tmp_path / "datasets.parquet").unlink()
    with pytest.raises(ZooError) as e:
        Zoo.load(tmp_path)
    assert str(e.value) == f"{tmp_path}/datasets.parquet: no such file; a zoo needs its datasets"


def test_identifiers_in_csv_are_text_to_the_letter(tmp_path):
    (tmp_path / "models.csv").write_text(
        "model,modality,family,architecture,pretrained_on,n_params\n007,text,1.0,1e3,nan,0.1\nNA,text,,,,\n"
    )
    (tmp_path / "datasets.csv").write_text("dataset,modality\n01,text\nnull,text\n")
    (tmp_path / "distances.csv").write_text("dataset,other,distance\n01,null,0.1\n")
    zoo = Zoo.load(tmp_path)
    assert zoo.models["model"].tolist() == ["007", "NA"] and zoo.models["family"].tolist() == ["1.0", None]
    assert zoo.models["architecture"].tolist() == ["1e3", None]
    assert zoo.models["pretrained_on"].tolist() == ["nan", None]
    assert zoo.distances.loc[0, ["dataset", "other", "distance"]].tolist() == ["01", "null", 0.1]


def test_writing_makes_folders_and_leaves_nothing_else(tmp_path):
    folder = tmp_path / "new" / "zoo"
    zoo = small_zoo()
    write_tables(folder, {"models": zoo.models.set_axis([5, 9]), "scores": zoo.scores[:0]})
    assert os.listdir(folder) == ["models.parquet"]
    assert pd.read_parquet(folder / "models.parquet").index.tolist() == [0, 1]
    write_tables(folder, {"models": zoo.models[:0]})
    assert os.listdir(folder) == []


# --- what is read off a zoo


def test_a_zoo_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        small_zoo().records = None


def test_a_fingerprint_is_of_the_content_of_every_table():
    vectors = pd.DataFrame({"dataset": ["x", "y"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
    zoo = replace(small_zoo(), embeddings=vectors).validate()
    assert len(zoo.fingerprint) == 16 and set(zoo.fingerprint) <= set("0123456789abcdef")
    seen = {zoo.fingerprint}
    changes = {
        "models": ("n_params", [1.0, 3.0]),
        "datasets": ("role", ["source", "target"]),
        "records": ("accuracy", [0.1, 0.2, 0.4]),
        "scores": ("score", [-0.6]),
        "distances": ("distance", [1.6]),
        "embeddings": ("vector", [[1.0, 2.0], [3.0, 5.0]]),
    }
    for table, (column, values) in changes.items():
        rows = getattr(zoo, table)
        seen.add(replace(zoo, **{table: rows.assign(**{column: values})}).fingerprint)
        seen.add(
            replace(
                zoo, **{table: rows.rename(columns=dict.fromkeys(("method", "metric", "modality"), "m"))}
            ).fingerprint
        )
        seen.add(replace(zoo, **{table: rows[::-1]}).fingerprint)
        same = replace(zoo, **{table: rows.set_axis(range(5, 5 + len(rows)))})
        assert same.fingerprint == zoo.fingerprint
    assert len(seen) == 1 + 6 * 3 - 2  # two tables have one row: the same backwards
    arrays = vectors.assign(vector=[np.array(v, np.float32) for v in vectors["vector"]])
    assert replace(small_zoo(), embeddings=arrays).validate().fingerprint == zoo.fingerprint


def test_what_is_asked_for_by_name_is_that_alone():
    methods = ["full", "linear", "lora", "reported"]  # in the order of the alphabet
    records = {"model": "a", "dataset": "x", "method": methods, "accuracy": [0.1, 0.2, 0.3, 0.4]}
    scores = {"model": "a", "dataset": "x", "metric": ["A", "B", "C"], "score": [1.0, 2.0, 3.0]}
    distances = {"dataset": "x", "other": "y", "method": ["a", "b", "c"], "distance": [1.0, 2.0, 3.0]}
    vectors = {"dataset": ["x", "y"] * 3, "method": [*"ddeeff"], "vector": [[v] for v in (0, 1, 0, 2, 0, 3)]}
    parts = {"records": records, "scores": scores, "distances": distances, "embeddings": vectors}
    zoo = replace(small_zoo(), **{table: pd.DataFrame(rows) for table, rows in parts.items()}).validate()
    for method, accuracy in zip(methods, records["accuracy"], strict=True):
        assert accuracy_pairs(zoo, method)["accuracy"].tolist() == [accuracy]
        assert accuracy_matrix(zoo, method).loc["a", "x"] == accuracy
    for metric, score in zip(scores["metric"], scores["score"], strict=True):
        assert score_matrix(zoo, metric).loc["a", "x"] == score
    for i, (listed, measured) in enumerate(zip("abc", "def", strict=True), start=1):
        assert distance_matrix(zoo, listed).loc["y", "x"] == i
        assert distance_matrix(zoo, measured).loc["y", "x"] == i
    assert distance_matrix(zoo, "g").empty


def test_pairs_are_sorted_by_model_then_data_set():
    rows = {"model": ["b", "a", "b"], "dataset": ["x", "y", "x"], "accuracy": [0.25, 0.5, 0.75]}
    pairs = accuracy_pairs(replace(small_zoo(), records=pd.DataFrame(rows)).validate())
    assert pairs.to_dict("list") == {"model": ["a", "b"], "dataset": ["y", "x"], "accuracy": [0.5, 0.5]}


def test_distances_that_are_listed_make_a_square_with_gaps():
    datasets = pd.DataFrame({"dataset": ["x", "w", "y", "z"], "modality": "text"})
    rows = [["z", "x", 1.0], ["y", "z", 2.0], ["z", "z", 0.0]]
    distances = pd.DataFrame(rows, columns=["dataset", "other", "distance"])
    matrix = distance_matrix(Zoo(small_zoo().models, datasets, distances=distances).validate())
    assert list(matrix) == list(matrix.index) == ["x", "y", "z"]
    expected = [[0, np.nan, 1], [np.nan, 0, 2], [1, 2, 0]]
    np.testing.assert_array_equal(matrix.to_numpy(), expected)


def test_hiding_a_target_takes_its_records_and_nothing_else():
    rows = {"model": "a", "dataset": ["w", "x", "y", "x", "w"], "accuracy": [0.1, 0.2, 0.3, 0.4, 0.5]}
    datasets = pd.DataFrame({"dataset": ["w", "x", "y"], "modality": "text", "role": "target"})
    zoo = replace(small_zoo(), datasets=datasets, records=pd.DataFrame(rows)).validate()
    hidden = hide_target(zoo, "x")
    assert list(hidden.records) == list(zoo.records) and hidden.records.index.tolist() == [0, 1, 2]
    assert hidden.records["accuracy"].tolist() == [0.1, 0.3, 0.5] and hidden.scores.equals(zoo.scores)
    with pytest.raises(ValueError, match=r"^target 'v' is not a dataset of this zoo; its targets: w, x, y$"):
        hide_target(zoo, "v")
    with pytest.raises(ValueError, match=r"its targets: none$"):
        hide_target(two_kinds().validate(), "v")


ODD = [
    None,
    np.nan,
    pd.NA,
    "",
    "a",
    "1",
    0,
    1,
    -1,
    0.5,
    2.0,
    1e9,
    np.inf,
    True,
    np.float32(0.25),
    "full",
    "target",
]
LISTS = [[], [1.0], [1, 2], ["a"], np.array([0.5, np.nan]), (1.0, 2.0)]


WORDS = {"role": ["target", "source"], "source": ["timm", "transformers", "local"]}
WORDS |= {"access": ["open", "gated", "gone"]}
FILLED = [
    "model",
    "dataset",
    "other",
    "method",
    "modality",
    "quality",
    "role",
    "accuracy",
    "score",
    "distance",
]


def is_vector(value):
    return np.ndim(value) == 1 and len(value) > 0 and np.isfinite(np.asarray(value, float)).all()


def schema(table):
    "The rules once more, as a schema of pandera."

    def rules(column):
        filled = column in [*FILLED, "vector"] or (table, column) == ("scores", "metric")
        if column == "vector":
            return pa.Column(object, pa.Check(is_vector, element_wise=True))
        if column in RANGES:
            finite = pa.Check(lambda values: np.isfinite(values))
            return pa.Column(float, [finite, pa.Check.in_range(*RANGES[column])], nullable=not filled)
        words = ["full", "lora", "linear", "reported"] if (table, column) == ("records", "method") else None
        words = words or WORDS.get(column)
        checks = [pa.Check(lambda names: names.ne("")), *([pa.Check.isin(words)] if words else [])]
        return pa.Column(object, checks, nullable=not filled)

    return pa.DataFrameSchema({c: rules(c) for c in [*TABLES[table], *MORE_COLUMNS[table]]})


def drawn_table(data):
    table = data.draw(st.sampled_from(list(TABLES)))
    columns = [*TABLES[table], *MORE_COLUMNS[table]]
    rows = data.draw(st.integers(0, 3))
    frame = pd.DataFrame(index=range(rows))
    usual = {"method": "full", "role": "source", "source": "timm", "access": "open", "vector": [1.0]}
    for column in columns:
        frame[column] = [usual.get(column, 1.0 if column in RANGES else "a")] * rows
    if "n_classes" in frame:
        frame["n_classes"] = 2.0
    for column in data.draw(st.lists(st.sampled_from(columns), max_size=3)):
        odd = ODD + LISTS * (column == "vector")
        values = data.draw(st.lists(st.sampled_from(range(len(odd))), min_size=rows, max_size=rows))
        frame[column] = pd.Series([odd[at] for at in values], frame.index, dtype=object)
        if data.draw(st.booleans()):
            frame[column] = frame[column].infer_objects()
    return table, frame


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_let_through_fulfils_the_schema_and_what_fulfils_it_is_let_through(data):
    table, frame = drawn_table(data)
    try:
        found = check_table(table, frame)
    except ZooError as error:
        row, column = re.search(r"row (\d+), column '(\w+)'", str(error)).groups()
        wrong = frame.loc[[int(row) - 1]].astype({c: object for c in frame if c not in RANGES})
        for name in wrong.columns.intersection([*RANGES]):
            with contextlib.suppress(TypeError, ValueError):
                wrong[name] = wrong[name].astype(float)
        with pytest.raises(pandera.errors.SchemaErrors) as known:
            schema(table).validate(wrong, lazy=True)
        assert column in set(known.value.failure_cases["column"])
        return
    pd.testing.assert_frame_equal(schema(table).validate(found, lazy=True), found)


DATES = pd.to_datetime(["2020-01-01", None])


@pytest.mark.parametrize("values", [DATES, DATES.astype(object), DATES - DATES[0], [1j, 2.0], [[1.0], None]])
def test_what_is_no_number_is_refused_and_never_made_one(values):
    frame = pd.DataFrame({"model": "m", "dataset": "d", "accuracy": 0.5, "epochs": values})
    with pytest.raises(ZooError, match=r"row 1, column 'epochs': .* breaks the rule 'a number'"):
        check_table("records", frame)


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "timedelta64[ns]", "Int64", "category", object])
def test_nothing_stays_nothing_whatever_its_type(dtype):
    frame = pd.DataFrame(
        {"model": "m", "dataset": "d", "accuracy": 0.5, "epochs": pd.Series([None], dtype=dtype)}
    )
    assert check_table("records", frame)["epochs"].isna().all()


@pytest.mark.parametrize("values", [["1", " 2.5 "], pd.array([1, 2.5], "Float64"), pd.Categorical([1, 2.5])])
def test_numbers_are_numbers_however_they_are_written(values):
    frame = pd.DataFrame({"model": "m", "dataset": "d", "accuracy": 0.5, "epochs": values})
    assert check_table("records", frame)["epochs"].tolist() == [1, 2.5]


def test_tables_are_read_without_pandera(tmp_path):
    small_zoo().save(tmp_path)
    code = f"import sys, transfergraph; transfergraph.Zoo.load({str(tmp_path)!r})"
    code += "; print('pandera' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
