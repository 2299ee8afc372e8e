"""The ledger's schema, step by step from the first one on, for SQLite and Postgres (Alembic).

A ledger is brought up to date when it is opened, in the transaction that opens it.
"""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect

from policies.ledger.errors import LedgerError

VERSION_TABLE = "ledgerversion"
FIRST = "0001"


def migrate(connection: Connection) -> None:
    """Make or bring up to date the ledger's tables, in the connection's transaction.

    Raises:
        LedgerError: the ledger was written by a newer Coterie.
    """
    config = Config()
    config.set_main_option("script_location", "policies.ledger:migrations")
    config.attributes["connection"] = connection
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    found = context.get_current_revision()
    if found == ScriptDirectory.from_config(config).get_current_head():
        return
    try:
        if found is None and inspect(connection).has_table("ledgerentry"):
            command.stamp(config, FIRST)  # made before its tables had versions
        command.upgrade(config, "head")
    except CommandError:
        raise LedgerError(
            f"This ledger has schema {found}, which this version of Coterie doesn't know."
            " Open it with the newer one that wrote it"
        ) from None
