"""One row token by token, read back from the very batch that trains, with its neighbours in the pack."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sftdemo.config.train import TrainConfig
from sftdemo.encoding import source_target, source_target_batch, truncation
from sftdemo.encoding.detokenizer import Detokenizer
from sftdemo.encoding.encode import TemplateError
from sftdemo.encoding.examples import encode_all, encode_example
from sftdemo.encoding.packing import Collator
from sftdemo.encoding.rows import Encoded
from sftdemo.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftdemo.data import Dataset, Example


def xray(dataset: Dataset, number: int, tokenizer: PreTrainedTokenizerBase, config: TrainConfig) -> dict[str, Any]:
    """{"xray": [{"id", "text", "supervised", "row", "shared"}], "pack": {…}} of row `number`, counted from 1.

    Where the template rewrites history, a row's answers are learned one at a time, and the tokens of each follow one
    another.

    `shared` tokens are computed once for the whole pack. "pack" has its `rows`, the count of all `tokens` and of `shared`
    ones, and the `neighbours`' own tokens; `left_out` says that the row is over max_length and isn't trained on. The
    neighbours are the rows that follow: in training a draw decides them. Raises UsageError for a row that isn't there,
    TemplateError for one without a mask.
    """
    before = 0
    for rows in dataset.splits.values():
        if 1 <= number - before <= len(rows):
            return _of_pack(dataset, rows, number - before, before, tokenizer, config)
        before += len(rows)
    raise UsageError("There is no row {row}; the data has rows 1 to {last}.", row=number, last=before)


def _of_pack(
    dataset: Dataset,
    rows: list[Example],
    place: int,
    before: int,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
) -> dict[str, Any]:
    example = rows[place - 1]
    if config.on_fault == "fix":
        example = next(iter(encode_all([example], tokenizer, "fix", dataset.source).kept), example)
    mine = _rows_of(example, tokenizer, config, dataset)
    encoded = mine or [row for _, row in encode_example(tokenizer, example)]
    numbers = [before + place] * len(encoded)
    first = max(0, min(place - 1, len(rows) - config.batch_size))
    for index in range(first, min(first + config.batch_size, len(rows))) if mine else ():
        if index == place - 1:
            continue
        with suppress(TemplateError):  # a neighbour at fault is in no pack
            neighbour = _rows_of(rows[index], tokenizer, config, dataset)
            encoded += neighbour[: max(0, config.batch_size - len(encoded))]
            numbers += [before + index + 1] * (len(encoded) - len(numbers))
    if source_target.of(tokenizer):
        shared, spans = 0, source_target_batch.rows_of_batch(source_target_batch.PairCollator(0)(encoded))
    else:
        batch = Collator(packed=True)(encoded)
        shared, spans = batch["packing"][0], rows_of_batch(batch)
    tokens_by_row: dict[int, list[dict[str, Any]]] = {}
    for number, span, row in zip(numbers, spans, encoded, strict=True):
        tokens_by_row.setdefault(number, []).extend(_token_views(tokenizer, _whole(span, row), number, shared))
    count = shared + sum(not token["shared"] for tokens in tokens_by_row.values() for token in tokens)
    return {
        "xray": tokens_by_row.pop(before + place),
        "pack": {
            "rows": sorted({before + place, *tokens_by_row}),
            "tokens": count,
            "shared": shared,
            "left_out": not mine,
            "neighbours": [
                {"row": number, "tokens": [token for token in tokens if not token["shared"]]}
                for number, tokens in sorted(tokens_by_row.items())
            ],
        },
    }


def _rows_of(
    example: Example, tokenizer: PreTrainedTokenizerBase, config: TrainConfig, dataset: Dataset
) -> list[Encoded]:
    """The rows that an example is trained as; of a text in chunks the first one, none where it is over the limit."""
    rows = []
    for alone, row in encode_example(tokenizer, example):
        rows += list(truncation.fit([alone], [row], tokenizer, config, dataset).rows)[:1]
    return rows


def rows_of_batch(batch: dict[str, Any]) -> list[Encoded]:
    """The rows of a packed batch up to their last learned token: the shared tokens first, learned where a label asks."""
    ids, keep = batch["input_ids"].flatten().tolist(), batch["logits_to_keep"].flatten().tolist()
    labels = iter(batch["labels"].tolist())
    following = [next(labels) if kept else None for kept in keep]
    shared, *own = batch["packing"]
    rows, start = [], shared
    for length in own:
        places = [*range(shared), *range(start, start + length)]
        # A token is learned where the place before it in the row has it as its label; the last one is nothing else.
        learned = [False] + [following[place] is not None for place in places]
        last = following[places[-1]]
        assert last is not None and all(following[at] in (None, ids[after]) for at, after in pairwise(places))
        rows.append(Encoded([*(ids[place] for place in places), last], learned))
        start += length
    return rows


def _whole(span: Encoded, row: Encoded) -> Encoded:
    """The row as read from the batch, with what follows its last learned token, which no batch needs."""
    rest = row.ids[len(span.ids) :]
    return Encoded(span.ids + rest, span.supervised + [False] * len(rest))


def _token_views(tokenizer: PreTrainedTokenizerBase, row: Encoded, number: int, shared: int) -> list[dict[str, Any]]:
    text = Detokenizer(tokenizer, skip_special_tokens=False)
    return [
        {"id": token, "text": text.add(token), "supervised": learned, "row": number, "shared": at < shared}
        for at, (token, learned) in enumerate(zip(row.ids, row.supervised, strict=True))
    ]
