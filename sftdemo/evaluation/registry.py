"""What is known of each metric in one table: its name in both languages, its scale, its direction, its digits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """`scale` is the best value: 1 for rates, 100 for scores, 0 where lower is better; `digits` follow the point."""

    name: str
    english: str
    chinese: str
    scale: int = 1
    digits: int = 3


_ALL = (  # in the order in which they are shown
    Metric("accuracy", "accuracy", "准确率"),
    Metric("lenient_accuracy", "lenient accuracy", "宽松准确率"),
    Metric("macro_f1", "macro-F1", "宏平均 F1"),
    Metric("likelihood_accuracy", "accuracy by likelihood", "似然准确率"),
    Metric("likelihood_accuracy_per_byte", "accuracy by likelihood per byte", "按字节似然准确率"),
    Metric("field_f1", "field F1", "字段 F1"),
    Metric("entity_f1", "entity F1", "实体 F1"),
    Metric("json_exact", "exact JSON", "JSON 完全一致率"),
    Metric("json_valid", "valid JSON", "有效 JSON 率"),
    Metric("json_valid_lenient", "valid JSON amid other text", "宽松有效 JSON 率"),
    Metric("exact_match", "exact match", "完全匹配率"),
    Metric("exact_match_normalized", "normalized exact match", "规范化完全匹配率"),
    Metric("token_f1", "token F1", "词级 F1"),
    Metric("bleu", "BLEU", "BLEU", scale=100, digits=1),
    Metric("chrf", "chrF", "chrF", scale=100, digits=1),
    Metric("rouge1", "ROUGE-1", "ROUGE-1", scale=100, digits=1),
    Metric("rouge2", "ROUGE-2", "ROUGE-2", scale=100, digits=1),
    Metric("rougeL", "ROUGE-L", "ROUGE-L", scale=100, digits=1),
    Metric("rougeLsum", "ROUGE-Lsum", "ROUGE-Lsum", scale=100, digits=1),
    Metric("ter", "TER", "TER", scale=0, digits=1),
    Metric("perplexity", "perplexity", "困惑度", scale=0, digits=1),
    Metric("bits_per_byte", "bits per byte", "每字节比特数", scale=0),
)
METRICS = {metric.name: metric for metric in _ALL}
RATES = tuple(metric.name for metric in _ALL if metric.scale == 1)
LOWER_IS_BETTER = tuple(metric.name for metric in _ALL if metric.scale == 0)
