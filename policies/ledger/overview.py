"""What an auditor asks of a ledger: counts, spends, a timeline, pages, runs. Reading only.

The database counts; epsilon is the Renyi filter's, for `ADJACENCY`, at each population's delta.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import Connection, case, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from policies.accounting import spares
from policies.ledger.budgets import filter_of, read_events
from policies.ledger.chain import Entry
from policies.ledger.cosigned import newest_held, newest_signed
from policies.ledger.database import Database
from policies.ledger.errors import LedgerError
from policies.ledger.spends import Spend, by_plan, by_scientist, by_time, plan_uses
from policies.ledger.tables import (
    ATTEMPTS,
    BUDGETS,
    COSIGNATURES,
    ENTRIES,
    MENTIONS,
    PLANS,
    LedgerPlan,
    Row,
    row_of,
)

MOST_A_PAGE = 500
"""Entries that one page holds at most."""

By = Literal["day", "month", "scientist", "plan"]


@dataclass(frozen=True)
class EntryFilter:
    """Which entries a page shows; what is empty doesn't matter.

    Attributes:
        kinds: kinds of entries.
        plan: a plan's hash, or at least its first 6 characters.
        scientist: the account key that submitted the plan.
        population: whose budget or plans the entry is about.
        since: ISO 8601 time, UTC; that moment and later.
        until: ISO 8601 time, UTC; before that moment.

    Raises:
        ValueError: a plan's hash that is too short or isn't hex.
    """

    kinds: tuple[str, ...] = ()
    plan: str = ""
    scientist: str = ""
    population: str = ""
    since: str = ""
    until: str = ""

    def __post_init__(self) -> None:
        if self.plan and not re.fullmatch("[0-9a-f]{6,64}", self.plan):
            raise ValueError("Give a plan by the first 6 to 64 hex digits of its hash")

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row of `LedgerMention` must fulfil."""
        about, time = MENTIONS.c.about, MENTIONS.c.time
        found: list[ColumnElement[bool]] = []
        if self.kinds:
            found.append(MENTIONS.c.kind.in_(self.kinds))
        if self.plan:
            # A range, which an index answers; 'g' comes after every hex digit.
            found += [about >= self.plan, about < self.plan + "g"]
        if self.scientist:
            found.append(about.in_(_plans_where(PLANS.c.scientist == self.scientist)))
        if self.population:
            plans = _plans_where(PLANS.c.population == self.population)
            found.append(or_(about == self.population, about.in_(plans)))
        if self.since:
            found.append(time >= self.since)
        if self.until:
            found.append(time < self.until)
        return found


@dataclass(frozen=True)
class Page:
    """Entries newest first.

    Attributes:
        total: how many entries the filter lets through.
        next: give it as `before` for the next page; None: this was the last.
    """

    entries: tuple[Entry, ...]
    total: int
    next: int | None


@dataclass(frozen=True)
class Counts:
    """How many entries of each kind there are, and plans of each status."""

    entries: int
    head: str
    time: str
    kinds: dict[str, int]
    plans: dict[str, int]


@dataclass(frozen=True)
class Run:
    """How far an approved plan came; times of its first and last entry after the approval."""

    plan: str
    name: str
    scientist: str
    population: str
    status: str
    reason: str
    decided: str
    releases: int
    reserved: int
    charged: int
    opened: int
    void: int
    first: str
    last: str


class Overview:
    """Questions about one ledger; nothing here can change it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> Counts:
        """Entries by kind and plans by status."""
        last = select(ENTRIES).order_by(ENTRIES.c.index.desc()).limit(1)
        with self._database.reading() as connection:
            kinds = _grouped(connection, MENTIONS.c.kind)
            plans = _grouped(connection, PLANS.c.status)
            entry = Entry(*connection.execute(last).one())
            return Counts(entry.index, entry.hash, entry.time, kinds, plans)

    def timeline(self, by: Literal["day", "month"] = "day") -> list[tuple[str, str, int]]:
        """(day or month, kind, how many entries), oldest first."""
        when = func.substr(MENTIONS.c.time, 1, 10 if by == "day" else 7)
        query = select(when, MENTIONS.c.kind, func.count())
        query = query.group_by(when, MENTIONS.c.kind).order_by(when)
        with self._database.reading() as connection:
            rows = connection.execute(query)
            return sorted((str(day), str(kind), int(count)) for day, kind, count in rows)

    def page(self, wanted: EntryFilter, before: int = 0, limit: int = 50) -> Page:
        """Entries that the filter lets through, newest first, and older than `before` if given."""
        limit = min(max(limit, 1), MOST_A_PAGE)
        conditions = wanted.conditions()
        count = select(func.count()).select_from(MENTIONS).where(*conditions)
        query = select(ENTRIES).join(MENTIONS, MENTIONS.c.index == ENTRIES.c.index)
        query = query.where(*conditions)
        if before > 0:
            query = query.where(MENTIONS.c.index < before)
        query = query.order_by(MENTIONS.c.index.desc()).limit(limit + 1)
        with self._database.reading() as connection:
            total = int(connection.execute(count).scalar_one())
            rows = [Entry(*row) for row in connection.execute(query)]
        more = len(rows) > limit
        return Page(tuple(rows[:limit]), total, rows[limit - 1].index if more else None)

    def spends(self, by: By) -> list[Spend]:
        """What each day, month, scientist or plan used, by population; oldest days first."""
        with self._database.reading() as connection:
            names = connection.execute(select(BUDGETS.c.population)).scalars().all()
            filters = {name: filter_of(connection, name) for name in names}
            if by in ("day", "month"):
                return by_time(connection, filters, 10 if by == "day" else 7)
            plans = plan_uses(connection)
        return by_plan(plans, filters) if by == "plan" else by_scientist(plans, filters)

    def runs(self) -> list[Run]:
        """Every plan that was ever approved, newest decision first, and how far it came."""
        with self._database.reading() as connection:
            states = _states(connection)
            times = _span(connection)
            rows = connection.execute(
                select(PLANS)
                .where(PLANS.c.plan_hash.in_(_approved()))
                .order_by(PLANS.c.decided.desc(), PLANS.c.plan_hash)
            ).all()
        return [_run(row, states[row.plan_hash], times) for row in rows]

    def witnesses(self, index: int) -> list[dict[str, Any]]:
        """The peers that co-signed a head which contains the entry: each one's first such head.

        Raises:
            LedgerError: there is no such entry.
        """
        first = (
            select(COSIGNATURES.c.node_key, func.min(COSIGNATURES.c.size).label("size"))
            .where(COSIGNATURES.c.size >= index)
            .group_by(COSIGNATURES.c.node_key)
        )
        with self._database.reading() as connection:
            if connection.execute(row_of(ENTRIES), {"index": index}).first() is None:
                raise LedgerError(f"There is no entry {index}")
            keys = [row._asdict() for row in connection.execute(first)]
            rows = [connection.execute(row_of(COSIGNATURES), key).one() for key in keys]
            said = ("witness", "node_key", "size", "time")
            return sorted(
                ({name: getattr(row, name) for name in said} for row in rows),
                key=lambda each: (each["size"], each["witness"]),
            )

    def cosigned(self) -> dict[str, list[dict[str, Any]]]:
        """The newest heads only: `signed` by peers under this ledger, `held` here of theirs."""
        with self._database.reading() as connection:
            return {"signed": newest_signed(connection), "held": newest_held(connection)}


def _states(connection: Connection) -> dict[str, dict[str, int]]:
    columns = ATTEMPTS.c.plan_hash, ATTEMPTS.c.state
    opened = func.sum(case((ATTEMPTS.c.inputs != "", 1), else_=0))
    query = select(*columns, func.count(), opened).group_by(*columns)
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for plan_hash, state, count, settled in connection.execute(query):
        found[plan_hash][state] = int(count)
        found[plan_hash]["opened"] += int(settled)
    return found


def _span(connection: Connection) -> dict[str, tuple[str, str]]:
    time, about = MENTIONS.c.time, MENTIONS.c.about
    query = select(about, func.min(time), func.max(time)).where(
        MENTIONS.c.kind.in_(("reservation", "charge", "release", "void", "closure"))
    )
    rows = connection.execute(query.group_by(about))
    return {plan_hash: (first, last) for plan_hash, first, last in rows}


def _run(row: Row, states: dict[str, int], times: dict[str, tuple[str, str]]) -> Run:
    first, last = times.get(row.plan_hash, ("", ""))
    known = {each.name for each in fields(Run)} & set(LedgerPlan.model_fields)
    events = read_events(row.events)
    return Run(
        **{name: getattr(row, name) for name in known},
        plan=row.plan_hash,
        releases=sum(event.count for event in events)
        - sum(event.count for event in spares(events, row.spare_attempts)),
        reserved=states["reserved"],
        charged=states["charged"],
        opened=states["opened"],
        void=states["void"],
        first=first,
        last=last,
    )


def _grouped(connection: Connection, column: Any) -> dict[str, int]:
    query = select(column, func.count()).group_by(column).order_by(column)
    return {str(key): int(count) for key, count in connection.execute(query)}


def _plans_where(condition: Any) -> Any:
    return select(PLANS.c.plan_hash).where(condition)


def _approved() -> Any:
    return select(MENTIONS.c.about).where(MENTIONS.c.kind == "approval")
