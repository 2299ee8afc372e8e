"""What a node and its confined processes say to each other: JSON and arrays through a pipe.

A frame is an 8-byte length, a JSON header with the arrays' names, dtypes and shapes, and their raw
bytes. Nothing is pickled.
"""

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_FRAME = 2**31
_ALLOWED_DTYPES = ("float32", "float64", "int64", "bool", "uint8")


def write_frame(pipe: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Write one message: length, JSON header, then the arrays' bytes in order."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described = [
        {"name": n, "dtype": str(a.dtype), "shape": list(arrays[n].shape)}
        for n, a in contiguous.items()
    ]
    text = json.dumps({"header": dict(header), "arrays": described}).encode()
    pipe.write(struct.pack("<Q", len(text)) + text)
    for array in contiguous.values():
        pipe.write(array.reshape(-1).view(np.uint8).data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read what `write_frame` wrote.

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
        arrays[described["name"]] = np.frombuffer(_exactly(pipe, size), dtype).reshape(shape)
    return message["header"], arrays


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    # Read in place: what is as long as a model would be in memory twice otherwise.
    content = bytearray(size)
    left = memoryview(content)
    while left:
        read = pipe.readinto(left)  # type: ignore[attr-defined]
        if not read:
            raise EOFError("the other side ended")
        left = left[read:]
    return content
