"""Reading a data frame, which Syft sends as a Parquet file: a mock, from a node to its reader.

Parquet can say millions of equal values in a few bytes. So what a file unpacks to is counted batch
by batch, with text kept as a dictionary until its length is known, and the file's own figures are
no more than a first check.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from network.capnproto import BytesRefused

_MAX_FILE_BYTES = 16 * 2**20
_MAX_COLUMNS = 1_000
_CODECS = frozenset({"UNCOMPRESSED", "SNAPPY"})
"""What Syft writes; other codecs make thousands of bytes of one."""
_BATCH_ROWS = 4_096
_CELL_BYTES = 8
"""What a cell takes in the data frame, at least."""


def read_table(content: memoryview, spend: Callable[[int], None]) -> pd.DataFrame:
    """A data frame of plain columns.

    Args:
        spend: told what is unpacked, in bytes, before it is; raises when that is too much.

    Raises:
        BytesRefused: not a Parquet file, columns of other kinds, or too large.
    """
    if len(content) > _MAX_FILE_BYTES:
        raise BytesRefused(f"A data frame has at most {_MAX_FILE_BYTES} bytes.")
    try:
        return _read(pa.BufferReader(bytes(content)), spend)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError):
        raise BytesRefused("The data frame can't be read.") from None


def _read(source: pa.BufferReader, spend: Callable[[int], None]) -> pd.DataFrame:
    whole = pq.ParquetFile(source)
    facts, schema = whole.metadata, whole.schema_arrow
    groups = [facts.row_group(index) for index in range(facts.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if facts.num_columns > _MAX_COLUMNS or any(group.num_rows < 0 for group in groups):
        raise BytesRefused("The data frame has too many columns.")
    codecs = {g.column(index).compression for g in groups for index in range(g.num_columns)}
    if codecs - _CODECS:
        raise BytesRefused("A data frame is compressed by Snappy or not at all.")
    if not all(_is_plain(field.type) for field in schema):
        raise BytesRefused("A data frame has columns of numbers, text, booleans or times.")
    spend(rows * len(schema) * _CELL_BYTES)
    text = [field.name for field in schema if _is_text(field.type)]
    file = pq.ParquetFile(source, read_dictionary=text)
    batches = []
    for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
        rows -= batch.num_rows
        if rows < 0:
            raise BytesRefused("The data frame has more rows than it says.")
        batches.append([_plain(column, spend) for column in batch.columns])
    columns = [
        pa.chunked_array([batch[index] for batch in batches], type=field.type)
        for index, field in enumerate(schema)
    ]
    table = pa.table(columns, schema=schema)
    plain: pd.DataFrame = table.to_pandas(use_threads=False, ignore_metadata=True)
    return plain


def _plain(column: Any, spend: Callable[[int], None]) -> Any:
    """A column with its text written out, once its length is counted."""
    if not pa.types.is_dictionary(column.type):
        return column
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    spend(pc.sum(lengths).as_py() or 0)
    return column.dictionary_decode()


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_plain(kind: pa.DataType) -> bool:
    is_a = pa.types
    return (
        is_a.is_integer(kind)
        or is_a.is_floating(kind)
        or is_a.is_boolean(kind)
        or _is_text(kind)
        or is_a.is_timestamp(kind)
        or is_a.is_null(kind)
    )
