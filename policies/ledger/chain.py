"""The chain: one signed entry after the other, each carrying the hash of the one before it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, insert, select

from policies.canonical import canonical, sha256_hex
from policies.ledger.errors import LedgerError
from policies.ledger.statements import Statement
from policies.ledger.tables import ENTRIES, HEAD, MENTIONS, change_of

_HEAD = Statement(select(HEAD.c.index, HEAD.c.hash).where(HEAD.c.id == 1))
_END = Statement(
    select(HEAD.c.index, HEAD.c.hash, ENTRIES.c.body)
    .outerjoin(ENTRIES, ENTRIES.c.index == HEAD.c.index)
    .where(HEAD.c.id == 1)
)
_FIRST = Statement(select(ENTRIES.c.body).where(ENTRIES.c.index == 1))
_LAST = Statement(select(ENTRIES.c.index, ENTRIES.c.hash).order_by(ENTRIES.c.index.desc()).limit(1))
_ADD_HEAD, _ADD_ENTRY = Statement(insert(HEAD)), Statement(insert(ENTRIES))
_ADD_MENTION, _MOVE = Statement(insert(MENTIONS)), Statement(change_of(HEAD))

GENESIS = "0" * 64
"""The hash that the first entry names as its predecessor."""


@dataclass(frozen=True)
class Entry:
    """One entry of the chain.

    Attributes:
        index: 1 for the first.
        previous: hash of the entry before, 64 zeros for the first.
        kind: ledger, budget, submission, refusal, consent, approval, denial, reservation, charge,
            release, void, closure, objection, owner or rules.
        body: canonical JSON (RFC 8785) with the time in UTC.
        hash: SHA-256 over purpose, index, previous, kind and body.
        signature: the node's Ed25519 signature of the hash, hex.
    """

    index: int
    previous: str
    kind: str
    body: str
    hash: str
    signature: str

    @property
    def time(self) -> str:
        """When it was written: ISO 8601, UTC, in seconds; never before the entry before it."""
        return time_of(self.body)


class Chain:
    """Appends to one domain's chain, within the caller's transaction."""

    def __init__(self, domain: str, signing_key: Ed25519PrivateKey) -> None:
        self.domain = domain
        self.key = signing_key
        self.node_key = signing_key.public_key().public_bytes_raw().hex()

    def begin(self, connection: Connection) -> None:
        """Open the ledger if there is none."""
        if _HEAD.first(connection, {}) is None:
            _ADD_HEAD.run(connection, {"id": 1, "index": 0, "hash": GENESIS})
            self.append(connection, "ledger", domain=self.domain, node_key=self.node_key)

    def append(self, connection: Connection, kind: str, **body: Any) -> Entry:
        """Add one entry."""
        index, previous, last = _END.one(connection, {})
        time = "" if last is None else time_of(last)
        entry = self.link(index, previous, time, kind, body)
        _ADD_ENTRY.run(connection, vars(entry))
        _ADD_MENTION.run(connection, mention(entry.index, kind, body, time_of(entry.body)))
        _MOVE.run(connection, {"at_id": 1, "index": entry.index, "hash": entry.hash})
        return entry

    def link(
        self, index: int, previous: str, time: str, kind: str, body: Mapping[str, Any]
    ) -> Entry:
        """The entry that follows entry `index`, whose hash and time are given."""
        # The clock may be set back; the ledger's order is what counts.
        time = max(datetime.now(UTC).isoformat(timespec="seconds"), time)
        text = canonical({"time": time, **body}).decode()
        digest = entry_hash(index + 1, previous, kind, text)
        return Entry(
            index + 1, previous, kind, text, digest, self.sign(f"coterie-ledger-v1:{digest}")
        )

    def sign(self, message: str) -> str:
        """The node's signature, hex. Every kind of message begins with a name of its own."""
        return self.key.sign(message.encode()).hex()

    def check_ours(self, connection: Connection) -> None:
        """Refuse a chain of another domain or key, or one whose end isn't where its head says.

        Raises:
            LedgerError: says which.
        """
        first = json.loads(_FIRST.one(connection, {}).body)
        if (first["domain"], first["node_key"]) != (self.domain, self.node_key):
            raise LedgerError(
                f"This ledger belongs to domain {first['domain']!r} with node key"
                f" {first['node_key'][:16]}, not to {self.domain!r} with {self.node_key[:16]}."
                " Open it with its own key, or choose another file"
            )
        head, last = _HEAD.one(connection, {}), _LAST.one(connection, {})
        if last != head:
            raise LedgerError(
                f"The ledger's last entry is {last[0]}, its head says {head[0]}: it was"
                " changed from outside. Run `coterie ledger verify` before using it"
            )


def mention(index: int, kind: str, body: Mapping[str, Any], time: str) -> dict[str, Any]:
    """What auditors find an entry by, as a row of `LedgerMention`."""
    about = body.get("plan") or body.get("population") or ""
    return {"index": index, "kind": kind, "about": about, "time": time}


def time_of(body: str) -> str:
    """When an entry with this body was written."""
    return str(json.loads(body)["time"])


def entry_hash(index: int, previous: str, kind: str, body: str) -> str:
    """SHA-256 over purpose, index, previous, kind and body, hex."""
    # One field a line; only the last, the body, may hold any text, and it holds no line break.
    return sha256_hex(f"coterie-ledger-entry-v1\n{index}\n{previous}\n{kind}\n{body}".encode())
