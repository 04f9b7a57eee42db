"""BLEU, chrF, TER, ROUGE, exact match and label scores as pure functions; sacrebleu is the engine of the first three.

Every score takes `predictions` (n texts) and `references` (n lists of texts, one or more each; labels for
`classification`) by keyword, and returns plain floats with the `signature` that tells how they were made.
BLEU, chrF, TER and ROUGE run from 0 to 100, rates from 0 to 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sftdemo.errors import UsageError, UserError
from sftdemo.evaluation import row_statistics
from sftdemo.evaluation.labels import parse_labels as parse_labels
from sftdemo.evaluation.labels import parse_lenient
from sftdemo.evaluation.labels import parse_true_labels as parse_true_labels
from sftdemo.evaluation.row_statistics import transposed as transposed
from sftdemo.evaluation.words import CLUSTERED, References, Tokenizer, resolve_language, spaced
from sftdemo.evaluation.words import LANGUAGES as LANGUAGES
from sftdemo.evaluation.words import detect_language as detect_language

Scores = dict[str, Any]

# sacrebleu's other tokenizers download a model or need MeCab.
TOKENIZERS = ("13a", "zh", "intl", "char", "none")
ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")
ALL_ROUGE = (*ROUGE_KINDS, "rougeLsum")
# sacrebleu's search for shifted words takes seconds a row where long texts have little order in common.
TER_ROWS, TER_WORDS = 1000, 50

MOST_CONFUSED = 1000  # labels of which a confusion matrix is made: it grows with their square
ROUGE_SIGNATURE = "tok:ascii-words+chars-without-spaces|stem:no|refs:max-f|mean:plain"
EXACT_SIGNATURE = "norm:nfkc|space:collapsed|case:mixed"
LABEL_SIGNATURE = "match:whole-label|norm:nfkc|case:folded|unparsed:wrong|macro:labels-present"

_FULL_ORDER = 4


def check(predictions: Sequence[str], references: References) -> None:
    """The engines cut unequal lists short and take a string for a list of references; both give wrong numbers."""
    if not predictions:
        raise UserError("There are no rows to score; give at least one.")
    if len(predictions) != len(references):
        raise UserError(
            "{n} predictions but {m} lists of references; give one each.", n=len(predictions), m=len(references)
        )
    for row, texts in enumerate(references, 1):
        if isinstance(texts, str) or not texts:
            raise UserError(
                "Row {row}: the references are {texts!r}; give a list of at least one text.", row=row, texts=texts
            )


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# Text against references


def bleu_engine(references: References, language: str = "auto", tokenizer: str | None = None, **options: Any) -> Any:
    """The sacrebleu.BLEU that scores these references.

    Its defaults hold, but where every reference is shorter than 4 tokens the n-grams stop at the longest one
    (`order` in the signature): with 4-grams a perfect corpus of short answers would score 0.
    """
    from sacrebleu.metrics import BLEU

    if tokenizer is None:
        tokenizer = {"zh": "zh", **dict.fromkeys(CLUSTERED, "char")}.get(resolve_language(language, references), "13a")
    if tokenizer not in TOKENIZERS:
        raise UsageError(
            "{name} is {value!r}; choose one of: {names}.", name="tokenizer", value=tokenizer, names=TOKENIZERS
        )
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
    check(predictions, references)
    engine = bleu_engine(references, language, tokenizer, **options)
    rows = row_statistics.bleu_rows(engine, list(predictions), references)
    return {"bleu": of_engine(engine, rows.sum(axis=0)), "signature": bleu_signature(engine)}


def bleu_signature(engine: Any) -> str:
    signature = engine.get_signature()
    if engine.max_ngram_order != _FULL_ORDER:
        signature.update("order", engine.max_ngram_order)
    return str(signature)


def of_engine(engine: Any, sums: Any) -> float:
    """The engine's own score of summed statistics, (columns,), which is what it gives for the corpus to the last digit."""
    score = float(engine._compute_score_from_stats(sums.tolist()).score)
    return 100.0 if 100 < score < 100.001 else score  # a perfect BLEU comes out as 100.00000000000004


def sentence_bleu(
    prediction: str, references: Sequence[str], language: str = "auto", tokenizer: str | None = None, **options: Any
) -> float:
    """BLEU of one row, over the n-gram orders that it is long enough for."""
    check([prediction], [references])
    options = {"max_ngram_order": _FULL_ORDER, "effective_order": True} | options
    engine = bleu_engine([references], language, tokenizer, **options)
    return min(float(engine.sentence_score(prediction, list(references)).score), 100.0)


def chrf(*, predictions: Sequence[str], references: References, **options: Any) -> Scores:
    """Corpus chrF: {"chrf", "signature"}. `options` are those of sacrebleu.CHRF (word_order=2 for chrF++)."""
    check(predictions, references)
    engine = chrf_engine(**options)
    rows = row_statistics.chrf_rows(engine, list(predictions), references)
    return {"chrf": of_engine(engine, rows.sum(axis=0)), "signature": str(engine.get_signature())}


def chrf_engine(**options: Any) -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(**options)


def ter_engine(references: References, language: str = "auto", **options: Any) -> Any:
    """The sacrebleu.TER that scores these references; writing without spaces is edited by the character."""
    from sacrebleu.metrics import TER

    language = resolve_language(language, references)
    if language == "zh":
        options = {"normalized": True, "asian_support": True} | options
    engine = TER(**options)
    if language in CLUSTERED:
        words = engine.tokenizer
        engine.tokenizer = lambda text: " ".join(spaced(words(text)).split())
    return engine


def ter(*, predictions: Sequence[str], references: References, language: str = "auto", **options: Any) -> Scores:
    """Translation edit rate, 0 is perfect: {"ter", "signature"}."""
    check(predictions, references)
    engine = ter_engine(references, language, **options)
    score = engine.corpus_score(list(predictions), transposed(references)).score
    return {"ter": float(score), "signature": ter_signature(engine, resolve_language(language, references))}


def ter_signature(engine: Any, language: str) -> str:
    signature = engine.get_signature()
    if language in CLUSTERED:
        signature.update("characters", language)
    return str(signature)


def ter_is_quick(texts: Sequence[str], rows: int) -> bool:
    """Whether TER of these answers and references takes seconds at most."""
    tokenize = Tokenizer().tokenize
    return rows <= TER_ROWS and all(len(tokenize(text)) <= TER_WORDS for text in texts)


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
        matched = free & places.get(token, 0)
        free = (free + matched | free - matched) & full
    return len(first) - free.bit_count()


def _common_places(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """Where in `first` the longest common subsequence stands that rouge-score's table would choose."""
    places: dict[str, int] = {}
    for place, token in enumerate(second):
        places[token] = places.get(token, 0) | 1 << place
    full = (1 << len(second)) - 1
    rows = [full]
    for token in first:
        matched = rows[-1] & places.get(token, 0)
        rows.append((rows[-1] + matched | rows[-1] - matched) & full)

    def length(i: int, j: int) -> int:
        return j - (rows[i] & ((1 << j) - 1)).bit_count()

    common = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            common.append(i)
        elif length(i, j - 1) > length(i - 1, j):
            j -= 1
        else:
            i -= 1
    return common


def _common_by_sentence(target: Sequence[Sequence[str]], answer: Sequence[Sequence[str]]) -> int:
    """ROUGE-Lsum's hits: for each sentence of the reference its union with all of the answer's, no token counted twice."""
    left = Counter(token for words in target for token in words) & Counter(token for words in answer for token in words)
    hits = 0
    for words in target:
        for place in sorted(set().union(*(_common_places(words, sentence) for sentence in answer))):
            hits += left[words[place]] > 0
            left[words[place]] -= 1
    return hits


def _overlap(common: float, predicted: int, wanted: int) -> Overlap:
    precision, recall = common / max(predicted, 1), common / max(wanted, 1)
    f = 2 * precision * recall / (precision + recall) if common else 0.0
    return Overlap(100 * precision, 100 * recall, 100 * f)


def rouge_rows(
    predictions: Sequence[str], references: References, kinds: Sequence[str] = ROUGE_KINDS
) -> list[dict[str, Overlap]]:
    """For each row and kind (rouge1 to rouge9, rougeL, rougeLsum) the overlap with the reference of the highest F.

    What rouge-score gives, counted for all rows at once; its own tables take 100 times as long on long answers.
    """
    check(predictions, references)
    tokenizer = Tokenizer()
    pairs = [(text, reference) for text, texts in zip(predictions, references, strict=True) for reference in texts]
    answers, targets = ([tokenizer.tokenize(pair[side]) for pair in pairs] for side in (0, 1))
    order = max([int(kind[5:]) for kind in kinds if kind[5:].isdigit()], default=0)
    answer_ids, target_ids = row_statistics.numbered(answers, targets)
    shared = row_statistics.shared(answer_ids, target_ids, order).tolist() if order else []

    def overlap(kind: str, index: int) -> Overlap:
        if kind[5:].isdigit():
            predicted, wanted, common = shared[index][int(kind[5:]) - 1]
            return _overlap(common, predicted, wanted)
        # To Lsum a line is a sentence; Chinese ends its sentences without a new line.
        if kind == "rougeL" or not any(re.search(r"\n|[。！？；](?=.)", text) for text in pairs[index]):
            common = _common_length(targets[index], answers[index])
        else:
            answer, target = (
                [tokenizer.tokenize(part) for part in re.split("(?<=[。！？；])|\n", text)] for text in pairs[index]
            )
            common = _common_by_sentence(target, answer)
        return _overlap(common, len(answers[index]), len(targets[index]))

    rows, index = [], 0
    for texts in references:
        scores = [{kind: overlap(kind, index + k) for kind in kinds} for k in range(len(texts))]
        rows.append({kind: max((score[kind] for score in scores), key=lambda score: score.f) for kind in kinds})
        index += len(texts)
    return rows


def rouge(*, predictions: Sequence[str], references: References, kinds: Sequence[str] = ROUGE_KINDS) -> Scores:
    """The plain mean of each row's F: {"rouge1", "rouge2", "rougeL", "signature"}; no stemmer, as rouge-score by default.

    Not the median of bootstrap means that rouge-score's aggregator gives, which changes between runs.
    """
    rows = rouge_rows(predictions, references, kinds)
    scores: Scores = {kind: mean([row[kind].f for row in rows]) for kind in kinds}
    return scores | {"signature": ROUGE_SIGNATURE}


# Answers and labels


def plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def exact(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction is one of the references, but for outer and doubled spaces and Unicode form; case counts."""
    return float(plain(prediction) in map(plain, references))


def exact_rows(predictions: Sequence[str], references: References) -> list[float]:
    return [exact(text, texts) for text, texts in zip(predictions, references, strict=True)]


def exact_match(*, predictions: Sequence[str], references: References) -> Scores:
    """The share of rows that are right to the letter: {"exact_match", "signature"}."""
    check(predictions, references)
    return {"exact_match": mean(exact_rows(predictions, references)), "signature": EXACT_SIGNATURE}


def classification(
    *, predictions: Sequence[str], references: Sequence[str], labels: Sequence[str] | None = None
) -> Scores:
    """Generated labels against the true ones (`references`, one a row).

    {"accuracy", "macro_precision", "macro_recall", "macro_f1", "micro_precision", "micro_recall", "micro_f1", "labels",
    "confusion", "per_class", "unparsed", "lenient_accuracy", "lenient_unparsed", "signature"}; `confusion` has a row for
    each true label and a column for each generated one, with the unparsed last (up to 1,000 labels). An unparsed answer is wrong; the
    lenient figures are of labels as a reader would take them (`labels.parse_lenient`).
    `labels` is the declared set (default: those in `references`); a macro mean is over those of them that occur
    in `references`, so that a perfect model has 1 on a sample without some class.
    """
    if not references or len(predictions) != len(references):
        raise UserError(
            "{n} predictions and {m} labels; give one each, at least one.", n=len(predictions), m=len(references)
        )
    names = list(labels) if labels is not None else sorted(set(references))
    true, predicted = parse_true_labels(references, names), parse_labels(predictions, names)
    return label_scores(names, true, predicted, parse_lenient(predictions, names)) | {"signature": LABEL_SIGNATURE}


def _matrix(pairs: Mapping[tuple[int, int], int], count: int) -> list[list[int]]:
    """[count, count + 1]: how often each true label was taken for each, the unparsed last."""
    return [[pairs.get((i, j), 0) for j in range(count + 1)] for i in range(count)]


def label_scores(names: Sequence[str], true: Sequence[int], predicted: Sequence[int], lenient: Sequence[int]) -> Scores:
    """What `classification` gives, but for its signature, of labels by their place among the names (len(names): none)."""
    pairs, wanted, given = Counter(zip(true, predicted, strict=True)), Counter(true), Counter(predicted)
    per_class = {}
    for k, name in enumerate(names):
        overlap = _overlap(pairs[k, k], given[k], wanted[k])
        per_class[name] = {
            "precision": overlap.precision / 100,
            "recall": overlap.recall / 100,
            "f1": overlap.f / 100,
            "support": wanted[k],
        }
    present = [scores for scores in per_class.values() if scores["support"]]
    right, unparsed = sum(pairs[k, k] for k in range(len(names))), given[len(names)]
    micro = [value / 100 for value in _overlap(right, len(true) - unparsed, len(true))]
    return {
        "accuracy": right / len(true),
        **{f"macro_{name}": mean([class_scores[name] for class_scores in present]) for name in ("precision", "recall")},
        "macro_f1": mean([class_scores["f1"] for class_scores in present]),
        **dict(zip(("micro_precision", "micro_recall", "micro_f1"), micro, strict=True)),
        "labels": list(names),
        **({"confusion": _matrix(pairs, len(names))} if len(names) <= MOST_CONFUSED else {}),
        "per_class": per_class,
        "unparsed": unparsed,
        "lenient_accuracy": mean([float(i == j) for i, j in zip(true, lenient, strict=True)]),
        "lenient_unparsed": list(lenient).count(len(names)),
    }
