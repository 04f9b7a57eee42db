"""Texts as an encoder reads them: windows, tokenizers written in Python, none of the words around a row."""

from __future__ import annotations

import encoders as tiny_encoders
import torch
from transformers import BertJapaneseTokenizer

from sftdemo.encoding.label_rows import windows
from sftdemo.encoding.own_text import own_text
from sftdemo.model import calibration


def test_a_long_text_is_read_in_windows_and_counts_once():
    tokenizer = tiny_encoders.make_tokenizer()
    text = " ".join(["film", "book", "song", "meal"] * 20)
    parts = windows(tokenizer, text, 24, 4)
    assert max(map(len, parts)) == 24 and all(part[0] == 2 and part[-1] == 3 for part in parts)
    words = parts[0][1:-1] + [token for part in parts[1:] for token in part[5:-1]]
    assert words == tokenizer(text, add_special_tokens=False)["input_ids"]
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
    own = calibration.probabilities(logits, [0, 0, 1], 2.0, several=False)
    assert torch.allclose(own[0], (torch.tensor([1.0, 0.0]).softmax(0) + 0.5).double() / 2)
    assert torch.allclose(own[1], torch.tensor([0.0, 2.0]).double().softmax(0))


def test_a_tokenizer_in_python_is_cut_alike(tmp_path):
    """It gives back no windows but the first, so they are cut here."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "book", "song", "meal"]))
    slow = BertJapaneseTokenizer(str(vocabulary), word_tokenizer_type="basic", subword_tokenizer_type="wordpiece")
    fast = tiny_encoders.make_tokenizer()
    for words in ("film book", " ".join(["film", "book", "song", "meal"] * 20), " ".join(["film"] * 22)):
        own, other = (
            [tokenizer.convert_ids_to_tokens(part) for part in windows(tokenizer, words, 24, 4)]
            for tokenizer in (slow, fast)
        )
        assert own == other
    assert windows(slow, "", 24, 4) == [[2, 3]]


def test_a_text_is_read_without_the_words_around_it():
    asked = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Classify this:\n\nfine day"}]
    assert own_text(asked, ["Classify this:\n\n{text}"]) == "fine day"
    assert own_text(asked[1:], ["Other: {text}"]) == "Classify this:\n\nfine day"
