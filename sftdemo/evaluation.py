"""Base against tuned on the same held-out rows: greedy answers, label likelihoods, scores and their uncertainty."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from sftdemo import data, encoding, forgetting, hub, models, runs
from sftdemo.config import EvaluateConfig, GenerateConfig
from sftdemo.errors import DataError, UserError
from sftdemo.scorecard import SIDES, likeliest, score_outputs

if TYPE_CHECKING:
    from sftdemo.data import Example
    from sftdemo.generate import Pair

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

    `pair` is the run's loaded models, if the caller has them. Raises UserError when stopped, or when there is nothing to
    evaluate on; nothing is written then.
    """
    run = runs.find(run) if isinstance(run, str) else run
    config = (config or EvaluateConfig()).check()
    began = time.perf_counter()
    examples = _held_out(run, config)
    labels = sorted({example["label"] for example in [*run.examples("train"), *examples] if example.get("label")})
    pair = pair or models.load(run, report)
    outputs = _answer(pair, examples, labels, config, progress, should_stop)
    general = forgetting.measure(pair, config.batch_size, config.seed, should_stop) if config.general else None
    return _write(run, config, outputs, labels, began, general)


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


def _answer(
    pair: Pair,
    examples: list[Example],
    labels: list[str],
    config: EvaluateConfig,
    progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> list[dict[str, Any]]:
    """outputs.jsonl: a row for each example, in the order of the examples."""
    prompts = [example["messages"][:-1] for example in examples]
    longest = config.max_new_tokens or _longest_answer(pair, examples)
    label_ids = [_answer_ids(pair, [*prompts[0], {"role": "assistant", "content": label}]) for label in labels]
    rows: list[dict[str, Any]] = [
        {
            "row": number,
            "messages": prompt,
            "references": example.get("references") or [example["messages"][-1]["content"]],
            "label": example.get("label"),
        }
        for number, (prompt, example) in enumerate(zip(prompts, examples, strict=True))
    ]
    done = 0
    progress(0, len(rows))
    generate = GenerateConfig(max_new_tokens=longest)
    for answers in pair.answers(prompts, generate, config.batch_size, label_ids, should_stop):
        for index, answer in answers.items():
            rows[index] |= {side: answer[side] for side in SIDES}
            for side in SIDES if labels else ():
                found = likeliest(labels, answer[f"{side}_likelihoods"])
                rows[index] |= {f"{side}_{kind}": label for kind, label in found.items()}
        done += len(answers)
        progress(done, len(rows))
    if done < len(rows):
        raise UserError(f"Stopped after {done} of {len(rows)} rows; nothing was saved.")
    return rows


def _answer_ids(pair: Pair, messages: list[Any]) -> list[int]:
    """The learned tokens of the last answer, its end of turn included."""
    encoded = encoding.encode(pair.tokenizer, messages)
    prompt = len(encoding.encode_prompt(pair.tokenizer, messages[:-1]))
    tail = zip(encoded.ids[prompt:], encoded.supervised[prompt:], strict=True)
    return [token for token, learned in tail if learned]


def _longest_answer(pair: Pair, examples: list[Example]) -> int:
    """Room for half as much again as the longest reference needs, so that a wordier base isn't cut at once."""
    longest = max(
        len(pair.tokenizer(text, add_special_tokens=False)["input_ids"])
        for example in examples
        for text in example.get("references") or [example["messages"][-1]["content"]]
    )
    return min(LONGEST_ANSWER, longest + longest // 2 + 8)


def _write(
    run: runs.Run,
    config: EvaluateConfig,
    outputs: list[dict[str, Any]],
    labels: list[str],
    began: float,
    general: dict[str, Any] | None,
) -> dict[str, Any]:
    """Score, and save both files; outputs first, so that scores.json says the evaluation is whole."""
    name = time.strftime("%m%d-%H%M%S")
    folder = run.path / "evaluations" / name
    path = folder / "outputs.jsonl"
    result = score_outputs(outputs, labels, config.seed, trained_labels(run)) | {
        "outputs": str(path),
        "evaluation": name,
        "run": run.name,
        "task": run.config()["data"]["task"],
        "settings": config.to_json(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    if general:
        runs.write_jsonl(folder / "general.jsonl", general.pop("outputs"))
        result["general"] = general
    runs.write_jsonl(path, outputs)
    runs.write_json(folder / "scores.json", result)
    return result


def trained_labels(run: runs.Run) -> Counter[str]:
    """How often each label occurs in the run's training rows."""
    return Counter(example["label"] for example in run.examples("train") if example.get("label"))


def rescore(run: runs.Run | str, name: str) -> dict[str, Any]:
    """The scores of a saved evaluation made anew from its outputs, without a model; scores.json is replaced."""
    run = runs.find(run) if isinstance(run, str) else run
    if name not in run.evaluations():
        known = ", ".join(run.evaluations()) or "none yet"
        raise UserError(f"Run {run.name} has no evaluation {name!r}; there are: {known}.")
    old = run.scores(name)
    result = old | score_outputs(run.outputs(name), old["labels"], old["settings"]["seed"], trained_labels(run))
    folder = run.path / "evaluations" / name
    if (folder / "general.jsonl").exists():
        result["general"] = forgetting.judge(list(runs.read_jsonl(folder / "general.jsonl")), old["settings"]["seed"])
    runs.write_json(folder / "scores.json", result)
    return result
