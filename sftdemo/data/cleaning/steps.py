"""Cleaning on request: HTML, whitespace, personal data, length, duplicates, leaks; each step counted, with examples."""

from __future__ import annotations

import html
import html.parser
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from sftdemo.config.read import ReadConfig
from sftdemo.data.cleaning import duplicates, pii
from sftdemo.data.types import Dataset, Example, Message, Step, place_of, turn_text

_SHOWN, _CHARACTERS, _LEAD = 3, 300, 40
_BLOCKS, _INLINE = (
    frozenset(names.split())
    for names in (
        "address article aside blockquote body br center dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 header hr html "
        "li main nav ol p pre section table tbody td tfoot th thead tr ul",
        "a abbr acronym audio b base big button caption cite code col del dfn em embed font i iframe img input ins kbd "
        "label link mark meta noscript object option q s samp select small source span strike strong sub sup svg textarea "
        "u var video wbr",
    )
)
_SKIPPED = frozenset(("script", "style", "head", "title"))
_KNOWN = _BLOCKS | _INLINE | _SKIPPED
_TAG = re.compile(
    rf"</?(?:{'|'.join(sorted(_KNOWN, key=len, reverse=True))})\b[^<>]*>|<!(?:--|doctype)|&(?:#\d+|#x[0-9a-f]+|[a-z]+\d*);",
    re.IGNORECASE,
)
_LINE = re.compile(r"(?<=\S)[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")


class _Text(html.parser.HTMLParser):
    """What a browser would show, a line for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skipping += tag in _SKIPPED
        if tag in _BLOCKS:
            self.parts.append("\n")
        elif tag not in _KNOWN:
            self.parts.append(self.get_starttag_text() or "")  # List<String> is no HTML

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.skipping -= tag in _SKIPPED

    def handle_endtag(self, tag: str) -> None:
        self.skipping -= tag in _SKIPPED and self.skipping > 0
        if tag in _BLOCKS:
            self.parts.append("\n")
        elif tag not in _KNOWN:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.parts.append(data)


def without_html(text: str) -> str:
    """The text without tags and entities; "a < b" and what else is no HTML stays."""
    if not _TAG.search(text):
        return text
    parser = _Text()
    # Behind the last ">" nothing is a tag, and the library would look for its end again and again.
    markup, bracket, rest = _without_comments(text).rpartition(">")
    parser.feed(markup + bracket)
    parser.close()
    parser.handle_data(html.unescape(rest))
    return _BLANK_LINES.sub("\n\n", "".join(parser.parts).replace("\xa0", " ")).strip()


def _without_comments(text: str) -> str:
    """Without comments and marked sections (<![if …]>); one that isn't closed is text."""
    for opening, closing in (("<!--", "-->"), ("<![", "]>")):
        parts, at = [], 0
        while (start := text.find(opening, at)) >= 0 and (end := text.find(closing, start + 2)) >= 0:
            parts.append(text[at:start])
            at = end + len(closing)
        text = "".join([*parts, text[at:].replace(opening, f"&lt;{opening[1:]}")])
    return text


def without_whitespace(text: str) -> str:
    """One blank between words, none at the ends of lines, at most one blank line; how lines are indented stays."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _LINE.sub(" ", text)
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()


def clean(dataset: Dataset, config: ReadConfig) -> None:
    """Take the steps that `config` asks for, in the order of config.read.CLEANING with length after the changes of text.

    Leaks are taken out when the data is split (`remove_leaks`).
    """
    for name, change in (("html", without_html), ("whitespace", without_whitespace)):
        if name in config.cleaning:
            _rewrite(dataset, Step(name), lambda text, change=change: (change(text), Counter()))  # type: ignore[misc]
    if "personal" in config.cleaning:
        _rewrite(dataset, Step("personal"), pii.replace)
        dataset.notes.append(pii.NOT_COVERED)
    if config.min_characters or config.max_characters:
        _length(dataset, config.min_characters or 0, config.max_characters)
    for name, find in (("duplicates", duplicates.duplicates), ("near_duplicates", duplicates.near_duplicates)):
        if name in config.cleaning:
            step = Step(name)
            for split, examples in dataset.splits.items():
                dataset.splits[split] = _without(examples, dict(find(examples)), examples, step)
            dataset.cleaning.append(step)
    dataset.splits = {split: examples for split, examples in dataset.splits.items() if examples}


def remove_leaks(dataset: Dataset) -> None:
    """Take the rows out of train that stand in the held-out splits too: those must measure what they always measured."""
    train = dataset.splits["train"]
    held_out = [*dataset.splits.get("validation", ()), *dataset.splits.get("test", ())]
    step = Step("leaks")
    dataset.splits["train"] = _without(train, dict(duplicates.leaks(held_out, train)), held_out, step)
    dataset.cleaning.append(step)


def _rewrite(dataset: Dataset, step: Step, change: Callable[[str], tuple[str, Counter[str]]]) -> None:
    """Change the text of all turns and references, labels aside; rows left without text are taken out."""
    kinds: Counter[str] = Counter()
    for split, examples in dataset.splits.items():
        kept: list[Example] = []
        for example in examples:
            turns = example["messages"][:-1] if "label" in example else example["messages"]
            texts = [text for turn in turns for text in _texts(turn)] + example.get("references", [])
            changed = [change(text) for text in texts]
            if all(new == old for (new, _), old in zip(changed, texts, strict=True)):
                kept.append(example)
                continue
            step.count += 1
            for _, counts in changed:
                kinds += counts
            at = next(index for index, old in enumerate(texts) if changed[index][0] != old)
            whole = all(new.strip() or not old.strip() for (new, _), old in zip(changed, texts, strict=True))
            _show(step, example, texts[at], changed[at][0] if whole else None)
            if whole:
                new = iter([text for text, _ in changed])
                messages = [_with_texts(turn, new) for turn in turns]
                rewritten = {**example, "messages": [*messages, *example["messages"][len(turns) :]]}
                if "references" in example:
                    rewritten["references"] = list(new)
                kept.append(rewritten)  # type: ignore[arg-type]
        dataset.splits[split] = kept
    step.kinds = dict(sorted(kinds.items()))
    dataset.cleaning.append(step)


def _texts(turn: Message) -> list[str]:
    """A turn's content, its thoughts, and the texts in its calls' arguments."""
    thoughts = [turn["reasoning_content"]] if "reasoning_content" in turn else []
    calls = [call["function"]["arguments"] for call in turn.get("tool_calls", ())]
    return [turn["content"], *thoughts, *(text for arguments in calls for text in _leaves(arguments))]


def _with_texts(turn: Message, texts: Iterator[str]) -> Message:
    """The turn with the next of the texts, in the order of `_texts`."""
    changed: Message = {**turn, "content": next(texts)}
    if "reasoning_content" in turn:
        changed["reasoning_content"] = next(texts)
    if "tool_calls" in turn:
        changed["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _filled(call["function"]["arguments"], texts)}}
            for call in turn["tool_calls"]
        ]
    return changed


def _leaves(value: Any) -> list[str]:
    """The texts in a JSON value, keys aside."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _leaves(part)]


def _filled(value: Any, texts: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {key: _filled(part, texts) for key, part in value.items()}
    return [_filled(part, texts) for part in value] if isinstance(value, list) else value


def _length(dataset: Dataset, least: int, most: int | None) -> None:
    step = Step("length")
    for split, examples in dataset.splits.items():
        out = {}
        for index, example in enumerate(examples):
            size = sum(len(turn_text(turn)) for turn in example["messages"] if turn["role"] != "system")
            if size < least or (most is not None and size > most):
                out[index] = index
        dataset.splits[split] = _without(examples, out, None, step)
    dataset.cleaning.append(step)


def _without(examples: list[Example], out: dict[int, int], others: list[Example] | None, step: Step) -> list[Example]:
    """The examples but those in `out` ({index: index in `others` of the row it repeats})."""
    step.count += len(out)
    for index, other in out.items():
        _show(
            step, examples[index], examples[index]["messages"][-2]["content"], None, others[other] if others else None
        )
    return [example for index, example in enumerate(examples) if index not in out]


def _show(step: Step, example: Example, before: str, after: str | None, like: Example | None = None) -> None:
    """Keep the first few as examples: the text around the first change, or the end of a row that is taken out."""
    if len(step.examples) >= _SHOWN:
        return
    pairs = enumerate(zip(before, after or "", strict=False))
    first_change = next((index for index, (old, new) in pairs if old != new), len(after or ""))
    start = max(0, len(before) - _CHARACTERS if after is None else first_change - _LEAD)
    step.examples.append(
        {
            "line": place_of(example, "")[1],
            "before": before[start : start + _CHARACTERS],
            "after": after and after[start : start + _CHARACTERS],
            "like": like and place_of(like, "")[1],
        }
    )
