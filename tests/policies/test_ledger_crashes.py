"""The ledger under many hands, crashes and full disks: nobody overspends, nothing is lost."""

import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from policies.accounting import Event, RenyiFilter
from policies.ledger import (
    AlreadyReleased,
    BudgetExceeded,
    Ledger,
    LedgerUnavailable,
)
from policies.verify import verify
from tests.policies.one_ledger import (
    DELTA,
    FILTER,
    ROUND,
    SHARE,
    approve,
    approved,
    node_key_hex,
    open_ledger,
    plan,
    release,
    submit,
)

SPAWN = multiprocessing.get_context("spawn")


# Many at once


def spend_what_is_left(path: Path, first_plan: int, pipe: Connection) -> None:
    ledger = open_ledger(path)
    ledger.open_budget("shoppers", 5.0, DELTA)
    for number in range(first_plan, first_plan + 5):
        submit(ledger, plan(number), Event(4.0, 1.0, 2))
        try:
            approve(ledger, plan(number))
        except BudgetExceeded:
            continue
        for index in range(2):
            release(ledger, plan(number), index)
        ledger.close(plan(number), "done")
    pipe.send("done")


def test_processes_that_share_a_budget_never_overspend_it(path: Path) -> None:
    receiver, sender = SPAWN.Pipe(duplex=False)
    # None of them finds a ledger: making it is part of the race.
    workers = [
        SPAWN.Process(target=spend_what_is_left, args=(path, 100 * worker, sender))
        for worker in range(1, 5)
    ]
    for process in workers:
        process.start()
    sender.close()
    assert [receiver.recv() for _ in workers] == ["done"] * 4
    for process in workers:
        process.join()
    ledger = open_ledger(path)
    budget = ledger.budget("shoppers")
    assert budget.spent <= 5.0
    one_more = RenyiFilter.of_cap(5.0, DELTA).epsilon([Event(4.0, 1.0, budget.releases + 2)])
    assert one_more > 5.0, "and no plan that fitted was refused"
    verdict = verify(path, node_key_hex())
    assert verdict.problem == ""
    assert verdict.epsilon["shoppers"] == pytest.approx(budget.spent)


def test_threads_of_one_node_race_for_one_attempt_and_one_wins(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 5), spare_attempts=4)
    outcomes: list[str] = []

    def reserve() -> None:
        try:
            ledger.reserve(mine, "train", 0, 0, ROUND)
            outcomes.append("reserved")
        except AlreadyReleased:
            outcomes.append("refused")

    threads = [threading.Thread(target=reserve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["reserved"]


# Crashes and full disks


def release_for_ever(path: Path, pipe: Connection) -> None:
    ledger = open_ledger(path)
    index = len(ledger.attempts(plan(1)))
    while True:
        ledger.reserve(plan(1), "train", index, 0, Event(200.0, 1.0, 1))
        pipe.send(("reserved", index))
        ledger.charge(plan(1), "train", index, 0, SHARE)
        pipe.send(("charged", index))
        index += 1


def test_killed_at_any_moment_the_ledger_keeps_what_it_said_it_wrote(
    ledger: Ledger, path: Path
) -> None:
    approved(ledger, 1, Event(200.0, 1.0, 5000))
    promised: dict[int, str] = {}
    for life in range(3):
        receiver, sender = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=release_for_ever, args=(path, sender))
        process.start()
        sender.close()
        for _ in range(7 + 4 * life):
            state, index = receiver.recv()
            promised[index] = state
        process.kill()
        process.join()
        while receiver.poll():
            try:
                state, index = receiver.recv()
            except EOFError:
                break
            promised[index] = state
        found = {release: state for _, release, _, state in ledger.attempts(plan(1))}
        for index, state in promised.items():
            assert found[index] in (state, "charged")
        verdict = verify(path, node_key_hex())
        assert verdict.ok, verdict.text
        assert verdict.epsilon["shoppers"] == pytest.approx(ledger.budget("shoppers").spent)


def fill_the_disk(path: Path, pipe: Connection) -> None:
    ledger = open_ledger(path)
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, size + 50_000))
    written, said = 0, ""
    try:
        while written < 200:
            ledger.reserve(plan(1), "train", written, 0, Event(200.0, 1.0, 1))
            written += 1
    except LedgerUnavailable as error:
        said = str(error)
    pipe.send((written, said, len(ledger.attempts(plan(1)))))
    os.kill(os.getpid(), signal.SIGKILL)


def test_on_a_full_disk_nothing_is_half_written_and_nothing_is_forgotten(
    ledger: Ledger, path: Path
) -> None:
    approved(ledger, 1, Event(200.0, 1.0, 300))
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=fill_the_disk, args=(path, sender))
    process.start()
    sender.close()
    written, said, seen = receiver.recv()
    process.join()
    assert "Nothing was recorded and nothing may leave" in said
    assert 0 < written == seen
    ledger.open_budget("shoppers", 8.0, DELTA)
    assert ledger.budget("shoppers").releases == written
    assert ledger.budget("shoppers").spent == FILTER.epsilon([Event(200.0, 1.0, written)])
    assert verify(path, node_key_hex()).ok
    ledger.reserve(plan(1), "train", written, 0, Event(200.0, 1.0, 1))


def reserve_until_full(ledger: Ledger, plan_hash: str) -> int:
    for done in range(300):
        try:
            ledger.reserve(plan_hash, "train", done, 0, Event(200.0, 1.0, 1))
        except LedgerUnavailable:
            return done
    raise AssertionError("the database never became full")


def test_a_database_at_its_limit_refuses_and_recovers(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(200.0, 1.0, 300))
    with ledger._database.write_engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")
    done = reserve_until_full(ledger, mine)
    assert [row[1] for row in ledger.attempts(mine)] == list(range(done))
    with ledger._database.write_engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    ledger.reserve(mine, "train", done, 0, Event(200.0, 1.0, 1))


def test_a_ledger_that_cannot_be_opened_or_is_damaged_says_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="nothing may leave"):
        open_ledger(tmp_path / "missing" / "ledger.sqlite")
    junk = tmp_path / "junk.sqlite"
    junk.write_bytes(b"not a database" * 1000)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        open_ledger(junk)


def test_every_commit_reaches_the_disk_before_it_counts(ledger: Ledger) -> None:
    with ledger._database.write_engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"


def rename(path: Path, old: str, new: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
    connection.close()


def test_no_error_repeats_what_a_statement_held(ledger: Ledger, path: Path) -> None:
    rename(path, "ledgerattempt", "away")
    with pytest.raises(LedgerUnavailable) as error:
        ledger.attempts(plan(77))
    assert plan(77) not in str(error.value)
    rename(path, "away", "ledgerattempt")
