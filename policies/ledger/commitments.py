"""What single plans cost their population: for rules about one scientist, data set or period."""

import json
from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import Connection, select

from policies.accounting import Event
from policies.ledger.budgets import OpenPlan, Use, counts_of, partners_of, read_events
from policies.ledger.tables import PLANS, USES, Row


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
        author: the key that signed it, empty if the submission didn't say.
    """

    plan_hash: str
    scientist: str
    data_set: str
    open: bool
    decided: str
    events: tuple[Event, ...]
    partners: int = 1
    author: str = ""


def commitments_of(connection: Connection, population: str) -> list[Commitment]:
    """Every plan of the population that used or holds any budget; together they are all held."""
    used: dict[str, list[Use]] = defaultdict(list)
    uses = select(
        USES.c.plan_hash, USES.c.noise_multiplier, USES.c.sampling_rate, USES.c.repeat, USES.c.count
    ).where(USES.c.population == population, USES.c.count != 0)
    for plan_hash, z, q, repeat, count in connection.execute(uses):
        used[plan_hash].append(Use((z, q), repeat, count))
    plans = connection.execute(
        select(PLANS)
        .where(PLANS.c.population == population, PLANS.c.status.in_(("approved", "closed")))
        .order_by(PLANS.c.decided, PLANS.c.plan_hash)
    )
    return [
        _commitment(plan, used[plan.plan_hash])
        for plan in plans.all()
        if plan.status == "approved" or used[plan.plan_hash]
    ]


def _commitment(row: Row, used: list[Use]) -> Commitment:
    events = [Event(*use.mechanism, use.count) for use in used]
    is_open = row.status == "approved"
    if is_open:
        events += OpenPlan(counts_of(read_events(row.events)), used).outstanding()
    summary = json.loads(row.summary)
    return Commitment(
        plan_hash=row.plan_hash,
        scientist=row.scientist,
        data_set=str(summary.get("dataset", "")),
        open=is_open,
        decided=row.decided,
        events=tuple(events),
        partners=partners_of(row.summary),
        author=str(summary.get("author", "")),
    )
