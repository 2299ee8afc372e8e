"""A ledger with two plans, and what can be done to its entries and its file."""

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import policies.verify
from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.canonical import canonical, sha256_hex
from policies.ledger import GENESIS, Budget, Entry, Ledger

DELTA = 1e-5
NODE, OWNER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NODE_HEX, OWNER_HEX = owner_key_hex(NODE), owner_key_hex(OWNER)
PLAN, SECOND, UNSIGNED = "a" * 64, "b" * 64, "c" * 64
TRAIN, COUNT = Event(4.0, 1.0, 1), Event(6.0, 0.2, 1)
Tamper = Callable[[list[Entry]], object]
REPOSITORY = Path(policies.verify.__file__).parents[2]


def fill(ledger: Ledger) -> Budget:
    ledger.open_budget("shoppers", 8.0, DELTA)
    for plan in (PLAN, SECOND, UNSIGNED):
        events = [Event(4.0, 1.0, 4), Event(6.0, 0.2, 2)]
        ledger.submit(plan, "plan", "s", "shoppers", events, {}, spare_attempts=1)
    for plan in (PLAN, SECOND):
        signature = sign_approval(OWNER, plan, "alpha")
        ledger.approve(plan, "owner", OWNER_HEX, signature, "e" * 64)
    ledger.consent(UNSIGNED, "owner")
    for plan in (PLAN, SECOND):
        ledger.reserve(plan, "count", 0, 0, COUNT)
        ledger.charge(plan, "count", 0, 0, sha256_hex(plan.encode()))
        ledger.reserve(plan, "train", 0, 0, TRAIN)
    ledger.void(PLAN, "train", 0, 0, "peer away")
    ledger.charge(SECOND, "train", 0, 0, "5" * 64)
    ledger.reserve(SECOND, "train", 0, 1, TRAIN)
    ledger.close(PLAN, "done")
    return ledger.budget("shoppers")


def resign(entries: list[Entry], key: Ed25519PrivateKey = NODE) -> list[Entry]:
    """The chain made anew over these kinds and bodies, as the holder of the key could."""
    chain: list[Entry] = []
    for number, entry in enumerate(entries, start=1):
        previous = chain[-1].hash if chain else GENESIS
        head = f"coterie-ledger-entry-v1\n{number}\n{previous}\n{entry.kind}\n"
        digest = sha256_hex((head + entry.body).encode())
        signature = key.sign(f"coterie-ledger-v1:{digest}".encode()).hex()
        chain.append(Entry(number, previous, entry.kind, entry.body, digest, signature))
    return chain


def tamper_file(path: Path, *changes: str) -> None:
    """What whoever has the file can do: take the guards off, change rows, put the guards back."""
    with sqlite3.connect(path) as connection:
        found = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        guards = connection.execute(found).fetchall()
        for name, _ in guards:
            connection.execute(f"DROP TRIGGER {name}")
        for change in changes:
            assert connection.execute(change).rowcount > 0
        for _, sql in guards:
            connection.execute(sql)
    connection.close()


def edit(entry: Entry, **changes: Any) -> Entry:
    body = canonical(json.loads(entry.body) | changes).decode()
    return dataclasses.replace(entry, body=body)


def place(entries: list[Entry], kind: str, nth: int = 0) -> int:
    return [position for position, entry in enumerate(entries) if entry.kind == kind][nth]
