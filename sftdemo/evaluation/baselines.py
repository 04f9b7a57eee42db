"""What needs no model at all: always the label most frequent in training, or the prompt copied, whole or its start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import Any

from sftdemo.encoding.thoughts import scored_of
from sftdemo.evaluation import registry, words
from sftdemo.evaluation.scoring import side_scores
from sftdemo.evaluation.sides import Side, Targets

Row = Mapping[str, Any]


def majority_label(counts: Mapping[str, int], labels: Collection[str]) -> str:
    """The one of `labels` that most training rows have, by `counts`; the first by name of labels equally frequent, so that
    the same data always says the same, and of all of them where none occurs in training."""
    return max(sorted(set(counts) & set(labels)), key=counts.__getitem__, default=min(labels))


def copied(row: Row) -> str:
    """The last message of the prompt, as it is; "" without one."""
    return str(row["messages"][-1]["content"]) if row.get("messages") else ""


def scored(outputs: Sequence[Row], targets: Targets, trained: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """{"majority": …} with labels and known counts, else {"copy": …, "lead": …}; each {"answer" or "words", scores…}."""
    baselines: dict[str, tuple[dict[str, Any], list[str]]] = {}
    labels = targets.label_names
    if labels and trained:
        label = majority_label(trained, labels)
        baselines["majority"] = {"answer": label}, [label] * len(outputs)
    elif not labels:
        prompts = [copied(row) for row in outputs]
        pattern = words.units()
        length = round(median(len(pattern.findall(texts[0])) for texts in targets.references))
        baselines["copy"] = {}, prompts
        baselines["lead"] = {"words": length}, [_lead(text, length, pattern) for text in prompts]
    results = {}
    for name, (facts, texts) in baselines.items():
        side = Side(targets, [scored_of(row, text) for row, text in zip(outputs, texts, strict=True)])
        scores = side_scores(side, registry.statistics(side))
        results[name] = facts | {key: value for key, value in scores.items() if isinstance(value, float)}
    return results


def _lead(text: str, length: int, pattern: Any) -> str:
    """The first `length` words or Han characters of a text."""
    end = 0
    for count, unit in enumerate(pattern.finditer(text)):
        if count >= length:
            return text[:end]
        end = unit.end()
    return text
