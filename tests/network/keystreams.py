"""Which pieces of keystream were used, so that a test sees one that is used twice."""

import threading

import numpy as np

from network.smpc import aggregation
from network.smpc.masks import Mask


class Recorder:
    """Every piece of keystream that was added to a domain's own vector.

    Put `apply` in the place of `aggregation.apply`.
    """

    def __init__(self) -> None:
        self.used: set[tuple[int, bytes, int]] = set()
        self._apply, self._lock = aggregation.apply, threading.Lock()

    def apply(self, elements: np.ndarray, masks: list[Mask]) -> bytes:
        """As `masks.apply`.

        Raises:
            AssertionError: a piece was used before.
        """
        for mask in masks:
            for position in range(0, elements.nbytes, 16):
                # Two domains share a pairwise key, with opposite signs.
                block = (int(mask.subtract), mask.key, position)
                with self._lock:
                    assert block not in self.used, "a piece of keystream was used twice"
                    self.used.add(block)
        return self._apply(elements, masks)
