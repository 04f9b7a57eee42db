"""All that is said about saved outputs, no model needed: scores, differences, baselines, and the sentence on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from sftdemo.encoding.thoughts import answers_only
from sftdemo.evaluation import json_metrics, metrics, row_statistics, significance, summary, words
from sftdemo.evaluation.scoring import score

SIDES = ("base", "tuned")
LIKELIHOODS = ("likelihood", "likelihood_per_byte")

Row = Mapping[str, Any]


def likeliest(labels: Sequence[str], nats: Sequence[float]) -> dict[str, str]:
    """The label of the highest log-likelihood, {"likelihood"}, and of the highest per byte of its text, which doesn't
    favour short ones, {"likelihood_per_byte"}."""
    order = range(len(labels))
    return {
        "likelihood": labels[max(order, key=nats.__getitem__)],
        "likelihood_per_byte": labels[max(order, key=lambda k: nats[k] / max(len(labels[k].encode()), 1))],
    }


def score_outputs(
    outputs: Sequence[Row], labels: list[str], seed: int, trained: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The scores of saved outputs, thoughts aside: base, tuned, their paired difference, baselines, the sentence on it.

    `trained` counts the labels of the training rows. Rows may carry {side}_nll (nats), answer_tokens and answer_bytes of
    the reference answer, {side}_likelihood and {side}_likelihood_per_byte; and `task`, where several were mixed: then
    `by_task` says of each the same.
    """
    outputs = [answers_only(row) for row in outputs]
    references = [row["references"] for row in outputs]
    language = words.resolve_language("auto", references)
    result: dict[str, Any] = {"n": len(outputs), "language": language, "labels": labels, "signatures": {}}
    if labels:
        result["confusion"], result["classes"] = {}, {}
    parts: dict[str, dict[str, Any]] = {"fields": {}, "entities": {}}
    for side in SIDES:
        scores = _scores([row[side] for row in outputs], outputs, language, labels)
        result["signatures"] |= scores.pop("signatures")
        if classes := scores.pop("classes", None):
            result["confusion"][side] = classes.pop("confusion")
            result["classes"][side] = {
                name: value for name, value in classes.items() if name not in scores | {"labels": 0}
            }
        for name, by_side in parts.items():
            if name in scores:
                by_side[side] = scores.pop(name)
        result[side] = scores | _model_scores(outputs, side)
    result |= {name: by_side for name, by_side in parts.items() if by_side}
    # Of two sides that aren't told by the same metrics (TER, where one is too long) only what both have is said.
    common = result["base"].keys() & result["tuned"].keys()
    for side in SIDES:
        result[side] = {name: value for name, value in result[side].items() if name in common}
    result["difference"] = _differences(outputs, references, language, labels, seed)
    result["baselines"] = _baselines(outputs, references, language, labels, trained or {})
    result["leading"] = summary.leading_metric(result["difference"], references)
    result["summary"] = summary.summary(result["difference"], references)
    tasks = sorted({row["task"] for row in outputs if row.get("task")})
    if len(tasks) > 1:
        result["by_task"] = {name: _task([row for row in outputs if row.get("task") == name], seed) for name in tasks}
    return result


def _task(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """One task of a mixed run; its labels are those of its own rows."""
    labels = sorted({row["label"] for row in rows if row["label"]}) if all(row["label"] for row in rows) else []
    scores = score_outputs([{**row, "task": None} for row in rows], labels, seed)
    return {key: scores[key] for key in ("n", *SIDES, "difference", "summary", "leading")}


def _scores(texts: Sequence[str], outputs: Sequence[Row], language: str, labels: list[str]) -> dict[str, Any]:
    """What can be said of texts against the rows' references and labels; through the classes of `evaluate`."""
    rows = [
        {"prediction": text, **{key: row[key] for key in ("references", "label") if row[key]}}
        for text, row in zip(texts, outputs, strict=True)
    ]
    if not labels:
        rows = [{key: value for key, value in row.items() if key != "label"} for row in rows]
    scores = score(rows, language, labels=labels or None, through_evaluate=True)
    return {name: value for name, value in scores.items() if name != "n" and value is not None}


def _model_scores(outputs: Sequence[Row], side: str) -> dict[str, float]:
    """What rests on the model's probabilities: likelihood accuracies, perplexity and bits per byte of the references."""
    scores = {}
    for kind in LIKELIHOODS:
        if _have(outputs, f"{side}_{kind}"):
            right = [row[f"{side}_{kind}"] == row["label"] for row in outputs]
            scores[kind.replace("likelihood", "likelihood_accuracy")] = metrics.mean(right)
    if _have(outputs, f"{side}_nll", "answer_tokens", "answer_bytes"):
        for name, unit, function in NATS:
            total = [sum(row[key] for row in outputs) for key in (f"{side}_nll", unit)]
            scores[name] = float(function(_array([total]))[0])
    return scores


NATS = (
    ("perplexity", "answer_tokens", row_statistics.perplexity_scores),
    ("bits_per_byte", "answer_bytes", row_statistics.bits_per_byte_scores),
)


def _array(rows: Sequence[Sequence[float]]) -> Any:
    import numpy as np

    return np.asarray(rows, np.float64)


def _have(outputs: Sequence[Row], *keys: str) -> bool:
    return all(row.get(key) is not None for row in outputs for key in keys)


def _differences(
    outputs: Sequence[Row], references: words.References, language: str, labels: list[str], seed: int
) -> dict[str, dict[str, float]]:
    options: dict[str, Any] = {"labels": [row["label"] for row in outputs], "label_names": labels} if labels else {}
    more = {}
    for kind in LIKELIHOODS:
        if labels and _have(outputs, *(f"{side}_{kind}" for side in SIDES)):
            base, tuned = ([row[f"{side}_{kind}"] for row in outputs] for side in SIDES)
            name = kind.replace("likelihood", "likelihood_accuracy")
            more[name] = significance.likelihood_measure(base, tuned, options["labels"])
    if _have(outputs, *(f"{side}_nll" for side in SIDES), "answer_tokens", "answer_bytes"):
        base, tuned = ([row[f"{side}_nll"] for row in outputs] for side in SIDES)
        for name, unit, function in NATS:
            more[name] = significance.nats_measure(base, tuned, [row[unit] for row in outputs], function)
    if json_metrics.are_json(references):
        more |= significance.json_measures(
            [row["base"] for row in outputs], [row["tuned"] for row in outputs], references
        )
    return significance.differences(
        base_outputs=[row["base"] for row in outputs],
        tuned_outputs=[row["tuned"] for row in outputs],
        references=references,
        language=language,
        seed=seed,
        more=more,
        **options,
    )


def _baselines(
    outputs: Sequence[Row],
    references: words.References,
    language: str,
    labels: list[str],
    trained: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    """What needs no model at all: always the label most frequent in training; or the prompt copied, whole or its start.

    {"majority": …} with labels and known counts, else {"copy": …, "lead": …}; each {"answer" or "words", scores…}.
    """
    baselines: dict[str, tuple[dict[str, Any], list[str]]] = {}
    if labels and trained:
        # Of labels equally frequent the first by name, so that the same data always says the same.
        label = max(sorted(set(trained) & set(labels)), key=trained.__getitem__, default=labels[0])
        baselines["majority"] = {"answer": label}, [label] * len(outputs)
    elif not labels:
        prompts = [row["messages"][-1]["content"] if row.get("messages") else "" for row in outputs]
        pattern = words.units()
        length = round(median(len(pattern.findall(texts[0])) for texts in references))
        baselines["copy"] = {}, prompts
        baselines["lead"] = {"words": length}, [_lead(text, length, pattern) for text in prompts]
    results = {}
    for name, (facts, texts) in baselines.items():
        scores = _scores(texts, outputs, language, labels)
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
