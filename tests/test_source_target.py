"""Sources and targets as token ids: languages, and tokenizers written in Python."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from seq2seq_models import make_tokenizer, save_marian, save_multilingual

from sftdemo import data
from sftdemo.config import GenerateConfig
from sftdemo.encoding import truncation
from sftdemo.encoding.detokenizer import Detokenizer
from sftdemo.encoding.examples import encode_all, encode_example
from sftdemo.errors import UsageError
from sftdemo.inference.seq2seq import decode
from sftdemo.model import loading, seq2seq
from tests.test_seq2seq import example, settings


@pytest.mark.parametrize(
    ("kind", "source", "target", "marks"),
    [("m2m100", "de", "fr", ["__de__", "__fr__"]), ("nllb", "deu_Latn", "fra_Latn", ["deu_Latn", "fra_Latn"])],
)
@pytest.mark.filterwarnings("ignore:Recommended")
def test_a_language_is_marked_where_transformers_marks_it_and_never_shown(kind, source, target, marks, tmp_path):
    from transformers import AutoTokenizer

    folder = Path(save_multilingual(kind, tmp_path))
    config = settings(str(folder), source_language=source, target_language=target)
    words, plain = loading.tokenizer_for(config, folder), AutoTokenizer.from_pretrained(folder)
    plain.src_lang, plain.tgt_lang = source, target
    [(_, row)] = encode_example(words, example("a b", "b"))
    wanted = plain("a b", text_target="b")
    assert row.ids == wanted["input_ids"] + wanted["labels"]
    first = row.ids[row.prompt_length]
    assert words.convert_ids_to_tokens([row.ids[0], first]) == marks
    model = loading.load_base(folder, torch.float32, task="seq2seq").eval()
    seq2seq.complete_config(model, words)
    [written] = decode(model, [row.ids[: row.prompt_length]], model.generation_config, GenerateConfig(), 4)
    assert written.tokens[0] == first and Detokenizer(words).text(row.ids[row.prompt_length :]) == "b"
    with pytest.raises(UsageError, match="target_language is 'french'"):
        loading.tokenizer_for(replace(config, target_language="french"), folder)


@pytest.mark.filterwarnings("ignore:Recommended")
def test_a_tokenizer_in_python_keeps_blanks_and_is_cut_by_words(tmp_path):
    """Its decoding drops blanks at the ends, so a text must not be put together of decoded pieces."""
    config = settings(save_marian(tmp_path), source_prefix=">>fra<< ", max_length=40, on_long="cut")
    tokenizer = loading.tokenizer_for(config, tmp_path)
    assert not tokenizer.is_fast
    [(_, row)] = encode_example(tokenizer, example("the film </s> was good", "le film est bon"))
    source, target = row.ids[: row.prompt_length], row.ids[row.prompt_length :]
    assert tokenizer.convert_ids_to_tokens(source)[0] == ">>fra<<" and source.count(0) == target.count(0) == 1
    words = Detokenizer(tokenizer)
    assert "".join(map(words.add, target)) == words.text(target) == "le film est bon"
    long = example("the film was good and nice " * 8, "le film est bon")
    encoded = encode_all([long], tokenizer, "stop", "x")
    dataset = data.Dataset("x", "x", splits={"train": [long]})
    fitted = truncation.fit(encoded.examples, encoded.rows, tokenizer, config, dataset)
    assert fitted.cut == 1 and len(fitted.rows[0].ids) <= 40


def test_tokenizers_that_cannot_tell_places_are_cut_by_words():
    from sftdemo.encoding.source_target import offsets

    fast = make_tokenizer()

    class Slow:
        is_fast = False

        def __call__(self, text, **options):
            return fast(text, add_special_tokens=False)

    text = "the film was good"
    places = offsets(Slow(), text)
    assert "".join(text[start:end] for start, end in dict.fromkeys(places)) == text
    assert re.match("the ", text[slice(*places[0])])
