"""Faults and notes in Chinese: every template of the code has one, with the same values, and nothing is made of f-strings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
from test_data_hostile import HOSTILE, SMALL

pytest.importorskip("gradio")

import sftdemo
from sftdemo.data import read
from sftdemo.errors import DataError, Fault, Text, UserError
from sftdemo.ui.texts import OWNERS, en_faults, faults, say
from sftdemo.ui.texts.choices import CHOICES
from sftdemo.ui.texts.faults import TEMPLATES, TRANSLATIONS, as_form, in_words

HAN = re.compile("[\u4e00-\u9fff]")
MAKERS = {"Text", "UserError", "UsageError", "TemplateError", "BusyError"}
FRAMES = {"{first} {rest}", "{first}\n{rest}", "{first} and {rest}"}  # what `sentences` puts between texts
# Templates of words and places alone, which are the same in both languages.
SAME = re.compile(r"[\s{}a-z!:]*")


def name_of(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def constants(node: ast.expr | None) -> list[str]:
    """The text that an expression is, or the two that it chooses from."""
    options = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return [option.value for option in options if isinstance(option, ast.Constant) and isinstance(option.value, str)]


def is_maker(call: ast.Call) -> bool:
    """Whether a call makes a text for the user: one of MAKERS, or the constructor of an exception made of them."""
    inherits = name_of(call.func) == "__init__" and bool(call.args) and bool(call.keywords)
    return name_of(call.func) in MAKERS or (inherits and isinstance(call.args[0], ast.Constant | ast.Name))


@cache
def calls() -> list[tuple[str, ast.Call, list[str]]]:
    """Every call in the package that makes a text for the user: its place, and its templates where they can be told."""
    return list(_calls())


def _calls() -> Iterator[tuple[str, ast.Call, list[str]]]:
    for path in sorted(Path(sftdemo.__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not any(f"{maker}(" in text for maker in (*MAKERS, "__init__")):
            continue
        nodes = list(ast.walk(ast.parse(text)))
        texts: dict[str, list[str]] = {}
        for node in nodes:
            if isinstance(node, ast.Assign):
                texts.setdefault(name_of(node.targets[0]), []).extend(constants(node.value))
        for node in nodes:
            if isinstance(node, ast.Call) and is_maker(node):
                template = node.args[0] if node.args else None
                known = constants(template)
                if isinstance(template, ast.Name) and node.keywords:
                    known = [text for text in texts.get(template.id, []) if values(text)]
                yield f"{path.name}:{node.lineno}", node, known


def values(template: str) -> set[str]:
    return set(re.findall(r"{(\w+)(?:![rsa])?(?::[^{}]*)?}", template.replace("{{", "").replace("}}", "")))


@pytest.fixture(scope="module")
def templates() -> set[str]:
    return {template for *_, templates in calls() for template in templates} - {""}


def test_every_template_is_said_in_chinese_and_none_is_stale(templates):
    assert len(templates) > 300
    assert sorted(templates - set(faults.TEMPLATES)) == []
    assert sorted(set(faults.TEMPLATES) - templates - FRAMES) == []
    assert len(faults.TEMPLATES) == sum(map(len, faults.TABLES))  # each once


def test_both_languages_have_the_same_values(templates):
    # What the page says by its own fields needs no names of flags and layouts.
    odd = {english for english, chinese in faults.TEMPLATES.items() if values(english) != values(chinese)}
    assert odd - set(en_faults.PAGE) == set()
    assert set(en_faults.PAGE) <= templates and not [text for text in en_faults.PAGE.values() if "--" in text]
    assert all(values(text) <= values(english) for english, text in en_faults.PAGE.items())
    without_han = {english for english, chinese in faults.TEMPLATES.items() if not HAN.search(chinese)}
    assert {english for english in without_han if not SAME.fullmatch(english) and len(english) > 20} == set()


def test_each_text_is_a_template_with_its_values_and_never_made_of_other_text():
    def is_wrong(call: ast.Call, templates: list[str]) -> bool:
        named = {keyword.arg for keyword in call.keywords if keyword.arg} - {"check"}
        if isinstance(call.args[0], ast.JoinedStr | ast.BinOp):
            return True
        if isinstance(call.args[0], ast.Call) and name_of(call.args[0].func) in ("format", "join", "say"):
            return True
        if named and templates:
            return not any(values(template) == named for template in templates)
        # Where a template stands must be told, or nobody could prove that it has a Chinese text.
        return bool(named) and name_of(call.func) != "Text"

    assert [place for place, call, templates in calls() if is_wrong(call, templates)] == []


@pytest.mark.parametrize("on_fault", ["stop", "drop", "fix"])
def test_all_that_hostile_files_give_is_said_in_chinese(tmp_path, on_fault):
    for number, (name, content, *_) in enumerate(HOSTILE):
        path = tmp_path / f"{number}" / name
        path.parent.mkdir()
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        dataset = read(path, limits=SMALL, on_fault=on_fault)
        found = [*dataset.faults, *dataset.warnings, *dataset.dropped, *dataset.fixed]
        texts = {text for fault in found for text in (fault.problem, fault.remedy)} | set(dataset.notes)
        assert texts and not [text for text in texts if not HAN.search(in_words(text, "zh"))], number
        assert all(text == in_words(text, "en") for text in texts if text.key not in en_faults.PAGE), number
        assert not [text for text in texts if " --" in in_words(text, "en") or " --" in in_words(text, "zh")], number


FIELD = "The row has no such field; it has: {names}."


@pytest.mark.parametrize(
    ("text", "english", "chinese"),
    [
        (
            Text(
                "{source}: {note}",
                source="me/set:a",
                note=Text("{n} groups stand both in train and in held-out rows.", n=3),
            ),
            "me/set:a: 3 groups stand both in train and in held-out rows.",
            "me/set:a：3 个组同时出现在训练集和留出数据中。",
        ),
        (
            Text("{split} has {n} rows, not {m}: what belongs together stays together.", split=Text("test"), n=5, m=7),
            "test has 5 rows, not 7: what belongs together stays together.",
            "测试集有 5 行，而不是 7 行：应在一起的行不会拆开。",
        ),
        (
            Text(
                "This isn't JSON: {reason}.", reason=Text("{problem} at character {n}", problem=Text("Extra data"), n=3)
            ),
            "This isn't JSON: Extra data at character 3.",
            "这不是正确的 JSON：第 3 个字符处有多余的内容。",
        ),
        # Values that look like a template, a placeholder or one of our own sentences stay as they are.
        (Text("{value!r} is no split.", value="{0}{x}"), "'{0}{x}' is no split.", "'{0}{x}' 不是划分名称。"),
        (
            Text("{value!r} is no split.", value=["a", {"b": 1}]),
            "['a', {'b': 1}] is no split.",
            "['a', {'b': 1}] 不是划分名称。",
        ),
        (
            Text(FIELD, names=["'a list'", "'Give text.'"]),
            "The row has no such field; it has: 'a list', 'Give text.'.",
            "这一行没有该字段；现有：'a list'、'Give text.'。",
        ),
        (Text(FIELD, names=[]), "The row has no such field; it has: .", "这一行没有该字段；现有：。"),
        (
            Text("The field is {kind}, not text.", kind=Text("{type}", type="datetime")),
            "The field is datetime, not text.",
            "字段是 datetime，不是文本。",
        ),
        # What isn't known.
        (Text("Nobody has ever said {this}.", this="a"), "Nobody has ever said a.", "Nobody has ever said a."),
        ("a: the file is empty.", "a: the file is empty.", "a: the file is empty."),
        ("", "", ""),
    ],
)
def test_texts_with_parts_and_values(text, english, chinese):
    assert in_words(text, "en") == text == english
    assert in_words(text, "zh") == chinese


def test_the_page_calls_a_setting_as_its_form_does():
    text = Text("{name} is {value!r}; the most is {high:.12g}.", name=Text("learning_rate"), value=2, high=1)
    assert text == "learning_rate is 2; the most is 1."
    assert in_words(text, "en") == "“Learning rate” is 2; the most is 1."
    assert in_words(text, "zh") == "“学习率”的值是 2，不能大于 1。"


@pytest.mark.parametrize(
    ("template", "one", "two"),
    [
        (
            "{n} rows at fault were left out; each is listed.",
            "1 row at fault was left out",
            "2 rows at fault were left",
        ),
        ("{n} conversations open with the assistant: …", "1 conversation opens with", "2 conversations open with"),
        ("{n} entities in {rows} rows", "1 entity in 3 rows", "2 entities in 3 rows"),
        ("In {split}: {n} texts are long", "In 1: 1 text is long", "In 1: 2 texts are long"),
        ("line {n} of the edits", "line 1 of the edits", "line 2 of the edits"),
        ("Turns as {n} runs", "Turns as 1 run", "Turns as 2 runs"),
    ],
)
def test_one_of_something_is_in_the_singular(template, one, two):
    assert str(Text(template, n=1, rows=3, split="1")).startswith(one)
    assert str(Text(template, n=2, rows=3, split="1")).startswith(two)


def test_the_page_counts_one_row_in_the_singular():
    assert say("en", "verdict_labels", n="1", k=1) == "1 row, 1 label"
    assert say("en", "few_rows", n="1", few=30).startswith(
        "1 test row is too few to show whether training helped; 30 are"
    )
    assert say("en", "long_drop", over="1", max_length="64", dropped="1") == "1 row is over 64 tokens: 1 is left out."
    assert say("en", "rows_n", n="11") == "11 rows"
    repaired = Text("{n} faults were repaired; each is listed.", n=1)
    assert in_words(repaired, "en") == "1 problem was repaired; each is listed."
    assert say("zh", "rows_n", n="1") == "1 行"


def test_a_text_is_said_in_chinese_with_all_its_parts():
    found = [Fault(n, "label", Text("The field is empty."), Text("Give text."), "a.csv") for n in range(3)]
    assert in_words(DataError(found, shown=2), "zh").splitlines() == [
        "a.csv，字段 'label'：字段是空的。请提供文本。",
        "a.csv 第 1 行，字段 'label'：字段是空的。请提供文本。",
        "……另有 1 处；“数据”页会全部列出。",
    ]
    assert in_words(DataError(found, shown=2), "en").endswith("… and 1 more; Data lists them all.")
    assert in_words(DataError(found), "en") == str(DataError(found))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_template_that_is_none_of_ours_is_its_text(lang):
    """One in a run's status.json may ask for any width."""
    said = Text.from_json({"text": "It failed.", "key": "{x:>99999999}", "values": {"x": "a"}})
    assert in_words(said, lang) == "It failed."


def test_an_error_in_one_of_several_sources_names_it_in_chinese(tmp_path):
    with pytest.raises(UserError) as error:
        read(f"support_tickets + {tmp_path}/none.csv")
    assert in_words(error.value, "zh").startswith(f"{tmp_path}/none.csv 中：没有文件、文件夹或样例")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_template_shows_the_key_of_a_setting(lang):
    keys = {spec.name for owner in OWNERS for spec in fields(owner) if "_" in spec.name} | {"pissa", "dora", "rslora"}
    for template in TEMPLATES:
        shown = as_form(TRANSLATIONS[lang].get(template, template), lang)
        words = re.split(r"[^\w-]+", re.sub(r"\{[^{}]*\}|--[\w-]+", "", shown), flags=re.ASCII)
        assert not keys.intersection(words), shown
        assert not re.search(r"\b(method|task|quantization) (full|lora|frozen|none|nf4|tokens|seq2seq)\b", shown), shown


def test_settings_within_a_sentence_are_called_as_the_form_calls_them():
    said = Text("The row has {n} tokens; max_length is {limit}.", n=9, limit=8)
    assert in_words(said, "en") == "The row has 9 tokens; “Max length” is 8."
    said = Text("method full can't train {kind} weights; use method lora, or quantization none.", kind="max_length")
    assert in_words(said, "en").startswith("“Method: full weights” can't train max_length weights; use “Method: LoRA”")
    assert str(said).startswith("method full")
    assert in_words(Text("train_only is mine"), "en") == "train_only is mine", "none of ours"


@pytest.mark.parametrize(
    ("text", "english", "chinese"),
    [
        (
            Text("balance is {value!r}, but the rows have no labels; leave it at none.", value="over"),
            "balance is “repeat rows of small labels”, but the rows have no labels; leave it at none.",
            "“类别平衡”设为“重复少数标签的行”，但数据没有标签；请保持“不调整”。",
        ),
        (
            Text("task {task} learns labels, no tokens; leave row out.", task="classification"),
            "task “a label for a text” learns labels, no tokens; leave row out.",
            "类别“给文本一个标签”学的是标签而不是 token；请不要指定行号。",
        ),
        (
            Text("The row is laid out as {layout}, most rows as {most}.", layout="sharegpt", most="text_label"),
            "The row is laid out as “ShareGPT”, most rows as “text and label”.",
            "这一行是“ShareGPT”格式，多数行是“文本与标签”格式。",
        ),
    ],
)
def test_values_of_settings_are_said_as_the_form_shows_them(text, english, chinese):
    assert in_words(text, "en") == english and in_words(text, "zh") == chinese


def test_no_chinese_text_has_a_choice_of_the_form_in_english():
    named = ("on_fault", "on_long", "method", "thinking", "quantization", "precision", "format")
    english = {value for name in named for value, words in CHOICES[name].items() if words[1] != value} - {"messages"}
    for template, chinese in TEMPLATES.items():
        words = re.sub(r"\{[^{}]*\}|--[\w-]+ \w+|`[^`]*`|应为 auto、|记为 none", "", chinese)  # a typed header; a label
        assert not english.intersection(re.split(r"[^\w-]+", words, flags=re.ASCII)), (template, chinese)
