"""What the training of an encoder that tags words needs, checked before anything is written: entities of texts, their words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sftdemo.data.types import place_of
from sftdemo.data.values import entities, tags
from sftdemo.encoding.own_text import own_text
from sftdemo.errors import DataError, Fault, Text, UserError
from sftdemo.log import Reporter
from sftdemo.training.label_prepare import PreparedLabels, templates_of

if TYPE_CHECKING:
    from torch import Tensor

    from sftdemo.data import Dataset, Example
    from sftdemo.encoding.label_rows import LabelRows
    from sftdemo.encoding.token_rows import TokenRow, TokenRows

MOST_FITTED = 8_000  # words that the logistic head beside it is fitted to, drawn from all


class PreparedTokens(PreparedLabels):
    """Of texts with entities: `labels` are the tags of words, O first, then B- and I- of each kind."""

    several = False

    def encode(self, reporter: Reporter) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
        if not self.tokenizer.is_fast:
            raise UserError(
                "The tokenizer of {model} doesn't tell where its tokens stand in the text, which task {task} needs; choose "
                "another model.",
                model=self.config.model,
                task=self.config.task,
            )
        self._leave_out(reporter)
        self._inexact: Counter[str] = Counter()
        rows = super().encode(reporter)
        if inexact := self._inexact.total():
            reporter.info(
                Text(
                    "{n} entities begin or end inside a word, such as {example!r}; they are learned with the whole word.",
                    n=inexact,
                    example=self._inexact.most_common(1)[0][0],
                )
            )
        return rows

    def in_chunks(self, split: str, n: int, chunks: int) -> Text:
        return Text(
            "In {split}: {n} texts are longer than the {window} tokens that the model reads at once; they are read in "
            "{chunks} chunks, each word in the one that has the most around it.",
            split=split,
            n=n,
            window=self.window,
            chunks=chunks,
        )

    def _leave_out(self, reporter: Reporter) -> None:
        """Raise DataError for rows whose entities can't be tags of words; with `on_fault` drop or fix they are left out."""
        dataset = self.dataset
        faults: list[Fault] = []
        for split, examples in dataset.splits.items():
            kept = []
            for example in examples:
                if fault := fault_in(example, dataset):
                    faults.append(fault)
                else:
                    kept.append(example)
            if self.config.on_fault != "stop":
                dataset.splits[split] = kept
        if faults and (self.config.on_fault == "stop" or not dataset.splits["train"]):
            raise DataError(faults)
        if faults:
            dataset.dropped = [*dataset.dropped, *faults]
            reporter.info(Text("{n} rows are left out; the first: {fault}", n=len(faults), fault=faults[0].text))

    def name_labels(self, taken: Mapping[str, Sequence[Example]]) -> None:
        kinds = Counter(
            entity["label"]
            for part in self.dataset.splits.values()
            for example in part
            for entity in entities_in(example["messages"][-1]["content"]) or ()
        )
        learned = [example for example in taken["train"] if entities_in(example["messages"][-1]["content"])]
        if not learned:
            raise UserError(
                "task {task} needs entities, and the {n} training rows have none; give text with entities, or tokens with tags.",
                task=self.config.task,
                n=len(taken["train"]),
            )
        self.labels = ["O", *(f"{mark}-{kind}" for kind in sorted(kinds) for mark in "BI")]

    def new_rows(self) -> TokenRows:
        from sftdemo.encoding.token_rows import TokenRows

        return TokenRows()

    def add(self, rows: TokenRows, text: str, example: Example) -> int:
        from sftdemo.encoding.token_rows import TokenRow, windows

        number = {label: place for place, label in enumerate(self.labels)}
        parts = windows(self.tokenizer, text, self.window, self.config.chunk_overlap)
        spans, _ = entities.placed(text, entities_in(example["messages"][-1]["content"]) or [])
        words = sorted(word for part in parts for word in part.words)
        tag_of = dict(zip(words, tags.tags_of(words, spans), strict=True))
        kept = set(tags.spans_of(words, [tag_of[word] for word in words]))
        self._inexact.update(text[span.start : span.end] for span in spans if span not in kept)
        weight = float(example.get("weight", 1.0))
        for part in parts:
            if part.words:
                labels = [number[tag_of[word]] for word in part.words]
                rows.windows.append(TokenRow(part.ids, part.places, part.words, labels, weight))
        return len(parts)

    def targets(self, split: str) -> LabelRows:
        from sftdemo.encoding.label_rows import LabelRow, LabelRows

        words = [LabelRow([], [row.labels[word]], row.weight) for row, chosen in self._fitted(split) for word in chosen]
        return LabelRows(words, list(range(len(words))))

    def features(self, encoder: Any, split: str) -> Tensor:
        from sftdemo.model import frozen_head

        fitted, pad = self._fitted(split), self.tokenizer.pad_token_id or 0
        places = [[row.places[word] for word in chosen] for row, chosen in fitted]
        return frozen_head.features_at(encoder, [row.ids for row, _ in fitted], places, pad)

    def _fitted(self, split: str) -> list[tuple[TokenRow, list[int]]]:
        """The windows that the logistic head is fitted to, each with the numbers of those of its words that are drawn."""
        rows: TokenRows = self.rows[split]
        chosen = drawn([label for row in rows for label in row.labels], MOST_FITTED)
        ends = np.cumsum([len(row.labels) for row in rows])
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        starts = ends - [len(row.labels) for row in rows]
        return [
            (row, (part - start).tolist()) for row, part, start in zip(rows, parts, starts, strict=True) if len(part)
        ]


def fault_in(example: Example, dataset: Dataset) -> Fault | None:
    """Why the entities of an example can't be tags of words, if they can't."""
    file, line, _ = place_of(example, dataset.file)
    column = dataset.mapping.get("entities", "")

    def fault(problem: Text, remedy: Text) -> Fault:
        return Fault(line, column, problem, remedy, file)

    listed = entities_in(example["messages"][-1]["content"])
    if listed is None:
        problem = Text('The answer is no list of entities as [{{"text": "…", "label": "…"}}].')
        return fault(problem, Text("Give text with entities, or tokens with tags; or train a chat model on it."))
    text = own_text(example["messages"][:-1], templates_of(dataset))
    spans, missing = entities.placed(text, listed)
    if missing:
        problem = Text("The entity {entity!r} doesn't stand in the text.", entity=missing[0]["text"])
        return fault(problem, Text("Correct it, or remove the row."))
    if pair := entities.overlapping(spans):
        one, two = (text[span.start : span.end] for span in pair)
        problem = Text("The entities {one!r} and {two!r} overlap, and a word has one tag.", one=one, two=two)
        return fault(problem, Text("Keep one of them, or train a chat model, which lists both."))
    return None


def drawn(labels: Sequence[int], most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The places, in order, of at most so many labels, drawn by chance, but one of each kind at least.

    The draw is the same for the same labels: what a head is fitted to must not depend on a run's seed, as settings of a search
    share it. Each n-th would go in step with texts made from a template.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    first = np.unique(np.asarray(labels, np.int64)[order], return_index=True)[1]
    return np.sort(np.concatenate([order[first], np.delete(order, first)])[:most])


def entities_in(answer: str) -> list[entities.Entity] | None:
    """The entities that an answer lists in JSON; None for any other answer."""
    try:
        listed = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return listed if isinstance(listed, list) and all(map(entities.is_entity, listed)) else None
