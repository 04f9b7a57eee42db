"""BLEU, chrF, TER, ROUGE, exact match and label scores as pure functions; sacrebleu and rouge-score are the engines.

Every score takes `predictions` (n texts) and `references` (n lists of texts, one or more each; labels for
`classification`) by keyword, and returns plain floats with the `signature` that tells how they were made.
BLEU, chrF, TER and ROUGE run from 0 to 100, rates from 0 to 1.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sftdemo import sums
from sftdemo.errors import UsageError, UserError
from sftdemo.sums import transposed as transposed

Scores = dict[str, Any]
References = Sequence[Sequence[str]]

LANGUAGES = ("auto", "en", "zh")
# sacrebleu's other tokenizers download a model or need MeCab.
TOKENIZERS = ("13a", "zh", "intl", "char", "none")
ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")
UNPARSED = "unparsed"

# English with 1 Han character in 10 words still needs the Chinese tokenizer, and loses nothing by it.
_HAN_SHARE = 0.1
_FULL_ORDER = 4


def _check(predictions: Sequence[str], references: References) -> None:
    """The engines cut unequal lists short and take a string for a list of references; both give wrong numbers."""
    if not predictions:
        raise UserError("There are no rows to score; give at least one.")
    if len(predictions) != len(references):
        raise UserError(f"{len(predictions)} predictions but {len(references)} lists of references; give one each.")
    for row, texts in enumerate(references, 1):
        if isinstance(texts, str) or not texts:
            raise UserError(f"Row {row}: the references are {texts!r}; give a list of at least one text.")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# Words and characters


@functools.cache
def _pattern() -> Any:
    """A Han or kana character, or a run of other letters, marks and digits."""
    import regex  # type: ignore[import-untyped]

    return regex.compile(
        r"[\p{Han}\p{Hiragana}\p{Katakana}]|[[\p{L}\p{M}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}]]+", regex.V1
    )


def detect_language(texts: Sequence[str]) -> str:
    """ "zh" where Han characters are at least a tenth of all words and characters; else "en", for all spaced writing."""
    if all(map(str.isascii, texts)):
        return "en"
    units = [unit for text in texts for unit in _pattern().findall(text)]
    han = sum("㐀" <= unit <= "鿿" or unit > "\U0001ffff" for unit in units)
    return "zh" if units and han >= _HAN_SHARE * len(units) else "en"


def resolve_language(language: str, references: References) -> str:
    """The language asked for, or the one that the references are in (predictions may be anything)."""
    if language not in LANGUAGES:
        raise UsageError(f"language is {language!r}; choose one of: {', '.join(LANGUAGES)}.")
    return language if language != "auto" else detect_language([text for texts in references for text in texts])


def _ascii_words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


class Tokenizer:
    """Words for ROUGE: ASCII as rouge-score cuts it, Han by the character, other scripts in lower-case words.

    rouge-score alone drops all but a-z and 0-9: it gives 0 for identical Chinese, and cuts French words apart.
    """

    def __init__(self, stem: bool = False) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        # Without a stemmer rouge-score's tokens are plain runs of letters and digits; finding these is faster.
        self._ascii: Callable[[str], list[str]] = DefaultTokenizer(stem).tokenize if stem else _ascii_words
        self.tokenize = functools.lru_cache(maxsize=1024)(self._tokenize)

    def _tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return self._ascii(text)
        words: list[str] = _pattern().findall(unicodedata.normalize("NFC", text.lower()))
        return [token for word in words for token in (self._ascii(word) if word.isascii() else [word])]


# Text against references


def bleu_engine(references: References, language: str = "auto", tokenizer: str | None = None, **options: Any) -> Any:
    """The sacrebleu.BLEU that scores these references.

    Its defaults hold, but where every reference is shorter than 4 tokens the n-grams stop at the longest one
    (`order` in the signature): with 4-grams a perfect corpus of short answers would score 0.
    """
    from sacrebleu.metrics import BLEU

    if tokenizer is None:
        tokenizer = "zh" if resolve_language(language, references) == "zh" else "13a"
    if tokenizer not in TOKENIZERS:
        raise UsageError(f"tokenizer is {tokenizer!r}; choose one of: {', '.join(TOKENIZERS)}.")
    engine = BLEU(tokenize=tokenizer, force=True, **options)
    if "max_ngram_order" not in options:
        longest = 1
        for text in (text for texts in references for text in texts):
            longest = max(longest, len(engine.tokenizer(text.rstrip()).split()))
            if longest >= _FULL_ORDER:
                break
        engine.max_ngram_order = min(longest, _FULL_ORDER)
    return engine


def bleu(
    *,
    predictions: Sequence[str],
    references: References,
    language: str = "auto",
    tokenizer: str | None = None,
    **options: Any,
) -> Scores:
    """Corpus BLEU: {"bleu", "signature"}. `options` are those of sacrebleu.BLEU."""
    _check(predictions, references)
    engine = bleu_engine(references, language, tokenizer, **options)
    rows = sums.bleu_rows(engine, list(predictions), references)
    score = engine._compute_score_from_stats(rows.sum(axis=0).tolist()).score
    signature = engine.get_signature()
    if engine.max_ngram_order != _FULL_ORDER:
        signature.update("order", engine.max_ngram_order)
    return {"bleu": min(float(score), 100.0), "signature": str(signature)}  # the engine gives 100.00000000000004


def sentence_bleu(
    prediction: str, references: Sequence[str], language: str = "auto", tokenizer: str | None = None, **options: Any
) -> float:
    """BLEU of one row, over the n-gram orders that it is long enough for."""
    _check([prediction], [references])
    options = {"max_ngram_order": _FULL_ORDER, "effective_order": True} | options
    engine = bleu_engine([references], language, tokenizer, **options)
    return min(float(engine.sentence_score(prediction, list(references)).score), 100.0)


def chrf(*, predictions: Sequence[str], references: References, **options: Any) -> Scores:
    """Corpus chrF: {"chrf", "signature"}. `options` are those of sacrebleu.CHRF (word_order=2 for chrF++)."""
    from sacrebleu.metrics import CHRF

    _check(predictions, references)
    engine = CHRF(**options)
    rows = sums.chrf_rows(engine, list(predictions), references)
    score = engine._compute_score_from_stats(rows.sum(axis=0).tolist()).score
    return {"chrf": float(score), "signature": str(engine.get_signature())}


def sentence_chrf(prediction: str, references: Sequence[str], **options: Any) -> float:
    return float(chrf(predictions=[prediction], references=[references], **options)["chrf"])


def ter(*, predictions: Sequence[str], references: References, language: str = "auto", **options: Any) -> Scores:
    """Translation edit rate, 0 is perfect: {"ter", "signature"}. Chinese is edited by the character."""
    from sacrebleu.metrics import TER

    _check(predictions, references)
    if resolve_language(language, references) == "zh":
        options = {"normalized": True, "asian_support": True} | options
    engine = TER(**options)
    score = engine.corpus_score(list(predictions), transposed(references)).score
    return {"ter": float(score), "signature": str(engine.get_signature())}


class Overlap(NamedTuple):
    """What a prediction shares with a reference, each from 0 to 100."""

    precision: float
    recall: float
    f: float


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table at a time in the bits of one integer
    (Hyyrö 2004): rouge-score's table takes 100 times as long on answers of 250 words."""
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    full = (1 << len(first)) - 1
    free = full
    for token in second:
        taken = free & places.get(token, 0)
        free = (free + taken | free - taken) & full
    return len(first) - free.bit_count()


def _overlap(common: float, predicted: int, wanted: int) -> Overlap:
    precision, recall = common / max(predicted, 1), common / max(wanted, 1)
    f = 2 * precision * recall / (precision + recall) if common else 0.0
    return Overlap(100 * precision, 100 * recall, 100 * f)


def rouge_rows(
    predictions: Sequence[str], references: References, kinds: Sequence[str] = ROUGE_KINDS, stem: bool = False
) -> list[dict[str, Overlap]]:
    """For each row and kind (rouge1 to rouge9, rougeL, rougeLsum) the overlap with the reference of the highest F.

    rouge-score's engine does what its sums can't be taken from: Lsum of several lines.
    """
    from rouge_score.rouge_scorer import RougeScorer

    _check(predictions, references)
    tokenizer = Tokenizer(stem)
    scorer = RougeScorer(["rougeLsum"], tokenizer=tokenizer)
    pairs = [(text, one) for text, texts in zip(predictions, references, strict=True) for one in texts]
    answers, targets = ([tokenizer.tokenize(pair[side]) for pair in pairs] for side in (0, 1))
    order = max([int(kind[5:]) for kind in kinds if kind[5:].isdigit()], default=0)
    shared = sums.shared(*sums.numbered(answers, targets), order).tolist() if order else []

    def overlap(kind: str, index: int) -> Overlap:
        if kind[5:].isdigit():
            predicted, wanted, common = shared[index][int(kind[5:]) - 1]
            return _overlap(common, predicted, wanted)
        if kind == "rougeLsum":
            # It takes a line for a sentence; Chinese ends its sentences without a new line.
            prediction, reference = (re.sub("([。！？；])", r"\1\n", text).strip("\n") for text in pairs[index])
            if "\n" in prediction or "\n" in reference:
                found = scorer.score(reference, prediction)[kind]
                return Overlap(100 * float(found.precision), 100 * float(found.recall), 100 * float(found.fmeasure))
        common = _common_length(targets[index], answers[index])
        return _overlap(common, len(answers[index]), len(targets[index]))

    rows, index = [], 0
    for texts in references:
        scores = [{kind: overlap(kind, index + k) for kind in kinds} for k in range(len(texts))]
        rows.append({kind: max((score[kind] for score in scores), key=lambda score: score.f) for kind in kinds})
        index += len(texts)
    return rows


def rouge(
    *,
    predictions: Sequence[str],
    references: References,
    kinds: Sequence[str] = ROUGE_KINDS,
    stem: bool = False,
) -> Scores:
    """The plain mean of each row's F: {"rouge1", "rouge2", "rougeL", "signature"}.

    No stemmer is rouge-score's own default. Not the median of bootstrap means that its aggregator gives, which
    changes between runs.
    """
    from importlib.metadata import version

    rows = rouge_rows(predictions, references, kinds, stem)
    scores: Scores = {kind: mean([row[kind].f for row in rows]) for kind in kinds}
    signature = f"tok:ascii-words+han-chars|stem:{'yes' if stem else 'no'}|refs:max-f|mean:plain"
    return scores | {"signature": f"{signature}|version:rouge-score-{version('rouge-score')}"}


# Answers and labels


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def exact(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction is one of the references, but for outer and doubled spaces and Unicode form; case counts."""
    return float(_plain(prediction) in map(_plain, references))


def exact_match(*, predictions: Sequence[str], references: References) -> Scores:
    """The share of rows that are right to the letter: {"exact_match", "signature"}."""
    _check(predictions, references)
    rate = mean([exact(text, texts) for text, texts in zip(predictions, references, strict=True)])
    return {"exact_match": rate, "signature": "norm:nfkc|space:collapsed|case:mixed"}


def parse_labels(texts: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Which of `labels` each text is, by its place; len(labels) where it is none of them.

    The whole text must be the label but for outer spaces, case and Unicode form. Where labels differ in case alone,
    case decides.
    """
    exact_places = {unicodedata.normalize("NFKC", label).strip(): place for place, label in enumerate(labels)}
    shared = Counter(label.casefold() for label in exact_places)
    places = {label.casefold(): place for label, place in exact_places.items() if shared[label.casefold()] == 1}
    found = []
    for text in texts:
        plain = unicodedata.normalize("NFKC", text).strip()
        found.append(exact_places.get(plain, places.get(plain.casefold(), len(labels))))
    return found


def parse_true_labels(texts: Sequence[str], labels: Sequence[str]) -> list[int]:
    """As parse_labels, but a text that is none of `labels` is an error."""
    places = parse_labels(texts, labels)
    if len(labels) in places:
        row = places.index(len(labels))
        raise UserError(f"Row {row + 1}: the label {texts[row]!r} is not among: {', '.join(labels)}.")
    return places


def classification(
    *, predictions: Sequence[str], references: Sequence[str], labels: Sequence[str] | None = None
) -> Scores:
    """Generated labels against the true ones (`references`, one a row).

    {"accuracy", "macro_f1", "labels", "confusion", "per_class", "unparsed", "signature"}; `confusion` has a row for
    each true label and a column for each generated one, with the unparsed last. An unparsed answer is wrong.
    `labels` is the declared set (default: those in `references`); `macro_f1` is the mean over those of them that occur
    in `references`, so that a perfect model has 1 on a sample without some class.
    """
    if not references or len(predictions) != len(references):
        raise UserError(f"{len(predictions)} predictions and {len(references)} labels; give one each, at least one.")
    names = list(labels) if labels is not None else sorted(set(references))
    true, predicted = parse_true_labels(references, names), parse_labels(predictions, names)
    confusion = [[0] * (len(names) + 1) for _ in names]
    for i, j in zip(true, predicted, strict=True):
        confusion[i][j] += 1
    per_class = {}
    for k, name in enumerate(names):
        overlap = _overlap(confusion[k][k], sum(row[k] for row in confusion), sum(confusion[k]))
        per_class[name] = {
            "precision": overlap.precision / 100,
            "recall": overlap.recall / 100,
            "f1": overlap.f / 100,
            "support": sum(confusion[k]),
        }
    return {
        "accuracy": sum(confusion[k][k] for k in range(len(names))) / len(true),
        "macro_f1": mean([scores["f1"] for scores in per_class.values() if scores["support"]]),
        "labels": names,
        "confusion": confusion,
        "per_class": per_class,
        "unparsed": sum(row[-1] for row in confusion),
        "signature": "match:whole-label|norm:nfkc|case:folded|unparsed:wrong|macro:labels-present",
    }


def row_scores(prediction: str, references: Sequence[str], language: str = "auto") -> dict[str, float]:
    """One row's {"bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match"}, for tables."""
    overlaps = rouge_rows([prediction], [references])[0]
    return {
        "bleu": sentence_bleu(prediction, references, language),
        "chrf": sentence_chrf(prediction, references),
        **{kind: overlap.f for kind, overlap in overlaps.items()},
        "exact_match": exact(prediction, references),
    }
