"""Where a plan stands: its row, the moves its status may make, what is told of it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from policies.accounting import Event
from policies.ledger.budgets import read_events
from policies.ledger.errors import WrongStatus
from policies.ledger.tables import LedgerPlan


@dataclass(frozen=True)
class PlanRecord:
    """A plan as the ledger knows it; times are ISO 8601 UTC, empty before the decision.

    A plan refused before it was submitted has no name, scientist, population or events.
    """

    plan_hash: str
    name: str
    scientist: str
    population: str
    status: str
    events: tuple[Event, ...]
    spare_attempts: int
    summary: Mapping[str, Any]
    submitted: str
    decided: str
    decided_by: str
    reason: str


def decide(
    session: Session, plan: LedgerPlan, status: str, time: str, by: str, reason: str
) -> None:
    plan.status, plan.decided, plan.decided_by, plan.reason = status, time, by, reason
    plan.submitted = plan.submitted or time
    session.add(plan)


def require(plan: LedgerPlan | None, plan_hash: str, *statuses: str) -> LedgerPlan:
    """The plan, if it is known and its status is one of `statuses`."""
    if plan is None or plan.status not in statuses:
        status = "unknown" if plan is None else plan.status
        why = f": {plan.reason}" if plan is not None and plan.reason else ""
        raise WrongStatus(
            f"Plan {plan_hash[:16]} is {status}{why}. Expected {' or '.join(statuses)}"
        )
    return plan


def plan_row(plan_hash: str, status: str, **known: Any) -> LedgerPlan:
    empty: dict[str, Any] = dict.fromkeys(LedgerPlan.model_fields, "")
    empty |= {"events": "[]", "summary": "{}", "spare_attempts": 0}
    return LedgerPlan(**(empty | {"plan_hash": plan_hash, "status": status} | known))


def record_of(row: LedgerPlan) -> PlanRecord:
    facts = row.model_dump()
    facts["events"] = tuple(read_events(row.events))
    facts["summary"] = json.loads(row.summary)
    return PlanRecord(**facts)


def check_hash(text: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"A SHA-256 hash is 64 lower-case hex digits; got {text!r}")
