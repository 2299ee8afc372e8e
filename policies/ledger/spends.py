"""What days, months, scientists and plans used of each population's budget.

Epsilon is the Renyi filter's, for `ADJACENCY`, at the population's delta.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from policies.accounting import Event, RenyiFilter
from policies.ledger.budgets import OpenPlan, Use, counts_of, partners_of, read_events
from policies.ledger.tables import ATTEMPTS, PLANS, USES, Row


@dataclass(frozen=True)
class Spend:
    """What one day, month, scientist or plan used of one population's budget.

    Attributes:
        key: the day (2026-11-28) or month (2026-11), the scientist's key or the plan's hash.
        epsilon: of these releases alone.
        releases: attempts charged or reserved.
        cumulative: of a day or month: everything up to its end.
        held: of a scientist or plan: with what open plans may still use.
        everywhere: of a scientist or plan: `epsilon` for a person who is a user at every partner.
        plans: of a scientist: how many of hers used or hold budget.
        facts: of a plan: its name, scientist, status, data set and number of partners.
    """

    key: str
    population: str
    delta: float
    epsilon: float
    releases: int
    cumulative: float | None = None
    held: float | None = None
    everywhere: float | None = None
    plans: int | None = None
    facts: dict[str, Any] | None = None


@dataclass
class _PlanUse:
    row: Row
    used: list[Use]

    @property
    def partners(self) -> int:
        return partners_of(self.row.summary)

    @property
    def events(self) -> list[Event]:
        return [Event(*use.mechanism, use.count) for use in self.used]

    @property
    def held(self) -> list[Event]:
        if self.row.status != "approved":
            return self.events
        allowed = counts_of(read_events(self.row.events))
        return [*self.events, *OpenPlan(allowed, self.used).outstanding()]


def plan_uses(connection: Connection) -> list[_PlanUse]:
    """Plans that used or hold budget, newest decision first."""
    used: dict[str, list[Use]] = defaultdict(list)
    uses = select(
        USES.c.plan_hash, USES.c.noise_multiplier, USES.c.sampling_rate, USES.c.repeat, USES.c.count
    ).where(USES.c.count > 0)
    for plan_hash, z, q, repeat, count in connection.execute(uses):
        used[plan_hash].append(Use((z, q), repeat, count))
    plans = connection.execute(
        select(PLANS)
        .where(PLANS.c.status.in_(("approved", "closed")))
        .order_by(PLANS.c.decided.desc(), PLANS.c.plan_hash)
    )
    found = [_PlanUse(plan, used[plan.plan_hash]) for plan in plans]
    return [each for each in found if each.held]


def by_plan(plans: Iterable[_PlanUse], filters: dict[str, RenyiFilter]) -> list[Spend]:
    return [
        _spend(plan.row.plan_hash, [plan], filters[plan.row.population], facts=_facts(plan))
        for plan in plans
    ]


def by_scientist(plans: Iterable[_PlanUse], filters: dict[str, RenyiFilter]) -> list[Spend]:
    groups: dict[tuple[str, str], list[_PlanUse]] = defaultdict(list)
    for plan in plans:
        groups[plan.row.population, plan.row.scientist].append(plan)
    return [
        _spend(scientist, found, filters[population], plans=len(found))
        for (population, scientist), found in sorted(groups.items())
    ]


def _spend(key: str, group: Sequence[_PlanUse], accountant: RenyiFilter, **known: Any) -> Spend:
    used = [event for plan in group for event in plan.events]
    return Spend(
        key=key,
        population=group[0].row.population,
        delta=accountant.delta,
        epsilon=accountant.epsilon(used),
        releases=sum(event.count for event in used),
        held=accountant.epsilon(event for plan in group for event in plan.held),
        everywhere=accountant.everywhere([(plan.events, plan.partners) for plan in group]),
        **known,
    )


def _facts(plan: _PlanUse) -> dict[str, Any]:
    return {
        "name": plan.row.name,
        "scientist": plan.row.scientist,
        "status": plan.row.status,
        "dataset": json.loads(plan.row.summary).get("dataset", ""),
        "partners": plan.partners,
    }


def by_time(connection: Connection, filters: dict[str, RenyiFilter], digits: int) -> list[Spend]:
    """By the first digits of the time at which an attempt was reserved."""
    period = func.substr(ATTEMPTS.c.reserved, 1, digits)
    mechanism = ATTEMPTS.c.noise_multiplier, ATTEMPTS.c.sampling_rate
    columns = (period, ATTEMPTS.c.population, *mechanism)
    query = select(*columns, func.count()).where(ATTEMPTS.c.state != "void").group_by(*columns)
    groups: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for when, population, noise, rate, count in connection.execute(query):
        groups[str(when), population].append(Event(noise, rate, int(count)))
    so_far: dict[str, Any] = {}
    found = []
    for (when, population), events in sorted(groups.items()):
        accountant = filters[population]
        total = accountant.total(events)
        so_far[population] = so_far.get(population, 0.0) + total
        found.append(
            Spend(
                key=when,
                population=population,
                delta=accountant.delta,
                epsilon=accountant.epsilon_of(total),
                releases=sum(event.count for event in events),
                cumulative=accountant.epsilon_of(so_far[population]),
            )
        )
    return found
