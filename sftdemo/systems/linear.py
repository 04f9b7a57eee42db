"""A linear model of words and characters: what a second of training gives on labelled text."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sftdemo.errors import UserError
from sftdemo.systems.simple import need_labels
from sftdemo.systems.system import Answers, Task, prompt_text

if TYPE_CHECKING:
    from sftdemo.data import Example

# Inverse strength of the penalty: the best on the validation rows is taken, the middle one where there are none.
STRENGTHS = (1.0, 4.0, 16.0)
RARE_FROM = 500  # training rows, from which on what stands in one row alone is left out


@dataclass(frozen=True)
class Linear:
    """Logistic regression on `Features`."""

    name: str = "linear"

    def check(self, task: Task) -> None:
        need_labels(self.name, task)
        if len(task.label_counts) < 2:
            raise UserError("linear needs training rows of two labels or more, and these have one; leave it out.")

    def identity(self) -> Any:
        return list(STRENGTHS)

    def answer(self, task: Task) -> Answers:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # sparse products gain nothing from more, and threads spin for each other
            began = time.perf_counter()
            model, features = fitted(task)
            trained = time.perf_counter()
            texts = model.predict(features.values([prompt_text(row["messages"]) for row in task.rows])).tolist()
            seconds = time.perf_counter() - trained
        return Answers(texts, seconds, trained - began, len(pickle.dumps((model, features))))


def fitted(task: Task) -> tuple[Any, Features]:
    """The model with the penalty that is best on the validation rows, and the features it takes."""
    from sklearn.linear_model import LogisticRegression

    train = [example for example in task.train if example.get("label")]
    validation = [example for example in task.validation if example.get("label")]
    texts, labels = _prompts(train), [example["label"] for example in train]
    features, learned = Features.fitted(texts, "linear")
    strengths = STRENGTHS if validation else STRENGTHS[1:2]
    models = [LogisticRegression(C=strength, max_iter=300).fit(learned, labels) for strength in strengths]
    held_out = features.values(_prompts(validation)) if validation else None
    right = [example["label"] for example in validation]
    return max(models, key=lambda model: model.score(held_out, right) if validation else 0.0), features


@dataclass(frozen=True)
class Features:
    """Tf-idf of words (1-2) and of characters within words (2-5); Chinese, without spaces, is told by the latter."""

    vectorizers: list[Any]

    @classmethod
    def fitted(cls, texts: Sequence[str], name: str) -> tuple[Self, Any]:
        """Those that tell these texts apart, and the texts' own values, a sparse row for each; UserError, for the system
        `name`, where there are none."""
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import TfidfVectorizer

        # What stands in all rows, as an instruction does, tells none apart.
        options = {"min_df": 2 if len(texts) >= RARE_FROM else 1, "max_df": 0.99, "sublinear_tf": True}
        vectorizers, values = [], []
        for vectorizer in (
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options),
            TfidfVectorizer(ngram_range=(2, 5), analyzer="char_wb", **options),
        ):
            try:
                values.append(vectorizer.fit_transform(texts))
            except ValueError:  # no word, say, is in two rows; characters may be
                continue
            vectorizers.append(vectorizer)
        if not vectorizers:
            raise UserError("{name} finds nothing in the training rows that tells them apart; leave it out.", name=name)
        return cls(vectorizers), hstack(values).tocsr()

    def values(self, texts: Sequence[str]) -> Any:
        """A sparse row for each text."""
        from scipy.sparse import hstack

        return hstack([vectorizer.transform(texts) for vectorizer in self.vectorizers]).tocsr()


def _prompts(examples: Sequence[Example]) -> list[str]:
    return [prompt_text(example["messages"][:-1]) for example in examples]
