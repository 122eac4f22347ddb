"""Which checkpoints are loaded, and whether as their own library does: the table of docs/checkpoints.md.

    python benchmarks/checkpoints.py timm transformers sentence-transformers --out docs/checkpoints.md

A small model of every family is drawn, saved by its own library, loaded here, and held against the library
itself with the library's own preparation. No network is used. `--only bert` takes families with a word in it.
"""

import argparse
import contextlib
import faulthandler
import logging
import os
import re
import signal
import tempfile
import warnings
from collections import defaultdict
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
    "intermediate_size ffn_dim hidden_dim d_ff d_inner ffn_hidden_size n_inner": 64,
    "encoder_ffn_dim decoder_ffn_dim": 64,
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
IMAGE_PROCESSOR_MAPPING = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING
LARGE = ("convnext", "convnextv2", "mobilevitv2")  # take images of their usual size, as they halve them often
CLOSE = 1e-5
STAGES = {"depths": [1, 1], "hidden_sizes": [16, 32]}
WINDOWS = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "patch_size": 4, "window_size": 4}
EXPERTS = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
LATENT |= {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "head_dim": 8}
OTHERS = {  # sizes that go together in one family; ... leaves a setting as it is
    "swin": WINDOWS,
    "swinv2": WINDOWS | {"pretrained_window_sizes": [0, 0]},
    "donut-swin": WINDOWS,
    "resnet": STAGES | {"embedding_size": 16},
    "convnext": STAGES | {"num_stages": 2, "patch_size": 4, "image_size": ...},
    "convnextv2": STAGES | {"num_stages": 2, "patch_size": 4, "image_size": ...},
    "bit": STAGES | {"embedding_size": 16, "num_groups": 4},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
    "mobilevitv2": {"patch_size": 2, "width_multiplier": 0.25, "image_size": ...},
    "pp_lcnet": {"scale": 0.25, "class_expand": 32},
    "perceiver": {"num_latents": 8, "d_latents": 16, "num_self_attends_per_block": 1}
    | {"num_self_attention_heads": 2, "num_cross_attention_heads": 1},
    "funnel": {"block_sizes": [1, 1], "num_hidden_layers": ..., "num_layers": ...},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "canine": {"num_hash_buckets": 64, "local_transformer_stride": 16, "downsampling_rate": 2},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "ministral": {"num_key_value_heads": 2, "head_dim": 8},
    "hunyuan_v1_dense": {"num_key_value_heads": 2, "head_dim": 8},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8, "max_2d_position_embeddings": 64},
    "lilt": {"hidden_size": 48, "channel_shrink_ratio": 2, "max_2d_position_embeddings": 64},
    "xmod": {"default_language": "en_XX"},
    "esm": {"vocab_size": 64, "mask_token_id": 3},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "max_position_embeddings": ...},
    "t5": {"decoder_start_token_id": 0},
    "gptj": {"rotary_dim": 4},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8]},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "qwen3_moe": EXPERTS,
    "deepseek_v2": LATENT | EXPERTS,
    "deepseek_v3": LATENT | EXPERTS,
    "minicpm3": LATENT,
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    }
    | {"mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False},
}
PROCESSORS = {"imagegpt": {"clusters": [[-1.0] * 3, [1.0] * 3], "size": {"height": 6, "width": 6}}}
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
    given |= {name: value for name, value in SPECIAL.items() if hasattr(usual, name)} | OTHERS.get(kind, {})
    for part in ("text_config", "vision_config"):
        if hasattr(usual, part):
            given[part] = small_config(getattr(usual, part).model_type).to_dict()
    for key in ("layer_types", "mlp_layer_types"):
        given |= {key: None} if key in usual.to_dict() else {}
    given = {name: value for name, value in given.items() if value is not ...}
    try:
        return type(usual)(**given, **more)
    except Exception:  # a setting of one family that does not go with the others
        with contextlib.suppress(Exception):
            return type(usual)(**{k: v for k, v in given.items() if k != "head_dim"}, **more)
        return usual


class NotMade(Exception):
    "No small model of the family was made here; the message says what was in the way."


@contextlib.contextmanager
def making():
    "What goes wrong inside is no matter of loading."
    try:
        yield
    except Exception as error:
        raise NotMade(" ".join(str(error).split())[:100]) from error


def check_size(factory, config):
    "Raise `ValueError` before memory is asked for a model that is not small."
    with torch.device("meta"):
        if sum(p.numel() for p in factory(config).parameters()) > 2e7:
            raise ValueError("no small variant")


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
    "Features and logits of a small architecture, loaded from a folder that timm saved, and saved again."
    import timm

    with tempfile.TemporaryDirectory() as folder:
        with making():
            torch.manual_seed(0)
            model = timm.create_model(name, num_classes=5).eval()
            with torch.no_grad():  # else what begins as zero hides what comes before it
                for p in model.parameters():
                    p.add_(torch.randn_like(p) * 0.02)
            timm.models.save_for_hf(model, folder, safe_serialization=True)
            theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5).eval()
            transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
            pixels = torch.stack([transform(Image.fromarray(image)) for image in IMAGES])
            with torch.inference_mode():
                features = theirs.forward_head(theirs.forward_features(pixels), pre_logits=True)
                logits = theirs(pixels)
        loaded = load_backbone(folder)
        found = difference(loaded.features(IMAGES), features)
        if loaded.head is None:
            same = "features equal" if found < CLOSE else f"features differ by {found:.2g}"
            return f"without its head, which is more than a linear layer on features; {same}"
        found = max(found, difference(loaded.probabilities(IMAGES), logits.softmax(1)))
        loaded.save(f"{folder}/saved")
        again = timm.create_model(f"local-dir:{folder}/saved", pretrained=True, num_classes=5).eval()
        with torch.inference_mode():
            return max(found, difference(again(pixels), logits))


def small_timm():
    "A small architecture of each module of timm: the first that is small, by names of small ones."
    import timm

    words = (
        "test_",
        "atto",
        "pico",
        "femto",
        "nano",
        "tiny",
        "xxs",
        "_xs",
        "mini",
        "small",
        "b0",
        "18",
        "_s",
    )
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        names.sort(key=lambda name: next((i for i, word in enumerate(words) if word in name), len(words)))
        for name in names[:6]:
            with contextlib.suppress(Exception), torch.device("meta"):
                size = sum(p.numel() for p in timm.create_model(name, num_classes=5).parameters())
            if size < 2e7:
                yield module, name
                break


def processor_of(kind, config, folder):
    "Save the processor of the family's own kind, set to the size of the model."
    known = IMAGE_PROCESSOR_MAPPING.get(type(config), transformers.ViTImageProcessor)
    made = (known["torchvision"] if isinstance(known, dict) else known)(**PROCESSORS.get(kind, {}))
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
    for name in ("size", "crop_size") if isinstance(size, int) and kind not in LARGE else ():
        if said := getattr(made, name, None):
            setattr(made, name, type(said)(**{key: size for key, value in dict(said).items() if value}))
    made.save_pretrained(folder)


def of_transformers(kind, what):
    "Logits of a classifier by body and head, and of one saved again, with the library's own preparation."
    image = what == "image classifier"
    with tempfile.TemporaryDirectory() as folder:
        with making():
            known, config = CLASSIFIERS[what][kind], small_config(kind, num_labels=3)
            factory = getattr(transformers, known if isinstance(known, str) else known[0])
            check_size(factory, config)
            torch.manual_seed(0)
            model = factory(config).eval()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(torch.randn_like(p) * 0.05)
            model.save_pretrained(folder)
            if image:
                processor_of(kind, config, folder)
                own = transformers.AutoImageProcessor.from_pretrained(folder)
                pictures = [Image.fromarray(image) for image in IMAGES]
                given, items = [dict(own(pictures, return_tensors="pt"))], IMAGES
            else:
                tokenizer().save_pretrained(folder)
                own = transformers.AutoTokenizer.from_pretrained(folder)
                said = [own(text, return_tensors="pt") for text in TEXTS]
                given = [{key: one[key] for key in ("input_ids", "attention_mask")} for one in said]
                items = TEXTS
            with torch.inference_mode():
                logits = torch.cat([model(**batch).logits for batch in given])
        loaded = load_backbone(folder)
        if loaded.head is None:
            return "without its head, which is more than a linear layer on features"
        shown = difference(loaded.head(torch.from_numpy(loaded.features(items))).detach(), logits)
        loaded.save(f"{folder}/saved")
        again = type(model).from_pretrained(f"{folder}/saved").eval()
        with torch.inference_mode():
            saved = torch.cat([again(**batch).logits for batch in given])
        return max(shown, difference(saved, logits))


def of_encoder(kind, what):
    "Features of a text model without a classifier, against what the documentation says they are."
    with tempfile.TemporaryDirectory() as folder:
        with making():
            config = small_config(kind)
            check_size(transformers.AutoModel.from_config, config)
            torch.manual_seed(0)
            model = transformers.AutoModel.from_config(config).eval()
            model.save_pretrained(folder)
            tokenizer().save_pretrained(folder)
            own, hidden = transformers.AutoTokenizer.from_pretrained(folder), []
            with torch.inference_mode():
                part = model.get_encoder() if model.config.is_encoder_decoder else model
                for text in TEXTS:
                    said = own(text, return_tensors="pt")
                    given = {key: said[key] for key in ("input_ids", "attention_mask")}
                    hidden.append(part(**given).last_hidden_state[0])
        loaded = load_backbone(folder)
        expected = [one[-1] if loaded.body.pooling == "last" else one.mean(0) for one in hidden]
        return difference(loaded.features(TEXTS), torch.stack(expected))


def of_sentences(modes, more):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        transformers.BertModel(small_config("bert")).save_pretrained(f"{folder}/base")
        tokenizer().save_pretrained(f"{folder}/base")
        chain = [modules.Transformer(f"{folder}/base"), modules.Pooling(32, pooling_mode=modes)]
        width = chain[1].get_embedding_dimension()
        chain += [modules.Dense(width, 8)] if "Dense" in more else []
        chain += [modules.Normalize()] if "Normalize" in more else []
        prompts = {"prompts": {"q": "the cat sat "}, "default_prompt_name": "q"} if "prompt" in more else {}
        model = SentenceTransformer(modules=chain, device="cpu", **prompts)
        model.save(f"{folder}/m")
        loaded = load_backbone(f"{folder}/m")
        loaded.save(f"{folder}/saved")
        again = SentenceTransformer(f"{folder}/saved", device="cpu").encode(TEXTS)
        expected = model.encode(TEXTS)
        return max(difference(loaded.features(TEXTS), expected), difference(again, expected))


def tried(run, *args):
    try:
        with warnings.catch_warnings(), limit(120):
            warnings.simplefilter("ignore")
            return run(*args)
    except NotMade as error:
        return f"not made here ({error})"
    except Exception as error:
        said = re.sub(r"(/tmp/)?tmp\w+(/\S+)?: ", "", " ".join(str(error).split()))
        return (
            f"refused: {said[:200]}" if isinstance(error, (ValueError, OSError)) else f"FAILS: {said[:200]}"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("libraries", nargs="+", choices=["timm", "transformers", "sentence-transformers"])
    parser.add_argument("--only", default="")
    parser.add_argument("--out")
    parser.add_argument("--after", default="", help="families whose name comes later in the alphabet")
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
        for module, name in small_timm():
            if args.only in module and module > args.after:
                add("timm", module, name, tried(of_timm, name))
    if "transformers" in args.libraries:
        texts = {*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, *auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
        texts |= {
            *auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
            "gpt2",
            "llama",
            "mistral",
            "qwen2",
            "opt",
            "xlnet",
        }
        for what, kinds in (CLASSIFIERS | {"encoder of texts": texts}).items():
            for kind in sorted(kinds):
                if args.only in kind and kind > args.after and kind != "timm_wrapper":
                    run = of_transformers if what in CLASSIFIERS else of_encoder
                    add("transformers", kind, what, tried(run, kind, what))
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


HEAD = """# Which checkpoints are loaded

Made by `benchmarks/checkpoints.py timm transformers sentence-transformers --out docs/checkpoints.md` with
{versions}. A small model of every family is drawn, saved by its own library and loaded here;
*equal* means: features, and logits where there is a classifier, are those of the library with its own
preparation, to one part in 100,000, and again after it was saved here and loaded by the library.

What is refused is refused by name, with the way out; what has no head has no probabilities (LEEP, NCE).
Besides: adapters (LoRA), quantised weights, GGUF, ONNX, TensorFlow, Flax, code that comes with a model
(`auto_map`), images of other than three channels, tokenizers of sentencepiece that were not converted, and
names of tensors with the prefix of a wrapper.
"""


def table(rows):
    "Markdown: families by what came out, so that what is equal is short."
    import sentence_transformers
    import timm

    versions = f"timm {timm.__version__}, transformers {transformers.__version__}, "
    versions += f"sentence-transformers {sentence_transformers.__version__}"
    parts, groups = [HEAD.format(versions=versions)], defaultdict(lambda: defaultdict(list))
    for library, family, what, found in rows:
        title = library if library != "transformers" else f"transformers, {what}"
        shown = f"{family} ({what})" if library != "transformers" and what else family
        if isinstance(found, float):
            found = "equal" if found < CLOSE else f"DIFFERS by {found:.2g}"
        groups[title][found].append(shown)
    for title, found in groups.items():
        parts.append(f"\n## {title}\n\n| what | families |\n| --- | --- |\n")
        order = sorted(found, key=lambda said: (said.startswith("not made"), said != "equal", said))
        missing = [name for said in order if said.startswith("not made") for name in found[said]]
        for said in order:
            if not said.startswith("not made"):
                cell = said.replace("|", "/")
                parts.append(f"| {cell} | {', '.join(found[said])} |\n")
        if missing:
            parts.append(f"| no small model was made here | {', '.join(missing)} |\n")
    return "".join(parts)


if __name__ == "__main__":
    main()
