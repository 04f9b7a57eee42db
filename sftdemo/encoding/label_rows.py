"""Texts as an encoder reads them: windows of token ids with the labels to learn, and batches of these, padded."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LabelRow:
    """A window of a text; `labels` are the numbers of those that apply, `weight` its part of the loss."""

    ids: list[int]
    labels: list[int]
    weight: float = 1.0


@dataclass
class LabelRows(Sequence[LabelRow]):
    """The windows of texts, in order; `texts[i]` says which text window i is of."""

    windows: list[LabelRow] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)

    def add(self, windows: Sequence[list[int]], labels: list[int], weight: float = 1.0) -> None:
        """One text; its windows share its weight, so that a long text counts no more than a short one."""
        number = self.texts[-1] + 1 if self.texts else 0
        for ids in windows:
            self.windows.append(LabelRow(ids, labels, weight / len(windows)))
            self.texts.append(number)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> Any:
        return self.windows[index]

    def columns(self) -> Iterator[array[Any]]:
        """All that decides what is learned, as bytes can be made of it."""
        yield array("i", (token for row in self.windows for token in row.ids))
        yield array("i", (label for row in self.windows for label in (len(row.ids), *row.labels)))
        yield array("d", (row.weight for row in self.windows))


def windows(tokenizer: PreTrainedTokenizerBase, text: str, window: int, overlap: int) -> list[list[int]]:
    """The token ids of a text, special tokens included, in windows of at most `window`; neighbours share `overlap`."""
    room = window - tokenizer.num_special_tokens_to_add(pair=False)
    shared = min(overlap, max(room // 2, 0))
    if not tokenizer.is_fast:  # one in Python gives back the first window alone
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        starts = range(0, max(len(ids) - shared, 1), room - shared)
        return [tokenizer.build_inputs_with_special_tokens(ids[start : start + room]) for start in starts]
    encoded = tokenizer(
        text,
        truncation=True,
        max_length=window,
        stride=shared,
        return_overflowing_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return encoded["input_ids"]  # type: ignore[no-any-return]


def padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask, both [rows, longest], padded on the right."""
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


@dataclass(frozen=True)
class LabelCollator:
    """Makes a batch of windows: input_ids and attention_mask [B, T], `weights` [B], and `labels`: [B] numbers, or where
    several may apply to a text [B, count] ones and zeros. `row_tokens` counts the tokens of the rows."""

    pad: int
    several: int = 0  # how many labels there are, where more than one may apply

    def __call__(self, rows: list[LabelRow]) -> dict[str, Any]:
        if self.several:
            labels = torch.zeros(len(rows), self.several)
            for place, row in enumerate(rows):
                labels[place, row.labels] = 1.0
        else:
            labels = torch.tensor([row.labels[0] for row in rows])
        return {
            **padded([row.ids for row in rows], self.pad),
            "labels": labels,
            "weights": torch.tensor([row.weight for row in rows]),
            "row_tokens": sum(len(row.ids) for row in rows if row.weight),
        }
