"""How far domains co-signed each other's ledgers, counted by the database: newest heads only."""

from typing import Any

from sqlalchemy import Connection, func, select

from policies.ledger.tables import COSIGNATURES, PEER_HEADS


def newest_signed(connection: Connection) -> list[dict[str, Any]]:
    """Each peer's newest co-signature under this ledger: witness, node_key, size, time, count."""
    key, size = COSIGNATURES.c.node_key, COSIGNATURES.c.size
    last = select(key, func.max(size).label("size"), func.count().label("count"))
    grouped = last.group_by(key).subquery()
    query = select(COSIGNATURES.c.witness, key, size, COSIGNATURES.c.time, grouped.c.count).join(
        grouped, (grouped.c.node_key == key) & (grouped.c.size == size)
    )
    rows = connection.execute(query.order_by(COSIGNATURES.c.witness))
    return [dict(row) for row in rows.mappings()]


def newest_held(connection: Connection) -> list[dict[str, Any]]:
    """The newest head held here of each peer's ledger: domain, node_key, size, time, count."""
    key, size = PEER_HEADS.c.node_key, PEER_HEADS.c.size
    last = select(key, func.max(size).label("size"), func.count().label("count"))
    grouped = last.group_by(key).subquery()
    query = select(PEER_HEADS.c.domain, key, size, PEER_HEADS.c.time, grouped.c.count).join(
        grouped, (grouped.c.node_key == key) & (grouped.c.size == size)
    )
    rows = connection.execute(query.order_by(PEER_HEADS.c.domain))
    return [dict(row) for row in rows.mappings()]
