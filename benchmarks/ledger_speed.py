"""What deciding and verifying take as a ledger grows.

To reach: a plan decided in under 50 ms with 10,000 charges in the ledger, 100,000 entries verified
in under 30 s, and growth that is linear.

The ledger is filled with entries that the chain's own `link` hashes and signs, and the rows that
follow from them; that they follow, the verifier says at each length. Every plan has a noise
multiplier of its own, as calibrated plans do; every tenth stays open.
"""

import hashlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.canonical import canonical, sha256_hex
from policies.ledger import Entry, Ledger
from policies.ledger.budgets import event_json
from policies.ledger.chain import mention
from policies.ledger.plans import plan_row
from policies.ledger.tables import (
    LedgerAttempt,
    LedgerEntry,
    LedgerHead,
    LedgerMention,
    LedgerPlan,
    LedgerUse,
)
from policies.verify import verify

NODE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ENTRIES = (10_000, 21_000, 50_000, 100_000)
"""The second one holds 10,000 charges."""
PER_PLAN = 30
Rows = dict[type[Any], list[dict[str, Any]]]


def report(folder: Path, lengths: tuple[int, ...] = ENTRIES) -> None:
    """Print both at each length, and what an entry takes."""
    print("Verifying; deciding a plan (approve; reserve and charge one release), median of 20.")
    for path in grown(folder, lengths):
        began, spun = time.perf_counter(), time.process_time()
        verdict = verify(path, owner_key_hex(NODE), owner_key_hex(OWNER))
        seconds, spent = time.perf_counter() - began, time.process_time() - spun
        charges = _charges(path)
        decide, release, cpu = decisions(path)
        print(
            f"{verdict.entries:>7} entries {charges:>6} charges  verify {seconds:5.1f} s"
            f" ({spent:5.1f} s of CPU, {1e6 * spent / verdict.entries:3.0f} us an entry)"
            f"  approve {decide:5.1f} ms  release {release:5.1f} ms"
            f" ({cpu:4.1f} ms of CPU)  ok: {verdict.ok}",
            flush=True,
        )


def grown(folder: Path, lengths: tuple[int, ...]) -> Iterator[Path]:
    """The same ledger at each length, or a plan beyond."""
    path, number = folder / "ledger.db", 0
    ledger = Ledger(f"sqlite:///{path}", "north", NODE)
    ledger.open_budget("shoppers", 1e9, 1e-5)
    for length in lengths:
        with ledger._database.writing() as connection:
            index, head = ledger.head()
            time = ledger.entries(after=index - 1)[0].time
            rows: Rows = {}
            while index < length:
                entries = _plan(ledger, Entry(index, "", "", f'{{"time":"{time}"}}', head, ""),
                                number, rows)  # fmt: skip
                index, head, number = entries[-1].index, entries[-1].hash, number + 1
            for table, found in rows.items():
                connection.execute(sqlalchemy.insert(table), found)
            connection.execute(sqlalchemy.update(LedgerHead).values(index=index, hash=head))
        yield path
    ledger.dispose()


def _plan(ledger: Ledger, last: Entry, number: int, rows: Rows) -> list[Entry]:
    """The entries of one plan with all its releases charged, and their rows."""
    plan = hashlib.sha256(f"plan {number}".encode()).hexdigest()
    event = Event(4.0 + number / 100, (1.0, 0.1, 0.01)[number % 3], 1)
    listed = [event_json(Event(event.noise_multiplier, event.sampling_rate, PER_PLAN + 1))]
    facts = {"name": "grown", "scientist": "s", "population": "shoppers"}
    mechanism = {
        "noise_multiplier": event.noise_multiplier,
        "sampling_rate": event.sampling_rate,
        "repeat": False,
    }
    chain = [last]

    def add(kind: str, **body: Any) -> Entry:
        entry = ledger._chain.link(chain[-1].index, chain[-1].hash, chain[-1].time, kind, body)
        chain.append(entry)
        rows.setdefault(LedgerEntry, []).append(vars(entry))
        rows.setdefault(LedgerMention, []).append(mention(entry.index, kind, body, entry.time))
        return entry

    submitted = add("submission", plan=plan, events=listed, spare_attempts=0, summary={}, **facts)
    decided = add(
        "approval",
        plan=plan,
        by="owner",
        owner_key=owner_key_hex(OWNER),
        signature=sign_approval(OWNER, plan, "north"),
        explanation="e" * 64,
        reason="",
    )
    for release in range(PER_PLAN):
        where = {"plan": plan, "step": "train", "release": release, "attempt": 0}
        reserved = add("reservation", event=event_json(event), **where)
        share = sha256_hex(f"{plan} {release}".encode())
        add("charge", share=share, **where)
        rows.setdefault(LedgerAttempt, []).append(
            {
                "plan_hash": plan,
                "step": "train",
                "release": release,
                "attempt": 0,
                "population": "shoppers",
                "state": "charged",
                "share": share,
                "inputs": "",
                "reserved": reserved.time,
                **mechanism,
            }
        )
    status, reason = ("closed", "done") if number % 10 else ("approved", "")
    if status == "closed":
        decided = add("closure", plan=plan, reason=reason)
    row = plan_row(
        plan,
        status,
        events=canonical(listed).decode(),
        submitted=submitted.time,
        decided=decided.time,
        decided_by="owner",
        reason=reason,
        **facts,
    )
    rows.setdefault(LedgerPlan, []).append(row)
    used = {"population": "shoppers", "plan_hash": plan, "count": PER_PLAN}
    rows.setdefault(LedgerUse, []).append({**used, **mechanism})
    return chain[1:]


def _charges(path: Path) -> int:
    ledger = Ledger(f"sqlite:///{path}", "north", NODE)
    counted = ledger.overview.counts().kinds["charge"]
    ledger.dispose()
    return counted


def decisions(path: Path) -> tuple[float, float, float]:
    """Milliseconds to approve a plan, to reserve and charge one release of it, and CPU of both."""
    ledger = Ledger(f"sqlite:///{path}", "north", NODE)
    took = [_decision(ledger, number) for number in range(20)]
    ledger.dispose()
    approve, release, spent = (1e3 * statistics.median(each) for each in zip(*took, strict=True))
    return approve, release, spent


def _decision(ledger: Ledger, number: int) -> tuple[float, float, float]:
    plan = hashlib.sha256(f"new {number} {ledger.head()}".encode()).hexdigest()
    ledger.submit(plan, "new", "s" * 64, "shoppers", [Event(50.0 + number, 0.1, 5)], {})
    signature = sign_approval(OWNER, plan, "north")
    began, spun = time.perf_counter(), time.process_time()
    ledger.approve(plan, "owner", owner_key_hex(OWNER), signature, "e" * 64)
    approved = time.perf_counter()
    ledger.reserve(plan, "train", 0, 0, Event(50.0 + number, 0.1, 1))
    ledger.charge(plan, "train", 0, 0, "5" * 64)
    ended, spent = time.perf_counter(), time.process_time() - spun
    ledger.close(plan, "measured")
    return approved - began, ended - approved, spent
