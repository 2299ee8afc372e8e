"""Reading Syft's arrays: an Arrow tensor message, compressed, with its size and dtype.

Arrow's own reader is C++ and takes shapes, strides and sizes on trust in places; this one knows one
layout (dense, numeric, row- or column-major) and checks each offset.
Sources: https://arrow.apache.org/docs/format/Columnar.html ("Encapsulated message format"),
Arrow's Message.fbs and Tensor.fbs, https://flatbuffers.dev/internals/.
"""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from network.capnproto import BytesRefused

MAX_ARRAY_BYTES = 64 * 2**20
"""No message unpacks to more than 64 MiB of array elements."""

_MAX_DIMENSIONS = 8
_CONTINUATION = 0xFFFFFFFF
_TENSOR_MESSAGE = 4
_INT, _FLOAT = 2, 3
_DTYPES = frozenset(
    {
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64",
    }
)  # fmt: skip


def unpack_array(packed: memoryview, size: int, dtype: str, codec: str) -> NDArray[Any]:
    """The array that Syft packed as these three values.

    Args:
        packed: the compressed Arrow message.
        size: its uncompressed size in bytes, as claimed.
        dtype: the NumPy name of the element type.
        codec: the compression both sides of Syft are set to.

    Raises:
        BytesRefused: anything but a numeric array of the claimed size, at most 64 MiB.
    """
    if dtype not in _DTYPES:
        raise BytesRefused("Arrays hold booleans, integers or floats.")
    if not 0 <= size <= MAX_ARRAY_BYTES:
        raise BytesRefused(f"An array has at most {MAX_ARRAY_BYTES} bytes.")
    if codec == "none":
        raw = packed
    else:
        try:
            raw = memoryview(pa.decompress(packed, decompressed_size=size, codec=codec))
        except (pa.ArrowException, OSError, ValueError, MemoryError):
            raise BytesRefused("The array can't be decompressed.") from None
    return _tensor(raw).astype(np.dtype(dtype))


def _tensor(raw: memoryview) -> NDArray[Any]:
    try:
        return _read_tensor(raw)
    except struct.error:
        raise BytesRefused("The array's header leads outside it.") from None


def _read_tensor(raw: memoryview) -> NDArray[Any]:
    continuation, length = struct.unpack_from("<II", raw, 0)
    if continuation != _CONTINUATION or 8 + length > len(raw):
        raise BytesRefused("The array has no Arrow header.")
    header, body = raw[8 : 8 + length], raw[8 + length :]
    message = _Table(header, _offset(header, 0))
    if message.number(1, "<B") != _TENSOR_MESSAGE:
        raise BytesRefused("Expected a dense Arrow tensor.")
    tensor = message.table(2)
    element = _element(tensor.number(0, "<B"), tensor.table(1))
    shape = tensor.dimensions(2)
    strides = tensor.vector(3)
    begin, size = tensor.buffer(4)
    count = 1
    for extent in shape:
        count *= extent
    expected = count * element.itemsize
    if not (begin >= 0 and size >= 0 and begin + size <= len(body) and expected <= size):
        raise BytesRefused("The array's elements lie outside it.")
    flat = np.frombuffer(body[begin : begin + expected], dtype=element)
    if strides and count and list(strides) != _strides(shape, element.itemsize):
        if list(strides) != _strides(shape[::-1], element.itemsize)[::-1]:
            raise BytesRefused("The array is neither row-major nor column-major.")
        return flat.reshape(shape, order="F")
    return flat.reshape(shape)


def _strides(shape: list[int], itemsize: int) -> list[int]:
    found, step = [], itemsize
    for extent in reversed(shape):
        found.append(step)
        step *= extent
    return found[::-1]


def _element(kind: int, table: "_Table") -> np.dtype[Any]:
    if kind == _INT:
        bits, signed = table.number(0, "<i"), table.number(1, "<B")
        name = f"{'int' if signed else 'uint'}{bits}"
    elif kind == _FLOAT:
        name = {0: "float16", 1: "float32", 2: "float64"}.get(table.number(0, "<h"), "")
    else:
        name = ""
    if name not in _DTYPES:
        raise BytesRefused("Arrays hold booleans, integers or floats.")
    return np.dtype(name)


def _offset(header: memoryview, place: int) -> int:
    found: int = place + struct.unpack_from("<I", header, place)[0]
    return found


class _Table:
    """A flatbuffers table: fields found through its vtable; a field left out has the value 0."""

    def __init__(self, header: memoryview, place: int) -> None:
        self._header, self._place = header, place
        back = struct.unpack_from("<i", header, place)[0]
        self._vtable = place - back
        if not 0 <= self._vtable <= len(header) - 4:
            raise BytesRefused("The array's header leads outside it.")
        self._size = struct.unpack_from("<H", header, self._vtable)[0]

    def number(self, field: int, layout: str) -> int:
        place = self._field(field)
        return 0 if place is None else int(struct.unpack_from(layout, self._header, place)[0])

    def table(self, field: int) -> "_Table":
        return _Table(self._header, _offset(self._header, self._required(field)))

    def vector(self, field: int) -> list[int]:
        """A vector of 64-bit integers; empty if left out."""
        place = self._field(field)
        if place is None:
            return []
        begin, count = self._vector(place)
        return list(struct.unpack_from(f"<{count}q", self._header, begin))

    def dimensions(self, field: int) -> list[int]:
        """The sizes in a vector of TensorDim tables."""
        begin, count = self._vector(self._required(field))
        places = [_offset(self._header, begin + 4 * index) for index in range(count)]
        sizes = [_Table(self._header, place).number(0, "<q") for place in places]
        if any(not 0 <= size <= MAX_ARRAY_BYTES for size in sizes):
            raise BytesRefused("The array's shape is out of bounds.")
        return sizes

    def buffer(self, field: int) -> tuple[int, int]:
        """An Arrow Buffer struct: offset and length in the body."""
        begin, size = struct.unpack_from("<qq", self._header, self._required(field))
        return int(begin), int(size)

    def _vector(self, place: int) -> tuple[int, int]:
        begin = _offset(self._header, place)
        count = struct.unpack_from("<I", self._header, begin)[0]
        if count > _MAX_DIMENSIONS:
            raise BytesRefused(f"An array has at most {_MAX_DIMENSIONS} dimensions.")
        return begin + 4, count

    def _required(self, field: int) -> int:
        place = self._field(field)
        if place is None:
            raise BytesRefused("The array's header is incomplete.")
        return place

    def _field(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return None
        offset: int = struct.unpack_from("<H", self._header, self._vtable + entry)[0]
        return self._place + offset if offset else None
