"""Messages in parts: whoever made a part may know its digest, and needn't have it computed again.

What is signed of a message is its BLAKE3; of one whose parts are named, each part's and its size.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from blake3 import blake3

Sizes = Sequence[tuple[int, bytes | None]]
"""Of each part the size in bytes, and the BLAKE3 if it is known; empty: the parts aren't named."""


class PartsRefused(Exception):
    """A message isn't in the parts that it names."""


@dataclass(frozen=True)
class Parts:
    """A message, in pieces that follow each other.

    Attributes:
        digests: BLAKE3 of pieces, by place, where it is known.
    """

    pieces: tuple[bytes | memoryview, ...]
    digests: Mapping[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """In bytes."""
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return iter(self.pieces)

    def known(self) -> list[tuple[int, bytes | None]]:
        """Size and digest of each piece; empty, if no digest is known."""
        if not self.digests:
            return []
        each = ((len(piece), self.digests.get(n)) for n, piece in enumerate(self.pieces))
        return [(size, digest) for size, digest in each if size]


class Content:
    """What is signed of a message's content, which is taken piece by piece.

    Args:
        parts: those that it names.

    Attributes:
        digests: BLAKE3 of the parts that are complete.
    """

    def __init__(self, parts: Sizes = ()) -> None:
        self.parts, self._size = parts, 0
        self._left = list(parts)
        self._hash, self.digests = blake3(), list[bytes]()

    def update(self, content: bytes | memoryview) -> None:
        """The next piece.

        Raises:
            PartsRefused: it goes beyond the last part.
        """
        view = memoryview(content)
        while self.parts and view:
            if not self._left:
                raise PartsRefused("longer than its parts")
            size, known = self._left[0]
            here, view = view[: size - self._size], view[size - self._size :]
            self._size += len(here)
            if known is None:
                self._hash.update(here)
            if self._size == size:
                self.digests.append(known or self._hash.digest())
                self._hash, self._size = blake3(), 0
                del self._left[0]
        self._hash.update(view)

    def signed(self) -> tuple[bytes, ...]:
        """What is signed of it.

        Raises:
            PartsRefused: a part is missing.
        """
        if self._left:
            raise PartsRefused("shorter than its parts")
        if not self.parts:
            return (self._hash.digest(),)
        return blake3(b"".join(self.digests)).digest(), named(self.parts).encode()

    def digest_of(self, begin: int, size: int) -> bytes | None:
        """BLAKE3 of the part that lies there, once it is complete; None: no part does."""
        at = 0
        for (length, _), digest in zip(self.parts, self.digests, strict=False):
            if (at, length) == (begin, size):
                return digest
            at += length
        return None


def named(parts: Sizes) -> str:
    """How a message's header names its parts: their sizes in bytes, with commas."""
    return ",".join(str(size) for size, _ in parts)


def read_names(sizes: str) -> list[tuple[int, bytes | None]]:
    """What `named` wrote; empty: no part is named.

    Raises:
        PartsRefused: something else.
    """
    if not sizes:
        return []
    if not re.fullmatch(r"[1-9]\d{0,9}(,[1-9]\d{0,9}){0,7}", sizes):
        raise PartsRefused("in parts that none has")
    return [(int(size), None) for size in sizes.split(",")]
