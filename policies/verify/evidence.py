"""What evidence is made of: strict JSON, signatures, the words they cover, Merkle roots."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CLOCK_SKEW = timedelta(minutes=10)
"""By how much two honest clocks may differ."""

# Whatever parsing a hostile entry can raise; each is a finding about that entry.
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
HEX64 = re.compile("[0-9a-f]{64}")
_HEX128 = re.compile("[0-9a-f]{128}")
_SECONDS = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+00:00")


class Bad(Exception):
    def __init__(self, problem: str, index: int | None):
        super().__init__(problem)
        self.index = index


class EntryLike(Protocol):
    """One link of a chain, as `Ledger.entries` gives them."""

    @property
    def index(self) -> int: ...
    @property
    def previous(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def body(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def signature(self) -> str: ...


@dataclass(frozen=True)
class Link:
    index: int
    previous: str
    kind: str
    body: str
    hash: str
    signature: str


@dataclass(frozen=True)
class Cosigned:
    """A head of a ledger under another node's signature; `where` says what it was read from."""

    where: str
    witness: str
    witness_key: str
    node_key: str
    size: int
    root: str
    time: str
    cosignature: str


def entry_text(entry: EntryLike) -> str:
    """What an entry's hash is of."""
    head = f"coterie-ledger-entry-v1\n{entry.index}\n{entry.previous}\n{entry.kind}\n"
    return head + entry.body


def head_words(domain: str, size: int, root: str) -> str:
    return f"coterie-head-v1\n{size}\n{root}\n{domain}"


def cosignature_words(node_key: str, size: int, root: str, time: str) -> str:
    return f"coterie-cosignature-v1\n{node_key}\n{size}\n{root}\n{time}"


def bundle_words(bundle: dict[str, Any]) -> str:
    beside = json.dumps(bundle["cosignatures"], sort_keys=True).encode()
    digest = hashlib.sha256(beside).hexdigest()
    return f"coterie-bundle-v1\n{bundle['size']}\n{bundle['root']}\n{bundle['exported']}\n{digest}"


def statement_of(key: str, text: str) -> dict[str, Any] | None:
    """What an owner signed, an approval or an envelope; None if it isn't `key`'s."""
    try:
        outer = strict_json(text)
        if set(outer) != {"said", "signature"}:
            return None
        signed = is_signed(key, outer["signature"], f"coterie-approval-v2\n{outer['said']}")
        said = json.loads(outer["said"], object_pairs_hook=unique_keys)
    except UNREADABLE:
        return None
    return said if signed and isinstance(said, dict) else None


def is_signed(key: str, signature: str, message: str) -> bool:
    """Whether it is the key's signature, written in the one form there is: lower-case hex."""
    try:
        if not _HEX128.fullmatch(signature):
            return False
        _public(key).verify(bytes.fromhex(signature), message.encode())
    except (ValueError, TypeError, AttributeError, InvalidSignature):
        return False
    return True


def is_cosigned(each: Cosigned) -> bool:
    said = cosignature_words(each.node_key, each.size, each.root, each.time)
    return is_signed(each.witness_key, each.cosignature, said)


@lru_cache(maxsize=64)
def _public(key: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def strict_json(text: str) -> Any:
    """The value of a text in the one form that RFC 8785 allows for it.

    Raises:
        ValueError: a key stands twice, or something is written in another form.
    """
    value = json.loads(text, object_pairs_hook=unique_keys, parse_constant=no_constant)
    if rfc8785.dumps(value) != text.encode():
        raise ValueError("a number, text, key or space isn't written as RFC 8785 writes it")
    return value


def whole(value: Any) -> int:
    """A whole number, written as one. Raises ValueError."""
    if type(value) is not int:
        raise ValueError(f"{value!r} isn't a whole number")
    return value


def utc(text: Any) -> datetime:
    """A time in seconds, UTC, in the one form that orders as text. Raises ValueError."""
    if not isinstance(text, str) or not _SECONDS.fullmatch(text):
        raise ValueError(f"time {text!r} isn't in UTC as YYYY-MM-DDThh:mm:ss+00:00")
    return datetime.fromisoformat(text)


def no_constant(name: str) -> float:
    raise ValueError(f"{name} isn't a number")


class Roots:
    """Merkle roots of a growing list (RFC 6962, section 2.1)."""

    def __init__(self) -> None:
        self._peaks: list[tuple[int, bytes]] = []  # complete subtrees, largest first

    def append(self, leaf: bytes) -> None:
        size, found = 1, hashlib.sha256(b"\x00" + leaf).digest()
        while self._peaks and self._peaks[-1][0] == size:
            found = _node(self._peaks.pop()[1], found)
            size *= 2
        self._peaks.append((size, found))

    def root(self) -> str:
        found = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            found = _node(left, found)
        return found.hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> str:
    """The root that an audit path leads to: RFC 9162, section 2.1.3.2. Empty if it can't be one."""
    fn, sn, found = index, size - 1, hashlib.sha256(b"\x00" + leaf).digest()
    for each in path:
        if sn == 0:
            return ""
        if fn & 1 or fn == sn:
            found = _node(each, found)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = _node(found, each)
        fn, sn = fn >> 1, sn >> 1
    return found.hex() if sn == 0 else ""
