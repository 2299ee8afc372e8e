"""Statements as the ledger runs them: built once, then given to the driver's own cursor.

A release runs some sixty. Having each looked up, bound and its result described anew took more of
its processor time than the database did.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import NoResultFound

from policies.ledger.tables import Row

_Values = Mapping[str, Any]


class Statement:
    """One statement over the ledger's tables, for SQLite and Postgres alike.

    Every value it is run with is bound to the parameter or column of that name; a row is a named
    tuple of its columns.

    Args:
        clause: what SQLAlchemy writes it from.
    """

    def __init__(self, clause: sqlalchemy.ClauseElement) -> None:
        self._clause = clause
        self._ready: dict[tuple[str, ...], _Ready] = {}

    def run(self, connection: Connection, values: _Values) -> None:
        """Change what it changes."""
        self._executed(connection, values)

    def all(self, connection: Connection, values: _Values) -> list[Row]:
        """Its rows."""
        ready, cursor = self._executed(connection, values)
        return [ready.read(row) for row in cursor.fetchall()]

    def first(self, connection: Connection, values: _Values) -> Row | None:
        """Its first row, if there is one."""
        ready, cursor = self._executed(connection, values)
        row = cursor.fetchone()
        return None if row is None else ready.read(row)

    def one(self, connection: Connection, values: _Values) -> Row:
        """Its first row.

        Raises:
            NoResultFound: there is none.
        """
        row = self.first(connection, values)
        if row is None:
            raise NoResultFound("a row of the ledger is gone")
        return row

    def _executed(self, connection: Connection, values: _Values) -> tuple["_Ready", Any]:
        key = (connection.dialect.name, *values)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._ready[key] = _written(self._clause, connection.dialect, values)
        cursor = connection.connection.cursor()
        cursor.execute(ready.text, ready.bound(values))
        return ready, cursor


@dataclass(frozen=True)
class _Ready:
    """A statement in a database's own words.

    Attributes:
        bound: the driver's parameters from values by name; KeyError if one is missing.
        read: a row from what the driver gives.
    """

    text: str
    bound: Callable[[_Values], Any]
    read: Callable[[Any], Row]


def _written(clause: sqlalchemy.ClauseElement, dialect: Dialect, values: _Values) -> _Ready:
    columns: list[sqlalchemy.ColumnElement[Any]] = []
    given: list[str] | None = list(values)
    if isinstance(clause, sqlalchemy.Select):
        columns, given = list(clause.selected_columns), None
    compiled = clause.compile(dialect=dialect, column_keys=given)
    # A value that stands in the clause itself.
    fixed = {name: value for name, value in compiled.params.items() if value is not None}
    names = getattr(compiled, "positiontup", None)

    def in_order(said: _Values) -> tuple[Any, ...]:
        known = {**fixed, **said}
        return tuple(known[name] for name in names or ())

    def by_name(said: _Values) -> dict[str, Any]:
        known = {**fixed, **said}
        return {name: known[name] for name in compiled.params}

    row: Any = namedtuple("row", [c.name for c in columns], rename=True)  # type: ignore[misc]
    truths = [isinstance(column.type, sqlalchemy.Boolean) for column in columns]
    if dialect.name != "sqlite" or not any(truths):
        return _Ready(str(compiled), by_name if names is None else in_order, row._make)

    def read(found: Any) -> Row:
        # SQLite has no truth values: they are 0 and 1 there.
        return row._make(bool(f) if t else f for f, t in zip(found, truths, strict=True))

    return _Ready(str(compiled), by_name if names is None else in_order, read)
