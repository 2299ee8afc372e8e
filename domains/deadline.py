"""A time by which an engine must have answered; one that hasn't is ended, one that has never is."""

import threading
from collections.abc import Callable
from types import TracebackType


class DeadlinePassed(Exception):
    """It was too late."""


class Deadline:
    """From the beginning of a `with` block to its end.

    Args:
        seconds: by the clock.
        end: called, once, in a thread of its own, if the block lasts longer; whoever waits in the
            block for an answer should then find that none comes.

    Raises:
        DeadlinePassed: at the block's end, if `end` was called, whatever else happened.
    """

    def __init__(self, seconds: float, end: Callable[[], None]) -> None:
        self._end = end
        self._turn, self._answered, self._passed = threading.Lock(), False, False
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self.passes)
        self._timer.daemon = True

    def passes(self) -> None:
        """The time is over."""
        with self._turn:
            if not self._answered:
                self._passed = True
                self._end()

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._turn:
            self._answered = True
        self._timer.cancel()
        if self._passed:
            raise DeadlinePassed from None
