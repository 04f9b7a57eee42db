"""What `check` and the Data tab tell of data: layout, faults, labels, lengths in tokens, duplicates, leaks, the X-ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftdemo import data, encoding, hub
from sftdemo.config import ReadConfig
from sftdemo.errors import Fault, UsageError, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftdemo.data import Dataset


def inspect(config: ReadConfig, model: str, row: int | None = None, report: hub.Report = hub.silent) -> dict[str, Any]:
    """The `check` command's JSON. Rows a template can't mask are faults too; with `row` (from 1) also its tokens.

    Where the model can't be had, tokens are None and the reason is reported; the X-ray then raises UserError.
    """
    dataset = data.read(config)
    found = describe(dataset) | data.outlook(config, dataset)
    if not dataset.examples:
        return found
    try:
        from sftdemo.models import tokenizer

        words = tokenizer(model, report)
    except UserError as error:
        if row is not None:
            raise
        report(f"Tokens are not counted: {error}")
        return found
    counts = token_counts(dataset, words)
    found |= {key: counts[key] for key in ("tokens", "supervised_tokens")}
    found["faults"] += [fault.to_json() for fault in counts["template_faults"]]
    if row is not None:
        examples = [example for split in dataset.splits.values() for example in split]
        if not 1 <= row <= len(examples):
            raise UsageError(f"There is no row {row}; the data has rows 1 to {len(examples)}.")
        found["xray"] = encoding.xray(words, examples[row - 1]["messages"])
    return found


def describe(dataset: Dataset) -> dict[str, Any]:
    """What can be said without a tokenizer."""
    return {
        "format": dataset.format,
        "task": dataset.task,
        "examples": dataset.examples,
        "splits": {split: len(rows) for split, rows in dataset.splits.items()},
        "mapping": dataset.mapping,
        "faults": [fault.to_json() for fault in dataset.faults],
        "labels": dataset.labels,
        "tokens": None,
        "supervised_tokens": None,
        "duplicates": dataset.duplicates,
        "near_duplicates": dataset.near_duplicates,
        "leaked": dataset.leaked,
        "warnings": [fault.to_json() for fault in dataset.warnings],
        "columns": dataset.columns,
        "instruction": dataset.instruction,
        **data.account(dataset),
    }


def token_counts(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """{"tokens": {"p50", "p95", "max"} of a row, "supervised_tokens" in all, "lengths", "template_faults"}."""
    lengths: list[int] = []
    learned = 0
    faults: list[Fault] = []
    for rows in dataset.splits.values():
        for number, example in enumerate(rows, 1):
            try:
                encoded = encoding.encode(tokenizer, example["messages"])
            except encoding.TemplateError as error:
                line = example.get("meta", {}).get("line", number)
                faults.append(Fault(line, "messages", str(error), "", dataset.source))
                continue
            lengths.append(len(encoded.ids))
            learned += sum(encoded.supervised)
    lengths.sort()
    tokens = (
        {
            "p50": lengths[len(lengths) // 2],
            "p95": lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))],
            "max": lengths[-1],
        }
        if lengths
        else None
    )
    return {"tokens": tokens, "supervised_tokens": learned, "lengths": lengths, "template_faults": faults}
