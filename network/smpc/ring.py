"""Arithmetic in the rings Z_2^32 and Z_2^64, and the bytes their elements travel as.

Elements are one-dimensional numpy arrays of `uint32` or `uint64`. Numpy's unsigned overflow wraps,
which is exactly addition modulo 2^32 or 2^64. Signed numbers are embedded by two's complement, so
a sum decodes correctly as long as the true total lies in [-2^(bits-1), 2^(bits-1)).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Elements = NDArray[Any]
"""uint32 or uint64, one-dimensional."""


@dataclass(frozen=True)
class FramedFile:
    """A file that is one frame of elements, to be read piece by piece; see `framed_file`.

    Attributes:
        digest: `masks.digest_of` its elements, if it was taken as they came.
    """

    path: Path
    length: int
    bits: int
    digest: bytes | None = None


WORDS: Mapping[int, np.dtype] = {32: np.dtype("<u4"), 64: np.dtype("<u8")}
"""Elements travel as little-endian words on every machine; by width in bits."""

_MAGIC = {32: b"Z32\x01", 64: b"Z64\x01"}
_HEADER = struct.Struct("<4sQ")
_NARROWED_AT_A_TIME = 2**16
HEADER_BYTES = _HEADER.size
_DIGIT_BITS = 22
_EXACT_TERMS = 512
MAX_LENGTH = 2**28
"""Most elements one frame may announce (2 GiB of 64-bit words)."""


class RingError(ValueError):
    """An array or a frame isn't what the ring works on; the message says what was expected."""


def smallest_width(bound: float) -> int:
    """The narrowest ring in which a total of magnitude at most `bound` can't wrap: 32 or 64.

    Totals beyond 2^63 fit neither; admission refuses their plans.
    """
    return 32 if bound < 2.0**31 else 64


def to_ring(values: NDArray[np.int64], bits: int = 64) -> Elements:
    """Embed signed integers.

    Args:
        values: int64 array of shape [P].
        bits: width of the ring, 32 or 64.

    Returns:
        Array of shape [P]: each value modulo 2^bits. In the 64-bit ring these are the same bytes:
        changing the one changes the other.

    Raises:
        RingError: the array isn't one-dimensional int64, or there is no ring of that width.
    """
    _check_array(values, [np.dtype(np.int64)])
    return values.view(word(bits)) if bits == 64 else values.astype(word(bits))


def into_ring(values: NDArray[np.int64], bits: int) -> Elements:
    """As `to_ring`, in the memory of `values`, which are overwritten in either ring.

    Args:
        values: int64 array of shape [P], contiguous and writable.
    """
    if bits == 64:
        return to_ring(values, bits)
    _check_array(values, [np.dtype(np.int64)])
    words = values.view(word(bits))
    kept = words[: values.size]
    for begin in range(0, values.size, _NARROWED_AT_A_TIME):
        # Low words lie at even places, never before where they go, so none is lost.
        end = min(begin + _NARROWED_AT_A_TIME, values.size)
        kept[begin:end] = words[2 * begin : 2 * end : 2]
    return kept


def from_ring(elements: Elements) -> NDArray[np.int64]:
    """Decode centred: elements of the upper half of the ring stand for negative numbers.

    Args:
        elements: uint32 or uint64 array of shape [P].

    Returns:
        A new int64 array of shape [P].

    Raises:
        RingError: the array isn't one-dimensional uint32 or uint64.
    """
    _check_array(elements, list(WORDS.values()))
    signed = np.dtype(f"i{elements.dtype.itemsize}")
    return elements.view(signed).astype(np.int64)


def header(elements: Elements) -> bytes:
    """What stands before the words of an array of shape [P]: a magic with the width, the count.

    Raises:
        RingError: the array isn't one-dimensional uint32 or uint64, or is longer than `MAX_LENGTH`.
    """
    _check_array(elements, list(WORDS.values()))
    if elements.size > MAX_LENGTH:
        raise RingError(f"{elements.size} elements are more than one frame's {MAX_LENGTH}")
    return _HEADER.pack(_MAGIC[8 * elements.dtype.itemsize], elements.size)


def pack(elements: Elements) -> bytes:
    """Frame an array of shape [P]: its header, then P little-endian words.

    Raises:
        RingError: see `header`.
    """
    # One copy only: the words are joined to the head straight from the array.
    return b"".join((header(elements), elements.data))


def unpack(frame: bytes | memoryview, length: int, bits: int = 64) -> Elements:
    """Read a frame that must hold exactly `length` elements of `bits` bits.

    Both come from the plan, never from the sender, and are compared with the header and with the
    bytes received before anything is allocated.

    Returns:
        A new, writable array of shape [length].

    Raises:
        RingError: foreign magic, another width or count than expected, missing or surplus bytes.
    """
    _check_frame(frame[:HEADER_BYTES], len(frame), length, bits)
    return np.frombuffer(frame, dtype=word(bits), offset=HEADER_BYTES).copy()


def framed_file(path: Path, length: int, bits: int = 64) -> FramedFile:
    """A file that must be a frame of exactly `length` elements of `bits` bits.

    Raises:
        RingError: see `unpack`.
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        _check_frame(file.read(HEADER_BYTES), path.stat().st_size, length, bits)
    return FramedFile(path, length, bits)


def pieces(source: Elements | FramedFile, size: int) -> Iterator[Elements]:
    """The elements in order, `size` at a time; the last piece is shorter.

    Pieces of an array are views of it; of a file, the next one overwrites the one before.

    Raises:
        RingError: the file became shorter meanwhile.
        OSError: it can't be read.
    """
    if isinstance(source, np.ndarray):
        for begin in range(0, source.size, size):
            yield source[begin : begin + size]
        return
    with source.path.open("rb", buffering=0) as file:
        file.seek(HEADER_BYTES)
        buffer = np.empty(min(size, source.length), dtype=word(source.bits))
        for begin in range(0, source.length, size):
            piece = buffer[: source.length - begin]
            if file.readinto(piece.view(np.uint8).data) != piece.nbytes:
                raise RingError(f"{source.path.name} ends before its {source.length} elements")
            yield piece


def matmul(x: Elements, y: Elements) -> Elements:
    """The product of two matrices, or of a matrix and a vector, modulo 2^64.

    Each element is cut into digits of 22 bits, whose products are exact in float64: below
    2^44 * 512 = 2^53. So six products of floats, by BLAS, stand for one that numpy has no fast
    code for.

    Args:
        x, y: uint64 of one or two axes.

    Returns:
        uint64 of shape x.shape[:-1] + y.shape[1:].
    """
    total = np.zeros(x.shape[:-1] + y.shape[1:], np.uint64)
    for begin in range(0, x.shape[-1], _EXACT_TERMS):
        left = _digits(x[..., begin : begin + _EXACT_TERMS])
        right = _digits(y[begin : begin + _EXACT_TERMS])
        for i, j in ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0)):
            product = (left[i] @ right[j]).astype(np.uint64)
            total += product << np.uint64(_DIGIT_BITS * (i + j))
    return total


def _digits(elements: Elements) -> list[NDArray[np.float64]]:
    mask = np.uint64(2**_DIGIT_BITS - 1)
    shifts = (np.uint64(_DIGIT_BITS * place) for place in range(3))
    return [((elements >> shift) & mask).astype(np.float64) for shift in shifts]


def word(bits: int) -> np.dtype:
    """The dtype of a ring's elements.

    Raises:
        RingError: `bits` is neither 32 nor 64.
    """
    if bits not in WORDS:
        raise RingError(f"rings are {sorted(WORDS)} bits wide; asked for {bits}")
    return WORDS[bits]


def _check_frame(head: bytes | memoryview, size: int, length: int, bits: int) -> None:
    """Compare a frame's head and its size in bytes with what is expected."""
    dtype = word(bits)
    if not 0 <= length <= MAX_LENGTH:
        raise RingError(f"a frame holds 0 to {MAX_LENGTH} elements; asked for {length}")
    if len(head) < HEADER_BYTES:
        raise RingError(f"frame of {size} bytes is shorter than its {HEADER_BYTES}-byte head")
    magic, count = _HEADER.unpack(head)
    if magic != _MAGIC[bits]:
        raise RingError(f"frame doesn't start with the mark of {bits}-bit ring elements")
    if count != length:
        raise RingError(f"frame announces {count} elements; {length} expected")
    if size - HEADER_BYTES != length * dtype.itemsize:
        raise RingError(f"frame of {size} bytes doesn't hold exactly {length} elements")


def _check_array(array: NDArray, dtypes: list[np.dtype]) -> None:
    if not isinstance(array, np.ndarray):
        raise RingError(f"expected a numpy array, got {type(array).__name__}")
    if array.ndim != 1 or array.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise RingError(
            f"expected a one-dimensional {wanted} array, got {array.dtype} of shape {array.shape}"
        )
