"""Examples in a JSONL file that are read when they are asked for, so that a large data set takes no memory."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from sftdemo.data.types import Example

ROWS, INDEX = "rows.jsonl", "index.bin"
LISTED = "listed"  # a folder beside them: the rows as they stand in the file


def write(folder: Path, examples: Iterable[Any], size: Callable[[Any], int]) -> None:
    """The examples, or other objects, as a file, with an index of where each begins, and its size."""
    places, sizes, at = array("Q"), array("Q"), 0
    with (folder / ROWS).open("wb") as file:
        for example in examples:
            line = json.dumps(example).encode() + b"\n"
            file.write(line)
            places.append(at)
            sizes.append(size(example))
            at += len(line)
    places.append(at)
    (folder / INDEX).write_bytes(places.tobytes() + sizes.tobytes())


class File:
    """A file that `write` made; it can be read until it is closed, even where it was deleted meanwhile."""

    def __init__(self, folder: Path) -> None:
        numbers = array("Q", (folder / INDEX).read_bytes())
        count = len(numbers) // 2
        self.places, self.sizes = numbers[: count + 1], numbers[count + 1 :]
        self._descriptor = os.open(folder / ROWS, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @property
    def bytes(self) -> int:
        return self.places[-1]

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, row: int) -> Any:
        start, end = self.places[row], self.places[row + 1]
        return json.loads(os.pread(self._descriptor, end - start, start))


class StoredRows(Sequence[Example]):
    """Some rows of a file, by their numbers in it."""

    def __init__(self, file: File, numbers: Sequence[int]) -> None:
        self.file, self.numbers = file, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self.file.read(number) for number in self.numbers[place]]
        return self.file.read(self.numbers[place])

    def __iter__(self) -> Iterator[Example]:
        return map(self.file.read, self.numbers)

    def sizes(self) -> list[int]:
        """The size of each row, as it was written."""
        return [self.file.sizes[number] for number in self.numbers]
