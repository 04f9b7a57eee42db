"""The rows an evaluation is of: held-out examples that the model can take, and outputs.jsonl before it has answers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast

from sftdemo import data, files, runs
from sftdemo.config.evaluate import EvaluateConfig
from sftdemo.config.kinds import CHAT
from sftdemo.config.read import OWN_TEXTS
from sftdemo.data.types import turn_text
from sftdemo.encoding import calls, encode
from sftdemo.encoding.chat_template import TemplateCostError
from sftdemo.encoding.detokenizer import Detokenizer
from sftdemo.encoding.thoughts import answer_of, scored_of
from sftdemo.errors import DataError, Text, UserError
from sftdemo.evaluation import label_sets
from sftdemo.log import Reporter
from sftdemo.runs import row_limits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
        examples = _labelled_as_trained(
            splits.get("test") or splits.get("validation") or splits["train"], run, reporter
        )
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
    words = None if run.kind == CHAT else OWN_TEXTS
    dataset = data.read(source, instruction=words, **options)
    if dataset.format == trained["format"] and trained["instruction"]:
        dataset = data.read(
            source, columns=trained_config["settings"].get("columns"), instruction=trained["instruction"], **options
        )
    if dataset.faults:
        raise DataError(dataset.faults)
    for note in (*(warning.text for warning in dataset.warnings), *dataset.notes):
        reporter.info(note)
    return dataset


def _labelled_as_trained(examples: list[Example], run: runs.Run, reporter: Reporter) -> list[Example]:
    """The examples with several labels, or one, as those of the training: a file alone doesn't always show which it has."""
    trained = run.examples("train")
    several = all(row.get("labels") for row in trained)
    if not trained or not (several or all(row.get("label") for row in trained)):
        return examples
    names = sorted({label for row in trained for label in (row["labels"] if several else [row["label"]])})
    marked = [example for example in examples if ("label" if several else "labels") in example]
    written = [example["label"] if several else ", ".join(example["labels"]) for example in marked]
    sets = label_sets.named(written, names)
    if not marked or not (several or all(len(labels) == 1 for labels in sets)):
        return examples
    labelled = {id(example): _labelled(example, labels, several) for example, labels in zip(marked, sets, strict=True)}
    if several and (n := sum(len(labels) > 1 for labels in sets)):
        reporter.info(Text("In {n} rows the label is read as several, as in the training of {run}.", n=n, run=run.name))
    return [labelled.get(id(example), example) for example in examples]


def _labelled(example: Example, labels: list[str], several: bool) -> Example:
    """The example with other labels, in its answer, too."""
    *question, answer = example["messages"]
    rest = {key: value for key, value in example.items() if key not in ("label", "labels")}
    own = {"labels": labels} if several else {"label": labels[0]}
    return cast("Example", {**rest, "messages": [*question, {**answer, "content": ", ".join(labels)}], **own})


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
    if not encode.may_exceed(example["messages"], min(pair.context, pair.longest_target), tools):
        return True
    *prompt, answer = example["messages"]
    reference = len(pair.tokenizer(turn_text(answer), add_special_tokens=False)["input_ids"]) + END
    return pair.has_room(len(encode.encode_prompt(pair.tokenizer, prompt, tools)), reference)


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
    """outputs.jsonl before it has answers: a row for each example, in their order; UserError for one that no page would read."""
    rows = [
        {
            "row": number,
            "task": task_of(example),
            "messages": example["messages"][:-1],
            "references": example.get("references") or [_answer_text(example["messages"][-1])],
            "label": example.get("label"),
            **({"labels": labels} if (labels := example.get("labels")) else {}),
            **({"group": group} if (group := example.get("meta", {}).get("group")) else {}),
            **({"tools": tools} if (tools := example.get("tools")) else {}),
            # Thoughts and calls are learned with the answer, so its likelihood is that of all.
            **({"answer": example["messages"][-1]} if _WHOLE & example["messages"][-1].keys() else {}),
        }
        for number, example in enumerate(examples)
    ]
    for number, row in enumerate(rows, 1):
        problem = row_limits.too_long(row)
        if not problem and len(files.jsonl([row]).encode()) > row_limits.MOST_ASKED:
            problem = Text("has more than {most:,} bytes", most=row_limits.MOST_ASKED)
        if problem:
            raise UserError("Held-out row {number} can't be evaluated: {problem}.", number=number, problem=problem)
    return rows


def _answer_text(message: Message) -> str:
    """What an answer is compared by: its content, and the calls that it makes."""
    if not (tool_calls := message.get("tool_calls")):
        return message["content"]
    return calls.written(message["content"], [call["function"] for call in tool_calls])


def add_spelled_calls(rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Where calls can't be read back from how the model's template writes them, let that be a right answer, too."""
    stops, text = encode.stop_ids(tokenizer), Detokenizer(tokenizer).text
    for row in rows:
        if not row.get("answer", {}).get("tool_calls"):
            continue
        ids = encode.answer_ids(tokenizer, row["messages"], row["answer"], row.get("tools"))
        spelled = text(list(itertools.takewhile(lambda token: token not in stops, ids))).strip()
        if answer_of(spelled) and scored_of(row, spelled) not in [
            scored_of(row, reference) for reference in row["references"]
        ]:
            row["references"] = [*row["references"], answer_of(spelled)]
