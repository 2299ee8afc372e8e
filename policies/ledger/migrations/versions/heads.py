"""Heads that peers co-sign, what was opened, uses by plan, tables that refuse to be rewritten.

The guards stop a mistake, not an owner: whoever has the file can drop them. That is what the chain
and the peers' heads are for.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_GUARDED = (
    ("ledgerentry", "UPDATE"),
    ("ledgerentry", "DELETE"),
    ("ledgercosignature", "UPDATE"),
    ("ledgercosignature", "DELETE"),
    ("ledgerpeerhead", "UPDATE OF node_key, size, domain, root, signature, time, cosignature"),
    ("ledgerpeerhead", "DELETE"),
)


def upgrade() -> None:
    op.add_column(
        "ledgerattempt", sa.Column("inputs", sa.String(), nullable=False, server_default="")
    )
    _uses()
    op.create_table(
        "ledgerpeerhead",
        sa.Column("node_key", sa.String(), primary_key=True),
        sa.Column("size", sa.Integer(), primary_key=True),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("root", sa.String(), nullable=False),
        sa.Column("signature", sa.String(), nullable=False),
        sa.Column("time", sa.String(), nullable=False),
        sa.Column("cosignature", sa.String(), nullable=False),
        sa.Column("covered", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "ledgercosignature",
        sa.Column("size", sa.Integer(), primary_key=True),
        sa.Column("node_key", sa.String(), primary_key=True),
        sa.Column("witness", sa.String(), nullable=False),
        sa.Column("root", sa.String(), nullable=False),
        sa.Column("time", sa.String(), nullable=False),
        sa.Column("signature", sa.String(), nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgres()


def _uses() -> None:
    key = ("population", "plan_hash", "noise_multiplier", "sampling_rate", "repeat")
    op.create_table(
        "ledgeruse",
        sa.Column("population", sa.String(), primary_key=True),
        sa.Column("plan_hash", sa.String(), primary_key=True),
        sa.Column("noise_multiplier", sa.Float(), primary_key=True),
        sa.Column("sampling_rate", sa.Float(), primary_key=True),
        sa.Column("repeat", sa.Boolean(), primary_key=True),
        sa.Column("count", sa.Integer(), nullable=False),
    )
    columns = ", ".join(key)
    op.execute(
        f"INSERT INTO ledgeruse ({columns}, count) SELECT {columns}, count(*) FROM ledgerattempt"
        f" WHERE state <> 'void' GROUP BY {columns}"
    )
    op.drop_index("ledgerattempt_spend", "ledgerattempt")


def _guard_sqlite() -> None:
    for table, change in _GUARDED:
        op.execute(
            f"CREATE TRIGGER {table}_no_{change[:6].lower()} BEFORE {change} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{table} only grows'); END"
        )


def _guard_postgres() -> None:
    op.execute(
        "CREATE FUNCTION ledger_only_grows() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION '% only grows', TG_TABLE_NAME; END $$"
    )
    for table, change in _GUARDED:
        op.execute(
            f"CREATE TRIGGER {table}_no_{change[:6].lower()} BEFORE {change} ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION ledger_only_grows()"
        )
    for table in sorted({table for table, _ in _GUARDED}):
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION ledger_only_grows()"
        )
