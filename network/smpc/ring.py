"""Arithmetic in the ring Z_2^64, and the bytes its elements travel as.

Shares are one-dimensional numpy arrays of `uint64`. Numpy's unsigned overflow wraps, which is
exactly addition modulo 2^64. Signed numbers are embedded by two's complement, so a sum decodes
correctly as long as the true total lies in [-2^63, 2^63).
"""

import struct

import numpy as np
from numpy.typing import NDArray

WORD = np.dtype("<u8")
"""Elements travel as little-endian 64-bit words on every machine."""

_MAGIC = b"Z64\x01"
_HEADER = struct.Struct("<4sQ")
MAX_LENGTH = 2**28
"""Most elements one frame may announce (2 GiB of words)."""


class RingError(ValueError):
    """An array or a frame isn't what the ring works on; the message says what was expected."""


def to_ring(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Embed signed integers.

    Args:
        values: int64 array of shape [P].

    Returns:
        A new uint64 array of shape [P]: each value modulo 2^64.

    Raises:
        RingError: the array isn't one-dimensional int64.
    """
    _check(values, np.dtype(np.int64))
    return values.astype(np.uint64)


def from_ring(elements: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Decode centred: elements of [2^63, 2^64) stand for negative numbers.

    Args:
        elements: uint64 array of shape [P].

    Returns:
        A new int64 array of shape [P].

    Raises:
        RingError: the array isn't one-dimensional uint64.
    """
    _check(elements, np.dtype(np.uint64))
    return elements.astype(np.int64)


def add(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sum modulo 2^64 of two uint64 arrays of the same shape [P].

    Raises:
        RingError: a wrong dtype, or shapes that differ (nothing is broadcast).
    """
    _check_pair(left, right)
    return np.add(left, right)


def subtract(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Difference modulo 2^64 of two uint64 arrays of the same shape [P].

    Raises:
        RingError: a wrong dtype, or shapes that differ (nothing is broadcast).
    """
    _check_pair(left, right)
    return np.subtract(left, right)


def pack(elements: NDArray[np.uint64]) -> bytes:
    """Frame a uint64 array of shape [P]: magic, count (u64), then P little-endian words.

    Raises:
        RingError: the array isn't one-dimensional uint64, or has more than `MAX_LENGTH` elements.
    """
    _check(elements, np.dtype(np.uint64))
    if elements.size > MAX_LENGTH:
        raise RingError(f"{elements.size} elements are more than one frame's {MAX_LENGTH}")
    body = elements.astype(WORD, copy=False).tobytes()
    return _HEADER.pack(_MAGIC, elements.size) + body


def unpack(frame: bytes, length: int) -> NDArray[np.uint64]:
    """Read a frame that must hold exactly `length` elements.

    The length comes from the plan, never from the sender, and is compared with the header and
    with the bytes received before anything is allocated.

    Returns:
        A new, writable uint64 array of shape [length].

    Raises:
        RingError: foreign magic, another count than expected, missing or surplus bytes.
    """
    if not 0 <= length <= MAX_LENGTH:
        raise RingError(f"a frame holds 0 to {MAX_LENGTH} elements; asked for {length}")
    if len(frame) < _HEADER.size:
        raise RingError(f"frame of {len(frame)} bytes is shorter than its {_HEADER.size}-byte head")
    magic, count = _HEADER.unpack_from(frame)
    if magic != _MAGIC:
        raise RingError("frame doesn't start with the mark of ring elements")
    if count != length:
        raise RingError(f"frame announces {count} elements; {length} expected")
    if len(frame) - _HEADER.size != length * WORD.itemsize:
        raise RingError(f"frame of {len(frame)} bytes doesn't hold exactly {length} elements")
    words = np.frombuffer(frame, dtype=WORD, offset=_HEADER.size)
    return words.astype(np.uint64)


def _check(array: NDArray, dtype: np.dtype) -> None:
    if not isinstance(array, np.ndarray):
        raise RingError(f"expected a numpy array, got {type(array).__name__}")
    if array.ndim != 1 or array.dtype != dtype:
        raise RingError(
            f"expected a one-dimensional {dtype} array, got {array.dtype} of shape {array.shape}"
        )


def _check_pair(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> None:
    word = np.dtype(np.uint64)
    _check(left, word)
    _check(right, word)
    if left.shape != right.shape:
        raise RingError(f"shapes differ: {left.shape} and {right.shape}")
