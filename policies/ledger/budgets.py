"""What a population's budget bears: what is spent, what approved plans hold, what is left."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlmodel import Session, col, func, select

from policies.accounting import Event, RenyiFilter, merge
from policies.ledger.errors import BudgetExceeded, unknown_population
from policies.ledger.tables import LedgerAttempt, LedgerBudget, LedgerPlan

Mechanism = tuple[float, float]  # (noise multiplier, sampling rate)


@dataclass(frozen=True)
class Budget:
    """A population's budget; every epsilon is the Renyi filter's, at `delta`, for `ADJACENCY`.

    Attributes:
        population: whose budget it is.
        epsilon: the owner's cap.
        delta: the probability the guarantee excepts.
        public: declared public by the owner: recorded, but not limited.
        spent: epsilon of all that was charged or is reserved.
        held: epsilon once every open, approved plan has used all it may.
        remaining: cap less held; infinite if public, negative if the cap was lowered below held.
        releases: number of attempts charged or reserved.
    """

    population: str
    epsilon: float
    delta: float
    public: bool
    spent: float
    held: float
    remaining: float
    releases: int


@dataclass(frozen=True)
class Use:
    """Attempts of one plan, by one mechanism, that are reserved or charged."""

    plan: str
    mechanism: Mechanism
    repeat: bool
    count: int


def read_budget(session: Session, population: str) -> Budget:
    """Raises UnknownPopulation if no budget was opened for the population."""
    row = session.get(LedgerBudget, population)
    if row is None:
        raise unknown_population(population)
    epsilon = RenyiFilter(row.delta).epsilon
    spent = spent_of(session, population)
    held = epsilon(held_of(session, population))
    return Budget(
        population=population,
        epsilon=row.epsilon,
        delta=row.delta,
        public=row.public,
        spent=epsilon(spent),
        held=held,
        remaining=math.inf if row.public else row.epsilon - held,
        releases=sum(event.count for event in spent),
    )


def check_room(session: Session, population: str, events: Sequence[Event]) -> None:
    """Raises BudgetExceeded unless `events` fit beside what is spent and held."""
    budget = session.get(LedgerBudget, population)
    if budget is None:
        raise unknown_population(population)
    if budget.public:
        return
    held = held_of(session, population)
    before = RenyiFilter(budget.delta).epsilon(held)
    after = RenyiFilter(budget.delta).epsilon([*held, *events])
    if after > budget.epsilon:
        # inf - inf has no meaning; an infinite request stays infinite.
        requested = after - before if math.isfinite(after) else math.inf
        raise BudgetExceeded(population, requested, budget.epsilon - before, budget.delta)


def check_still_within(
    session: Session, population: str, event: Event, held_before: Sequence[Event]
) -> None:
    """Refuses if spending passes the cap, or other plans' approved releases no longer fit."""
    budget = session.get_one(LedgerBudget, population)
    if budget.public:
        return
    epsilon = RenyiFilter(budget.delta).epsilon
    spent = epsilon(spent_of(session, population))
    held, before = epsilon(held_of(session, population)), epsilon(held_before)
    if spent > budget.epsilon or before < held > budget.epsilon:
        requested = epsilon([event])
        over = max(spent, held if held > before else 0.0) - budget.epsilon
        raise BudgetExceeded(population, requested, requested - over, budget.delta)


def uses_of(session: Session, population: str) -> list[Use]:
    """Every attempt of the population that is reserved or charged, counted by mechanism."""
    columns = (
        col(LedgerAttempt.plan_hash),
        col(LedgerAttempt.noise_multiplier),
        col(LedgerAttempt.sampling_rate),
        col(LedgerAttempt.repeat),
    )
    query = (
        sqlalchemy.select(*columns, func.count())
        .where(
            col(LedgerAttempt.population) == population,
            col(LedgerAttempt.state).in_(("reserved", "charged")),
        )
        .group_by(*columns)
    )
    return [
        Use(plan, (z, q), repeat, count)
        for plan, z, q, repeat, count in session.connection().execute(query)
    ]


def spent_of(session: Session, population: str) -> list[Event]:
    """Everything charged or reserved."""
    return [Event(*use.mechanism, use.count) for use in uses_of(session, population)]


def held_of(session: Session, population: str) -> list[Event]:
    """What is spent, and what open approved plans may still release."""
    used = uses_of(session, population)
    events = [Event(*use.mechanism, use.count) for use in used]
    plans = session.exec(
        select(LedgerPlan).where(
            LedgerPlan.population == population, LedgerPlan.status == "approved"
        )
    )
    for plan in plans.all():
        mine = [use for use in used if use.plan == plan.plan_hash]
        events += _outstanding(read_events(plan.events), mine)
    return list(merge(events))


def _outstanding(events: Iterable[Event], used: Iterable[Use]) -> list[Event]:
    """What is left of a plan: each first attempt used up one release of its own mechanism, each
    repetition one spare, which the plan lists at its costliest mechanism."""
    left = counts_of(events)
    repeats = 0
    for use in used:
        if use.repeat:
            repeats += use.count
        else:
            left[use.mechanism] -= use.count
    for mechanism in sorted(left, key=lambda pair: pair[0] / pair[1]):
        taken = min(repeats, left[mechanism])
        left[mechanism] -= taken
        repeats -= taken
    return [Event(*mechanism, count) for mechanism, count in left.items() if count > 0]


def counts_of(events: Iterable[Event]) -> Counter[Mechanism]:
    """Releases by mechanism."""
    counts: Counter[Mechanism] = Counter()
    for event in events:
        counts[event.noise_multiplier, event.sampling_rate] += event.count
    return counts


def read_events(text: str) -> list[Event]:
    """The events that a plan's row keeps as JSON."""
    return [
        Event(float(item["noise_multiplier"]), float(item["sampling_rate"]), item["count"])
        for item in json.loads(text)
    ]


def event_json(event: Event) -> dict[str, Any]:
    """An event as entries and rows keep it."""
    return {
        "noise_multiplier": event.noise_multiplier,
        "sampling_rate": event.sampling_rate,
        "count": event.count,
    }
