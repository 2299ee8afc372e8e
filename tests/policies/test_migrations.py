"""The ledger's schema, from the first one on: an old ledger opens, and loses nothing."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlmodel import SQLModel

from policies.ledger import Ledger, LedgerError
from policies.ledger.database import Database
from policies.ledger.migrations import VERSION_TABLE, migrate
from policies.ledger.tables import TABLES
from policies.verify import verify
from tests.policies import postgres
from tests.policies.one_ledger import (
    DELTA,
    NODE_KEY,
    approved,
    node_key_hex,
    open_ledger,
    plan,
    release,
)
from tests.policies.one_ledger import ROUND as EVENT

OURS = {table.name for table in TABLES}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return postgres.new_database(request.getfixturevalue("postgres_server"))


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


def first_schema(url: str) -> None:
    """Turn a ledger into one as the first schema wrote it, without a version."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            named = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            for (name,) in connection.exec_driver_sql(named).fetchall():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql("DROP FUNCTION ledger_only_grows() CASCADE")
        for table in (
            VERSION_TABLE,
            "ledgermention",
            "ledgeruse",
            "ledgerpeerhead",
            "ledgercosignature",
        ):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("ALTER TABLE ledgerattempt DROP COLUMN inputs")
        connection.exec_driver_sql("ALTER TABLE ledgerattempt DROP COLUMN reserved")
        connection.exec_driver_sql(
            "CREATE INDEX ledgerattempt_spend ON ledgerattempt"
            " (population, state, plan_hash, noise_multiplier, sampling_rate, repeat)"
        )
    engine.dispose()


def ledger_at(url: str) -> Ledger:
    return Ledger(url, "alpha", Ed25519PrivateKey.from_private_bytes(NODE_KEY))


@pytest.fixture
def old(url: str) -> tuple[float, str]:
    """What was spent, and the head, of a ledger of the first schema with a plan under way."""
    ledger = ledger_at(url)
    ledger.open_budget("shoppers", 8.0, DELTA)
    release(ledger, approved(ledger, 1, *[EVENT] * 3), 0)
    spent, head = ledger.budget("shoppers").spent, ledger.head()
    ledger.dispose()
    first_schema(url)
    return spent, head


def goes_on(url: str, old: tuple[float, str]) -> None:
    again = ledger_at(url)
    assert (again.budget("shoppers").spent, again.head()) == old
    release(again, plan(1), 1)
    assert again.attempts(plan(1))[-1] == ("train", 1, 0, "charged")
    again.dispose()
    kept = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else url
    assert verify(kept, node_key_hex()).ok


def test_a_ledger_of_the_first_schema_is_brought_up_to_date(
    url: str, old: tuple[float, str]
) -> None:
    goes_on(url, old)


def test_a_migration_that_is_broken_off_leaves_the_ledger_as_it_was(
    url: str, old: tuple[float, str]
) -> None:
    database = Database(url)

    def broken_off() -> None:
        with database.write_engine.begin() as connection:
            migrate(connection)
            assert sqlalchemy.inspect(connection).has_table("ledgermention")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    with database.read_engine.connect() as connection:
        there = set(sqlalchemy.inspect(connection).get_table_names())
    database.dispose()
    assert not there & {"ledgermention", "ledgeruse", VERSION_TABLE}
    goes_on(url, old)


def test_a_ledger_of_a_newer_schema_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    open_ledger(path).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0099'")
    connection.close()
    with pytest.raises(LedgerError, match="schema 0099"):
        open_ledger(path)
