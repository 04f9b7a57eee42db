"""All that is said about saved outputs, no model needed: scores, differences, baselines, and the sentence on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftdemo.encoding.thoughts import answers_only
from sftdemo.evaluation import baselines, registry, significance, summary, words
from sftdemo.evaluation.scoring import side_scores
from sftdemo.evaluation.sides import Side, Targets, sets_of

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

    `trained` counts the labels of the training rows. Rows with the same `group` are resampled together, and `groups` says how
    many there are. Rows may carry {side}_nll (nats), answer_tokens and answer_bytes of
    the reference answer, {side}_likelihood and {side}_likelihood_per_byte; and `task`, where several were mixed: then
    `by_task` says of each the same.
    """
    outputs = [answers_only(row) for row in outputs]
    targets = targets_of(outputs, labels)
    sides = {name: _side(outputs, targets, name) for name in SIDES}
    statistics = {name: registry.statistics(side) for name, side in sides.items()}
    # Of two sides that aren't told by the same metrics (TER, where one is too long) only what both have is said.
    common = statistics["base"].keys() & statistics["tuned"].keys()
    statistics = {name: {key: rows[key] for key in rows if key in common} for name, rows in statistics.items()}
    scores = {name: side_scores(side, statistics[name]) for name, side in sides.items()}
    signed = registry.signatures(sides["base"]) | registry.signatures(sides["tuned"])
    result: dict[str, Any] = {"n": len(outputs), "language": targets.language, "labels": labels, "signatures": signed}
    result |= _classes(sides) | _by_part(scores) | scores
    pairs = registry.paired(statistics["base"], statistics["tuned"])
    groups = groups_of(outputs)
    result |= {"groups": len(set(groups))} if groups else {}
    result["difference"] = significance.corrected(significance.paired_differences(pairs, seed, groups=groups))
    result["baselines"] = baselines.scored(outputs, targets, trained or {})
    result["leading"] = registry.leading(targets)
    result["summary"] = summary.summary(
        result["difference"], result["leading"], len(outputs), scores["base"], scores["tuned"], result.get("groups")
    )
    tasks = sorted({row["task"] for row in outputs if row.get("task")})
    if len(tasks) > 1:
        result["by_task"] = {name: _task([row for row in outputs if row.get("task") == name], seed) for name in tasks}
    return result


def groups_of(outputs: Sequence[Row]) -> list[tuple[Any, ...]] | None:
    """What names each row's group, its own place where it has none; None where every row stands alone."""
    names = [
        (number,) if row.get("group") is None else (row.get("task"), row["group"]) for number, row in enumerate(outputs)
    ]
    return names if len(set(names)) < len(names) else None


def targets_of(outputs: Sequence[Row], labels: list[str]) -> Targets:
    """What the answers to the rows are compared with; without declared `labels` as texts."""
    references = [row["references"] for row in outputs]
    return Targets(
        references,
        words.resolve_language("auto", references),
        labels=[row["label"] for row in outputs] if labels else None,
        label_names=labels,
        label_sets=sets_of(outputs),
        reference_tokens=_column(outputs, "answer_tokens"),
        reference_bytes=_column(outputs, "answer_bytes"),
    )


def _side(outputs: Sequence[Row], targets: Targets, name: str) -> Side:
    likeliest = {kind: column for kind in LIKELIHOODS if (column := _column(outputs, f"{name}_{kind}"))}
    return Side(targets, [row[name] for row in outputs], _column(outputs, f"{name}_nll"), likeliest)


def _column(outputs: Sequence[Row], key: str) -> list[Any] | None:
    """The values of all rows, None where one has none."""
    values = [row.get(key) for row in outputs]
    return None if None in values else values


def _classes(sides: Mapping[str, Side]) -> dict[str, Any]:
    """{"confusion", "classes"} of both sides, where there are labels, not too many for the former; what is a metric of its own aside."""
    tables = {name: dict(side.classes) for name, side in sides.items() if side.has_labels}
    confusion = {name: table.pop("confusion") for name, table in tables.items() if "confusion" in table}
    aside = {"labels", *registry.METRICS}
    classes = {name: {key: value for key, value in table.items() if key not in aside} for name, table in tables.items()}
    return {**({"confusion": confusion} if confusion else {}), "classes": classes} if tables else {}


def _by_part(scores: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """{"fields", "entities"} of both sides, taken out of their scores."""
    parts = ("fields", "entities")
    by_part = {part: {name: own.pop(part) for name, own in scores.items() if part in own} for part in parts}
    return {part: by_side for part, by_side in by_part.items() if by_side}


def _task(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """One task of a mixed run; its labels are those of its own rows."""
    labels = sorted({row["label"] for row in rows if row["label"]}) if all(row["label"] for row in rows) else []
    scores = score_outputs([{**row, "task": None} for row in rows], labels, seed)
    kept = ("n", "groups", *SIDES, "difference", "summary", "leading")
    return {key: scores[key] for key in kept if key in scores}
