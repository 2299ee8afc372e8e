"""The ledger as its node uses it: every decision and every release, one transaction each."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlmodel import Session, col, select

from policies.accounting import Event, RenyiFilter, merge
from policies.approvals import may_approve
from policies.canonical import canonical
from policies.ledger.amendments import Amendments
from policies.ledger.budgets import (
    Budget,
    add_use,
    check_room,
    event_json,
    filter_for,
    filter_of,
    partners_of,
    read_budget,
    read_events,
    require_unlike,
    use_budget,
)
from policies.ledger.chain import Chain, Entry, read_entry
from policies.ledger.commitments import Commitment, commitments_of
from policies.ledger.database import Database
from policies.ledger.errors import (
    AlreadyReleased,
    BadSignature,
    NotApproved,
    NotReserved,
    unknown_population,
)
from policies.ledger.export import bundle, proof
from policies.ledger.heads import Heads
from policies.ledger.overview import Overview
from policies.ledger.plans import PlanRecord, check_hash, decide, plan_row, record_of, require
from policies.ledger.releases import attempt_json, check_attempt, open_reservation
from policies.ledger.tables import (
    LedgerAttempt,
    LedgerBudget,
    LedgerEntry,
    LedgerHead,
    LedgerPlan,
)


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
        self._database = Database(url)
        self._chain = Chain(domain, signing_key)
        self.heads = Heads(self._database, self._chain)
        self.overview = Overview(self._database)
        self.amendments = Amendments(self._database, self._chain)
        with self._database.writing(create=True) as session:
            self._chain.begin(session)
            self._chain.check_ours(session)

    def open_budget(
        self, population: str, epsilon: float, delta: float, public: bool = False
    ) -> None:
        """Set the cap of a population. The same cap again does nothing; what was spent stays spent.

        The orders of its filter are chosen with the cap, and stay once anything was reserved.

        Raises:
            ValueError: epsilon isn't positive and finite, delta not between 0 and 1, or the
                population's name isn't printable ASCII (another letter may look the same) or
                differs from a known one only in case or spaces.
        """
        if not (population.isascii() and population.isprintable() and population):
            raise ValueError(f"A population is named in printable ASCII; got {population!r}")
        if not 0 < epsilon < math.inf or not 0 < delta < 1:
            raise ValueError(
                f"A budget needs a finite epsilon above 0 and a delta in (0, 1);"
                f" got {epsilon}, {delta} for {population!r}"
            )
        with self._database.writing() as session:
            new = LedgerBudget(population=population, epsilon=epsilon, delta=delta, public=public)
            old = session.get(LedgerBudget, population)
            if old is None:
                require_unlike(population, session.exec(select(LedgerBudget.population)).all())
            if old is not None and old.model_dump() == new.model_dump():
                return
            accountant = filter_for(session, population, epsilon, delta)
            session.merge(new)
            self._chain.append(
                session,
                "budget",
                orders=list(accountant.orders),
                shares=list(accountant.shares),
                **new.model_dump(),
            )

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
        check_hash(plan_hash)
        total = sum(event.count for event in events)
        if not 0 <= spare_attempts < total:
            raise ValueError(
                f"The plan has {total} releases and spare attempts together, of which"
                f" {spare_attempts} spare; expected at least one release"
            )
        facts = {"name": name, "scientist": scientist, "population": population}
        listed = [event_json(event) for event in merge(events)]
        with self._database.writing() as session:
            if session.get(LedgerBudget, population) is None:
                raise unknown_population(population)
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and plan.status in ("pending", "awaiting signature", "approved"):
                return
            if plan is not None:
                require(plan, plan_hash, "refused")
            entry = self._chain.append(
                session,
                "submission",
                plan=plan_hash,
                events=listed,
                spare_attempts=spare_attempts,
                summary=dict(summary),
                **facts,
            )
            session.merge(
                plan_row(
                    plan_hash,
                    "pending",
                    submitted=entry.time,
                    events=json.dumps(listed),
                    spare_attempts=spare_attempts,
                    summary=canonical(dict(summary)).decode(),
                    **facts,
                )
            )

    def refuse(self, plan_hash: str, rule: str, reason: str) -> None:
        """Record that a rule refused the plan, submitted or not."""
        check_hash(plan_hash)
        text = f"{rule}: {reason}"
        with self._database.writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and (plan.status, plan.reason) == ("refused", text):
                return
            if plan is None:
                plan = plan_row(plan_hash, "refused")
            require(plan, plan_hash, "pending", "awaiting signature", "refused")
            entry = self._chain.append(session, "refusal", plan=plan_hash, rule=rule, reason=reason)
            decide(session, plan, "refused", entry.time, by="", reason=text)

    def consent(self, plan_hash: str, decided_by: str) -> None:
        """Record a yes that lacks the owner's signature: nothing runs on it."""
        with self._database.writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and plan.status == "awaiting signature":
                return
            plan = require(plan, plan_hash, "pending")
            entry = self._chain.append(session, "consent", plan=plan_hash, by=decided_by)
            decide(session, plan, "awaiting signature", entry.time, decided_by, "")

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
        if not may_approve(owner_key_hex, plan_hash, self.domain, signature_hex):
            raise BadSignature(
                f"The signature isn't {owner_key_hex[:16]}'s for plan {plan_hash[:16]} at"
                f" {self.domain!r}. Sign this plan's hash with the owner's own key"
            )
        with self._database.writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            # The same decision again adds nothing; another one has come too late.
            same = ("approved", decided_by, reason)
            if plan is not None and (plan.status, plan.decided_by, plan.reason) == same:
                return
            plan = require(plan, plan_hash, "pending", "awaiting signature")
            partners = partners_of(plan.summary)
            check_room(session, plan.population, read_events(plan.events), partners)
            entry = self._chain.append(
                session,
                "approval",
                plan=plan_hash,
                by=decided_by,
                owner_key=owner_key_hex,
                signature=signature_hex,
                explanation=explanation_sha256,
                reason=reason,
            )
            decide(session, plan, "approved", entry.time, decided_by, reason)

    def deny(self, plan_hash: str, decided_by: str, reason: str, explanation: str = "") -> None:
        """Say no for good, with a reason the scientist will read.

        `explanation` is the SHA-256 of what the decider was shown.

        Raises:
            WrongStatus: the plan is not open, or approved already (`close` it instead).
        """
        with self._database.writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and (plan.status, plan.decided_by, plan.reason) == (
                "denied",
                decided_by,
                reason,
            ):
                return
            plan = require(plan, plan_hash, "pending", "awaiting signature")
            entry = self._chain.append(
                session,
                "denial",
                plan=plan_hash,
                by=decided_by,
                reason=reason,
                explanation=explanation,
            )
            decide(session, plan, "denied", entry.time, decided_by, reason)

    def reserve(
        self, plan_hash: str, step: str, release: int, attempt: int, event: Event, until: str = ""
    ) -> Entry:
        """Set aside the cost of one attempt, durably, before anything private is computed.

        Attempt numbers of a release only grow; numbers may be left out. `until` is when the
        earliest of the owners' approvals expires, as the entries write times.

        Returns:
            The entry, to be shown to the peers (`Heads.note`).

        Raises:
            NotApproved: the plan isn't approved or its approval has expired, or this release isn't
                among those it listed.
            AlreadyReleased: this attempt or a later one was reserved before.
            AttemptOpen: an earlier attempt is still to be charged or voided.
            AttemptsExhausted: no spare attempt is left.
            BudgetExceeded: the budget has no room left, because its cap was lowered.
        """
        if event.count != 1 or release < 0 or attempt < 0:
            raise ValueError("One attempt is one event with count 1; numbers start at 0")
        with self._database.writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is None or plan.status != "approved":
                raise NotApproved(
                    f"Plan {plan_hash[:16]} is {plan.status if plan else 'unknown'} at"
                    f" {self.domain!r}; only an approved plan may release"
                )
            repeat = check_attempt(session, plan, step, release, attempt, event)
            use_budget(session, plan, event, repeat)
            entry = self._chain.append(
                session,
                "reservation",
                plan=plan_hash,
                step=step,
                release=release,
                attempt=attempt,
                event=event_json(event),
            )
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
                    inputs="",
                    reserved=entry.time,
                )
            )
            if until and entry.time >= until:
                raise NotApproved(f"The approval of plan {plan_hash[:16]} expired at {until}")
            return entry

    def charge(
        self, plan_hash: str, step: str, release: int, attempt: int, share_sha256: str
    ) -> None:
        """Turn the reservation into a charge, durably, before this very share may be sent.

        Raises:
            NotReserved: there is no such reservation, or it was voided.
            AlreadyReleased: it was charged for another share.
        """
        check_hash(share_sha256)
        with self._database.writing() as session:
            row = session.get(LedgerAttempt, (plan_hash, step, release, attempt))
            if row is not None and row.state == "charged":
                if row.share == share_sha256:
                    return
                raise AlreadyReleased(
                    f"Attempt {attempt} of {step}/{release} was charged for another share;"
                    " one attempt sends one share. Start a new attempt"
                )
            row = open_reservation(row, step, release, attempt)
            row.state, row.share = "charged", share_sha256
            self._chain.append(session, "charge", share=share_sha256, **attempt_json(row))

    def settle(
        self, plan_hash: str, step: str, release: int, attempt: int, inputs_sha256: str
    ) -> None:
        """Record which masked inputs this domain helps to open, before it says so to anyone.

        `inputs_sha256` names the one set of masked inputs, this domain's among them.

        Raises:
            NotReserved: the attempt isn't charged.
            AlreadyReleased: it was settled for another set.
        """
        check_hash(inputs_sha256)
        with self._database.writing() as session:
            row = session.get(LedgerAttempt, (plan_hash, step, release, attempt))
            if row is None or row.state != "charged":
                raise NotReserved(f"Attempt {attempt} of {step}/{release} isn't charged")
            if row.inputs == inputs_sha256:
                return
            if row.inputs:
                raise AlreadyReleased(
                    f"Attempt {attempt} of {step}/{release} was settled for other inputs; one"
                    " attempt opens one total"
                )
            row.inputs = inputs_sha256
            self._chain.append(session, "release", inputs=inputs_sha256, **attempt_json(row))

    def void(self, plan_hash: str, step: str, release: int, attempt: int, reason: str) -> None:
        """Give a reservation back: its share provably never left.

        Raises:
            NotReserved: there is no such reservation, or it was charged.
        """
        with self._database.writing() as session:
            row = session.get(LedgerAttempt, (plan_hash, step, release, attempt))
            if row is not None and row.state == "void":
                return
            self._void(session, open_reservation(row, step, release, attempt), reason)

    def close(
        self, plan_hash: str, reason: str, by: str | None = None, explanation: str = ""
    ) -> None:
        """End the plan: what it held and never charged goes back; open reservations are voided.

        `by` revokes or withdraws it (None: it ended by itself); `explanation` as in `deny`.

        Raises:
            WrongStatus: the plan is unknown, denied or refused.
        """
        with self._database.writing() as session:
            plan = session.get(LedgerPlan, plan_hash)
            if plan is not None and plan.status == "closed":
                return
            plan = require(plan, plan_hash, "pending", "awaiting signature", "approved")
            for row in session.exec(
                select(LedgerAttempt).where(
                    LedgerAttempt.plan_hash == plan_hash, LedgerAttempt.state == "reserved"
                )
            ).all():
                self._void(session, row, "plan closed")
            said = {} if by is None else {"by": by, "explanation": explanation}
            entry = self._chain.append(session, "closure", plan=plan_hash, reason=reason, **said)
            decide(session, plan, "closed", entry.time, by or plan.decided_by, reason)

    def status(self, plan_hash: str) -> str:
        """unknown, pending, awaiting signature, approved, denied, refused or closed."""
        with self._database.reading() as session:
            plan = session.get(LedgerPlan, plan_hash)
            return "unknown" if plan is None else plan.status

    def attempts(self, plan_hash: str) -> list[tuple[str, int, int, str]]:
        """(step, release, attempt, state) of the plan; state is reserved, charged or void."""
        columns = (LedgerAttempt.step, LedgerAttempt.release, LedgerAttempt.attempt)
        with self._database.reading() as session:
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
        with self._database.reading() as session:
            return read_budget(session, population)

    def require_room(self, population: str, events: Sequence[Event]) -> None:
        """Nothing, if these events fit beside what is spent and held.

        Raises:
            BudgetExceeded: they don't.
            UnknownPopulation: no budget was opened for the population.
        """
        with self._database.reading() as session:
            check_room(session, population, events)

    def accountant(self, population: str) -> RenyiFilter:
        """The filter that decides about the population's budget."""
        with self._database.reading() as session:
            return filter_of(session, population)

    def commitments(self, population: str) -> list[Commitment]:
        """What each plan of the population has used or may still use, oldest decision first."""
        with self._database.reading() as session:
            return commitments_of(session, population)

    def budgets(self) -> list[Budget]:
        """The budgets of all populations, by name."""
        with self._database.reading() as session:
            names = session.exec(select(LedgerBudget.population)).all()
            return [read_budget(session, name) for name in sorted(names)]

    def entries(self, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Entries with an index above `after`, in order, at most `limit`."""
        query = select(LedgerEntry).where(LedgerEntry.index > after)
        with self._database.reading() as session:
            rows = session.exec(query.order_by(col(LedgerEntry.index)).limit(limit)).all()
            return [read_entry(row) for row in rows]

    def head(self) -> tuple[int, str]:
        """(index, hash) of the last entry."""
        with self._database.reading() as session:
            head = session.get_one(LedgerHead, 1)
            return head.index, head.hash

    def plans(self) -> list[PlanRecord]:
        """Every plan ever submitted or refused, oldest first."""
        with self._database.reading() as session:
            rows = session.exec(
                select(LedgerPlan).order_by(col(LedgerPlan.submitted), col(LedgerPlan.plan_hash))
            ).all()
            return [record_of(row) for row in rows]

    def export(self) -> dict[str, Any]:
        """The whole ledger as a signed bundle of JSON values, for an auditor."""
        return bundle(self._chain, self.heads, self.entries())

    def prove(self, index: int, size: int | None = None) -> dict[str, Any]:
        """A proof that entry `index` is under the head of `size` entries, or of all.

        Raises:
            LedgerError: there is no such entry or head.
        """
        return proof(self._chain, self.heads, index, size)

    def dispose(self) -> None:
        """Close the database connections. The ledger opens new ones when used again."""
        self._database.dispose()

    def _void(self, session: Session, row: LedgerAttempt, reason: str) -> None:
        row.state = "void"
        event = Event(row.noise_multiplier, row.sampling_rate, 1)
        add_use(session, row.population, row.plan_hash, event, row.repeat, -1)
        self._chain.append(session, "void", reason=reason, **attempt_json(row))
