"""How long the dashboard's pages take with a long ledger, and whether its memory stays flat.

    python -m benchmarks.dashboard [--loads 500] [--folder FOLDER]

A node with 100,000 ledger entries and 500 plans, its dashboard, and Chromium, signed in as owner,
scientist and auditor in turn. To reach: first content of the slowest page under 1.5 s, all of it
under 3 s, and a flat memory of the dashboard over 500 page loads. The query plans of the paged and
counted queries are printed first. A folder that is given is kept, and taken up the next time.
"""

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import Browser, Page, sync_playwright

import coterie as ct
from coterie.home import Home
from coterie.pages import Place, dashboard_command
from coterie.partners import (
    add_data,
    create_domain,
    invite,
    pin_peer,
    start_domain,
    stop_domain,
)
from coterie.processes import free_ports
from dashboard.app import HIDDEN, PAGES
from dashboard.session import Role
from dashboard.texts import catalogue
from network.client import log_in
from policies.approvals import create_owner_key, load_owner_key, owner_key_hex, sign_approval
from policies.canonical import canonical
from policies.ledger import EntryFilter, Ledger
from policies.ledger.chain import Chain, entry_hash
from policies.plan import Plan, RosterEntry
from tests.network_of_three import ITEMS, counting_plan, interactions

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
NAME, PEERS = "north", ("east", "south")
ENTRIES, PLANS, RELEASES = 100_000, 500, 83
FIRST_S, COMPLETE_S, GROWTH = 1.5, 3.0, 1.1
PATIENCE_MS = 120_000
SESSION_LOADS = 50
"""Page loads after which somebody else signs in."""
_DONE = "[data-testid=stApp][data-test-script-state=notRunning]"


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


# --- A node with a past ---


def node_with_a_past(folder: Path) -> Node:
    """Make the node, or take up the one in the folder, and start it."""
    home = Home(folder)
    kept = folder / "logins.json"
    if not kept.exists():
        logins = _create(home)
        kept.write_text(json.dumps(logins))
    start_domain(home, NAME, None)
    logins = json.loads(kept.read_text())
    ledger = _open_ledger(home)
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


def _open_ledger(home: Home) -> Ledger:
    folder = home.domain(NAME)
    return Ledger(folder.ledger_url, NAME, folder.node_key())


# --- Query plans ---


def print_query_plans(home: Home) -> None:
    """What the database does for every question that the pages ask of the ledger."""
    ledger = _open_ledger(home)
    plan = ledger.plans()[0].plan_hash
    questions: dict[str, Callable[[], Any]] = {
        "counts": ledger.overview.counts,
        "timeline by day": lambda: ledger.overview.timeline("day"),
        "a page of all entries": lambda: ledger.overview.page(EntryFilter()),
        "a page in the middle": lambda: ledger.overview.page(EntryFilter(), before=ENTRIES // 2),
        "a page of one plan": lambda: ledger.overview.page(EntryFilter(plan=plan)),
        "a page of decisions": lambda: ledger.overview.page(
            EntryFilter(kinds=("approval", "denial"))
        ),
        "spends by month": lambda: ledger.overview.spends("month"),
        "spends by plan": lambda: ledger.overview.spends("plan"),
        "runs": ledger.overview.runs,
        "newest co-signatures": ledger.overview.cosigned,
    }
    for name, ask in questions.items():
        ask()
        asked: list[tuple[str, Any]] = []

        def note(_c: Any, _u: Any, statement: str, parameters: Any, *_: Any) -> None:
            asked.append((statement, parameters))  # noqa: B023

        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
        began = time.perf_counter()
        ask()
        spent = 1e3 * (time.perf_counter() - began)
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
        print(f"{name}: {spent:.0f} ms")
        with sqlite3.connect(home.domain(NAME).ledger_file) as database:
            for statement, parameters in asked:
                if statement.lstrip().upper().startswith("SELECT"):
                    for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", parameters):
                        print(f"    {row[3]}")
        database.close()
    ledger.dispose()


# --- Pages ---


@contextmanager
def serving(home: Home) -> Iterator[tuple[str, psutil.Process]]:
    """The dashboard of the node: its address and process."""
    place = Place(port=free_ports(1)[0])
    command = [sys.executable, *dashboard_command(home, NAME, None, place)]
    with open(home.path / "dashboard.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while not _answers(place.address):
            if time.monotonic() > until:
                raise SystemExit("The dashboard doesn't start.")
            time.sleep(0.2)
        yield place.address, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as said:
        return bool(said.status == 200)
    return False


def signed_in(browser: Browser, address: str, login: Login) -> Page:
    """A browser page of this person."""
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.get_by_label("Email").fill(login.email)
    page.get_by_label("Password", exact=True).fill(login.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    page.locator(_DONE).wait_for()
    return page


def load(page: Page, name: str) -> tuple[float, float]:
    """Open a page from the menu: seconds to its first content below the title, and to all of it."""
    words = catalogue("en")
    title = words[f"pages.{name}"]
    began = time.perf_counter()
    page.get_by_test_id("stSidebarNav").locator("a", has_text=title).first.click()
    page.get_by_role("heading", name=title, exact=True, level=1).first.wait_for()
    page.wait_for_function(
        "title => { const all = [...document.querySelectorAll("
        "'[data-testid=stMain] [data-testid=stElementContainer]')];"
        " const own = all.findIndex(e => e.querySelector('h1')?.innerText.trim() === title);"
        " return own >= 0 && all.slice(own + 1).some(e => e.innerText.trim() !== '' "
        " && e.dataset.stale !== 'true'); }",
        arg=title,
    )
    first = time.perf_counter() - began
    page.locator(_DONE).wait_for()
    page.wait_for_function(
        "() => !document.querySelector('[data-testid=stSkeleton], [data-stale=true]')"
    )
    return first, time.perf_counter() - began


def menu(role: Role) -> list[str]:
    """The pages that a role's menu shows."""
    return [name for name in PAGES[role] if name not in HIDDEN]


def time_pages(browser: Browser, address: str, node: Node, repeats: int) -> pd.DataFrame:
    """One row for each page: median seconds of several visits."""
    rows = []
    for role, login in node.logins.items():
        page = signed_in(browser, address, login)
        for name in menu(role):
            others = [each for each in menu(role) if each != name]
            visits = []
            for number in range(repeats):
                load(page, others[number % len(others)])
                visits.append(load(page, name))
            first, complete = (statistics.median(each) for each in zip(*visits, strict=True))
            rows.append((role, name, round(first, 2), round(complete, 2)))
            print(f"{role:10} {name:12} first content {first:5.2f} s   all {complete:5.2f} s",
                  flush=True)  # fmt: skip
        page.context.close()
    return pd.DataFrame(rows, columns=["role", "page", "first", "complete"])


def memory(
    browser: Browser, address: str, node: Node, process: psutil.Process, loads: int
) -> list[float]:
    """Megabytes of the dashboard's process after each session of page loads, roles in turn."""
    roles, sizes = list(node.logins), []
    for session in range(-(-loads // SESSION_LOADS)):
        role = roles[session % len(roles)]
        page = signed_in(browser, address, node.logins[role])
        names = menu(role)
        for number in range(SESSION_LOADS):
            load(page, names[number % len(names)])
        page.context.close()
        sizes.append(process.memory_info().rss / 1e6)
        print(f"after {(session + 1) * SESSION_LOADS:4} loads  {sizes[-1]:6.0f} MB", flush=True)
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description="The dashboard's pages with a long ledger.")
    parser.add_argument("--loads", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3, help="visits of each page")
    parser.add_argument("--folder", type=Path, help="keep the node here, and take it up again")
    chosen = parser.parse_args()
    missed = []
    with tempfile.TemporaryDirectory() as made:
        folder = chosen.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        node = node_with_a_past(folder)
        try:
            print(f"{node.entries:,} entries, {PLANS} plans")
            print_query_plans(node.home)
            with serving(node.home) as (address, process), sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                found = time_pages(browser, address, node, chosen.repeats)
                if found["first"].max() >= FIRST_S or found["complete"].max() >= COMPLETE_S:
                    missed.append("a page is slow")
                sizes = memory(browser, address, node, process, chosen.loads)
                if len(sizes) > 4 and sizes[-1] > GROWTH * sizes[len(sizes) // 3]:
                    missed.append("memory grows")
                browser.close()
        finally:
            stop_domain(node.home, NAME)
    if missed:
        raise SystemExit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    main()
