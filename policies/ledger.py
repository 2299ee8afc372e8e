"""What a domain's population has paid, and for what: append-only, hash-chained, signed.

Every decision and every charge is one entry. An entry carries the hash of the one before it and the
node's signature, so that a change anywhere shows (`policies.verify` replays it without this code).
Nothing leaves a node before its entry is on the disk: `reserve` before anything random is drawn,
`charge` before a share is sent. What a crash leaves undecided stays reserved, which counts as
spent. The other tables are indexes over the chain, changed in the same transaction.
"""

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, NoReturn

import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Field, Index, Session, SQLModel, col, create_engine, func, select

from policies.accounting import ADJACENCY, Event, RenyiFilter, merge
from policies.approvals import verify_approval
from policies.canonical import canonical, sha256_hex

GENESIS = "0" * 64
"""The hash that the first entry names as its predecessor."""

_WRITE_LOCK = 0x436F7465726965  # "Coterie": the Postgres advisory lock all writers take
_BUSY_SECONDS = 60

Mechanism = tuple[float, float]  # (noise multiplier, sampling rate)


class LedgerError(Exception):
    """The ledger did not do what was asked, and changed nothing."""


class LedgerUnavailable(LedgerError):
    """The ledger can't be read or written (disk full, locked, damaged): nothing may leave."""


class NotApproved(LedgerError):
    """The plan isn't approved here, or the release isn't one of those approved."""


class AlreadyReleased(LedgerError):
    """This attempt exists already; a release is repeated only under a new attempt number."""


class AttemptOpen(AlreadyReleased):
    """An earlier attempt of this release is neither charged nor void yet."""


class AttemptsExhausted(LedgerError):
    """The plan's spare attempts are used up."""


class NotReserved(LedgerError):
    """There is no open reservation to charge or to void."""


class WrongStatus(LedgerError):
    """The decision doesn't fit the plan's status."""


class UnknownPopulation(LedgerError):
    """No budget was opened for this population."""


class BadSignature(LedgerError):
    """The owner's signature doesn't verify for this plan and this domain."""


class BudgetExceeded(LedgerError):
    """The population's budget has no room for what was asked.

    Attributes:
        requested: epsilon by which the budget's use would grow.
        remaining: epsilon that is left.
        short_by: the difference.
        delta: the budget's delta.
    """

    def __init__(self, population: str, requested: float, remaining: float, delta: float):
        self.requested, self.remaining, self.delta = requested, remaining, delta
        self.short_by = requested - remaining
        up = _round(requested, ROUND_CEILING)
        down = _round(remaining, ROUND_FLOOR)
        short = "infinite" if math.isinf(self.short_by) else f"{Decimal(up) - Decimal(down)}"
        super().__init__(
            f"The budget of population {population!r} has no room for this.\n"
            f"Requested  epsilon {up}\n"
            f"Remaining  epsilon {down}\n"
            f"Short by   epsilon {short}\n"
            f"All at delta {delta:g}; unit: {ADJACENCY}.\n"
            "Ask for fewer releases or more noise, or have the owner raise the budget."
        )


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
    """Every attempt at every release. `repeat`: an earlier attempt of it was charged."""

    __table_args__ = (
        Index(
            "ledgerattempt_spend",
            "population",
            "state",
            "plan_hash",
            "noise_multiplier",
            "sampling_rate",
            "repeat",
        ),
    )

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


_TABLES = [
    SQLModel.metadata.tables[str(model.__tablename__)]
    for model in (LedgerEntry, LedgerHead, LedgerBudget, LedgerPlan, LedgerAttempt)
]


@dataclass(frozen=True)
class Entry:
    """One entry of the chain.

    Attributes:
        index: 1 for the first.
        previous: hash of the entry before, 64 zeros for the first.
        kind: ledger, budget, submission, refusal, consent, approval, denial, reservation, charge,
            void or closure.
        body: canonical JSON (RFC 8785) with the time in UTC.
        hash: SHA-256 over purpose, index, previous, kind and body.
        signature: the node's Ed25519 signature of the hash, hex.
    """

    index: int
    previous: str
    kind: str
    body: str
    hash: str
    signature: str


@dataclass(frozen=True)
class Budget:
    """A population's budget; every epsilon is the Renyi filter's, at `delta`, for `ADJACENCY`.

    Attributes:
        population: whose budget it is.
        epsilon: the owner's cap.
        delta: the probability the guarantee excepts.
        public: declared public by the owner: recorded, but not limited.
        spent: epsilon of all that was charged or is reserved.
        held: epsilon once every open, approved plan has used all it may.
        remaining: cap less held; infinite if public, negative if the cap was lowered below held.
        releases: number of attempts charged or reserved.
    """

    population: str
    epsilon: float
    delta: float
    public: bool
    spent: float
    held: float
    remaining: float
    releases: int


@dataclass(frozen=True)
class PlanRecord:
    """A plan as the ledger knows it; times are ISO 8601 UTC, empty before the decision.

    A plan refused before it was submitted has no name, scientist, population or events.
    """

    plan_hash: str
    name: str
    scientist: str
    population: str
    status: str
    events: tuple[Event, ...]
    spare_attempts: int
    summary: Mapping[str, Any]
    submitted: str
    decided: str
    decided_by: str
    reason: str


class Ledger:
    """One domain's ledger, in SQLite or Postgres; safe for many threads and processes.

    Every method is one transaction: it happens whole and durably, or raises and changes nothing.
    All raise `LedgerUnavailable` when the database can't be read or written.
    """

    def __init__(self, url: str, domain: str, signing_key: Ed25519PrivateKey):
        """Open the ledger at an SQLAlchemy `url`, making it if there is none.

        Raises:
            LedgerError: the ledger there belongs to another domain or key, or its head doesn't fit.
        """
        self.domain = domain
        self._key = signing_key
        self._read, self._write = _engines(url)
        with self._writing(create=True) as session:
            if session.get(LedgerHead, 1) is None:
                session.add(LedgerHead(id=1, index=0, hash=GENESIS))
                self._append(session, "ledger", domain=domain, node_key=self._key_hex())
            self._check_ours(session)

    def open_budget(
        self, population: str, epsilon: float, delta: float, public: bool = False
    ) -> None:
        """Set the cap of a population. The same cap again does nothing; what was spent stays spent.

        Raises:
            ValueError: epsilon isn't positive and finite, or delta not between 0 and 1.
        """
        if not population or not 0 < epsilon < math.inf or not 0 < delta < 1:
            raise ValueError(
                f"A budget needs a population, a finite epsilon above 0 and a delta in (0, 1);"
                f" got {population!r}, {epsilon}, {delta}"
            )
        with self._writing() as session:
            new = LedgerBudget(population=population, epsilon=epsilon, delta=delta, public=public)
            old = session.get(LedgerBudget, population)
            if old is not None and old.model_dump() == new.model_dump():
                return
            session.merge(new)
            self._append(session, "budget", **new.model_dump())

    def submit(
        self,
        plan_hash: str,
        name: str,
        scientist: str,
        population: str,
        events: Sequence[Event],
        summary: Mapping[str, Any],
        spare_attempts: int = 0,
    ) -> None:
        """Record a plan as pending. `events` hold all it may release, spare attempts included.

        Submitting an open plan again does nothing; one that was refused may be submitted again.

        Raises:
            UnknownPopulation: no budget was opened for the population.
            WrongStatus: the plan was denied or closed.
            ValueError: no events, no 64-digit hash, or as many spare attempts as events.
        """
        _check_hash(plan_hash)
        total = sum(event.count for event in events)
        if not 0 <= spare_attempts < total:
            raise ValueError(
                f"The plan has {total} releases and spare attempts together, of which"
                f" {spare_attempts} spare; expected at least one release"
            )
        facts = {"name": name, "scientist": scientist, "population": population}
        listed = [_event_json(event) for event in merge(events)]
        with self._writing() as session:
            if session.get(LedgerBudget, population) is None:
                raise _unknown(population)
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and plan.status in ("pending", "awaiting signature", "approved"):
                return
            if plan is not None:
                _require(plan, plan_hash, "refused")
            time = self._append(
                session,
                "submission",
                plan=plan_hash,
                events=listed,
                spare_attempts=spare_attempts,
                summary=dict(summary),
                **facts,
            )
            session.merge(
                _plan_row(
                    plan_hash,
                    "pending",
                    submitted=time,
                    events=json.dumps(listed),
                    spare_attempts=spare_attempts,
                    summary=canonical(dict(summary)).decode(),
                    **facts,
                )
            )

    def refuse(self, plan_hash: str, rule: str, reason: str) -> None:
        """Record that a rule refused the plan, submitted or not."""
        _check_hash(plan_hash)
        text = f"{rule}: {reason}"
        with self._writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and (plan.status, plan.reason) == ("refused", text):
                return
            if plan is None:
                plan = _plan_row(plan_hash, "refused")
            _require(plan, plan_hash, "pending", "awaiting signature", "refused")
            time = self._append(session, "refusal", plan=plan_hash, rule=rule, reason=reason)
            _decide(session, plan, "refused", time, by="", reason=text)

    def consent(self, plan_hash: str, decided_by: str) -> None:
        """Record a yes that lacks the owner's signature: nothing runs on it."""
        with self._writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and plan.status == "awaiting signature":
                return
            plan = _require(plan, plan_hash, "pending")
            time = self._append(session, "consent", plan=plan_hash, by=decided_by)
            _decide(session, plan, "awaiting signature", time, decided_by, "")

    def approve(
        self,
        plan_hash: str,
        decided_by: str,
        owner_key_hex: str,
        signature_hex: str,
        explanation_sha256: str,
        reason: str = "",
    ) -> None:
        """Approve under the owner's signature, holding the plan's whole cost from now on.

        `explanation_sha256` is the hash of what the owner was shown.

        Raises:
            BadSignature: the signature isn't the owner's for this plan and domain.
            BudgetExceeded: it doesn't fit beside what is spent and held.
            WrongStatus: the plan isn't pending or awaiting its signature.
        """
        if not verify_approval(owner_key_hex, plan_hash, self.domain, signature_hex):
            raise BadSignature(
                f"The signature isn't {owner_key_hex[:16]}'s for plan {plan_hash[:16]} at"
                f" {self.domain!r}. Sign this plan's hash with the owner's own key"
            )
        with self._writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and plan.status == "approved":
                return
            plan = _require(plan, plan_hash, "pending", "awaiting signature")
            self._check_room(session, plan.population, _events(plan.events))
            time = self._append(
                session,
                "approval",
                plan=plan_hash,
                by=decided_by,
                owner_key=owner_key_hex,
                signature=signature_hex,
                explanation=explanation_sha256,
                reason=reason,
            )
            _decide(session, plan, "approved", time, decided_by, reason)

    def deny(self, plan_hash: str, decided_by: str, reason: str) -> None:
        """Say no for good, with a reason the scientist will read.

        Raises:
            WrongStatus: the plan is not open, or approved already (`close` it instead).
        """
        with self._writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and plan.status == "denied":
                return
            plan = _require(plan, plan_hash, "pending", "awaiting signature")
            time = self._append(session, "denial", plan=plan_hash, by=decided_by, reason=reason)
            _decide(session, plan, "denied", time, decided_by, reason)

    def reserve(self, plan_hash: str, step: str, release: int, attempt: int, event: Event) -> None:
        """Set aside the cost of one attempt, durably, before anything private is computed.

        Attempt numbers of a release only grow; numbers may be left out.

        Raises:
            NotApproved: the plan isn't approved, or this release isn't among those it listed.
            AlreadyReleased: this attempt or a later one was reserved before.
            AttemptOpen: an earlier attempt is still to be charged or voided.
            AttemptsExhausted: no spare attempt is left.
            BudgetExceeded: the budget has no room left, because its cap was lowered.
        """
        if event.count != 1 or release < 0 or attempt < 0:
            raise ValueError("One attempt is one event with count 1; numbers start at 0")
        with self._writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is None or plan.status != "approved":
                raise NotApproved(
                    f"Plan {plan_hash[:16]} is {plan.status if plan else 'unknown'} at"
                    f" {self.domain!r}; only an approved plan may release"
                )
            repeat = _check_attempt(session, plan, step, release, attempt, event)
            held = _held(session, plan.population)
            session.add(
                LedgerAttempt(
                    plan_hash=plan_hash,
                    step=step,
                    release=release,
                    attempt=attempt,
                    population=plan.population,
                    state="reserved",
                    noise_multiplier=event.noise_multiplier,
                    sampling_rate=event.sampling_rate,
                    repeat=repeat,
                    share="",
                )
            )
            session.flush()
            _check_still_within(session, plan.population, event, held)
            self._append(
                session,
                "reservation",
                plan=plan_hash,
                step=step,
                release=release,
                attempt=attempt,
                event=_event_json(event),
            )

    def charge(
        self, plan_hash: str, step: str, release: int, attempt: int, share_sha256: str
    ) -> None:
        """Turn the reservation into a charge, durably, before this very share may be sent.

        Raises:
            NotReserved: there is no such reservation, or it was voided.
            AlreadyReleased: it was charged for another share.
        """
        _check_hash(share_sha256)
        with self._writing() as session:
            row = session.get(LedgerAttempt, (plan_hash, step, release, attempt))
            if row is not None and row.state == "charged":
                if row.share == share_sha256:
                    return
                raise AlreadyReleased(
                    f"Attempt {attempt} of {step}/{release} was charged for another share;"
                    " one attempt sends one share. Start a new attempt"
                )
            row = _open_reservation(row, step, release, attempt)
            row.state, row.share = "charged", share_sha256
            self._append(session, "charge", share=share_sha256, **_attempt_json(row))

    def void(self, plan_hash: str, step: str, release: int, attempt: int, reason: str) -> None:
        """Give a reservation back: its share provably never left.

        Raises:
            NotReserved: there is no such reservation, or it was charged.
        """
        with self._writing() as session:
            row = session.get(LedgerAttempt, (plan_hash, step, release, attempt))
            if row is not None and row.state == "void":
                return
            self._void(session, _open_reservation(row, step, release, attempt), reason)

    def close(self, plan_hash: str, reason: str) -> None:
        """End the plan: what it held and never charged goes back; open reservations are voided.

        Raises:
            WrongStatus: the plan is unknown, denied or refused.
        """
        with self._writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and plan.status == "closed":
                return
            plan = _require(plan, plan_hash, "pending", "awaiting signature", "approved")
            for row in session.exec(
                select(LedgerAttempt).where(
                    LedgerAttempt.plan_hash == plan_hash, LedgerAttempt.state == "reserved"
                )
            ).all():
                self._void(session, row, "plan closed")
            time = self._append(session, "closure", plan=plan_hash, reason=reason)
            _decide(session, plan, "closed", time, plan.decided_by, reason)

    def status(self, plan_hash: str) -> str:
        """unknown, pending, awaiting signature, approved, denied, refused or closed."""
        with self._reading() as session:
            plan = session.get(LedgerPlan, plan_hash)
            return "unknown" if plan is None else plan.status

    def attempts(self, plan_hash: str) -> list[tuple[str, int, int, str]]:
        """(step, release, attempt, state) of the plan; state is reserved, charged or void."""
        columns = (LedgerAttempt.step, LedgerAttempt.release, LedgerAttempt.attempt)
        with self._reading() as session:
            rows = session.exec(
                select(LedgerAttempt)
                .where(LedgerAttempt.plan_hash == plan_hash)
                .order_by(*map(col, columns))
            ).all()
            return [(row.step, row.release, row.attempt, row.state) for row in rows]

    def budget(self, population: str) -> Budget:
        """The population's cap, and what is spent and held of it.

        Raises:
            UnknownPopulation: no budget was opened for it.
        """
        with self._reading() as session:
            return _budget(session, population)

    def require_room(self, population: str, events: Sequence[Event]) -> None:
        """Nothing, if these events fit beside what is spent and held.

        Raises:
            BudgetExceeded: they don't.
            UnknownPopulation: no budget was opened for the population.
        """
        with self._reading() as session:
            self._check_room(session, population, events)

    def budgets(self) -> list[Budget]:
        """The budgets of all populations, by name."""
        with self._reading() as session:
            names = session.exec(select(LedgerBudget.population)).all()
            return [_budget(session, name) for name in sorted(names)]

    def entries(self, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Entries with an index above `after`, in order, at most `limit`."""
        query = select(LedgerEntry).where(LedgerEntry.index > after)
        with self._reading() as session:
            rows = session.exec(query.order_by(col(LedgerEntry.index)).limit(limit)).all()
            return [Entry(**row.model_dump()) for row in rows]

    def head(self) -> tuple[int, str]:
        """(index, hash) of the last entry."""
        with self._reading() as session:
            head = session.get_one(LedgerHead, 1)
            return head.index, head.hash

    def plans(self) -> list[PlanRecord]:
        """Every plan ever submitted or refused, oldest first."""
        with self._reading() as session:
            rows = session.exec(
                select(LedgerPlan).order_by(col(LedgerPlan.submitted), col(LedgerPlan.plan_hash))
            ).all()
            return [_record(row) for row in rows]

    def dispose(self) -> None:
        """Close the database connections. The ledger opens new ones when used again."""
        self._write.dispose()

    def _append(self, session: Session, kind: str, **body: Any) -> str:
        head = session.get_one(LedgerHead, 1)
        time = datetime.now(UTC).isoformat(timespec="seconds")
        text = canonical({"time": time, **body}).decode()
        digest = _entry_hash(head.index + 1, head.hash, kind, text)
        session.add(
            LedgerEntry(
                index=head.index + 1,
                previous=head.hash,
                kind=kind,
                body=text,
                hash=digest,
                signature=self._key.sign(f"coterie-ledger-v1:{digest}".encode()).hex(),
            )
        )
        head.index, head.hash = head.index + 1, digest
        session.flush()
        return time

    def _void(self, session: Session, row: LedgerAttempt, reason: str) -> None:
        row.state = "void"
        self._append(session, "void", reason=reason, **_attempt_json(row))

    def _check_room(self, session: Session, population: str, events: Sequence[Event]) -> None:
        budget = session.get(LedgerBudget, population)
        if budget is None:
            raise _unknown(population)
        if budget.public:
            return
        held = _held(session, population)
        before = RenyiFilter(budget.delta).epsilon(held)
        after = RenyiFilter(budget.delta).epsilon([*held, *events])
        if after > budget.epsilon:
            # inf - inf has no meaning; an infinite request stays infinite.
            requested = after - before if math.isfinite(after) else math.inf
            raise BudgetExceeded(population, requested, budget.epsilon - before, budget.delta)

    def _check_ours(self, session: Session) -> None:
        first = json.loads(session.get_one(LedgerEntry, 1).body)
        if (first["domain"], first["node_key"]) != (self.domain, self._key_hex()):
            raise LedgerError(
                f"This ledger belongs to domain {first['domain']!r} with node key"
                f" {first['node_key'][:16]}, not to {self.domain!r} with {self._key_hex()[:16]}."
                " Open it with its own key, or choose another file"
            )
        head = session.get_one(LedgerHead, 1)
        last = session.exec(
            select(LedgerEntry).order_by(col(LedgerEntry.index).desc()).limit(1)
        ).one()
        if (last.index, last.hash) != (head.index, head.hash):
            raise LedgerError(
                f"The ledger's last entry is {last.index}, its head says {head.index}: it was"
                " changed from outside. Run `coterie ledger verify` before using it"
            )

    def _key_hex(self) -> str:
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @contextmanager
    def _writing(self, create: bool = False) -> Iterator[Session]:
        try:
            with self._write.begin() as connection:
                if create:
                    SQLModel.metadata.create_all(connection, tables=_TABLES)
                with Session(bind=connection) as session:
                    yield session
                    session.flush()
        except (SQLAlchemyError, sqlite3.Error) as error:
            _unavailable(error)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        try:
            with Session(self._read) as session:
                yield session
        except (SQLAlchemyError, sqlite3.Error) as error:
            _unavailable(error)


def _engines(url: str) -> tuple[sqlalchemy.Engine, sqlalchemy.Engine]:
    """One engine for snapshots and one whose transactions exclude every other writer."""
    if sqlalchemy.make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
        sqlalchemy.event.listen(engine, "connect", _prepare_sqlite)
        sqlalchemy.event.listen(engine, "begin", _begin_sqlite)
        return engine, engine.execution_options(writing=True)
    engine = create_engine(url)
    sqlalchemy.event.listen(engine, "begin", _begin_postgres)
    snapshots = engine.execution_options(isolation_level="REPEATABLE READ")
    return snapshots, engine.execution_options(writing=True)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the driver would say it too late
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous=FULL")  # a commit that returned survives a power cut


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # Where several processes make the same new file, SQLite refuses to switch instead of waiting;
    # it does wait for a transaction, so take turns with an empty one.
    for _ in range(20):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
    connection.execute("PRAGMA journal_mode=WAL")


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _begin_postgres(connection: sqlalchemy.Connection) -> None:
    if connection.get_execution_options().get("writing"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")


def _unavailable(error: Exception) -> NoReturn:
    # Not the whole text of SQLAlchemy's error: that repeats the statement and its values.
    cause = getattr(error, "orig", None) or type(error).__name__
    raise LedgerUnavailable(
        f"The ledger can't be used ({cause}). Nothing was recorded and nothing may leave the node."
        " Make room or restore access to its file, then try again"
    ) from error


def _entry_hash(index: int, previous: str, kind: str, body: str) -> str:
    # One field a line; only the last, the body, may hold any text, and it holds no line break.
    return sha256_hex(f"coterie-ledger-entry-v1\n{index}\n{previous}\n{kind}\n{body}".encode())


def _check_attempt(
    session: Session, plan: LedgerPlan, step: str, release: int, attempt: int, event: Event
) -> bool:
    """Whether the attempt repeats a charged one; raises unless the plan still allows it."""
    name = f"{step}/{release}"
    states = dict(
        session.exec(
            select(LedgerAttempt.attempt, LedgerAttempt.state).where(
                LedgerAttempt.plan_hash == plan.plan_hash,
                LedgerAttempt.step == step,
                LedgerAttempt.release == release,
            )
        ).all()
    )
    latest = max(states, default=-1)
    if attempt <= latest:
        raise AlreadyReleased(
            f"Attempt {latest} of {name} exists already; the next one is {latest + 1}"
        )
    if states.get(latest) == "reserved":
        raise AttemptOpen(f"Attempt {latest} of {name} is open: charge or void it first")
    used = [use for use in _used(session, plan.population) if use.plan == plan.plan_hash]
    repeat = "charged" in states.values()
    _check_left(plan, used, name, event, repeat)
    return repeat


def _check_left(
    plan: LedgerPlan, used: Sequence["_Use"], name: str, event: Event, repeat: bool
) -> None:
    allowed = _counts(_events(plan.events))
    mechanism = event.noise_multiplier, event.sampling_rate
    if repeat and sum(use.count for use in used if use.repeat) >= plan.spare_attempts:
        raise AttemptsExhausted(
            f"{name} was charged once, and the plan's {plan.spare_attempts} spare attempts are"
            " used up. Submit a new plan for what is left to release"
        )
    firsts = [use for use in used if not use.repeat]
    taken = sum(use.count for use in firsts if use.mechanism == mechanism)
    releases = sum(use.count for use in firsts)
    if mechanism not in allowed or (
        not repeat
        and (taken >= allowed[mechanism] or releases >= allowed.total() - plan.spare_attempts)
    ):
        raise NotApproved(
            f"Release {name} with noise multiplier {event.noise_multiplier:g} at sampling rate"
            f" {event.sampling_rate:g} isn't among the releases that were approved and are left"
        )


def _check_still_within(
    session: Session, population: str, event: Event, held_before: Sequence[Event]
) -> None:
    """Refuses if spending passes the cap, or other plans' approved releases no longer fit."""
    budget = session.get_one(LedgerBudget, population)
    if budget.public:
        return
    epsilon = RenyiFilter(budget.delta).epsilon
    spent = epsilon(_spent(session, population))
    held, before = epsilon(_held(session, population)), epsilon(held_before)
    if spent > budget.epsilon or before < held > budget.epsilon:
        requested = epsilon([event])
        over = max(spent, held if held > before else 0.0) - budget.epsilon
        raise BudgetExceeded(population, requested, requested - over, budget.delta)


def _budget(session: Session, population: str) -> Budget:
    row = session.get(LedgerBudget, population)
    if row is None:
        raise _unknown(population)
    epsilon = RenyiFilter(row.delta).epsilon
    spent = _spent(session, population)
    held = epsilon(_held(session, population))
    return Budget(
        population=population,
        epsilon=row.epsilon,
        delta=row.delta,
        public=row.public,
        spent=epsilon(spent),
        held=held,
        remaining=math.inf if row.public else row.epsilon - held,
        releases=sum(event.count for event in spent),
    )


@dataclass(frozen=True)
class _Use:
    """Attempts of one plan, by one mechanism, that are reserved or charged."""

    plan: str
    mechanism: Mechanism
    repeat: bool
    count: int


def _used(session: Session, population: str) -> list[_Use]:
    columns = (
        col(LedgerAttempt.plan_hash),
        col(LedgerAttempt.noise_multiplier),
        col(LedgerAttempt.sampling_rate),
        col(LedgerAttempt.repeat),
    )
    query = (
        sqlalchemy.select(*columns, func.count())
        .where(
            col(LedgerAttempt.population) == population,
            col(LedgerAttempt.state).in_(("reserved", "charged")),
        )
        .group_by(*columns)
    )
    return [
        _Use(plan, (z, q), repeat, count)
        for plan, z, q, repeat, count in session.connection().execute(query)
    ]


def _spent(session: Session, population: str) -> list[Event]:
    """Everything charged or reserved."""
    return [Event(*use.mechanism, use.count) for use in _used(session, population)]


def _held(session: Session, population: str) -> list[Event]:
    """`_spent`, and what open approved plans may still release."""
    used = _used(session, population)
    events = [Event(*use.mechanism, use.count) for use in used]
    plans = session.exec(
        select(LedgerPlan).where(
            LedgerPlan.population == population, LedgerPlan.status == "approved"
        )
    )
    for plan in plans.all():
        mine = [use for use in used if use.plan == plan.plan_hash]
        events += _outstanding(_events(plan.events), mine)
    return list(merge(events))


def _outstanding(events: Iterable[Event], used: Iterable[_Use]) -> list[Event]:
    """What is left of a plan: each first attempt used up one release of its own mechanism, each
    repetition one spare, which the plan lists at its costliest mechanism."""
    left = _counts(events)
    repeats = 0
    for use in used:
        if use.repeat:
            repeats += use.count
        else:
            left[use.mechanism] -= use.count
    for mechanism in sorted(left, key=lambda pair: pair[0] / pair[1]):
        taken = min(repeats, left[mechanism])
        left[mechanism] -= taken
        repeats -= taken
    return [Event(*mechanism, count) for mechanism, count in left.items() if count > 0]


def _decide(
    session: Session, plan: LedgerPlan, status: str, time: str, by: str, reason: str
) -> None:
    plan.status, plan.decided, plan.decided_by, plan.reason = status, time, by, reason
    plan.submitted = plan.submitted or time
    session.add(plan)


def _require(plan: LedgerPlan | None, plan_hash: str, *statuses: str) -> LedgerPlan:
    """The plan, if it is known and its status is one of `statuses`."""
    if plan is None or plan.status not in statuses:
        status = "unknown" if plan is None else plan.status
        why = f": {plan.reason}" if plan is not None and plan.reason else ""
        raise WrongStatus(
            f"Plan {plan_hash[:16]} is {status}{why}. Expected {' or '.join(statuses)}"
        )
    return plan


def _open_reservation(
    row: LedgerAttempt | None, step: str, release: int, attempt: int
) -> LedgerAttempt:
    if row is None or row.state != "reserved":
        state = "not reserved" if row is None else row.state
        raise NotReserved(
            f"Attempt {attempt} of {step}/{release} is {state}; expected an open reservation"
        )
    return row


def _plan_row(plan_hash: str, status: str, **known: Any) -> LedgerPlan:
    empty: dict[str, Any] = dict.fromkeys(LedgerPlan.model_fields, "")
    empty |= {"events": "[]", "summary": "{}", "spare_attempts": 0}
    return LedgerPlan(**(empty | {"plan_hash": plan_hash, "status": status} | known))


def _record(row: LedgerPlan) -> PlanRecord:
    facts = row.model_dump()
    facts["events"] = tuple(_events(row.events))
    facts["summary"] = json.loads(row.summary)
    return PlanRecord(**facts)


def _events(text: str) -> list[Event]:
    return [
        Event(float(item["noise_multiplier"]), float(item["sampling_rate"]), item["count"])
        for item in json.loads(text)
    ]


def _event_json(event: Event) -> dict[str, Any]:
    return {
        "noise_multiplier": event.noise_multiplier,
        "sampling_rate": event.sampling_rate,
        "count": event.count,
    }


def _attempt_json(row: LedgerAttempt) -> dict[str, Any]:
    return {
        "plan": row.plan_hash,
        "step": row.step,
        "release": row.release,
        "attempt": row.attempt,
    }


def _counts(events: Iterable[Event]) -> Counter[Mechanism]:
    counts: Counter[Mechanism] = Counter()
    for event in events:
        counts[event.noise_multiplier, event.sampling_rate] += event.count
    return counts


def _unknown(population: str) -> UnknownPopulation:
    return UnknownPopulation(
        f"No budget is open for population {population!r}. The owner opens it with the data set"
    )


def _check_hash(text: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"A SHA-256 hash is 64 lower-case hex digits; got {text!r}")


def _round(value: float, rounding: str) -> str:
    if math.isinf(value):
        return "infinite" if value > 0 else "none"
    return str(Decimal(value).quantize(Decimal("0.001"), rounding))
