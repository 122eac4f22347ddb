"""Which checkpoints are loaded, and whether as their own library loads them: the table of docs/checkpoints.md.

    python benchmarks/checkpoints.py timm transformers sentence-transformers --out docs/checkpoints.md

A small model of every family is drawn, saved by its own library, loaded here, and held against the library itself
with the library's own preparation. No network is used. `--only bert` takes families whose name holds a word.
"""

import argparse
import contextlib
import faulthandler
import logging
import os
import signal
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.auto import modeling_auto as auto

from transfergraph.models.loading import load_backbone

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
TEXTS = ["the cat sat on a mat", "winter", "dogs ran far and wide under one blue sky while the cat sat"]
WORDS = "the cat sat on a mat while dogs ran far and wide under one blue sky of winter".split()
TINY = {  # settings of transformers that make a model small, whatever the family calls them
    "hidden_size d_model dim n_embd n_embed embed_dim emb_dim model_dim width d_embed": 32,
    "embedding_size": 32,
    "intermediate_size ffn_dim hidden_dim d_ff d_inner encoder_ffn_dim decoder_ffn_dim ffn_hidden_size n_inner": 64,
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers": 2,
    "num_encoder_layers": 2,
    "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "d_kv head_dim d_head": 8,
    "vocab_size": 64,
    "max_position_embeddings n_positions max_seq_len": 64,
    "image_size": 64,
    "patch_size": 16,
    "projection_dim": 16,
    "num_experts num_local_experts n_routed_experts": 4,
}
CLASSIFIERS = {
    "image classifier": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "text classifier": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
SPECIAL |= {"decoder_start_token_id": 2, "unk_token_id": 3}


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokens = {t: i for i, t in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    made = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **named)


def small_config(kind, **more):
    "A configuration of few parameters, by trying the usual names of sizes on what the family has."
    usual = transformers.CONFIG_MAPPING[kind](**more)
    given = {}
    for names, value in TINY.items():
        for name in names.split():
            known = getattr(usual, name, None)
            if isinstance(known, int) and not isinstance(known, bool) and name not in usual.attribute_map:
                given[name] = value
    given |= {name: value for name, value in SPECIAL.items() if hasattr(usual, name)}
    for part in ("text_config", "vision_config"):
        if hasattr(usual, part):
            given[part] = small_config(getattr(usual, part).model_type).to_dict()
    for key in ("layer_types", "mlp_layer_types"):
        given |= {key: None} if hasattr(usual, key) else {}
    try:
        return type(usual)(**given, **more)
    except Exception:  # a setting of one family that does not go with the others
        with contextlib.suppress(Exception):
            return type(usual)(**{k: v for k, v in given.items() if k != "head_dim"}, **more)
        return usual


def difference(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return np.inf
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


@contextlib.contextmanager
def limit(seconds):
    def stop(*_):
        raise TimeoutError(f"no answer in {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def of_timm(name):
    "Features and logits of a small architecture, loaded from a folder that timm saved."
    import timm
    from timm.models import save_for_hf

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=5).eval()
        for module in model.modules():  # else those that begin as zero hide what comes before them
            if isinstance(module, torch.nn.Linear | torch.nn.LayerNorm):
                torch.nn.init.normal_(module.bias, std=0.1) if module.bias is not None else None
        save_for_hf(model, folder, model_config={"num_classes": 5}, safe_serialization=True)
        theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
        pixels = torch.stack([transform(Image.fromarray(image)) for image in IMAGES])
        with torch.inference_mode():
            features = theirs.forward_head(theirs.forward_features(pixels), pre_logits=True)
            logits = theirs(pixels)
        loaded = load_backbone(folder)
        found = difference(loaded.features(IMAGES), features), None
        if loaded.head is not None:
            found = found[0], difference(loaded.probabilities(IMAGES), logits.softmax(1))
            loaded.save(f"{folder}/saved")
            again = timm.create_model(f"local-dir:{folder}/saved", pretrained=True, num_classes=5).eval()
            with torch.inference_mode():
                found = found[0], max(found[1], difference(again(pixels), logits))
        return found


def small_timm():
    "The smallest architecture of each module of timm, if it is small enough to be drawn here."
    import timm

    found = {}
    for module in timm.list_modules():
        best = None
        for name in timm.list_models(module=module):
            with contextlib.suppress(Exception), torch.device("meta"), limit(20):
                size = sum(p.numel() for p in timm.create_model(name, num_classes=5).parameters())
                best = min(best or (size, name), (size, name))
            if best and best[0] < 4e6:
                break
        if best and best[0] < 4e7:
            found[module] = best[1]
    return found


def of_transformers(kind, classes):
    "Features and logits of a classifier, or features of an encoder, with the library's own preparation."
    image = classes == "image classifier"
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        known = CLASSIFIERS[classes][kind]
        factory = getattr(transformers, known if isinstance(known, str) else known[0])
        model = factory(small_config(kind, num_labels=3)).eval()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.add_(torch.randn_like(p) * 0.05)
        if sum(p.numel() for p in model.parameters()) > 4e7:
            raise ValueError("no small variant")
        model.save_pretrained(folder)
        if image:
            processors = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING
            known = processors.get(type(model.config), transformers.ViTImageProcessor)
            processor = (known["torchvision"] if isinstance(known, dict) else known)()
            size = getattr(getattr(model.config, "vision_config", model.config), "image_size", 64)
            if isinstance(size, int) and getattr(processor, "size", None) is not None:
                for name in ("size", "crop_size"):
                    if said := getattr(processor, name, None):
                        setattr(processor, name, type(said)(**{k: size for k, v in dict(said).items() if v}))
            processor.save_pretrained(folder)
            loaded = load_backbone(folder)
            pixels = transformers.AutoImageProcessor.from_pretrained(folder)(
                [Image.fromarray(image) for image in IMAGES], return_tensors="pt"
            )["pixel_values"]
            given, items = [{"pixel_values": pixels}], IMAGES
        else:
            tokenizer().save_pretrained(folder)
            loaded, own = load_backbone(folder), transformers.AutoTokenizer.from_pretrained(folder)
            names = ("input_ids", "attention_mask")
            given = [{k: v for k, v in own(t, return_tensors="pt").items() if k in names} for t in TEXTS]
            items = TEXTS
        with torch.inference_mode():
            logits = torch.cat([model(**batch).logits for batch in given])
        if loaded.head is None:
            return None, None
        shown = difference(loaded.head(torch.from_numpy(loaded.features(items))).detach(), logits)
        loaded.save(f"{folder}/saved")
        again = type(model).from_pretrained(f"{folder}/saved").eval()
        with torch.inference_mode():
            saved = torch.cat([again(**batch).logits for batch in given])
        return shown, max(
            difference(loaded.probabilities(items), logits.softmax(1)), difference(saved, logits)
        )


def of_encoder(kind):
    "Features of a text model without a classifier, against what the documentation says they are."
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(small_config(kind)).eval()
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        loaded = load_backbone(folder)
        own, expected = transformers.AutoTokenizer.from_pretrained(folder), []
        with torch.inference_mode():
            for text in TEXTS:
                given = {k: v for k, v in own(text, return_tensors="pt").items() if k != "token_type_ids"}
                part = model.get_encoder() if model.config.is_encoder_decoder else model
                hidden = part(**given).last_hidden_state[0]
                expected.append(hidden[-1] if loaded.body.pooling == "last" else hidden.mean(0))
        return difference(loaded.features(TEXTS), torch.stack(expected)), None


def of_sentences(modes, more):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        transformers.BertModel(small_config("bert")).save_pretrained(f"{folder}/base")
        tokenizer().save_pretrained(f"{folder}/base")
        chain = [modules.Transformer(f"{folder}/base"), modules.Pooling(32, pooling_mode=modes)]
        chain += [modules.Dense(32, 8)] if "Dense" in more else []
        chain += [modules.Normalize()] if "Normalize" in more else []
        prompts = {"prompts": {"q": "the cat sat "}, "default_prompt_name": "q"} if "prompt" in more else {}
        model = SentenceTransformer(modules=chain, device="cpu", **prompts)
        model.save(f"{folder}/m")
        loaded = load_backbone(f"{folder}/m")
        loaded.save(f"{folder}/saved")
        again = SentenceTransformer(f"{folder}/saved", device="cpu").encode(TEXTS)
        expected = model.encode(TEXTS)
        return max(difference(loaded.features(TEXTS), expected), difference(again, expected)), None


def tried(run, *args):
    try:
        with warnings.catch_warnings(), limit(120):
            warnings.simplefilter("ignore")
            return run(*args)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("libraries", nargs="+", choices=["timm", "transformers", "sentence-transformers"])
    parser.add_argument("--only", default="")
    parser.add_argument("--out")
    args = parser.parse_args()
    faulthandler.enable()
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = []

    def add(library, family, what, found):
        rows.append((library, family, what, found))
        print(library, family, what, found, flush=True)

    if "timm" in args.libraries:
        for module, name in small_timm().items():
            if args.only in module:
                add("timm", module, name, tried(of_timm, name))
    if "transformers" in args.libraries:
        for what, kinds in CLASSIFIERS.items():
            for kind in sorted(kinds):
                if args.only in kind and kind != "timm_wrapper":
                    add("transformers", kind, what, tried(of_transformers, kind, what))
        texts = {*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, *auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
        texts |= {
            *auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
            "gpt2",
            "llama",
            "mistral",
            "qwen2",
            "opt",
            "bloom",
            "xlnet",
        }
        for kind in sorted(texts):
            if args.only in kind:
                add("transformers", kind, "encoder of texts", tried(of_encoder, kind))
    if "sentence-transformers" in args.libraries:
        for modes in (
            "mean",
            "cls",
            "max",
            "lasttoken",
            "mean_sqrt_len_tokens",
            "weightedmean",
            ("cls", "mean"),
        ):
            for more in ((), ("Dense",), ("Normalize",), ("Dense", "Normalize", "prompt")):
                label = "+".join([modes] if isinstance(modes, str) else modes)
                add("sentence-transformers", label, ", ".join(more), tried(of_sentences, modes, more))
    if args.out:
        Path(args.out).write_text(table(rows), encoding="utf-8")


def table(rows):
    raise NotImplementedError


if __name__ == "__main__":
    main()
