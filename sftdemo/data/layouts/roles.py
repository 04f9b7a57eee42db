"""The names that columns go by, role by role, and roles that only the values tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo.data.files.table import split_name
from sftdemo.data.text.languages import language
from sftdemo.data.text.literals import parsed_list
from sftdemo.data.values import conversations, entities
from sftdemo.data.values.columns import Columns, key

PROMPT = (
    *("prompt", "question", "query", "input", "user", "human", "user_message", "user_input", "text_input", "problem"),
    *("request", "ask", "q", "问题", "提问"),
)
LOOSE_PROMPT = (
    *("text", "message", "instruction", "sentence", "ctx", "goal", "question_stem", "stem", "sent1", "startphrase"),
    *("content", "body", "document", "title"),
)
LOOSE_ANSWER = ("json", "extraction", "result", "entities", "slots", "code", "canonical_solution")
ANSWER = (
    *("completion", "answer", "response", "output", "assistant", "assistant_message", "reply", "solution", "bot"),
    *(
        "correct_answer",
        "model_output",
        "output_text",
        "response_text",
        "expected_output",
        "target",
        "输出",
        "答案",
        "回答",
    ),
)
CONTEXT = (
    "context",
    "passage",
    "paragraph",
    "background",
    "document",
    "article",
    "story",
    "support",
    "premise",
    "上下文",
)
REASONING = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "thoughts",
    "thought",
    "cot",
    "complex_cot",
    "chain_of_thought",
)
DESIRABLE = ("label", "desirable", "is_desirable", "kto_tag", "thumbs_up")
CHOSEN = ("chosen", "chosen_response", "preferred", "preferred_response", "response_chosen", "accepted")
REJECTED = ("rejected", "rejected_response", "dispreferred", "non_preferred", "response_rejected")
DOCUMENT = ("article", "document", "dialogue", "dialog", "report", "passage", "story", "transcript", "原文", "文章")
TEXT = (
    *(
        "text",
        "sentence",
        "review",
        "tweet",
        "utterance",
        "content",
        "message",
        "comment",
        "body",
        "post",
        "sms",
        "email",
    ),
    *(
        "review_text",
        "review_body",
        "comment_text",
        "text_a",
        "text1",
        "sentence1",
        "sentence_a",
        "claim",
        "premise",
        "question1",
        "phrase",
    ),
    *("statement", "description", "headline", "title", "query", "question", "prompt", "input", "文本", "内容", "评论"),
)
SHORT_TEXTS = ("title", "headline", "query", "question", "prompt", "input")  # often beside a longer text
LABEL = (
    *(
        "label_text",
        "label_name",
        "label_str",
        "label",
        "sentiment",
        "category",
        "category_name",
        "categories",
        "intent",
    ),
    *(
        "class",
        "class_name",
        "classes",
        "class_index",
        "class_label",
        "gold_label",
        "topic",
        "emotion",
        "tag",
        "标签",
        "类别",
        "分类",
    ),
)
LOOSE_LABEL = (
    *(
        "target",
        "y",
        "rating",
        "star",
        "score",
        "polarity",
        "type",
        "genre",
        "department",
        "priority",
        "is_spam",
        "is_duplicate",
    ),
    *("stance", "language", "lang", "queue", "answer", "output", "response"),
)
PAIR = (
    *("sentence2", "hypothesis", "text2", "text_b", "question2", "sentence_2", "sentence_b", "text_pair", "evidence"),
    *("question", "context", "passage", "document"),
)
TITLE = ("title", "标题")
_SPLITS = ("split", "set", "fold", "partition", "subset", "data_split", "dataset_split")
_DIALOGUES = ("dialog", "dialogue", "dialogs", "turns", "utterances", "chat")
_SWITCHES = ("true", "false")


def are_switches(column: str, values: Sequence[Any]) -> bool:
    """Whether the values are true and false; a column whose name says so may also hold 1 and 0."""
    if key(column) == "label":
        return bool(values) and all(isinstance(value, bool) or str(value).casefold() in _SWITCHES for value in values)
    return bool(values) and all(switch(value) is not None for value in values)


def switch(value: Any) -> bool | None:
    """True or False as JSON, CSV and numbers write them; None for anything else."""
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(str(value).casefold())


def split_column(columns: Columns, by_key: Mapping[str, str], taken: set[str]) -> str | None:
    """The column that says train or test: `split`, whatever it holds but numbers, or another whose values say so."""
    for name in _SPLITS:
        column = by_key.get(name)
        if column is None or column in taken:
            continue
        values = columns.values(column)
        recognized = sum(isinstance(value, str) and split_name(value) is not None for value in values)
        if (name == "split" and not are_folds(values)) or 2 * recognized > len(values):
            return column
    return None


def are_folds(values: Sequence[Any]) -> bool:
    """Whether these are the numbers of a cross-validation."""
    return bool(values) and all(
        not isinstance(value, bool) and (isinstance(value, int | float) or str(value).strip().isdigit())
        for value in values
    )


def folds(columns: Columns, by_key: Mapping[str, str], used: set[str]) -> list[str]:
    """Columns named like a split that hold numbers."""
    named = (by_key.get(name) for name in _SPLITS)
    return [column for column in named if column and column not in used and are_folds(columns.values(column))]


def by_values(columns: Columns, every: Sequence[str], loose: bool) -> dict[str, str]:
    """Roles that the values tell beyond doubt: spans or tags of a text, and, where `loose`, turns or two languages."""
    by_key = {key(column): column for column in reversed(every)}
    if marked := _marked(columns, by_key):
        return marked
    if not loose:
        return {}
    dialogues = [by_key[name] for name in _DIALOGUES if name in by_key and _are_said(columns.values(by_key[name]))]
    turns = dialogues or [column for column in every[:60] if _are_turns(columns.values(column))]
    if len(turns) == 1:
        return {"messages": turns[0]}
    tongues = [column for column in every[:60] if language(column) and _is_text(columns, column)]
    return dict(zip(("source", "target"), tongues, strict=True)) if len(tongues) == 2 else {}


def _is_text(columns: Columns, column: str) -> bool:
    """Whether the column, named after a language, holds text: `id` is Indonesian, and far more often a number."""
    values = columns.values(column)
    words = [value for value in values if isinstance(value, str) and any(map(str.isalpha, value))]
    return bool(values) and 2 * len(words) > len(values) and (key(column) not in ("id", "no") or columns.texts(column))


def _marked(columns: Columns, by_key: Mapping[str, str]) -> dict[str, str]:
    texts = [by_key[name] for name in entities.TEXTS if name in by_key]
    marks = [by_key[name] for name in entities.MARKS if name in by_key]
    for text in texts:
        for mark in marks:
            rows = [row.values for row in columns.rows[:200] if row.values.get(text) and row.values.get(mark)]
            sure = sum(entities.are_marks(values[text], values[mark]) for values in rows) if mark != text else 0
            if sure and sure >= 0.9 * len(rows):
                return {"text": text, "entities": mark}
    return {}


def _are_turns(values: Sequence[Any]) -> bool:
    listed = [parsed_list(value) for value in values[:20]]
    return bool(listed) and all(turns and all(map(_is_turn, turns)) for turns in listed)


def _are_said(values: Sequence[Any]) -> bool:
    """Whether the values are lists of what two people said in turn."""
    return bool(values) and all(
        isinstance(value, list) and len(value) > 1 and all(isinstance(text, str) for text in value)
        for value in values[:20]
    )


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and all(
        any(map(turn.__contains__, names)) for names in (conversations.SPEAKER, conversations.SAID)
    )
