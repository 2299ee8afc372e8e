"""What single plans cost their population: for rules about one scientist, data set or period."""

import json
from collections import defaultdict
from dataclasses import dataclass

from sqlmodel import Session, col, select

from policies.accounting import Event
from policies.ledger.budgets import OpenPlan, Use, counts_of, partners_of, read_events
from policies.ledger.tables import LedgerPlan, LedgerUse


@dataclass(frozen=True)
class Commitment:
    """One plan's part in what is held of a population's budget.

    Attributes:
        scientist: the account that submitted it.
        data_set: the data set's name, empty if the submission didn't say.
        open: approved, and may still release.
        decided: time of the last decision; nothing was charged after it unless it is open.
        events: charged or reserved, and if it is open what it may still release.
        partners: how many domains are on its roster.
    """

    plan_hash: str
    scientist: str
    data_set: str
    open: bool
    decided: str
    events: tuple[Event, ...]
    partners: int = 1


def commitments_of(session: Session, population: str) -> list[Commitment]:
    """Every plan of the population that used or holds any budget; together they are all held."""
    used: dict[str, list[Use]] = defaultdict(list)
    for row in session.exec(select(LedgerUse).where(LedgerUse.population == population)).all():
        if row.count:
            mechanism = row.noise_multiplier, row.sampling_rate
            used[row.plan_hash].append(Use(mechanism, row.repeat, row.count))
    plans = session.exec(
        select(LedgerPlan)
        .where(LedgerPlan.population == population)
        .where(col(LedgerPlan.status).in_(("approved", "closed")))
        .order_by(col(LedgerPlan.decided), col(LedgerPlan.plan_hash))
    )
    return [
        _commitment(plan, used[plan.plan_hash])
        for plan in plans.all()
        if plan.status == "approved" or used[plan.plan_hash]
    ]


def _commitment(row: LedgerPlan, used: list[Use]) -> Commitment:
    events = [Event(*use.mechanism, use.count) for use in used]
    is_open = row.status == "approved"
    if is_open:
        events += OpenPlan(counts_of(read_events(row.events)), used).outstanding()
    return Commitment(
        plan_hash=row.plan_hash,
        scientist=row.scientist,
        data_set=str(json.loads(row.summary).get("dataset", "")),
        open=is_open,
        decided=row.decided,
        events=tuple(events),
        partners=partners_of(row.summary),
    )
