"""How much one account, one address and all of them together may ask of a node.

An address of IPv6 is its /64 here: see `block_of`.
"""

import ipaddress
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Limits:
    """A node's limits; the defaults leave room for training with dozens of partners.

    Attributes:
        calls_per_s, burst: of one account; calls beyond are refused with the time to wait.
        calls_at_once: of one account that are being carried out; what they cost differs, and all of
            a node's threads are shared.
        requests_per_s, request_burst: of one address, before anything is looked at.
        body_seconds: how long a request's body may take, and
        body_bytes_per_s: the rate at which a longer one earns more time.
        bodies_bytes: of all request bodies held in memory at once beyond a small part of each, and
            as much again of those of streams, whose callers are known before their octets come;
        bodies_bytes_per_address: of those from one address.
        unread_bytes: of all answers that their callers haven't taken yet, and
        unread_bytes_per_address: of those to one address; a caller has as long to take an answer
            as to send a body.
        header_seconds: how long a request's head may take.
        connections: open at once, in all, and
        connections_per_address: from one address; with TLS also of those still shaking hands, of
            which there may be with the others
        arrivals: in all.
        free_failures: wrong passwords for one account before a wait, and
        free_failures_per_address: from one address; it doubles with each further one,
        longest_wait_s: up to this.
    """

    calls_per_s: float = 200.0
    burst: int = 1000
    calls_at_once: int = 16
    requests_per_s: float = 400.0
    request_burst: int = 2000
    body_seconds: float = 15.0
    body_bytes_per_s: float = 64 * 2**10
    bodies_bytes: int = 256 * 2**20
    bodies_bytes_per_address: int = 128 * 2**20
    unread_bytes: int = 256 * 2**20
    unread_bytes_per_address: int = 64 * 2**20
    header_seconds: float = 10.0
    connections: int = 512
    connections_per_address: int = 128
    arrivals: int = 2048
    free_failures: int = 5
    free_failures_per_address: int = 100
    longest_wait_s: float = 900.0


@lru_cache(maxsize=4096)  # asked three times for each request
def block_of(address: str) -> str:
    """What limits per address count by: a whole /64 of IPv6, since one host may have all of it."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(found) >> 64 << 64))


class TooMuch(Exception):
    """A limit is reached; `wait_s` says when to come again."""

    def __init__(self, what: str, wait_s: float) -> None:
        super().__init__(f"{what} Try again in {max(1, round(wait_s))} s.")
        self.wait_s = max(1, round(wait_s))


_MOST_NAMES = 20_000


class Rate:
    """A token bucket for each name; names not seen for long are forgotten."""

    def __init__(self, per_s: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._now = per_s, burst, now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def spend(self, name: str) -> None:
        """Take one token; raises TooMuch if there is none."""
        now = self._now()
        with self._lock:
            left, then = self._left.pop(name, (float(self._burst), now))
            left = min(self._burst, left + (now - then) * self._per_s)
            self._left[name] = (left - 1 if left >= 1 else left, now)
            if len(self._left) > _MOST_NAMES:
                self._left.popitem(last=False)
        if left < 1:
            raise TooMuch("Too many requests.", (1 - left) / self._per_s)


class AtOnce:
    """How many of one name are under way."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, name: str) -> Callable[[], None]:
        """One more; gives what to call when it is over. Raises TooMuch if it is too many."""
        with self._lock:
            if self._busy[name] >= self._most:
                raise TooMuch(f"At most {self._most} calls at once.", 1)
            self._busy[name] += 1
        return lambda: self._end(name)

    def _end(self, name: str) -> None:
        with self._lock:
            self._busy[name] -= 1
            if self._busy[name] <= 0:
                del self._busy[name]


class BodyRoom:
    """The memory that request bodies share, and the part of it that one address may fill."""

    def __init__(self, size: int, per_address: int) -> None:
        self._left, self._per_address = size, per_address
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, size: int, address: str) -> None:
        """Raises TooMuch when there is no room."""
        with self._lock:
            if self._left < size or self._held[address] + size > self._per_address:
                raise TooMuch("The node is busy with other requests.", 2)
            self._left -= size
            self._held[address] += size

    def give_back(self, size: int, address: str) -> None:
        with self._lock:
            self._left += size
            self._held[address] -= size
            if self._held[address] <= 0:
                del self._held[address]
