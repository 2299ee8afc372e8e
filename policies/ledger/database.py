"""The ledger's database, SQLite or Postgres: writers one at a time, commits that last."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError

from policies.ledger.errors import LedgerUnavailable
from policies.ledger.migrations import migrate

_WRITE_LOCK = 0x436F7465726965  # "Coterie": the Postgres advisory lock all writers take
_BUSY_SECONDS = 60


class Database:
    """Transactions on the ledger's tables; safe for many threads and processes.

    All methods raise `LedgerUnavailable` when the database can't be read or written.
    """

    def __init__(self, url: str) -> None:
        self.read_engine, self.write_engine = _engines(url)
        driver = self.read_engine.dialect.loaded_dbapi
        self._failures = SQLAlchemyError, sqlite3.Error, driver.Error

    @contextmanager
    def writing(self, create: bool = False) -> Iterator[Connection]:
        """One transaction that excludes every other writer: whole and durable, or nothing."""
        try:
            with self.write_engine.begin() as connection:
                if create:
                    migrate(connection)
                yield connection
        except self._failures as error:
            _unavailable(error)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot."""
        try:
            with self.read_engine.connect() as connection:
                connection.begin()
                yield connection
        except self._failures as error:
            _unavailable(error)

    def dispose(self) -> None:
        """Close the connections; new ones are made when used again."""
        self.write_engine.dispose()


def is_ledger(url: str) -> bool:
    """Whether a ledger is there; unlike opening it, asking makes none.

    Raises:
        LedgerUnavailable: the database can't be reached.
    """
    made = sqlalchemy.make_url(url)
    if made.get_backend_name() == "sqlite" and not Path(made.database or "").is_file():
        return False
    engine = create_engine(url)
    try:
        return sqlalchemy.inspect(engine).has_table("ledgerentry")
    except (SQLAlchemyError, sqlite3.Error) as error:
        _unavailable(error)
    finally:
        engine.dispose()


def _engines(url: str) -> tuple[sqlalchemy.Engine, sqlalchemy.Engine]:
    """One engine for snapshots and one whose transactions exclude every other writer."""
    if sqlalchemy.make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
        sqlalchemy.event.listen(engine, "connect", _prepare_sqlite)
        sqlalchemy.event.listen(engine, "begin", _begin_sqlite)
        return engine, engine.execution_options(writing=True)
    engine = create_engine(url)
    sqlalchemy.event.listen(engine, "begin", _begin_postgres)
    snapshots = engine.execution_options(isolation_level="REPEATABLE READ")
    # Whoever waited for the lock must see what its holder wrote, whatever the server's default is.
    return snapshots, engine.execution_options(writing=True, isolation_level="READ COMMITTED")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the driver would say it too late
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous=FULL")  # a commit that returned survives a power cut


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # Where several processes make the same new file, SQLite refuses to switch instead of waiting;
    # it does wait for a transaction, so take turns with an empty one.
    for _ in range(20):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
    connection.execute("PRAGMA journal_mode=WAL")


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    writing = connection.get_execution_options().get("writing")
    connection.connection.cursor().execute("BEGIN IMMEDIATE" if writing else "BEGIN")


def _begin_postgres(connection: sqlalchemy.Connection) -> None:
    if connection.get_execution_options().get("writing"):
        # A commit that returned survives a power cut, whatever the server's default is.
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")


def _unavailable(error: Exception) -> NoReturn:
    # Not the whole text of SQLAlchemy's error: that repeats the statement and its values.
    cause: object = error
    if isinstance(error, SQLAlchemyError):
        cause = getattr(error, "orig", None) or type(error).__name__
    raise LedgerUnavailable(
        f"The ledger can't be used ({cause}). Nothing was recorded and nothing may leave the node."
        " Make room or restore access to its file, then try again"
    ) from error
