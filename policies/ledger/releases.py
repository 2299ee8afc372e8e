"""Which attempts at which releases an approved plan still allows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from policies.accounting import Event
from policies.ledger.budgets import Use, counts_of, read_events, uses_of
from policies.ledger.errors import (
    AlreadyReleased,
    AttemptOpen,
    AttemptsExhausted,
    NotApproved,
    NotReserved,
)
from policies.ledger.statements import Statement
from policies.ledger.tables import ATTEMPTS, Row

_MORE_VOIDED = 10
"""As many attempts as a plan has, and so many more, may be given up after they were computed."""

_STATES = Statement(
    select(ATTEMPTS.c.attempt, ATTEMPTS.c.state).where(
        ATTEMPTS.c.plan_hash == bindparam("plan_hash"),
        ATTEMPTS.c.step == bindparam("step"),
        ATTEMPTS.c.release == bindparam("release"),
    )
)
_VOIDED = Statement(
    select(func.count().label("attempts")).where(
        ATTEMPTS.c.plan_hash == bindparam("plan_hash"), ATTEMPTS.c.state == "void"
    )
)


def check_attempt(
    connection: Connection, plan: Row, step: str, release: int, attempt: int, event: Event
) -> bool:
    """Whether the attempt repeats a charged one; raises unless the plan still allows it."""
    name = f"{step}/{release}"
    where = {"plan_hash": plan.plan_hash, "step": step, "release": release}
    states = {row.attempt: row.state for row in _STATES.all(connection, where)}
    latest = max(states, default=-1)
    if attempt <= latest:
        raise AlreadyReleased(
            f"Attempt {latest} of {name} exists already; the next one is {latest + 1}"
        )
    if states.get(latest) == "reserved":
        raise AttemptOpen(f"Attempt {latest} of {name} is open: charge or void it first")
    _check_voided(connection, plan, name)
    used = uses_of(connection, plan.population, plan.plan_hash)
    repeat = "charged" in states.values()
    _check_left(plan, used, name, event, repeat)
    return repeat


def _check_voided(connection: Connection, plan: Row, name: str) -> None:
    """An attempt that was given back was computed, and how long that took could be seen."""
    voided = _VOIDED.one(connection, {"plan_hash": plan.plan_hash}).attempts
    most = counts_of(read_events(plan.events)).total() + _MORE_VOIDED
    if voided >= most:
        raise AttemptsExhausted(
            f"{name} can't be tried again: {voided} attempts of the plan were given up after they"
            f" had been computed, at most {most} may be. Submit a new plan for what is left"
        )


def _check_left(plan: Row, used: Sequence[Use], name: str, event: Event, repeat: bool) -> None:
    allowed = counts_of(read_events(plan.events))
    mechanism = event.noise_multiplier, event.sampling_rate
    if repeat and sum(use.count for use in used if use.repeat) >= plan.spare_attempts:
        raise AttemptsExhausted(
            f"{name} was charged once, and the plan's {plan.spare_attempts} spare attempts are"
            " used up. Submit a new plan for what is left to release"
        )
    firsts = [use for use in used if not use.repeat]
    taken = sum(use.count for use in firsts if use.mechanism == mechanism)
    releases = sum(use.count for use in firsts)
    if mechanism not in allowed or (
        not repeat
        and (taken >= allowed[mechanism] or releases >= allowed.total() - plan.spare_attempts)
    ):
        raise NotApproved(
            f"Release {name} with noise multiplier {event.noise_multiplier:g} at sampling rate"
            f" {event.sampling_rate:g} isn't among the releases that were approved and are left"
        )


def open_reservation(row: Row | None, step: str, release: int, attempt: int) -> Row:
    if row is None or row.state != "reserved":
        state = "not reserved" if row is None else row.state
        raise NotReserved(
            f"Attempt {attempt} of {step}/{release} is {state}; expected an open reservation"
        )
    return row


def attempt_json(row: Row) -> dict[str, Any]:
    return {
        "plan": row.plan_hash,
        "step": row.step,
        "release": row.release,
        "attempt": row.attempt,
    }
