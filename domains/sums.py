"""The memory in which an engine leaves its sums for the node, so that no sum passes through a pipe.

It is a file without a name that both have open. The node reads a sum from it once, into memory of
its own: whatever is changed there later changes nothing, and noise never gets there.
"""

import fcntl
import mmap
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.refusals import RoundRefused

_MAPPED_BYTES = 2**24
"""As much of it as the node has mapped at a time; all of what isn't longer stays mapped."""


@dataclass(frozen=True)
class ExactSum:
    """One sum, until the engine is asked for another or ends."""

    sums: "Sums"
    number: int

    def add_to(self, vector: NDArray[np.int64]) -> None:
        """Add it to a vector of its length, int64 [P], in place.

        Raises:
            RoundRefused: another lies in its place, or none.
        """
        self.sums.add(self.number, vector)


class Sums:
    """Zeros at first, for at most `width` numbers. Close it in the end.

    Whoever has it open can change what is in it, but not its size.
    """

    def __init__(self, width: int) -> None:
        memory = os.memfd_create("sums", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._file = os.fdopen(memory, "r+b")
        self._file.truncate(8 * width)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        self._kept = self._mapped(0, width) if 8 * width <= _MAPPED_BYTES else None
        self._last = 0

    def fileno(self) -> int:
        """The open file, for the engine."""
        return self._file.fileno()

    def next(self) -> "ExactSum":
        """The sum that the engine is asked for now; the one before it is gone."""
        self._last += 1
        return ExactSum(self, self._last)

    def add(self, number: int, vector: NDArray[np.int64]) -> None:
        """See `ExactSum.add_to`."""
        if number != self._last or self._file.closed:
            raise RoundRefused("This attempt's sum is gone. Start the next attempt.")
        if self._kept is not None:
            vector += self._kept[: vector.size]
            return
        for begin in range(0, vector.size, _MAPPED_BYTES // 8):
            part = vector[begin : begin + _MAPPED_BYTES // 8]
            part += self._mapped(begin, part.size)

    def close(self) -> None:
        """Give it back."""
        self._kept = None
        self._file.close()

    def _mapped(self, begin: int, size: int) -> NDArray[np.int64]:
        """Numbers from `begin` on; unmapped once nobody has them any more."""
        found = mmap.mmap(self._file.fileno(), 8 * size, prot=mmap.PROT_READ, offset=8 * begin)
        return np.frombuffer(found, np.int64)
