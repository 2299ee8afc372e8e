"""Envelopes: what an owner approved in advance, and plans approved by it when they come."""

from collections.abc import Sequence
from typing import Any

from domains.dataset import PrivateDataset
from domains.folder import write_private
from domains.shelf import DeskRefused, Shelf
from policies.accounting import RenyiFilter
from policies.approvals import Statement, validity
from policies.canonical import sha256_hex
from policies.envelopes import Envelope, read_consent
from policies.ledger import Commitment, LedgerError
from policies.limits import Limit
from policies.plan import Plan


class Preapproval(Shelf):
    """Part of `Desk`: envelopes."""

    def preapprove(self, text: str) -> str:
        """Keep an envelope that the owner signed; plans within it are approved when they come.

        Raises:
            DeskRefused: not an envelope by this owner's key for one of these data sets, expired,
                or two persons must approve.
        """
        found = read_consent(self._settings.owner_key, self.name, text)
        if not isinstance(found, Envelope):
            raise DeskRefused(f"This is no envelope signed by {self.name}'s owner key.")
        policy = self.dataset(found.data_set).policy
        if policy.second_approvers:
            raise DeskRefused("second_approvers: two persons approve each plan here, none before.")
        days = policy.max_approval_days
        if not found.holds() or found.expires > validity(days)[1]:
            raise DeskRefused(f"An envelope must hold for at most {days} days, and still now.")
        self._require_past(found)
        write_private(self._envelopes / f"{found.hash}.json", text)
        return found.hash

    def envelopes(self) -> list[dict[str, Any]]:
        """The envelopes kept here, with how many plans each approved."""
        found = [self._envelope(text) for text in self._kept_envelopes()]
        return [
            {"envelope": e.hash, "text": e.explain(), "used": len(self._under(e)), **e.model_dump()}
            for e in found
        ]

    def discard(self, envelope_hash: str) -> None:
        """Approve nothing more by this envelope; plans that it approved must be revoked singly."""
        file = self._envelopes / f"{envelope_hash}.json"
        if len(envelope_hash) != 64 or not envelope_hash.isalnum() or not file.exists():
            raise DeskRefused(f"{self.name} keeps no envelope {envelope_hash[:64]}.")
        file.unlink()

    def _approve_within_envelope(self, plan: Plan, dataset: PrivateDataset) -> None:
        if dataset.policy.second_approvers or dataset.policy.closed() is not None:
            return
        past = self.ledger.commitments(dataset.declaration.population)
        for text in self._kept_envelopes():
            envelope = self._envelope(text)
            if envelope.misses(plan) or not self._has_room(envelope, plan, past):
                continue
            shown = sha256_hex(self.explain(plan).encode())
            by = f"envelope {envelope.hash[:16]} of {envelope.by}"
            write_private(self._plans / f"{plan.hash}.signature", text)
            try:
                self.ledger.approve(
                    plan.hash, by, self._settings.owner_key, text, shown, envelope.reason
                )
            except LedgerError:
                (self._plans / f"{plan.hash}.signature").unlink()
            return

    def _require_past(self, said: Statement) -> None:
        if said.ahead():
            raise DeskRefused(
                f"This was signed {said.signed}, which is in the future for {self.name}: one of"
                " the two clocks is wrong. Set it and sign again."
            )

    def _has_room(self, envelope: Envelope, plan: Plan, past: Sequence[Commitment]) -> bool:
        under = self._under(envelope)
        held = tuple((each.events, each.partners) for each in past if each.plan_hash in under)
        accountant = RenyiFilter(envelope.delta)
        limit = Limit("envelope", "", envelope.total_epsilon, accountant, held)
        return len(under) < envelope.plans and limit.fits(plan.events())

    def _under(self, envelope: Envelope) -> set[str]:
        """The plans that this envelope approved, ended or not."""
        own = self._settings.owner_key
        found = set()
        for file in self._plans.glob("*.signature"):
            consent = read_consent(own, self.name, file.read_text())
            if isinstance(consent, Envelope) and consent.hash == envelope.hash:
                found.add(file.stem)
        return found

    def _kept_envelopes(self) -> list[str]:
        texts = [file.read_text() for file in sorted(self._envelopes.glob("*.json"))]
        own = self._settings.owner_key
        return [t for t in texts if isinstance(read_consent(own, self.name, t), Envelope)]

    def _envelope(self, text: str) -> Envelope:
        found = read_consent(self._settings.owner_key, self.name, text)
        assert isinstance(found, Envelope)
        return found
