"""What a model card says of a model by its kind: what it learned, what for, its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftdemo.config import kinds
from sftdemo.evaluation.summary import base_of_labels
from sftdemo.model.label_facts import LabelFacts
from sftdemo.runs import Run

MOST_LABELS = 20  # that are named


@dataclass(frozen=True)
class Words:
    """Sentences, and `made` as in "made by"; `base` says what the base of its scores is, where that needs saying."""

    made: str
    loss: str
    purpose: str
    limits: str
    base: str = ""


_OF_TEXTS = Words(
    "fine-tuned",
    "Loss only on the assistant's tokens and their end of turn.",
    "Tasks like the rows it was trained on, asked in the same words.",
    "It keeps the limits of its base, may have forgotten some of what the base knew, and can be wrong with confidence.",
)
_OF_SEQ2SEQ = Words(
    "fine-tuned",
    "Loss: cross-entropy of the target's tokens and their end.",
    "Texts like the sources it was trained on, with what stood before them there.",
    _OF_TEXTS.limits,
)


def of(run: Run) -> Words:
    """The words for a run's model."""
    if run.kind in kinds.LABELLING:
        return {"classification": _of_labels, "tokens": _of_tags}[run.kind](run)
    return _OF_SEQ2SEQ if run.kind == kinds.SEQ2SEQ else _OF_TEXTS


def _named(labels: Sequence[str]) -> str:
    more = len(labels) - MOST_LABELS
    return ", ".join(labels[:MOST_LABELS]) + (f" and {more} more." if more > 0 else ".")


def _made(method: str) -> str:
    return "frozen under a logistic head" if method == "frozen" else "fine-tuned"


def _of_tags(run: Run) -> Words:
    facts, method = LabelFacts.read(run.model_path), run.trained_config()["settings"]["method"]
    return Words(
        _made(method),
        "Loss: cross-entropy of each word's tag (BIO), told by its first token.",
        f"Marks entities in texts like those it was trained on, of the kinds {_named(facts.entity_kinds)}",
        "It knows no other kinds, marks whole words, none of them twice, and can be wrong with confidence. A text is read "
        f"{facts.window} tokens at once; of a longer one's chunks each word is told by the one that has the most around it.",
        base_of_labels(method, run.kind)[0],
    )


def _of_labels(run: Run) -> Words:
    facts, method = LabelFacts.read(run.model_path), run.trained_config()["settings"]["method"]
    of = "those that apply of" if facts.several else "one of"
    return Words(
        _made(method),
        f"Loss: {'binary ' if facts.several else ''}cross-entropy of the labels.",
        f"Gives a text like those it was trained on {of} {len(facts.labels)} labels: {_named(facts.labels)}",
        "It has no other label for a text that none of these fits, and can be wrong with confidence. A text is read "
        f"{facts.window} tokens at once; the probabilities of a longer one's chunks are averaged. Logits divided by "
        f"{facts.temperatures['tuned']:.3g}, a temperature fitted on the validation rows, give the probabilities measured here.",
        base_of_labels(method, several=facts.several)[0],
    )
