"""How long the dashboard's pages take with a long ledger, and whether its memory stays flat.

    python -m benchmarks.dashboard [--loads 500] [--folder FOLDER]

A node with 100,000 ledger entries and 500 plans, its dashboard, and Chromium, signed in as owner,
scientist and auditor in turn. To reach: first content of the slowest page under 1.5 s, all of it
under 3 s, and a flat memory of the dashboard over 500 page loads. The query plans of the paged and
counted queries are printed first. A folder that is given is kept, and taken up the next time.
"""

import argparse
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import sqlalchemy
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.long_ledger import ENTRIES, NAME, PLANS, Login, Node, node_with_a_past, open_ledger
from coterie.home import Home
from coterie.pages import Place, dashboard_command
from coterie.partners import stop_domain
from coterie.processes import free_ports
from dashboard.app import HIDDEN, PAGES
from dashboard.session import Role
from dashboard.texts import catalogue
from policies.ledger import EntryFilter

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
FIRST_S, COMPLETE_S, GROWTH = 1.5, 3.0, 1.1
PATIENCE_MS = 120_000
SESSION_LOADS = 50
"""Page loads after which somebody else signs in."""
_DONE = "[data-testid=stApp][data-test-script-state=notRunning]"


# --- Query plans ---


def print_query_plans(home: Home) -> None:
    """What the database does for every question that the pages ask of the ledger."""
    ledger = open_ledger(home)
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
