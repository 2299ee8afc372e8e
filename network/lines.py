"""A thread of its own for each node that is asked, so that nobody waits for one beyond a deadline.

A socket's timeout begins anew with every byte, so a node that answers a byte now and then could
hold a call for as long as it likes. Whoever asked goes on without it; the thread is left behind,
and keeps no process from ending.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeAlias

_Queue: TypeAlias = SimpleQueue[tuple[Future, Callable[[], Any]] | None]


class Lines:
    """One thread per name; use it in a `with` block.

    Each name's connection is kept from one question to the next, as it belongs to the thread.
    """

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def ask(
        self, questions: Mapping[str, Callable[[], Any]], within_s: float
    ) -> dict[str, Future | None]:
        """Ask all at once; gives what `wait` gives.

        Args:
            questions: by name.
        """
        return self.wait(self.put(questions), within_s)

    def put(self, questions: Mapping[str, Callable[[], Any]]) -> dict[str, Future]:
        """Ask all at once, each once its name has answered what it was asked before."""
        asked: dict[str, Future] = {}
        for name, question in questions.items():
            asked[name] = Future()
            self._queue(name).put((asked[name], question))
        return asked

    def wait(self, asked: Mapping[str, Future], within_s: float) -> dict[str, Future | None]:
        """By name, what is answered or failed; None where nothing was within the time.

        That name's thread may be stuck, and is given up; what it was asked besides is cancelled.
        """
        done = wait(asked.values(), timeout=within_s).done
        for name in asked:
            if asked[name] not in done:
                _give_up(self._queues.pop(name))
        return {name: future if future in done else None for name, future in asked.items()}

    def _queue(self, name: str) -> _Queue:
        if name not in self._queues:
            self._queues[name] = SimpleQueue()
            threading.Thread(target=_serve, args=(self._queues[name],), daemon=True).start()
        return self._queues[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for queue in self._queues.values():
            queue.put(None)
        self._queues.clear()


def _give_up(queue: _Queue) -> None:
    with suppress(Empty):
        while (asked := queue.get_nowait()) is not None:
            asked[0].cancel()
    queue.put(None)


def _serve(queue: _Queue) -> None:
    while (asked := queue.get()) is not None:
        future, question = asked
        try:
            future.set_result(question())
        except BaseException as error:
            future.set_exception(error)
