"""A zoo from a spec of local folders: the same code and notebooks that the nano zoo goes through."""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from transfergraph.build.scoring import embed_datasets, score_zoo
from transfergraph.build.zoo_spec import (
    assemble,
    dataset_table,
    loaders,
    model_table,
    open_dataset,
    read_model_list,
    read_spec,
    tune_models,
    write_model_list,
)
from transfergraph.zoo.tables import Zoo

ROOT = Path(__file__).resolve().parents[2]
STAGES = ROOT / "nbs" / "stages"
WORDS = {"fruit": "apple pear plum grape lemon", "metal": "iron gold tin lead zinc"}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    "Two saved timm models, two saved transformers models, an image folder, a CSV: what a user has at hand."
    import torch
    from PIL import Image
    from sklearn.datasets import load_digits
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

    from transfergraph.build.zoo_spec import draw_backbone

    folder = tmp_path_factory.mktemp("local")
    for seed, name in enumerate(("one", "two")):
        draw_backbone(name, "test_resnet", 32, random_state=seed).save(folder / f"timm-{name}")
    words = ["[PAD]", "[UNK]", *" ".join(WORDS.values()).split(), "the", "a", "small"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=32, num_labels=3, **sizes)
    torch.manual_seed(0)
    for name, kind in (("plain", BertModel), ("headed", BertForSequenceClassification)):
        kind(config).save_pretrained(folder / f"bert-{name}")
        tokenizer.save_pretrained(folder / f"bert-{name}")
    digits = load_digits()
    for i in range(300):
        if digits.target[i] < 3:
            place = folder / "images" / f"digit {digits.target[i]}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[i] * 15).astype(np.uint8)).resize((32, 32)).save(
                place / f"{i}.png"
            )
    for name, place in (("kinds", "the"), ("kinds2", "a small")):
        rows = [(f"{place} {w}", k) for k, text in WORDS.items() for w in text.split() for _ in range(4)]
        pd.DataFrame(rows, columns=["sentence", "kind"]).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def specs(local):
    columns = {"text_column": "sentence", "label_column": "kind"}
    quick = {"epochs": 2, "batch_size": 8}
    return {
        "hub-image": {
            "modality": "image",
            "models": {"maker/one": str(local / "timm-one"), "two": {"spec": str(local / "timm-two")}},
            "targets": {
                "images": {"spec": str(local / "images"), "per_class": 6, "size": 32},
                "digits": {"spec": "digits", "per_class": 20},
            },
            "probe": str(local / "timm-one"),
            "finetune": quick | {"epochs": 4, "learning_rate": 0.003},
        },
        "hub-text": {
            "modality": "text",
            "models": {"plain": str(local / "bert-plain"), "headed": str(local / "bert-headed")},
            "targets": {n: {"spec": str(local / f"{n}.csv"), **columns} for n in ("kinds", "kinds2")},
            "probe": str(local / "bert-plain"),
            "metrics": ["LogME", "LEEP", "RSA"],
            "finetune": quick,
        },
    }


def test_a_zoo_is_built_from_local_folders(specs, tmp_path):
    spec = read_spec("hub-text", specs["hub-text"])
    datasets = [open_dataset(spec, name, tmp_path / "cache") for name in spec.targets]
    scores = pd.concat([score_zoo(spec, d, tmp_path / "cache", progress=False) for d in datasets])
    records = pd.concat(
        [tune_models(spec, d, tmp_path / f"{d.name}.jsonl", n_jobs=1, progress=False) for d in datasets]
    )
    vectors, pairs = embed_datasets(spec, datasets, tmp_path / "cache", progress=False)
    zoo = assemble(model_table(spec), dataset_table(spec, datasets), records, scores, vectors, pairs)
    zoo.save(tmp_path / "zoo")
    again = Zoo.load(tmp_path / "zoo")
    assert again.targets == ["kinds", "kinds2"] and set(again.models["model"]) == {"plain", "headed"}
    assert len(again.records) == 4 and again.records["accuracy"].between(0, 1).all()
    has = again.scores.groupby("metric")["model"].unique().map(sorted).to_dict()
    assert has == {"LogME": ["headed", "plain"], "RSA": ["headed", "plain"], "LEEP": ["headed"]}
    assert set(again.distances["method"]) >= {"domain_similarity", "task2vec"}
    same = again.scores.query("metric == 'RSA' and model == 'plain'")["score"]
    assert np.allclose(same, 1)  # the probe against itself


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hub-image", "hub-text"])
def test_the_stage_notebooks_run_on_a_spec_of_local_folders(specs, name, tmp_path, monkeypatch):
    from transfergraph.report.terminal import run_notebook

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    methods = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings = methods | {"build": {name: specs[name]}, "n_jobs": 1, "seeds": [0], "zoos": [name]}
    settings |= {"predictors": ["LR"], "learners": ["N2V"], "methods": ["mean", "LogME"], "ablation": {}}
    settings |= {"headline": "TG:LR,N2V,all", "panels": ["mean", "LogME", "TG:LR,N2V,all"]}
    Path("params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    targets = list(specs[name]["targets"])
    common = {"zoo": name, "models": None}
    for target in targets:
        given = common | {"dataset": target}
        out = {"out": f"scores/{target}.parquet", "figures": f"figures/{target}"}
        run_notebook(STAGES / "features.ipynb", f"features-{target}.ipynb", given | out, progress=False)
        out = {"out": f"records/{target}.parquet", "runs": "runs"}
        run_notebook(STAGES / "finetune.ipynb", f"finetune-{target}.ipynb", given | out, progress=False)
    out = {"results": ".", "out": "zoo", "figures": "figures/zoo"}
    run_notebook(STAGES / "zoo.ipynb", "zoo.ipynb", common | out, progress=False)
    zoo = Zoo.load("zoo")
    assert zoo.targets == targets and len(zoo.records) == 4 and len(zoo.scores)
    apart = zoo.records.assign(accuracy=np.linspace(0.2, 0.8, 4))
    replace(zoo, records=apart).save("zoo")  # untrained models may come out equal: nothing ranks them
    given = {"zoo": "zoo", "target": targets[0], "out": "target/one", "figures": "figures/one"}
    run_notebook(STAGES / "target.ipynb", "target.ipynb", given, progress=False)
    metrics = pd.read_csv("target/one/clean/metrics.csv")
    scored = {"hub-image": {"LogME", "H-score"}, "hub-text": {"LogME", "RSA"}}[name]
    assert set(metrics["method"]) == {"history-mean", "TG:LR,N2V,all"} | scored


def test_a_wrong_spec_is_refused_by_name(specs):
    good = specs["hub-image"]
    for change, said in (
        ({"modality": "sound"}, "modality is 'sound'"),
        ({"models": {}}, "models is empty"),
        ({"targets": {"x": {"spec": "digits", "shots": 3}}}, "x: 'shots' is not one of spec, per_class"),
        ({"targets": {"x": {"per_class": 3}}}, "targets x: spec is missing; expected what to load"),
        ({"probe": None}, "probe is missing"),
        ({"sources": ["digits"]}, "'digits' is a target and a source"),
        ({"epochs": 3}, "'epochs' is not one of"),
        ({"finetune": {"etochs": 3}}, "finetune: 'etochs' is not one of method, epochs"),
        (
            {"finetune": {"epochs": "many"}},
            "few: finetune: epochs is 'many'; expected a whole number of 1 or more",
        ),
        ({"finetune": 3}, "finetune: 3 is not a mapping of method, epochs"),
        ({"targets": {"x": {"spec": "digits", "finetune": {"lr": 1}}}}, "targets x: finetune: 'lr' is not"),
        ({"targets": {"x": {"spec": "digits", "a": 1, 5: 2}}}, "targets x: 'a' is not one of"),
        ({"metrics": [["LogME"]]}, "metrics holds ['LogME']; expected a list of names of scores"),
        ({"metrics": "LogME"}, "metrics is 'LogME'; expected a list of names of scores"),
        ({"metrics": 3}, "metrics is 3; expected a list of names of scores"),
        ({"models": 3}, "models is 3; expected a list, or names with what to load"),
        ({"targets": "digits"}, "targets is 'digits'; expected a list"),
        ({"targets": [{"spec": "digits"}]}, "targets is [{'spec': 'digits'}]; expected a list"),
        ({"seeds": 0}, "seeds is 0; expected a list of whole numbers, at least one, none below 0"),
        ({"seeds": [0, "1"]}, "seeds holds '1'; expected a list of whole numbers"),
        ({"seeds": [True]}, "seeds holds True; expected a list of whole numbers"),
        ({"seeds": [0, -1]}, "seeds holds -1; expected a list of whole numbers, at least one, none"),
        ({"seeds": []}, "seeds is []; expected a list of whole numbers, at least one, none below 0"),
        ({"probe_items": "all"}, "probe_items is 'all'; expected a whole number of 1 or more"),
        ({"probe_items": 0}, "probe_items is 0; expected a whole number of 1 or more"),
    ):
        with pytest.raises(ValueError, match=r"few|metric") as e:
            read_spec("few", good | change)
        assert said in str(e.value)


def test_an_unknown_score_is_refused_before_anything_is_computed(specs, tmp_path):
    spec = read_spec("few", specs["hub-text"] | {"metrics": ["LogME", "LogMe"]})
    with pytest.raises(ValueError, match="did you mean LogME"):
        score_zoo(spec, open_dataset(spec, "kinds", tmp_path), progress=False)


def test_a_setting_that_is_left_empty_is_the_default(specs):
    spec = read_spec("few", specs["hub-image"] | {"seeds": None, "probe_items": None, "metrics": None})
    assert (spec.seeds, spec.probe_items, spec.metrics) == ((0,), 500, ("LogME", "H-score"))


def test_a_data_set_of_the_other_modality_is_refused(specs):
    spec = read_spec("few", specs["hub-image"] | {"targets": {"t": specs["hub-text"]["targets"]["kinds"]}})
    with pytest.raises(ValueError, match="t holds texts; expected images"):
        open_dataset(spec, "t")
    with pytest.raises(ValueError, match="no dataset 'u'; it has t"):
        open_dataset(spec, "u")


def test_models_have_their_name_in_the_zoo(specs):
    spec = read_spec("few", specs["hub-image"])
    assert [load().metadata["model"] for _, load in loaders(spec)] == ["maker/one", "two"]


def test_models_have_the_licence_of_the_spec_or_their_own(specs):
    spec = read_spec("few", specs["hub-image"])
    assert "licence" not in model_table(spec)
    content = dict(specs["hub-image"]) | {"licence": "apache-2.0"}
    content["models"] = {
        k: dict(v) if isinstance(v, dict) else {"spec": v} for k, v in content["models"].items()
    }
    content["models"]["two"]["licence"] = "mit"
    table = model_table(read_spec("few", content)).set_index("model")
    assert table["licence"].to_dict() == {"maker/one": "apache-2.0", "two": "mit"}


def test_trained_models_join_those_of_the_spec(specs):
    spec = read_spec("few", specs["hub-image"], {"a-b": {"spec": "models/x"}, "two": {"spec": "elsewhere"}})
    assert list(spec.models) == ["maker/one", "two", "a-b"] and spec.models["a-b"] == {"spec": "models/x"}
    assert spec.models["two"] == read_spec("few", specs["hub-image"]).models["two"]  # with its own options


def test_a_list_of_models_is_relative_to_its_file_and_keeps_options(tmp_path, monkeypatch):
    home = tmp_path / "models" / "nano"
    (home / "net").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path)
    options = {"input_size": 32, "licence": "mit", "finetune": {"epochs": 1}}
    models = {"a": {"spec": "models/nano/net", **options}, "lite": {"spec": "efficientnet-lite0"}}
    write_model_list(home, models | {"far": {"spec": str(tmp_path / "far")}, "hub": {"spec": "maker/two"}})
    listed = json.loads((home / "models.json").read_text())
    assert listed["a"] == {"spec": "./net", "input_size": 32} and listed["hub"] == {"spec": "maker/two"}
    monkeypatch.chdir("/")
    found = read_model_list(home)
    assert found["a"] == {"spec": f"{home}/net", "input_size": 32}
    assert [found[name]["spec"] for name in ("lite", "far", "hub")] == [
        "efficientnet-lite0",
        str(tmp_path / "far"),
        "maker/two",
    ]


def test_a_list_whose_paths_start_from_the_working_folder_is_still_read(tmp_path, monkeypatch):
    (tmp_path / "models" / "net").mkdir(parents=True)
    (tmp_path / "models" / "models.json").write_text('{"a-b": {"spec": "models/net"}}')
    monkeypatch.chdir(tmp_path)
    assert read_model_list("models") == {"a-b": {"spec": "models/net"}} and read_model_list(None) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": {"spec": "x"}, "a": {"spec": "y"}}', "'a' is there twice"),
        ('{"a": {"spec": "x", "spec": "y"}}', "'spec' is there twice"),
        ('{"a": {"spec": "x", "colour": 1}}', "models.json: a: .*colour"),
        ('{"a": {"spec": "x", "layers": "two"}}', "models.json: a: .*layers"),
        ('{"a": "x"}', "no list of models; expected"),
        ('{"a": {"spec": "x"}', "no list of models .*; expected"),
    ],
)
def test_a_list_that_would_be_misread_is_refused(tmp_path, content, message):
    (tmp_path / "models.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_model_list(tmp_path)


def test_lists_with_marks_of_editors_and_options_of_specs_are_read(tmp_path):
    entry = {"spec": "maker/net", "licence": "mit", "finetune": {"epochs": 1}, "random_state": 0}
    (tmp_path / "models.json").write_text(json.dumps({"a": entry}), encoding="utf-8-sig")
    assert read_model_list(tmp_path) == {"a": {"spec": "maker/net", "random_state": 0}}
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"holds no model; expected models.json, or folders of models"
    ):
        read_model_list(tmp_path / "empty")


def test_a_folder_that_is_called_as_a_model_of_the_hub_is_told(tmp_path):
    (tmp_path / "maker" / "net").mkdir(parents=True)
    listed = tmp_path / "models.json"
    listed.write_text('{"a": {"spec": "maker/net"}}')
    with pytest.warns(
        UserWarning, match="'maker/net' is taken for the folder .*/maker/net; ./maker/net says"
    ):
        found = read_model_list(listed)
    listed.write_text('{"a": {"spec": "./maker/net"}}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_model_list(listed) == found == {"a": {"spec": f"{tmp_path}/maker/net"}}
