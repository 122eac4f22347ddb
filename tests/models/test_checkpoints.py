"""A checkpoint is what its own library loads: same weights, preparation, features, logits; or a reason."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
import transformers
from networks import WORDS, save_tiny, tokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from transfergraph.models.checkpoints import choose_weights, read_header, weight_files
from transfergraph.models.formats import library_of
from transfergraph.models.loading import load_backbone
from transfergraph.models.preparation import ImageInputs, ProcessorInputs

TEXTS = ["the cat sat on a mat", "winter", "dogs ran far and wide under one blue sky"]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
PICTURES = [Image.fromarray(image) for image in IMAGES]
BERT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
close = {"atol": 1e-5, "rtol": 1e-5}


def encoder(folder, seed: int):
    torch.manual_seed(seed)
    config = transformers.BertConfig(**BERT, vocab_size=64, max_position_embeddings=32, pad_token_id=0)
    model = transformers.BertModel(config).eval()
    model.save_pretrained(folder)
    tokenizer("bert").save_pretrained(folder)
    return model


def alone(model, text: str):
    "What a model of transformers gives for one text without padding."
    said = tokenizer("bert")(text, return_tensors="pt")
    with torch.inference_mode():
        return model(input_ids=said["input_ids"], attention_mask=said["attention_mask"])


# which weights


OTHERS = ["model_1", "model_old", "model_ema", "model.fp16", "weights", "consolidated"]


@pytest.mark.parametrize("other", OTHERS)
def test_other_weights_beside_those_of_the_model_are_not_looked_at(tmp_path, other):
    encoder(tmp_path / "m", 0)
    encoder(tmp_path / "other", 1)
    before = load_backbone(tmp_path / "m").revision
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "m" / f"{other}.safetensors")
    assert load_backbone(tmp_path / "m").revision == before


def test_shards_are_those_of_the_index(tmp_path):
    new = encoder(tmp_path / "whole", 1)
    folder = tmp_path / "m"
    encoder(tmp_path / "old", 0).save_pretrained(folder, max_shard_size="8KB")
    stale = {path.name for path in folder.glob("model-*")}
    for path in folder.glob("model-*"):
        shutil.move(path, tmp_path / path.name)
    new.save_pretrained(folder, max_shard_size="14KB")
    tokenizer("bert").save_pretrained(folder)
    for name in stale:
        shutil.move(tmp_path / name, folder / name)
    assert len(weight_files(folder)) < len(list(folder.glob("model-*")))
    assert load_backbone(folder).revision == load_backbone(tmp_path / "whole").revision
    weight_files(folder)[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"index.json: names model-0.*, which is not in the folder"):
        load_backbone(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match=r"holds model-0.* and .*expected model.safetensors, or the index"):
        load_backbone(folder)


def test_a_single_file_under_another_name_is_taken_and_said(tmp_path):
    encoder(tmp_path, 0)
    before = load_backbone(tmp_path).revision
    (tmp_path / "model.safetensors").rename(tmp_path / "model_ema.safetensors")
    with pytest.warns(UserWarning, match=r"model_ema.safetensors is read, as there is no model.safetensors"):
        assert load_backbone(tmp_path).revision == before
    shutil.copy(tmp_path / "model_ema.safetensors", tmp_path / "model_1.safetensors")
    with pytest.raises(ValueError, match=r"holds model_1.safetensors and model_ema.safetensors; expected"):
        load_backbone(tmp_path)


def test_a_stale_index_beside_the_weights_is_said(tmp_path):
    encoder(tmp_path, 0)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    with pytest.warns(UserWarning, match=r"model.safetensors is read, and .*index.json beside it is not"):
        assert load_backbone(tmp_path).n_features == 16


TRAINING = ["optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin"]


@pytest.mark.parametrize("names", [TRAINING, [".model.safetensors"], []])
def test_the_state_of_a_training_is_not_taken_for_weights(names):
    with pytest.raises(FileNotFoundError, match=r"expected the weights, model.safetensors"):
        choose_weights(names, "m", allow_pickle=True)
    assert choose_weights([*names, "pytorch_model.bin"], "m", allow_pickle=True) == "pytorch_model.bin"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("m-q4_k_m.gguf", "GGUF"),
        ("model.onnx", "ONNX"),
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("openvino_model.xml", "OpenVINO"),
        ("rust_model.ot", "rust-bert"),
        ("pytorch_model.bin", "allow_pickle=True"),
    ],
)
@pytest.mark.parametrize("config", [True, False])
def test_weights_of_another_format_are_named_with_the_way_out(tmp_path, name, word, config):
    if config or name.endswith(".bin"):
        encoder(tmp_path, 0)
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"{name}.*{word}"):
        load_backbone(tmp_path)


# what is no model


@pytest.mark.parametrize("config", [True, False])
def test_an_adapter_is_named_with_the_way_to_merge_it(tmp_path, config):
    if config:
        encoder(tmp_path, 0)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"adapter \(LoRA, .*peft: model.merge_and_unload"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("key", ["quantization_config", "quantization", "compression_config"])
def test_quantised_weights_are_named(tmp_path, key):
    encoder(tmp_path, 0)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(ValueError, match=r"quantised \(gptq\); expected weights of 16 or 32 bits"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("name", ["encoder.layer.0.output.dense.weight", "x.qweight", "x.SCB"])
def test_codes_of_eight_bits_are_no_weights(tmp_path, name):
    encoder(tmp_path, 0)
    file = tmp_path / "model.safetensors"
    codes = {name: torch.zeros(16, 32, dtype=torch.int8)}
    save_file(load_file(file) | codes, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"the tensor {name} is quantised"):
        load_backbone(tmp_path)


def test_masks_of_eight_bits_are_no_codes(tmp_path):
    save_file({"attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8)}, tmp_path / "model.safetensors")
    assert read_header(tmp_path / "model.safetensors")["attn.bias"]["dtype"] == "U8"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod."])
@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_the_prefix_of_a_wrapper_is_named(tmp_path, prefix, library):
    if library == "timm":
        load_backbone("test_resnet", input_size=32, random_state=0).save(tmp_path)
    else:
        encoder(tmp_path, 0)
    file = tmp_path / "model.safetensors"
    save_file({prefix + k: v for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"begin with '{prefix}', which a wrapper put there"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2", "clap", "time_series_transformer"])
def test_models_of_neither_images_nor_texts_are_named(kind):
    with pytest.raises(ValueError, match="reads neither images nor texts"):
        library_of({"model_type": kind}, ["model.safetensors"], "m")


def test_code_that_changes_a_known_type_is_named(tmp_path):
    encoder(tmp_path, 0)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Other"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_backbone(tmp_path).n_features == 16  # the library's own class knows all of it
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {"encoder.alibi": torch.zeros(3)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"auto_map.* hold encoder.alibi, which BertModel does not know"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("said", ["model_args", "pretrained_cfg"])
def test_models_of_grey_or_deeper_images_are_named_by_their_channels(tmp_path, channels, said):
    model = timm.create_model("test_resnet", num_classes=3, in_chans=channels)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    more = {"in_chans": channels} if said == "model_args" else {"input_size": [channels, 64, 64]}
    config = {"architecture": "test_resnet", "num_classes": 3, said: more}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"takes images of {channels} channels; expected 3"):
        load_backbone(tmp_path)


# tokenizers


@pytest.mark.parametrize("file", ["spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"])
def test_a_vocabulary_of_sentencepiece_alone_is_named(tmp_path, file):
    encoder(tmp_path, 0)
    for path in tmp_path.glob("*token*"):
        path.unlink()
    (tmp_path / file).write_bytes(b"x" * 100)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"holds {file}.*save_pretrained"):
        load_backbone(tmp_path)


# heads


def text_config(kind, **more):
    small = {"vocab_size": 64, "num_labels": 3, "pad_token_id": 0}
    return transformers.CONFIG_MAPPING[kind](**small, **more)


BOS = {"bos_token_id": 1, "eos_token_id": 2}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 2, **BOS}
LLAMA = BERT | {"num_key_value_heads": 1}
TEXT_FAMILIES = {
    "bert": BERT,
    "roberta": BERT,
    "electra": BERT | {"embedding_size": 8},
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
    "deberta-v2": BERT,
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
    "fnet": {key: BERT[key] for key in BERT if key != "num_attention_heads"},
    "bart": BART,
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    | {"eos_token_id": 2},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "llama": LLAMA | BOS,
    "modernbert-decoder": BERT | {"cls_token_id": 1, "sep_token_id": 2, **BOS},
}


def saved_classifier(folder, kind):
    torch.manual_seed(0)
    factory = transformers.AutoModelForSequenceClassification
    model = factory.from_config(text_config(kind, **TEXT_FAMILIES[kind])).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    model.save_pretrained(folder)
    tokenizer("bert").save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", TEXT_FAMILIES)
def test_a_text_classifier_gives_its_own_logits_here_and_when_it_was_saved_again(tmp_path, kind):
    model = saved_classifier(tmp_path / "m", kind)
    logits = torch.cat([alone(model, text).logits for text in TEXTS])
    loaded = load_backbone(tmp_path / "m")
    found = loaded.head(torch.from_numpy(loaded.features(TEXTS))).detach()
    np.testing.assert_allclose(found, logits, **close)
    np.testing.assert_allclose(loaded.probabilities(TEXTS), logits.softmax(1), **close)
    loaded.save(tmp_path / "saved")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    np.testing.assert_allclose(torch.cat([alone(again, text).logits for text in TEXTS]), logits, **close)
    assert load_backbone(tmp_path / "saved").revision == loaded.revision


@pytest.mark.parametrize("kind", ["t5", "bart", "fnet", "xlnet"])
def test_a_reading_half_or_a_mixing_model_gives_the_mean_of_its_tokens(tmp_path, kind):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(text_config(kind, **TEXT_FAMILIES[kind])).eval()
    model.save_pretrained(tmp_path / "m")
    tokenizer("bert").save_pretrained(tmp_path / "m")
    part = model.get_encoder() if model.config.is_encoder_decoder else model
    expected = torch.cat([alone(part, text).last_hidden_state.mean(1) for text in TEXTS])
    loaded = load_backbone(tmp_path / "m")
    np.testing.assert_allclose(loaded.features(TEXTS), expected, **close)
    loaded.save(tmp_path / "saved")
    assert load_backbone(tmp_path / "saved").revision == loaded.revision


def test_a_new_head_on_a_model_that_has_no_place_for_its_bias_is_kept(tmp_path):
    saved_classifier(tmp_path / "m", "llama")
    loaded = load_backbone(tmp_path / "m")
    loaded.head, loaded.label_names = torch.nn.Linear(16, 4), list("abcd")
    loaded.save(tmp_path / "saved")
    back = load_backbone(tmp_path / "saved")
    np.testing.assert_allclose(back.probabilities(TEXTS), loaded.probabilities(TEXTS), **close)


def test_a_mean_of_two_heads_is_left_out_and_said(tmp_path):
    config = transformers.DeiTConfig(**BERT, image_size=32, patch_size=8, num_labels=3)
    torch.manual_seed(0)
    model = transformers.DeiTForImageClassificationWithTeacher(config)
    model.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="more than a linear layer on its features, so it is left out"):
        loaded = load_backbone(tmp_path)
    assert loaded.head is None and loaded.features(IMAGES).shape == (3, 16)


TIMM = ["test_vit", "test_resnet", "test_convnext", "test_efficientnet", "test_mambaout"]


@pytest.mark.parametrize("name", TIMM)
def test_a_folder_of_timm_gives_its_own_features_and_logits_with_its_own_transform(tmp_path, name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).eval()
    timm.models.save_for_hf(model, tmp_path / "m", model_config={"num_classes": 5}, safe_serialization=True)
    loaded = load_backbone(tmp_path / "m")
    loaded.save(tmp_path / "saved")
    for folder in ("m", "saved"):
        own = timm.create_model(f"local-dir:{tmp_path / folder}", pretrained=True, num_classes=5).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(own))
        pixels = torch.stack([transform(picture) for picture in PICTURES])
        assert torch.equal(loaded.prepare(IMAGES), pixels)
        with torch.inference_mode():
            features = own.forward_head(own.forward_features(pixels), pre_logits=True)
            logits = own(pixels)
        np.testing.assert_allclose(loaded.features(IMAGES), features, **close)
        np.testing.assert_allclose(loaded.probabilities(IMAGES), logits.softmax(1), **close)


def test_two_heads_of_timm_are_left_out_and_said(tmp_path):
    name, small = "deit_tiny_distilled_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2}
    model = timm.create_model(name, num_classes=3, **small)
    with torch.no_grad():
        model.head.weight.normal_(), model.head_dist.weight.normal_()
    how = {"model_config": {"num_classes": 3}, "model_args": small, "safe_serialization": True}
    timm.models.save_for_hf(model, tmp_path, **how)
    with pytest.warns(UserWarning, match="more than a linear layer on its features"):
        assert load_backbone(tmp_path).head is None


# images


WAYS = [("center", 0.9), ("center", 1.0), ("border", 0.9), ("squash", 1.0), ("squash", 0.8)]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [32, 64, (40, 56)])
def test_images_are_prepared_as_timm_prepares_them_bit_for_bit(mode, way, size):
    how = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "crop_mode": way[0], "crop_pct": way[1]}
    theirs = timm.data.create_transform(size, interpolation=mode, **how)
    for images in (IMAGES, IMAGES[:, :40, :40], np.ascontiguousarray(IMAGES[:, :32, :32])):
        expected = torch.stack([theirs(Image.fromarray(image)) for image in images])
        assert torch.equal(ImageInputs(size, mode=mode, **how)(images), expected)


SQUARE = {"size": {"height": 32, "width": 32}}
PROCESSORS = {
    "stretched": transformers.ViTImageProcessor(**SQUARE),
    "not normalised": transformers.ViTImageProcessor(**SQUARE, do_normalize=False),
    "not rescaled": transformers.ViTImageProcessor(
        **SQUARE, do_rescale=False, image_mean=[120.0] * 3, image_std=[60.0] * 3
    ),
    "another factor": transformers.ViTImageProcessor(**SQUARE, rescale_factor=1 / 127.5, do_normalize=False),
    "shorter edge, then the middle": transformers.CLIPImageProcessor(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    ),
    "a share of the middle": transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    "blue before red": transformers.MobileViTImageProcessor(
        size={"shortest_edge": 34}, crop_size={"height": 32, "width": 32}
    ),
    "bilinear": transformers.ViTImageProcessor(**SQUARE, resample=2),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_are_prepared_as_the_processor_prepares_them(tmp_path, name):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    torch.manual_seed(0)
    model = transformers.ResNetForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "m")
    PROCESSORS[name].save_pretrained(tmp_path / "m")
    loaded = load_backbone(tmp_path / "m")
    loaded.save(tmp_path / "saved")
    for folder in ("m", "saved"):
        own = transformers.AutoImageProcessor.from_pretrained(tmp_path / folder)
        pixels = own(PICTURES, return_tensors="pt")["pixel_values"]
        assert torch.equal(loaded.prepare(IMAGES), pixels)
        again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / folder).eval()
        with torch.inference_mode():
            np.testing.assert_allclose(loaded.probabilities(IMAGES), again(pixels).logits.softmax(1), **close)
    assert load_backbone(tmp_path / "saved").revision == loaded.revision


def test_a_model_of_timm_that_transformers_saved_is_one_of_timm(tmp_path):
    torch.manual_seed(0)
    known = timm.get_pretrained_cfg("test_resnet").to_dict() | {"crop_pct": 0.8, "interpolation": "bicubic"}
    known |= {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    config = transformers.TimmWrapperConfig(architecture="test_resnet", num_labels=3, pretrained_cfg=known)
    model = transformers.TimmWrapperForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    pixels = own(PICTURES, return_tensors="pt")["pixel_values"]
    assert torch.equal(loaded.prepare(IMAGES), pixels) and loaded.preparation.mean == (0.4, 0.5, 0.6)
    with torch.inference_mode():
        np.testing.assert_allclose(loaded.probabilities(IMAGES), model(pixels).logits.softmax(1), **close)


def test_a_folder_that_does_not_say_how_images_are_prepared_is_refused(tmp_path):
    config = transformers.ViTConfig(**BERT, image_size=32, patch_size=8)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected preprocessor_config.json.*AutoImageProcessor"):
        load_backbone(tmp_path)


def test_another_size_of_image_is_asked_of_the_processor():
    clip = ProcessorInputs(PROCESSORS["shorter edge, then the middle"])
    assert clip.resized(64)(IMAGES).shape == (3, 3, 64, 64) and clip.length == 32
    assert clip.resized(64).settings["size"]["shortest_edge"] == 72


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_of_two_towers_the_features_are_the_embedding_of_the_image(tmp_path, kind):
    part = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = part | {"image_size": 32, "patch_size": 8}
    text = part | {"vocab_size": 64, "max_position_embeddings": 16}
    config = transformers.CONFIG_MAPPING[kind](text_config=text, vision_config=vision)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path / "m")
    transformers.ViTImageProcessor(**SQUARE).save_pretrained(tmp_path / "m")
    loaded = load_backbone(tmp_path / "m")
    with torch.inference_mode():
        out = model.get_image_features(pixel_values=loaded.prepare(IMAGES)).pooler_output
    np.testing.assert_allclose(loaded.features(IMAGES), out, **close)
    loaded.save(tmp_path / "saved")
    assert load_backbone(tmp_path / "saved").revision == loaded.revision


def test_a_model_that_hides_patches_at_random_has_no_features(tmp_path):
    config = transformers.ViTMAEConfig(**BERT, image_size=32, patch_size=8)
    transformers.ViTMAEModel(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(**SQUARE).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its features are others each time"):
        load_backbone(tmp_path)


# sentence-transformers


def sentences(folder, modes="mean", more=(), **options):
    encoder(folder / "base", 0)
    chain = [modules.Transformer(str(folder / "base"), **options.pop("first", {}))]
    chain += [modules.Pooling(16, pooling_mode=modes, **options.pop("pooling", {})), *more]
    model = SentenceTransformer(modules=chain, device="cpu", **options)
    model.save(str(folder / "m"), create_model_card=False)
    return model


def check_sentences(folder, model, texts=TEXTS):
    loaded, expected = load_backbone(folder / "m"), model.encode(texts)
    np.testing.assert_allclose(loaded.features(texts), expected, **close)
    loaded.save(folder / "saved")
    again = SentenceTransformer(str(folder / "saved"), device="cpu")
    np.testing.assert_allclose(again.encode(texts), expected, **close)
    assert load_backbone(folder / "saved").revision == loaded.revision
    return loaded


MODES = ["mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean", ("cls", "mean")]


@pytest.mark.parametrize("modes", MODES, ids=str)
def test_sentences_are_pooled_as_their_folder_says(tmp_path, modes):
    check_sentences(tmp_path, sentences(tmp_path, modes))


OLD = [("cls_token", "cls"), ("max_tokens", "max"), ("lasttoken", "lasttoken")]


@pytest.mark.parametrize(("key", "mode"), OLD)
def test_the_old_names_of_pooling_are_understood(tmp_path, key, mode):
    model = sentences(tmp_path, mode)
    old = {"word_embedding_dimension": 16, f"pooling_mode_{key}": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text(json.dumps(old))
    np.testing.assert_allclose(load_backbone(tmp_path / "m").features(TEXTS), model.encode(TEXTS), **close)


def test_what_follows_the_pooling_is_not_left_out(tmp_path):
    torch.manual_seed(0)
    loaded = check_sentences(tmp_path, sentences(tmp_path, more=[modules.Dense(16, 8), modules.Normalize()]))
    assert loaded.n_features == 8
    np.testing.assert_allclose(np.linalg.norm(loaded.features(TEXTS), axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("include", [True, False])
def test_the_default_prompt_stands_before_each_text(tmp_path, include):
    prompts = {"prompts": {"q": "winter sky "}, "default_prompt_name": "q"}
    check_sentences(tmp_path, sentences(tmp_path, pooling={"include_prompt": include}, **prompts))


def test_long_texts_are_cut_and_letters_made_small_as_the_folder_says(tmp_path):
    model = sentences(tmp_path, first={"max_seq_length": 6, "do_lower_case": True})
    check_sentences(tmp_path, model, [" ".join(WORDS), "THE CAT", "  a mat  "])


def test_a_shorter_embedding_is_that_of_the_folder(tmp_path):
    assert check_sentences(tmp_path, sentences(tmp_path, truncate_dim=5)).n_features == 5


def test_a_head_on_sentences_is_saved_with_them(tmp_path):
    sentences(tmp_path, "cls")
    loaded = load_backbone(tmp_path / "m")
    loaded.head, loaded.label_names = torch.nn.Linear(16, 3), ["a", "b", "c"]
    loaded.save(tmp_path / "saved")
    back = load_backbone(tmp_path / "saved")
    assert back.revision == loaded.revision and back.label_names == ["a", "b", "c"]


def test_modules_that_are_not_the_librarys_or_hold_pickles_are_named(tmp_path):
    sentences(tmp_path, more=[modules.Dense(16, 8)])
    dense, listed = tmp_path / "m" / "2_Dense", tmp_path / "m" / "modules.json"
    torch.save(load_file(dense / "model.safetensors"), dense / "pytorch_model.bin")
    load_backbone(tmp_path / "m")
    (dense / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"2_Dense/pytorch_model.bin: a pickle can run code"):
        load_backbone(tmp_path / "m")
    assert load_backbone(tmp_path / "m", allow_pickle=True).n_features == 8
    said = listed.read_text()
    for wrong in ("os.system", "mine.Dense", "sentence_transformers.models.CNN"):
        listed.write_text(said.replace("sentence_transformers.base.modules.dense.Dense", wrong))
        with pytest.raises(ValueError, match=f"module 2 is {wrong}; expected"):
            load_backbone(tmp_path / "m")


@pytest.mark.parametrize("mode", ["max", "cls"])
def test_a_folder_without_its_list_of_modules_is_pooled_as_it_says(tmp_path, mode):
    model = sentences(tmp_path, mode)
    (tmp_path / "m" / "modules.json").unlink()
    np.testing.assert_allclose(load_backbone(tmp_path / "m").features(TEXTS), model.encode(TEXTS), **close)


def test_an_encoder_of_sentences_that_lacks_weights_is_refused(tmp_path):
    sentences(tmp_path)
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("encoder.layer.0.output.dense.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors of BertModel, first encoder.layer.0.output"):
        load_backbone(tmp_path / "m")


def test_the_first_layers_of_a_sentence_model_are_pooled_without_what_follows(tmp_path):
    sentences(tmp_path, "cls", more=[modules.Normalize()])
    cut = load_backbone(tmp_path / "m", layers=1)
    model = transformers.BertModel.from_pretrained(tmp_path / "base", num_hidden_layers=1).eval()
    expected = torch.cat([alone(model, text).last_hidden_state[:, 0] for text in TEXTS])
    np.testing.assert_allclose(cut.features(TEXTS), expected, **close)


# padding


def test_padding_changes_no_features(tmp_path):
    for kind in ("gpt2", "xlnet", "fnet"):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(text_config(kind, **TEXT_FAMILIES[kind]))
        model.save_pretrained(tmp_path / kind)
        tokenizer("bert").save_pretrained(tmp_path / kind)
        loaded = load_backbone(tmp_path / kind)
        one_by_one = np.concatenate([loaded.features([text]) for text in TEXTS])
        np.testing.assert_allclose(loaded.features(TEXTS), one_by_one, **close)


def test_a_plain_encoder_saved_by_save_tiny_is_what_it_was(tmp_path):
    save_tiny(tmp_path, "bert")
    assert load_backbone(tmp_path).body.pooling == "mean"
