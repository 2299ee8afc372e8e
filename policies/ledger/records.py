"""What a ledger says when it is asked; nothing here changes it."""

from collections.abc import Sequence

from sqlmodel import col, select

from policies.accounting import Event, RenyiFilter
from policies.ledger.budgets import Budget, check_room, filter_of, read_budget
from policies.ledger.chain import Entry, read_entry
from policies.ledger.commitments import Commitment, commitments_of
from policies.ledger.database import Database
from policies.ledger.plans import PlanRecord, record_of
from policies.ledger.tables import LedgerAttempt, LedgerBudget, LedgerEntry, LedgerHead, LedgerPlan


class Records:
    """Part of `Ledger`: statuses, budgets, entries. One snapshot each."""

    _database: Database

    def status(self, plan_hash: str) -> str:
        """unknown, pending, awaiting signature, approved, denied, refused or closed."""
        with self._database.reading() as session:
            found = session.exec(
                select(LedgerPlan.status).where(LedgerPlan.plan_hash == plan_hash)
            ).first()
            return "unknown" if found is None else found

    def attempts(self, plan_hash: str) -> list[tuple[str, int, int, str]]:
        """(step, release, attempt, state) of the plan; state is reserved, charged or void."""
        columns = (LedgerAttempt.step, LedgerAttempt.release, LedgerAttempt.attempt)
        with self._database.reading() as session:
            rows = session.exec(
                select(*columns, LedgerAttempt.state)
                .where(LedgerAttempt.plan_hash == plan_hash)
                .order_by(*map(col, columns))
            ).all()
            return [(step, at, attempt, state) for step, at, attempt, state in rows]

    def attempt(self, plan_hash: str, step: str, release: int, attempt: int) -> str | None:
        """The state of one attempt, or None if it was never reserved."""
        with self._database.reading() as session:
            return session.exec(
                select(LedgerAttempt.state).where(
                    LedgerAttempt.plan_hash == plan_hash,
                    LedgerAttempt.step == step,
                    LedgerAttempt.release == release,
                    LedgerAttempt.attempt == attempt,
                )
            ).first()

    def budget(self, population: str) -> Budget:
        """The population's cap, and what is spent and held of it.

        Raises:
            UnknownPopulation: no budget was opened for it.
        """
        with self._database.reading() as session:
            return read_budget(session, population)

    def require_room(self, population: str, events: Sequence[Event]) -> None:
        """Nothing, if these events fit beside what is spent and held.

        Raises:
            BudgetExceeded: they don't.
            UnknownPopulation: no budget was opened for the population.
        """
        with self._database.reading() as session:
            check_room(session, population, events)

    def accountant(self, population: str) -> RenyiFilter:
        """The filter that decides about the population's budget."""
        with self._database.reading() as session:
            return filter_of(session, population)

    def commitments(self, population: str) -> list[Commitment]:
        """What each plan of the population has used or may still use, oldest decision first."""
        with self._database.reading() as session:
            return commitments_of(session, population)

    def budgets(self) -> list[Budget]:
        """The budgets of all populations, by name."""
        with self._database.reading() as session:
            names = session.exec(select(LedgerBudget.population)).all()
            return [read_budget(session, name) for name in sorted(names)]

    def entries(self, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Entries with an index above `after`, in order, at most `limit`."""
        query = select(LedgerEntry).where(LedgerEntry.index > after)
        with self._database.reading() as session:
            rows = session.exec(query.order_by(col(LedgerEntry.index)).limit(limit)).all()
            return [read_entry(row) for row in rows]

    def head(self) -> tuple[int, str]:
        """(index, hash) of the last entry."""
        with self._database.reading() as session:
            head = session.get_one(LedgerHead, 1)
            return head.index, head.hash

    def plans(self) -> list[PlanRecord]:
        """Every plan ever submitted or refused, oldest first."""
        with self._database.reading() as session:
            rows = session.exec(
                select(LedgerPlan).order_by(col(LedgerPlan.submitted), col(LedgerPlan.plan_hash))
            ).all()
            return [record_of(row) for row in rows]
