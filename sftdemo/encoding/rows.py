"""Encoded rows: token ids and the mask of what is learned."""

from __future__ import annotations

import os.path
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and for each whether it is learned (an assistant's token or its end of turn)."""

    ids: list[int]
    supervised: list[bool]
    weight: float = 1.0

    @property
    def prompt_length(self) -> int:
        """How many tokens stand before the first learned one."""
        return self.supervised.index(True)

    @property
    def inputs(self) -> list[int]:
        """What a model must read to learn the row: all before its last learned token; of the rest nothing is asked."""
        return self.ids[: len(self.ids) - 1 - self.supervised[::-1].index(True)]


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """With how many tokens all rows begin alike."""
    return len(os.path.commonprefix(list(rows)))  # type: ignore[arg-type]  # noqa: RUF071 (it takes any lists)


class EncodedRows(Sequence[Encoded]):
    """Encoded rows in 5 bytes a token; as lists of numbers they take 44, half a gigabyte for 100,000 short rows."""

    def __init__(self, rows: Iterable[Encoded] = ()) -> None:
        self.ids, self.supervised = array("i"), bytearray()
        self.ends, self.weights = array("q", [0]), array("d")
        for row in rows:
            self.append(row)

    def append(self, row: Encoded) -> None:
        self.ids.extend(row.ids)
        self.supervised.extend(row.supervised)
        self.ends.append(len(self.ids))
        self.weights.append(row.weight)

    def columns(self) -> tuple[array[int], bytearray, array[int], array[float]]:
        """All that decides what is learned, as bytes can be made of it."""
        return self.ids, self.supervised, self.ends, self.weights

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        weight = self.weights[index]  # IndexError where there is no such row
        index %= len(self)
        span = slice(self.ends[index], self.ends[index + 1])
        supervised = [learned == 1 for learned in self.supervised[span]]
        return Encoded(self.ids[span].tolist(), supervised, weight)
