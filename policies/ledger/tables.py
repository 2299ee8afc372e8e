"""The ledger's tables: the chain, which is the truth, indexes that follow from it, and heads.

The migrations in `policies/ledger/migrations` make these tables on SQLite and Postgres. The models
say what is in them; statements are written over the tables (`ENTRIES`, `PLANS` ...) and built once,
since making an object of each row and watching it took most of a release's processor time.
"""

from typing import Any

import sqlalchemy
from sqlmodel import Field, SQLModel

Row = Any
"""A row of one of these tables, or of some of their columns, by their names."""


class LedgerEntry(SQLModel, table=True):
    """One link of the chain: the source of truth."""

    index: int = Field(primary_key=True)
    previous: str
    kind: str
    body: str
    hash: str
    signature: str


class LedgerHead(SQLModel, table=True):
    """The last entry, in one row: what the next one is chained to."""

    id: int = Field(primary_key=True)
    index: int
    hash: str


class LedgerMention(SQLModel, table=True):
    """What each entry is about and when it was written, so that auditors find it.

    `about`: the hash of the plan, else the name of the population, that the entry names.
    """

    index: int = Field(primary_key=True)
    kind: str = Field(index=True)
    about: str = Field(index=True)
    time: str


class LedgerBudget(SQLModel, table=True):
    """The cap in force for each population."""

    population: str = Field(primary_key=True)
    epsilon: float
    delta: float
    public: bool


class LedgerPlan(SQLModel, table=True):
    """Where each plan stands."""

    plan_hash: str = Field(primary_key=True)
    name: str
    scientist: str
    population: str = Field(index=True)
    status: str
    events: str
    spare_attempts: int
    summary: str
    submitted: str
    decided: str
    decided_by: str
    reason: str


class LedgerAttempt(SQLModel, table=True):
    """Every attempt at every release.

    `repeat`: an earlier attempt of it was charged. `inputs`: hash of the masked inputs that were
    agreed to be opened with this domain's; empty before. `reserved`: when it was set aside.
    """

    plan_hash: str = Field(primary_key=True)
    step: str = Field(primary_key=True)
    release: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    population: str
    state: str
    noise_multiplier: float
    sampling_rate: float
    repeat: bool
    share: str
    inputs: str
    reserved: str


class LedgerUse(SQLModel, table=True):
    """How many attempts of a plan, by one mechanism, are reserved or charged."""

    population: str = Field(primary_key=True)
    plan_hash: str = Field(primary_key=True)
    noise_multiplier: float = Field(primary_key=True)
    sampling_rate: float = Field(primary_key=True)
    repeat: bool = Field(primary_key=True)
    count: int


class LedgerPeerHead(SQLModel, table=True):
    """A head that a peer showed and that we co-signed. `covered`: a later one contains it."""

    node_key: str = Field(primary_key=True)
    size: int = Field(primary_key=True)
    domain: str
    root: str
    signature: str
    time: str
    cosignature: str
    covered: bool


class LedgerCosignature(SQLModel, table=True):
    """A peer's signature under a head of ours."""

    size: int = Field(primary_key=True)
    node_key: str = Field(primary_key=True)
    witness: str
    root: str
    time: str
    signature: str


def _table(model: type[SQLModel]) -> sqlalchemy.Table:
    return SQLModel.metadata.tables[str(model.__tablename__)]


ENTRIES = _table(LedgerEntry)
HEAD = _table(LedgerHead)
MENTIONS = _table(LedgerMention)
BUDGETS = _table(LedgerBudget)
PLANS = _table(LedgerPlan)
ATTEMPTS = _table(LedgerAttempt)
USES = _table(LedgerUse)
PEER_HEADS = _table(LedgerPeerHead)
COSIGNATURES = _table(LedgerCosignature)
TABLES = [ENTRIES, HEAD, MENTIONS, BUDGETS, PLANS, ATTEMPTS, USES, PEER_HEADS, COSIGNATURES]


def row_of(table: sqlalchemy.Table) -> sqlalchemy.Select[Any]:
    """The row with a given key: each column of the key is a parameter of its own name."""
    keys = (column == sqlalchemy.bindparam(column.name) for column in table.primary_key)
    return sqlalchemy.select(table).where(*keys)


def change_of(table: sqlalchemy.Table) -> sqlalchemy.Update:
    """Sets what is given by name in the row whose key is given as `at_` and each column's name."""
    keys = (column == sqlalchemy.bindparam(f"at_{column.name}") for column in table.primary_key)
    return sqlalchemy.update(table).where(*keys)
