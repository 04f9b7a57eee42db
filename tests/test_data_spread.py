"""Answers that a file spreads: labels over columns of 0 and 1, conversations over rows, fastText's marks in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftdemo.config import TrainConfig
from sftdemo.data import Dataset, read

TEXTS = [f"the film number {number} was what it was" for number in range(12)]


def written(path: Path, text: str, **changed: Any) -> Dataset:
    path.write_text(text, encoding="utf-8")
    return read(TrainConfig(data=str(path), **changed))


def labels_of(dataset: Dataset) -> list[Any]:
    rows = sorted((each for part in dataset.splits.values() for each in part), key=lambda each: each["meta"]["line"])
    return [each.get("labels") or each["label"] for each in rows]


@pytest.mark.parametrize("on", ["1", "TRUE", "1.0", "yes"])
def test_columns_that_exclude_each_other_are_one_label(tmp_path: Path, on: str) -> None:
    off = {"1": "0", "TRUE": "FALSE", "1.0": "0.0", "yes": "no"}[on]
    lines = [
        f"{number},{text},{off if number % 3 else on},{on if number % 3 else off}" for number, text in enumerate(TEXTS)
    ]
    dataset = written(tmp_path / "moods.csv", "\n".join(["id,comment,good,bad", *lines]))
    assert not dataset.faults and dataset.task == "classification"
    assert labels_of(dataset) == ["bad" if number % 3 else "good" for number in range(12)]
    assert "'good', 'bad'" in " ".join(dataset.notes)


def test_three_columns_of_switches_are_several_labels_or_none(tmp_path: Path) -> None:
    """As Jigsaw's comments and GoEmotions have them; two columns that don't exclude each other may mean anything."""
    marks = ["1,0,1", "0,0,0", "0,1,0"] * 4
    lines = [f'"{text}",{mark}' for text, mark in zip(TEXTS, marks, strict=True)]
    dataset = written(tmp_path / "comments.csv", "\n".join(["comment_text,toxic,insult,threat", *lines]))
    assert not dataset.faults and labels_of(dataset)[:3] == [["toxic", "threat"], ["none"], ["insult"]]
    assert any("4 rows have none" in note for note in dataset.notes)
    two = [f'"{text}",{mark[:3]}' for text, mark in zip(TEXTS, marks, strict=True)]
    dataset = written(tmp_path / "two.csv", "\n".join(["comment_text,toxic,insult", *two]))
    assert dataset.faults and not dataset.splits


FACTS = {  # columns of 0 and 1 in public sets that say something of a row, with what its column is to be asked for
    "Steam": "recommendationid,language,review,voted_up,votes_up,steam_purchase,received_for_free,in_early_access\n"
    + "\n".join(
        f"{n},english,{text},{n % 2},{n % 5},{n % 3 % 2},{n % 4 // 3},{n % 7 // 6}" for n, text in enumerate(TEXTS)
    ),
    "tweets": "text,is_reply,is_retweet,has_media\n"
    + "\n".join(f"{text},{n % 2},{n % 3 % 2},{n % 4 // 3}" for n, text in enumerate(TEXTS)),
    "GoEmotions": "text,subreddit,rater_id,unclear,joy,anger,neutral\n"
    + "\n".join(
        f"{text},r{n % 3},{n % 5},{n % 7 // 6},{n % 2},{n % 3 % 2},{n % 4 // 3}" for n, text in enumerate(TEXTS)
    ),
}


@pytest.mark.parametrize("name", FACTS)
def test_what_may_be_facts_of_a_row_is_asked(tmp_path: Path, name: str) -> None:
    dataset = written(tmp_path / "rows.csv", FACTS[name])
    text = "review" if name == "Steam" else "text"
    assert dataset.faults and not dataset.splits and dataset.suggested == {"text": text, "label": "label"}
    assert any("choose 'label'" in note for note in dataset.notes)
    assert "'label'" not in dataset.faults[0].problem, "it isn't the file's"
    dataset = written(tmp_path / "rows.csv", FACTS[name], columns=f"text={text},label=label")
    assert not dataset.faults and all(isinstance(labels, list) for labels in labels_of(dataset))
    own = FACTS[name].split(",")[3]
    dataset = written(tmp_path / "rows.csv", FACTS[name], columns=f"text={text},label={own.splitlines()[0]}")
    assert not dataset.faults and set(labels_of(dataset)) == {"0", "1"}


def test_columns_that_never_change_are_no_labels(tmp_path: Path) -> None:
    lines = [f"1,{text},{(-1, 1)[number % 2]},0" for number, text in enumerate(TEXTS)]
    dataset = written(tmp_path / "rows.csv", "\n".join(["app_id,review_text,review_score,review_votes", *lines]))
    assert dataset.faults and dataset.suggested == {"text": "review_text", "label": "review_score"}


def test_a_label_column_beside_switches_stays_the_label(tmp_path: Path) -> None:
    lines = [f"{text},{'good' if number % 2 else 'bad'},1,0,{number % 2}" for number, text in enumerate(TEXTS)]
    dataset = written(tmp_path / "moods.csv", "\n".join(["text,label,is_reply,is_retweet,is_new", *lines]))
    assert labels_of(dataset) == ["good" if number % 2 else "bad" for number in range(12)]


def test_switches_beside_a_text_of_another_name_are_read_by_naming_it(tmp_path: Path) -> None:
    lines = [f"{text},{number % 2},{1 - number % 2}" for number, text in enumerate(TEXTS)]
    table = "\n".join(["Gastkommentar,gut,schlecht", *lines])
    dataset = written(tmp_path / "moods.csv", table)
    assert dataset.suggested == {"text": "Gastkommentar", "label": "label"}
    dataset = written(tmp_path / "moods.csv", table, columns="text=Gastkommentar,label=label")
    assert not dataset.faults and labels_of(dataset)[:2] == ["schlecht", "gut"]


@pytest.mark.parametrize("names", [("conversation_id", "role", "content"), ("Dialog ID", "Speaker", "Utterance")])
def test_a_row_for_each_turn_is_a_conversation_for_each_number(tmp_path: Path, names: tuple[str, str, str]) -> None:
    thread, speaker, said = names
    turns = [
        {thread: number % 6, "turn": at, speaker: ("Customer", "Agent")[at % 2], said: f"turn {at} of {number % 6}"}
        for number in range(6)
        for at in (2, 3, 1, 0)
    ]
    path = tmp_path / "turns.jsonl"
    dataset = written(path, "".join(json.dumps(turn) + "\n" for turn in turns))
    assert not dataset.faults and dataset.examples == 6
    example = min((each for part in dataset.splits.values() for each in part), key=lambda each: each["meta"]["line"])
    assert [message["content"] for message in example["messages"]] == [f"turn {at} of 0" for at in range(4)]
    assert [message["role"] for message in example["messages"]] == ["user", "assistant"] * 2


def test_speakers_nobody_knows_are_no_conversation(tmp_path: Path) -> None:
    turns = [{"dialog_id": at // 2, "speaker": ("Ann", "Bob")[at % 2], "text": f"turn {at}"} for at in range(12)]
    dataset = written(tmp_path / "turns.jsonl", "".join(json.dumps(turn) + "\n" for turn in turns))
    assert dataset.faults and not dataset.splits


def test_fasttexts_marks_are_labels(tmp_path: Path) -> None:
    lines = [f"__label__{'good' if number % 2 else 'bad'} {text}" for number, text in enumerate(TEXTS)]
    dataset = written(tmp_path / "train.txt", "\n".join(lines))
    assert not dataset.faults and labels_of(dataset)[:2] == ["bad", "good"]
    assert dataset.splits["train"][0]["messages"][0]["content"].find("__label__") < 0
    lines[3] = "__label__good, __label__new " + TEXTS[3]
    dataset = written(tmp_path / "train.txt", "\n".join(lines))
    assert labels_of(dataset)[3] == ["good", "new"]
    dataset = written(tmp_path / "train.txt", "\n".join([*lines * 9, "no mark here"]))
    assert [fault.line for fault in dataset.faults] == [109]


def test_rows_are_added_to_what_was_gathered(tmp_path: Path) -> None:
    lines = [f"{text},{number % 2},{1 - number % 2}" for number, text in enumerate(TEXTS)]
    edits = tmp_path / "edits.jsonl"
    added = {"action": "add", "line": 20, "values": {"comment": "a row of my own", "label": "good"}}
    edits.write_text(json.dumps(added), encoding="utf-8")
    table = "\n".join(["comment,good,bad", *lines])
    dataset = written(tmp_path / "moods.csv", table, edits=str(edits))
    assert not dataset.faults and labels_of(dataset) == ["bad", "good"] * 6 + ["good"]
