"""Tiny networks, saved as their libraries save them."""

import torch
import transformers

from transfergraph.models.loading import load_backbone

WORDS = "the cat sat on a mat while dogs ran far and wide under one blue sky of winter".split()
TINY = {
    "bert": {"hidden_size": 16, "intermediate_size": 32},
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": 3, "n_heads": 2},
    "roberta": {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 34},
    "electra": {"hidden_size": 16, "intermediate_size": 32, "embedding_size": 8},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32},
}


def tokenizer(family: str):
    "A word-level tokenizer with the special tokens of a family."
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokens = {t: i for i, t in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    made = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if family == "gpt2":  # no padding token, no special token added
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=made, unk_token="[UNK]", eos_token="[SEP]"
        )
    pieces = [("[CLS]", 1), ("[SEP]", 2)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=pieces)
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **named)


def tiny_config(family: str, **more):
    common = {"vocab_size": 64, "pad_token_id": 0}
    if family in ("bert", "roberta", "electra"):
        common |= {"num_hidden_layers": 3, "num_attention_heads": 2}
    common |= {"max_position_embeddings": 32} if family != "gpt2" else {}
    return transformers.CONFIG_MAPPING[family](**(common | TINY[family] | more))


def save_tiny(folder, family: str, auto=transformers.AutoModel, **more):
    torch.manual_seed(0)
    model = auto.from_config(tiny_config(family, **more)).eval()
    model.save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return model


def save_timm(folder, name: str = "test_resnet", **metadata):
    backbone = load_backbone(name, random_state=0, input_size=32)
    torch.manual_seed(1)
    backbone.head, backbone.label_names = torch.nn.Linear(backbone.n_features, 3), ["cat", "dog", "ä"]
    backbone.metadata |= metadata
    backbone.save(folder)
    return backbone
