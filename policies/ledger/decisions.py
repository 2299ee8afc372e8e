"""Decisions about plans: submitted, refused, consented to, approved, denied, ended."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, select

from policies.accounting import Event, merge
from policies.approvals import may_approve, verify_approval
from policies.canonical import canonical
from policies.ledger.budgets import (
    check_room,
    event_json,
    partners_of,
    read_events,
    require_budget,
)
from policies.ledger.chain import Chain
from policies.ledger.charges import NOTHING, charge_attempt, void_attempt
from policies.ledger.database import Database
from policies.ledger.errors import BadSignature
from policies.ledger.plans import check_hash, decide, keep_plan, plan_at, plan_row, require
from policies.ledger.tables import ATTEMPTS, ENTRIES
from policies.succession import successor

_OWNERS = (
    select(ENTRIES.c.body)
    .where(ENTRIES.c.kind == "owner")
    .order_by(ENTRIES.c.index.desc())
    .limit(1)
)
_RESERVED = select(ATTEMPTS).where(
    ATTEMPTS.c.plan_hash == bindparam("plan_hash"), ATTEMPTS.c.state == "reserved"
)


class Decisions:
    """Part of `Ledger`: what becomes of a plan. One transaction each."""

    domain: str
    _database: Database
    _chain: Chain

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
        with self._database.writing() as connection:
            require_budget(connection, population)
            plan = plan_at(connection, plan_hash)
            if plan is not None and plan.status in ("pending", "awaiting signature", "approved"):
                return
            if plan is not None:
                require(plan, plan_hash, "refused")
            entry = self._chain.append(
                connection,
                "submission",
                plan=plan_hash,
                events=listed,
                spare_attempts=spare_attempts,
                summary=dict(summary),
                **facts,
            )
            keep_plan(
                connection,
                plan_row(
                    plan_hash,
                    "pending",
                    submitted=entry.time,
                    events=json.dumps(listed),
                    spare_attempts=spare_attempts,
                    summary=canonical(dict(summary)).decode(),
                    **facts,
                ),
            )

    def refuse(self, plan_hash: str, rule: str, reason: str) -> None:
        """Record that a rule refused the plan, submitted or not."""
        check_hash(plan_hash)
        text = f"{rule}: {reason}"
        with self._database.writing() as connection:
            plan = plan_at(connection, plan_hash)
            if plan is not None and (plan.status, plan.reason) == ("refused", text):
                return
            if plan is None:
                keep_plan(connection, plan_row(plan_hash, "refused"))
                plan = plan_at(connection, plan_hash)
            plan = require(plan, plan_hash, "pending", "awaiting signature", "refused")
            said = {"rule": rule, "reason": reason}
            entry = self._chain.append(connection, "refusal", plan=plan_hash, **said)
            decide(connection, plan, "refused", entry.time, by="", reason=text)

    def consent(
        self, plan_hash: str, decided_by: str, reason: str = "", explanation: str = ""
    ) -> None:
        """Record a yes that lacks the owner's signature, or a second person's: nothing runs on it.

        `explanation` as in `deny`.
        """
        with self._database.writing() as connection:
            plan = plan_at(connection, plan_hash)
            if plan is not None and plan.status == "awaiting signature":
                return
            plan = require(plan, plan_hash, "pending")
            said = {"by": decided_by, "reason": reason, "explanation": explanation}
            entry = self._chain.append(connection, "consent", plan=plan_hash, **said)
            decide(connection, plan, "awaiting signature", entry.time, decided_by, reason)

    def approve(
        self,
        plan_hash: str,
        decided_by: str,
        owner_key_hex: str,
        signature_hex: str,
        explanation_sha256: str,
        reason: str = "",
        second: tuple[str, str] | None = None,
    ) -> None:
        """Approve under the owner's signature, holding the plan's whole cost from now on.

        `explanation_sha256` is the hash of what the owner was shown; `second` another person's key
        (hex) and signed approval, where two must agree.

        Raises:
            BadSignature: a signature isn't the owner's, or the second person's, for this plan and
                domain.
            BudgetExceeded: it doesn't fit beside what is spent and held.
            WrongStatus: the plan isn't pending or awaiting its signature.
        """
        if not may_approve(owner_key_hex, plan_hash, self.domain, signature_hex):
            raise BadSignature(
                f"The signature isn't {owner_key_hex[:16]}'s for plan {plan_hash[:16]} at"
                f" {self.domain!r}. Sign this plan's hash with the owner's own key"
            )
        if second is not None and not (
            second[0] != owner_key_hex
            and verify_approval(second[0], plan_hash, self.domain, second[1])
        ):
            raise BadSignature(
                f"A second person's signature isn't for plan {plan_hash[:16]} at {self.domain!r},"
                " or is the owner's own. Sign this plan's hash with the second person's key"
            )
        with self._database.writing() as connection:
            plan = plan_at(connection, plan_hash)
            # The same decision again adds nothing; another one has come too late.
            same = ("approved", decided_by, reason)
            if plan is not None and (plan.status, plan.decided_by, plan.reason) == same:
                return
            plan = require(plan, plan_hash, "pending", "awaiting signature")
            partners = partners_of(plan.summary)
            check_room(connection, plan.population, read_events(plan.events), partners)
            entry = self._chain.append(
                connection,
                "approval",
                plan=plan_hash,
                by=decided_by,
                owner_key=owner_key_hex,
                signature=signature_hex,
                explanation=explanation_sha256,
                reason=reason,
                **({} if second is None else {"second_key": second[0], "second": second[1]}),
            )
            decide(connection, plan, "approved", entry.time, decided_by, reason)

    def succeed_owner(self, replaces: str, owner_key: str, signature: str, consent: str) -> None:
        """Record that the owner has another key from now on; recorded before, it does nothing.

        Args:
            replaces, owner_key: her key until now and from now on, hex.
            signature, consent: see `policies.succession`.

        Raises:
            BadSignature: the two keys didn't sign this.
        """
        if successor(replaces, self.domain, signature, consent) != owner_key:
            raise BadSignature(
                f"{replaces[:16]} and {owner_key[:16]} didn't both sign that one takes the other's"
                f" place at {self.domain!r}"
            )
        body = {"replaces": replaces, "owner_key": owner_key}
        with self._database.writing() as connection:
            found = connection.execute(_OWNERS).scalars().first()
            if found is not None and body.items() <= json.loads(found).items():
                return
            self._chain.append(connection, "owner", **body, signature=signature, consent=consent)

    def deny(self, plan_hash: str, decided_by: str, reason: str, explanation: str = "") -> None:
        """Say no for good, with a reason the scientist will read.

        `explanation` is the SHA-256 of what the decider was shown.

        Raises:
            WrongStatus: the plan is not open, or approved already (`close` it instead).
        """
        with self._database.writing() as connection:
            plan = plan_at(connection, plan_hash)
            if plan is not None and (plan.status, plan.decided_by, plan.reason) == (
                "denied",
                decided_by,
                reason,
            ):
                return
            plan = require(plan, plan_hash, "pending", "awaiting signature")
            entry = self._chain.append(
                connection,
                "denial",
                plan=plan_hash,
                by=decided_by,
                reason=reason,
                explanation=explanation,
            )
            decide(connection, plan, "denied", entry.time, decided_by, reason)

    def close(
        self, plan_hash: str, reason: str, by: str | None = None, explanation: str = ""
    ) -> None:
        """End the plan: what it held and never charged goes back.

        `by` revokes or withdraws it (None: it ended by itself); `explanation` as in `deny`.
        Reservations that are open then are charged: an engine may be at work on one, and how that
        ends be seen. Where a plan ends by itself, none is, and they are voided.

        Raises:
            WrongStatus: the plan is unknown, denied or refused.
        """
        with self._database.writing() as connection:
            plan = plan_at(connection, plan_hash)
            if plan is not None and plan.status == "closed":
                return
            plan = require(plan, plan_hash, "pending", "awaiting signature", "approved")
            for row in connection.execute(_RESERVED, {"plan_hash": plan_hash}).all():
                if by is None:
                    void_attempt(connection, self._chain, row, "plan closed")
                else:
                    charge_attempt(connection, self._chain, row, NOTHING)
            said = {} if by is None else {"by": by, "explanation": explanation}
            entry = self._chain.append(connection, "closure", plan=plan_hash, reason=reason, **said)
            decide(connection, plan, "closed", entry.time, by or plan.decided_by, reason)
