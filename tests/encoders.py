"""Tiny random encoders of several families, saved as any model is, with a tokenizer of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import PLACES, TEXTS
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

WINDOW = 24
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": WINDOW,
}
FAMILIES: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "bert": (BertConfig, BertModel, SMALL),
    "roberta": (RobertaConfig, RobertaModel, SMALL | {"max_position_embeddings": WINDOW + 2, "pad_token_id": 1}),
    "deberta": (
        DebertaV2Config,
        DebertaV2Model,
        SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    "modernbert": (
        ModernBertConfig,
        ModernBertModel,
        SMALL | {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    ),
    "distilbert": (
        DistilBertConfig,
        DistilBertModel,
        {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2, "max_position_embeddings": WINDOW},
    ),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token; what isn't known is [UNK]."""
    words = [*" ".join(TEXTS).split(), *PLACES, "the", "was", "and", "Alice", "Bob", "Paris", "Rome", "in"]
    specials = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate([*specials, *words])}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def make(family: str, folder: Path, **changes: Any) -> str:
    """The folder of a random encoder of the family, its config with `changes`."""
    config, model, sizes = FAMILIES[family]
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model(config(vocab_size=len(tokenizer), **{"pad_token_id": 1} | sizes | changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
