"""Noise drawn within its attempt, while keys are exchanged, the state comes and the sum is made.

The sum is added to it where it lies.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import numpy as np
from numpy.typing import NDArray

from domains.refusals import RoundRefused
from policies.mechanism import noise_share
from policies.noise import SecureRandom
from policies.plan import Plan, Step

MOST = 2**21
"""Numbers whose noise is drawn like this: at most 16 MiB. The others' is added as it is drawn."""
_AT_A_TIME = 2**20
"""The sampler ends each part with blocks that get smaller, and small ones take longer a number."""


def _as_a_batch() -> None:
    """Interrupt no other thread when this one may go on: answering a call takes a short while."""
    with suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


_DRAWING = ThreadPoolExecutor(thread_name_prefix="noise", initializer=_as_a_batch)


class ComingNoise:
    """One attempt's share of the noise for the first numbers of its sum.

    It is of this attempt alone: added once, in memory only, and erased with the attempt.
    """

    def __init__(self, plan: Plan, step: Step) -> None:
        self._given_up = Event()
        self._drawn: Future[NDArray[np.int64]] | None = _DRAWING.submit(self._draw, plan, step)

    def taken(self) -> NDArray[np.int64]:
        """It on the first `MOST` numbers and zeros on the others: int64 [P], the caller's now.

        Raises:
            RoundRefused: it was taken or erased before.
        """
        drawn, self._drawn = self._drawn, None
        noise = None if drawn is None else drawn.result()
        # Given up while it was waited for, it may be noise only in part.
        if noise is None or self._given_up.is_set():
            raise RoundRefused("This attempt's noise is gone. Start the next attempt.")
        return noise

    def erase(self) -> None:
        """Give it up, drawn or not."""
        self._given_up.set()
        if self._drawn is not None:
            self._drawn.add_done_callback(lambda drawn: drawn.result().fill(0))
            self._drawn = None

    def _draw(self, plan: Plan, step: Step) -> NDArray[np.int64]:
        if self._given_up.is_set():
            return np.zeros(0, dtype=np.int64)
        random = SecureRandom()

        def drawn(size: int) -> NDArray[np.int64]:
            z, clip_norm = step.noise_multiplier, step.clip_norm
            return noise_share(size, z, clip_norm, step.scale, plan.noise_shares, 0, random)

        if step.width <= _AT_A_TIME:
            return drawn(step.width)
        # What isn't written yet takes no memory.
        noise = np.zeros(step.width, dtype=np.int64)
        for begin in range(0, min(step.width, MOST), _AT_A_TIME):
            if self._given_up.is_set():
                break
            part = noise[begin : min(begin + _AT_A_TIME, MOST)]
            part[:] = drawn(part.size)
        return noise
