"""The settings that say what a training begins from and which weights it changes, each declared once."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from sftdemo.config import kinds
from sftdemo.config.read import OWN_TEXTS, ReadConfig
from sftdemo.config.settings import setting
from sftdemo.errors import Text

DEFAULT_MODEL = "smollm2-135m"
GROUPS = ("embeddings", "head", "norms", "layers=FIRST-LAST", "last=COUNT")  # as train_only names them
LAYERS = re.compile(r"layers=(\d{1,4})(?:-(\d{1,4}))?")
LAST = re.compile(r"last=([1-9]\d{0,3})")


@dataclass(frozen=True)
class StartConfig(ReadConfig):
    """Where a training begins: the model, and what of it is trained."""

    task: str = setting(
        kinds.CHAT,
        "The kind of model: chat answers in words; classification gives a text a label, by an encoder such as BERT, and tokens "
        "marks its entities; seq2seq rewrites it, as T5 does.",
        group="Model",
        choices=kinds.KINDS,
    )
    model: str = setting(DEFAULT_MODEL, "A local folder, a Hub id, or smollm2-135m.", group="Model")
    method: str = setting(
        "lora",
        "lora trains small added matrices; full trains every weight; frozen, for encoders, none of the encoder's: only a "
        "logistic head on its features, in seconds.",
        group="Model",
        choices=("lora", "full", "frozen"),
    )
    from_run: str | None = setting(
        None,
        "Go on from the result of this earlier run, by its name: from its weights, or with lora from its adapter, which is "
        "trained further; it is compared with the original base as before.",
        group="Model",
    )
    rehearsal: float = setting(
        0.0,
        "With from_run: training rows of the earlier run put among the new ones, against forgetting, drawn by the seed; "
        "0.1 is one for each ten new rows.",
        group="Model",
        low=0,
        high=100,
    )
    pooling: str = setting(
        "mean",
        "The features that a frozen encoder gives of a text: the mean of its tokens, or its first token, cls.",
        group="Model",
        rare=True,
        choices=("mean", "cls"),
    )
    train_only: str | None = setting(
        None,
        "Full tuning of these weights alone, the others stay as they are; a list of: embeddings, head, norms, layers=10-29 "
        "(from 0), last=4 (layers), and parts of parameters' names, as self_attn, with * for anything; default: all.",
        group="Model",
    )
    modules_to_save: str = setting(
        "none",
        "With lora, train these whole beside it and save them with the adapter, for new words or another language: embeddings, "
        "head or both, at a tenth of the learning rate.",
        group="Model",
        rare=True,
        choices=("none", "embeddings", "head", "both"),
    )
    source_prefix: str | None = setting(
        None,
        "seq2seq: this text stands before each source, such as 'translate English to German: ' for T5.",
        group="Model",
        rare=True,
    )
    source_language: str | None = setting(
        None,
        "seq2seq: the sources' language, as the tokenizer of a multilingual model calls it (mBART en_XX, M2M100 en).",
        group="Model",
        rare=True,
    )
    target_language: str | None = setting(
        None, "seq2seq: the targets' language, with which answers then begin.", group="Model", rare=True
    )
    thinking: str = setting(
        "auto",
        "Models that answer with or without thoughts: on asks for thoughts, off for none, auto as the model's template "
        "does; in training and in chat.",
        group="Model",
        rare=True,
        choices=("auto", "on", "off"),
    )

    @property
    def for_reading(self) -> Self:
        """These settings as data is read with them: a sequence-to-sequence model is given no words but the row's own and the
        user's."""
        own = self.task == kinds.SEQ2SEQ and self.instruction is None
        return replace(self, instruction=OWN_TEXTS) if own else self

    @property
    def trained_parts(self) -> list[str]:
        """The names in `train_only`."""
        return list(dict.fromkeys(part.strip() for part in (self.train_only or "").split(",") if part.strip()))

    def problems(self) -> list[Text]:
        problems = super().problems()
        if not self.are_typed():
            return problems
        if self.rehearsal and self.from_run is None:
            problems.append(
                Text(
                    "rehearsal takes rows of the run that from_run names, and none is named; name one, or leave it out."
                )
            )
        if self.from_run and getattr(self, "teacher", None):
            problems.append(Text("from_run and teacher both say what a run begins from; leave out one of them."))
        if self.train_only is None:
            return problems
        if self.method != "full":
            problems.append(
                Text("train_only chooses among the model's own weights, and lora trains none of them; use method full.")
            )
        if not self.trained_parts:
            problems.append(Text("train_only is empty; name what is trained: {groups}.", groups=GROUPS))
        for part in self.trained_parts:
            span = LAYERS.fullmatch(part)
            if ("=" in part and not (span or LAST.fullmatch(part))) or (
                span and int(span[2] or span[1]) < int(span[1])
            ):
                problems.append(
                    Text(
                        "train_only has {part!r}; write layers=0-9 for the first ten layers, layers=3 for one, or last=4.",
                        part=part,
                    )
                )
        return problems
