"""What `check` and the Data tab tell of data: layout, faults, labels, lengths in tokens, duplicates, leaks, the X-ray."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Any

from sftdemo import data
from sftdemo.config import kinds
from sftdemo.config.train import TrainConfig
from sftdemo.data.conversion.templates import frame
from sftdemo.data.text.writing_systems import scripts
from sftdemo.encoding.truncation import instruction
from sftdemo.errors import Fault, Text, UsageError, UserError
from sftdemo.log import TO_LOG, Reporter
from sftdemo.verbs import text_lengths
from sftdemo.verbs.sizes import histogram, spread

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftdemo.data import Dataset, Example


# Rows encoded for a check, spread over all, and as many more that may be over the limit; half a millisecond each.
MOST_COUNTED = 5_000


def inspect(config: TrainConfig, row: int | None = None, reporter: Reporter = TO_LOG) -> dict[str, Any]:
    """The `check` command's JSON. Rows a template can't mask are faults too; with `row` (from 1) also its tokens.

    Where the model can't be had, tokens are None and the reason is reported; the X-ray then raises UserError.
    """
    dataset = data.read(config.for_reading)
    facts = describe(dataset) | data.outlook(config, dataset)
    if not dataset.examples:
        return facts
    if config.task == "tokens":
        from sftdemo.training.token_prepare import fault_in

        faults = [fault.to_json() for example in _examples(dataset) if (fault := fault_in(example, dataset))]
        told = "faults" if config.on_fault == "stop" else "dropped"
        facts[told] = [*facts[told], *faults]
    try:
        from sftdemo.model import download
        from sftdemo.model.loading import tokenizer_for

        words = tokenizer_for(config, download.find(config.model, reporter, config.task)[0])
    except UserError as error:
        if row is not None or isinstance(error, UsageError):
            raise
        reporter.info(f"Tokens are not counted: {error}")
        return facts
    if config.task in kinds.LABELLING:
        if row is not None:
            raise UsageError("task {task} learns labels, no tokens; leave row out.", task=config.task)
        return facts | text_lengths.measure(dataset, words, config)
    measured = measure(dataset, words, config, MOST_COUNTED)
    if measured["counted"] < dataset.examples:
        reporter.info(
            f"Tokens are counted on {measured['counted']} of {dataset.examples} rows; training checks every row."
        )
    for kind, faults in measured.pop("told").items():
        facts[kind] = [*facts[kind], *faults]
    facts |= measured
    if row is not None:
        from sftdemo.encoding.xray import xray

        facts |= xray(dataset, row, words, config)
    return facts


def describe(dataset: Dataset) -> dict[str, Any]:
    """What can be said without a tokenizer."""
    return {
        "format": dataset.format,
        "task": dataset.task,
        "examples": dataset.examples,
        "splits": {split: len(rows) for split, rows in dataset.splits.items()},
        "mapping": dataset.mapping,
        "suggested": dataset.suggested,
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
    texts = []
    for message in example["messages"]:
        if message["role"] != "system":
            texts.append(message["content"].removeprefix(head).removesuffix(tail))
    return "\n".join(texts)


def characters(example: Example) -> int:
    """How long a row is, all its turns together."""
    return sum(len(message["content"]) for message in example["messages"])


def measure(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    most: int | None = None,
    most_tokens: Sequence[int] | None = None,
    budget: float = math.inf,
) -> dict[str, Any]:
    """What only a tokenizer can tell of the rows (of at most `most`, spread evenly), each encoded as it is trained on.

    {"tokens": {"p50", "p95", "max"} of a row, "supervised_tokens" in all, "counted" rows, "token_histogram", "lengths":
    what becomes of rows over the limit, "template": the checks that block a bad run, "told": {"faults", "dropped",
    "fixed", "warnings", "notes"} of the rows}. Rows long enough to be over the limit are looked at beside those that are counted.

    `most_tokens` says of each row what `encode.most_tokens` does, if that is at hand: then only rows that are encoded are
    looked up. Of more rows than have `budget` such tokens together none are encoded.
    """
    from sftdemo.encoding import encode, truncation
    from sftdemo.encoding import examples as rows

    encoded = rows.EncodingResult()
    stored = most_tokens is not None
    if most_tokens is None:
        most_tokens = [encode.most_tokens(row["messages"], row.get("tools")) for row in _examples(dataset)]
    counted, chosen = _to_encode(most_tokens, config.max_length, most, budget)
    picked = list(zip(chosen, _rows_at(dataset, chosen), strict=True))
    long: list[Fault] = []
    sizes: list[int] = []
    for number, example in ((place + 1, example) for place, example in picked):
        for row in rows.add(encoded, example, tokenizer, config.on_fault, dataset.source, number):
            if number - 1 in counted:
                sizes.append(len(row.ids))
            if len(row.ids) > (limit := encode.longest_row(tokenizer, row, config.max_length)):
                problem = Text("The row has {n} tokens; max_length is {limit}.", n=len(row.ids), limit=limit)
                if limit != config.max_length:
                    limits = encode.limits_in_words(tokenizer, config.max_length)
                    problem = Text("The row has {n} tokens, more than {limits}.", n=len(row.ids), limits=limits)
                remedy = Text("Raise max_length, shorten the row, or leave it to on_long.")
                meta = example.get("meta", {})
                line, file = meta.get("line", number), meta.get("file", dataset.source)
                long.append(Fault(line, "messages", problem, remedy, file))
    whole = replace(dataset, splits={"picked": [example for _, example in picked]}) if stored else dataset
    fitted = truncation.fit(encoded.examples, encoded.rows, tokenizer, config, whole)
    sizes.sort()
    return {
        "tokens": spread(sizes),
        "supervised_tokens": sum(sum(row.supervised) for row in fitted.rows),
        "counted": len(counted),
        "token_histogram": histogram(sizes, config.max_length),
        "lengths": {
            **{name: getattr(config, name) for name in ("max_length", "on_long", "chunk_overlap")},
            **fitted.counts(),
        },
        "template": {
            **{check: check not in encoded.checks for check in encode.CHECKS},
            "reasons": encoded.checks,
            "special_in_text": encoded.control,
        },
        "told": {
            "faults": [fault.to_json() for fault in encoded.faults],
            "dropped": [fault.to_json() for fault in encoded.dropped],
            "fixed": [fault.to_json() for fault in encoded.fixed],
            "warnings": [fault.to_json() for fault in [*encoded.warnings(dataset.source), *long]],
            "notes": encoded.notes(),
        },
    }


def _to_encode(most_tokens: Sequence[int], limit: int, most: int | None, budget: float) -> tuple[range, list[int]]:
    """(the rows that are counted, those and the rows that may be over the limit)."""
    rows = len(most_tokens)
    mean = sum(most_tokens) / max(rows, 1)
    most = min(most or rows, int(max(1, min(budget / max(mean, 1), rows))))
    counted = range(0, rows, max(1, ceil(rows / max(most, 1))))
    maybe_over = [place for place, size in enumerate(most_tokens) if size > limit][:most]
    sums = accumulate(most_tokens[place] for place in maybe_over)
    return counted, sorted({*counted, *(place for place, size in zip(maybe_over, sums, strict=True) if size <= budget)})


def _rows_at(dataset: Dataset, places: Sequence[int]) -> Iterator[Example]:
    """The rows at these places, counted through all splits."""
    parts = list(dataset.splits.values())
    starts = list(accumulate(map(len, parts), initial=0))
    for place in places:
        part = bisect_right(starts, place) - 1
        yield parts[part][place - starts[part]]
