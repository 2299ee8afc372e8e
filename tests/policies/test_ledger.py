"""The ledger: nobody overspends, nothing is lost, whatever runs beside it or dies under it."""

import json
import math
import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.accounting import Event, RenyiFilter
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import (
    AlreadyReleased,
    AttemptOpen,
    AttemptsExhausted,
    BadSignature,
    BudgetExceeded,
    Ledger,
    LedgerError,
    LedgerUnavailable,
    NotApproved,
    NotReserved,
    UnknownPopulation,
    WrongStatus,
)
from policies.verify import verify

DELTA = 1e-5
FILTER = RenyiFilter.of_cap(8.0, DELTA)
ROUND = Event(4.0, 1.0, 1)
COUNT = Event(8.0, 1.0, 1)
SHARE, OTHER_SHARE, EXPLANATION = "5" * 64, "6" * 64, "e" * 64
NODE_KEY = bytes(range(32))
OWNER = Ed25519PrivateKey.generate()
SPAWN = multiprocessing.get_context("spawn")


def open_ledger(path: Path) -> Ledger:
    key = Ed25519PrivateKey.from_private_bytes(NODE_KEY)
    return Ledger(f"sqlite:///{path}", "alpha", key)


def node_key_hex() -> str:
    return owner_key_hex(Ed25519PrivateKey.from_private_bytes(NODE_KEY))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = open_ledger(path)
    opened.open_budget("shoppers", 8.0, DELTA)
    yield opened
    assert verify(path, node_key_hex(), owner_key_hex(OWNER)).problem == ""
    opened.dispose()


def plan(number: int) -> str:
    return f"{number:064x}"


def submit(ledger: Ledger, plan_hash: str, *events: Event, spare_attempts: int = 0) -> None:
    ledger.submit(plan_hash, "a plan", "s" * 64, "shoppers", events, {"steps": 1}, spare_attempts)


def approve(ledger: Ledger, plan_hash: str) -> None:
    signature = sign_approval(OWNER, plan_hash, "alpha")
    ledger.approve(plan_hash, "owner", owner_key_hex(OWNER), signature, EXPLANATION, "fine")


def approved(ledger: Ledger, number: int, *events: Event, spare_attempts: int = 0) -> str:
    submit(ledger, plan(number), *events, spare_attempts=spare_attempts)
    approve(ledger, plan(number))
    return plan(number)


def release(ledger: Ledger, plan_hash: str, index: int, attempt: int = 0) -> None:
    ledger.reserve(plan_hash, "train", index, attempt, ROUND)
    ledger.charge(plan_hash, "train", index, attempt, SHARE)


# The way of a plan


def test_a_plan_goes_from_unknown_to_closed(ledger: Ledger) -> None:
    states = [ledger.status(plan(1))]
    submit(ledger, plan(1), ROUND)
    states.append(ledger.status(plan(1)))
    ledger.consent(plan(1), "owner@alpha")
    states.append(ledger.status(plan(1)))
    approve(ledger, plan(1))
    states.append(ledger.status(plan(1)))
    ledger.close(plan(1), "done")
    states.append(ledger.status(plan(1)))
    assert states == ["unknown", "pending", "awaiting signature", "approved", "closed"]


def test_the_record_tells_who_decided_and_why(ledger: Ledger) -> None:
    submit(ledger, plan(1), ROUND, Event(4.0, 1.0, 4), COUNT, spare_attempts=2)
    ledger.deny(plan(1), "owner@alpha", "too many rounds")
    (record,) = ledger.plans()
    assert (record.status, record.decided_by, record.reason) == (
        "denied",
        "owner@alpha",
        "too many rounds",
    )
    assert record.events == (Event(4.0, 1.0, 5), COUNT)
    assert (record.spare_attempts, record.summary) == (2, {"steps": 1})
    assert record.decided.endswith("+00:00")


def test_repeating_a_step_of_the_way_adds_nothing(ledger: Ledger) -> None:
    approved(ledger, 1, ROUND)
    head = ledger.head()
    submit(ledger, plan(1), ROUND)
    approve(ledger, plan(1))
    ledger.open_budget("shoppers", 8.0, DELTA)
    assert ledger.head() == head


def test_a_denial_is_final_but_a_refusal_may_be_cured(ledger: Ledger) -> None:
    ledger.refuse(plan(1), "max_releases", "too many")
    assert ledger.status(plan(1)) == "refused"
    submit(ledger, plan(1), ROUND)
    assert ledger.status(plan(1)) == "pending"
    ledger.deny(plan(1), "owner", "no")
    with pytest.raises(WrongStatus, match=r"denied: no\. Expected refused"):
        submit(ledger, plan(1), ROUND)
    with pytest.raises(WrongStatus):
        approve(ledger, plan(1))


def test_decisions_need_a_plan_that_waits_for_them(ledger: Ledger) -> None:
    with pytest.raises(WrongStatus, match="unknown"):
        ledger.deny(plan(1), "owner", "no")
    with pytest.raises(WrongStatus, match="unknown"):
        ledger.close(plan(1), "no")
    approved(ledger, 1, ROUND)
    with pytest.raises(WrongStatus, match="approved"):
        ledger.deny(plan(1), "owner", "too late")


def test_an_approval_is_the_owner_s_signature_for_this_plan_here(ledger: Ledger) -> None:
    submit(ledger, plan(1), ROUND)
    key = owner_key_hex(OWNER)
    for signature in (
        sign_approval(OWNER, plan(2), "alpha"),
        sign_approval(OWNER, plan(1), "bravo"),
        sign_approval(Ed25519PrivateKey.generate(), plan(1), "alpha"),
        "",
    ):
        with pytest.raises(BadSignature, match="own key"):
            ledger.approve(plan(1), "owner", key, signature, EXPLANATION)
    assert ledger.status(plan(1)) == "pending"


@pytest.mark.parametrize("status", ["unknown", "pending", "awaiting signature", "denied", "closed"])
def test_only_an_approved_plan_may_release(ledger: Ledger, status: str) -> None:
    if status != "unknown":
        submit(ledger, plan(1), ROUND)
    if status == "awaiting signature":
        ledger.consent(plan(1), "owner")
    if status == "denied":
        ledger.deny(plan(1), "owner", "no")
    if status == "closed":
        ledger.close(plan(1), "withdrawn")
    with pytest.raises(NotApproved, match=status):
        ledger.reserve(plan(1), "train", 0, 0, ROUND)
    assert ledger.budget("shoppers").spent == 0.0


# Releases and attempts


def test_a_release_is_reserved_then_charged(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 2))
    ledger.reserve(mine, "train", 0, 0, ROUND)
    assert ledger.attempts(mine) == [("train", 0, 0, "reserved")]
    ledger.charge(mine, "train", 0, 0, SHARE)
    assert ledger.attempts(mine) == [("train", 0, 0, "charged")]


def test_one_attempt_sends_one_share(ledger: Ledger) -> None:
    mine = approved(ledger, 1, ROUND)
    release(ledger, mine, 0)
    head = ledger.head()
    ledger.charge(mine, "train", 0, 0, SHARE)
    assert ledger.head() == head
    with pytest.raises(AlreadyReleased, match="another share"):
        ledger.charge(mine, "train", 0, 0, OTHER_SHARE)


def test_nothing_is_charged_or_voided_without_an_open_reservation(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 3))
    with pytest.raises(NotReserved, match="not reserved"):
        ledger.charge(mine, "train", 0, 0, SHARE)
    with pytest.raises(NotReserved):
        ledger.void(mine, "train", 0, 0, "peer away")
    release(ledger, mine, 0)
    with pytest.raises(NotReserved, match="charged"):
        ledger.void(mine, "train", 0, 0, "peer away")
    ledger.reserve(mine, "train", 1, 0, ROUND)
    ledger.void(mine, "train", 1, 0, "peer away")
    with pytest.raises(NotReserved, match="void"):
        ledger.charge(mine, "train", 1, 0, SHARE)


def test_an_attempt_is_never_repeated_under_its_number(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 4), spare_attempts=2)
    ledger.reserve(mine, "train", 0, 1, ROUND)  # attempt 0 failed elsewhere before it got here
    for attempt in (0, 1):
        with pytest.raises(AlreadyReleased, match="next one is 2"):
            ledger.reserve(mine, "train", 0, attempt, ROUND)
    with pytest.raises(AttemptOpen, match="charge or void it first"):
        ledger.reserve(mine, "train", 0, 2, ROUND)
    ledger.charge(mine, "train", 0, 1, SHARE)
    release(ledger, mine, 0, attempt=2)


def test_charged_attempts_use_up_the_spare_ones_and_voided_ones_do_not(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 3), spare_attempts=1)
    ledger.reserve(mine, "train", 0, 0, ROUND)
    ledger.void(mine, "train", 0, 0, "no share left the node")
    release(ledger, mine, 0, attempt=1)
    release(ledger, mine, 0, attempt=2)
    with pytest.raises(AttemptsExhausted, match="spare attempts"):
        ledger.reserve(mine, "train", 0, 3, ROUND)
    release(ledger, mine, 1)
    with pytest.raises(AttemptsExhausted):
        ledger.reserve(mine, "train", 1, 1, ROUND)
    assert ledger.budget("shoppers").releases == 3


def test_attempts_given_up_after_they_were_computed_are_not_free_for_ever(ledger: Ledger) -> None:
    """How long each took could be seen: as many as the plan has attempts, and ten."""
    mine = approved(ledger, 1, Event(4.0, 1.0, 3), spare_attempts=1)
    for attempt in range(13):
        ledger.reserve(mine, "train", 0, attempt, ROUND)
        ledger.void(mine, "train", 0, attempt, "given up")
    for step in ("train", "another"):
        with pytest.raises(AttemptsExhausted, match=r"13 attempts .* were given up"):
            ledger.reserve(mine, step, 1, 13, ROUND)


def test_only_what_was_approved_is_released(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 3), COUNT, spare_attempts=1)
    for other in (Event(3.9, 1.0, 1), Event(4.0, 0.5, 1)):
        with pytest.raises(NotApproved, match="isn't among"):
            ledger.reserve(mine, "train", 0, 0, other)
    ledger.reserve(mine, "count", 0, 0, COUNT)
    with pytest.raises(NotApproved):
        ledger.reserve(mine, "count", 1, 0, COUNT)
    release(ledger, mine, 0)
    release(ledger, mine, 1)
    with pytest.raises(NotApproved):  # the third at this noise is the spare attempt
        ledger.reserve(mine, "train", 2, 0, ROUND)


def test_an_attempt_is_one_event(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 3))
    with pytest.raises(ValueError, match="count 1"):
        ledger.reserve(mine, "train", 0, 0, Event(4.0, 1.0, 2))


def test_closing_voids_what_is_open_so_that_it_can_never_be_sent(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 3))
    release(ledger, mine, 0)
    ledger.reserve(mine, "train", 1, 0, ROUND)
    ledger.close(mine, "revoked")
    with pytest.raises(NotReserved):
        ledger.charge(mine, "train", 1, 0, SHARE)
    assert [row[-1] for row in ledger.attempts(mine)] == ["charged", "void"]


# Budgets


def test_an_approved_plan_holds_its_whole_cost_until_it_closes(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 5), COUNT, spare_attempts=1)
    whole = FILTER.epsilon([Event(4.0, 1.0, 5), COUNT])
    for index in range(3):
        budget = ledger.budget("shoppers")
        assert budget.held == pytest.approx(whole)
        assert budget.remaining == pytest.approx(8.0 - whole)
        assert budget.spent == pytest.approx(
            FILTER.epsilon([Event(4.0, 1.0, index)] if index else [])
        )
        release(ledger, mine, index)
    ledger.close(mine, "enough")
    budget = ledger.budget("shoppers")
    assert budget.spent == budget.held == FILTER.epsilon([Event(4.0, 1.0, 3)])


def test_the_spare_attempt_is_held_at_the_costliest_and_freed_by_a_cheaper_one(
    ledger: Ledger,
) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 2), COUNT, spare_attempts=1)
    before = ledger.budget("shoppers").held
    ledger.reserve(mine, "count", 0, 0, COUNT)
    ledger.charge(mine, "count", 0, 0, SHARE)
    ledger.reserve(mine, "count", 0, 1, COUNT)
    budget = ledger.budget("shoppers")
    assert budget.held == FILTER.epsilon([ROUND, Event(8.0, 1.0, 2)]) < before


def test_a_plan_that_does_not_fit_beside_the_others_is_not_approved(ledger: Ledger) -> None:
    approved(ledger, 1, Event(4.0, 1.0, 20))
    submit(ledger, plan(2), Event(4.0, 1.0, 20))
    with pytest.raises(BudgetExceeded) as refusal:
        approve(ledger, plan(2))
    assert ledger.status(plan(2)) == "pending"
    ledger.close(plan(1), "not needed")
    approve(ledger, plan(2))
    lines = str(refusal.value).splitlines()
    figures = {line.split()[0]: line.split()[-1] for line in lines[1:4]}
    assert list(figures) == ["Requested", "Remaining", "Short"]
    requested, remaining, short = (round(float(text), 3) for text in figures.values())
    assert short == round(requested - remaining, 3) > 0
    assert requested == pytest.approx(refusal.value.requested, abs=1e-3)
    assert "delta 1e-05" in lines[4]
    assert "add/remove one user with all her interactions, per domain" in lines[4]


def test_room_can_be_asked_for_beforehand(ledger: Ledger) -> None:
    head = ledger.head()
    ledger.require_room("shoppers", [Event(4.0, 1.0, 10)])
    with pytest.raises(BudgetExceeded):
        ledger.require_room("shoppers", [Event(0.5, 1.0, 10)])
    with pytest.raises(UnknownPopulation):
        ledger.require_room("strangers", [ROUND])
    assert ledger.head() == head


def test_no_noise_is_never_within_a_budget(ledger: Ledger) -> None:
    submit(ledger, plan(1), Event(0.0, 1.0, 1))
    with pytest.raises(BudgetExceeded, match="Requested  epsilon infinite"):
        approve(ledger, plan(1))


def test_a_public_population_is_recorded_but_not_limited(ledger: Ledger) -> None:
    ledger.open_budget("film club", 1.0, DELTA, public=True)
    ledger.submit(plan(1), "bare", "s", "film club", [Event(0.0, 1.0, 2)], {})
    approve(ledger, plan(1))
    ledger.reserve(plan(1), "train", 0, 0, Event(0.0, 1.0, 1))
    budget = ledger.budget("film club")
    assert (budget.public, budget.spent, budget.remaining) == (True, math.inf, math.inf)
    assert ledger.budget("shoppers").spent == 0.0


def test_opening_a_budget_again_never_gives_spent_epsilon_back(ledger: Ledger, path: Path) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 5))
    release(ledger, mine, 0)
    spent = ledger.budget("shoppers").spent
    ledger.dispose()
    again = open_ledger(path)  # as a node does that loads next month's data
    again.open_budget("shoppers", 8.0, DELTA)
    assert again.budget("shoppers").spent == spent > 0
    again.open_budget("shoppers", 9.0, DELTA)
    assert (again.budget("shoppers").spent, again.budget("shoppers").epsilon) == (spent, 9.0)
    again.dispose()


def test_a_lowered_cap_stops_running_plans_when_they_reach_it(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 10))
    release(ledger, mine, 0)
    ledger.open_budget("shoppers", FILTER.epsilon([Event(4.0, 1.0, 2)]), DELTA)
    release(ledger, mine, 1)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(mine, "train", 2, 0, ROUND)
    assert ledger.attempts(mine)[-1] == ("train", 1, 0, "charged")
    assert ledger.budget("shoppers").remaining < 0, "the rest of the plan is over the new cap"


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, DELTA), (math.inf, DELTA), (math.nan, DELTA), (1.0, 0.0)]
)
def test_a_budget_is_a_number_and_a_probability(
    ledger: Ledger, epsilon: float, delta: float
) -> None:
    with pytest.raises(ValueError, match="finite epsilon"):
        ledger.open_budget("others", epsilon, delta)


def test_a_plan_needs_a_population_with_a_budget_and_something_to_release(ledger: Ledger) -> None:
    with pytest.raises(UnknownPopulation, match="strangers"):
        ledger.submit(plan(1), "a", "s", "strangers", [ROUND], {})
    with pytest.raises(UnknownPopulation):
        ledger.budget("strangers")
    with pytest.raises(ValueError, match="at least one release"):
        submit(ledger, plan(1), ROUND, spare_attempts=1)
    with pytest.raises(ValueError, match="64 lower-case hex"):
        submit(ledger, "plan", ROUND)


# The chain


def test_entries_are_chained_and_can_be_read_from_anywhere(ledger: Ledger) -> None:
    approved(ledger, 1, ROUND)
    entries = ledger.entries()
    assert [entry.kind for entry in entries] == ["ledger", "budget", "submission", "approval"]
    assert [entry.previous for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
    assert ledger.head() == (4, entries[-1].hash)
    assert ledger.entries(after=1, limit=2) == entries[1:3]
    assert json.loads(entries[3].body)["explanation"] == EXPLANATION


def test_a_ledger_belongs_to_one_domain_and_one_key(ledger: Ledger, path: Path) -> None:
    key = Ed25519PrivateKey.from_private_bytes(NODE_KEY)
    for domain, other in (("bravo", key), ("alpha", Ed25519PrivateKey.generate())):
        with pytest.raises(LedgerError, match="belongs to domain 'alpha'"):
            Ledger(f"sqlite:///{path}", domain, other)


def test_a_ledger_cut_short_from_outside_is_not_opened(tmp_path: Path) -> None:
    cut = tmp_path / "cut.sqlite"
    first = open_ledger(cut)
    first.open_budget("shoppers", 8.0, DELTA)
    first.dispose()
    with sqlite3.connect(cut) as connection:
        connection.execute("DROP TRIGGER ledgerentry_no_delete")
        connection.execute('DELETE FROM ledgerentry WHERE "index" = 2')
    connection.close()
    with pytest.raises(LedgerError, match="changed from outside"):
        open_ledger(cut)


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
