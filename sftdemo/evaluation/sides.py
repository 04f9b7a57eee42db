"""What metrics are taken of: the references and labels of some rows, and one side's answers to them; shared work once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sftdemo.evaluation import json_metrics, label_sets, labels, metrics, row_statistics
from sftdemo.evaluation.words import References


@dataclass(frozen=True)
class Targets:
    """What the answers of both sides are compared with: n rows, `language` resolved.

    `labels` are the rows' true labels, all of them among the declared `label_names`, `label_sets` those of rows that may have
    several; `reference_tokens` and
    `reference_bytes` the lengths of each row's first reference, for scores by likelihood.
    """

    references: References
    language: str = "en"
    tokenizer: str | None = None
    labels: Sequence[str] | None = None
    label_names: Sequence[str] = ()
    label_sets: Sequence[Sequence[str]] | None = None
    reference_tokens: Sequence[int] | None = None
    reference_bytes: Sequence[int] | None = None

    @cached_property
    def bleu(self) -> Any:
        return metrics.bleu_engine(self.references, self.language, self.tokenizer)

    @cached_property
    def chrf(self) -> Any:
        return metrics.chrf_engine()

    @cached_property
    def ter(self) -> Any:
        return metrics.ter_engine(self.references, self.language)

    @cached_property
    def true_labels(self) -> list[int]:
        """Each row's label by its place among the names; UserError where it is none of them."""
        return labels.parse_true_labels(self.labels or (), self.label_names)

    @cached_property
    def known_labels(self) -> list[str]:
        """All labels of rows that may have several."""
        return sorted({label for labels in self.label_sets or () for label in labels})

    @cached_property
    def true_sets(self) -> list[frozenset[int]]:
        """The labels of each row, by their place among these."""
        place = {label: number for number, label in enumerate(self.known_labels)}
        return [frozenset(place[label] for label in labels) for labels in self.label_sets or ()]

    @cached_property
    def are_json(self) -> bool:
        return json_metrics.are_json(self.references)

    @cached_property
    def have_entities(self) -> bool:
        return self.are_json and json_metrics.has_entities(self.references)

    @cached_property
    def are_lists(self) -> bool:
        return self.are_json and json_metrics.are_lists(self.references)

    @cached_property
    def are_brief(self) -> bool:
        """Whether TER of rows with such references is quick; it takes brief answers too."""
        return metrics.ter_is_quick([text for texts in self.references for text in texts], len(self.references))


def sets_of(rows: Sequence[Mapping[str, Any]]) -> list[list[str]] | None:
    """The labels of rows of outputs.jsonl that may have several; None where one has none."""
    sets = [row.get("labels") for row in rows]
    return [labels for labels in sets if labels] if all(sets) else None


@dataclass(frozen=True)
class Side:
    """One side's answers, a text a row. `nats` are the negative log-likelihoods of the first references under its model,
    `likeliest` the labels it holds likeliest, by the kind of likelihood."""

    targets: Targets
    texts: Sequence[str]
    nats: Sequence[float] | None = None
    likeliest: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        metrics.check(self.texts, self.targets.references)

    @property
    def references(self) -> References:
        return self.targets.references

    @property
    def has_labels(self) -> bool:
        return self.targets.labels is not None

    @cached_property
    def is_brief(self) -> bool:
        return self.targets.are_brief and metrics.ter_is_quick(self.texts, len(self.texts))

    @cached_property
    def rouge(self) -> list[dict[str, metrics.Overlap]]:
        return metrics.rouge_rows(self.texts, self.references, metrics.ALL_ROUGE)

    @cached_property
    def labels(self) -> list[int]:
        """Which label each answer is, by its place among the names; the number of names where it is none."""
        return labels.parse_labels(self.texts, self.targets.label_names)

    @cached_property
    def lenient_labels(self) -> list[int]:
        """Which label a reader would say each answer gives."""
        return labels.parse_lenient(self.texts, self.targets.label_names)

    @property
    def has_sets(self) -> bool:
        return self.targets.label_sets is not None

    @cached_property
    def sets(self) -> list[tuple[frozenset[int], int]]:
        """The labels that each answer names, where a row may have several, and how many others it names."""
        return label_sets.parse(self.texts, self.targets.known_labels)

    @property
    def set_counts(self) -> list[tuple[int, int, int]]:
        return label_sets.counts(self.sets, self.targets.true_sets)

    @property
    def set_rows(self) -> Any:
        return label_sets.by_label(self.sets, self.targets.true_sets, len(self.targets.known_labels))

    def right(self, places: Sequence[int]) -> list[float]:
        """1 for each row whose label is the true one."""
        return [float(place == true) for place, true in zip(places, self.targets.true_labels, strict=True)]

    def likely(self, kind: str) -> list[float]:
        """1 for each row whose likeliest label is the true one."""
        pairs = zip(self.likeliest[kind], self.targets.labels or (), strict=True)
        return [float(label == true) for label, true in pairs]

    @property
    def label_rows(self) -> Any:
        names = len(self.targets.label_names)
        return row_statistics.label_rows(self.labels, self.targets.true_labels, names)

    @cached_property
    def classes(self) -> metrics.Scores:
        return metrics.label_scores(
            self.targets.label_names, self.targets.true_labels, self.labels, self.lenient_labels
        )

    @cached_property
    def json(self) -> list[json_metrics.Row]:
        return json_metrics.json_rows(self.texts, self.references)
