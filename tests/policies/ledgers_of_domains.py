"""Domains with ledgers of their own that show each other their heads, as in a round."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import Ledger
from policies.ledger.heads import Note, Release

ROUND = Event(4.0, 1.0, 1)
PLAN = "a" * 64


@dataclass
class Domain:
    """A domain with a ledger in which a plan is approved."""

    name: str
    path: Path
    key: Ed25519PrivateKey
    ledger: Ledger

    @classmethod
    def create(cls, name: str, folder: Path) -> "Domain":
        key, path = Ed25519PrivateKey.generate(), folder / f"{name}.db"
        domain = cls(name, path, key, Ledger(f"sqlite:///{path}", name, key))
        owner = Ed25519PrivateKey.generate()
        domain.ledger.open_budget("shoppers", 8.0, 1e-5)
        events = [Event(4.0, 1.0, 20)]
        domain.ledger.submit(PLAN, "plan", "s", "shoppers", events, {}, spare_attempts=5)
        signature = sign_approval(owner, PLAN, name)
        domain.ledger.approve(PLAN, "owner", owner_key_hex(owner), signature, "e" * 64)
        return domain

    @property
    def node_key(self) -> str:
        return owner_key_hex(self.key)

    def reopen(self) -> None:
        self.ledger.dispose()
        self.ledger = Ledger(f"sqlite:///{self.path}", self.name, self.key)

    def copy(self, path: Path) -> None:
        with sqlite3.connect(self.path) as source, sqlite3.connect(path) as target:
            source.backup(target)
        source.close()
        target.close()

    def restore(self, path: Path) -> None:
        """Put an older copy of the ledger in the place of this one."""
        self.ledger.dispose()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.path.write_bytes(path.read_bytes())
        self.reopen()

    def held_of(self, peer: "Domain") -> list[int]:
        return self.ledger.heads.held([peer.node_key])[peer.node_key]


def release(number: int, **changes: Any) -> Release:
    facts = {"plan": PLAN, "step": "train", "release": number, "attempt": 0, "event": ROUND}
    return Release(**(facts | changes))


def shown(domain: Domain, number: int, held: list[int], peer: str = "south") -> Note:
    """What a domain shows a peer after it set a release aside."""
    entry = domain.ledger.reserve(PLAN, "train", number, 0, ROUND)
    note = domain.ledger.heads.note(entry, {peer: held})
    return Note.read({**note, "extends": note["extends"][peer]}, domain.name)


def cosign(south: Domain, north: Domain, note: Note, held: list[int], number: int) -> None:
    south.ledger.heads.cosign(note, "north", north.node_key, held, release(number))


def a_round(north: Domain, south: Domain, number: int) -> Note:
    held = south.held_of(north)
    note = shown(north, number, held)
    cosign(south, north, note, held, number)
    return note
