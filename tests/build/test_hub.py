"""A zoo from a list of ids, asked of a server on this machine that speaks the hub's HTTP API."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import transformers
from hub_server import CARD, TIMM, Fault, commit, repository, serving
from networks import TINY, save_timm, save_tiny
from PIL import Image
from waiting import PATIENCE, until

from transfergraph.build.hub import Hub, build_hub_zoo, retry
from transfergraph.build.hub_cards import (
    Entry,
    UnavailableError,
    check_id,
    dataset_row,
    local_facts,
    model_row,
    read_list,
    reported,
)
from transfergraph.cli.program import main
from transfergraph.models.checkpoints import card_accuracies, card_facts, front_matter
from transfergraph.models.loading import load_backbone
from transfergraph.zoo.tables import Zoo

BROKEN = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
DATA_CARD = """---
license: [cc-by-4.0]
task_categories: [image-classification]
dataset_info:
  features:
  - {name: image, dtype: image}
  - name: label
    dtype:
      class_label: {names: {'0': cat, '1': dog, '2': newt}}
  splits: [{name: train, num_examples: 120}, {name: test, num_examples: 30}]
---
"""
BERT = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 99, "max_position_embeddings": 64}


@pytest.fixture
def server(tmp_path, monkeypatch):
    root = tmp_path / "hub"
    repository(root / "models" / "owner" / "resnet", TIMM, CARD)
    repository(root / "models" / "owner" / "bert", BERT, "---\ndatasets: [books]\n---\n")
    repository(root / "datasets" / "owner" / "pets", card=DATA_CARD, weights=False)
    with serving(root) as told:
        monkeypatch.setenv("HF_ENDPOINT", told.url)
        monkeypatch.setattr("transfergraph.build.hub.retry.__defaults__", (4, told.waited.append, 1.0))
        yield told


def listed(tmp_path, *models, datasets=()):
    path = tmp_path / "list.yaml"
    path.write_text(json.dumps({"models": list(models), "datasets": list(datasets)}))
    return path


def build(tmp_path, *models, datasets=(), out="zoo", **options):
    options = {"cache": tmp_path / "cache"} | options
    return build_hub_zoo(
        listed(tmp_path, *models, datasets=datasets), tmp_path / out, Hub(**options), progress=False
    )


def failed(found):
    rows = found.report[found.report["status"] == "failed"]
    return dict(zip(rows["entry"], rows["reason"]))


def test_models_and_data_sets_of_a_hub_become_a_zoo(tmp_path, server):
    found = build(tmp_path, "owner/resnet", "owner/bert", datasets=[{"id": "owner/pets", "role": "target"}])
    zoo = Zoo.load(tmp_path / "zoo")
    model = zoo.models.set_index("model").loc["owner/resnet"]
    assert model[["modality", "architecture", "family", "source"]].tolist() == [
        "image",
        "test_resnet",
        "resnet",
        "timm",
    ]
    assert model[["n_params", "input_size", "pretrained_on"]].tolist() == [1234, 32, "imagenet-1k"]
    assert np.isnan(model["pretrained_accuracy"])  # what the card reports is about pets, a record
    assert model["licence"] == "apache-2.0" and model["base_model"] == "timm/base"
    assert model["revision"] == commit(server.root / "models" / "owner" / "resnet")
    text = zoo.models.set_index("model").loc["owner/bert"]
    assert text[["modality", "family", "source"]].tolist() == ["text", "bert", "transformers"]
    data = zoo.datasets.set_index("dataset").loc["owner/pets"]
    assert data[["n_samples", "n_classes", "role", "licence"]].tolist() == [120, 3, "target", "cc-by-4.0"]
    assert zoo.records[["model", "dataset", "method", "accuracy"]].values.tolist() == [
        ["owner/resnet", "owner/pets", "reported", 0.915]
    ]
    assert found.report["status"].tolist() == ["asked"] * 3
    pinned = json.loads((tmp_path / "zoo" / "models.json").read_text())
    assert pinned["owner/resnet"] == {"spec": "owner/resnet", "revision": model["revision"]}
    assert not any("safetensors" in line for line in server.asked)  # no weights are downloaded


def test_a_second_run_asks_nobody_and_an_offline_one_needs_nobody(tmp_path, server):
    build(tmp_path, "owner/resnet")
    first = len(server.asked)
    again = build(tmp_path, "owner/resnet")
    offline = build(tmp_path, "owner/resnet", "owner/bert", offline=True)
    assert len(server.asked) == first
    assert again.report["status"].tolist() == ["cached"]
    assert failed(offline) == {"owner/bert": "not in the cache, and offline"}
    build(tmp_path, "owner/resnet", refresh=True)
    assert len(server.asked) > first


def test_a_damaged_answer_in_the_cache_is_asked_for_again(tmp_path, server):
    build(tmp_path, "owner/resnet")
    for path in (tmp_path / "cache").iterdir():
        path.write_text('{"sha": ')
    assert build(tmp_path, "owner/resnet").report["status"].tolist() == ["asked"]


def test_a_revision_is_pinned_and_one_that_is_not_there_is_told(tmp_path, server):
    sha = commit(server.root / "models" / "owner" / "resnet")
    found = build(tmp_path, {"id": "owner/resnet", "revision": "v1"}, {"id": "owner/bert", "revision": "v9"})
    assert found.zoo.models["revision"].tolist() == [sha]
    assert failed(found) == {"owner/bert": "no such revision"}


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_a_busy_or_ill_server_is_asked_again(tmp_path, server, status):
    server.faults = [Fault("api/models/owner/resnet", status, times=2)]
    found = build(tmp_path, "owner/resnet")
    assert failed(found) == {} and len(server.waited) == 2
    assert 0.5 <= server.waited[0] <= 1.5 and 1 <= server.waited[1] <= 3


def test_a_server_says_when_to_come_back(tmp_path, server):
    server.faults = [Fault("api/models/owner/resnet", 429, headers={"Retry-After": "7"})]
    assert failed(build(tmp_path, "owner/resnet")) == {} and server.waited == [7.0]


def test_a_server_that_stays_ill_is_named_and_the_others_are_had(tmp_path, server):
    server.faults = [Fault("api/models/owner/resnet", 500, times=99)]
    found = build(tmp_path, "owner/resnet", "owner/bert", retries=2)
    assert failed(found) == {"owner/resnet": "the server answered 500"}
    assert found.zoo.models["model"].tolist() == ["owner/bert"] and len(server.waited) == 2


def test_silence_and_a_cut_line_are_tried_again(tmp_path, server):
    server.faults = [Fault("api/models/owner/resnet", delay=1.5), Fault("api/models/owner/bert", cut=5)]
    found = build(tmp_path, "owner/resnet", "owner/bert", timeout=0.5)
    assert failed(found) == {} and len(server.waited) >= 2


def test_no_is_an_answer(tmp_path, server):
    repository(server.root / "models" / "owner" / "locked", TIMM)
    (server.root / "models" / "owner" / "locked" / ".gated").touch()
    found = build(tmp_path, "owner/bert", "owner/locked", "owner/nothing", datasets=["nothing"])
    reasons = failed(found)
    assert reasons["owner/locked"] == "gated: its owner has to grant access"
    assert reasons["owner/nothing"] == reasons["nothing"] == "no such repository, or a private one"
    assert server.waited == []


def test_what_could_run_code_or_is_too_large_is_left_out(tmp_path, server):
    models = server.root / "models" / "evil"
    repository(models / "pickle", TIMM, weights=False)
    (models / "pickle" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    repository(models / "empty", TIMM, weights=False)
    repository(models / "remote", BERT | {"auto_map": {"AutoModel": "modeling.Evil"}})
    (models / "remote" / "modeling.py").write_text("raise SystemExit('ran')")
    repository(models / "path", TIMM)
    server.extra_files["evil/path"] = [{"rfilename": "../../.bashrc", "size": 3}]
    repository(models / "large", json.dumps(TIMM) + " " * 5000)
    repository(models / "broken", "{")
    repository(models / "other", {"some": "thing"})
    names = [f"evil/{path.name}" for path in models.iterdir()]
    reasons = failed(build(tmp_path, "owner/bert", *names, max_bytes=4000))
    assert reasons == {
        "evil/pickle": "evil/pickle/pytorch_model.bin: a pickle can run code as it is read, and no "
        "model.safetensors is beside it; allow_pickle=True reads it with torch.load(weights_only=True), "
        "which takes tensors only",
        "evil/empty": "expected the weights, model.safetensors",
        "evil/remote": "needs code from its repository (auto_map), which is never run",
        "evil/path": "holds a file called '../../.bashrc', which leads out of its folder",
        "evil/large": f"config.json has {5000 + len(json.dumps(TIMM))} bytes; at most 4000 are downloaded",
        "evil/broken": f"its config.json is not JSON ({BROKEN})",
        "evil/other": "config.json: expected the key architecture (timm) or model_type (transformers)",
    }


def row_of(folder):
    return model_row(Entry("model", str(folder), "it", local=True), local_facts(folder))


SAME = ["modality", "architecture", "family", "pretrained_on", "source"]


@pytest.mark.parametrize("head", ["AutoModel", "AutoModelForSequenceClassification"])
@pytest.mark.parametrize("family", TINY)
def test_a_text_model_has_the_same_row_before_and_after_it_is_loaded(tmp_path, family, head):
    save_tiny(tmp_path, family, getattr(transformers, head))
    row, loaded = row_of(tmp_path), load_backbone(tmp_path).metadata
    assert {key: row[key] for key in SAME} == {key: loaded[key] for key in SAME}
    assert family == "roberta" or row["input_size"] == loaded["input_size"]


def test_an_image_model_of_transformers_has_the_same_row_before_and_after(tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**small, image_size=32, patch_size=8, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    row, loaded = row_of(tmp_path), load_backbone(tmp_path).metadata
    same = [*SAME, "input_size"]
    assert {key: row[key] for key in same} == {key: loaded[key] for key in same}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout"])
def test_a_model_of_timm_has_the_same_row_before_and_after(tmp_path, name):
    save_timm(tmp_path, name)
    row, loaded = row_of(tmp_path), load_backbone(tmp_path).metadata
    same = [*SAME, "input_size"]
    assert {key: row[key] for key in same} == {key: loaded[key] for key in same}
    facts = local_facts(tmp_path) | {"params": None}  # a hub may not have counted
    counted = model_row(Entry("model", "a/b", "it"), facts)["n_params"]
    positions = 6144 if name == "test_vit" else 0  # this one was made for images smaller than usual
    assert counted == loaded["n_params"] + positions


@pytest.mark.parametrize(
    "config, reason",
    [
        ({"model_type": "wav2vec2"}, "a model of the type wav2vec2 reads neither images nor texts"),
        ({"model_type": "whisper"}, "a model of the type whisper reads neither"),
        ({"model_type": "evil_bert"}, "transformers has no model of the type 'evil_bert'"),
        ({"model_type": ["bert"]}, r"transformers has no model of the type \['bert'\]"),
        ({"model_type": "x" * 9999}, r"transformers has no model of the type 'x{56}\.\.\."),
        ({"architecture": "resnet_of_doom"}, "timm .* has no architecture 'resnet_of_doom'"),
        ({"architecture": {"a": 1}}, "timm .* has no architecture"),
        ({"architecture": "hf-hub:evil/model"}, "timm .* has no architecture 'hf-hub:evil/model'"),
    ],
)
def test_a_model_that_could_not_be_loaded_gets_a_reason(config, reason):
    facts = {"config": config, "card": {}, "files": {"model.safetensors": 1}, "sha": "1"}
    with pytest.raises(UnavailableError, match=reason):
        model_row(Entry("model", "a/b", "a/b"), facts)


def test_nothing_is_built_from_a_stranger_s_numbers():
    "A configuration with a billion labels and layers: a library that makes an object of it is out of memory."
    config = BERT | {"num_labels": 10**12, "num_hidden_layers": 10**12, "max_position_embeddings": 10**400}
    facts = {"config": config, "card": {}, "files": {"model.safetensors": 1}, "sha": "1"}
    row = model_row(Entry("model", "a/b", "a/b"), facts)
    assert row["architecture"] == "BertModel" and row["input_size"] == 128


def test_names_on_a_card_cannot_write_to_the_terminal():
    for name in ("\x1b[2Jowned", "two\nlines", "x" * 5000, "\u202eevil", "", 7, None):
        results = [{"dataset": {"type": name, "name": name}, "metrics": [{"type": "accuracy", "value": 0.5}]}]
        card = {
            "model-index": [{"results": results}],
            "datasets": [name],
            "license": name,
            "base_model": name,
        }
        facts = {"config": BERT, "card": card, "files": {"model.safetensors": 1}, "sha": "1"}
        entry = Entry("model", "a/b", "a/b")
        rows, left = reported(entry, facts)
        assert rows == [] and left == ["an accuracy on a dataset without a name"]
        row = model_row(entry, facts)
        assert row["pretrained_on"] is row["licence"] is row["base_model"] is None
    metrics = [{"type": "accuracy", "value": "9" * 5000}]
    card = {"model-index": [{"results": [{"dataset": {"type": "x"}, "metrics": metrics}]}]}
    assert len(reported(entry, facts | {"card": card})[1][0]) < 150


def test_the_training_split_is_no_test():
    results = [
        {"dataset": {"type": "x", "split": split}, "metrics": [{"type": "accuracy", "value": value}]}
        for split, value in (("train", 0.99), ("validation", 0.8), ("test", 0.7), ("dev", 0.9))
    ]
    rows, left = reported(Entry("model", "a/b", "a/b"), {"card": {"model-index": [{"results": results}]}})
    assert [row["accuracy"] for row in rows] == [0.7] and left == ["accuracy on the training split of x"]


@pytest.mark.parametrize(
    "metric",
    [
        {"type": "accuracy"},
        {"type": "acc"},
        {"name": "Top-1 Accuracy"},
        {"type": "accuracy", "name": "Test accuracy"},
        {"type": "acc@1"},
        {"type": "top_1"},
    ],
)
def test_what_cards_call_an_accuracy(metric):
    results = [{"dataset": {"type": "x"}, "metrics": [metric | {"value": 76.1}]}]
    found, left = card_accuracies({"model-index": [{"results": results}]})
    assert [row["accuracy"] for row in found] == [pytest.approx(0.761)] and left == []


@pytest.mark.parametrize(
    "task, metric",
    [
        (None, {"type": "top-1 error"}),
        (None, {"type": "accuracy", "name": "Error (1 - accuracy)"}),
        (None, {"type": "accuracy", "name": "Top 5 Accuracy"}),
        (None, {"type": "top-5 accuracy"}),
        (None, {"type": "accuracy", "name": "Training accuracy"}),
        (None, {"type": "accuracy", "name": "Accuracy std"}),
        (None, {"type": "balanced_accuracy"}),
        (None, {"type": "word_accuracy"}),
        ("token-classification", {"type": "accuracy"}),
        ("audio-classification", {"type": "accuracy"}),
        ("question-answering", {"type": "accuracy"}),
        ("zero-shot-image-classification", {"type": "accuracy"}),
        (None, {"type": "f1"}),
        (None, {"type": "loss", "name": "accuracy"}),
    ],
)
def test_what_is_no_accuracy_of_classification(task, metric):
    "The figure beside it is taken instead."
    rows = [(task, metric | {"value": 0.239}), ("image-classification", {"type": "accuracy", "value": 0.761})]
    results = [{"task": {"type": t}, "dataset": {"type": "x"}, "metrics": [m]} for t, m in rows]
    front = {"model-index": [{"results": results}]}
    assert [row["accuracy"] for row in card_accuracies(front)[0]] == [0.761]
    assert card_facts(front) == {"pretrained_on": "x", "pretrained_accuracy": 0.761}


def test_a_data_set_has_one_name_whatever_cards_call_it(tmp_path, server):
    models, datasets = server.root / "models" / "owner", server.root / "datasets" / "owner"
    card = "---\ndatasets: [OWNER/pets]\nmodel-index:\n- results:\n"
    said = (("{type: Pets}", 0.9), ("{type: glue, config: cola}", 0.8), ("{type: other}", 0.5))
    for dataset, value in said:
        card += f"  - dataset: {dataset}\n    metrics: [{{type: accuracy, value: {value}}}]\n"
    repository(models / "tuned", BERT, card + "---\n")
    infos = "".join(
        f"- config_name: {name}\n  features:\n  - {{name: text, dtype: string}}\n"
        f"  - name: label\n    dtype: {{class_label: {{names: {names}}}}}\n"
        f"  splits: [{{name: train, num_examples: {n}}}]\n"
        for name, names, n in (("cola", "[no, yes]", 8), ("mnli", "[a, b, c]", 9))
    )
    repository(datasets / "glue", card=f"---\ndataset_info:\n{infos}---\n", weights=False)
    text = DATA_CARD.replace("image-classification", "text-classification").replace(
        "dtype: image", "dtype: string"
    )
    (datasets / "pets" / "README.md").write_text(text)
    listed = [
        {"id": "owner/pets", "name": "pets"},
        {"id": "owner/glue", "config": "cola", "aliases": ["glue/cola"]},
        {"id": "owner/glue", "config": "mnli", "name": "mnli"},
        {"id": "owner/glue", "name": "unclear"},
    ]
    zoo = build(tmp_path, "owner/tuned", datasets=listed).zoo
    assert dict(zip(zoo.records["dataset"], zoo.records["accuracy"], strict=True)) == {
        "pets": 0.9,
        "owner/glue/cola": 0.8,
        "other": 0.5,
    }
    assert zoo.models["pretrained_on"].tolist() == ["pets"]
    sizes = zoo.datasets.set_index("dataset")[["n_samples", "n_classes"]]
    assert sizes.loc["owner/glue/cola"].tolist() == [8, 2] and sizes.loc["mnli"].tolist() == [9, 3]
    assert sizes.loc["unclear"].isna().all() and zoo.datasets["dataset"].tolist()[-1] == "other"


def test_a_hostile_card_is_not_believed():
    bomb = "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi"))
    for front in (bomb, "x: !!python/object/apply:os.system ['true']", "[" * 5000, "- a list", "\t:"):
        with pytest.warns(UserWarning) if not front.startswith("- ") else pytest.MonkeyPatch.context():
            assert front_matter(f"---\n{front}\n---\n") == {}
    for index in (
        "text",
        7,
        [7],
        [{"results": 7}],
        [{"results": [7, {"dataset": 7}, {"dataset": {}, "metrics": 7}]}],
    ):
        rows, _ = reported(Entry("model", "a/b", "a/b"), {"card": {"model-index": index}})
        assert rows == []
    metrics = [{"type": "accuracy", "value": v} for v in (-1, 101, True, None, "90", float("nan"))] + [7, {}]
    card = {"model-index": [{"results": [{"dataset": {"type": "x"}, "metrics": metrics}]}]}
    rows, left = reported(Entry("model", "a/b", "a/b"), {"card": card})
    assert rows == [] and len(left) == 6
    wild = {"license": ["mit"], "base_model": [[]], "datasets": {"a": 1}, "model-index": 3}
    config = TIMM | {"pretrained_cfg": {"input_size": "big", "tag": 5}}
    facts = {"config": config, "card": wild, "files": {"model.safetensors": None}, "sha": "1"}
    row = model_row(Entry("model", "a/b", "a/b"), facts)
    assert row["licence"] is None and row["input_size"] is None and row["bytes"] == 0
    with pytest.raises(UnavailableError, match="images or texts"):
        dataset_row(
            Entry("dataset", "a", "a"), {"card": {"dataset_info": 7, "task_categories": 7}, "sha": "1"}
        )


@pytest.mark.parametrize(
    "wrong", ["../x", "/etc", "a/b/c", "a--b/c", "a b", "a;rm", "$(x)", "é/x", "a/..", "-x", ".x", 7]
)
def test_what_is_no_id_is_refused(wrong):
    with pytest.raises(ValueError, match="is no id of a hub"):
        check_id(wrong)


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1]", "expected a mapping"),
        ("models: 7", "models is not a list"),
        ("models: []", "models is empty"),
        ("models: [a, a]", "listed twice"),
        ("models: [{id: a, path: b}]", "entry 1: .* expected an id, a path"),
        ("models: [{id: a, code: b}]", "expected an id, a path, or a mapping of id, name, path, revision"),
        ("models: [{id: ../a}]", "entry 1: '../a' is no id"),
        ("models: [a, {path: nowhere}]", "entry 2: .*nowhere is not there"),
        ("models: [{path: loop}]", "entry 1: .*loop is not there"),
        ("models: [{id: a, revision: ../b}]", "revision is '../b'"),
        ("models: [a]\ndatasets: [{id: b, role: friend}]", "role is 'friend'; expected source or target"),
        ("models: [{id: a, name: 7}]", "name is 7"),
        ("models: [a]\nprobe: [b]", "probe is"),
        ("models: [a]\ndatasets: [{id: b, config: ../c}]", "config is '../c'"),
        ("models: [a]\ndatasets: [{id: b, aliases: c}]", "aliases is 'c'; expected a list"),
        ("models: [", "not YAML"),
    ],
)
def test_a_list_that_is_wrong_is_refused(tmp_path, content, message):
    (tmp_path / "list.yaml").write_text(content)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match=message):
        read_list(tmp_path / "list.yaml")


def test_nothing_is_written_where_nothing_can_be_had(tmp_path, server):
    with pytest.raises(UnavailableError, match="no model is to be had; owner/nothing: no such repository"):
        build(tmp_path, "owner/nothing")
    repository(server.root / "models" / "owner" / "silent", BERT)
    with pytest.raises(UnavailableError, match="no dataset is to be had"):
        build(tmp_path, "owner/silent")
    assert not (tmp_path / "zoo").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds no zoo"):
        build(tmp_path, "owner/bert", out="taken")


def test_not_asked_again_for_what_was_had_before_a_kill(tmp_path, server):
    "Killed while one entry is waited for: the next run asks for that one only."
    server.faults = [Fault("api/models/owner/bert", delay=PATIENCE)]
    path = listed(tmp_path, "owner/resnet", "owner/bert")
    call = [sys.executable, "-c", "import sys; from transfergraph.cli.program import main; sys.exit(main())"]
    call += ["hub", "build", path, tmp_path / "zoo", "--cache", tmp_path / "cache", "--quiet"]
    running = subprocess.Popen(call, env=os.environ)
    until(lambda: list((tmp_path / "cache").glob("models--owner--resnet*.json")), running)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not list((tmp_path / "zoo").glob("*"))  # the folder is there, for its lock; nothing is in it
    server.asked.clear()
    found = build(tmp_path, "owner/resnet", "owner/bert")
    assert found.report["status"].tolist() == ["cached", "asked"]
    assert not any("resnet" in line for line in server.asked)


def test_the_command_line_against_a_server(tmp_path, server):
    path = listed(tmp_path, "owner/resnet", "owner/nothing", datasets=["owner/pets"])
    call = [sys.executable, "-c", "import sys; from transfergraph.cli.program import main; sys.exit(main())"]
    call += ["hub", "build", path, tmp_path / "zoo", "--cache", tmp_path / "cache", "--quiet"]
    told = subprocess.run(call, env=os.environ, capture_output=True, text=True, timeout=PATIENCE)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0].endswith("zoo: 1 models, 2 datasets, 1 reported results")
    assert "failed  model  owner/nothing  no such repository, or a private one" in told.stdout
    told = subprocess.run(
        [*call, "--offline", "--csv"], env=os.environ, capture_output=True, text=True, timeout=PATIENCE
    )
    assert told.stdout.splitlines()[1] == "model,owner/resnet,cached,"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--retries", "-1"], "'--retries': Input should be greater than or equal to 0"),
        (["--max-bytes", "0"], "--max-bytes 0: expected more than 0"),
        (["--offline", "--refresh"], "--refresh asks the hub again"),
        ([], "no such file|No such file"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, arguments, message):
    assert main(["hub", "build", str(tmp_path / "no.yaml"), str(tmp_path / "zoo"), *arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and re.search(message, line)


def test_a_real_checkpoint_is_loaded_at_the_revision_of_the_zoo(tmp_path, server):
    "Weights that timm really made, listed, put into a zoo, and loaded as its models.json says."
    made = load_backbone("test_resnet", input_size=32, random_state=3)
    folder = server.root / "models" / "owner" / "real"
    made.save(folder)
    found = build(tmp_path, "owner/real", datasets=[])
    options = found.models["owner/real"]
    loaded = load_backbone(options["spec"], revision=options["revision"], cache_dir=tmp_path / "files")
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype("uint8")
    assert np.allclose(loaded.features(images), made.features(images), atol=1e-5)
    assert loaded.metadata["n_params"] == made.metadata["n_params"]
    with pytest.raises(ValueError, match="owner/real"):
        load_backbone("owner/real", revision="f" * 40, cache_dir=tmp_path / "files")


def test_a_model_is_had_under_its_name_in_timm(tmp_path, server):
    made = load_backbone("test_resnet", input_size=32, random_state=3)
    made.save(server.root / "models" / "timm" / "test_resnet.r160_in1k")
    found = build(tmp_path, "test_resnet", {"id": "timm/test_resnet.r160_in1k", "name": "same"})
    assert found.models["test_resnet"] == found.models["same"] | {"spec": "test_resnet"}
    options = found.models["test_resnet"] | {"cache_dir": tmp_path / "files"}
    assert load_backbone(options.pop("spec"), **options).revision == made.revision


def test_a_download_stays_in_its_folder(tmp_path, server):
    load_backbone("test_resnet", input_size=32, random_state=3).save(server.root / "models" / "evil" / "path")
    (server.root / "models" / "out.json").write_text("{}")  # the server would even give it
    for name in ("tokenizer/../../../out.json", "tokenizer/../../../../../../../../out.json"):
        server.extra_files["evil/path"] = [{"rfilename": name, "size": 2}]
        with pytest.raises(ValueError, match=r"evil/path: .*the hub does not give it"):
            load_backbone("evil/path", cache_dir=tmp_path / "a" / "b" / "files")
    assert [p for p in tmp_path.rglob("out.json") if server.root not in p.parents] == []


def test_a_cut_file_is_fetched_again(tmp_path, server):
    server.faults = [Fault("bert/resolve/.*/config.json", cut=5), Fault("bert/resolve/.*/README.md", 503)]
    assert build(tmp_path, "owner/bert").zoo.models["pretrained_on"].tolist() == ["books"]


def test_dates_on_a_card_are_no_reason_to_lose_a_model(tmp_path, server):
    card = "---\n2020-01-01: made\nwhen: 2020-01-02\ndatasets: [books]\n---\n"
    (server.root / "models" / "owner" / "bert" / "README.md").write_text(card)
    assert build(tmp_path, "owner/bert").zoo.models["pretrained_on"].tolist() == ["books"]


def test_a_configuration_without_end_is_one_entry_lost(tmp_path, server):
    repository(server.root / "models" / "evil" / "deep", "[" * 100_000)
    found = build(tmp_path, "owner/bert", "evil/deep")
    assert failed(found)["evil/deep"].startswith("its config.json is not JSON")


def moods(folder, days=10):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("---\nlicense: mit\ntask_categories: [text-classification]\n---\n")
    for split, n in (("train", days), ("test", 4)):
        rows = "".join(f"good day {split} {i},good\nbad day {split} {i},bad\n" for i in range(n))
        (folder / f"{split}.csv").write_text("text,label\n" + rows)


def test_a_probe_sees_data_sets_of_a_hub_at_their_commit_and_remembers_them(tmp_path, server):
    data = server.root / "datasets" / "owner"
    moods(data / "moods")
    moods(data / "other", days=12)
    (data / "other" / "README.md").unlink()  # no card: the items tell
    moods(data / "scripted")
    (data / "scripted" / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    content = {"models": ["owner/bert"], "datasets": [f"owner/{d}" for d in ("moods", "other", "scripted")]}
    (tmp_path / "list.yaml").write_text(json.dumps(content | {"probe": "minilm"}))
    call = [sys.executable, "-c", "import sys; from transfergraph.cli.program import main; sys.exit(main())"]
    call += ["hub", "build", tmp_path / "list.yaml", tmp_path / "zoo", "--cache", tmp_path / "cache"]
    env = os.environ | {"HF_HOME": str(tmp_path / "home")}

    def run(*options):
        server.asked.clear()
        told = subprocess.run(
            [*call, "--quiet", *options], env=env, capture_output=True, text=True, timeout=PATIENCE
        )
        assert told.returncode == 0, told.stderr
        assert "examples/s" not in told.stderr
        return told.stdout, Zoo.load(tmp_path / "zoo")

    shown, zoo = run()
    assert "  entries: 4 asked\n" in shown and "not seen by the probe: it is read by scripted.py" in shown
    assert not (tmp_path / "ran").exists() and not any(
        "GET" in a and "scripted.py" in a for a in server.asked
    )
    rows = zoo.datasets.set_index("dataset")
    assert rows.loc["owner/moods", ["n_samples", "n_classes", "majority_share"]].tolist() == [20, 2, 0.5]
    assert rows.loc["owner/moods", "licence"] == "mit" and rows.loc["owner/other", "n_samples"] == 24
    sha = {name: commit(data / name) for name in ("moods", "other", "scripted")}
    assert all(rows.loc[f"owner/{name}", "revision"] == value for name, value in sha.items())
    fetched = [line for line in server.asked if line.endswith(".csv") and "GET" in line]
    assert fetched and all(any(value in line for value in sha.values()) for line in fetched)
    assert set(zoo.embeddings["dataset"]) == {"owner/moods", "owner/other"}
    moods(data / "moods", days=20)  # the hub moves on, the zoo does not
    shown, again = run("--offline")
    assert server.asked == [] and "  entries: 4 cached\n" in shown
    assert again.embeddings["vector"].map(list).tolist() == zoo.embeddings["vector"].map(list).tolist()
    newer = run("--refresh")[1].datasets.set_index("dataset")
    assert newer.loc["owner/moods", ["n_samples", "revision"]].tolist() == [40, commit(data / "moods")]


def test_local_folders_get_distances_from_a_probe(tmp_path):
    rng = np.random.default_rng(0)
    for name, shift in (("one", 0), ("two", 60)):
        for label, colour in (("red", (150, 40, 40)), ("blue", (40, 40, 150))):
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(8):
                pixels = (
                    (np.array(colour) + shift + rng.integers(-40, 40, (32, 32, 3)))
                    .clip(0, 255)
                    .astype("uint8")
                )
                Image.fromarray(pixels).save(tmp_path / name / label / f"{i}.png")
    load_backbone("test_resnet", input_size=32, random_state=0).save(tmp_path / "net")
    probe = str(tmp_path / "net")
    content = {
        "models": [{"path": "net"}],
        "datasets": ["one", {"path": "two", "role": "target"}],
        "probe": probe,
    }
    (tmp_path / "list.yaml").write_text(json.dumps(content))
    found = build_hub_zoo(tmp_path / "list.yaml", tmp_path / "zoo", Hub(tmp_path / "cache"), progress=False)
    zoo = Zoo.load(tmp_path / "zoo")
    assert found.report["status"].tolist() == ["read"] * 3
    assert zoo.datasets["n_classes"].tolist()[:2] == [2, 2] and zoo.targets == ["two"]
    assert len(zoo.embeddings) and (zoo.distances["distance"] > 0).all()
    assert zoo.models["n_params"].iloc[0] > 1000


def test_results_that_were_joined_survive_a_rebuild(tmp_path, server):
    build(tmp_path, "owner/resnet", "owner/bert")
    own = tmp_path / "own.csv"
    own.write_text("model,dataset,accuracy\nowner/resnet,cars,0.8\nelse/net,cars,0.6\n")
    assert main(["import-records", str(own), str(tmp_path / "zoo"), "--modality", "image"]) == 0
    build(tmp_path, "owner/resnet")
    zoo = Zoo.load(tmp_path / "zoo")
    assert zoo.targets == ["cars"]
    assert sorted(zoo.models["model"]) == ["else/net", "owner/resnet"]  # bert is not listed any more
    assert sorted(zoo.records["method"]) == ["full", "full", "reported"] and "cars" in set(
        zoo.datasets["dataset"]
    )


def test_data_sets_are_not_downloaded_for_a_probe_when_large_or_packed(tmp_path, server):
    data = server.root / "datasets" / "owner"
    (data / "pets" / "train.parquet").write_bytes(b"x" * 5000)
    repository(data / "packed", card=DATA_CARD, weights=False)
    (data / "packed" / "images.ZIP").write_bytes(b"PK")
    (tmp_path / "list.yaml").write_text(
        json.dumps(
            {"models": ["owner/bert"], "datasets": ["owner/pets", "owner/packed"], "probe": "test_resnet"}
        )
    )
    found = build_hub_zoo(
        tmp_path / "list.yaml", tmp_path / "zoo", Hub(tmp_path / "cache", max_bytes=4000), progress=False
    )
    left = found.report[found.report["status"] == "left out"].set_index("entry")["reason"]
    assert "bytes, at most 4000 are downloaded" in left["owner/pets"]
    assert left["owner/packed"] == "not seen by the probe: images.ZIP is an archive, which is not unpacked"
    assert found.zoo.embeddings.empty and not any("parquet" in line or "ZIP" in line for line in server.asked)


def test_only_faults_of_the_line_are_tried_again():
    calls = []

    def call():
        calls.append(1)
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        retry(call, sleep=calls.append)
    assert calls == [1]
