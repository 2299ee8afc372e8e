"""Wrong passwords make wait: counted for each account name and each address, the wait doubles.

The counts are kept in a file, so that no restart gives anybody fresh guesses. Names and addresses
are kept as digests: they needn't be read, and people mistype passwords into the field for emails.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from network.limits import Limits, TooMuch

_MOST_NAMES = 20_000
_FORGOTTEN_AFTER_S = 86_400
_TABLE = (
    "CREATE TABLE IF NOT EXISTS failure"
    " (name BLOB PRIMARY KEY, count INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID"
)
_KEEP = (
    "INSERT INTO failure VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET count = excluded.count, until = excluded.until"
)
_DROP_ALL_BUT = (
    "DELETE FROM failure WHERE name IN"
    " (SELECT name FROM failure ORDER BY until DESC LIMIT -1 OFFSET ?)"
)


class LoginBackoff:
    """How long logins have to wait, in a SQLite file (0600).

    A count is in the file before the password is looked at, so that a killed process knows it. A
    right password clears the account's; the address, which others share, is only not charged for
    that attempt, so that nobody buys guesses with logins of her own. One failure is forgiven for
    each longest wait that passes quietly. At most 20,000 counts are kept, the latest.

    Args:
        path: the file, made if missing.
        now: seconds since 1970.
    """

    def __init__(self, path: Path, limits: Limits, now: Callable[[], float] = time.time) -> None:
        path.touch(mode=0o600)
        self._limits, self._now = limits, now
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")
        self._file.execute(_TABLE)
        self._file.execute("CREATE INDEX IF NOT EXISTS latest ON failure (until)")

    @contextmanager
    def attempt(self, account: str, address: str) -> Iterator[Callable[[], None]]:
        """Count an attempt as failed unless the block calls what it is given.

        It counts from the start, so that attempts side by side don't get round the wait.

        Raises:
            TooMuch: the account or the address has to wait; nothing was tried.
        """
        free = {
            _digest(f"account {account}"): self._limits.free_failures,
            _digest(f"address {address}"): self._limits.free_failures_per_address,
        }
        with self._lock:
            now = self._now()
            found = {name: self._failures(name, now) for name in free}
            wait = max(until - now for _, until in found.values())
            if wait > 0:
                raise TooMuch("Too many wrong passwords.", wait)
            counted = [
                (name, failures + 1, now + self._wait(failures + 1 - free[name]))
                for name, (failures, _) in found.items()
            ]
            self._write(counted, now)
        by_account, by_address = free
        yield lambda: self._passed(by_account, by_address)

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _failures(self, name: bytes, now: float) -> tuple[int, float]:
        """How many there were, and until when to wait; a clock set back makes none wait longer."""
        row = self._file.execute("SELECT count, until FROM failure WHERE name = ?", (name,))
        count, until = row.fetchone() or (0, now)
        quiet = int(max(0.0, now - until) // self._limits.longest_wait_s)
        return max(0, count - quiet), min(until, now + self._limits.longest_wait_s)

    def _wait(self, beyond: int) -> float:
        if beyond < 0:
            return 0.0
        return float(min(2.0 ** min(beyond, 30), self._limits.longest_wait_s))

    def _write(self, counted: list[tuple[bytes, int, float]], now: float) -> None:
        self._file.execute("BEGIN IMMEDIATE")
        self._file.executemany(_KEEP, counted)
        self._file.execute("DELETE FROM failure WHERE until < ?", (now - _FORGOTTEN_AFTER_S,))
        self._file.execute(_DROP_ALL_BUT, (_MOST_NAMES,))
        self._file.execute("COMMIT")

    def _passed(self, account: bytes, address: bytes) -> None:
        with self._lock:
            self._file.execute("DELETE FROM failure WHERE name = ?", (account,))
            self._file.execute("UPDATE failure SET count = count - 1 WHERE name = ?", (address,))


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()
