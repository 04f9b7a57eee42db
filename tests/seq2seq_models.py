"""Tiny sequence-to-sequence models with random weights, saved as any model is."""

from __future__ import annotations

from pathlib import Path

KINDS = ("t5", "bart", "marian")
WINDOW = 96  # tokens that BART and Marian have positions for
SIZES = {"vocab_size": 300, "d_model": 32, "pad_token_id": 0, "eos_token_id": 1}
BART = SIZES | {
    **{f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in
       {"layers": 2, "ffn_dim": 64, "attention_heads": 4}.items()},
    "max_position_embeddings": WINDOW, "dropout": 0.0, "forced_eos_token_id": 1,
}  # fmt: skip


def make_tokenizer():
    """Byte-level, with T5's pad, end and mark of a hole."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["vocab_size"],
        special_tokens=["<pad>", "</s>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(["the film was good bad", "le film"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", bos_token="<s>")


def make_model(kind: str):
    import torch
    import transformers as library

    torch.manual_seed(0)
    if kind == "t5":
        sizes = {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
        return library.T5ForConditionalGeneration(library.T5Config(**SIZES, **sizes, decoder_start_token_id=0))
    if kind == "bart":
        return library.BartForConditionalGeneration(
            library.BartConfig(**BART, bos_token_id=2, decoder_start_token_id=1)
        )
    return library.MarianMTModel(library.MarianConfig(**BART, bos_token_id=None, decoder_start_token_id=0))


def save_marian(folder: Path) -> str:
    """A Marian with a tokenizer of its own kind, SentencePiece in Python, which names the target's language in the source."""
    import json

    import sentencepiece
    from transformers import MarianConfig, MarianMTModel

    texts = iter(["the film was good and nice", "le film est bon", "a book here"] * 5)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_prefix=str(folder / "source"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    words = (folder / "source.model").read_bytes()
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(words)
    core = sentencepiece.SentencePieceProcessor(model_proto=words)
    pieces = [core.id_to_piece(place) for place in range(3, core.get_piece_size())]
    vocabulary = ["</s>", "<unk>", ">>fra<<", *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(vocabulary)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    sizes = BART | {"vocab_size": len(vocabulary), "pad_token_id": len(vocabulary) - 1, "eos_token_id": 0}
    sizes |= {"forced_eos_token_id": 0, "decoder_start_token_id": len(vocabulary) - 1, "bos_token_id": None}
    MarianMTModel(MarianConfig(**sizes)).save_pretrained(folder)
    return str(folder)


MULTILINGUAL = {"d_model": 16, "max_position_embeddings": 32, "decoder_start_token_id": 2, "vocab_size": 300} | {
    f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in
    {"layers": 1, "ffn_dim": 16, "attention_heads": 2}.items()
}  # fmt: skip


def save_multilingual(kind: str, folder: Path) -> str:
    """An M2M100, with its own tokenizer in Python, or with NLLB's."""
    import json

    import sentencepiece
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer, NllbTokenizer

    vocabulary = {piece: place for place, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b"])}
    if kind == "nllb":
        tokenizer = NllbTokenizer(vocab=vocabulary, merges=[])
    else:
        options = {"vocab_size": 20, "hard_vocab_limit": False, "minloglevel": 2, "model_prefix": str(folder / "words")}
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["a b a b", "b a"] * 5), **options)
        (folder / "vocab.json").write_text(json.dumps(vocabulary | {"▁a": 7, "▁b": 8}))
        tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "words.model"))
    tokenizer.save_pretrained(folder)
    M2M100ForConditionalGeneration(M2M100Config(**MULTILINGUAL)).save_pretrained(folder)
    return str(folder)


def save(kind: str, folder: Path) -> str:
    make_model(kind).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)
