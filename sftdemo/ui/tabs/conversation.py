"""A conversation with several models: what was typed, what each was asked, and what each answered. The page holds it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from sftdemo.encoding.thoughts import message_of
from sftdemo.errors import UserError

BASE = ""  # the name of the base among the answers; runs have theirs
MOST_RUNS = 6  # whose conversations a browser keeps
# What is drawn of a conversation, whatever a page sends; a question is refused at half of the characters, before any is cut.
MOST_TURNS = 200
MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Answer:
    """One model's answer. `seconds` count from when the prompt went in; `right` and `score` are against an expected answer."""

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    finish_reason: str | None = None  # "stop", "length", "stopped" or "fault"; None while it is being made
    seed: int | None = None
    temperature: float = 0.0
    right: bool | None = None
    score: float | None = None
    fault: str = ""  # why no answer came, in the page's language


@dataclass(frozen=True)
class Turn:
    """What the user typed, verbatim; what each model was asked, where that is more; and the answers, by name."""

    text: str
    asked: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    expected: str | None = None

    def question(self, name: str) -> str:
        return self.asked.get(name, self.text)


@dataclass(frozen=True)
class Conversation:
    """The turns so far, and the system prompt that they were begun with."""

    turns: list[Turn] = field(default_factory=list)
    system: str | None = None

    def up_to(self, count: int) -> Self:
        """Its first turns."""
        return replace(self, turns=self.turns[:count])

    def and_turn(self, turn: Turn) -> Self:
        return replace(self, turns=[*self.turns, turn])

    @property
    def is_full(self) -> bool:
        """Whether it has as much as may be asked in one."""
        return len(self.turns) > MOST_TURNS or sum(map(_characters, self.turns)) > MOST_CHARACTERS // 2

    def bounded(self) -> Self:
        """Its latest turns, no more than are drawn."""
        latest = self.turns[-MOST_TURNS:]
        sizes = itertools.accumulate(map(_characters, reversed(latest)))
        return replace(self, turns=latest[len(latest) - sum(size <= MOST_CHARACTERS for size in sizes) :])

    @property
    def names(self) -> list[str]:
        """The models that have answered, the base first."""
        return list(dict.fromkeys([BASE, *(name for turn in self.turns for name in turn.answers)]))

    def messages(self, name: str, first_run: str) -> list[dict[str, str]]:
        """What a model is sent, without the system prompt; where it wasn't there yet, the first run's answers stand in."""
        sent: list[dict[str, str]] = []
        for number, turn in enumerate(self.turns):
            is_last = number == len(self.turns) - 1
            whose = name if is_last or name in turn.answers else first_run
            answer = None if is_last else turn.answers.get(whose, Answer())
            sent.append({"role": "user", "content": turn.question(whose)})
            if answer:
                sent.append(message_of(answer.text))
        return sent


def _characters(turn: Turn) -> int:
    return len(repr(turn))


@dataclass(frozen=True)
class Talk:
    """A conversation and what it was before the last change, so that the change can be undone."""

    now: Conversation = field(default_factory=Conversation)
    before: Conversation | None = None

    def changed(self, now: Conversation) -> Self:
        return replace(self, now=now, before=self.now)


def read(kind: type[Any], value: object) -> Any:
    """A value of JSON as one of these classes; raises UserError for anything else, since pages and files may send it."""
    try:
        return _adapter(kind).validate_python(value)  # type: ignore[arg-type]
    except ValueError:
        raise UserError("The conversation that was sent can't be read; reload the page.") from None


@functools.cache
def _adapter(kind: type[Any]) -> Any:
    """Made once: it takes milliseconds, at each click in the chat."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def talk_with(talks: object, run_name: str) -> Talk:
    """The conversation with a run, of all that the page holds, within bounds."""
    talk: Talk = read(Talk, talks.get(run_name, {}) if isinstance(talks, Mapping) else {})
    return Talk(talk.now.bounded(), talk.before and talk.before.bounded())


def talks_with(talks: object, run_name: str, talk: Talk) -> dict[str, Any]:
    """All that the page holds with this conversation in its place; those used longest ago go."""
    others = {name: kept for name, kept in talks.items() if name != run_name} if isinstance(talks, Mapping) else {}
    return dict([*others.items(), (run_name, asdict(talk))][-MOST_RUNS:])


def as_messages(conversation: Conversation, name: str) -> list[dict[str, str]]:
    """What was said to one model and by it, as messages; turns that it didn't answer are left out."""
    prompt = (conversation.system or "").strip()
    system = [{"role": "system", "content": prompt}] if prompt else []
    turns = [turn for turn in conversation.turns if name in turn.answers]
    return system + [
        message
        for turn in turns
        for message in ({"role": "user", "content": turn.question(name)}, message_of(turn.answers[name].text))
    ]


def shown_names(names: Iterable[str]) -> dict[str, str]:
    """What the models are called in files: "base", and the runs by their names."""
    return {name: name or "base" for name in names}


def columns_of(run_names: Sequence[str]) -> list[str]:
    """The base and these runs, in the order they are shown."""
    return [BASE, *run_names]
