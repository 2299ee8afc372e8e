"""One tensor of a run on this node, and the memory that all of them share."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from network.smpc.ring import Elements
from policies import sensitivity
from policies.sensitivity import Proven, TensorRefused

MAX_BYTES = 2**29
"""All runs of a node together keep no more."""


@dataclass
class Memory:
    """What is left for tensors: on this node, or for one run `of` the node's."""

    free: int = MAX_BYTES
    of: "Memory | None" = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int) -> None:
        """Set `size` bytes aside.

        Raises:
            TensorRefused: they aren't there.
        """
        with self._lock:
            if size > self.free:
                where = "This node" if self.of is None else "This run"
                raise TensorRefused(
                    f"{where} has no room left for {size} bytes of tensors: drop some."
                )
            if self.of is not None:
                self.of.take(size)
            self.free -= size

    def give(self, size: int) -> None:
        with self._lock:
            self.free += size
        if self.of is not None:
            self.of.give(size)

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """`size` bytes set aside while something lasts."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)


@dataclass(frozen=True)
class Piece:
    """Which elements of which tensor were truncated by how many bits."""

    of: str
    whole: Proven
    dropped: int
    begin: int
    end: int


@dataclass(frozen=True)
class Kept:
    """A tensor: what is proven of it, this domain's share, flat, and whether it is a piece."""

    proven: Proven
    share: Elements = field(repr=False)
    piece: Piece | None = None


def whole_of(pieces: Sequence[Piece | None]) -> Proven:
    """What is proven of a whole tensor that was truncated piece by piece.

    Its sensitivity is that of truncating the whole at once; of pieces without a common origin it
    would be larger.

    Raises:
        TensorRefused: these aren't all pieces of one tensor, in order.
    """
    known = [piece for piece in pieces if piece is not None]
    if known and len(known) == len(pieces):
        first = known[0]
        alike = {(piece.of, piece.dropped) for piece in known} == {(first.of, first.dropped)}
        ends = [0, *(piece.end for piece in known)]
        if alike and [*(piece.begin for piece in known), first.whole.length] == ends:
            return sensitivity.truncated(first.whole, first.dropped)
    raise TensorRefused("Only all pieces of one truncated tensor are joined, in order.")
