"""The scores behind Hugging Face's metric interface, for programs built on it: subclasses of `evaluate.Metric`, made
directly, never loaded by name.

An evaluation of base and tuned asks the registry itself, since it needs each row's statistics and not the scores alone.
Importing this module takes seconds, as `evaluate` imports all of transformers. An instance is for one thread; make one for each evaluation. Nothing is downloaded, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import datasets
import evaluate

from sftdemo.evaluation import answer_metrics, json_metrics, metrics
from sftdemo.evaluation.metrics import Scores

_TEXT = datasets.Value("string")


class _Measure(evaluate.Metric):  # type: ignore[misc]
    """A function of `metrics` with its options; `compute(predictions=, references=)` returns what it returns."""

    function: ClassVar[Callable[..., Scores]]
    reference: ClassVar[Any] = datasets.List(_TEXT)

    def __init__(self, **options: Any) -> None:
        self.options = options
        # A file per instance would have threads wait for its lock.
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.function.__doc__ or "",
            citation="",
            inputs_description="predictions: texts; references: a list of texts for each, or its label.",
            features=datasets.Features({"predictions": _TEXT, "references": self.reference}),
        )

    def _build_data_dir(self) -> str:
        """No folder: `evaluate` would make an empty one in ~/.cache even for what it keeps in memory."""
        return ""

    def _compute(self, *, predictions: Any, references: Any) -> Scores:
        return type(self).function(predictions=predictions, references=references, **self.options)


class Bleu(_Measure):
    function = staticmethod(metrics.bleu)


class Chrf(_Measure):
    function = staticmethod(metrics.chrf)


class Ter(_Measure):
    function = staticmethod(metrics.ter)


class Rouge(_Measure):
    function = staticmethod(metrics.rouge)


class ExactMatch(_Measure):
    function = staticmethod(metrics.exact_match)


class Answers(_Measure):
    function = staticmethod(answer_metrics.answer_scores)


class Json(_Measure):
    function = staticmethod(json_metrics.json_scores)


class Classification(_Measure):
    function = staticmethod(metrics.classification)
    reference = _TEXT
