"""Calls are answered once: the ids of all calls ever taken, kept in the node's folder.

A Syft call carries a random id and no time, so its id is kept for good. Coterie's own calls carry
the time they were signed as well and are refused when they come late.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

ISSUED = "coterie_issued"
"""The keyword under which a coterie client sends the time of signing, seconds since 1970."""

MAX_AGE_S = 300
"""How old, or how far ahead by its signer's clock, a call of a coterie client may be."""


class CallRefused(Exception):
    """The call was answered before, or came too late; it was not carried out."""


class CallMemory:
    """The calls taken so far, in a SQLite file.

    A call is written before it is carried out, so that a killed process knows it, and is safe from
    a power cut before it is answered.

    Args:
        path: the file, made (0600) if missing.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = WAL")
        # SQLite itself would wait for the disk at each call; `take` gives what to wait for.
        self._file.execute("PRAGMA synchronous = NORMAL")
        self._file.execute("CREATE TABLE IF NOT EXISTS call (id BLOB PRIMARY KEY) WITHOUT ROWID")
        self._log = os.open(f"{path}-wal", os.O_RDONLY)
        self._disk = _Disk(self._log)

    def take(self, signer: bytes, call: bytes, issued: Any) -> Callable[[], object]:
        """Remember a call, or refuse it.

        Args:
            signer: the verify key that signed it.
            call: its id.
            issued: when it was signed, in seconds since 1970; None from a plain Syft client.

        Returns:
            What to call before the answer leaves: it waits until this call is on the disk.

        Raises:
            CallRefused: taken before, or signed more than `MAX_AGE_S` away from now.
        """
        if issued is not None and not _is_recent(issued):
            raise CallRefused(
                f"This call was signed more than {MAX_AGE_S} s ago or ahead. Check the clocks of "
                "both machines and call again."
            )
        digest = blake2b(signer + call, digest_size=16).digest()
        try:
            with self._lock:
                self._file.execute("INSERT INTO call VALUES (?)", (digest,))
        except sqlite3.IntegrityError:
            raise CallRefused("This call was answered before; sign a new one.") from None
        return self._disk.written().result

    def close(self) -> None:
        with self._lock:
            self._disk.close()
            os.close(self._log)
            self._file.close()


class _Disk:
    """Waits for the disk in a thread of its own, once for all calls that came meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self._next: Future[None] | None = None

    def written(self) -> Future[None]:
        """Done when all that was written before this call is on the disk."""
        with self._lock:
            if self._next is None:
                self._next = self._thread.submit(self._sync)
            return self._next

    def _sync(self) -> None:
        with self._lock:
            self._next = None
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        self._thread.shutdown()


def _is_recent(issued: Any) -> bool:
    return type(issued) is int and abs(int(time.time()) - issued) <= MAX_AGE_S
