"""All that is said about saved outputs, no model needed: scores, differences, baselines, and the sentence on them."""

from __future__ import annotations

from typing import Any

SIDES = ("base", "tuned")


def score_outputs(outputs: list[dict[str, Any]], labels: list[str], seed: int) -> dict[str, Any]:
    """The scores of saved outputs, no model needed: base, tuned, their paired difference, and the sentence on it."""
    from sftdemo import metrics, statistics
    from sftdemo.scoring import score

    references = [row["references"] for row in outputs]
    language = metrics.resolve_language("auto", references)
    texts = {side: [row[side] for row in outputs] for side in SIDES}
    found: dict[str, Any] = {"n": len(outputs), "language": language, "labels": labels}
    options: dict[str, Any] = {}
    if labels:
        true = [row["label"] for row in outputs]
        options = {"labels": true, "label_names": labels}
        options |= {f"{side}_likelihood": [row[f"{side}_likelihood"] for row in outputs] for side in SIDES}
        found["confusion"] = {
            side: metrics.classification(predictions=texts[side], references=true, labels=labels)["confusion"]
            for side in SIDES
        }
    for side in SIDES:
        rows = [
            {"prediction": row[side], **{key: row[key] for key in ("references", "label") if row[key]}}
            for row in outputs
        ]
        scores = score(rows, language, labels=labels or None, through_evaluate=True)
        found["signatures"] = scores.pop("signatures")
        found[side] = {name: value for name, value in scores.items() if name != "n" and value is not None}
        if labels:
            right = [row[f"{side}_likelihood"] == row["label"] for row in outputs]
            found[side]["likelihood_accuracy"] = sum(right) / len(right)
    difference = statistics.differences(
        base_outputs=texts["base"],
        tuned_outputs=texts["tuned"],
        references=references,
        language=language,
        seed=seed,
        **options,
    )
    return found | {"difference": difference, "summary": statistics.summary(difference, references)}
