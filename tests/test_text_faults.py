"""What is wrong with data, said in Chinese: every text of the hostile files, and the user's own values as they are."""

from __future__ import annotations

import re
import string

import pytest
from test_data_hostile import HOSTILE, SMALL

pytest.importorskip("gradio")

from sftdemo.data import read
from sftdemo.errors import DataError, Fault, Text
from sftdemo.ui.texts.faults import in_words
from sftdemo.ui.texts.zh_faults import PARTS, SENTENCES

HAN = re.compile("[\u4e00-\u9fff]")


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("pairs", [SENTENCES, *PARTS.values()], ids=["sentences", *PARTS])
def test_both_languages_have_the_same_values(pairs):
    assert not [english for english, chinese in pairs.items() if fields(english) != fields(chinese)]


@pytest.mark.parametrize(("name", "content"), [case[:2] for case in HOSTILE], ids=range(len(HOSTILE)))
@pytest.mark.parametrize("on_fault", ["stop", "drop", "fix"])
def test_all_that_hostile_files_give_is_said_in_chinese(tmp_path, name, content, on_fault):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = read(path, limits=SMALL, on_fault=on_fault)
    faults = [*dataset.faults, *dataset.warnings, *dataset.dropped, *dataset.fixed]
    texts = {text for fault in faults for text in (fault.problem, fault.remedy)} | set(dataset.notes)
    assert texts and not [
        text for text in texts if text == in_words(text, "zh") or not HAN.search(in_words(text, "zh"))
    ]
    assert all(text == in_words(text, "en") for text in texts)


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        # Notes on reading and cleaning, and one of mixed data.
        ("a.csv is read as GB18030.", "a.csv 按 GB18030 读取。"),
        ("3 rows at fault were left out; each is listed.", "3 行有问题，已略过并列出。"),
        ("me/set:a: 3 faults were repaired; each is listed.", "me/set:a：3 处错误已修复并列出。"),
        # Splits.
        (
            "validation_size is left aside: the data brings its own validation rows.",
            "数据自带验证集，“验证集大小”不起作用。",
        ),
        (
            "test has 5 rows, not 7: what belongs together stays together.",
            "测试集有 5 行，而不是 7 行：应在一起的行不会拆开。",
        ),
        ("2 groups stand both in train and in held-out rows.", "2 个组同时出现在训练集和留出数据中。"),
        ("No row is in train (2 in test, 1 in validation).", "训练集没有数据（测试集 2 行，验证集 1 行）。"),
        (
            "Of 9 rows, 5 for test and 4 for validation leave none for train.",
            "共 9 行，测试集 5 行、验证集 4 行之后训练集就没有数据了。",
        ),
        (
            "The 4 train rows make 2 that are independent of each other; test and validation can't be taken from them.",
            "4 行训练数据中只有 2 份互不相关，无法从中划出测试集和验证集。",
        ),
        # The chat template.
        ("The row begins with two BOS tokens (<s>).", "这一行以两个 BOS（<s>）开头。"),
        (
            "The model's chat template refuses this conversation: System role not supported.",
            "模型的对话模板不接受这段对话：System role not supported。",
        ),
        (
            "In chat the template ends the prompt with '<think>\\n', which it doesn't write before an answer in training; "
            "choose another model.",
            "对话时模板以 '<think>\\n' 结束提示，训练时却不写在回答之前；请换一个模型。",
        ),
        # Values that look like a pattern, a placeholder or one of our own sentences.
        ("The label '(.*){n}\\\\d+[' is only in test.", "标签 '(.*){n}\\\\d+[' 只出现在测试集中。"),
        ("'{0}{label}$&' is no split.", "'{0}{label}$&' 不是划分名称。"),
        ("['a', {'b': 1}] is no split.", "['a', {'b': 1}] 不是划分名称。"),
        (
            """The label "it's" is 'is "a" in another spelling (1 rows, and 2)' in another spelling (1 rows, and 2).""",
            """标签 "it's" 与 'is "a" in another spelling (1 rows, and 2)' 只是写法不同（分别有 1 行和 2 行）。""",
        ),
        (
            "The row has no such field; it has: 'a list', 'Give text.'.",
            "这一行没有该字段；现有：'a list', 'Give text.'。",
        ),
        ("The row has no such field; it has: .", "这一行没有该字段；现有：。"),
        ("The field is datetime, not text.", "字段是 datetime，不是文本。"),
        # What isn't known.
        ("Nobody has ever said this.", "Nobody has ever said this."),
        ("a: the file is empty.", "a: the file is empty."),
        ("", ""),
    ],
)
def test_notes_splits_templates_and_values(english, chinese):
    assert in_words(english, "zh") == chinese
    assert in_words(english, "en") == english


def test_a_text_is_said_in_chinese_with_all_its_parts():
    faults = [Fault(n, "label", Text("The field is empty."), Text("Give text."), "a.csv") for n in range(3)]
    assert in_words(DataError(faults, shown=2), "zh").splitlines() == [
        "a.csv，字段 'label'：字段是空的。请提供文本。",
        "a.csv 第 1 行，字段 'label'：字段是空的。请提供文本。",
        "……另有 1 处；运行 `python -m sftdemo check` 可全部列出。",
    ]
    assert in_words(DataError(faults), "en") == str(DataError(faults))
