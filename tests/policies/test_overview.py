"""What an auditor asks of a ledger: every answer follows from the entries."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.accounting import Event, RenyiFilter
from policies.ledger import EntryFilter, Ledger, LedgerError
from policies.verify import verify
from tests.policies.ledgers_of_domains import PLAN, Domain, a_round
from tests.policies.one_ledger import (
    DELTA,
    ROUND,
    SHARE,
    approve,
    approved,
    node_key_hex,
    open_ledger,
    plan,
    release,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """Two scientists, two populations, an approved plan, a closed, a denied and a refused one."""
    opened = open_ledger(path)
    for population in ("shoppers", "viewers"):
        opened.open_budget(population, 8.0, DELTA)
    first = approved(opened, 1, Event(4.0, 1.0, 3), spare_attempts=1)
    release(opened, first, 0)
    opened.settle(first, "train", 0, 0, SHARE)
    release(opened, first, 0, attempt=1)
    opened.reserve(first, "train", 1, 0, ROUND)
    opened.void(first, "train", 1, 0, "stopped")
    opened.submit(
        plan(2), "two", "t" * 64, "viewers", [ROUND], {"roster": ["a", "b", "c"], "dataset": "d"}
    )
    approve(opened, plan(2))
    release(opened, plan(2), 0)
    opened.close(plan(2), "done")
    opened.submit(plan(3), "three", "t" * 64, "viewers", [ROUND], {})
    opened.deny(plan(3), "owner", "no")
    opened.refuse(plan(4), "budget", "too dear")
    yield opened
    assert verify(path, node_key_hex()).problem == ""
    opened.dispose()


def test_counts_are_those_of_the_entries(ledger: Ledger) -> None:
    counts = ledger.overview.counts()
    assert counts.kinds == Counter(entry.kind for entry in ledger.entries())
    assert (counts.entries, counts.head) == ledger.head()
    assert counts.plans == {"approved": 1, "closed": 1, "denied": 1, "refused": 1}


def test_the_timeline_counts_every_entry_once(ledger: Ledger) -> None:
    for by in ("day", "month"):
        line = ledger.overview.timeline(by)  # type: ignore[arg-type]
        assert sum(count for *_, count in line) == ledger.head()[0]
        assert [when for when, *_ in line] == sorted(when for when, *_ in line)


def test_pages_hold_every_entry_once_newest_first(ledger: Ledger) -> None:
    found, before, pages = [], 0, 0
    while True:
        page = ledger.overview.page(EntryFilter(), before, limit=4)
        found += page.entries
        pages += 1
        assert page.total == ledger.head()[0]
        if page.next is None:
            break
        before = page.next
    assert found == ledger.entries()[::-1]
    assert pages == -(-len(found) // 4)


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (EntryFilter(kinds=("charge", "void")), lambda kind, body: kind in ("charge", "void")),
        (EntryFilter(plan=plan(2)), lambda _, body: body.get("plan") == plan(2)),
        (EntryFilter(plan="000000", kinds=("denial",)), lambda kind, _: kind == "denial"),
        (
            EntryFilter(scientist="t" * 64),
            lambda _, body: body.get("plan") in (plan(2), plan(3)),
        ),
        (
            EntryFilter(population="viewers"),
            lambda _, body: (
                body.get("population") == "viewers" or body.get("plan") in (plan(2), plan(3))
            ),
        ),
        (EntryFilter(since="2020-01-01"), lambda *_: True),
        (EntryFilter(until="2020-01-01"), lambda *_: False),
    ],
)
def test_a_filter_keeps_what_it_says(ledger: Ledger, wanted: EntryFilter, kept) -> None:  # type: ignore[no-untyped-def]
    expected = [e for e in ledger.entries() if kept(e.kind, json.loads(e.body))]
    page = ledger.overview.page(wanted, limit=100)
    assert list(page.entries) == expected[::-1]
    assert page.total == len(expected)


@pytest.mark.parametrize("start", ["12345", "zzzzzz", "%%%%%%", "A" * 64, "1" * 65])
def test_a_plan_that_is_no_hash_is_refused(start: str) -> None:
    with pytest.raises(ValueError, match="6 to 64 hex digits"):
        EntryFilter(plan=start)


def test_spends_are_the_budgets_own(ledger: Ledger) -> None:
    budgets = {budget.population: budget for budget in ledger.budgets()}
    months = ledger.overview.spends("month")
    assert {m.population: m.cumulative for m in months} == {
        name: pytest.approx(budget.spent) for name, budget in budgets.items()
    }
    by_plan = {spend.key: spend for spend in ledger.overview.spends("plan")}
    assert set(by_plan) == {plan(1), plan(2)}
    assert by_plan[plan(1)].epsilon == pytest.approx(budgets["shoppers"].spent)
    assert by_plan[plan(1)].held == pytest.approx(budgets["shoppers"].held)
    assert by_plan[plan(2)].facts == {
        "name": "two",
        "scientist": "t" * 64,
        "status": "closed",
        "dataset": "d",
        "partners": 3,
    }
    by_scientist = {spend.key: spend for spend in ledger.overview.spends("scientist")}
    assert by_scientist["t" * 64].epsilon == pytest.approx(budgets["viewers"].spent)
    assert by_scientist["t" * 64].plans == 1


def test_a_person_at_every_partner_is_bounded_beside_each_figure(ledger: Ledger) -> None:
    [theirs] = [b for b in ledger.budgets() if b.population == "viewers"]
    # Three partners, unsampled: three times the sensitivity.
    assert theirs.everywhere == pytest.approx(
        RenyiFilter.of_cap(8.0, DELTA).epsilon([Event(4 / 3, 1.0, 1)])
    )
    [spend] = [s for s in ledger.overview.spends("plan") if s.key == plan(2)]
    assert spend.everywhere == pytest.approx(theirs.everywhere)
    [alone] = [b for b in ledger.budgets() if b.population == "shoppers"]
    assert alone.everywhere == pytest.approx(alone.spent)


def test_runs_tell_how_far_each_approved_plan_came(ledger: Ledger) -> None:
    runs = {run.plan: run for run in ledger.overview.runs()}
    assert set(runs) == {plan(1), plan(2)}
    first = runs[plan(1)]
    assert (first.releases, first.charged, first.opened, first.void) == (2, 2, 1, 1)
    assert runs[plan(2)].status == "closed"
    assert first.first <= first.last


def test_what_auditors_find_things_by_follows_from_the_entries(path: Path, ledger: Ledger) -> None:
    for change in (
        "UPDATE ledgermention SET about = 'x' WHERE kind = 'charge'",
        "DELETE FROM ledgermention WHERE kind = 'refusal'",
        "UPDATE ledgerattempt SET reserved = '2020-01-01T00:00:00+00:00'",
    ):
        with sqlite3.connect(path) as source, sqlite3.connect(path.with_suffix(".bad")) as bad:
            source.backup(bad)
            bad.execute(change)
        source.close()
        bad.close()
        assert "doesn't follow from the entries" in verify(path.with_suffix(".bad")).problem


def test_the_peers_that_co_signed_over_an_entry_are_named(tmp_path: Path) -> None:
    north, south = (Domain.create(name, tmp_path) for name in ("north", "south"))
    a_round(north, south, 0)
    last = north.ledger.head()[0]
    assert north.ledger.overview.witnesses(last) == []
    [said] = south.ledger.heads.cosignatures([north.node_key])
    north.ledger.heads.keep(said, "south", south.node_key)
    [found] = north.ledger.overview.witnesses(last)
    assert (found["witness"], found["size"]) == ("south", last)
    for index in (0, last + 1):
        with pytest.raises(LedgerError, match="no entry"):
            north.ledger.overview.witnesses(index)
    assert north.ledger.status(PLAN) == "approved"
