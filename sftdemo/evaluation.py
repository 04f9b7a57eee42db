"""Base against tuned on the same held-out rows: greedy answers, label likelihoods, scores and their uncertainty."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from sftdemo import data, encoding, hub, models, runs
from sftdemo.config import EvaluateConfig, GenerateConfig
from sftdemo.errors import DataError, UserError

if TYPE_CHECKING:
    from sftdemo.data import Example
    from sftdemo.generate import Pair

SIDES = ("base", "tuned")
LONGEST_ANSWER = 256  # tokens, where the references would allow more


def evaluate(
    run: runs.Run | str,
    config: EvaluateConfig | None = None,
    pair: Pair | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    report: hub.Report = hub.silent,
) -> dict[str, Any]:
    """Evaluate a run and return its scores.json (keys in design order: n, base, tuned, difference, outputs, …).

    `pair` is the run's loaded models, if the caller has them. Answers are kept batch by batch: an evaluation that was
    stopped or killed goes on where it was when the same is asked again. Raises UserError when stopped, or when there is
    nothing to evaluate on.
    """
    run = runs.find(run) if isinstance(run, str) else run
    config = (config or EvaluateConfig()).check()
    began = time.perf_counter()
    examples = _held_out(run, config)
    labels = sorted({example["label"] for example in [*run.examples("train"), *examples] if example.get("label")})
    pair = pair or models.load(run, report)
    rows = _rows(examples)
    longest = config.max_new_tokens or _longest_answer(pair, rows)
    partial = Partial.of(run, rows, labels, longest)
    _answer(pair, rows, labels, longest, config.batch_size, partial, progress, should_stop)
    result = _write(run, config, rows, labels, began)
    partial.path.unlink(missing_ok=True)
    return result


def _held_out(run: runs.Run, config: EvaluateConfig) -> list[Example]:
    """The rows to evaluate on: the run's test split; or of other data the test split, else all."""
    if config.data is None:
        examples = cast("list[Example]", run.examples("test"))
    else:
        splits = _other_data(run, config.data).splits
        examples = splits.get("test") or splits.get("validation") or splits["train"]
    if not examples:
        raise UserError(f"Run {run.name} has no held-out rows; give data to evaluate on with --data.")
    if config.max_examples:
        examples = data.take(examples, config.max_examples, config.seed)
    return examples


def _other_data(run: runs.Run, source: str) -> data.Dataset:
    """Other data, asked in the very words of the training where it has the same layout."""
    known = run.config()
    trained = known["data"]
    asked = {"system": known["settings"]["system"]}
    dataset = data.read(source, **asked)
    if dataset.format == trained["format"] and trained["instruction"]:
        dataset = data.read(source, columns=known["settings"]["columns"], instruction=trained["instruction"], **asked)
    if dataset.faults:
        raise DataError(dataset.faults)
    return dataset


def _rows(examples: list[Example]) -> list[dict[str, Any]]:
    """outputs.jsonl before it has answers: a row for each example, in their order."""
    return [
        {
            "row": number,
            "messages": example["messages"][:-1],
            "references": example.get("references") or [example["messages"][-1]["content"]],
            "label": example.get("label"),
        }
        for number, example in enumerate(examples)
    ]


@dataclass(frozen=True)
class Partial:
    """The answers of an evaluation that isn't whole yet: a line a row, in a file named after all that decides them."""

    path: Path

    @classmethod
    def of(cls, run: runs.Run, rows: list[dict[str, Any]], labels: list[str], longest: int) -> Self:
        weights = sorted((file.name, file.stat().st_mtime_ns) for file in run.model_path.glob("*.safetensors"))
        asked = json.dumps([rows, labels, longest, weights], ensure_ascii=False)
        key = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return cls(run.path / "evaluations" / f".{key}.jsonl")

    def read(self) -> dict[int, dict[str, Any]]:
        """What there is, by row; a line cut short by a kill is answered again."""
        found = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").split("\n"):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue
                found[row["row"]] = row
        return found

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            # A line of its own, should the last one have been cut short.
            file.write("\n" + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")


def _answer(
    pair: Pair,
    rows: list[dict[str, Any]],
    labels: list[str],
    longest: int,
    batch_size: int,
    partial: Partial,
    progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> None:
    """Fill in both sides' answers, what each holds likeliest among the labels, and the likelihood of the reference."""
    done = partial.read()
    for number, row in done.items():
        rows[number] |= row
    progress(len(done), len(rows))
    prompts = [row["messages"] for row in rows]
    label_ids = [_answer_ids(pair, prompts[0], label) for label in labels]
    references = [_answer_ids(pair, row["messages"], row["references"][0]) for row in rows]
    # A label's likelihood is that of the reference too; it needn't be computed twice.
    labelled = bool(labels) and all(row["label"] for row in rows)
    unscored = [] if labelled else references
    generate = GenerateConfig(max_new_tokens=longest)
    for answers in pair.answers(prompts, generate, batch_size, label_ids, unscored, done, should_stop):
        for index, answer in answers.items():
            for side in SIDES:
                row = rows[index]
                row[side] = answer[side]
                if labels:
                    scores = answer[f"{side}_likelihoods"]
                    row[f"{side}_likelihood"] = labels[scores.index(max(scores))]
                row[f"{side}_nll"] = -scores[labels.index(row["label"])] if labelled else answer[f"{side}_nll"]
            row |= {"answer_tokens": len(references[index]), "answer_bytes": len(row["references"][0].encode())}
            done[index] = row
        partial.add([rows[index] for index in answers])
        progress(len(done), len(rows))
    if len(done) < len(rows):
        raise UserError(
            f"Stopped after {len(done)} of {len(rows)} rows; the same evaluation asked again goes on from there."
        )


def _answer_ids(pair: Pair, prompt: list[Any], answer: str) -> list[int]:
    """The learned tokens of an answer, its end of turn included."""
    messages = [*prompt, {"role": "assistant", "content": answer}]
    encoded = encoding.encode(pair.tokenizer, messages)
    start = len(encoding.encode_prompt(pair.tokenizer, prompt))
    tail = zip(encoded.ids[start:], encoded.supervised[start:], strict=True)
    return [token for token, learned in tail if learned]


def _longest_answer(pair: Pair, rows: list[dict[str, Any]]) -> int:
    """Room for half as much again as the longest reference needs, so that a wordier base isn't cut at once."""
    texts = [text for row in rows for text in row["references"]]
    longest = max(map(len, pair.tokenizer(texts, add_special_tokens=False)["input_ids"]))
    return min(LONGEST_ANSWER, longest + longest // 2 + 8)


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


def _write(
    run: runs.Run, config: EvaluateConfig, outputs: list[dict[str, Any]], labels: list[str], began: float
) -> dict[str, Any]:
    """Score, and save both files; outputs first, so that scores.json says the evaluation is whole."""
    name = time.strftime("%m%d-%H%M%S")
    folder = run.path / "evaluations" / name
    path = folder / "outputs.jsonl"
    result = score_outputs(outputs, labels, config.seed) | {
        "outputs": str(path),
        "evaluation": name,
        "run": run.name,
        "task": run.config()["data"]["task"],
        "settings": config.to_json(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    runs.write_jsonl(path, outputs)
    runs.write_json(folder / "scores.json", result)
    return result
