"""Checkpoints as strangers have them: right as in their own library, said, or refused."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from networks import WORDS, save_tiny, tiny_config, tokenizer

from transfergraph.build.hub_cards import Entry, UnavailableError, local_facts, model_row
from transfergraph.models.loading import load_backbone

CLASSIFIER = transformers.AutoModelForSequenceClassification
TEXTS = ["the cat sat", "dogs ran far and wide under one blue sky"]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n"


def edit(path: Path, **new):
    "Change keys of a JSON file."
    path.write_text(json.dumps({**json.loads(path.read_text()), **new}))


def save_net(folder, *, pickled=None, **pretrained_cfg):
    "A small model of timm with five classes, as timm saves it, or a pickle of its tensors."
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=5).eval()
    timm.models.save_for_hf(net, folder, safe_serialization=not pickled)
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", pretrained_cfg={**config["pretrained_cfg"], **pretrained_cfg})
    if pickled:
        torch.save(pickled(net.state_dict()), folder / "pytorch_model.bin")
    return net


# heads whose softmax says nothing


@pytest.mark.parametrize(
    "settings, word",
    [
        ({"num_labels": 1}, "gives one number, not classes"),
        ({"num_labels": 3, "problem_type": "regression"}, "is a regression"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "gives several labels to an item"),
    ],
)
def test_a_head_without_classes_of_which_one_holds_is_left_out(tmp_path, settings, word):
    save_tiny(tmp_path / "m", "bert", CLASSIFIER, **settings)
    with pytest.warns(UserWarning, match=f"{word}, so it is left out"):
        made = load_backbone(tmp_path / "m")
    assert made.head is None and made.label_names is None and made.features(TEXTS).shape == (2, 16)
    with pytest.raises(ValueError, match="no head"):
        made.probabilities(TEXTS)
    made.head = torch.nn.Linear(16, 4)  # a head of classes that was trained here is a head
    made.save(tmp_path / "again")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load_backbone(tmp_path / "again")
    assert np.allclose(again.probabilities(TEXTS), made.probabilities(TEXTS), atol=1e-6)


def test_the_projection_of_a_clip_is_no_head(tmp_path):
    net = timm.create_model("vit_base_patch32_clip_224.openai", num_classes=512, depth=1, pretrained=False)
    timm.models.save_for_hf(net, tmp_path, safe_serialization=True, model_args={"depth": 1})
    with pytest.warns(UserWarning, match="is the projection of a CLIP"):
        assert load_backbone(tmp_path).head is None


def test_a_cross_encoder_is_a_classifier_though_it_lists_modules(tmp_path):
    model = save_tiny(tmp_path, "bert", CLASSIFIER, num_labels=3)
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    ids = torch.tensor([tokenizer("bert")(TEXTS[0])["input_ids"]])
    with torch.inference_mode():
        expected = model(ids).logits.softmax(1)
    assert np.allclose(load_backbone(tmp_path).probabilities(TEXTS)[:1], expected, atol=1e-5)


@pytest.mark.parametrize("first, names", [(0, ["a", "b", "c"]), (1, None)])
def test_names_of_classes_are_those_of_their_numbers(tmp_path, first, names):
    save_tiny(tmp_path, "bert", CLASSIFIER, num_labels=3)
    numbered = {str(first + i): "abc"[i] for i in (2, 0, 1)}
    edit(tmp_path / "config.json", id2label=numbered, label2id={v: int(k) for k, v in numbered.items()})
    made = load_backbone(tmp_path)
    assert made.label_names == names and made.head.out_features == 3


# files


@pytest.mark.parametrize(
    "wrap, key",
    [
        (lambda tensors: {"epoch": 3, "state_dict": tensors}, "state_dict"),
        (lambda tensors: {"model": tensors, "optimizer": {"state": {}, "param_groups": []}}, "model"),
        (
            lambda t: {"state_dict": {k: v * 0 for k, v in t.items()}, "state_dict_ema": t},
            "state_dict_ema",
        ),
        (lambda tensors: {"epoch": 3, "net": tensors}, "net"),
    ],
)
def test_the_tensors_in_a_checkpoint_of_a_training_run_are_read(tmp_path, wrap, key):
    net = save_net(tmp_path, pickled=wrap)
    with pytest.warns(UserWarning, match=f"the tensors under '{key}' are read"):
        made = load_backbone(tmp_path, allow_pickle=True)
    with torch.inference_mode():
        expected = net(made.prepare(IMAGES)).softmax(1)
    assert np.allclose(made.probabilities(IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize("held", [{}, {"epoch": 3, "args": {"lr": 0.1}}, {"a": {"x": 1}}])
def test_a_file_without_tensors_is_refused_and_nothing_is_drawn(tmp_path, held):
    save_net(tmp_path, pickled=lambda tensors: held)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: expected tensors by name; it holds"):
        load_backbone(tmp_path, allow_pickle=True)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("model.safetensors", POINTER, "pointer of Git LFS to the file; git lfs pull fetches it"),
        ("tokenizer.json", POINTER, "pointer of Git LFS"),
        ("model.safetensors", "", "the file is empty"),
    ],
)
def test_what_stands_in_the_place_of_a_file_is_named(tmp_path, file, content, message):
    save_tiny(tmp_path, "bert")
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_backbone(tmp_path)


@pytest.mark.parametrize("inside", ["checkpoint-20", "snapshots/0a1b"])
def test_a_folder_around_a_model_names_the_folder_that_is_one(tmp_path, inside):
    save_tiny(tmp_path / "m" / inside, "bert")
    with pytest.raises(FileNotFoundError, match=f"the folder {inside} in it has one"):
        load_backbone(tmp_path / "m")
    with pytest.raises(UnavailableError, match=f"the folder {inside} in it has one"):
        local_facts(tmp_path / "m")


def test_layers_that_a_configuration_leaves_out_are_told(tmp_path):
    save_tiny(tmp_path, "bert", CLASSIFIER, num_labels=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_backbone(tmp_path, layers=1)  # asked for
    edit(tmp_path / "config.json", num_hidden_layers=2)
    with pytest.warns(UserWarning, match="8 tensors of the weights are left out, first bert"):
        load_backbone(tmp_path)


# what goes in


def test_a_token_that_the_model_has_no_vector_for_is_named(tmp_path):
    save_tiny(tmp_path, "bert", vocab_size=len(WORDS) + 4)
    larger = tokenizer("bert")
    larger.add_tokens(["zebra"])
    larger.save_pretrained(tmp_path)
    made = load_backbone(tmp_path)
    assert made.features(TEXTS).shape == (2, 16)
    with pytest.raises(ValueError, match=r"the token 'zebra' has the number .* expected the tokenizer"):
        made.features(["the cat", "a zebra"])


@pytest.mark.parametrize("limit", [0, 2])
def test_a_tokenizer_that_leaves_nothing_of_a_text_is_refused(tmp_path, limit):
    save_tiny(tmp_path, "bert")
    edit(tmp_path / "tokenizer_config.json", model_max_length=limit)
    with pytest.raises(ValueError, match=f"leaves nothing of texts: it cuts them to {limit} tokens"):
        load_backbone(tmp_path)


def test_a_text_with_the_token_that_ends_it_is_read_like_any_other(tmp_path):
    sizes = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in SMALL.items()}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    torch.manual_seed(0)
    config = transformers.BartConfig(vocab_size=64, d_model=16, num_labels=3, **sizes, **ends)
    transformers.BartForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer("bert").save_pretrained(tmp_path)
    made, texts = load_backbone(tmp_path), ["the cat", "a [SEP] dogs ran"]
    alone = np.concatenate([made.probabilities([text]) for text in texts])
    assert np.allclose(made.probabilities(texts), alone, atol=1e-6)


OLD = "sentence_transformers.models"
SMALL = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}


@pytest.mark.parametrize(
    "said, expected",
    [
        ({"mean": [0.5], "std": [0.25]}, ((0.5,) * 3, (0.25,) * 3)),
        ({"mean": 0.5, "std": 0.25}, ((0.5,) * 3, (0.25,) * 3)),
        ({"mean": [0.5, 0.5]}, "expected three numbers"),
        ({"std": "grey"}, "expected three numbers"),
        ({"interpolation": "random"}, "no features with input"),
    ],
)
def test_means_of_timm_are_one_number_or_three(tmp_path, said, expected):
    save_net(tmp_path, **said)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            load_backbone(tmp_path)
    else:
        made = load_backbone(tmp_path).preparation
        assert (made.mean, made.std) == expected


@pytest.mark.parametrize(
    "said, message",
    [
        ({"image_mean": [0.4, 0.5], "image_std": [0.2, 0.3]}, "that prepares images"),
        ({"auto_map": {"AutoImageProcessor": "own.Own"}, "image_processor_type": "Own"}, "code of its own"),
        ({"size": {"shortest_edge": 32}}, "expected a processor|gives no logits"),
    ],
)
def test_processors_that_cannot_work_are_refused(tmp_path, said, message):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**small, image_size=32, patch_size=8, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 32, "width": 32}} | said)
    )
    if "shortest_edge" in str(said):  # a square fits
        with pytest.raises(ValueError, match="doesn't match model"):
            load_backbone(tmp_path).features(IMAGES)
        return
    with pytest.raises(ValueError, match=message):
        load_backbone(tmp_path)


# models of sentence-transformers, and those that timm and transformers share


def test_texts_never_reach_past_the_positions_of_the_first_module(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    torch.manual_seed(0)
    config = tiny_config("roberta", max_position_embeddings=20, pad_token_id=1)
    transformers.RobertaModel(config).save_pretrained(tmp_path / "base")
    tokenizer("roberta").save_pretrained(tmp_path / "base")
    chain = [Transformer(str(tmp_path / "base")), Pooling(16)]
    SentenceTransformer(modules=chain, device="cpu").save(str(tmp_path / "m"))
    made = load_backbone(tmp_path / "m")
    assert made.preparation.max_length == 18 and made.features(["the cat " * 50]).shape == (1, 16)


def test_an_older_layout_with_its_first_module_below_has_a_row_and_is_loaded(tmp_path):
    save_tiny(tmp_path / "0_Transformer", "bert")
    (tmp_path / "1_Pooling").mkdir()
    cls = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(cls))
    kinds = [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")]
    listed = [{"idx": i, "path": p, "type": f"{OLD}.{k}"} for i, (p, k) in enumerate(kinds)]
    (tmp_path / "modules.json").write_text(
        json.dumps([{"name": str(part["idx"]), **part} for part in listed])
    )
    row = model_row(Entry("model", str(tmp_path), "it", local=True), local_facts(tmp_path))
    loaded = load_backbone(tmp_path).metadata
    assert row["architecture"] == loaded["architecture"] == "BertModel" and row["bytes"] > 0
    config = json.loads((tmp_path / "0_Transformer/config.json").read_text())
    assert config["model_type"] == row["family"]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: [path.unlink() for path in folder.glob("token*")], "expected a tokenizer"),
        (lambda folder: edit(folder / "modules.json", nothing=1), "expected a list of modules"),
    ],
)
def test_a_folder_that_cannot_be_loaded_gets_no_row(tmp_path, spoil, message):
    save_tiny(tmp_path, "bert")
    (tmp_path / "modules.json").write_text("{}")
    spoil(tmp_path)
    if "tokenizer" in message:
        (tmp_path / "modules.json").unlink()
    with pytest.raises(UnavailableError, match=message):
        model_row(Entry("model", str(tmp_path), "it", local=True), local_facts(tmp_path))


def test_a_model_of_timm_that_transformers_saved_without_a_head_is_loaded(tmp_path):
    cfg = timm.get_pretrained_cfg("test_resnet").to_dict()
    config = transformers.TimmWrapperConfig(architecture="test_resnet", pretrained_cfg=cfg)
    model = transformers.TimmWrapperModel(config).eval()
    model.save_pretrained(tmp_path)
    made = load_backbone(tmp_path)
    with torch.inference_mode():
        expected = model(made.prepare(IMAGES)).pooler_output
    assert made.head is None and np.allclose(made.features(IMAGES), expected, atol=1e-5)


def test_the_prefix_of_a_trainer_inside_its_checkpoint_is_named(tmp_path):

    model = save_tiny(tmp_path, "bert", CLASSIFIER, num_labels=3)
    (tmp_path / "model.safetensors").unlink()
    named = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": named, "epoch": 1}, tmp_path / "last.ckpt")
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match="begin with 'model"),
    ):
        load_backbone(tmp_path, allow_pickle=True)


@pytest.mark.parametrize("name", ["minilm", "test_resnet"])
def test_a_folder_here_goes_before_a_known_checkpoint_of_its_name(tmp_path, monkeypatch, name):
    load_backbone("test_resnet", input_size=32, random_state=3).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=f"{name}: the folder ./{name} is read, not the known checkpoint"):
        found = load_backbone(name)
    assert found.metadata["source"] == "local" and found.revision == load_backbone(f"./{name}").revision
