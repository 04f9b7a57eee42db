"""The exceptions whose text is shown to the user as it stands: what is wrong, which value, what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Self

_VALUE, _WORDS = r"\{(?P<name>\w+)(?::[^{}]*)?\}", r"(?: (?!of |the |in )[a-z-]+)"
# What a template counts, and the verb of that.
_COUNTED = re.compile(
    rf"({_VALUE}{_WORDS}{{0,2}}?) (?P<word>answers|bytes|cells|characters|chats|chunks|columns|combinations|conversations|days|"
    r"edits|entities|epochs|examples|faults|files|groups|hours|items|labels|layers|lists|metrics|minutes|names|objects|pairs|"
    r"predictions|problems|prompts|questions|raters|requests|rows|runs|seconds|steps|tags|tensors|texts|tokens|trials|turns|votes)\b"
)
_VERB = re.compile(
    rf"({_VALUE}{_WORDS}{{0,6}}?) (?P<word>are|were|have|begin or end|begin|declare|go|lose|open|spell|stand)\b"
)
_SINGULAR = {
    "are": "is",
    "begin or end": "begins or ends",
    "were": "was",
    "have": "has",
    "go": "goes",
    "entities": "entity",
}


class Text(str):
    """A sentence for the user: a str in English that also knows the template it was made of, and its values.

    `key` is that template, as gettext's msgid; the page looks up the sentence of another language by it. A value that is a
    Text is written in that language, too, and a list as its items with commas. Without values, braces are plain characters.
    In JSON it is a plain string; `key` and `values` are kept where it is copied or pickled.
    """

    key: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> Self:
        # An error or a path is kept as its text, so that a Text can be copied, pickled and written as JSON.
        values = {
            name: str(value) if isinstance(value, BaseException | PurePath) else value for name, value in values.items()
        }
        text = super().__new__(cls, fill(template, values))
        known = template if isinstance(template, Text) and not values else None
        text.key = known.key if known is not None else str(template)
        text.values = known.values if known is not None else values
        return text

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON: {"text", "key", "values"}."""
        return {"text": str(self), "key": self.key, "values": {k: _to_json(value) for k, value in self.values.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave; the template isn't filled in again, since a file may hold any. A damaged one is its text."""
        text, key, values = cls(str(value.get("text"))), value.get("key"), value.get("values")
        if isinstance(key, str) and isinstance(values, dict) and (values or key == text):
            text.key, text.values = key, {name: _from_json(part) for name, part in values.items()}
        return text


def _to_json(value: Any) -> Any:
    if isinstance(value, Text):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return Text.from_json(value) if isinstance(value, dict) else value


class _Items(list[Any]):
    """A list that a template writes out with commas; `!r` gives its repr."""

    comma = ", "

    def __format__(self, spec: str) -> str:
        return self.comma.join(format(item, spec) for item in self)


def fill(template: str, values: Mapping[str, Any], comma: str = ", ") -> str:
    """The template with its values, lists with `comma` between their items; as it stands where there are no values."""
    if not values:
        return str(template)
    filled = dict(values)
    template = in_number(template, {name for name, value in values.items() if value == 1 and value is not True})
    for name, value in values.items():
        if isinstance(value, list | tuple):
            filled[name] = items = _Items(value)
            items.comma = comma
    return template.format(**filled)


def in_number(template: str, ones: Collection[str]) -> str:
    """The English template with what is counted by one of `ones` in the singular: "{n} rows are" is "{n} row is" then."""

    def one(found: re.Match[str]) -> str:
        word = found["word"]
        if found["name"] not in ones:
            return found[0]
        return f"{found[1]} {_SINGULAR.get(word) or (f'{word}s' if not word.endswith('s') else word[:-1])}"

    return _COUNTED.sub(one, _VERB.sub(one, template)) if ones else template


def sentences(texts: Sequence[Text], frame: str = "{first} {rest}") -> Text:
    """Several sentences as one text."""
    *before, whole = texts or [Text("")]
    for text in reversed(before):
        whole = Text(frame, first=text, rest=whole)
    return whole


def lines(texts: Sequence[Text]) -> Text:
    """Several texts, each on a line of its own."""
    return sentences(texts, "{first}\n{rest}")


def unexpected(error: BaseException, private: bool = False) -> Text:
    """The one line on an error that nobody foresaw: a fault of ours, or of a library or the machine.

    With `private` it names the kind alone: its reason may hold paths and others' text.
    """
    reason = "" if private else (str(error).strip().splitlines() or [""])[0][:300]
    if not reason:
        return Text("Something unexpected went wrong ({kind}); the log says more.", kind=type(error).__name__)
    return Text(
        "Something unexpected went wrong ({kind}: {reason}); the log says more.",
        kind=type(error).__name__,
        reason=reason,
    )


class UserError(Exception):
    """A fault the user can mend: one line, shown without a traceback. The command line exits with `exit_code`.

    `text` is what str() gives, with its template and values: UserError("There is no run {name!r}.", name=name).
    """

    exit_code = 1

    def __init__(self, template: str, /, **values: Any) -> None:
        self.text = Text(template, **values)
        super().__init__(self.text)


class UsageError(UserError):
    """A wrong flag or setting."""

    exit_code = 2


class Superseded(UserError):
    """What was asked for is no longer wanted, as the same visitor has asked for something else; nothing is told."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the data. `line` counts from 1; 0 means the file as a whole.

    `whole`: leaving that row out would not mend it; so it is for all of line 0.
    """

    line: int
    field: str
    problem: Text
    remedy: Text
    file: str = ""
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.line:
            object.__setattr__(self, "whole", True)

    @property
    def text(self) -> Text:
        """Place, problem and remedy in one line."""
        place = Text("{file}, line {line}", file=self.file, line=self.line) if self.line else self.file
        what = sentences([part for part in (self.problem, self.remedy) if part])
        if self.field:
            return Text("{place}, field {field!r}: {what}", place=place, field=self.field, what=what)
        return Text("{place}: {what}", place=place, what=what)

    def __str__(self) -> str:
        return str(self.text)

    def to_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if key != "whole"}


class DataError(UserError):
    """Data with faults, all of them at once in `faults`; the text has the first `shown`."""

    def __init__(self, faults: Sequence[Fault], shown: int = 20) -> None:
        self.faults = list(faults)
        texts = [fault.text for fault in self.faults[:shown]]
        if (more := len(self.faults) - shown) > 0:
            texts.append(Text("… and {n} more; `python -m sftdemo check` lists them all.", n=more))
        super().__init__(lines(texts))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.faults,)
