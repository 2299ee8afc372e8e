"""What a ledger's database holds beside its rows: exactly these tables, indexes and guards.

Nothing else may stand there: a trigger could change what is written next, a view stand in a
table's place, a table without its key take a row twice.
"""

from collections.abc import Sequence
from typing import Any

from policies.verify.evidence import Bad

_GUARDED = (
    ("ledgerentry", "UPDATE"),
    ("ledgerentry", "DELETE"),
    ("ledgercosignature", "UPDATE"),
    ("ledgercosignature", "DELETE"),
    ("ledgerpeerhead", "UPDATE OF node_key, size, domain, root, signature, time, cosignature"),
    ("ledgerpeerhead", "DELETE"),
)
GUARDS = {
    f"{table}_no_{change[:6].lower()}": f"CREATE TRIGGER {table}_no_{change[:6].lower()} BEFORE"
    f" {change} ON {table} BEGIN SELECT RAISE(ABORT, '{table} only grows'); END"
    for table, change in _GUARDED
}
_COLUMNS = {
    "ledgerversion": "version_num VARCHAR(32) NOT NULL, CONSTRAINT ledgerversion_pkc",
    "ledgerentry": '"index" INTEGER NOT NULL, previous VARCHAR NOT NULL, kind VARCHAR NOT NULL,'
    " body VARCHAR NOT NULL, hash VARCHAR NOT NULL, signature VARCHAR NOT NULL,",
    "ledgerhead": 'id INTEGER NOT NULL, "index" INTEGER NOT NULL, hash VARCHAR NOT NULL,',
    "ledgerbudget": "population VARCHAR NOT NULL, epsilon FLOAT NOT NULL, delta FLOAT NOT NULL,"
    " public BOOLEAN NOT NULL,",
    "ledgerplan": "plan_hash VARCHAR NOT NULL, name VARCHAR NOT NULL, scientist VARCHAR NOT NULL,"
    " population VARCHAR NOT NULL, status VARCHAR NOT NULL, events VARCHAR NOT NULL,"
    " spare_attempts INTEGER NOT NULL, summary VARCHAR NOT NULL, submitted VARCHAR NOT NULL,"
    " decided VARCHAR NOT NULL, decided_by VARCHAR NOT NULL, reason VARCHAR NOT NULL,",
    "ledgerattempt": "plan_hash VARCHAR NOT NULL, step VARCHAR NOT NULL, release INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL, population VARCHAR NOT NULL, state VARCHAR NOT NULL,"
    " noise_multiplier FLOAT NOT NULL, sampling_rate FLOAT NOT NULL, repeat BOOLEAN NOT NULL,"
    " share VARCHAR NOT NULL, inputs VARCHAR DEFAULT '' NOT NULL,"
    " reserved VARCHAR DEFAULT '' NOT NULL,",
    "ledgeruse": "population VARCHAR NOT NULL, plan_hash VARCHAR NOT NULL,"
    " noise_multiplier FLOAT NOT NULL, sampling_rate FLOAT NOT NULL, repeat BOOLEAN NOT NULL,"
    " count INTEGER NOT NULL,",
    "ledgerpeerhead": "node_key VARCHAR NOT NULL, size INTEGER NOT NULL, domain VARCHAR NOT NULL,"
    " root VARCHAR NOT NULL, signature VARCHAR NOT NULL, time VARCHAR NOT NULL,"
    " cosignature VARCHAR NOT NULL, covered BOOLEAN NOT NULL,",
    "ledgercosignature": "size INTEGER NOT NULL, node_key VARCHAR NOT NULL,"
    " witness VARCHAR NOT NULL, root VARCHAR NOT NULL, time VARCHAR NOT NULL,"
    " signature VARCHAR NOT NULL,",
    "ledgermention": '"index" INTEGER NOT NULL, kind VARCHAR NOT NULL, about VARCHAR NOT NULL,'
    " time VARCHAR NOT NULL,",
}
_KEYS = {
    "ledgerversion": "version_num",
    "ledgerentry": '"index"',
    "ledgerhead": "id",
    "ledgerbudget": "population",
    "ledgerplan": "plan_hash",
    "ledgerattempt": "plan_hash, step, release, attempt",
    "ledgeruse": "population, plan_hash, noise_multiplier, sampling_rate, repeat",
    "ledgerpeerhead": "node_key, size",
    "ledgercosignature": "size, node_key",
    "ledgermention": '"index"',
}
TABLES = {
    table: f"CREATE TABLE {table} ( {columns} PRIMARY KEY ({_KEYS[table]}) )"
    for table, columns in _COLUMNS.items()
}
_INDEXED = (("ledgerplan", "population"), ("ledgermention", "about"), ("ledgermention", "kind"))
_OBJECTS = {
    **TABLES,
    **GUARDS,
    **{f"ix_{t}_{c}": f"CREATE INDEX ix_{t}_{c} ON {t} ({c})" for t, c in _INDEXED},
}
SQLITE_OBJECTS = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_autoindex_%'"

_NAMES = ", ".join(f"to_regclass('{table}')" for table in TABLES)
POSTGRES_OBJECTS = (
    "SELECT relname, relkind::text, relhasrules, relrowsecurity FROM pg_class"
    f" WHERE oid = ANY(ARRAY[{_NAMES}]::oid[])",
    "SELECT t.tgname, t.tgtype::int, t.tgenabled::text, p.prosrc FROM pg_trigger t"
    " JOIN pg_proc p ON p.oid = t.tgfoid"
    f" WHERE NOT t.tgisinternal AND t.tgrelid = ANY(ARRAY[{_NAMES}]::oid[])",
)
"""Tables by the names that a node finds them under, and their triggers."""

_REFUSES = "BEGIN RAISE EXCEPTION '% only grows', TG_TABLE_NAME; END"
_BEFORE_ROW, _BEFORE_STATEMENT = 3, 2
_ON = {"DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}
_POSTGRES_GUARDS = {
    **{f"{t}_no_{c[:6].lower()}": _BEFORE_ROW + _ON[c[:6]] for t, c in _GUARDED},
    **{f"{t}_no_truncate": _BEFORE_STATEMENT + _ON["TRUNCATE"] for t, _ in _GUARDED},
}


def check_sqlite(rows: Sequence[tuple[Any, ...]]) -> None:
    """Raises Bad unless these (name, sql) are a ledger's, in any spacing and quotes."""
    found = {str(name): _plain(str(sql or "")) for name, sql in rows}
    _compare(found, {name: _plain(sql) for name, sql in _OBJECTS.items()})


def check_postgres(tables: Sequence[Any], triggers: Sequence[Any]) -> None:
    """Raises Bad unless the tables are tables and the guards stand."""
    kinds = {table: (kind, rules, hides) for table, kind, rules, hides in tables}
    guards = {n: (kind, enabled, source.strip()) for n, kind, enabled, source in triggers}
    wanted = {name: (kind, "O", _REFUSES) for name, kind in _POSTGRES_GUARDS.items()}
    table = ("r", False, False)
    _compare({**kinds, **guards}, {**dict.fromkeys(TABLES, table), **wanted})


def _plain(sql: str) -> str:
    return " ".join(sql.replace('"', "").split())


def _compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    if "ledgerentry" not in found:
        raise Bad(
            "not a ledger: it has no entries. A running node's file is whole only together with "
            "its '-wal' beside it: take an export (`coterie ledger export`)",
            None,
        )
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            how = "doesn't belong there"
            if name in expected:
                how = "was changed" if name in found else "was taken away"
            raise Bad(f"its tables, indexes or guards aren't a ledger's: {name!r} {how}", None)
