"""The rows an evaluation is of: held-out examples that the model can take, and outputs.jsonl before it has answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from sftdemo import data, runs
from sftdemo.config import EvaluateConfig
from sftdemo.data.types import turn_text
from sftdemo.encoding import encode
from sftdemo.encoding.chat_template import TemplateCostError
from sftdemo.errors import DataError, Text, UserError
from sftdemo.log import Reporter

if TYPE_CHECKING:
    from sftdemo.data import Example, Message
    from sftdemo.inference.side_by_side import SideBySide

_WHOLE = {"reasoning_content", "tool_calls"}
END = 4  # tokens, at most, that a template writes behind an answer


def held_out(run: runs.Run, config: EvaluateConfig, reporter: Reporter) -> list[Example]:
    """The rows to evaluate on: the run's test split; or of other data the test split, else all."""
    if config.data is None:
        examples = cast("list[Example]", run.examples("test"))
    else:
        splits = _other_data(run, config, reporter).splits
        examples = splits.get("test") or splits.get("validation") or splits["train"]
    if not examples:
        raise UserError("Run {name} has no held-out rows; give data to evaluate on with --data.", name=run.name)
    if config.max_examples:
        examples = data.take(examples, config.max_examples, config.seed)
    return examples


def _other_data(run: runs.Run, config: EvaluateConfig, reporter: Reporter) -> data.Dataset:
    """Other data, asked in the very words of the training where it has the same layout."""
    trained_config = run.trained_config()
    trained = trained_config["data"]
    options = {name: getattr(config, name) for name in ("encoding", "header", "sheet")}
    options["system"] = trained_config["settings"].get("system")
    source = config.data or ""
    dataset = data.read(source, **options)
    if dataset.format == trained["format"] and trained["instruction"]:
        dataset = data.read(
            source, columns=trained_config["settings"].get("columns"), instruction=trained["instruction"], **options
        )
    if dataset.faults:
        raise DataError(dataset.faults)
    for note in (*(warning.text for warning in dataset.warnings), *dataset.notes):
        reporter.info(note)
    return dataset


def task_of(example: Example) -> str | None:
    """The set that an example comes from, where several are mixed."""
    return example.get("meta", {}).get("source")


def taken(examples: list[Example], pair: SideBySide, reporter: Reporter) -> tuple[list[Example], int]:
    """The rows that the model's template takes, and how many it refuses; UserError where it refuses all."""
    accepted, first = [], None
    for example in examples:
        try:
            encode.encode_prompt(pair.tokenizer, example["messages"][:-1], example.get("tools"))
            accepted.append(example)
        except TemplateCostError:
            raise
        except encode.TemplateError as error:
            first = first or error
    if first and not accepted:
        raise first
    if first:
        reporter.info(
            Text(
                "Rows left out, since the model's chat template refuses them: {n}. {reason}",
                n=len(examples) - len(accepted),
                reason=first.text,
            )
        )
    return accepted, len(examples) - len(accepted)


def fits(example: Example, pair: SideBySide) -> bool:
    """Whether the prompt leaves room for an answer as long as the reference."""
    tools = example.get("tools")
    if not encode.may_exceed(example["messages"], pair.context, tools):
        return True
    *prompt, answer = example["messages"]
    reference = len(pair.tokenizer(turn_text(answer), add_special_tokens=False)["input_ids"]) + END
    return len(encode.encode_prompt(pair.tokenizer, prompt, tools)) + reference <= pair.context


def choices_of(examples: list[Example]) -> dict[str, list[str]]:
    """The labels of each task, "" where there is one; no key for a task without labels."""
    labels_of: dict[str, set[str]] = {}
    for example in examples:
        if label := example.get("label"):
            labels_of.setdefault(task_of(example) or "", set()).add(label)
    return {task: sorted(labels) for task, labels in labels_of.items()}


def all_labels(choices: dict[str, list[str]]) -> list[str]:
    return sorted({label for labels in choices.values() for label in labels})


def rows_of(examples: list[Example]) -> list[dict[str, Any]]:
    """outputs.jsonl before it has answers: a row for each example, in their order."""
    return [
        {
            "row": number,
            "task": task_of(example),
            "messages": example["messages"][:-1],
            "references": example.get("references") or [_answer_text(example["messages"][-1])],
            "label": example.get("label"),
            **({"group": group} if (group := example.get("meta", {}).get("group")) else {}),
            **({"tools": tools} if (tools := example.get("tools")) else {}),
            # Thoughts and calls are learned with the answer, so its likelihood is that of all.
            **({"answer": example["messages"][-1]} if _WHOLE & example["messages"][-1].keys() else {}),
        }
        for number, example in enumerate(examples)
    ]


def _answer_text(message: Message) -> str:
    """What an answer is compared by: its content, or the calls that stand instead."""
    calls = [call["function"] for call in message.get("tool_calls", [])]
    written = "\n".join(
        json.dumps({"name": call["name"], "arguments": call.get("arguments")}, ensure_ascii=False) for call in calls
    )
    return message["content"] if message["content"].strip() else written
