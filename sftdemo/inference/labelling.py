"""Runs that label texts, asked one text at a time: the one asked last stays in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from sftdemo.data.values import entities, targets
from sftdemo.data.values.tags import Span
from sftdemo.errors import UsageError
from sftdemo.inference import kinds, load_run
from sftdemo.runs import Run

MOST_CHARACTERS = 100_000

_lock = threading.Lock()
_held: tuple[str, Any] | None = None  # a run as it was, and its models


@dataclass(frozen=True)
class Labelled:
    """What one side says of a text: the `answer` as an evaluation has it, how it is `shown` to a reader, and `values`: the
    probability of each label, the likeliest first, or each entity {"text", "label", "start", "end"}."""

    answer: str
    shown: str
    values: Any


def label(run: Run, text: str) -> dict[str, Labelled]:
    """What each side of a run that labels texts says of one. Raises UsageError for an empty or a huge one."""
    global _held
    if not text.strip():
        raise UsageError("The prompt is empty; give some text.")
    if len(text) > MOST_CHARACTERS:
        raise UsageError("The text has {n:,} characters; the most is {most:,}.", n=len(text), most=MOST_CHARACTERS)
    with _lock:
        version = load_run.version(run)
        if _held is None or _held[0] != version:
            _held = None  # two at once may have no room
            _held = (version, kinds.load(run))
        models: Any = _held[1]
        if run.kind == "tokens":
            (own,) = models.own_texts([text])
            return {side: _marked(own, models.spans([own], side)[0]) for side in models.names}
        return {side: _likeliest(models, models.label([text], side)[0]) for side in models.names}


def release() -> None:
    """Give the memory of the models back, once what is being asked has been answered."""
    global _held
    with _lock:
        _held = None


def _likeliest(models: Any, probabilities: dict[str, float]) -> Labelled:
    """Shown is a label and its probability a line."""
    answer = models.text(list(probabilities.values()))
    values = dict(sorted(probabilities.items(), key=lambda item: -item[1]))
    return Labelled(answer, "\n".join(f"{name} {100 * value:.1f} %" for name, value in values.items()), values)


def _marked(text: str, spans: list[Span]) -> Labelled:
    """Shown is the text with its entities in brackets and their labels behind them."""
    pieces, at = [], 0
    for span in sorted(spans):
        pieces.append(f"{text[at : span.start]}[{text[span.start : span.end]}]({span.label})")
        at = span.end
    values = [{"text": text[span.start : span.end], **span._asdict()} for span in sorted(spans)]
    return Labelled(targets.as_json(entities.written(text, spans)), "".join([*pieces, text[at:]]), values)
