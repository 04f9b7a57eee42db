"""How far long work is, on the page: the sentence of its stage, and a bar where something is counted."""

from __future__ import annotations

import time

from sftdemo import stages
from sftdemo.schema.run import StageState
from sftdemo.ui.parts import html
from sftdemo.ui.texts import duration, unbroken
from sftdemo.ui.texts.faults import in_words

SOON_S = 3.0  # a stage that takes no longer needs no clock


def line(stage: StageState, lang: str) -> str:
    """ "Fetching the model, 43 of 98 MB · 12 s": the stage and how long it has taken so far."""
    sentence = unbroken(in_words(stages.sentence(stage["name"], stage["done"], stage["total"]), lang))
    seconds = time.time() - stage["began"]
    return f"{sentence} · {duration(lang, seconds)}" if seconds > SOON_S else sentence


def share(stage: StageState) -> float:
    return stage["done"] / stage["total"] if stage["total"] else 0.0


def big(stage: StageState, lang: str) -> str:
    """A stage as the head of a tab; the bar is there only where it moves."""
    track = html.track(share(stage)) if stage["done"] else ""
    return f'<div class="big">{html.esc(line(stage, lang))}</div>{track}'
