"""Reading a ledger (SQLite file, database, bundle, entries) and the heads that its peers kept."""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.verify.evidence import (
    UNREADABLE,
    Bad,
    Cosigned,
    EntryLike,
    Link,
    head_words,
    is_signed,
    no_constant,
    unique_keys,
    whole,
)

Row = tuple[Any, ...]
Tables = dict[str, list[Row]]
_QUERIES = {
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
    " FROM ledgeruse WHERE count <> 0",
    "ledgerpeerhead": "SELECT node_key, size, domain, root, signature, time, cosignature"
    " FROM ledgerpeerhead",
    "ledgercosignature": "SELECT witness, node_key, size, root, time, signature"
    " FROM ledgercosignature",
}
GUARDS = {
    f"{table}_no_{change[:6].lower()}": f"CREATE TRIGGER {table}_no_{change[:6].lower()} BEFORE"
    f" {change} ON {table} BEGIN SELECT RAISE(ABORT, '{table} only grows'); END"
    for table, change in (
        ("ledgerentry", "UPDATE"),
        ("ledgerentry", "DELETE"),
        ("ledgercosignature", "UPDATE"),
        ("ledgercosignature", "DELETE"),
        ("ledgerpeerhead", "UPDATE OF node_key, size, domain, root, signature, time, cosignature"),
        ("ledgerpeerhead", "DELETE"),
    )
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
    guards = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    views = "SELECT count(*) FROM sqlite_master WHERE type = 'view'"
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            # One transaction, so that a node writing meanwhile can't show us two moments.
            connection.execute("BEGIN")
            if connection.execute(views).fetchone() != (0,):
                raise Bad("it has a view: a table may have been put behind another", None)
            queries = {**_QUERIES, "guards": guards}
            return {table: connection.execute(query).fetchall() for table, query in queries.items()}
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
        names = ("witness", "node_key", "size", "root", "time", "signature")
        cosigned = [_own_cosigned("the bundle", *(c[n] for n in names))
                    for c in bundle["cosignatures"]]  # fmt: skip
        whole(bundle["size"])
    except UNREADABLE as error:
        raise Bad(f"the bundle can't be read ({type(error).__name__}: {error})", None) from None
    return Found(entries, {}, cosigned, bundle)


def _read_heads(path: Path) -> list[Cosigned]:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"There are no peers' heads at {path}")
    return [
        each for file in files for each in heads_in(str(file), json_file(file, "coterie-heads-v1"))
    ]


def read_witnessed(heads: str | Path | Sequence[Mapping[str, Any]] | None) -> list[Cosigned]:
    if heads is None:
        return []
    if isinstance(heads, str | Path):
        return _read_heads(Path(heads))
    return [each for said in heads for each in heads_in("a peer's heads", said)]


def heads_in(where: str, said: Mapping[str, Any]) -> Iterator[Cosigned]:
    try:
        for head in said["heads"]:
            names = ("node_key", "size", "root", "time", "cosignature")
            found = Cosigned(
                where, said["witness"], said["witness_key"], **{n: head[n] for n in names}
            )
            if not is_signed(found.node_key, head["signature"],
                           head_words(head["domain"], found.size, found.root)):  # fmt: skip
                raise Bad(f"{where}: a head of {head['domain']} isn't signed by its node", None)
            yield found
    except UNREADABLE as error:
        raise Bad(f"{where} can't be read ({type(error).__name__}: {error})", None) from None


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
