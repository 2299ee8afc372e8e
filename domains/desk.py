"""The owner's desk: how plans are submitted and decisions recorded."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from domains.answers import Answers
from domains.dataset import PrivateDataset
from domains.folder import write_private
from domains.preapproval import Preapproval
from domains.rules import Rules
from domains.shelf import DeskRefused
from policies.approvals import Approval, validity, verify_submission
from policies.canonical import sha256_hex
from policies.envelopes import read_consent, why_not_approved
from policies.likeness import likeness_of, model_of, query_of, roster_of
from policies.plan import Plan

__all__ = ["Desk", "DeskRefused"]

MOST_PLANS_A_DAY, MOST_PLAN_BYTES = 1000, 2**28
"""Of one account, refused plans included."""


class Desk(Answers, Preapproval, Rules):
    """Plans and decisions of one domain."""

    def submit(self, plan: Plan, account: str, signature: str) -> dict[str, Any]:
        """Record a plan: refused, pending, or approved within an envelope.

        Submitting the same plan again changes nothing.

        Args:
            account: verify key of the Syft account that submits, hex.
            signature: by the plan's author, over the plan's hash and this account.
        """
        if not verify_submission(plan.scientist, plan.hash, account, signature):
            raise DeskRefused("The plan is not signed by the scientist whose key it names.")
        with self._deciding:
            dataset = self.dataset(plan.dataset)
            known = self.ledger.status(plan.hash)
            if known != "unknown":
                return {"status": known, "plan_hash": plan.hash, "refusals": [], "new": False}
            self._check_room(account)
            refusals, advice, offers = self._judge.judge(plan, dataset, account)
            self._record(plan, account, dataset)
            for refusal in refusals:
                self.ledger.refuse(plan.hash, refusal["rule"], refusal["message"])
            if not refusals and not advice:
                self._approve_within_envelope(plan, dataset)
            status = self.ledger.status(plan.hash)
        return {
            "status": status,
            "plan_hash": plan.hash,
            "refusals": refusals,
            "advice": advice,
            "offers": offers,
            "new": True,
        }

    def _check_room(self, account: str) -> None:
        """Every plan takes room on the disk for good, and its owner's time, refused ones too."""
        mine = [record for record in self.ledger.plans() if record.scientist == account]
        since = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
        files = [self._plans / f"{record.plan_hash}.json" for record in mine]
        size = sum(file.stat().st_size for file in files if file.exists())
        if sum(record.submitted > since for record in mine) >= MOST_PLANS_A_DAY:
            raise DeskRefused(
                f"{self.name} takes {MOST_PLANS_A_DAY} new plans of an account a day. Submit the "
                "others tomorrow."
            )
        if size >= MOST_PLAN_BYTES:
            raise DeskRefused(
                f"{self.name} keeps {MOST_PLAN_BYTES // 2**20} MiB of plans of an account. Ask its "
                "owner for another account."
            )

    def _record(self, plan: Plan, account: str, dataset: PrivateDataset) -> None:
        write_private(self._plans / f"{plan.hash}.json", plan.to_json())
        self.ledger.submit(
            plan.hash,
            plan.name,
            account,
            dataset.declaration.population,
            plan.events(),
            {
                "dataset": plan.dataset,
                "roster": [entry.name for entry in plan.roster],
                "roster_hash": roster_of(plan),
                "public": plan.public,
                "delta": plan.delta,
                "author": plan.scientist,
                "model": model_of(plan),
                "like": likeness_of(plan),
                "queries": {step.name: query_of(step) for step in plan.steps},
            },
            spare_attempts=plan.spare_attempts,
        )

    def approve(
        self, plan_hash: str, decided_by: str, signature: Any, reason: str, explanation: str
    ) -> str:
        """Record an owner's approval; without a valid signature nothing will run.

        Args:
            signature: the signed approval (`policies.approvals`), by the owner's key or, where two
                persons must agree, a second approver's; None: a yes without signature.
            explanation: what the native request shows.

        Raises:
            DeskRefused: unknown plan, decided already, the office is closed, or the approval isn't
                this owner's, of what this node shows.
            LedgerError: the budget can't bear the plan.
        """
        plan = self._known(plan_hash)
        with self._deciding:
            policy = self.dataset(plan.dataset).policy
            self._require_open(plan_hash)
            self._check_still_right(plan)
            shown = sha256_hex(explanation.encode())
            if signature is None:
                self.ledger.consent(plan_hash, decided_by, reason, shown)
                return self.ledger.status(plan_hash)
            owner = self._settings.owner_key
            others = [key for key in policy.second_approvers if key != owner]
            found = self._read_approval(plan, (owner, *others), signature, explanation)
            if reason and reason != found.reason:
                raise DeskRefused("The reason given is not the one that was signed.")
            self._keep_signature(plan_hash, signature)
            owners = self._signature_of(plan_hash, [owner])
            seconds = self._signature_of(plan_hash, others)
            if owners is None or (policy.second_approvers and seconds is None):
                self.ledger.consent(plan_hash, decided_by, found.reason, found.explanation)
            else:
                consent = read_consent(owners[0], self.name, owners[1])
                assert isinstance(consent, Approval)
                self.ledger.approve(
                    plan_hash, decided_by, *owners, consent.explanation, consent.reason, seconds
                )
            return self.ledger.status(plan_hash)

    def deny(self, plan_hash: str, decided_by: str, reason: str, explanation: str = "") -> str:
        """Record a denial of an open plan.

        Raises:
            DeskRefused: decided already; an approval is taken back with `revoke`.
        """
        self._known(plan_hash)
        with self._deciding:
            self._require_open(plan_hash)
            self.ledger.deny(plan_hash, decided_by, reason, sha256_hex(explanation.encode()))
            return self.ledger.status(plan_hash)

    def revoke(self, plan_hash: str, decided_by: str, reason: str) -> str:
        """Take an approval back, in the middle of a run too: the next release doesn't happen.

        Raises:
            DeskRefused: the plan isn't approved.
        """
        plan = self._known(plan_hash)
        return self._end(plan, "revoked", decided_by, reason, ("approved",))

    def withdraw(self, plan: Plan, by: str, reason: str) -> str:
        """Its scientist wants the plan no longer: what it held of the budget goes back.

        Raises:
            DeskRefused: the plan is decided against or ended already.
        """
        return self._end(
            plan, "withdrawn", by, reason, ("pending", "awaiting signature", "approved")
        )

    def revoke_all(self, scientist: str, decided_by: str, reason: str) -> list[str]:
        """End every open plan that this account submitted; gives their hashes."""
        ended = []
        for record in self.ledger.plans():
            if record.scientist != scientist:
                continue
            plan = self._known(record.plan_hash)
            try:
                statuses = ("pending", "awaiting signature", "approved")
                self._end(plan, "revoked", decided_by, reason, statuses)
            except DeskRefused:
                continue
            ended.append(plan.hash)
        return ended

    def _end(self, plan: Plan, how: str, by: str, reason: str, statuses: Sequence[str]) -> str:
        shown = sha256_hex(self.explain(plan).encode())
        with self._deciding:
            status = self.ledger.status(plan.hash)
            if status not in statuses:
                raise DeskRefused(
                    f"This plan is {status}; only one that is {' or '.join(statuses)} can be {how}."
                )
            self.ledger.close(plan.hash, f"{how} by {by}: {reason}", by, shown)
            return self.ledger.status(plan.hash)

    def _require_open(self, plan_hash: str) -> None:
        record = self.ledger.plan(plan_hash)
        if record is None or record.status not in ("pending", "awaiting signature"):
            status = "unknown" if record is None else record.status
            who = f", decided by {record.decided_by}" if record and record.decided_by else ""
            raise DeskRefused(
                f"This plan is {status} already{who}; nothing to decide. To take an approval back: "
                "coterie requests revoke"
            )

    def _check_still_right(self, plan: Plan) -> None:
        """The rules once more, since others may have been approved since it was submitted."""
        dataset = self.dataset(plan.dataset)
        record = self.ledger.plan(plan.hash)
        assert record is not None
        refusals, _, _ = self._judge.judge(plan, dataset, record.scientist)
        closed = dataset.policy.closed()
        for refusal in [*refusals, *([asdict(closed)] if closed else [])]:
            raise DeskRefused(f"{refusal['rule']}: {refusal['message']}")

    def _read_approval(
        self, plan: Plan, keys: Sequence[str], signature: Any, explanation: str
    ) -> Approval:
        found = next(
            (a for a in (read_consent(k, self.name, signature) for k in keys) if a is not None),
            None,
        )
        if not isinstance(found, Approval) or found.plan != plan.hash:
            raise DeskRefused(
                f"The signature is not by {self.name}'s owner key "
                f"({self._settings.owner_key[:16]}…). Sign with that key: coterie requests approve"
            )
        days = self.dataset(plan.dataset).policy.max_approval_days
        if not found.holds() or found.expires > validity(days)[1]:
            raise DeskRefused(f"An approval must hold for at most {days} days, and still now.")
        self._require_past(found)
        shown = {sha256_hex(text.encode()) for text in (explanation, self.explain(plan))}
        if found.explanation not in shown:
            raise DeskRefused(
                "What was signed is not what this node shows now: the plan's place in the budget "
                "has changed, or no explanation was signed. Look again: coterie requests show"
            )
        return found

    def _keep_signature(self, plan_hash: str, signature: str) -> None:
        key = read_consent(self._settings.owner_key, self.name, signature)
        suffix = "signature" if key is not None else "second"
        write_private(self._plans / f"{plan_hash}.{suffix}", signature)

    def _signature_of(self, plan_hash: str, keys: Sequence[str]) -> tuple[str, str] | None:
        """Which of these keys signed for the plan, and what, if it still holds."""
        for suffix in ("signature", "second"):
            file = self._plans / f"{plan_hash}.{suffix}"
            text = file.read_text() if file.exists() else None
            for key in keys:
                if text and why_not_approved(self._known(plan_hash), key, self.name, text) is None:
                    return key, text
        return None
