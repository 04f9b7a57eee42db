"""A run that gives texts labels, in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from sftdemo.encoding.label_rows import windows
from sftdemo.inference.labeller import Labeller
from sftdemo.model import calibration, frozen_head
from sftdemo.model.fresh_labels import APPLIES


class Classifier(Labeller):
    """Gives a text its labels."""

    def label(self, texts: Sequence[str], side: str) -> list[dict[str, float]]:
        """The probability of each label for each text, calibrated, those of a long text's windows averaged."""
        places, ids = self._windows(self.own_texts(texts))
        own = self._probabilities(self._logits(ids, side), places, self.facts.temperatures[side])
        return [dict(zip(self.facts.labels, row, strict=True)) for row in own.tolist()]

    def answer_rows(
        self, texts: Sequence[str], rows: Sequence[Mapping[str, Any]], sides: Sequence[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """By side {side: label, "{side}_probabilities", "{side}_confidence" before calibration, and where the row has a
        label "{side}_nll" in nats and "{side}_likelihood"} of each row."""
        places, ids = self._windows(texts)
        for side in sides:
            logits = self._logits(ids, side)
            calibrated = self._probabilities(logits, places, self.facts.temperatures[side]).tolist()
            plain = self._probabilities(logits, places, 1.0).tolist()
            yield [
                self._answer(side, own, before, row.get("label"))
                for row, own, before in zip(rows, calibrated, plain, strict=True)
            ]

    def _answer(self, side: str, own: list[float], before: list[float], label: str | None) -> dict[str, Any]:
        labels = self.facts.labels
        answer = self.text(own)
        values: dict[str, Any] = {
            side: answer,
            f"{side}_probabilities": {name: round(value, 6) for name, value in zip(labels, own, strict=True)},
            f"{side}_confidence": round(max(before), 6),
        }
        if label is not None and not self.facts.several:
            values[f"{side}_likelihood"] = answer
            if label in labels:
                values[f"{side}_nll"] = -math.log(max(own[labels.index(label)], 1e-12))
        return values

    def text(self, probabilities: Sequence[float]) -> str:
        """The label that is likeliest; of several all that apply, with commas."""
        if self.facts.several:
            return ", ".join(
                label for label, value in zip(self.facts.labels, probabilities, strict=True) if value >= APPLIES
            )
        return self.facts.labels[max(range(len(probabilities)), key=probabilities.__getitem__)]

    def _windows(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """(which text each window is of, its token ids)."""
        places, ids = [], []
        for place, text in enumerate(texts):
            for window in windows(self.tokenizer, text, self.facts.window, self.facts.overlap):
                places.append(place)
                ids.append(window)
        return places, ids

    def _logits(self, ids: list[list[int]], side: str) -> Tensor:
        pad = self.tokenizer.pad_token_id or 0
        if head := self.heads.get(side):
            if not head.weight.any():  # says the same of every text
                return head.bias.expand(len(ids), -1)
            return head.logits(frozen_head.features(self.encoder, ids, pad, self.facts.pooling))
        return frozen_head.logits_of(self.tuned, ids, pad)

    def _probabilities(self, logits: Tensor, places: list[int], temperature: float) -> Tensor:
        return calibration.probabilities(logits, places, temperature, self.facts.several)
