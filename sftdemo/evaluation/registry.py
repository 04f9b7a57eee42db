"""The one table of metrics: what each is called, its scale and direction, and how scores, intervals and tests come of rows.

Each row of a side's answers gives a few sufficient statistics, and the score of any rows is a function of their sum. The
statistics are taken once a side, and serve the corpus score, its interval and its test.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sftdemo.evaluation import answer_metrics, json_metrics, label_sets, metrics, row_statistics
from sftdemo.evaluation.labels import LENIENT_SIGNATURE
from sftdemo.evaluation.sides import Side, Targets
from sftdemo.evaluation.significance import PairedStatistics
from sftdemo.evaluation.words import Tokenizer

if TYPE_CHECKING:
    from sftdemo.evaluation.row_statistics import Array

Texts = tuple[str, str]  # English, Chinese


@dataclass(frozen=True)
class Metric:
    """One metric. `names` stand amid a sentence, `notes` beside its bars, `definition` (where more is to be said) in the
    documents."""

    name: str
    names: Texts
    notes: Texts
    rows: Callable[[Side], Any]  # each row's statistics: n numbers, (n, columns), or a sparse matrix
    score: Callable[[Array], Array] | None = None  # of sums, (k, columns) → (k,); None: the mean of one column
    applies: Callable[[Side], bool] = lambda side: True
    binary: bool = False  # 0 or 1 a row: McNemar's exact test, else random swaps of the sides
    figure: Callable[[Side, Array], float] | None = None  # the score of all rows, to its reference's last digit
    tells_rows: bool = False  # whether single rows are told apart by it
    row_score: Callable[[Side], Any] | None = None  # of each row, where it isn't `score` of its statistics
    scale: int | None = 1  # the highest score, None where there is none
    higher_is_better: bool = True
    digits: int = 3  # behind the point
    counted: Texts = ("right on", "答对")  # how rows that are right are counted in a sentence, of a binary one
    lenient: str = ""  # the metric that asks the same, the form of the answer aside
    definition: str = ""
    source: str = ""
    signature: tuple[str, Callable[[Targets], str]] | None = None  # how the score was made, under which name

    @property
    def is_rate(self) -> bool:
        return self.scale == 1

    def statistics(self, side: Side) -> Any:
        """Each row's: (n, columns), an array or a sparse matrix."""
        import numpy as np

        rows = self.rows(side)
        if hasattr(rows, "tocsr"):
            return rows
        array = np.asarray(rows, np.float64)
        return array[:, None] if array.ndim == 1 else array

    def of_sums(self, sums: Array, n: int) -> Array:
        """The scores of sums over n rows: (k, columns) → (k,)."""
        return self.score(sums) if self.score else sums[:, 0] / n

    def of_all(self, side: Side, statistics: Any) -> float:
        """The score of all rows."""
        import numpy as np

        if hasattr(statistics, "tocsr"):
            sums = np.asarray(statistics.sum(axis=0))
        else:  # one after another, as it is done by hand; a matrix product rounds as the machine likes
            sums = np.add.accumulate(statistics, axis=0)[-1:]
        return float(self.figure(side, sums[0]) if self.figure else self.of_sums(sums, len(side.texts))[0])

    def of_each(self, side: Side) -> list[float]:
        """The score of each row alone."""
        values = self.row_score(side) if self.row_score else self.of_sums(self.statistics(side), 1)
        return [float(value) for value in values]


def of_texts(function: Callable[[Sequence[str], Any], Any]) -> Callable[[Side], Any]:
    """Statistics by a function of the answers and their references."""
    return lambda side: function(side.texts, side.references)


def _signed(name: str, text: str) -> dict[str, Any]:
    return {"signature": (name, lambda targets: text)}


def _of_json(value: Callable[[Any], Any]) -> Callable[[Side], list[Any]]:
    return lambda side: [value(row) for row in side.json]


def _by_engine(name: str, signature: Callable[[Targets], str]) -> dict[str, Any]:
    """How sacrebleu's metrics are scored."""
    engine = attrgetter(f"targets.{name}")
    figure: Callable[[Side, Array], float] = lambda side, sums: metrics.of_engine(engine(side), sums)  # noqa: E731
    return {"figure": figure, "signature": (name, signature), "scale": 100, "digits": 1}


def _rouge(kind: str) -> dict[str, Any]:
    signature = _signed("rouge", metrics.ROUGE_SIGNATURE)
    return {"rows": lambda side: [row[kind].f for row in side.rouge], **signature, "scale": 100, "digits": 1}


def _likelihood(kind: str) -> dict[str, Any]:
    """How the label that the model holds likeliest is scored."""
    return {
        "rows": lambda side: side.likely(kind),
        "applies": lambda side: side.has_labels and kind in side.likeliest,
        "binary": True,
    }


def _nats(units: str) -> dict[str, Any]:
    """How scores of the reference's likelihood are taken: nats over tokens or bytes."""
    lengths = attrgetter(f"targets.{units}")
    return {
        "rows": lambda side: list(zip(side.nats, lengths(side), strict=True)),
        "applies": lambda side: None not in (side.nats, lengths(side)),
        "scale": None,
        "higher_is_better": False,
    }


def _array(rows: Any) -> Array:
    import numpy as np

    return np.asarray(rows, np.float64)


def _bleu_of_each(side: Side) -> list[float]:
    """Over the n-gram orders that a row is long enough for: by all four most rows would have 0."""
    pairs = zip(side.texts, side.references, strict=True)
    return [metrics.sentence_bleu(text, texts, side.targets.language) for text, texts in pairs]


# fmt: off
_LABELS: dict[str, Any] = {"applies": attrgetter("has_labels"), "binary": True}
_SETS: dict[str, Any] = {"applies": attrgetter("has_sets"), **_signed("labels", label_sets.SIGNATURE)}
_JSON: dict[str, Any] = {"applies": attrgetter("targets.are_json"), **_signed("json", json_metrics.SIGNATURE)}
_ANSWERS = _signed("answers", answer_metrics.SIGNATURE)
EVALUATED = (  # in the order in which they are shown
    Metric("accuracy", ("accuracy", "准确率"), ("the answer is exactly the label", "回答恰好等于标签"),
           lambda side: side.right(side.labels), **_LABELS, tells_rows=True, lenient="lenient_accuracy",
           **_signed("accuracy", metrics.LABEL_SIGNATURE),
           definition="the whole answer is the label, blanks and case aside; an answer that is no label is wrong"),
    Metric("lenient_accuracy", ("lenient accuracy", "宽松准确率"),
           ("the answer names the label, whatever its form", "说对了标签，不论形式"),
           lambda side: side.right(side.lenient_labels), **_LABELS, tells_rows=True, counted=("the right label named on", "说对标签"),
           **_signed("lenient_accuracy", LENIENT_SIGNATURE),
           definition="the label is the only one that the answer's first sentence or line names"),
    Metric("macro_f1", ("macro-F1", "宏平均 F1"), ("every label counts the same", "每个标签权重相同"),
           attrgetter("label_rows"), row_statistics.macro_f1_scores, attrgetter("has_labels"),
           figure=lambda side, sums: side.classes["macro_f1"],
           definition="F1 of each label, averaged; by `accuracy`'s reading of answers"),
    Metric("likelihood_accuracy", ("accuracy by likelihood", "概率最高的标签的准确率"),
           ("the likeliest label, however phrased", "取概率最高的标签，不看怎样表述"),
           **_likelihood("likelihood"),
           definition="the label that the model holds likeliest, its end of turn included, is right"),
    Metric("likelihood_accuracy_per_byte", ("accuracy by likelihood per byte", "概率最高的标签的准确率（按字节）"),
           ("the same, fair to long labels", "同上，对长标签公平"),
           **_likelihood("likelihood_per_byte"),
           definition="the same by log-likelihood over the label's bytes, which doesn't favour short ones"),
    Metric("labels_f1", ("micro-F1 of labels", "标签微平均 F1"), ("right labels among all that were given or due", "所有给出的和应有的标签中正确的"),
           attrgetter("set_counts"), row_statistics.micro_f1_scores, **_SETS,
           tells_rows=True, row_score=lambda side: row_statistics.micro_f1_scores(_array(side.set_counts)),
           definition="F1 of all rows' labels together (micro), where several may apply; one that is none of the data's counts as given"),
    Metric("labels_macro_f1", ("macro-F1 of labels", "标签宏平均 F1"), ("every label counts the same", "每个标签权重相同"),
           attrgetter("set_rows"), row_statistics.macro_f1_scores, **_SETS,
           definition="F1 of each label that a row has, averaged, where several may apply"),
    Metric("labels_exact", ("exact sets of labels", "标签集合完全一致率"),
           ("all labels right, and no other", "标签全部正确且没有多余"),
           lambda side: label_sets.exact(side.sets, side.targets.true_sets), **_SETS, binary=True, tells_rows=True,
           definition="the answer names the row's labels, all of them and no other (subset accuracy)"),
    Metric("field_f1", ("field F1", "字段 F1"), ("fields with the right value", "值正确的字段"),
           _of_json(lambda row: row.total("fields")), row_statistics.micro_f1_scores, **_JSON,
           tells_rows=True, row_score=_of_json(lambda row: row.f1("fields")),
           definition="F1 of values with their paths, over all rows (micro); where all references are JSON"),
    Metric("entity_f1", ("entity F1", "实体 F1"), ("list items that are right as a whole", "整项正确的列表项"),
           _of_json(lambda row: row.total("entities")), row_statistics.micro_f1_scores,
           attrgetter("targets.have_entities"), tells_rows=True, row_score=_of_json(lambda row: row.f1("entities")),
           definition="F1 of whole items of lists, over all rows (micro)"),
    Metric("json_exact", ("exact JSON", "JSON 完全一致率"),
           ("all values right; order of keys and spaces aside", "所有值都正确，不计键的顺序和空白"),
           _of_json(attrgetter("exact")), **_JSON, binary=True, tells_rows=True,
           definition="the same JSON value, whatever its writing"),
    Metric("json_valid", ("valid JSON", "有效 JSON 率"),
           ("the answer is JSON and nothing else", "回答只有 JSON，没有其他内容"),
           _of_json(attrgetter("valid")), **_JSON, binary=True,
           definition="the whole answer is a JSON object or list"),
    Metric("json_valid_lenient", ("valid JSON amid other text", "宽松有效 JSON 率"),
           ("there is JSON in it, fenced or amid other text", "回答中含有 JSON，可在代码块或其他文字之中"),
           _of_json(attrgetter("has_json")), **_JSON, binary=True,
           definition="one stands in it, in a code fence or amid text"),
    Metric("exact_match", ("exact match", "完全匹配率"), ("the answer equals the reference", "回答与参考完全一致"),
           of_texts(metrics.exact_rows), binary=True, tells_rows=True, lenient="exact_match_normalized",
           **_signed("exact_match", metrics.EXACT_SIGNATURE),
           definition="the answer is a reference, white space and Unicode's forms aside (NFKC)"),
    Metric("exact_match_normalized", ("normalized exact match", "规范化完全匹配率"),
           ("case, punctuation, articles aside", "忽略大小写、标点和冠词"),
           of_texts(answer_metrics.normal_match_rows), binary=True, counted=("the right words on", "用词正确"), **_ANSWERS, source="SQuAD, Rajpurkar et al. 2016",
           definition="the same words, case, punctuation and articles aside"),
    Metric("token_f1", ("token F1", "词级 F1"), ("words in common, order aside", "共同的词，不计顺序"),
           of_texts(answer_metrics.token_f1_rows), tells_rows=True, **_ANSWERS, source="SQuAD, Rajpurkar et al. 2016",
           definition="F1 of the words in common with the nearest reference"),
    Metric("bleu", ("BLEU", "BLEU"), ("word sequences in common", "共同的词序列"),
           lambda side: row_statistics.bleu_rows(side.targets.bleu, side.texts, side.references),
           row_statistics.bleu_scores, **_by_engine("bleu", lambda targets: metrics.bleu_signature(targets.bleu)), tells_rows=True, row_score=_bleu_of_each,
           definition="n-grams of words up to 4 in common, with a penalty for short answers; corpus score",
           source="sacrebleu, Post 2018"),
    Metric("chrf", ("chrF", "chrF"), ("character sequences in common", "共同的字符序列"),
           lambda side: row_statistics.chrf_rows(side.targets.chrf, side.texts, side.references),
           row_statistics.chrf_scores, **_by_engine("chrf", lambda targets: str(targets.chrf.get_signature())), tells_rows=True,
           definition="F2 of character n-grams up to 6; corpus score", source="sacrebleu, Popović 2015"),
    Metric("rouge1", ("ROUGE-1", "ROUGE-1"), ("words in common", "共同的词"), **_rouge("rouge1"), tells_rows=True,
           definition="F1 of words in common, averaged over rows", source="Lin 2004; tested against rouge-score"),
    Metric("rouge2", ("ROUGE-2", "ROUGE-2"), ("word pairs in common", "共同的相邻词对"), **_rouge("rouge2"),
           definition="of pairs of words", source="Lin 2004"),
    Metric("rougeL", ("ROUGE-L", "ROUGE-L"), ("longest common sequence", "最长公共子序列"), **_rouge("rougeL"),
           tells_rows=True, definition="of the longest common subsequence of words", source="Lin 2004"),
    Metric("rougeLsum", ("ROUGE-Lsum", "ROUGE-Lsum"), ("by sentence", "逐句计算"), **_rouge("rougeLsum"),
           definition="of the union of those of each line", source="Lin 2004"),
    Metric("ter", ("TER", "TER"), ("edits needed; less is better", "所需的编辑量，越低越好"),
           lambda side: row_statistics.plain_rows(side.targets.ter, side.texts, side.references),
           row_statistics.ter_scores, attrgetter("is_brief"), higher_is_better=False,
           **_by_engine("ter", lambda targets: metrics.ter_signature(targets.ter, targets.language)),
           definition="edits of words, shifts included, over the reference's length, which they may pass; left out where it would take minutes",
           source="sacrebleu, Snover et al. 2006"),
    Metric("perplexity", ("perplexity", "困惑度"),
           ("surprise at the reference; less is better", "对参考答案的意外程度，越低越好"),
           score=row_statistics.perplexity_scores, **_nats("reference_tokens"), digits=1,
           definition="of the reference answer under the model, a token"),
    Metric("bits_per_byte", ("bits per byte", "每字节比特数"),
           ("the same, whatever the tokens; less is better", "同上，与分词无关，越低越好"),
           score=row_statistics.bits_per_byte_scores, **_nats("reference_bytes"),
           definition="bits to encode the reference answer, over its bytes; compares models of unlike tokenizers"),
)
ANSWERED = Metric("answered", ("right answers", "答对率"), ("a right answer stands in it", "回答中含有正确答案"),
                  of_texts(answer_metrics.holds_rows), binary=True,
                  definition="the words of a reference stand in the answer; of the general questions alone")
# fmt: on
METRICS = {metric.name: metric for metric in (*EVALUATED, ANSWERED)}
TELL_ROWS = tuple(metric for metric in EVALUATED if metric.tells_rows)


def statistics(side: Side, chosen: Collection[Metric] = EVALUATED) -> dict[str, Any]:
    """Each row's statistics by each metric that applies."""
    return {metric.name: metric.statistics(side) for metric in chosen if metric.applies(side)}


def scores(side: Side, rows: Mapping[str, Any]) -> dict[str, float]:
    """The score of all rows by each metric, of what `statistics` gave."""
    return {name: METRICS[name].of_all(side, values) for name, values in rows.items()}


def signatures(side: Side) -> dict[str, str]:
    """How the scores were made; the engines know it once they have been used."""
    signed = (metric.signature for metric in EVALUATED if metric.signature and metric.applies(side))
    return {name: of(side.targets) for name, of in signed}


def paired(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, PairedStatistics]:
    """Both sides' statistics by each metric that both have, to be compared by `significance`."""
    return {name: _paired(METRICS[name], values, tuned[name]) for name, values in base.items() if name in tuned}


def _paired(metric: Metric, base: Any, tuned: Any) -> PairedStatistics:
    score = metric.score or row_statistics.mean_scores
    if metric.score is None:  # resampled groups are of unlike size: a mean needs its count
        base, tuned = (row_statistics.with_count(values) for values in (base, tuned))
    limit = metric.scale or max(float(score(side.sum(axis=0, keepdims=True))[0]) for side in (base, tuned))
    return PairedStatistics(base, tuned, score, limit, metric.binary)


def leading(targets: Targets) -> str:
    """The metric to decide by: accuracy with labels, and micro-F1 where several apply; of JSON the F1 of entities where all references are lists, else of
    fields; exact match where most references have under 4 words or Han characters; else chrF, which needs no words and so
    serves every language."""
    if targets.labels is not None:
        return "accuracy"
    if targets.label_sets is not None:
        return "labels_f1"
    if targets.are_json:
        return "entity_f1" if targets.are_lists else "field_f1"
    tokenize = Tokenizer().tokenize
    short = sum(min(len(tokenize(text)) for text in texts) < 4 for texts in targets.references)
    return "exact_match" if 2 * short > len(targets.references) else "chrf"
