"""Calls are answered once: the ids of all calls ever taken, kept in the node's folder.

A Syft call carries a random id and no time, so its id is kept for good. Coterie's own calls carry
the time they were signed as well and are refused when they come late.
"""

import sqlite3
import threading
import time
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
    """The calls taken so far, in a SQLite file; each is on disk before it is carried out.

    Args:
        path: the file, made (0600) if missing.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")
        self._file.execute("CREATE TABLE IF NOT EXISTS call (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def take(self, signer: bytes, call: bytes, issued: Any) -> None:
        """Remember a call, or refuse it.

        Args:
            signer: the verify key that signed it.
            call: its id.
            issued: when it was signed, in seconds since 1970; None from a plain Syft client.

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

    def close(self) -> None:
        with self._lock:
            self._file.close()


def _is_recent(issued: Any) -> bool:
    return type(issued) is int and abs(time.time() - issued) <= MAX_AGE_S
