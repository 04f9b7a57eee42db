"""Who may answer beside a run, and what the page is set to when something is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftdemo import runs
from sftdemo.config import kinds
from sftdemo.config.generate import GenerateConfig
from sftdemo.data.conversion.wording import put_as
from sftdemo.model import saved_modules
from sftdemo.ui import models
from sftdemo.ui.parts.address import Address
from sftdemo.ui.parts.progress import line as stage_line
from sftdemo.ui.tabs.chat_systems import is_system, with_systems
from sftdemo.ui.tabs.conversation import BASE, Conversation, Talk, columns_of
from sftdemo.ui.tabs.exchange import Exchange, asked_wordings, stream
from sftdemo.ui.texts import duration, say

MOST_BESIDE = 2


def companions(run: runs.Run) -> list[str]:
    """The other runs that can answer in one batch with this one: LoRA on the same base."""
    if run.kind in kinds.LABELLING or not saved_modules.shares_base(run):
        return []
    others = [other for other in runs.list_runs() if other.name != run.name and models.is_ready(other)]
    return [other.name for other in others if saved_modules.shares_base(other) and runs.same_base(run, other)]


def joining(run_name: str, search: str | None, others: Sequence[str]) -> list[str]:
    """Who answers beside a run that stands first in the comparison that the page's address names."""
    first, *rest = Address.parse(search).compared_runs() or [""]
    names = [name if name in others else f"run:{name}" for name in rest] if first == run_name else []
    return [name for name in names if name in others][:MOST_BESIDE]


def waiting(exchange: Exchange, lang: str) -> str:
    """What answers wait for that haven't begun, or ""."""
    if exchange.stage:
        return stage_line(exchange.stage, lang)
    return in_line(exchange.place, lang) if exchange.place else ""


def in_line(place: Any, lang: str) -> str:
    """Where a question stands in line, and about how long it will take until it is answered."""
    where = say(lang, "chat_line", n=place.ahead)
    return (
        where if place.seconds is None else f"{where}, {say(lang, 'chat_line_time', t=duration(lang, place.seconds))}"
    )


@dataclass(frozen=True)
class Setup:
    """What the page is set to when something is asked."""

    run_names: list[str]
    talk: Talk
    talks: object
    system: str
    config: GenerateConfig
    as_trained: bool
    wording: str
    lang: str
    systems: list[str] = field(default_factory=list)  # that answer after these runs

    @property
    def names(self) -> list[str]:
        return columns_of([*self.run_names, *self.systems])

    def answered(
        self,
        conversation: Conversation,
        answering: Sequence[str],
        asker: tuple[str, str],
        stopped: Callable[[], bool],
    ) -> AsyncGenerator[Exchange, None]:
        """The answers of those named, as they come."""
        own = [name for name in answering if name in columns_of(self.run_names)]
        streamed = stream(self.run_names, conversation, own, self.config, asker, stopped) if own else None
        systems = [name for name in self.systems if name in answering]
        run = runs.named(self.run_names[0])
        return with_systems(streamed, run, conversation, systems, self.config, asker, stopped, self.lang)

    def asked(self, text: str) -> tuple[dict[str, str], list[str]]:
        """What each model is asked for a typed text, where that is more, each as in its own training and the base as the
        first run; and the runs for which it can't be told how."""
        questions: dict[str, str | None] = {}
        for name in [*self.run_names, *self.systems] if self.as_trained else []:
            of = name.removeprefix("run:")
            learned = self.run_names[0] if is_system(of) else of  # other systems are asked as the first run
            questions[name] = put_as(asked_wordings(runs.named(learned)), text, self.wording)
        questions[BASE] = questions.get(self.run_names[0], text)
        asked = {name: question for name, question in questions.items() if question is not None and question != text}
        unsure = [name for name, question in questions.items() if question is None]
        return asked, [name for name in unsure if name != BASE and not is_system(name)]
