"""A server's log: one JSON object a line on standard error, with the request's id.

Only what our own code says is in it: no arguments, values, keys, passwords or tracebacks. A flood
of refusals can't fill the disk: lines beyond a rate are counted instead of written.
"""

import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from network.limits import Rate, TooMuch

LINES_PER_S, BURST = 20.0, 500


class Sparing:
    """A structlog processor that lets so many lines a second through and counts the rest."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left_out = 0
        self._lock = threading.Lock()

    def __call__(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        with self._lock:
            try:
                self._rate.spend("lines")
            except TooMuch:
                self._left_out += 1
                raise structlog.DropEvent from None
            if self._left_out:
                event["lines_left_out"], self._left_out = self._left_out, 0
        return event


def log_as_json() -> None:
    """Write this process's log so, to what is standard error now."""
    processors: list[Callable[..., Any]] = [
        Sparing(Rate(LINES_PER_S, BURST)),
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.add_log_level,
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=processors, logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
