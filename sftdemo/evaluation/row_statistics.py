"""Scores of sums over rows: every row's counts, for the whole corpus at once, and the score of any rows' sum.

n-grams are counted by sorting numbers that stand for them: the engines' own loops take ten times as long, and rows of
several references still go through them. Tests hold both ways to the same counts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]
    Tokens = np.ndarray[Any, np.dtype[np.int64]]

_CHUNK = 1024  # texts counted together, so that what is sorted stays in the processor's cache


# Counting


def characters(texts: Sequence[str]) -> list[Tokens]:
    """Each text's code points."""
    import numpy as np

    return [np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64) for text in texts]


def numbered(*sides: Sequence[Sequence[str]]) -> list[list[Tokens]]:
    """Token lists as lists of numbers, the same token the same number on every side."""
    import numpy as np

    ids: dict[str, int] = {}
    return [
        [np.array([ids.setdefault(token, len(ids)) for token in tokens], np.int64) for tokens in side] for side in sides
    ]


def shared(predicted: Sequence[Tokens], wanted: Sequence[Tokens], orders: int) -> Array:
    """How many n-grams of each order two lists of n texts hold and share: (n, orders, 3) of [predicted, wanted, shared]."""
    import numpy as np

    counts = np.zeros((len(predicted), orders, 3))
    for start in range(0, len(predicted), _CHUNK):
        part = slice(start, start + _CHUNK)
        counts[part] = _shared(predicted[part], wanted[part], orders)
    return counts


def _shared(predicted: Sequence[Tokens], wanted: Sequence[Tokens], orders: int) -> Array:
    import numpy as np

    n = len(predicted)
    lengths = np.array([len(tokens) for tokens in (*predicted, *wanted)])
    alphabet, tokens = np.unique(np.concatenate([*predicted, *wanted]), return_inverse=True)
    ends = np.repeat(lengths.cumsum(), lengths)
    left = ends - np.arange(len(tokens))  # tokens from here to the end of the text
    second = (np.arange(len(tokens)) >= lengths[:n].sum()).astype(np.int64)
    # An n-gram's code is its row, then its tokens, in base `width`: row = owner[code // factor], exact in 62 bits.
    owner, factor, width = np.arange(n), 1, len(alphabet)
    code, following = np.repeat(np.tile(owner, 2), lengths), tokens
    counts = np.zeros((n, orders, 3))
    for order in range(orders):
        counts[:, order, 0] = np.maximum(lengths[:n] - order, 0)
        counts[:, order, 1] = np.maximum(lengths[n:] - order, 0)
        if len(owner) * factor * width >= 2**62:
            codes, code = np.unique(code, return_inverse=True)
            owner, factor = owner[codes // factor], 1
        code, factor = code * width + following, factor * width
        fits = left > order
        following = np.append(following[1:], 0)
        if not fits.any():
            continue
        keys = np.sort(2 * code[fits] + second[fits])
        starts = np.flatnonzero(np.diff(keys >> 1, prepend=-1))
        of_wanted = np.add.reduceat(keys & 1, starts)
        of_predicted = np.diff(starts, append=len(keys)) - of_wanted
        rows = owner[(keys[starts] >> 1) // factor]
        counts[:, order, 2] = np.bincount(rows, np.minimum(of_predicted, of_wanted), n)
    return counts


# What each row adds


def _single(references: Sequence[Sequence[str]]) -> bool:
    return all(len(texts) == 1 for texts in references)


def transposed(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """sacrebleu's order: the first reference of every row, then the second, None where a row has fewer."""
    most = max(map(len, references))
    return [[texts[k] if k < len(texts) else None for texts in references] for k in range(most)]


def _tokenize(engine: Any) -> Callable[[str], list[str]]:
    """The engine's tokens of a text. 13a looks no further than a word (but for "-" before a new line), so each word is
    cut once."""

    def whole(text: str) -> list[str]:
        return engine._preprocess_segment(text).split()  # type: ignore[no-any-return]

    word = functools.cache(whole)
    if engine.tokenizer.signature() != "13a":
        return whole
    return lambda text: whole(text) if "-\n" in text else [token for part in text.split() for token in word(part)]


def plain_rows(engine: Any, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """What sacrebleu itself sums, row by row; also sets what its signature says of the references.

    Private there, but what its own significance tests rest on.
    """
    import numpy as np

    statistics: Array = np.asarray(engine._extract_corpus_statistics(predictions, transposed(references)), np.float64)
    return statistics


def bleu_rows(engine: Any, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """[length, reference length, matches…, totals…] of each row: (n, 2 + 2 · order)."""
    import numpy as np

    if not _single(references):
        return plain_rows(engine, predictions, references)
    engine.num_refs = 1
    tokenize = _tokenize(engine)
    predicted, wanted = [tokenize(text) for text in predictions], [tokenize(texts[0]) for texts in references]
    predicted_ids, wanted_ids = numbered(predicted, wanted)
    counts = shared(predicted_ids, wanted_ids, engine.max_ngram_order)
    return np.column_stack([counts[:, 0, :2], counts[:, :, 2], counts[:, :, 0]])


def chrf_rows(engine: Any, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """[predicted, wanted, shared] for each order of each row: (n, 3 · orders)."""
    if not _single(references) or engine.word_order or engine.whitespace:
        return plain_rows(engine, predictions, references)
    engine.num_refs = 1
    predicted = ["".join(engine._preprocess_segment(text).split()) for text in predictions]
    wanted = ["".join(engine._preprocess_segment(texts[0]).split()) for texts in references]
    counts = shared(characters(predicted), characters(wanted), engine.char_order)
    counts[:, :, 0] *= counts[:, :, 1] > 0  # as the engine: no hits are missed where the reference has no such n-gram
    return counts.reshape(len(counts), -1)


def label_rows(predicted: Sequence[int], true: Sequence[int], classes: int) -> Any:
    """[right…, predicted…, true…] of each row, sparse (n, 3 · classes): at most three ones a row."""
    import numpy as np
    from scipy.sparse import csr_matrix

    guess, truth = np.asarray(predicted), np.asarray(true)
    rows = np.arange(len(truth))
    parsed, right = guess < classes, guess == truth
    columns = np.concatenate([truth[right], classes + guess[parsed], 2 * classes + truth])
    ones = np.concatenate([rows[right], rows[parsed], rows])
    return csr_matrix((np.ones(len(ones)), (ones, columns)), shape=(len(truth), 3 * classes))


def with_count(values: Array) -> Array:
    """[value, 1] of each row, of (n, 1)."""
    import numpy as np

    return np.column_stack([values, np.ones(len(values))])


# The score of a sum


def mean_scores(sums: Array) -> Array:
    """The mean, of sums [value, rows]: (k, 2) → (k,)."""
    scores: Array = sums[:, 0] / sums[:, 1]
    return scores


def bleu_scores(sums: Array) -> Array:
    """sacrebleu's corpus BLEU (exp smoothing) of sums [length, reference length, matches…, totals…]: (k, ·) → (k,)."""
    import numpy as np

    order = sums.shape[1] // 2 - 1
    length, wanted = sums[:, 0], sums[:, 1]
    matches, totals = sums[:, 2 : 2 + order], sums[:, 2 + order :]
    # Each order without a match counts half as much as the one before, in place of 0.
    misses = 2.0 ** np.cumsum(matches == 0, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(matches > 0, matches, 1 / misses) / totals).mean(axis=1)
        brevity = np.minimum(0, 1 - wanted / length)
        scores = 100 * np.exp(brevity + logs)
    possible = (matches.sum(axis=1) > 0) & (totals > 0).all(axis=1)
    return np.where(possible, np.minimum(scores, 100), 0.0)


def chrf_scores(sums: Array, beta: int = 2) -> Array:
    """sacrebleu's corpus chrF of sums [predicted, wanted, shared] for each order: (k, 3 · orders) → (k,)."""
    import numpy as np

    predicted, wanted, matches = (sums[:, start::3] for start in range(3))
    used = (predicted > 0) & (wanted > 0)
    orders = np.maximum(used.sum(axis=1), 1)
    precision = (matches / np.maximum(predicted, 1) * used).sum(axis=1) / orders
    recall = (matches / np.maximum(wanted, 1) * used).sum(axis=1) / orders
    denominator = beta**2 * precision + recall
    scores: Array = 100 * (1 + beta**2) * precision * recall / np.where(denominator > 0, denominator, 1)
    return scores


def ter_scores(sums: Array) -> Array:
    """sacrebleu's TER of sums [edits, reference length]: (k, 2) → (k,)."""
    import numpy as np

    edits, wanted = sums[:, 0], sums[:, 1]
    return np.where(wanted > 0, 100 * edits / np.where(wanted > 0, wanted, 1), 100.0 * (edits > 0))


def macro_f1_scores(sums: Array) -> Array:
    """The mean F1 of the classes that occur, of sums [right…, predicted…, true…]: (k, 3 · classes) → (k,)."""
    import numpy as np

    right, predicted, true = np.split(sums, 3, axis=1)
    present = true > 0
    f1 = 2 * right / np.maximum(predicted + true, 1)
    scores: Array = (f1 * present).sum(axis=1) / present.sum(axis=1)
    return scores


def micro_f1_scores(sums: Array) -> Array:
    """F1 of sums [right, invented, missing]: (k, 3) → (k,); 1 where nothing was to be found and nothing was invented."""
    import numpy as np

    whole = 2 * sums[:, 0] + sums[:, 1] + sums[:, 2]
    scores: Array = np.where(whole > 0, 2 * sums[:, 0] / np.where(whole > 0, whole, 1), 1.0)
    return scores


def perplexity_scores(sums: Array) -> Array:
    """exp of the mean nats a token, of sums [nats, tokens]: (k, 2) → (k,)."""
    import numpy as np

    scores: Array = np.exp(np.minimum(sums[:, 0] / sums[:, 1], 700.0))  # beyond that a float has no room
    return scores


def bits_per_byte_scores(sums: Array) -> Array:
    """Bits a byte of the reference, of sums [nats, bytes]: (k, 2) → (k,); tokenizers don't matter to it."""
    import numpy as np

    scores: Array = sums[:, 0] / np.log(2) / sums[:, 1]
    return scores
