"""Reading a ledger (SQLite file, database, bundle, entries) and the heads that its peers kept."""

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.verify.evidence import (
    UNREADABLE,
    Bad,
    Cosigned,
    EntryLike,
    Link,
    no_constant,
    unique_keys,
    whole,
)
from policies.verify.schema import POSTGRES_OBJECTS, SQLITE_OBJECTS, check_postgres, check_sqlite

Row = tuple[Any, ...]
Tables = dict[str, list[Row]]
_BUNDLE = {"format", "domain", "node_key", "size", "root", "exported", "cosignatures", "signature"}
_QUERIES = {
    "ledgerversion": "SELECT version_num FROM ledgerversion",
    "ledgerentry": 'SELECT "index", previous, kind, body, hash, signature FROM ledgerentry'
    ' ORDER BY "index"',
    "ledgerhead": 'SELECT id, "index", hash FROM ledgerhead',
    "ledgermention": 'SELECT "index", kind, about, time FROM ledgermention',
    "ledgerbudget": "SELECT population, epsilon, delta, public FROM ledgerbudget",
    "ledgerplan": "SELECT plan_hash, name, scientist, population, status, events, spare_attempts,"
    " summary, submitted, decided, decided_by, reason FROM ledgerplan",
    "ledgerattempt": 'SELECT plan_hash, step, "release", attempt, population, state,'
    " noise_multiplier, sampling_rate, repeat, share, inputs, reserved FROM ledgerattempt",
    "ledgeruse": "SELECT population, plan_hash, noise_multiplier, sampling_rate, repeat, count"
    " FROM ledgeruse",
    "ledgerpeerhead": "SELECT node_key, size, domain, root, signature, time, cosignature,"
    " covered FROM ledgerpeerhead",
    "ledgercosignature": "SELECT witness, node_key, size, root, time, signature"
    " FROM ledgercosignature",
}


@dataclass
class Found:
    """A ledger as read: its entries, and what must follow from them or be under their heads."""

    entries: Iterable[EntryLike]
    tables: Tables = field(default_factory=dict)
    cosigned: list[Cosigned] = field(default_factory=list)
    bundle: dict[str, Any] | None = None


def read_ledger(ledger: str | Path | Sequence[EntryLike]) -> Found:
    if not isinstance(ledger, str | Path):
        return Found(iter(ledger))
    if re.match(r"[a-z0-9+]+://", str(ledger)):
        return _of_tables(_read_url(str(ledger)))
    path = Path(ledger)
    if not path.is_file():
        raise FileNotFoundError(f"There is no ledger at {path}")
    with path.open("rb") as file:
        if file.read(1) == b"{":
            return _read_bundle(path)
    return _of_tables(_read_sqlite(path))


def _read_sqlite(path: Path) -> Tables:
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            # One transaction, so that a node writing meanwhile can't show us two moments.
            connection.execute("BEGIN")
            check_sqlite(connection.execute(SQLITE_OBJECTS).fetchall())
            return {t: connection.execute(query).fetchall() for t, query in _QUERIES.items()}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Bad(f"not a ledger that SQLite can read: {error}", None) from None


def _read_url(url: str) -> Tables:
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(url)
        if engine.dialect.name == "sqlite":
            return _read_sqlite(Path(engine.url.database or ""))
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            check_postgres(*(connection.exec_driver_sql(q).all() for q in POSTGRES_OBJECTS))
            rows = {t: list(connection.exec_driver_sql(q).all()) for t, q in _QUERIES.items()}
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise Bad(f"not a ledger that can be read ({type(error).__name__})", None) from None
    return {t: [tuple(int(v) if v is True or v is False else v for v in row) for row in found]
            for t, found in rows.items()}  # fmt: skip


def _of_tables(tables: Tables) -> Found:
    entries = iter(Link(*row) for row in tables.pop("ledgerentry"))
    rows = tables.pop("ledgercosignature")
    cosigned = [_own_cosigned("the table of co-signatures", *row) for row in rows]
    return Found(entries, tables, cosigned)


def _own_cosigned(where: str, witness: str, key: str, *rest: Any) -> Cosigned:
    return Cosigned(where, witness, key, "", *rest)


def _read_bundle(path: Path) -> Found:
    bundle = json_file(path, "coterie-ledger-v1")
    try:
        entries = [Link(*entry) for entry in bundle.pop("entries")]
        only(bundle, _BUNDLE)
        names = ("witness", "node_key", "size", "root", "time", "signature")
        for each in bundle["cosignatures"]:
            only(each, set(names))
        cosigned = [_own_cosigned("the bundle", *(c[n] for n in names))
                    for c in bundle["cosignatures"]]  # fmt: skip
        whole(bundle["size"])
    except UNREADABLE as error:
        raise Bad(f"the bundle can't be read ({type(error).__name__}: {error})", None) from None
    return Found(entries, {}, cosigned, bundle)


def json_file(path: Path, format_: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}")
    try:
        said = json.loads(
            path.read_text(), object_pairs_hook=unique_keys, parse_constant=no_constant
        )
        if said["format"] != format_:
            raise ValueError(f"its format is {said['format']!r}, expected {format_!r}")
    except UNREADABLE as error:
        raise Bad(f"{path} can't be read ({type(error).__name__}: {error})", None) from None
    return dict(said)


def only(
    said: Mapping[str, Any], needed: AbstractSet[str], more: AbstractSet[str] = frozenset()
) -> None:
    """Raises ValueError unless it says exactly this, and perhaps `more`."""
    odd = sorted((needed - set(said)) | (set(said) - needed - more))
    if odd:
        raise ValueError(f"it lacks or adds {odd}")
