"""What `check` and the Data tab tell of data: layout, faults, labels, lengths in tokens, duplicates, leaks, the X-ray."""

from __future__ import annotations

import re
from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Any

from sftdemo import data, hub
from sftdemo.config import TrainConfig
from sftdemo.data.scripts import scripts
from sftdemo.data.templates import frame
from sftdemo.errors import Fault, UserError
from sftdemo.lengths import instruction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftdemo.data import Dataset, Example
    from sftdemo.encoding import Encoded


# Rows encoded for a check, spread over all, and as many more that may be over the limit; half a millisecond each.
MOST_COUNTED = 5_000


def inspect(config: TrainConfig, row: int | None = None, report: hub.Report = hub.silent) -> dict[str, Any]:
    """The `check` command's JSON. Rows a template can't mask are faults too; with `row` (from 1) also its tokens.

    Where the model can't be had, tokens are None and the reason is reported; the X-ray then raises UserError.
    """
    dataset = data.read(config)
    found = describe(dataset) | data.outlook(config, dataset)
    if not dataset.examples:
        return found
    try:
        from sftdemo.encoding import tokenizer

        words = tokenizer(config.model, report)
    except UserError as error:
        if row is not None:
            raise
        report(f"Tokens are not counted: {error}")
        return found
    measured = measure(dataset, words, config, MOST_COUNTED)
    if measured["counted"] < dataset.examples:
        report(f"Tokens are counted on {measured['counted']} of {dataset.examples} rows; training checks every row.")
    found["faults"] += measured.pop("template_faults")
    found["warnings"] += measured.pop("length_warnings")
    found |= measured
    if row is not None:
        from sftdemo.xray import xray

        found |= xray(dataset, row, words, config)
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
        "character_histogram": histogram([characters(example) for example in _examples(dataset)]),
        "scripts": scripts(own_words(dataset, example) for example in _examples(dataset)),
        "duplicates": dataset.duplicates,
        "near_duplicates": dataset.near_duplicates,
        "leaked": dataset.leaked,
        "warnings": [fault.to_json() for fault in dataset.warnings],
        "columns": dataset.columns,
        "instruction": dataset.instruction,
        **data.account(dataset),
    }


def _examples(dataset: Dataset) -> list[Example]:
    return [example for split in dataset.splits.values() for example in split]


def own_words(dataset: Dataset, example: Example) -> str:
    """What a row says itself: its answer and its questions, without the system prompt and the template's fixed words."""
    head, tail = frame(instruction(dataset, example))
    said = []
    for message in example["messages"]:
        if message["role"] != "system":
            said.append(message["content"].removeprefix(head).removesuffix(tail))
    return "\n".join(said)


def characters(example: Example) -> int:
    """How long a row is, all its turns together."""
    return sum(len(message["content"]) for message in example["messages"])


def measure(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, config: TrainConfig, most: int | None = None
) -> dict[str, Any]:
    """What only a tokenizer can tell of the rows (of at most `most`, spread evenly), each encoded as it is trained on.

    {"tokens": {"p50", "p95", "max"} of a row, "supervised_tokens" in all, "counted" rows, "token_histogram", "lengths":
    what becomes of rows over the limit, "template": the checks that block a bad run, "template_faults",
    "length_warnings"}. Rows long enough to be over the limit are looked at beside those that are counted.
    """
    from sftdemo import encoding, lengths

    faults: list[Fault] = []
    failed: dict[str, str] = {}
    counts: Counter[str] = Counter()
    special = _special(tokenizer)
    fitting: tuple[list[Example], list[Encoded]] = ([], [])
    examples = _examples(dataset)
    counted = range(0, len(examples), max(1, ceil(len(examples) / most)) if most else 1)
    maybe_over = [
        at for at, example in enumerate(examples) if encoding.may_pass(example["messages"], config.max_length)
    ]
    chosen = sorted({*counted, *maybe_over[:most]})
    long: list[Fault] = []
    sizes: list[int] = []
    for number, example in ((index + 1, examples[index]) for index in chosen):
        counts["special_in_text"] += any(special.search(message["content"]) for message in example["messages"])
        try:
            row = encoding.encode(tokenizer, example["messages"])
        except encoding.TemplateError as error:
            meta = example.get("meta", {})
            faults.append(Fault(meta.get("line", number), "messages", str(error), "", meta.get("file", dataset.source)))
            failed.setdefault(error.check, str(error))
            continue
        counts["only_read"] += row.only_read
        if number - 1 in counted:
            sizes.append(len(row.ids))
        if len(row.ids) > config.max_length:
            problem = f"The row has {len(row.ids)} tokens; max_length is {config.max_length}."
            remedy = "Raise max_length, shorten the row, or leave it to on_long."
            meta = example.get("meta", {})
            long.append(Fault(meta.get("line", number), "messages", problem, remedy, meta.get("file", dataset.source)))
        fitting[0].append(example)
        fitting[1].append(row)
    fitted = lengths.fit(*fitting, tokenizer, config, dataset)
    sizes.sort()
    return {
        "tokens": _spread(sizes),
        "supervised_tokens": sum(sum(row.supervised) for row in fitted.rows),
        "counted": len(counted),
        "token_histogram": histogram(sizes, config.max_length),
        "lengths": {
            **{name: getattr(config, name) for name in ("max_length", "on_long", "chunk_overlap")},
            **fitted.counts(),
        },
        "template": {
            **{check: check not in failed for check in encoding.CHECKS},
            "reasons": failed,
            **{name: counts[name] for name in ("only_read", "special_in_text")},
        },
        "template_faults": [fault.to_json() for fault in faults],
        "length_warnings": [fault.to_json() for fault in long],
    }


def _special(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """The special tokens as they would stand in a text that was put through a template already."""
    written = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, written)) or r"(?!)")


def _spread(sizes: list[int]) -> dict[str, int] | None:
    """The median, the 95th percentile and the largest of sorted sizes."""
    if not sizes:
        return None
    return {"p50": sizes[len(sizes) // 2], "p95": sizes[min(len(sizes) - 1, int(0.95 * len(sizes)))], "max": sizes[-1]}


def histogram(sizes: list[int], limit: int | None = None, bins: int = 24) -> dict[str, Any] | None:
    """{"low", "width", "counts", "limit"}: how many sizes are in each bin, from `low` in steps of `width`."""
    if not sizes:
        return None
    low = min(sizes)
    width = max(1, ceil((max(sizes) - low + 1) / bins))
    counts = [0] * ((max(sizes) - low) // width + 1)
    for size in sizes:
        counts[(size - low) // width] += 1
    return {"low": low, "width": width, "counts": counts, "limit": limit}
