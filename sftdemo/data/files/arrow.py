"""Parquet, and Arrow as file (Feather) or stream: rows of what JSON can hold, within the limits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from sftdemo.data.files import class_names, workbooks
from sftdemo.data.files.table import Table, reason
from sftdemo.data.limits import OverLimit
from sftdemo.errors import Text

SUFFIXES = (".parquet", ".arrow", ".feather")
_BATCH = 128  # rows at a time


def read(table: Table, data: bytes, suffix: str) -> None:
    """Fill the table batch by batch, as few bytes may unpack to many."""
    import pyarrow

    unpacked, unread = 0, set[str]()
    try:
        for batch in _batches(table, pyarrow.BufferReader(data), suffix):
            unpacked += batch.nbytes
            if unpacked > table.limits.unpacked_bytes:
                raise OverLimit(table.limits, "unpacked_bytes")
            classes = table.classes[table.file] = class_names.of_schema(batch.schema.metadata)
            others = [column.name for column in batch.schema if not _is_json(column.type)]
            for row in batch.to_pylist():
                row |= {name: class_names.named(row[name], names) for name, names in classes.items() if name in row}
                for name in others:
                    try:
                        row[name] = _as_json(row[name])
                    except UnicodeDecodeError:
                        unread.add(name)
                table.add(len(table.rows) + len(table.faults) + 1, row)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        table.rows, table.faults = [], []
        problem = (
            Text("This isn't a Parquet file that can be read: {reason}.", reason=reason(error))
            if suffix == ".parquet"
            else Text("This isn't an Arrow file that can be read: {reason}.", reason=reason(error))
        )
        table.fault(0, problem, Text("Write it anew."))
    if unread:
        table.rows = [row._replace(values=_without(row.values, unread)) for row in table.rows]
        table.note(Text("columns of bytes that are no text are not read: {names}.", names=sorted(map(repr, unread))))


def _without(values: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    return {column: value for column, value in values.items() if column not in columns}


def _is_json(kind: Any) -> bool:
    """Whether JSON has the values of an Arrow type; of floating-point numbers it lacks NaN."""
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_json(part.type) for part in kind)
    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _is_json(kind.value_type)
    plain = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_null)
    return any(is_one(kind) for is_one in plain)


def _as_json(value: Any) -> Any:
    """Maps as objects, dates as a workbook has them, decimals as numbers, NaN as nothing, bytes as the text that they are.

    Raises UnicodeDecodeError for bytes that are none.
    """
    if isinstance(value, dict):
        return {name: _as_json(part) for name, part in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(part, tuple) for part in value):
            return {str(name): _as_json(part) for name, part in value}
        return [_as_json(part) for part in value]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float | Decimal):
        return None if math.isnan(value) else float(value)
    return value if value is None or isinstance(value, str | int) else workbooks.as_text(value)


def _batches(table: Table, source: Any, suffix: str) -> Iterator[Any]:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    if suffix == ".parquet":
        file = pyarrow.parquet.ParquetFile(source)
        _check_shape(table, file.schema_arrow.names, file.metadata.num_rows)
        yield from file.iter_batches(batch_size=_BATCH)
        return
    try:
        reader = pyarrow.ipc.open_file(source)
        batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
    except pyarrow.ArrowInvalid:
        source.seek(0)
        try:
            batches = reader = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            raise ValueError("it is neither a file nor a stream of Arrow") from None
    _check_shape(table, reader.schema.names, 0)
    for batch in batches:
        _check_shape(table, (), len(table.rows) + batch.num_rows)
        batch.validate(full=True)  # its offsets are the file's, and may lead anywhere
        for start in range(0, batch.num_rows, _BATCH):
            yield batch.slice(start, _BATCH)


def _check_shape(table: Table, names: Sequence[str], rows: int) -> None:
    if len(names) > table.limits.columns:
        raise OverLimit(table.limits, "columns", len(names))
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"it has two columns {twice!r}")
    if rows > table.limits.rows:
        raise OverLimit(table.limits, "rows")
