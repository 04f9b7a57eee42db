"""Rows over the limit: left out, cut in the middle of the prompt, or split into chunks; answers stay whole."""

from __future__ import annotations

import json

import pytest
from conftest import make_tokenizer
from listener import Listener

from sftdemo.config import TrainConfig
from sftdemo.data import Dataset
from sftdemo.data.conversion.templates import frame
from sftdemo.encoding import truncation
from sftdemo.encoding.encode import encode
from sftdemo.errors import UsageError

WORDS = " ".join(f"the film {number} was good and the book was bad" for number in range(40))
HAN = "，".join(f"好的{number}谢谢" for number in range(60))
TEMPLATE = "Classify {{this}}:\n{text}\nOne word."
HEAD, TAIL = "Classify {this}:\n", "\nOne word."


def example(text: str, answer: str = "good", **more):
    asked = {"role": "user", "content": f"{HEAD}{text}{TAIL}"}
    return {"messages": [asked, {"role": "assistant", "content": answer}], **more}


def fitted(examples, on_long: str, **settings):
    tokenizer = make_tokenizer()
    config = TrainConfig(data="d", max_length=120, on_long=on_long, **settings).check()
    dataset = Dataset("d", "d", splits={"train": examples}, instruction=TEMPLATE)
    rows = [encode(tokenizer, example["messages"]) for example in examples]
    found = truncation.fit(examples, rows, tokenizer, config, dataset)
    assert all(len(row.ids) <= 120 for row in found.rows)
    return tokenizer, rows, found, config


def learned(tokenizer, row) -> str:
    return tokenizer.decode([token for token, keep in zip(row.ids, row.supervised, strict=True) if keep])


def body(tokenizer, row) -> str:
    text = tokenizer.decode(row.ids)
    assert text.startswith(f"<|im_start|>user\n{HEAD}") and f"{TAIL}<|im_end|>\n<|im_start|>assistant\n" in text
    return text.removeprefix(f"<|im_start|>user\n{HEAD}").partition(f"{TAIL}<|im_end|>")[0]


def test_the_words_around_the_placeholders_are_the_frame():
    assert frame(TEMPLATE) == (HEAD, TAIL)
    assert frame("a {x} b {y} c") == ("a ", " c") and frame("no place") == ("", "") == frame("")


def test_rows_that_fit_are_left_as_they_are():
    _, rows, found, config = fitted([example("the film"), example("the book")], "cut")
    assert list(found.rows) == rows and found.counts() == dict.fromkeys(found.counts(), 0)
    assert found.sentence(config) == ""


def test_dropped_rows_are_counted():
    _, rows, found, config = fitted([example("the film"), example(WORDS)], "drop")
    assert list(found.rows) == rows[:1] and (found.over, found.dropped) == (1, 1)
    assert found.sentence(config) == "1 row is over max_length 120 tokens (on_long drop): 1 is left out."


@pytest.mark.parametrize("text", [WORDS, HAN, "x" * 900], ids=["words", "han", "one word"])
def test_a_cut_takes_the_middle_and_leaves_the_frame_and_the_answer(text):
    tokenizer, _, found, _ = fitted([example(text, "好的 film")], "cut")
    (row,) = found.rows
    left, gap, right = body(tokenizer, row).partition(" … ")
    assert gap and text.startswith(left) and text.endswith(right) and left and right
    assert learned(tokenizer, row) == "好的 film<|im_end|>"
    assert (found.over, found.cut, found.dropped) == (1, 1, 0)
    assert len(row.ids) > 100, "no more is cut than is needed"


def test_several_long_turns_are_cut_one_after_the_other():
    turns = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": WORDS[:400]},
        {"role": "assistant", "content": "nice"},
        {"role": "user", "content": WORDS[:300]},
        {"role": "assistant", "content": "sad"},
    ]
    tokenizer, _, found, _ = fitted([{"messages": turns}], "cut")
    (row,) = found.rows
    assert tokenizer.decode(row.ids).count(" … ") == 2
    assert learned(tokenizer, row) == "nice<|im_end|>sad<|im_end|>"


@pytest.mark.parametrize("on_long", ["cut", "chunk"])
def test_an_answer_is_never_cut(on_long):
    _, _, found, _ = fitted([example("the film was good", WORDS)], on_long, chunk_overlap=8)
    assert not found.rows and (found.over, found.dropped) == (1, 1)


@pytest.mark.parametrize("text", [WORDS, HAN], ids=["words", "han"])
@pytest.mark.parametrize("overlap", [0, 12])
def test_chunks_cover_the_text_and_share_their_borders(text, overlap):
    tokenizer, _, found, config = fitted([example("the film"), example(text)], "chunk", chunk_overlap=overlap)
    chunks = [body(tokenizer, row) for row in found.rows[1:]]
    assert (found.over, found.split, found.chunks) == (1, 1, len(chunks)) and len(chunks) > 2
    assert all(learned(tokenizer, row) == "good<|im_end|>" for row in found.rows)
    at = 0
    for before, after in zip(chunks, [*chunks[1:], ""], strict=True):
        at = text.index(before, max(at - 1, 0))
        shared = next((n for n in range(len(after), 0, -1) if before.endswith(after[:n])), 0)
        if after and not overlap:
            assert text.startswith(after, at + len(before))
        elif after:
            assert shared and abs(len(tokenizer(after[:shared])["input_ids"]) - overlap) <= 4
    assert text.startswith(chunks[0]) and text.endswith(chunks[-1])
    assert f"became {len(chunks)} chunks" in found.sentence(config)


def test_words_all_questions_share_stay_in_every_chunk():
    assert truncation.shared_words(Dataset("d", "d", splits={"train": [example("a b"), example("a c")]})) == (
        HEAD,
        TAIL,
    )
    single = Dataset("d", "d", splits={"train": [example("a b")]})
    assert truncation.shared_words(single) == ("", "")
    examples = [example(WORDS), example("the film")]
    tokenizer, rows, _, config = fitted(examples, "chunk", chunk_overlap=8)
    found = truncation.fit(examples, rows, tokenizer, config, Dataset("d", "d", splits={"train": examples}))
    assert found.chunks > 2 and all(body(tokenizer, row) for row in found.rows)


def test_a_conversation_is_not_chunked():
    turns = [*example(WORDS)["messages"], {"role": "user", "content": "bad"}, {"role": "assistant", "content": "sad"}]
    _, _, found, _ = fitted([{"messages": turns}], "chunk", chunk_overlap=8)
    assert (len(found.rows), found.dropped) == (0, 1)


def test_an_overlap_that_leaves_no_room_is_refused():
    with pytest.raises(UsageError, match="chunk_overlap is 64; half of max_length"):
        TrainConfig(max_length=100, on_long="chunk").check()


def test_check_and_training_say_the_same(babbler, tmp_path, capsys):
    from sftdemo.__main__ import main
    from sftdemo.training.prepare import Prepared

    rows = [{"prompt": f"{number} {WORDS if number < 3 else 'the film'}", "completion": "good"} for number in range(40)]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = ["--model", babbler, "--max-length", "200", "--on-long", "chunk", "--chunk-overlap", "10"]
    assert main(["check", str(path), *flags, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["lengths"]
    listener = Listener()
    config = TrainConfig(data=str(path), model=babbler, max_length=200, on_long="chunk", chunk_overlap=10)
    prepared = Prepared(config, listener)
    assert told["over"] == told["split"] == 3 and told["chunks"] > 6
    split = {name: sum(counts[name] for counts in prepared.lengths.values()) for name in ("over", "split", "chunks")}
    assert split["over"] <= 3 and prepared.run_config()["data"]["lengths"] == prepared.lengths
    assert any("on_long chunk" in line for line in listener.notes) or split["over"] == 0
