"""What every entry is about, and when each attempt was set aside: for auditors' questions."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_BATCH = 10_000


def upgrade() -> None:
    op.create_table(
        "ledgermention",
        sa.Column("index", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False, index=True),
        sa.Column("about", sa.String(), nullable=False, index=True),
        sa.Column("time", sa.String(), nullable=False),
    )
    op.add_column(
        "ledgerattempt", sa.Column("reserved", sa.String(), nullable=False, server_default="")
    )
    rows = op.get_bind().execute(sa.text('SELECT "index", kind, body FROM ledgerentry')).all()
    for start in range(0, len(rows), _BATCH):
        _fill([(index, kind, json.loads(body)) for index, kind, body in rows[start:][:_BATCH]])


def _fill(entries: list[tuple[int, str, dict]]) -> None:
    mentions = [
        {
            "index": index,
            "kind": kind,
            "about": body.get("plan") or body.get("population") or "",
            "time": body["time"],
        }
        for index, kind, body in entries
    ]
    columns: list[sa.ColumnClause] = [
        sa.column(name) for name in ("index", "kind", "about", "time")
    ]
    op.bulk_insert(sa.table("ledgermention", *columns), mentions)
    reserved = [body for _, kind, body in entries if kind == "reservation"]
    if reserved:
        op.get_bind().execute(
            sa.text(
                "UPDATE ledgerattempt SET reserved = :time WHERE plan_hash = :plan AND step = :step"
                ' AND "release" = :release AND attempt = :attempt'
            ),
            [{k: body[k] for k in ("time", "plan", "step", "release", "attempt")}
             for body in reserved],
        )  # fmt: skip
