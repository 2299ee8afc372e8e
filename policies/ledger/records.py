"""What a ledger says when it is asked; nothing here changes it."""

import json
from collections.abc import Sequence

from sqlalchemy import bindparam, select

from policies.accounting import Event, RenyiFilter
from policies.approvals import expiry_of
from policies.ledger.budgets import Budget, check_room, filter_of, read_budget
from policies.ledger.chain import Entry
from policies.ledger.charges import attempt_at
from policies.ledger.commitments import Commitment, commitments_of
from policies.ledger.database import Database
from policies.ledger.plans import PlanRecord, plan_at, record_of
from policies.ledger.statements import Statement
from policies.ledger.tables import ATTEMPTS, BUDGETS, ENTRIES, HEAD, MENTIONS, PLANS

_STATUS = Statement(select(PLANS.c.status).where(PLANS.c.plan_hash == bindparam("plan_hash")))
_APPROVAL = (
    select(ENTRIES.c.body)
    .join(MENTIONS, MENTIONS.c.index == ENTRIES.c.index)
    .where(MENTIONS.c.about == bindparam("plan_hash"), MENTIONS.c.kind == "approval")
)
_SCIENTIST = Statement(select(PLANS.c.scientist).where(PLANS.c.plan_hash == bindparam("plan_hash")))
_WHERE = ATTEMPTS.c.step, ATTEMPTS.c.release, ATTEMPTS.c.attempt
_ATTEMPTS = Statement(
    select(*_WHERE, ATTEMPTS.c.state)
    .where(ATTEMPTS.c.plan_hash == bindparam("plan_hash"))
    .order_by(*_WHERE)
)


class Records:
    """Part of `Ledger`: statuses, budgets, entries. One snapshot each."""

    _database: Database

    def status(self, plan_hash: str) -> str:
        """unknown, pending, awaiting signature, approved, denied, refused or closed."""
        with self._database.reading() as connection:
            found = _STATUS.first(connection, {"plan_hash": plan_hash})
            return "unknown" if found is None else str(found.status)

    def plan(self, plan_hash: str) -> PlanRecord | None:
        """A plan that was ever submitted or refused."""
        with self._database.reading() as connection:
            found = plan_at(connection, plan_hash)
            return None if found is None else record_of(found)

    def approved_until(self, plan_hash: str) -> str:
        """When the first of the signatures under its approval here expires; empty: not approved."""
        with self._database.reading() as connection:
            found = connection.execute(_APPROVAL, {"plan_hash": plan_hash}).scalar()
        signed = {} if found is None else json.loads(found)
        return min(
            (expiry_of(signed[name]) for name in ("signature", "second") if name in signed),
            default="",
        )

    def scientist(self, plan_hash: str) -> str | None:
        """The account that submitted a plan; empty for one that was refused before, None if
        it is unknown."""
        with self._database.reading() as connection:
            found = _SCIENTIST.first(connection, {"plan_hash": plan_hash})
            return None if found is None else str(found.scientist)

    def attempts(self, plan_hash: str) -> list[tuple[str, int, int, str]]:
        """(step, release, attempt, state) of the plan; state is reserved, charged or void."""
        with self._database.reading() as connection:
            rows = _ATTEMPTS.all(connection, {"plan_hash": plan_hash})
            return [(step, at, attempt, state) for step, at, attempt, state in rows]

    def attempt(self, plan_hash: str, step: str, release: int, attempt: int) -> str | None:
        """The state of one attempt, or None if it was never reserved."""
        with self._database.reading() as connection:
            row = attempt_at(connection, plan_hash, step, release, attempt)
            return None if row is None else str(row.state)

    def budget(self, population: str) -> Budget:
        """The population's cap, and what is spent and held of it.

        Raises:
            UnknownPopulation: no budget was opened for it.
        """
        with self._database.reading() as connection:
            return read_budget(connection, population)

    def require_room(self, population: str, events: Sequence[Event]) -> None:
        """Nothing, if these events fit beside what is spent and held.

        Raises:
            BudgetExceeded: they don't.
            UnknownPopulation: no budget was opened for the population.
        """
        with self._database.reading() as connection:
            check_room(connection, population, events)

    def accountant(self, population: str) -> RenyiFilter:
        """The filter that decides about the population's budget."""
        with self._database.reading() as connection:
            return filter_of(connection, population)

    def commitments(self, population: str) -> list[Commitment]:
        """What each plan of the population has used or may still use, oldest decision first."""
        with self._database.reading() as connection:
            return commitments_of(connection, population)

    def budgets(self) -> list[Budget]:
        """The budgets of all populations, by name."""
        with self._database.reading() as connection:
            names = connection.execute(select(BUDGETS.c.population)).scalars().all()
            return [read_budget(connection, name) for name in sorted(names)]

    def entries(self, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Entries with an index above `after`, in order, at most `limit`."""
        query = select(ENTRIES).where(ENTRIES.c.index > after).order_by(ENTRIES.c.index)
        with self._database.reading() as connection:
            return [Entry(*row) for row in connection.execute(query.limit(limit))]

    def head(self) -> tuple[int, str]:
        """(index, hash) of the last entry."""
        with self._database.reading() as connection:
            index, found = connection.execute(select(HEAD.c.index, HEAD.c.hash)).one()
            return index, found

    def plans(self) -> list[PlanRecord]:
        """Every plan ever submitted or refused, oldest first."""
        with self._database.reading() as connection:
            query = select(PLANS).order_by(PLANS.c.submitted, PLANS.c.plan_hash)
            return [record_of(row) for row in connection.execute(query)]
