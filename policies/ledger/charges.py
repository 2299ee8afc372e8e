"""The charge protocol: an attempt is reserved, charged, then settled; or it is void."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert

from policies.accounting import Event
from policies.ledger.budgets import add_use, event_json, use_budget
from policies.ledger.chain import Chain, Entry
from policies.ledger.database import Database
from policies.ledger.errors import AlreadyReleased, NotApproved, NotReserved
from policies.ledger.heads import Heads, Shown
from policies.ledger.plans import check_hash, plan_at
from policies.ledger.releases import attempt_json, check_attempt, open_reservation
from policies.ledger.statements import Statement
from policies.ledger.tables import ATTEMPTS, Row, change_of, row_of

_ATTEMPT, _ADD = Statement(row_of(ATTEMPTS)), Statement(insert(ATTEMPTS))
_CHANGE = Statement(change_of(ATTEMPTS))
NOTHING = hashlib.sha256(b"").hexdigest()
"""The hash of the share of an attempt that is charged though it will send none."""


class Charges:
    """Part of `Ledger`: what an approved plan releases. One transaction each."""

    domain: str
    heads: Heads
    _database: Database
    _chain: Chain

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
        with self._database.writing() as connection:
            plan = plan_at(connection, plan_hash)
            if plan is None or plan.status != "approved":
                raise NotApproved(
                    f"Plan {plan_hash[:16]} is {plan.status if plan else 'unknown'} at"
                    f" {self.domain!r}; only an approved plan may release"
                )
            repeat = check_attempt(connection, plan, step, release, attempt, event)
            use_budget(connection, plan, event, repeat)
            entry = self._chain.append(
                connection,
                "reservation",
                plan=plan_hash,
                step=step,
                release=release,
                attempt=attempt,
                event=event_json(event),
            )
            _ADD.run(
                connection,
                {
                    "plan_hash": plan_hash,
                    "step": step,
                    "release": release,
                    "attempt": attempt,
                    "population": plan.population,
                    "state": "reserved",
                    "noise_multiplier": event.noise_multiplier,
                    "sampling_rate": event.sampling_rate,
                    "repeat": repeat,
                    "share": "",
                    "inputs": "",
                    "reserved": entry.time,
                },
            )
            if until and entry.time >= until:
                raise NotApproved(f"The approval of plan {plan_hash[:16]} expired at {until}")
            return entry

    def charge(
        self,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        share_sha256: str,
        shown: Sequence[Shown] = (),
    ) -> None:
        """Turn the reservation into a charge, durably, before this very share may be sent.

        Args:
            shown: what the peers' ledgers showed, which `Heads.check` let pass; it is co-signed in
                the same transaction.

        Raises:
            NotReserved: there is no such reservation, or it was voided.
            AlreadyReleased: it was charged for another share.
            HeadRefused: a peer's head doesn't extend what another round brought meanwhile.
        """
        check_hash(share_sha256)
        with self._database.writing() as connection:
            row = attempt_at(connection, plan_hash, step, release, attempt)
            if row is not None and row.state == "charged":
                if row.share == share_sha256:
                    return
                raise AlreadyReleased(
                    f"Attempt {attempt} of {step}/{release} was charged for another share;"
                    " one attempt sends one share. Start a new attempt"
                )
            row = open_reservation(row, step, release, attempt)
            self.heads.keep_shown(connection, shown)
            charge_attempt(connection, self._chain, row, share_sha256)

    def settle(
        self,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        inputs_sha256: str,
        opened: Mapping[str, str] | None = None,
    ) -> bool:
        """Record which masked inputs this domain helps to open, before it says so to anyone.

        `inputs_sha256` names the one set of masked inputs, this domain's among them: the hash of
        `opened`, in canonical JSON, which gives each domain's digest (hex; a charge names the
        SHA-256 of the domain's own). With it, the domain can testify what its peers have sent.

        Returns:
            Whether it is recorded now; False: it was before.

        Raises:
            NotReserved: the attempt isn't charged.
            AlreadyReleased: it was settled for another set.
        """
        check_hash(inputs_sha256)
        with self._database.writing() as connection:
            row = attempt_at(connection, plan_hash, step, release, attempt)
            if row is None or row.state != "charged":
                raise NotReserved(f"Attempt {attempt} of {step}/{release} isn't charged")
            if row.inputs == inputs_sha256:
                return False
            if row.inputs:
                raise AlreadyReleased(
                    f"Attempt {attempt} of {step}/{release} was settled for other inputs; one"
                    " attempt opens one total"
                )
            _change(connection, row, inputs=inputs_sha256)
            said: dict[str, Any] = {} if opened is None else {"opened": dict(opened)}
            said |= {"inputs": inputs_sha256, **attempt_json(row)}
            self._chain.append(connection, "release", **said)
            return True

    def void(self, plan_hash: str, step: str, release: int, attempt: int, reason: str) -> None:
        """Give a reservation back: its share provably never left.

        Raises:
            NotReserved: there is no such reservation, or it was charged.
        """
        with self._database.writing() as connection:
            row = attempt_at(connection, plan_hash, step, release, attempt)
            if row is not None and row.state == "void":
                return
            row = open_reservation(row, step, release, attempt)
            void_attempt(connection, self._chain, row, reason)


def attempt_at(
    connection: Connection, plan_hash: str, step: str, release: int, attempt: int
) -> Row | None:
    """An attempt's row, a `LedgerAttempt`, if it was ever reserved."""
    where = {"plan_hash": plan_hash, "step": step, "release": release, "attempt": attempt}
    return _ATTEMPT.first(connection, where)


def _change(connection: Connection, row: Row, **values: str) -> None:
    where = (row.plan_hash, row.step, row.release, row.attempt)
    names = ("at_plan_hash", "at_step", "at_release", "at_attempt")
    _CHANGE.run(connection, {**dict(zip(names, where, strict=True)), **values})


def charge_attempt(connection: Connection, chain: Chain, row: Row, share_sha256: str) -> None:
    """Turn an open reservation into a charge."""
    _change(connection, row, state="charged", share=share_sha256)
    chain.append(connection, "charge", share=share_sha256, **attempt_json(row))


def void_attempt(connection: Connection, chain: Chain, row: Row, reason: str) -> None:
    """Give an open reservation back to its budget."""
    _change(connection, row, state="void")
    event = Event(row.noise_multiplier, row.sampling_rate, 1)
    add_use(connection, row.population, row.plan_hash, event, row.repeat, -1)
    chain.append(connection, "void", reason=reason, **attempt_json(row))
