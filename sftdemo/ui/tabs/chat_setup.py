"""Who may answer beside a run, and what the page is set to when something is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sftdemo import runs
from sftdemo.config import GenerateConfig
from sftdemo.data.conversion.wording import put_as, wordings_of
from sftdemo.ui import work
from sftdemo.ui.tabs.conversation import BASE, Talk, columns_of
from sftdemo.ui.texts import duration, say

MOST_BESIDE = 2


def companions(run: runs.Run) -> list[str]:
    """The other runs that can answer in one batch with this one: LoRA on the same base."""
    if not _is_lora(run):
        return []
    others = [other for other in runs.list_runs() if other.name != run.name and work.is_ready(other)]
    return [other.name for other in others if _is_lora(other) and runs.same_base(run, other)]


def _is_lora(run: runs.Run) -> bool:
    return bool(run.config().get("settings", {}).get("method") == "lora")


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

    @property
    def names(self) -> list[str]:
        return columns_of(self.run_names)

    def asked(self, text: str) -> tuple[dict[str, str], list[str]]:
        """What each model is asked for a typed text, where that is more, each as in its own training and the base as the
        first run; and the runs for which it can't be told how."""
        questions: dict[str, str | None] = {}
        for name in self.run_names if self.as_trained else []:
            questions[name] = put_as(wordings_of(runs.named(name).config()), text, self.wording)
        questions[BASE] = questions.get(self.run_names[0], text)
        asked = {name: question for name, question in questions.items() if question is not None and question != text}
        return asked, [name for name, question in questions.items() if question is None and name != BASE]
