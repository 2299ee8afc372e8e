"""The ledger's tables: the chain, which is the truth, indexes that follow from it, and heads.

The migrations in `policies/ledger/migrations` make these tables on SQLite and Postgres.
"""

from sqlmodel import Field, SQLModel


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


TABLES = [
    SQLModel.metadata.tables[str(model.__tablename__)]
    for model in (
        LedgerEntry,
        LedgerHead,
        LedgerMention,
        LedgerBudget,
        LedgerPlan,
        LedgerAttempt,
        LedgerUse,
        LedgerPeerHead,
        LedgerCosignature,
    )
]
