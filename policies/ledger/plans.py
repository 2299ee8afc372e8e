"""Where a plan stands: its row, the moves its status may make, what is told of it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert

from policies.accounting import Event
from policies.ledger.budgets import read_events
from policies.ledger.errors import WrongStatus
from policies.ledger.statements import Statement
from policies.ledger.tables import PLANS, LedgerPlan, Row, change_of, row_of

_PLAN, _ADD = Statement(row_of(PLANS)), Statement(insert(PLANS))
_CHANGE = Statement(change_of(PLANS))


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


def plan_at(connection: Connection, plan_hash: str) -> Row | None:
    """A plan's row, a `LedgerPlan`, if it was ever submitted or refused."""
    return _PLAN.first(connection, {"plan_hash": plan_hash})


def keep_plan(connection: Connection, plan: Mapping[str, Any]) -> None:
    """Write a plan's row, a new one or another in its place."""
    if plan_at(connection, plan["plan_hash"]) is None:
        _ADD.run(connection, plan)
    else:
        _CHANGE.run(connection, {"at_plan_hash": plan["plan_hash"], **plan})


def decide(connection: Connection, plan: Row, status: str, time: str, by: str, reason: str) -> None:
    decided = {"status": status, "decided": time, "decided_by": by, "reason": reason}
    said = {"submitted": plan.submitted or time, **decided}
    _CHANGE.run(connection, {"at_plan_hash": plan.plan_hash, **said})


def require(plan: Row | None, plan_hash: str, *statuses: str) -> Row:
    """The plan, if it is known and its status is one of `statuses`."""
    if plan is None or plan.status not in statuses:
        status = "unknown" if plan is None else plan.status
        why = f": {plan.reason}" if plan is not None and plan.reason else ""
        raise WrongStatus(
            f"Plan {plan_hash[:16]} is {status}{why}. Expected {' or '.join(statuses)}"
        )
    return plan


def plan_row(plan_hash: str, status: str, **known: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(LedgerPlan.model_fields, "")
    empty |= {"events": "[]", "summary": "{}", "spare_attempts": 0}
    return empty | {"plan_hash": plan_hash, "status": status} | known


def record_of(row: Row) -> PlanRecord:
    facts = row._asdict()
    facts["events"] = tuple(read_events(row.events))
    facts["summary"] = json.loads(row.summary)
    return PlanRecord(**facts)


def check_hash(text: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"A SHA-256 hash is 64 lower-case hex digits; got {text!r}")
