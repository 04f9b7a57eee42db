"""Every fault of a row is told with its line, field and remedy."""

from __future__ import annotations

import pytest

from tests.test_data_read import PAIRS, TURNS, lines, load  # noqa: F401

FAULTS: list[tuple[str, str | bytes, list[str]]] = [
    ("a.jsonl", b"", ["a.jsonl: The file is empty. Give a file with rows."]),
    ("a.csv", b"\xef\xbb\xbf \n", ["a.csv: The file is empty. Give a file with rows."]),
    ("a.json", "[ ]", ["a.json: The file has no rows. Give a file with rows."]),
    ("a.csv", "text,label\n", ["a.csv: The file has no rows. Give a file with rows."]),
    (
        "a.docx",
        "text",
        [
            "a.docx: Files that end in '.docx' can't be read. "
            "Give one of: .jsonl, .ndjson, .json, .csv, .tsv, .txt, .conll, .iob, .bio, .xlsx, .xlsm, .parquet, .arrow, .feather, .zip, .gz."
        ],
    ),
    (
        "a.jsonl",
        lines({"x": 1, "y": 2}),
        [
            "a.jsonl: No known layout has these columns: 'x', 'y'. Name them with columns, as text=tweet,label=mood; "
            "the layouts are: preference (chosen, rejected), messages (messages), sharegpt (conversations), "
            "instruction (instruction, output), prompt_completion (prompt, completion), summary (document, summary), "
            "text_label (text, label), source_target (source, target), extraction (text, entities)."
        ],
    ),
    (
        "a.jsonl",
        lines(*PAIRS, {"prompt": "a", "completion": "b"}, {"text": "a", "lable": "b"}),
        [
            "a.jsonl, line 3: The row is laid out as prompt_completion, most rows as text_label. "
            "Give every row one layout.",
            "a.jsonl, line 4, field 'label': The row has no such field; it has: 'text', 'lable'. "
            "Add it, or remove the row.",
        ],
    ),
    (
        "a.jsonl",
        lines({"prompt": " ", "completion": 4}, {"prompt": None, "completion": [5]}, {"prompt": "a", "completion": ""}),
        [
            "a.jsonl, line 1, field 'prompt': The field is empty. Fill it in, or remove the row.",
            "a.jsonl, line 2, field 'prompt': The field is missing. Fill it in, or remove the row.",
            "a.jsonl, line 3, field 'completion': The field is empty. Fill it in, or remove the row.",
        ],
    ),
    (
        "a.jsonl",
        lines(
            {"messages": [{"role": "clown", "content": "x"}, {"role": "user"}, "hm", {"content": 5}]},
            {"messages": []},
            {"messages": [TURNS[0], TURNS[0], TURNS[1]]},
            {"messages": [TURNS[0]]},
            {"messages": [*TURNS, TURNS[0]]},
            {"messages": [TURNS[1], {"role": "system", "content": "s"}, TURNS[1]]},
            {"messages": [TURNS[0], {"role": "assistant", "content": ""}]},
        ),
        [
            "a.jsonl, line 1, field 'messages': Turn 1 has the unknown role 'clown'. Use system, user, assistant or tool.",
            "a.jsonl, line 1, field 'messages': Turn 2 has no content. Give it text.",
            "a.jsonl, line 1, field 'messages': Turn 3 is text, not an object. Give it a role and content.",
            "a.jsonl, line 1, field 'messages': Turn 4 has no role. Use system, user, assistant or tool.",
            "a.jsonl, line 1, field 'messages': Turn 4 has a number for content, not text. Give it text.",
            "a.jsonl, line 2, field 'messages': The field is no list of turns. "
            'Write [{"role": "user", "content": "…"}, …].',
            "a.jsonl, line 3, field 'messages': Turns 1 and 2 are both the user's. Join them, or add the turn between.",
            "a.jsonl, line 4, field 'messages': There is no assistant turn. Add the answer, or remove the row.",
            "a.jsonl, line 5, field 'messages': The last turn is not the assistant's. "
            "Add the answer, or remove that turn.",
            "a.jsonl, line 6, field 'messages': Turn 2 is a system turn. Only the first turn may be one.",
            "a.jsonl, line 6, field 'messages': There is no user turn. Add the question, or remove the row.",
            "a.jsonl, line 7, field 'messages': Turn 2 is empty. Fill it in, or remove the row.",
        ],
    ),
    (
        "a.jsonl",
        lines({**PAIRS[0], "split": "train"}, {**PAIRS[1], "split": "test"}, {**PAIRS[1], "split": "test"}),
        ["a.jsonl, line 2, field 'label': The label 'bad' is only in test. Add rows with it to train, or take it out."],
    ),
    (
        "a.jsonl",
        lines({**PAIRS[0], "split": "test"}, {**PAIRS[1], "split": "val"}),
        [
            "a.jsonl, field 'split': No row is in train (1 in test, 1 in validation). "
            "Give train rows, or leave the split column out."
        ],
    ),
    (
        "a.jsonl",
        lines({**PAIRS[0], "split": "holdout"}, {**PAIRS[0], "split": "train"}, {**PAIRS[0], "split": None}),
        [
            "a.jsonl, line 1, field 'split': 'holdout' is no split. Use train, validation or test.",
            "a.jsonl, line 3, field 'split': The row has no split. Use train, validation or test.",
        ],
    ),
    (
        "a.jsonl",
        lines({"prompt": "a", "completion": "b", "references": ["c", 1]}),
        ["a.jsonl, line 1, field 'references': The references are no list of texts. Write [\"…\", \"…\"]."],
    ),
    (
        "a.jsonl",
        lines('{"text": "a", ', [1], PAIRS[0], '{"text": "\\ud83d", "label": "x"}', "7"),
        [
            "a.jsonl, line 1: This isn't JSON: Expecting property name enclosed in double quotes at character 15. "
            "Correct the line, or remove it.",
            'a.jsonl, line 2: The row is a list, not an object. Write it as {"column": value, …}.',
            "a.jsonl, line 4: The row holds half a character (a lone \\ud8…). Write the character out, or remove it.",
            'a.jsonl, line 5: The row is a number, not an object. Write it as {"column": value, …}.',
        ],
    ),
    (
        "a.jsonl",
        lines(PAIRS[0]) + "[" * 100_000 + "\n",
        ["a.jsonl, line 2: This isn't JSON: it is nested too deeply. Correct the line, or remove it."],
    ),
    (
        "a.json",
        '[{"text": "a", "label": "b"},\n {"text": "a" "label": "b"}]',
        [
            "a.json, line 2: This isn't JSON: Expecting ',' delimiter at character 15. "
            "Correct it; what follows could not be read."
        ],
    ),
    (
        "a.jsonl",
        lines(*PAIRS).encode() + '{"text": "é", "label": "good"}\n'.encode("latin-1"),
        [
            "a.jsonl: The text isn't UTF-8; it may be cp1252 (Western European, Latin-1): '\"é\", \"label\": \"good\"}', "
            "or cp1251 (Cyrillic, Windows): '\"й\", \"label\": \"good\"}'. "
            "Say which with --encoding cp1252 or --encoding cp1251."
        ],
    ),
    (
        "a.csv",
        "text,label\na,x\né,y\n\xff,z\n".encode("latin-1"),
        [
            "a.csv: The text isn't UTF-8; it may be cp1251 (Cyrillic, Windows): 'й,y', "
            "or cp1252 (Western European, Latin-1): 'é,y'. Say which with --encoding cp1251 or --encoding cp1252."
        ],
    ),
    (
        "a.csv",
        "text,label\nça,x\né,y\n".encode() + b"gar\xe7on,z\n",
        ["a.csv, line 4: Byte 4 of the line, 0xe7, isn't UTF-8. Save the file as UTF-8."],
    ),
    (
        "a.csv",
        'text,label\na,b,c\nd,e\n"f"g,h\ni,"j\nk,l\n',
        [
            "a.csv, line 2: The row has 3 cells, the header 2. "
            "Put a cell that holds the delimiter or a line break in double quotes.",
            "a.csv, line 4: The cells can't be told apart: ',' expected after '\"'. "
            "Double each quote that stands inside a cell.",
            "a.csv, line 5: A quote that opens here is never closed; lines 5 to 6 could not be read. Close it.",
        ],
    ),
    (
        "a.csv",
        "text,label,text\na,b,c\n",
        ["a.csv, line 1: The header has 'text' twice. Rename one of them."],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "messages"), FAULTS, ids=range(len(FAULTS)))
def test_faults(load, tmp_path, name, content, messages):  # noqa: F811
    dataset = load(content, name)
    assert [str(fault) for fault in dataset.faults] == messages
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_rows_without_fault_are_kept(load):  # noqa: F811
    dataset = load(lines(PAIRS[0], "{", PAIRS[1]))
    assert (dataset.examples, len(dataset.faults)) == (2, 1)
