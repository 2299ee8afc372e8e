"""What a population's budget bears: what is spent, what approved plans hold, what is left."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select

from policies.accounting import Event, RenyiFilter
from policies.ledger.errors import BudgetExceeded, unknown_population
from policies.ledger.statements import Statement
from policies.ledger.tables import (
    BUDGETS,
    ENTRIES,
    MENTIONS,
    PLANS,
    USES,
    Row,
    change_of,
    row_of,
)
from policies.offers import offers_of

Mechanism = tuple[float, float]  # (noise multiplier, sampling rate)

_BUDGET = Statement(row_of(BUDGETS))
_FILTER = Statement(
    select(ENTRIES.c.body)
    .join(MENTIONS, MENTIONS.c.index == ENTRIES.c.index)
    .where(MENTIONS.c.kind == "budget", MENTIONS.c.about == bindparam("population"))
    .order_by(ENTRIES.c.index.desc())
    .limit(1)
)
_MECHANISM = USES.c.noise_multiplier, USES.c.sampling_rate
_HERE = USES.c.population == bindparam("population")
_ANY_USE = Statement(select(USES.c.plan_hash).where(_HERE).limit(1))
_SPENT = Statement(select(*_MECHANISM, func.sum(USES.c.count)).where(_HERE).group_by(*_MECHANISM))
_USE, _ADD_USE = Statement(row_of(USES)), Statement(insert(USES))
_COUNT = Statement(change_of(USES))
_USES_OF_PLAN = Statement(
    select(*_MECHANISM, USES.c.repeat, USES.c.count).where(
        _HERE, USES.c.plan_hash == bindparam("plan_hash")
    )
)
_SPENT_BY_PLAN = Statement(
    select(PLANS.c.summary, *_MECHANISM, USES.c.count)
    .join(PLANS, USES.c.plan_hash == PLANS.c.plan_hash)
    .where(_HERE, USES.c.count > 0)
)
_APPROVED = Statement(
    select(PLANS.c.plan_hash, PLANS.c.events, PLANS.c.summary).where(
        PLANS.c.population == bindparam("population"), PLANS.c.status == "approved"
    )
)
_USES_OF_APPROVED = Statement(
    select(USES.c.plan_hash, *_MECHANISM, USES.c.repeat, USES.c.count)
    .join(PLANS, USES.c.plan_hash == PLANS.c.plan_hash)
    .where(_HERE, PLANS.c.status == "approved")
)


@dataclass(frozen=True)
class Budget:
    """A population's budget; every epsilon is the Renyi filter's, at `delta`, for `ADJACENCY`.

    Attributes:
        population: whose budget it is.
        epsilon: the owner's cap.
        delta: the probability the guarantee excepts.
        public: declared public by the owner: recorded, but not limited.
        spent: epsilon of all that was charged or is reserved.
        everywhere: the same for a person who is a user at every partner of each of these plans.
        held: epsilon once every open, approved plan has used all it may.
        remaining: cap less held; infinite if public, negative if the cap was lowered below held.
        releases: number of attempts charged or reserved.
    """

    population: str
    epsilon: float
    delta: float
    public: bool
    spent: float
    everywhere: float
    held: float
    remaining: float
    releases: int


@dataclass(frozen=True)
class Use:
    """Attempts of one plan, by one mechanism, that are reserved or charged."""

    mechanism: Mechanism
    repeat: bool
    count: int


@dataclass
class OpenPlan:
    """What an approved plan may release at its `partners`, and what it has used of that."""

    allowed: Counter[Mechanism]
    used: list[Use]
    partners: int = 1

    def outstanding(self) -> list[Event]:
        """What is left of it: each first attempt used up one release of its own mechanism, each
        repetition one spare, which the plan lists at its costliest mechanism."""
        left = self.allowed.copy()
        repeats = 0
        for use in self.used:
            if use.repeat:
                repeats += use.count
            else:
                left[use.mechanism] -= use.count
        for mechanism in sorted(left, key=lambda pair: pair[0] / pair[1]):
            taken = min(repeats, left[mechanism])
            left[mechanism] -= taken
            repeats -= taken
        return [Event(*mechanism, count) for mechanism, count in left.items() if count > 0]


def filter_of(connection: Connection, population: str) -> RenyiFilter:
    """The filter of a population's budget, as its newest entry records it."""
    newest = _FILTER.one(connection, {"population": population})
    return RenyiFilter.recorded(json.loads(newest.body))


def filter_for(
    connection: Connection, population: str, epsilon: float, delta: float
) -> RenyiFilter:
    """The filter of a budget that is opened or changed: nothing that was ever reserved may have
    been chosen before the filter was."""
    if _ANY_USE.first(connection, {"population": population}) is None:
        return RenyiFilter.of_cap(epsilon, delta)
    return replace(filter_of(connection, population), delta=delta)


def require_unlike(population: str, known: Iterable[str]) -> None:
    """Raises ValueError if a new population's name may be a slip of the pen for a known one."""
    for other in known:
        if "".join(other.split()).lower() == "".join(population.split()).lower():
            raise ValueError(
                f"Population {population!r} differs from {other!r} only in case or spaces, and"
                " would have a budget of its own. Write the known name, or clearly another one"
            )


def require_budget(connection: Connection, population: str) -> Row:
    """Raises UnknownPopulation if no budget was opened for the population."""
    row = _BUDGET.first(connection, {"population": population})
    if row is None:
        raise unknown_population(population)
    return row


def read_budget(connection: Connection, population: str) -> Budget:
    """Raises UnknownPopulation if no budget was opened for the population."""
    row = require_budget(connection, population)
    accountant = filter_of(connection, population)
    spent = spent_of(connection, population)
    held = accountant.epsilon([*spent, *_outstanding(connection, population)])
    return Budget(
        population=population,
        epsilon=row.epsilon,
        delta=row.delta,
        public=row.public,
        spent=accountant.epsilon(spent),
        everywhere=accountant.everywhere(_spent_by_partners(connection, population)),
        held=held,
        remaining=math.inf if row.public else row.epsilon - held,
        releases=sum(event.count for event in spent),
    )


def check_room(
    connection: Connection, population: str, events: Sequence[Event], partners: int = 1
) -> None:
    """Raises BudgetExceeded unless `events` fit beside what is spent and held."""
    budget = require_budget(connection, population)
    if budget.public:
        return
    accountant = filter_of(connection, population)
    held = accountant.total(
        [*spent_of(connection, population), *_outstanding(connection, population)]
    )
    before = accountant.epsilon_of(held)
    after = accountant.epsilon_of(held + accountant.total(events))
    if after > budget.epsilon:
        # inf - inf has no meaning; an infinite request stays infinite.
        requested = after - before if math.isfinite(after) else math.inf

        def fits(other: Sequence[Event]) -> bool:
            return accountant.epsilon_of(held + accountant.total(other)) <= budget.epsilon

        raise BudgetExceeded(
            population,
            requested,
            budget.epsilon - before,
            budget.delta,
            _everywhere(connection, accountant, population, events, partners),
            offers_of(events, fits),
        )


def use_budget(connection: Connection, plan: Row, event: Event, repeat: bool) -> None:
    """Take one attempt of an approved plan off the budget.

    Raises:
        BudgetExceeded: spending passes the cap, or other plans' approved releases no longer fit.
    """
    budget = require_budget(connection, plan.population)
    if not budget.public:
        _check_use(connection, budget, plan, event, repeat)
    add_use(connection, plan.population, plan.plan_hash, event, repeat, 1)


def _check_use(connection: Connection, budget: Row, plan: Row, event: Event, repeat: bool) -> None:
    accountant = filter_of(connection, budget.population)
    plans = _open_plans(connection, budget.population)
    mine = plans[plan.plan_hash]
    others = [e for each in plans.values() if each is not mine for e in each.outstanding()]
    spent = accountant.total(spent_of(connection, budget.population))
    held_before = spent + accountant.total([*others, *mine.outstanding()])
    mine.used.append(Use((event.noise_multiplier, event.sampling_rate), repeat, 1))
    now = spent + accountant.total([event])
    held = now + accountant.total([*others, *mine.outstanding()])
    used, before, after = map(accountant.epsilon_of, (now, held_before, held))
    if used <= budget.epsilon and not before < after > budget.epsilon:
        return

    def fits(other: Sequence[Event]) -> bool:
        return accountant.epsilon_of(spent + accountant.total(other)) <= budget.epsilon

    requested = accountant.epsilon([event])
    over = max(used, after if after > before else 0.0) - budget.epsilon
    raise BudgetExceeded(
        budget.population,
        requested,
        requested - over,
        budget.delta,
        _everywhere(connection, accountant, budget.population, [event], partners_of(plan.summary)),
        offers_of([event], fits),
    )


def _everywhere(
    connection: Connection,
    accountant: RenyiFilter,
    population: str,
    events: Sequence[Event],
    partners: int,
) -> tuple[float, float]:
    """What is held for a person who is a user at every partner, without `events` and with them."""
    plans = _open_plans(connection, population).values()
    held = _spent_by_partners(connection, population)
    held += [(plan.outstanding(), plan.partners) for plan in plans]
    return accountant.everywhere(held), accountant.everywhere([*held, (events, partners)])


def add_use(
    connection: Connection, population: str, plan_hash: str, event: Event, repeat: bool, count: int
) -> None:
    """Count `count` attempts more (or less) as reserved or charged."""
    key = {
        "population": population,
        "plan_hash": plan_hash,
        "noise_multiplier": event.noise_multiplier,
        "sampling_rate": event.sampling_rate,
        "repeat": repeat,
    }
    found = _USE.first(connection, key)
    if found is None:
        _ADD_USE.run(connection, {**key, "count": count})
    else:
        at = {f"at_{name}": value for name, value in key.items()}
        _COUNT.run(connection, {**at, "count": found.count + count})


def uses_of(connection: Connection, population: str, plan_hash: str) -> list[Use]:
    """One plan's attempts that are reserved or charged, counted by mechanism."""
    where = {"population": population, "plan_hash": plan_hash}
    rows = _USES_OF_PLAN.all(connection, where)
    return [Use((z, q), repeat, count) for z, q, repeat, count in rows]


def spent_of(connection: Connection, population: str) -> list[Event]:
    """Everything charged or reserved, over all plans."""
    rows = _SPENT.all(connection, {"population": population})
    return [Event(z, q, int(count)) for z, q, count in rows if count > 0]


def _spent_by_partners(connection: Connection, population: str) -> list[tuple[list[Event], int]]:
    found: dict[int, list[Event]] = {}
    for summary, z, q, count in _SPENT_BY_PLAN.all(connection, {"population": population}):
        found.setdefault(partners_of(summary), []).append(Event(z, q, int(count)))
    return [(events, partners) for partners, events in found.items()]


def partners_of(summary: str) -> int:
    """How many domains are on the roster of a plan, from its row's summary."""
    return max(1, len(json.loads(summary).get("roster", ())))


def _outstanding(connection: Connection, population: str) -> list[Event]:
    """What open approved plans may still release."""
    plans = _open_plans(connection, population).values()
    return [event for plan in plans for event in plan.outstanding()]


def _open_plans(connection: Connection, population: str) -> dict[str, OpenPlan]:
    where = {"population": population}
    plans = {
        plan_hash: OpenPlan(counts_of(read_events(events)), [], partners_of(summary))
        for plan_hash, events, summary in _APPROVED.all(connection, where)
    }
    for plan_hash, z, q, repeat, count in _USES_OF_APPROVED.all(connection, where):
        plans[plan_hash].used.append(Use((z, q), repeat, count))
    return plans


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
