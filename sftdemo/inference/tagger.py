"""A run that marks the entities of texts, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from sftdemo.data.values import entities, tags, targets
from sftdemo.data.values.tags import Span
from sftdemo.encoding.token_rows import Window, windows
from sftdemo.inference.labeller import Labeller
from sftdemo.model import frozen_head


class Tagger(Labeller):
    """Gives each word of a text its tag, and so the text its entities."""

    def spans(self, texts: Sequence[str], side: str) -> list[list[Span]]:
        """The entities of each text, as it is read."""
        return self._spans([self._windows(text) for text in texts], side)

    def answer_rows(
        self, texts: Sequence[str], rows: Sequence[Mapping[str, Any]], sides: Sequence[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """By side {side: the entities as JSON} of each text."""
        parts = [self._windows(text) for text in texts]
        for side in sides:
            spans = self._spans(parts, side)
            yield [{side: targets.as_json(entities.written(text, own))} for text, own in zip(texts, spans, strict=True)]

    def _windows(self, text: str) -> list[Window]:
        return windows(self.tokenizer, text, self.facts.window, self.facts.overlap)

    def _spans(self, parts: Sequence[Sequence[Window]], side: str) -> list[list[Span]]:
        """The entities of texts in windows: the likeliest tag of each word, read as tags of any file are."""
        read = [(number, window) for number, own in enumerate(parts) for window in own if window.words]
        words: list[list[tuple[tuple[int, int], str]]] = [[] for _ in parts]
        if read:
            numbers = iter(self._logits([window for _, window in read], side).argmax(-1).tolist())
            for number, window in read:
                words[number] += [(word, self.facts.labels[next(numbers)]) for word in window.words]
        return [
            tags.spans_of([word for word, _ in sorted(own)], [tag for _, tag in sorted(own)]) if own else []
            for own in words
        ]

    def _logits(self, read: Sequence[Window], side: str) -> Tensor:
        """[words, tags]"""
        pad = self.tokenizer.pad_token_id or 0
        ids, places = [window.ids for window in read], [window.places for window in read]
        head = self.heads.get(side)
        if head is None:
            return frozen_head.logits_at(self.tuned, ids, places, pad)
        if not head.weight.any():  # says the same of every word
            return head.bias.expand(sum(map(len, places)), -1)
        return head.logits(frozen_head.features_at(self.encoder, ids, places, pad))
