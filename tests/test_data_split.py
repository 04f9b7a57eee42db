"""Splits that never overlap, draws that depend on the seed alone, duplicates and leaks that are found."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftdemo.data import Dataset, Example, split, take
from sftdemo.data.cleaning.duplicates import count, duplicates, leaks
from sftdemo.data.text.normalisation import normalise
from sftdemo.errors import DataError

ENGLISH = [word for word in Path(__file__).read_text(encoding="utf-8").split() if word.isalpha()]
CHINESE = "的一是不了在人有我他这中大来上国和地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"


def example(question: str, answer: str = "yes", **extra: object) -> Example:
    row: Example = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    return row | extra  # type: ignore[return-value]


def labelled(text: str, label: str, **meta: object) -> Example:
    return example(f"Which mood?\n\n{text}", label, label=label, meta=meta)


def dataset(train: list[Example], **others: list[Example]) -> Dataset:
    return Dataset("rows.jsonl", "rows", splits={"train": train, **others})


ROWS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 12))),
    min_size=1,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 5))
def test_splits_are_whole_disjoint_and_repeatable(rows, seed):
    made = [
        labelled(f"text number {text}", label, **({} if group is None else {"group": str(group)}))
        for text, label, group in rows
    ]
    try:
        parts = split(dataset(made), seed).splits
    except DataError as error:
        assert error.faults[0].field == "split"
        return
    assert list(parts) == ["train", "validation", "test"]
    assert all(parts.values())
    assert sorted(map(str, made)) == sorted(str(row) for part in parts.values() for row in part)
    for kind in (lambda row: row["messages"][0]["content"], lambda row: row["meta"].get("group")):
        seen = [{kind(row) for row in part} - {None} for part in parts.values()]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert {row["label"] for row in made} == {row["label"] for row in parts["train"]}
    assert parts == split(dataset(made), seed).splits


def test_sizes_and_proportions():
    made = [labelled(f"text {index}", "rare" if index % 10 == 0 else "common") for index in range(1000)]
    parts = split(dataset(made), 1).splits
    assert {name: len(part) for name, part in parts.items()} == {"train": 800, "validation": 100, "test": 100}
    for part in parts.values():
        share = Counter(row["label"] for row in part)["rare"] / len(part)
        assert abs(share - 0.1) <= 0.011
    assert parts["test"] != split(dataset(made), 2).splits["test"]


@pytest.mark.parametrize(("rows", "held_out"), [(5, 1), (300, 30), (5000, 200)])
def test_validation_comes_from_train(rows, held_out):
    test = [example("held out, quite another question")]
    parts = split(dataset([example(f"question {index}") for index in range(rows)], test=test), 0).splits
    assert {name: len(part) for name, part in parts.items()} == {
        "train": rows - held_out,
        "validation": held_out,
        "test": 1,
    }
    assert parts["test"] == test


def test_splits_that_are_complete_stay():
    parts = {"train": [example("a")], "validation": [example("b")], "test": [example("c")]}
    assert split(Dataset("rows.jsonl", "rows", splits=parts), 3).splits == parts


def test_three_rows_are_enough_and_two_are_not():
    parts = split(dataset([example(text) for text in "abc"]), 0).splits
    assert [len(part) for part in parts.values()] == [1, 1, 1]
    with pytest.raises(DataError) as caught:
        split(dataset([example("a"), example("b"), example("B.")]), 0)
    assert str(caught.value) == (
        "rows.jsonl, field 'split': The 3 train rows make 2 that are independent of each other; test and validation "
        "can't be taken from them. Give at least 3, of different groups and with different texts."
    )
    with pytest.raises(DataError) as caught:
        split(dataset([labelled(text, text) for text in "abc"]), 0)
    assert str(caught.value) == (
        "rows.jsonl, field 'split': No row can be taken from train for test without taking a label's last one. "
        "Give at least three rows of each label."
    )
    with pytest.raises(DataError, match="No row is in train"):
        split(dataset([], test=[example("a")]), 0)


def test_groups_across_given_splits_are_noted():
    train = [labelled(f"text {index}", "a", group=str(index)) for index in range(20)]
    test = [labelled("something else", "a", group=str(index)) for index in range(20)]
    (note,) = split(dataset(train, test=test), 0).notes
    assert note.endswith("groups stand both in train and in held-out rows.")


def test_take_depends_on_seed_and_text_alone():
    made = [example(f"question {index}") for index in range(200)]
    drawn = take(made, 50, 7)
    assert drawn == take(made[::-1], 50, 7)
    assert drawn[:20] == take(made, 20, 7)
    assert drawn != take(made, 50, 8)
    assert sorted(map(str, take(made, None, 7))) == sorted(map(str, made)) == sorted(map(str, take(made, 999, 7)))


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("Hello, World!", "  hello world", True),
        ("ＡＢＣ，你好。", "abc, 你好", True),
        ("well-known", "well known", True),
        ("今天，天气不错。", "今天天气不错", True),
        ("第 3 章", "第3章", True),
        ("1.5", "15", False),
        ("1.5", "1 5", False),
        ("-3", "3", False),
        ("50 %", "50", False),
        ("6/2", "6*2", False),
        ("a. 5", "a 5", True),
        ("Straße", "STRASSE", True),
    ],
)
def test_normalise(left, right, same):
    assert (normalise(left) == normalise(right)) is same


def test_duplicates_are_surplus_rows_of_one_split():
    rows = [example("Who?", "Me."), example("who", "me"), example("Who?", "You."), example(" WHO ?", "me!")]
    assert duplicates(rows) == [(1, 0), (3, 0)]
    data = dataset(rows, test=[example("Who?", "Me.")])
    count(data)
    assert (data.duplicates, data.leaked) == (2, 1)


def test_leaks_by_example():
    long = "the quick brown fox jumps over the lazy dog near the old river bank"
    train = [labelled(long, "a"), labelled("turn to chapter 3 of the very long instruction book", "a")]
    held_out = [
        labelled(long.upper() + "!!", "a"),  # case and punctuation
        labelled(long.replace("lazy", "lasy"), "a"),  # nearly
        labelled(long.replace("lazy", "lasy"), "b"),  # nearly, but the label tells them apart
        labelled(long, "b"),  # the very text, whatever its label
        labelled("turn to chapter 4 of the very long instruction book", "a"),  # another number
        labelled("something else entirely, about ships and the weather", "a"),
    ]
    assert leaks(train, held_out) == [(0, 0), (1, 0), (3, 0)]
    assert leaks(train, []) == leaks([], held_out) == []


def test_the_instruction_all_rows_share_makes_no_leak():
    task = "Please read the following message with great care and then name the mood of the person who wrote it: "
    words = ["apple pie", "stone wall", "green sea", "loud noise"]
    rows = [
        example(f"{task}{word}. Answer with a single word only, in English, without any explanation.") for word in words
    ]
    assert leaks(rows[:2], rows[2:]) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_planted_leaks_are_found_among_ten_thousand_rows(language):
    """5 % of the held-out rows leak, half of them with one word (or character) changed."""
    draw = random.Random(language)

    def text() -> str:
        return " ".join(draw.choices(ENGLISH, k=25)) if language == "en" else "".join(draw.choices(CHINESE, k=30))

    def changed(original: str) -> str:
        parts = original.split() if language == "en" else list(original)
        parts[draw.randrange(len(parts))] = draw.choice(ENGLISH if language == "en" else CHINESE)
        return (" " if language == "en" else "").join(parts)

    train = [example(text()) for _ in range(9000)]
    held_out = [example(text()) for _ in range(1000)]
    planted = set(range(0, 1000, 20))
    for index in planted:
        source = draw.choice(train)["messages"][0]["content"]
        leaked = changed(source) if index % 40 else source.upper().replace(" ", ", ") + "！"
        held_out[index] = example(leaked)
    found = {index for index, _ in leaks(train, held_out)}
    assert len(found & planted) >= 0.95 * len(planted)
    assert len(found & planted) >= 0.95 * len(found)
