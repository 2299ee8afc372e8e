"""The ledger's schema, from the first one on: an old ledger opens, and loses nothing."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

from policies.ledger import LedgerError
from policies.ledger.migrations import VERSION_TABLE
from policies.ledger.tables import TABLES
from policies.verify import verify
from tests.policies import postgres
from tests.policies.test_ledger import DELTA, approved, node_key_hex, open_ledger, plan, release
from tests.policies.test_ledger import ROUND as EVENT

OURS = {table.name for table in TABLES}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        return
    if postgres.programs() is None:
        pytest.skip(postgres.MISSING)
    with postgres.running_postgres() as server:
        yield postgres.new_database(server)


def test_the_migrations_make_the_tables_that_the_code_declares(url: str) -> None:
    from tests.policies.test_postgres import open_ledger as open_at

    open_at(url).dispose()
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        options = {"include_name": lambda name, kind, _: kind != "table" or name in OURS}
        context = MigrationContext.configure(connection, opts={"compare_type": True, **options})
        found = compare_metadata(context, SQLModel.metadata)
        version = connection.exec_driver_sql(
            f"SELECT version_num FROM {VERSION_TABLE}"
        ).scalar_one()
    engine.dispose()
    ours = [
        each for each in found if getattr(each[-1], "name", "") in OURS or each[0] != "add_table"
    ]
    assert ours == []
    assert version == "0003"


def first_schema(path: Path) -> None:
    """Turn a ledger into one as the first schema wrote it, without a version."""
    with sqlite3.connect(path) as connection:
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for table in (
            VERSION_TABLE,
            "ledgermention",
            "ledgeruse",
            "ledgerpeerhead",
            "ledgercosignature",
        ):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("ALTER TABLE ledgerattempt DROP COLUMN inputs")
        connection.execute("ALTER TABLE ledgerattempt DROP COLUMN reserved")
        connection.execute(
            "CREATE INDEX ledgerattempt_spend ON ledgerattempt"
            " (population, state, plan_hash, noise_multiplier, sampling_rate, repeat)"
        )
    connection.close()


def test_a_ledger_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = open_ledger(path)
    ledger.open_budget("shoppers", 8.0, DELTA)
    mine = approved(ledger, 1, *[EVENT] * 3)
    release(ledger, mine, 0)
    spent, head = ledger.budget("shoppers").spent, ledger.head()
    ledger.dispose()
    first_schema(path)
    again = open_ledger(path)
    assert (again.budget("shoppers").spent, again.head()) == (spent, head)
    release(again, mine, 1)
    assert again.attempts(plan(1))[-1] == ("train", 1, 0, "charged")
    assert verify(path, node_key_hex()).ok
    again.dispose()


def test_a_ledger_of_a_newer_schema_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    open_ledger(path).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0099'")
    connection.close()
    with pytest.raises(LedgerError, match="schema 0099"):
        open_ledger(path)
