"""A node whose ledger is long: 100,000 entries and 500 plans, and who signs in there."""

import json
import sqlite3
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import coterie as ct
from coterie.home import Home
from coterie.partners import (
    add_data,
    create_domain,
    invite,
    pin_peer,
    start_domain,
    stop_domain,
)
from coterie.processes import free_ports
from dashboard.session import Role
from network.client import log_in
from policies.approvals import create_owner_key, load_owner_key, owner_key_hex, sign_approval
from policies.canonical import canonical
from policies.ledger import Ledger
from policies.ledger.chain import Chain, entry_hash
from policies.plan import Plan, RosterEntry
from tests.network_of_three import ITEMS, counting_plan, interactions

NAME, PEERS = "north", ("east", "south")
ENTRIES, PLANS, RELEASES = 100_000, 500, 83


@dataclass(frozen=True)
class Login:
    email: str
    password: str


@dataclass(frozen=True)
class Node:
    """A running node with a long ledger, and who signs in there."""

    home: Home
    logins: dict[Role, Login]
    entries: int


def node_with_a_past(folder: Path) -> Node:
    """Make the node, or take up the one in the folder, and start it."""
    home = Home(folder)
    kept = folder / "logins.json"
    if not kept.exists():
        logins = _create(home)
        kept.write_text(json.dumps(logins))
    start_domain(home, NAME, None)
    logins = json.loads(kept.read_text())
    ledger = open_ledger(home)
    entries = ledger.overview.counts().entries
    ledger.dispose()
    return Node(home, {role: Login(*login) for role, login in logins.items()}, entries)


def _create(home: Home) -> dict[str, list[str]]:
    catalogue_file = home.path / "catalogue.txt"
    catalogue_file.write_text("".join(f"item-{i}\n" for i in range(ITEMS)))
    rows = home.path / "north.csv"
    interactions(NAME).to_csv(rows, index=False)
    create_domain(home, NAME, "127.0.0.1", free_ports(1)[0])
    add_data(
        home.domain(NAME), file=rows, catalogue=catalogue_file, dataset="interactions",
        population="shoppers", users=100, interactions_per_user=16, holdout=None,
        epsilon=1e6, public=False,
    )  # fmt: skip
    roster = [_peer(home, name) for name in PEERS]
    start_domain(home, NAME, None)
    accounts, auditors = home.path / "scientist.json", home.path / "auditor.json"
    invite(home, NAME, "ada@university.example", "scientist", accounts)
    invite(home, NAME, "eve@audit.example", "auditor", auditors)
    logins = {"owner": json.loads(home.owner_login(NAME).read_text())}
    logins |= {"scientist": json.loads(accounts.read_text())[NAME],
               "auditor": json.loads(auditors.read_text())[NAME]}  # fmt: skip
    account = logins["scientist"]
    node = log_in(account["url"], account["email"], account["password"])
    card = json.loads(node.call("describe"))
    stop_domain(home, NAME)
    mine = {key: card[key] for key in ("name", "server_uid", "node_key", "owner_key")}
    data = ct.DataSet("interactions", ITEMS, 16, 300, card["datasets"][0]["catalogue"], False)
    first = counting_plan(data, "grown 0", 4.0, RELEASES).bind(
        [RosterEntry(**mine), *roster], node.verify_key
    )
    _grow(home, first, node.verify_key)
    return {role: [login["email"], login["password"]] for role, login in logins.items()}


def _peer(home: Home, name: str) -> RosterEntry:
    key = owner_key_hex(create_owner_key(home.path / f"{name}.pem", None))
    pin_peer(home.domain(NAME), name, key, key)
    return RosterEntry(name=name, server_uid=key[:32], node_key=key, owner_key=key)


def _grow(home: Home, first: Plan, scientist: str) -> None:
    """Fill the ledger where fsync is free, then put it in the node's place.

    Plans and decisions go through the ledger; the rows of releases are written as the ledger would
    write them, but many in one transaction.
    """
    file, key = home.domain(NAME).ledger_file, home.domain(NAME).node_key()
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else home.path
    with tempfile.TemporaryDirectory(dir=memory) as made:
        grown = Path(made) / "ledger.db"
        _copy(file, grown)
        ledger = Ledger(f"sqlite:///{grown}", NAME, key)
        plans = [first.model_copy(update={"purpose": f"grown {n}"}) for n in range(PLANS)]
        approved = [p for n, p in enumerate(plans) if _decide(home, ledger, p, scientist, n)]
        ledger.dispose()
        _add_releases(grown, key, approved)
        _add_heads(grown, [entry.node_key for entry in first.roster if entry.name in PEERS])
        for plan in approved[len(approved) // 10 :]:
            ledger.close(plan.hash, "finished")
        ledger.dispose()
        for suffix in ("", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        _copy(grown, file)


def _copy(source: Path, target: Path) -> None:
    """Copy a database with what lies in its write-ahead log."""
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()


def _decide(home: Home, ledger: Ledger, plan: Plan, scientist: str, number: int) -> bool:
    """Submit a plan; of ten, one stays open and one is denied. Whether it was approved."""
    kept = home.domain(NAME).store / "plans" / plan.hash
    kept.with_suffix(".json").write_text(plan.to_json())
    summary = {
        "dataset": plan.dataset, "roster": [entry.name for entry in plan.roster],
        "roster_hash": "", "public": False, "delta": plan.delta, "author": plan.scientist,
        "model": "", "like": "", "queries": {},
    }  # fmt: skip
    ledger.submit(
        plan.hash, plan.name, scientist, "shoppers", plan.events(), summary, plan.spare_attempts
    )
    if number % 10 == 1:
        ledger.deny(plan.hash, "owner@north.example", "no budget for this")
    if number % 10 < 2:
        return False
    owner = load_owner_key(home.owner_key(NAME), None)
    signature = sign_approval(owner, plan.hash, NAME)
    kept.with_suffix(".signature").write_text(signature)
    ledger.approve(plan.hash, "owner@north.example", owner_key_hex(owner), signature, "e" * 64)
    return True


def _add_releases(file: Path, key: Ed25519PrivateKey, plans: Sequence[Plan]) -> None:
    """Three entries for each release of each plan: reservation, charge and release."""
    chain = Chain(NAME, key)
    with sqlite3.connect(file) as database:
        index, previous = database.execute('SELECT "index", hash FROM ledgerhead').fetchone()
        now = datetime.now(UTC)
        for number, plan in enumerate(plans):
            time_ = (now + timedelta(seconds=number)).isoformat(timespec="seconds")
            (step,) = plan.steps
            noise, rate = step.noise_multiplier, step.sampling_rate
            event = {"noise_multiplier": noise, "sampling_rate": rate, "count": 1}
            for release in range(RELEASES):
                where = {"plan": plan.hash, "step": step.name, "release": release, "attempt": 0}
                for kind, more in (
                    ("reservation", {"event": event}),
                    ("charge", {"share": "5" * 64}),
                    ("release", {"inputs": "6" * 64}),
                ):
                    index += 1
                    body = canonical({"time": time_, **where, **more}).decode()
                    digest = entry_hash(index, previous, kind, body)
                    signature = chain.sign(f"coterie-ledger-v1:{digest}")
                    database.execute(
                        "INSERT INTO ledgerentry VALUES (?, ?, ?, ?, ?, ?)",
                        (index, previous, kind, body, digest, signature),
                    )
                    database.execute(
                        "INSERT INTO ledgermention VALUES (?, ?, ?, ?)",
                        (index, kind, plan.hash, time_),
                    )
                    previous = digest
                database.execute(
                    "INSERT INTO ledgerattempt (plan_hash, step, release, attempt, population,"
                    " state, noise_multiplier, sampling_rate, repeat, share, inputs, reserved)"
                    " VALUES (?, ?, ?, 0, 'shoppers', 'charged', ?, ?, 0, ?, ?, ?)",
                    (plan.hash, step.name, release, noise, rate, "5" * 64, "6" * 64, time_),
                )
            database.execute(
                "INSERT INTO ledgeruse (population, plan_hash, noise_multiplier, sampling_rate,"
                " repeat, count) VALUES ('shoppers', ?, ?, ?, 0, ?)",
                (plan.hash, noise, rate, RELEASES),
            )
        database.execute('UPDATE ledgerhead SET "index" = ?, hash = ?', (index, previous))
    database.close()


def _add_heads(file: Path, peers: Sequence[str]) -> None:
    """As many heads as rounds would have brought; nothing on the pages verifies them."""
    with sqlite3.connect(file) as database:
        sizes = [row[0] for row in database.execute(
            "SELECT \"index\" FROM ledgermention WHERE kind = 'reservation'"
        )]  # fmt: skip
        time_ = "2026-11-28T08:00:00+00:00"
        for name, key in zip(PEERS, peers, strict=True):
            database.executemany(
                "INSERT INTO ledgercosignature (size, node_key, witness, root, time, signature)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(size, key, name, "a" * 64, time_, "b" * 128) for size in sizes],
            )
            database.executemany(
                "INSERT INTO ledgerpeerhead (node_key, size, domain, root, signature, time,"
                " cosignature, covered) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(key, size, name, "a" * 64, "b" * 128, time_, "b" * 128, size != sizes[-1])
                 for size in sizes],
            )  # fmt: skip
    database.close()


def open_ledger(home: Home) -> Ledger:
    folder = home.domain(NAME)
    return Ledger(folder.ledger_url, NAME, folder.node_key())
