"""How far domains co-signed each other's ledgers, counted by the database: newest heads only."""

from typing import Any

import sqlalchemy
from sqlmodel import Session, col, func

from policies.ledger.tables import LedgerCosignature, LedgerPeerHead


def newest_signed(session: Session) -> list[dict[str, Any]]:
    """Each peer's newest co-signature under this ledger: witness, node_key, size, time, count."""
    key, size = col(LedgerCosignature.node_key), col(LedgerCosignature.size)
    last = sqlalchemy.select(key, func.max(size).label("size"), func.count().label("count"))
    grouped = last.group_by(key).subquery()
    query = sqlalchemy.select(
        col(LedgerCosignature.witness), key, size, col(LedgerCosignature.time), grouped.c.count
    ).join(grouped, (grouped.c.node_key == key) & (grouped.c.size == size))
    rows = session.connection().execute(query.order_by(col(LedgerCosignature.witness)))
    return [dict(row) for row in rows.mappings()]


def newest_held(session: Session) -> list[dict[str, Any]]:
    """The newest head held here of each peer's ledger: domain, node_key, size, time, count."""
    key, size = col(LedgerPeerHead.node_key), col(LedgerPeerHead.size)
    last = sqlalchemy.select(key, func.max(size).label("size"), func.count().label("count"))
    grouped = last.group_by(key).subquery()
    query = sqlalchemy.select(
        col(LedgerPeerHead.domain), key, size, col(LedgerPeerHead.time), grouped.c.count
    ).join(grouped, (grouped.c.node_key == key) & (grouped.c.size == size))
    rows = session.connection().execute(query.order_by(col(LedgerPeerHead.domain)))
    return [dict(row) for row in rows.mappings()]
