"""What answers are like beside how near they come: their words against the reference's, variety, length, repetition.

Words are ROUGE's: ASCII in lower case without punctuation, Chinese and Thai by the character.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Sequence

from sftdemo.evaluation.metrics import Scores, check, mean
from sftdemo.evaluation.words import References, Tokenizer

_ARTICLES = {"a", "an", "the"}
_REPEATED = 4  # Welleck et al. (2020) count repeated 4-grams
SIGNATURE = (
    f"tok:ascii-words+chars-without-spaces|norm:nfkc,case,punctuation,articles|refs:max|repetition:{_REPEATED}-grams"
)


@functools.cache
def _tokenizer() -> Tokenizer:
    return Tokenizer()


@functools.lru_cache(maxsize=2**15)  # two scores and both sides ask for the same references
def normal(text: str) -> tuple[str, ...]:
    """The words as SQuAD compares them (Rajpurkar et al. 2016): no case, punctuation or articles; the text itself where
    nothing else is left."""
    text = unicodedata.normalize("NFKC", text)
    words = tuple(word for word in _tokenizer().tokenize(text) if word not in _ARTICLES)
    return words or (text.strip().casefold(),)


def f1(predicted: Sequence[str], wanted: Sequence[str]) -> float:
    """The harmonic mean of the shares of words in common, 0 to 1."""
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def token_f1_rows(predictions: Sequence[str], references: References) -> list[float]:
    """Each row's F1 of words with the nearest reference, 0 to 1."""
    return [
        max(f1(normal(text), normal(reference)) for reference in texts)
        for text, texts in zip(predictions, references, strict=True)
    ]


def normal_match_rows(predictions: Sequence[str], references: References) -> list[float]:
    """1 for each row whose words are those of a reference, case, punctuation and articles aside."""
    return [
        float(normal(text) in [normal(reference) for reference in texts])
        for text, texts in zip(predictions, references, strict=True)
    ]


def holds_rows(predictions: Sequence[str], references: References) -> list[float]:
    """1 for each row where the words of a reference stand in the answer, one after another."""
    tokenize = _tokenizer().tokenize

    def words(text: str) -> str:
        return f" {' '.join(tokenize(text))} "

    return [
        float(any(words(reference) in words(text) for reference in texts))
        for text, texts in zip(predictions, references, strict=True)
    ]


def _ngrams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + order]) for start in range(len(words) - order + 1)]


def _distinct(texts: Sequence[Sequence[str]], order: int) -> float:
    """Different n-grams as a share of all, over all answers together (Li et al. 2016)."""
    ngrams = [ngram for words in texts for ngram in _ngrams(words, order)]
    return len(set(ngrams)) / max(len(ngrams), 1)


def answer_scores(*, predictions: Sequence[str], references: References) -> Scores:
    """{"exact_match_normalized", "token_f1", "distinct_1", "distinct_2", "length_ratio", "repetition", "signature"}."""
    check(predictions, references)
    return {
        "exact_match_normalized": mean(normal_match_rows(predictions, references)),
        "token_f1": mean(token_f1_rows(predictions, references)),
        **shape(predictions, references),
        "signature": SIGNATURE,
    }


def shape(predictions: Sequence[str], references: References) -> Scores:
    """{"distinct_1", "distinct_2", "length_ratio", "repetition"}: what answers are like, all of them together.

    `length_ratio` is all answers' words over all references' (their mean where a row has several): under 1, the answers
    are shorter. `repetition` is the share of 4-grams that an answer has said before.
    """
    tokenize = _tokenizer().tokenize
    texts = [tokenize(text) for text in predictions]
    wanted = sum(mean([len(tokenize(reference)) for reference in row]) for row in references)
    spans = [_ngrams(words, _REPEATED) for words in texts]
    return {
        "distinct_1": _distinct(texts, 1),
        "distinct_2": _distinct(texts, 2),
        "length_ratio": sum(map(len, texts)) / max(wanted, 1),
        "repetition": sum(len(span) - len(set(span)) for span in spans) / max(sum(map(len, spans)), 1),
    }
