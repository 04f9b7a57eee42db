"""Texts as an encoder reads them to tag their words: windows of token ids with the words that are told by each, and batches."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from sftdemo.data.text.occurrences import is_edge
from sftdemo.encoding.label_rows import padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the target of tokens that no word is told by


@dataclass(frozen=True)
class TokenRow:
    """A window of a text; the word told by the token at `places[i]` has the tag `labels[i]`, a number, and `words[i]` is where it
    stands in the text, (start, end). `weight` is that of each word's loss."""

    ids: list[int]
    places: list[int]
    words: list[tuple[int, int]]
    labels: list[int]
    weight: float = 1.0


@dataclass
class TokenRows(Sequence[TokenRow]):
    """The windows of texts that have words to tell, in order."""

    windows: list[TokenRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> Any:
        return self.windows[index]

    def columns(self) -> Iterator[array[Any]]:
        """All that decides what is learned, as bytes can be made of it."""
        yield array("i", (token for row in self.windows for token in row.ids))
        yield array("i", (number for row in self.windows for number in (len(row.ids), *row.places, *row.labels)))
        yield array("d", (row.weight for row in self.windows))


@dataclass(frozen=True)
class Window:
    """The token ids of a part of a text, special tokens included, and its words: the place of each one's first token, and
    where it stands in the text."""

    ids: list[int]
    places: list[int]
    words: list[tuple[int, int]]


def windows(tokenizer: PreTrainedTokenizerBase, text: str, window: int, overlap: int) -> list[Window]:
    """A text in windows of at most `window` tokens; neighbours share `overlap`, and each word is told by the window in which it
    has the most around it.

    A word is what spaces and punctuation divide; of Chinese, Japanese, Korean, Thai and their kin, each token. `tokenizer` is a
    fast one.
    """
    room = window - tokenizer.num_special_tokens_to_add(pair=False)
    encoded = tokenizer(
        text,
        truncation=True,
        max_length=window,
        stride=min(overlap, max(room // 2, 0)),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    pieces = [
        _pieces(text, encoded["offset_mapping"][number], encoded.sequence_ids(number))
        for number in range(len(encoded["input_ids"]))
    ]
    ends: dict[int, int] = {}
    owners: dict[
        int, tuple[int, int, int]
    ] = {}  # of each start: how many tokens are around it, the window, its first token
    for number, part in enumerate(pieces):
        seen: set[int] = set()
        for place, (start, end) in part.items():
            ends[start] = max(end, ends.get(start, 0))
            around = min(place, len(encoded["input_ids"][number]) - 1 - place)
            if start not in seen and around > owners.get(start, (-1,))[0]:
                owners[start] = (around, number, place)
            seen.add(start)
    words = _words(text, ends)
    result = []
    for number, ids in enumerate(encoded["input_ids"]):
        own = [(owners[word[0]][2], word) for word in words if owners[word[0]][1] == number]
        result.append(Window(ids, [place for place, _ in own], [word for _, word in own]))
    return result


def _pieces(
    text: str, offsets: Sequence[tuple[int, int]], sequences: Sequence[int | None]
) -> dict[int, tuple[int, int]]:
    """{place: (start, end) in the text} of a window's tokens, blanks around them and tokens of nothing but blanks aside."""
    pieces = {}
    for place, ((start, end), sequence) in enumerate(zip(offsets, sequences, strict=True)):
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if sequence is not None and start < end:
            pieces[place] = (start, end)
    return pieces


def _words(text: str, pieces: dict[int, int]) -> list[tuple[int, int]]:
    """The words of a text (start, end) from its tokens, {start: end}."""
    words: list[tuple[int, int]] = []
    for start, end in sorted(pieces.items()):
        if not words or (is_edge(text, start) and start >= words[-1][1]):
            words.append((start, end))
        else:
            words[-1] = (words[-1][0], max(end, words[-1][1]))
    return words


@dataclass(frozen=True)
class TokenCollator:
    """Makes a batch of windows: input_ids and attention_mask [B, T], `targets` [B, T], the tag of each word at its first token
    and IGNORED elsewhere, `labels` and `weights` of all words, [words], and `row_tokens`, the tokens of the rows."""

    pad: int

    def __call__(self, rows: list[TokenRow]) -> dict[str, Any]:
        batch: dict[str, Any] = padded([row.ids for row in rows], self.pad)
        targets = torch.full_like(batch["input_ids"], IGNORED)
        weights = torch.zeros(targets.shape)
        for number, row in enumerate(rows):
            targets[number, row.places] = torch.tensor(row.labels, dtype=torch.long)
            weights[number, row.places] = row.weight
        told = targets != IGNORED
        return batch | {
            "targets": targets,
            "labels": targets[told],
            "weights": weights[told],
            "row_tokens": sum(len(row.ids) for row in rows if row.weight),
        }
