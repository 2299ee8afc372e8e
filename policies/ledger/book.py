"""The ledger as its node uses it: every decision and every release, one transaction each."""

import math
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert, select

from policies.ledger.amendments import Amendments
from policies.ledger.budgets import filter_for, require_unlike
from policies.ledger.chain import Chain
from policies.ledger.charges import Charges
from policies.ledger.database import Database
from policies.ledger.decisions import Decisions
from policies.ledger.export import bundle, proof
from policies.ledger.heads import Heads
from policies.ledger.overview import Overview
from policies.ledger.records import Records
from policies.ledger.statements import Statement
from policies.ledger.tables import BUDGETS, change_of, row_of

_BUDGET, _ADD = Statement(row_of(BUDGETS)), Statement(insert(BUDGETS))
_CHANGE = Statement(change_of(BUDGETS))
_NAMES = select(BUDGETS.c.population)


class Ledger(Decisions, Charges, Records):
    """One domain's ledger, in SQLite or Postgres; safe for many threads and processes.

    Every method is one transaction: it happens whole and durably, or raises and changes nothing.
    All raise `LedgerUnavailable` when the database can't be read or written.
    """

    def __init__(self, url: str, domain: str, signing_key: Ed25519PrivateKey):
        """Open the ledger at an SQLAlchemy `url`, making it if there is none.

        Raises:
            LedgerError: the ledger there belongs to another domain or key, or its head doesn't fit.
        """
        self.domain = domain
        self._database = Database(url)
        self._chain = Chain(domain, signing_key)
        self.heads = Heads(self._database, self._chain)
        self.overview = Overview(self._database)
        self.amendments = Amendments(self._database, self._chain)
        with self._database.writing(create=True) as connection:
            self._chain.begin(connection)
            self._chain.check_ours(connection)

    def open_budget(
        self, population: str, epsilon: float, delta: float, public: bool = False
    ) -> None:
        """Set the cap of a population. The same cap again does nothing; what was spent stays spent.

        The orders of its filter are chosen with the cap, and stay once anything was reserved.

        Raises:
            ValueError: epsilon isn't positive and finite, delta not between 0 and 1, or the
                population's name isn't printable ASCII (another letter may look the same) or
                differs from a known one only in case or spaces.
        """
        if not (population.isascii() and population.isprintable() and population):
            raise ValueError(f"A population is named in printable ASCII; got {population!r}")
        if not 0 < epsilon < math.inf or not 0 < delta < 1:
            raise ValueError(
                f"A budget needs a finite epsilon above 0 and a delta in (0, 1);"
                f" got {epsilon}, {delta} for {population!r}"
            )
        cap = {"epsilon": epsilon, "delta": delta, "public": public}
        new = {"population": population, **cap}
        with self._database.writing() as connection:
            old = _BUDGET.first(connection, {"population": population})
            if old is None:
                require_unlike(population, connection.execute(_NAMES).scalars())
            elif old._asdict() == new:
                return
            accountant = filter_for(connection, population, epsilon, delta)
            if old is None:
                _ADD.run(connection, new)
            else:
                _CHANGE.run(connection, {"at_population": population, **cap})
            self._chain.append(
                connection,
                "budget",
                orders=list(accountant.orders),
                shares=list(accountant.shares),
                **new,
            )

    def export(self) -> dict[str, Any]:
        """The whole ledger as a signed bundle of JSON values, for an auditor."""
        return bundle(self._chain, self.heads, self.entries())

    def prove(self, index: int, size: int | None = None) -> dict[str, Any]:
        """A proof that entry `index` is under the head of `size` entries, or of all.

        Raises:
            LedgerError: there is no such entry or head.
        """
        return proof(self._chain, self.heads, index, size)

    def dispose(self) -> None:
        """Close the database connections. The ledger opens new ones when used again."""
        self._database.dispose()
