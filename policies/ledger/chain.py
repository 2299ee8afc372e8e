"""The chain: one signed entry after the other, each carrying the hash of the one before it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlmodel import Session, col, select

from policies.canonical import canonical, sha256_hex
from policies.ledger.errors import LedgerError
from policies.ledger.tables import LedgerEntry, LedgerHead, LedgerMention

GENESIS = "0" * 64
"""The hash that the first entry names as its predecessor."""


@dataclass(frozen=True)
class Entry:
    """One entry of the chain.

    Attributes:
        index: 1 for the first.
        previous: hash of the entry before, 64 zeros for the first.
        kind: ledger, budget, submission, refusal, consent, approval, denial, reservation, charge,
            release, void, closure, owner or rules.
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
        return str(json.loads(self.body)["time"])


class Chain:
    """Appends to one domain's chain, within the caller's transaction."""

    def __init__(self, domain: str, signing_key: Ed25519PrivateKey) -> None:
        self.domain = domain
        self.key = signing_key

    @property
    def node_key(self) -> str:
        """The node's public key, 64 hex digits."""
        return self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    def begin(self, session: Session) -> None:
        """Open the ledger if there is none."""
        if session.get(LedgerHead, 1) is None:
            session.add(LedgerHead(id=1, index=0, hash=GENESIS))
            self.append(session, "ledger", domain=self.domain, node_key=self.node_key)

    def append(self, session: Session, kind: str, **body: Any) -> Entry:
        """Add one entry."""
        head = session.get_one(LedgerHead, 1)
        last = session.get(LedgerEntry, head.index)
        entry = self.link(
            head.index, head.hash, "" if last is None else read_entry(last).time, kind, body
        )
        session.add(LedgerEntry(**asdict(entry)))
        session.add(LedgerMention(**mention(entry.index, kind, body, entry.time)))
        head.index, head.hash = entry.index, entry.hash
        session.flush()
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

    def check_ours(self, session: Session) -> None:
        """Refuse a chain of another domain or key, or one whose end isn't where its head says.

        Raises:
            LedgerError: says which.
        """
        first = json.loads(session.get_one(LedgerEntry, 1).body)
        if (first["domain"], first["node_key"]) != (self.domain, self.node_key):
            raise LedgerError(
                f"This ledger belongs to domain {first['domain']!r} with node key"
                f" {first['node_key'][:16]}, not to {self.domain!r} with {self.node_key[:16]}."
                " Open it with its own key, or choose another file"
            )
        head = session.get_one(LedgerHead, 1)
        last = session.exec(
            select(LedgerEntry).order_by(col(LedgerEntry.index).desc()).limit(1)
        ).one()
        if (last.index, last.hash) != (head.index, head.hash):
            raise LedgerError(
                f"The ledger's last entry is {last.index}, its head says {head.index}: it was"
                " changed from outside. Run `coterie ledger verify` before using it"
            )


def mention(index: int, kind: str, body: Mapping[str, Any], time: str) -> dict[str, Any]:
    """What auditors find an entry by, as a row of `LedgerMention`."""
    about = body.get("plan") or body.get("population") or ""
    return {"index": index, "kind": kind, "about": about, "time": time}


def read_entry(row: LedgerEntry) -> Entry:
    """A row of the chain as a value."""
    return Entry(**row.model_dump())


def entry_hash(index: int, previous: str, kind: str, body: str) -> str:
    """SHA-256 over purpose, index, previous, kind and body, hex."""
    # One field a line; only the last, the body, may hold any text, and it holds no line break.
    return sha256_hex(f"coterie-ledger-entry-v1\n{index}\n{previous}\n{kind}\n{body}".encode())
