"""What an auditor asks of a ledger: counts, spends, a timeline, pages, runs. Reading only.

The database counts; epsilon is the Renyi filter's, for `ADJACENCY`, at each population's delta.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, fields
from typing import Any, Literal

import sqlalchemy
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col, func, select

from policies.accounting import spares
from policies.ledger.budgets import filter_of, read_events
from policies.ledger.chain import Entry
from policies.ledger.cosigned import newest_held, newest_signed
from policies.ledger.database import Database
from policies.ledger.errors import LedgerError
from policies.ledger.spends import Spend, by_plan, by_scientist, by_time, plan_uses
from policies.ledger.tables import (
    LedgerAttempt,
    LedgerBudget,
    LedgerCosignature,
    LedgerEntry,
    LedgerMention,
    LedgerPlan,
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
        about, time = col(LedgerMention.about), col(LedgerMention.time)
        found: list[ColumnElement[bool]] = []
        if self.kinds:
            found.append(col(LedgerMention.kind).in_(self.kinds))
        if self.plan:
            # A range, which an index answers; 'g' comes after every hex digit.
            found += [about >= self.plan, about < self.plan + "g"]
        if self.scientist:
            found.append(about.in_(_plans_where(LedgerPlan.scientist == self.scientist)))
        if self.population:
            plans = _plans_where(LedgerPlan.population == self.population)
            found.append(sqlalchemy.or_(about == self.population, about.in_(plans)))
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
        last = select(LedgerEntry).order_by(col(LedgerEntry.index).desc()).limit(1)
        with self._database.reading() as session:
            kinds = _grouped(session, col(LedgerMention.kind))
            plans = _grouped(session, col(LedgerPlan.status))
            entry = session.exec(last).one()
            time = str(json.loads(entry.body)["time"])
            return Counts(entry.index, entry.hash, time, kinds, plans)

    def timeline(self, by: Literal["day", "month"] = "day") -> list[tuple[str, str, int]]:
        """(day or month, kind, how many entries), oldest first."""
        when = func.substr(col(LedgerMention.time), 1, 10 if by == "day" else 7)
        query = sqlalchemy.select(when, col(LedgerMention.kind), func.count())
        query = query.group_by(when, col(LedgerMention.kind)).order_by(when)
        with self._database.reading() as session:
            rows = session.connection().execute(query)
            return sorted((str(day), str(kind), int(count)) for day, kind, count in rows)

    def page(self, wanted: EntryFilter, before: int = 0, limit: int = 50) -> Page:
        """Entries that the filter lets through, newest first, and older than `before` if given."""
        limit = min(max(limit, 1), MOST_A_PAGE)
        conditions = wanted.conditions()
        count = sqlalchemy.select(func.count()).select_from(LedgerMention).where(*conditions)
        query = select(LedgerEntry).join(
            LedgerMention, col(LedgerMention.index) == col(LedgerEntry.index)
        )
        query = query.where(*conditions)
        if before > 0:
            query = query.where(LedgerMention.index < before)
        query = query.order_by(col(LedgerMention.index).desc()).limit(limit + 1)
        with self._database.reading() as session:
            total = int(session.connection().execute(count).scalar_one())
            rows = [Entry(**row.model_dump()) for row in session.exec(query)]
        more = len(rows) > limit
        return Page(tuple(rows[:limit]), total, rows[limit - 1].index if more else None)

    def spends(self, by: By) -> list[Spend]:
        """What each day, month, scientist or plan used, by population; oldest days first."""
        with self._database.reading() as session:
            names = session.exec(select(LedgerBudget.population)).all()
            filters = {name: filter_of(session, name) for name in names}
            if by in ("day", "month"):
                return by_time(session, filters, 10 if by == "day" else 7)
            plans = plan_uses(session)
        return by_plan(plans, filters) if by == "plan" else by_scientist(plans, filters)

    def runs(self) -> list[Run]:
        """Every plan that was ever approved, newest decision first, and how far it came."""
        with self._database.reading() as session:
            states = _states(session)
            times = _span(session)
            rows = session.exec(
                select(LedgerPlan)
                .where(LedgerPlan.plan_hash.in_(_approved()))  # type: ignore[attr-defined]
                .order_by(col(LedgerPlan.decided).desc(), col(LedgerPlan.plan_hash))
            ).all()
        return [_run(row, states[row.plan_hash], times) for row in rows]

    def witnesses(self, index: int) -> list[dict[str, Any]]:
        """The peers that co-signed a head which contains the entry: each one's first such head.

        Raises:
            LedgerError: there is no such entry.
        """
        first = (
            sqlalchemy.select(
                col(LedgerCosignature.node_key), func.min(col(LedgerCosignature.size))
            )
            .where(col(LedgerCosignature.size) >= index)
            .group_by(col(LedgerCosignature.node_key))
        )
        with self._database.reading() as session:
            if index < 1 or session.get(LedgerEntry, index) is None:
                raise LedgerError(f"There is no entry {index}")
            keys = session.connection().execute(first).all()
            rows = [session.get_one(LedgerCosignature, (size, key)) for key, size in keys]
            said = ("witness", "node_key", "size", "time")
            return sorted(
                ({name: getattr(row, name) for name in said} for row in rows),
                key=lambda each: (each["size"], each["witness"]),
            )

    def cosigned(self) -> dict[str, list[dict[str, Any]]]:
        """The newest heads only: `signed` by peers under this ledger, `held` here of theirs."""
        with self._database.reading() as session:
            return {"signed": newest_signed(session), "held": newest_held(session)}


def _states(session: Session) -> dict[str, dict[str, int]]:
    columns = col(LedgerAttempt.plan_hash), col(LedgerAttempt.state)
    opened = func.sum(sqlalchemy.case((col(LedgerAttempt.inputs) != "", 1), else_=0))
    query = sqlalchemy.select(*columns, func.count(), opened).group_by(*columns)
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for plan_hash, state, count, settled in session.connection().execute(query):
        found[plan_hash][state] = int(count)
        found[plan_hash]["opened"] += int(settled)
    return found


def _span(session: Session) -> dict[str, tuple[str, str]]:
    time, about = col(LedgerMention.time), col(LedgerMention.about)
    query = sqlalchemy.select(about, func.min(time), func.max(time)).where(
        col(LedgerMention.kind).in_(("reservation", "charge", "release", "void", "closure"))
    )
    rows = session.connection().execute(query.group_by(about))
    return {plan_hash: (first, last) for plan_hash, first, last in rows}


def _run(row: LedgerPlan, states: dict[str, int], times: dict[str, tuple[str, str]]) -> Run:
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


def _grouped(session: Session, column: Any) -> dict[str, int]:
    query = sqlalchemy.select(column, func.count()).group_by(column).order_by(column)
    return {str(key): int(count) for key, count in session.connection().execute(query)}


def _plans_where(condition: Any) -> Any:
    return sqlalchemy.select(col(LedgerPlan.plan_hash)).where(condition)


def _approved() -> Any:
    return sqlalchemy.select(col(LedgerMention.about)).where(col(LedgerMention.kind) == "approval")
