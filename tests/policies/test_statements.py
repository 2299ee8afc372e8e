"""Statements of the ledger give rows as their columns say, and fail as a transaction must."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert, select

from policies.ledger import Ledger, LedgerUnavailable
from policies.ledger.statements import Statement
from policies.ledger.tables import BUDGETS, row_of

ADD = Statement(insert(BUDGETS))
BUDGET = Statement(row_of(BUDGETS))
PUBLIC = Statement(select(BUDGETS.c.population, BUDGETS.c.public).where(BUDGETS.c.delta == 1e-5))
SHOPPERS = {"population": "shoppers", "epsilon": 2.0, "delta": 1e-5, "public": True}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", "north", Ed25519PrivateKey.generate())


def test_a_row_has_its_columns_by_name_and_truth_values_as_such(ledger: Ledger) -> None:
    with ledger._database.writing() as connection:
        ADD.run(connection, SHOPPERS)
        row = BUDGET.one(connection, {"population": "shoppers"})
        assert row._asdict() == SHOPPERS
        assert row.public is True
        assert PUBLIC.all(connection, {}) == [("shoppers", True)]


def test_no_row_is_told_apart_from_one(ledger: Ledger) -> None:
    with ledger._database.reading() as connection:
        assert BUDGET.first(connection, {"population": "nobody"}) is None
    with pytest.raises(LedgerUnavailable), ledger._database.reading() as connection:
        BUDGET.one(connection, {"population": "nobody"})


def test_a_value_that_is_missing_is_not_taken_for_none(ledger: Ledger) -> None:
    with pytest.raises(KeyError), ledger._database.writing() as connection:
        BUDGET.first(connection, {})
    with ledger._database.reading() as connection:
        assert BUDGET.first(connection, {"population": "shoppers"}) is None


def test_the_drivers_own_refusal_leaves_nothing_and_shows_no_value(ledger: Ledger) -> None:
    def add_twice() -> None:
        with ledger._database.writing() as connection:
            ADD.run(connection, SHOPPERS)
            ADD.run(connection, SHOPPERS)

    with pytest.raises(LedgerUnavailable) as refused:
        add_twice()
    assert "UNIQUE" in str(refused.value)
    assert "shoppers" not in str(refused.value)
    with ledger._database.reading() as connection:
        assert BUDGET.first(connection, {"population": "shoppers"}) is None
