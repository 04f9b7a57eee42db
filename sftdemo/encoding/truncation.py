"""What becomes of rows over the length limit: left out, the middle of their prompt cut, or a long text split into chunks.

An answer and the token that ends it are never cut: a row whose answer leaves no room is left out and counted.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from sftdemo.config.train import TrainConfig
from sftdemo.data.conversion.templates import frame
from sftdemo.encoding import encode, source_target
from sftdemo.encoding.rows import EncodedRows
from sftdemo.errors import fill

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftdemo.data import Dataset, Example
    from sftdemo.encoding.rows import Encoded

GAP = " … "
GAP_TOKENS = 4
SLACK = 4  # cut elsewhere, a text can have a few tokens more
LEAST = 16  # tokens of a text that must be left for it to say anything


@dataclass
class Fitted:
    """Rows that all fit, and what was done: rows `over` the limit, of which `dropped`, `cut` or `split` into `chunks`."""

    rows: EncodedRows = field(default_factory=EncodedRows)
    limits: str = ""
    over: int = 0
    dropped: int = 0
    cut: int = 0
    split: int = 0
    chunks: int = 0

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("over", "dropped", "cut", "split", "chunks")}

    def sentence(self, config: TrainConfig) -> str:
        """What a run says of it; "" where every row fits."""
        if not self.over:
            return ""
        outcomes = ["{cut} lost the middle of their prompt"] if self.cut else []
        outcomes += ["{split} became {chunks} chunks"] if self.split else []
        outcomes += ["{dropped} are left out"] if self.dropped else []
        sentence = f"{{over}} rows are over {{limits}} tokens (on_long {config.on_long}): {', '.join(outcomes)}."
        return fill(sentence, {**self.counts(), "limits": self.limits})


def fit(
    examples: Sequence[Example],
    rows: Sequence[Encoded],
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    dataset: Dataset,
) -> Fitted:
    """Apply `config.on_long` to the encoded rows of these examples; rows that fit stay as they are."""
    fitted = Fitted(limits=encode.limits_in_words(tokenizer, config.max_length))
    shared: tuple[str, str] | None = None
    for example, row in zip(examples, rows, strict=True):
        limit = encode.longest_row(tokenizer, row, config.max_length)
        if len(row.ids) <= limit:
            fitted.rows.append(row)
            continue
        fitted.over += 1
        fixed = frame(instruction(dataset, example))
        if fixed == ("", ""):
            fixed = shared = shared or shared_words(dataset)
        shorter = shortened(example, row, tokenizer, config, fixed, limit)
        for each in shorter:
            fitted.rows.append(each)
        if not shorter:
            fitted.dropped += 1
        elif config.on_long == "cut":
            fitted.cut += 1
        else:
            fitted.split += 1
            fitted.chunks += len(shorter)
    return fitted


def shortened(
    example: Example,
    row: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    fixed: tuple[str, str],
    limit: int,
) -> list[Encoded]:
    """What takes the place of a row that has more tokens than `limit`: nothing, the cut row, or its chunks."""
    if config.on_long == "drop" or all(message["role"] != "user" for message in example["messages"]):
        return []
    work = _Shortening(example, row, tokenizer, limit, fixed)
    return work.cut() if config.on_long == "cut" else work.chunks(config.chunk_overlap)


def instruction(dataset: Dataset, example: Example) -> str:
    """The template this example's user turn was written with, or ""."""
    templates: dict[str, str] = {s["name"]: s["instruction"] for s in getattr(dataset, "sources", [])}
    return templates.get(example.get("meta", {}).get("source", ""), dataset.instruction)


def shared_words(dataset: Dataset) -> tuple[str, str]:
    """The words all questions begin and end with, where no template tells: "Summarise.\n\n" stays in every chunk."""
    questions = {
        message["content"]
        for rows in dataset.splits.values()
        for example in rows
        for message in example["messages"]
        if message["role"] == "user"
    }
    if len(questions) < 2:
        return "", ""
    head = os.path.commonprefix([min(questions), max(questions)])  # noqa: RUF071 (by character is meant)
    backwards = {text[len(head) :][::-1] for text in questions}
    tail = os.path.commonprefix([min(backwards), max(backwards)])[::-1]  # noqa: RUF071
    # Whole lines only: that two texts begin with the same word says nothing.
    return head[: head.rfind("\n") + 1], tail[tail.find("\n") :] if "\n" in tail else ""


@dataclass
class _Text:
    """The part of a user turn that is the row's own (its document), with the place of each of its tokens."""

    turn: int
    head: str
    body: str
    tail: str
    offsets: list[tuple[int, int]]

    def part(self, first: int, last: int) -> str:
        """The text of the tokens from `first` up to `last`, that one not; a character of several tokens is the first's."""
        start = max(self.offsets[first][0], self.offsets[first - 1][1] if first else 0)
        return self.body[start : self.offsets[last - 1][1]]


class _Shortening:
    """One row on its way under the limit; everything but the user's own text stays as it is."""

    def __init__(
        self, example: Example, row: Encoded, tokenizer: PreTrainedTokenizerBase, limit: int, fixed: tuple[str, str]
    ) -> None:
        self.messages: list[Any] = list(example["messages"])
        self.tools = example.get("tools")
        self.row, self.tokenizer, self.limit = row, tokenizer, limit
        users = [turn for turn, message in enumerate(self.messages) if message["role"] == "user"]
        texts = [self._text(turn, *fixed) for turn in users]
        self.texts = sorted(texts, key=lambda text: -len(text.offsets))
        # What the template and all other turns need.
        self.besides = len(row.ids) - len(self.texts[0].offsets)

    def _text(self, turn: int, head: str, tail: str) -> _Text:
        content = self.messages[turn]["content"]
        if not (content.startswith(head) and content[len(head) :].endswith(tail)):
            head = tail = ""
        body = content[len(head) : len(content) - len(tail)]
        return _Text(turn, head, body, tail, source_target.offsets(self.tokenizer, body))

    def _message(self, text: _Text, body: str) -> dict[str, Any]:
        return {**self.messages[text.turn], "content": text.head + body + text.tail}

    def _encoded(self, text: _Text, body: str) -> Encoded:
        messages = [*self.messages[: text.turn], self._message(text, body), *self.messages[text.turn + 1 :]]
        encoded = encode.encode(self.tokenizer, messages, self.tools)
        return replace(self.row, ids=encoded.ids, supervised=encoded.supervised)

    def cut(self) -> list[Encoded]:
        """Take out the middle of the longest user turn, and of the next where that isn't enough."""
        over = len(self.row.ids) - self.limit
        for text in self.texts:
            total = len(text.offsets)
            kept = total - GAP_TOKENS - SLACK - over
            while max(kept, LEAST) + GAP_TOKENS < total:
                kept = max(kept, LEAST)
                left = ceil(kept / 2)
                body = text.part(0, left) + GAP + text.part(total - kept + left, total)
                row = self._encoded(text, body)
                over = len(row.ids) - self.limit
                if over <= 0:
                    return [row]
                if kept == LEAST:
                    self.messages[text.turn] = self._message(text, body)
                    break
                kept -= over
        return []

    def chunks(self, overlap: int) -> list[Encoded]:
        """Rows with the same answer, over stretches of the one user turn that share `overlap` tokens with the next."""
        text, total = self.texts[0], len(self.texts[0].offsets)
        room = self.limit - self.besides - SLACK
        while len(self.texts) == 1 and room > overlap + LEAST:
            count = ceil((total - overlap) / (room - overlap))
            step = ceil((total - overlap) / count)
            starts = range(0, total - overlap, step)
            rows = [self._encoded(text, text.part(at, min(at + step + overlap, total))) for at in starts]
            over = max(len(row.ids) for row in rows) - self.limit
            if over <= 0:
                return rows
            room -= over
        return []
