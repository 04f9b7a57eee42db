"""Scores of saved outputs of every kind are those that an earlier version gave (tests/golden/scores.json), to 12 digits."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sftdemo.evaluation import answer_metrics, json_metrics, labels, metrics, row_statistics
from sftdemo.evaluation.scorecard import score_outputs

GOLDEN = Path(__file__).parent / "golden" / "scores.json"
SENTENCE = "the cat sat on a mat then ran off to see what was going on in No. 3.5 e-mail well\n"
ENGLISH = SENTENCE.split(" ")
CHINESE = list("我喜欢猫今天气很好，去公园吧。下雨了")
MOODS = ["joy", "anger", "fear"]


def row(draw: random.Random, number: int, base: str, tuned: str, references: list[str], **more: Any) -> dict[str, Any]:
    size = len(references[0]) + 1
    nats = {"base_nll": draw.uniform(0.5, 0.9) * size, "tuned_nll": draw.uniform(0, 0.3) * size}
    lengths = {"answer_tokens": size // 3 + 1, "answer_bytes": len(references[0].encode()) + 1}
    messages = [{"role": "user", "content": f"Question {number}: {references[0]}"}]
    about = {"row": number, "messages": messages, "label": None, "references": references, "base": base, "tuned": tuned}
    return about | nats | lengths | more


def texts(words: list[str], joint: str, longest: int = 12, references: int = 1) -> list[dict[str, Any]]:
    draw = random.Random(len(words) + longest + references)

    def noisy(parts: list[str], keep: float) -> str:
        return joint.join(part if draw.random() < keep else draw.choice(words) for part in parts)

    rows = []
    for number in range(32):
        parts = draw.choices(words, k=draw.randint(1, longest))
        wanted = [joint.join(parts), *(noisy(parts, 0.8) for _ in range(draw.randint(0, references - 1)))]
        rows.append(row(draw, number, noisy(parts, 0.5) + draw.choice(["", " so"]), noisy(parts, 0.8), wanted))
    return rows


def moods() -> list[dict[str, Any]]:
    draw = random.Random(5)
    rows = []
    for number in range(40):
        label, other = draw.choice(MOODS), draw.choice(MOODS)
        kinds = [f"{side}_{kind}" for side in ("base", "tuned") for kind in ("likelihood", "likelihood_per_byte")]
        likeliest = {kind: draw.choice([label, other]) for kind in kinds}
        base = draw.choice([label, f"The label is {other}.", other, "Hm."])
        rows.append(row(draw, number, base, draw.choice([label, label, other]), [label], label=label, **likeliest))
    return rows


def extractions(lists: bool) -> list[dict[str, Any]]:
    draw = random.Random(7)
    rows = []
    for number in range(32):
        items = [{"type": draw.choice("ab"), "text": draw.choice("xyz")} for _ in range(draw.randint(0, 3))]
        wanted: Any = items if lists else {"order": {"n": draw.randint(1, 4)}, "tags": items, "ok": True}
        worse = json.dumps(items[:-1] if lists else wanted | {"order": {"n": 9}})
        base = draw.choice([worse, f"Here:\n```json\n{worse}\n```", "none"])
        rows.append(row(draw, number, base, draw.choice([json.dumps(wanted), worse]), [json.dumps(wanted)]))
    return rows


CASES: dict[str, tuple[list[dict[str, Any]], list[str], dict[str, int]]] = {
    "english": (texts(ENGLISH, " "), [], {}),
    "chinese": (texts(CHINESE, ""), [], {}),
    "references": (texts(ENGLISH, " ", references=3), [], {}),
    "short": (texts(ENGLISH, " ", longest=2), [], {}),
    "long": (texts(ENGLISH, " ", longest=90), [], {}),
    "labels": (moods(), MOODS, {"joy": 9, "fear": 3}),
    "fields": (extractions(lists=False), [], {}),
    "entities": (extractions(lists=True), [], {}),
}


def compare(found: Any, expected: Any, path: str) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            compare(found[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-14), path
    else:
        assert found == expected, path


@pytest.mark.parametrize("name", CASES)
def test_saved_outputs_have_the_scores_they_had(name: str) -> None:
    rows, names, trained = CASES[name]
    found = score_outputs(rows, names, 42, trained)
    parts = ("n", "language", "base", "tuned", "difference", "baselines", "leading", "confusion", "fields", "entities")
    kept = {part: found[part] for part in parts if part in found}
    compare(kept, json.loads(GOLDEN.read_text(encoding="utf-8"))[name], name)


def test_each_sides_statistics_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For scores, intervals and tests together: once a side and once for each baseline (copy and lead, or majority)."""
    calls: dict[str, int] = {}

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def count(*values: Any, **named: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return function(*values, **named)

        monkeypatch.setattr(module, name, count)

    for module, function in (
        (row_statistics, "bleu_rows"),
        (row_statistics, "chrf_rows"),
        (row_statistics, "label_rows"),
        (metrics, "rouge_rows"),
        (metrics, "bleu_engine"),
        (labels, "parse_labels"),
        (labels, "parse_lenient"),
        (json_metrics, "json_rows"),
        (answer_metrics, "shape"),
    ):
        counted(module, function)
    rows, names, _ = CASES["fields"]
    score_outputs(rows, names, 42)
    once = {"bleu_rows": 4, "chrf_rows": 4, "rouge_rows": 4, "json_rows": 4, "shape": 4, "bleu_engine": 1}
    assert calls == once
    calls.clear()
    score_outputs(*CASES["labels"][:2], 42, {"joy": 1})
    of_labels = {"label_rows": 3, "parse_lenient": 3, "parse_labels": 3 + 1}  # and the true ones
    assert calls == {name: 3 for name in once if name not in ("json_rows", "bleu_engine")} | of_labels | {
        "bleu_engine": 1
    }
