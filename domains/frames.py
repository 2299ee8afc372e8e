"""What a node and its confined processes say to each other: JSON and arrays through a pipe.

A frame is an 8-byte length, a JSON header with the arrays' names, dtypes and shapes, and their raw
bytes. Nothing is pickled.
A state as long as a model is never in memory as a whole on its way: `Stored` arrays lie in a file
and are copied from there, piece by piece. What both sides have open, such as the memory in which an
engine leaves its sum, doesn't pass through the pipe at all.
"""

import json
import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_FRAME = 2**31
_ALLOWED_DTYPES = ("float32", "float64", "int64", "bool", "uint8")
_AT_A_TIME = 2**18
"""Bytes."""


@dataclass(frozen=True)
class Stored:
    """An array that stays in its file.

    Attributes:
        begin: of its bytes, little-endian, in the file.
    """

    file: IO[bytes]
    begin: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return math.prod(self.shape) * self.dtype.itemsize

    def pieces(self) -> Iterator[memoryview]:
        """Its bytes in order; each piece overwrites the one before.

        Raises:
            ValueError: the file became shorter.
        """
        buffer = memoryview(bytearray(min(self.nbytes, _AT_A_TIME)))
        for begin in range(0, self.nbytes, _AT_A_TIME):
            piece = buffer[: self.nbytes - begin]
            if os.preadv(self.file.fileno(), [piece], self.begin + begin) != len(piece):
                raise ValueError("a stored array's file ends before the array")
            yield piece


Arrays = Mapping[str, NDArray | Stored]
"""By name, in memory or in a file."""


def write_frame(
    pipe: IO[bytes], header: Mapping[str, Any], arrays: Arrays, shared: IO[bytes] | None = None
) -> None:
    """Write one message: length, JSON header, then the arrays' bytes in order.

    Args:
        shared: a file that the other side has open too; of arrays in it, only the place is told.

    Raises:
        ValueError: see `Stored.pieces`.
    """
    described, sent = [], []
    for name, array in arrays.items():
        told: dict[str, Any] = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
        if isinstance(array, Stored) and array.file is shared:
            told["begin"] = array.begin
        else:
            sent.append(array)
        described.append(told)
    text = json.dumps({"header": dict(header), "arrays": described}).encode()
    pipe.write(struct.pack("<Q", len(text)) + text)
    for array in sent:
        if isinstance(array, Stored):
            for piece in array.pieces():
                pipe.write(piece)
        else:
            pipe.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    pipe.flush()


def read_frame(
    pipe: IO[bytes], shared: int | None = None
) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read what `write_frame` wrote.

    Args:
        shared: the file in which arrays may lie. They are mapped: what is written to them stays
            with this process.

    Raises:
        EOFError: the other side ended. ValueError: not such a frame.
    """
    (length,) = struct.unpack("<Q", _exactly(pipe, 8))
    if length > MAX_FRAME:
        raise ValueError("the frame is too long")
    message = json.loads(_exactly(pipe, length))
    arrays = {}
    for described in message["arrays"]:
        if described["dtype"] not in _ALLOWED_DTYPES:
            raise ValueError("the frame has an array of another dtype than allowed")
        dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not 0 <= size <= MAX_FRAME:
            raise ValueError("the frame has an array that is too large")
        if "begin" in described and shared is not None:
            arrays[described["name"]] = _mapped(shared, described["begin"], dtype, shape)
            continue
        array = np.empty(shape, dtype)
        _fill(pipe, array.reshape(-1).view(np.uint8).data)
        arrays[described["name"]] = array
    return message["header"], arrays


def _mapped(file: int, begin: int, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray:
    content = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
    found = np.frombuffer(content, dtype, math.prod(shape), begin).reshape(shape)
    # A file may begin with a header of any length; what lies oddly is copied.
    return np.require(found, requirements="A")


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    content = bytearray(size)
    _fill(pipe, memoryview(content))
    return content


def _fill(pipe: IO[bytes], left: memoryview) -> None:
    # Read in place: what is as long as a model would be in memory twice otherwise.
    while left:
        read = pipe.readinto(left)  # type: ignore[attr-defined]
        if not read:
            raise EOFError("the other side ended")
        left = left[read:]
