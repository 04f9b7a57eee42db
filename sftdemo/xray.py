"""One row token by token, read back from the very batch that trains, with its neighbours in the pack."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sftdemo import encoding, lengths
from sftdemo.config import TrainConfig
from sftdemo.encoding import Encoded, TemplateError
from sftdemo.errors import UsageError
from sftdemo.packing import Collator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftdemo.data import Dataset, Example


def xray(dataset: Dataset, number: int, tokenizer: PreTrainedTokenizerBase, config: TrainConfig) -> dict[str, Any]:
    """{"xray": [{"id", "text", "supervised", "row", "shared"}], "pack": {…}} of row `number`, counted from 1.

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
    raise UsageError(f"There is no row {number}; the data has rows 1 to {before}.")


def _of_pack(
    dataset: Dataset,
    rows: list[Example],
    place: int,
    before: int,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
) -> dict[str, Any]:
    first = max(0, min(place - 1, len(rows) - config.batch_size))
    numbers, encoded, left_out = [], [], False
    for index in range(first, min(first + config.batch_size, len(rows))):
        mine = index == place - 1
        try:
            row = encoding.encode(tokenizer, rows[index]["messages"])
        except TemplateError:
            if mine:
                raise
            continue
        fitting = list(lengths.fit([rows[index]], [row], tokenizer, config, dataset).rows)
        if mine and not fitting:
            fitting, left_out = [row], True
        if fitting:  # of a text in chunks the first one is shown
            numbers.append(before + index + 1)
            encoded.append(fitting[0])
    if left_out:
        encoded, numbers = [encoded[numbers.index(before + place)]], [before + place]
    batch = Collator(packed=True)(encoded)
    shared = batch["packing"][0]
    told = {
        number: _told(tokenizer, _whole(span, row), number, shared)
        for number, span, row in zip(numbers, rows_of_batch(batch), encoded, strict=True)
    }
    count = shared + sum(len(tokens) - shared for tokens in told.values())
    return {
        "xray": told.pop(before + place),
        "pack": {
            "rows": numbers,
            "tokens": count,
            "shared": shared,
            "left_out": left_out,
            "neighbours": [{"row": number, "tokens": tokens[shared:]} for number, tokens in told.items()],
        },
    }


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


def _told(tokenizer: PreTrainedTokenizerBase, row: Encoded, number: int, shared: int) -> list[dict[str, Any]]:
    text = encoding.Detokenizer(tokenizer, skip_special_tokens=False)
    return [
        {"id": token, "text": text.add(token), "supervised": learned, "row": number, "shared": at < shared}
        for at, (token, learned) in enumerate(zip(row.ids, row.supervised, strict=True))
    ]
