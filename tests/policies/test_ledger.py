"""The ledger: nobody overspends, nothing is lost, whatever runs beside it or dies under it."""

import json
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import (
    AlreadyReleased,
    AttemptOpen,
    AttemptsExhausted,
    BadSignature,
    Ledger,
    LedgerError,
    NotApproved,
    NotReserved,
    WrongStatus,
)
from tests.policies.one_ledger import (
    COUNT,
    DELTA,
    EXPLANATION,
    NODE_KEY,
    OTHER_SHARE,
    OWNER,
    ROUND,
    SHARE,
    approve,
    approved,
    open_ledger,
    plan,
    release,
    submit,
)

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
