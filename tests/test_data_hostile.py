"""Files as they really come: each read rightly or refused with the exact words, and never a traceback or a write."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import zipfile
from dataclasses import replace

import pytest

from sftdemo.data import read
from sftdemo.data.limits import OWNER

GOOD = {"prompt": "What is it?", "completion": "A fish."}
PAIR = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
LABELLED = [{"text": "好电影，值得看", "label": "正面"}, {"text": "浪费时间，很差", "label": "负面"}]


def lines(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


def chat(*turns: object) -> str:
    return lines({"messages": list(turns)})


def packed(**files: str | bytes) -> bytes:
    """A ZIP; in names _ stands for a point and __ for a slash."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return out.getvalue()


def locked() -> bytes:
    data = bytearray(packed(a_jsonl=lines(GOOD)))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


def arrow(rows: list[dict[str, object]], stream: bool) -> bytes:
    import pyarrow

    table, out = pyarrow.Table.from_pylist(rows), io.BytesIO()
    opened = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with opened(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def turn(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


FILL = "Fill it in, or remove the row."
CORRECT = "Correct the line, or remove it."
QUOTE = "Put a cell that holds the delimiter or a line break in double quotes."
UTF8 = "Save the file as UTF-8."
ROLES = "Use system, user, assistant or tool."
REPAIR = "Write it out rightly, or repair it with on_fault fix."

# (name, content, faults, warnings): what is said after the file's name, each by itself.
HOSTILE: list[tuple[str, str | bytes, list[str], list[str]]] = [
    # Nothing, or next to nothing.
    ("a.jsonl", b"", [": The file is empty. Give a file with rows."], []),
    ("a.jsonl", b"\n\n \t\r\n", [": The file is empty. Give a file with rows."], []),
    ("a.jsonl", b"\xff\xfe", [": The file is empty. Give a file with rows."], []),
    ("a.csv", b"\x00\x00\x00\x00", [": The file is empty. Give a file with rows."], []),
    ("a.json", "[]", [": The file has no rows. Give a file with rows."], []),
    ("a.json", '{"data": []}', [": The file has no rows. Give a file with rows."], []),
    ("a.tsv", "prompt\tcompletion\n", [": The file has no rows. Give a file with rows."], []),
    ("a.parquet", b"PAR1", [": This isn't a Parquet file that can be read: Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes). Write it anew."], []),
    # Broken JSON.
    ("a.jsonl", lines("{'prompt': 'a'", GOOD), [f", line 1: This isn't JSON: Expecting property name enclosed in double quotes at character 2. {CORRECT}"], []),
    ("a.jsonl", lines('{"prompt": "a" "completion": "b"}', GOOD), [f", line 1: This isn't JSON: Expecting ',' delimiter at character 16. {CORRECT}"], []),
    ("a.jsonl", lines(GOOD, '{"prompt": "a\tb", "completion": }'), [f", line 2: This isn't JSON: Invalid control character at at character 14. {CORRECT}"], []),
    ("a.jsonl", lines(GOOD, '{"prompt": "a", "compl'), [f", line 2: This isn't JSON: Unterminated string starting at at character 17. {CORRECT}"], []),
    ("a.jsonl", lines(GOOD, '{"prompt": "a"} {"prompt": "b"} x'), [f", line 2: This isn't JSON: Extra data at character 17. {CORRECT}"], []),
    ("a.jsonl", lines(GOOD, "{" * 5000), [f", line 2: This isn't JSON: Expecting property name enclosed in double quotes at character 2. {CORRECT}"], []),
    ("a.jsonl", lines(GOOD, "[" * 50_000), [f", line 2: This isn't JSON: it is nested too deeply. {CORRECT}"], []),
    ("a.jsonl", lines(GOOD, '{"prompt": ' + "9" * 5000 + "}"), [f", line 2: This isn't JSON: a number in it has too many digits. {CORRECT}"], []),
    ("a.jsonl", lines(GOOD, '"just text"'), [', line 2: The row is text, not an object. Write it as {"column": value, …}.'], []),
    ("a.jsonl", lines(GOOD, "null"), [', line 2: The row is null, not an object. Write it as {"column": value, …}.'], []),
    ("a.jsonl", lines(GOOD, '{"prompt": "\\udc00", "completion": "b"}'), [", line 2: The row holds half a character (a lone \\ud8…). Write the character out, or remove it."], []),
    ("a.json", '[{"prompt": "a", "completion": "b"}', [", line 1: This isn't JSON: Expecting ',' or ']' at character 36. Correct it; what follows could not be read."], []),
    ("a.json", '["a", "b"]', [', line 1: The row is a list, not an object. Write it as {"column": value, …}.'], []),
    ("a.json", "<html>no</html>", [": The file is a web page (HTML), not data. Download the file itself."], []),
    # Broken tables.
    ("a.csv", 'prompt,completion\na,"b\nc,d\n', [", line 2: A quote that opens here is never closed; lines 2 to 3 could not be read. Close it."], []),
    ("a.csv", "prompt,completion\na,b\nc,d,e\nf\n", [f", line 3: The row has 3 cells, the header 2. {QUOTE}", f", line 4: The row has 1 cell, the header 2. {QUOTE}"], []),
    ("a.csv", "prompt,prompt\na,b\n", [", line 1: The header has 'prompt' twice. Rename one of them."], []),
    ("a.csv", 'prompt,completion\na,"b"c\n', [", line 2: The cells can't be told apart: ',' expected after '\"'. Double each quote that stands inside a cell."], []),
    ("a.csv", "prompt,completion\n,\n", [": The file has no rows. Give a file with rows."], []),
    # Codes other than UTF-8.
    ("a.jsonl", b"\xff\xfe" + lines(GOOD).encode("utf-16-le")[:-1], [": The file can't be read as UTF-16 at byte 103: truncated data. Save the file as UTF-8."], []),
    # Files that are something else, or packed.
    ("a.xlsx", b"PK\x03\x04", [": This isn't a workbook that can be read: File is not a zip file. Save it anew, or its rows as .csv."], []),
    ("a.jsonl.bz2", bz2.compress(b"x"), [": Files that end in '.bz2' can't be read. Give one of: .jsonl, .ndjson, .json, .csv, .tsv, .txt, .conll, .iob, .bio, .xlsx, .xlsm, .parquet, .arrow, .feather, .zip, .gz."], []),
    ("a.zip", b"no zip at all", [": This isn't a ZIP that can be read. Pack it anew."], []),
    ("a.zip", packed(), [": No data file is in the ZIP; it holds nothing. Pack one of: .jsonl, .ndjson, .json, .csv, .tsv, .txt, .conll, .iob, .bio, .xlsx, .xlsm, .parquet, .arrow, .feather."], []),
    ("a.zip", packed(photo_png=b"x", inner_zip=packed()), [": No data file is in the ZIP; it holds 'photo.png', 'inner.zip'. Pack one of: .jsonl, .ndjson, .json, .csv, .tsv, .txt, .conll, .iob, .bio, .xlsx, .xlsm, .parquet, .arrow, .feather."], []),
    ("a.zip", packed(x_jsonl=lines(GOOD), y_jsonl=lines(GOOD)), [": The ZIP holds 2 data files (x.jsonl, y.jsonl). Name them train, validation and test, or pack one."], []),
    ("a.zip", locked(), [": The ZIP is locked with a password. Pack it without one."], []),
    ("a.zip", packed(bomb_jsonl=b" " * 3_000_000), [": Unpacked the file has more than 2.0 MB, which is the most. Give a part of it."], []),
    ("a.jsonl.gz", gzip.compress(b" " * 3_000_000), [": Unpacked the file has more than 2.0 MB, which is the most. Give a part of it."], []),
    ("a.jsonl.gz", b"no gzip", [": 'a.jsonl' can't be unpacked: Not a gzipped file (b'no'). Pack it anew."], []),
    ("a.jsonl.gz", gzip.compress(lines(GOOD).encode())[:-9], [": 'a.jsonl' can't be unpacked: Compressed file ended before the end-of-stream marker was reached. Pack it anew."], []),
    ("a.arrow", b"ARROW1 but not really", [": This isn't an Arrow file that can be read: it is neither a file nor a stream of Arrow. Write it anew."], []),
    # Rows without what they need.
    ("a.jsonl", lines(GOOD, {"prompt": "a"}), [", line 2, field 'completion': The row has no such field; it has: 'prompt'. Add it, or remove the row."], []),
    ("a.jsonl", lines(GOOD, {"prompt": "a", "completion": None}), [f", line 2, field 'completion': The field is missing. {FILL}"], []),
    ("a.jsonl", lines(GOOD, {"prompt": "a", "completion": "\u3000\u00a0"}), [f", line 2, field 'completion': The field is empty. {FILL}"], []),
    ("a.jsonl", lines(GOOD, {"prompt": {"a": 1}, "completion": "b"}), [", line 2, field 'prompt': The field is an object, not text. Give text."], []),
    ("a.jsonl", lines(GOOD, {"prompt": True, "completion": "b"}), [", line 2, field 'prompt': The field is true or false, not text. Put it in quotes."], []),
    ("a.jsonl", lines({"text": "a", "label": float("nan")}), [", line 1, field 'label': The field is a number, not text. Put it in quotes."], []),
    ("a.jsonl", lines({"instruction": "a", "output": "b", "history": [["q"]]}), [", line 1, field 'history': The history is no list of question and answer. Write [[\"…\", \"…\"], …]."], []),
    ("a.jsonl", lines({"chosen": "b", "rejected": "c"}), [", line 1, field 'chosen': The chosen text has no prompt. Add a column prompt, or give a list of turns."], []),
    # Conversations.
    ("a.jsonl", chat(), [', line 1, field \'messages\': The field is no list of turns. Write [{"role": "user", "content": "…"}, …].'], []),
    ("a.jsonl", lines({"messages": "hello"}), [', line 1, field \'messages\': The field is no list of turns. Write [{"role": "user", "content": "…"}, …].'], []),
    ("a.jsonl", chat(*PAIR, turn("narrator", "x")), [f", line 1, field 'messages': Turn 3 has the unknown role 'narrator'. {ROLES}"], []),
    ("a.jsonl", chat(turn("user", "x"), turn("assistant", None, tool_calls=[{"id": "1"}]), turn("tool", "4")), [", line 1, field 'messages': Turn 2 has a tool call without a name. Write {\"name\": \"…\", \"arguments\": {…}}."], []),
    ("a.jsonl", chat(turn("user", "x"), turn("tool", "4"), turn("assistant", "4")), [", line 1, field 'messages': Turn 2 is a tool's answer, and the assistant didn't ask for it. Add the assistant's call before it, or remove the row."], []),
    ("a.jsonl", chat(turn("user", "x"), turn("assistant", None)), [", line 1, field 'messages': Turn 2 has no content. Give it text."], []),
    ("a.jsonl", chat(turn("user", [{"type": "image_url"}]), turn("assistant", "a")), [", line 1, field 'messages': Turn 1 holds an image, which can't be trained on. Say it in words, or remove the row."], []),
    ("a.jsonl", chat(turn("user", "x"), turn("user", "y"), turn("assistant", "z")), [", line 1, field 'messages': Turns 1 and 2 are both the user's. Join them, or add the turn between."], []),
    ("a.jsonl", chat(turn("system", "s"), turn("user", "x")), [", line 1, field 'messages': There is no assistant turn. Add the answer, or remove the row."], []),
    ("a.jsonl", chat(*PAIR, turn("user", "bye")), [", line 1, field 'messages': The last turn is not the assistant's. Add the answer, or remove that turn."], []),
    ("a.jsonl", chat(PAIR[0], turn("system", "s"), PAIR[1]), [", line 1, field 'messages': Turn 2 is a system turn. Only the first turn may be one."], []),
    ("a.jsonl", lines({"conversations": [{"from": "gpt", "value": "x"}]}), [", line 1, field 'conversations': There is no user turn. Add the question, or remove the row."], []),
    # Labels and splits.
    ("a.jsonl", lines(*({**row, "split": "train"} for row in LABELLED), {"text": "c", "label": "中性", "split": "test"}), [", line 3, field 'label': The label '中性' is only in test. Add rows with it to train, or take it out."], []),
    ("a.jsonl", lines({**GOOD, "split": "holdout"}), [", line 1, field 'split': 'holdout' is no split. Use train, validation or test."], []),
    # What only deserves a warning.
    ("a.jsonl", lines({"text": "x", "label": "good"}, {"text": "y", "label": "good"}, {"text": "z", "label": "Good!"}), [], [", line 3, field 'label': The label 'Good!' is 'good' in another spelling (1 row, and 2). Spell them alike."]),
    ("a.jsonl", lines({"prompt": "same", "completion": " same"}), [], [", line 1, field 'completion': The answer is the same as the question. Check that the columns are the right ones."]),
    ("a.jsonl", chat(turn("user", "same"), turn("assistant", "same")), [], [", line 1, field 'messages': The answer is the same as the question. Check that the columns are the right ones."]),
    ("a.jsonl", lines({"prompt": "bell\u0007", "completion": "b"}), [], [f", line 1, field 'prompt': The field holds the control character U+0007. {REPAIR}"]),
    ("a.jsonl", lines({"prompt": "it\u00e2\u20ac\u2122s", "completion": "b"}), [], [f", line 1, field 'prompt': The field is wrongly decoded: 'â€™s' should be '’s'. {REPAIR}"]),
    ("a.jsonl", lines({"prompt": "caf\ufffd", "completion": "b"}), [], [", line 1, field 'prompt': The field holds U+FFFD, the sign for a lost character. Write it out rightly."]),
    ("a.jsonl", chat(turn("user", "a\u0000"), turn("assistant", "b")), [], [f", line 1, field 'messages': Turn 1 holds the control character U+0000. {REPAIR}"]),
    ("a.jsonl", lines({"text": "x y", "label": "a"}, {"text": "X, y!", "label": "b"}), [], [", line 2, field 'label': Line 1 asks the same and has the label 'a'. Give both the right one, or remove one."]),
    ("a.jsonl", lines({"prompt": "a", "chosen": "b", "rejected": "b"}), [], [", line 1, field 'chosen': The chosen answer is the same as the rejected one. Check that the row is right."]),
]  # fmt: skip

SMALL = replace(OWNER, file_bytes=2_000_000, unpacked_bytes=2_000_000)


@pytest.mark.parametrize(("name", "content", "faults", "warnings"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files(tmp_path, name, content, faults, warnings):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = read(path, limits=SMALL)
    found = [
        [str(one).split(name.removesuffix(".gz"), 1)[1].removeprefix(".gz") for one in told]
        for told in (dataset.faults, dataset.warnings)
    ]
    assert found == [faults, warnings]
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_there_are_sixty():
    assert len(HOSTILE) >= 60


PROMPTS = [GOOD, {"prompt": "Where?", "completion": "There, at the river."}]
TABLE = 'prompt{0}completion\nWhat is it?{0}A fish.\nWhere?{0}"There, at the river."\n'
READABLE: list[tuple[str, str | bytes]] = [
    *((f"a.{suffix}", TABLE.format(mark)) for suffix in ("csv", "tsv", "txt") for mark in ("\t", ";", "|", "^")),
    ("a.csv", TABLE.format(",")),
    ("a.csv", "sep=;\r\n" + TABLE.format(";").replace("\n", "\r\n")),
    ("a.csv", TABLE.format(",").encode("utf-8-sig")),
    ("a.csv", TABLE.format(";").encode("utf-16")),
    ("a.csv", b"\xfe\xff" + TABLE.format(",").encode("utf-16-be")),
    ("a.csv", TABLE.format(",").encode("utf-16-le")),
    ("a.jsonl", lines(*PROMPTS).encode("utf-16-be")),
    ("a.json", json.dumps({"version": 1, "data": PROMPTS}).encode("utf-8-sig")),
    ("a.jsonl", lines(*PROMPTS).replace("\n", "\r\n")),
    ("a.jsonl.gz", gzip.compress(lines(*PROMPTS).encode())),
    ("a.zip", packed(__MACOSX___a_jsonl=b"\x00", folder__a_jsonl=lines(*PROMPTS))),
    ("a.zip", packed(data__train_csv=TABLE.format(","))),
    ("a.arrow", arrow(PROMPTS, stream=True)),
    ("a.arrow", arrow(PROMPTS, stream=False)),
    ("a.feather", arrow(PROMPTS, stream=False)),
    ("a.jsonl", lines(*({"question": row["prompt"], "answers": [row["completion"], "?"]} for row in PROMPTS))),
    ("a.jsonl", lines(*({"prompt": [turn("user", row["prompt"])], "completion": [turn("assistant", row["completion"])]} for row in PROMPTS))),
    ("a.jsonl", lines(*({"prompt": row["prompt"], "chosen": row["completion"], "rejected": "No."} for row in PROMPTS))),
    ("a.jsonl", lines(*({"prompt": [turn("user", row["prompt"])], "chosen": [turn("assistant", row["completion"])], "rejected": []} for row in PROMPTS))),
    ("a.jsonl", lines(*({"prompt": "p", "chosen": [turn("user", row["prompt"]), turn("assistant", row["completion"])], "rejected": []} for row in PROMPTS))),
    ("a.jsonl", lines(*({"chosen": f"\n\nHuman: {row['prompt']}\n\nAssistant: {row['completion']}", "rejected": "x"} for row in PROMPTS))),
    ("a.jsonl", lines(*({"messages": [turn("user", [{"type": "text", "text": row["prompt"]}]), turn("assistant", row["completion"])]} for row in PROMPTS))),
    ("a.jsonl", lines(*({"instruction": row["prompt"], "input": "", "output": row["completion"], "history": []} for row in PROMPTS))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), READABLE, ids=range(len(READABLE)))
def test_friendly_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = read(path)
    assert (dataset.faults, dataset.warnings) == ([], [])
    said = [[message["content"] for message in row["messages"]] for row in dataset.splits["train"]]
    assert said == [[row["prompt"], row["completion"]] for row in PROMPTS]


def test_chinese_in_its_old_code_is_read_and_said(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", encoding="gb18030", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(LABELLED)
    dataset = read(path)
    assert dataset.labels == {"正面": 1, "负面": 1} and dataset.faults == []
    (note,) = dataset.notes
    assert note.startswith("a.csv isn't UTF-8; it is read as gb18030, in which it says '好电影，值得看,正面'.")
    assert dataset.splits["train"][0]["messages"][0]["content"].endswith("好电影，值得看")


def test_a_zip_with_splits(tmp_path):
    (tmp_path / "a.zip").write_bytes(packed(train_jsonl=lines(GOOD, PROMPTS[1]), test_jsonl=lines(GOOD)))
    dataset = read(tmp_path / "a.zip")
    assert {name: len(rows) for name, rows in dataset.splits.items()} == {"train": 2, "test": 1}
    assert dataset.splits["test"][0]["meta"] == {"line": 1, "file": "test.jsonl"} and dataset.leaked == 1


def test_preference_pairs_say_which_side_is_learned(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"prompt": "a", "chosen": "b", "rejected": "c"}))
    dataset = read(tmp_path / "a.jsonl")
    assert dataset.notes == ["Preference pairs: the chosen answer is learned, the rejected one is left aside."]
    assert dataset.format == "preference"


def test_system_prompts_and_history_of_a_row(tmp_path):
    row = {"instruction": "And now?", "output": "c", "history": [["First?", "b"]], "system": "Be kind."}
    (tmp_path / "a.jsonl").write_text(lines(row, {**row, "system": None}))
    first, second = read(tmp_path / "a.jsonl", system="Be short.").splits["train"]
    assert [message["content"] for message in first["messages"]] == ["Be kind.", "First?", "b", "And now?", "c"]
    assert second["messages"][0]["content"] == "Be short."


def test_a_file_over_the_limit_is_not_even_opened(tmp_path):
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(4_200_000_000)  # sparse: it takes no room on disk
    (fault,) = read(path).faults
    assert fault.problem == "The file has 4.2 GB; the most is 4.0 GB."
