"""What a data owner does on her own node: see requests, approve with her key, deny, invite."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from domains.request import PlanChange
from network.client import NodeClient, NodeRefused, log_in
from network.tls import is_trusted
from policies.amendments import sign_amendment
from policies.approvals import APPROVAL_DAYS, OwnerKeyError, load_owner_key, sign_approval
from policies.canonical import sha256_hex
from policies.envelopes import Envelope, sign_envelope
from policies.plan import Plan

ROLES = {"scientist": ServiceRole.DATA_SCIENTIST, "auditor": ServiceRole.GUEST}


@dataclass(frozen=True)
class Owner:
    """An owner's session on her node.

    Attributes:
        email: of the account, for the record in what is signed.
        key: the owner's signing key; without it approvals stay 'awaiting signature'.
    """

    node: NodeClient
    key: Ed25519PrivateKey | None
    email: str = ""

    def plans(self) -> list[dict[str, Any]]:
        """All plans of this node, with status and cost."""
        return self.node.read("plans")

    def show(self, plan_hash: str) -> dict[str, Any]:
        """One plan with its explanation."""
        return self.node.read("plan", plan_hash=plan_hash)

    def approve(self, plan_hash: str, reason: str = "", days: float = APPROVAL_DAYS) -> str:
        """Approve through the native Syft request and sign what is shown now; gives the status.

        Args:
            days: how long the approval holds.
        """
        full = self.full_hash(plan_hash)
        arguments: dict[str, Any] = {"uid": self._request_uid(full), "reason": reason}
        if self.key is not None:
            arguments["signature"] = self.sign(full, reason, days)
        self.node.call_syft("request.apply", **arguments)
        return str(self.show(full)["status"])

    def sign(self, plan_hash: str, reason: str = "", days: float = APPROVAL_DAYS) -> str:
        """The signed approval of a plan, of what its node shows now; nothing is sent.

        Raises:
            OwnerKeyError: this session has no key.
        """
        shown = self.show(plan_hash)
        return sign_approval(
            self._required_key(),
            shown["plan_hash"],
            self.node.name,
            by=self.email,
            reason=reason,
            explanation=sha256_hex(shown["explanation"].encode()),
            days=days,
        )

    def deny(self, plan_hash: str, reason: str) -> str:
        """Deny a plan that waits for a decision; gives the status."""
        full = self.full_hash(plan_hash)
        self.node.call_syft("request.undo", uid=self._request_uid(full), reason=reason)
        shown = self.show(full)
        # Syft's own `request.undo` answers success whatever the change said.
        if (shown["status"], shown["reason"]) != ("denied", reason):
            raise NodeRefused(
                self.node.name,
                f"This plan is {shown['status']} already, decided by {shown['decided_by']}; not "
                "denied. To take an approval back: coterie requests revoke",
            )
        return "denied"

    def revoke(self, plan_hash: str, reason: str) -> str:
        """Take an approval back, in the middle of a run too; gives the status."""
        full = self.full_hash(plan_hash)
        return str(self.node.call("revoke", plan_hash=full, reason=reason))

    def envelope(
        self, plan_hash: str, plans: int, days: float, reason: str = "", **limits: Any
    ) -> Envelope:
        """The envelope of plans like this one; see `Envelope.around`. Nothing is sent."""
        shown = self.show(plan_hash)
        return Envelope.around(
            Plan.from_json(shown["plan"]),
            self.node.name,
            plans=plans,
            days=days,
            by=self.email,
            reason=reason,
            explanation=sha256_hex(shown["explanation"].encode()),
            **limits,
        )

    def preapprove(self, envelope: Envelope) -> str:
        """Sign an envelope and hand it to the node; gives its hash."""
        signed = sign_envelope(self._required_key(), envelope)
        return str(self.node.call("preapprove", envelope=signed))

    def envelopes(self) -> list[dict[str, Any]]:
        """The envelopes that the node keeps, with how many plans each approved."""
        return self.node.read("envelopes")

    def discard(self, envelope_hash: str) -> None:
        """Let the node approve nothing more by this envelope, given whole or by its start."""
        found = [e["envelope"] for e in self.envelopes() if e["envelope"].startswith(envelope_hash)]
        if len(found) != 1:
            raise NodeRefused(self.node.name, f"{len(found)} envelopes start so.")
        self.node.call("discard", envelope_hash=found[0])

    def rules(self, dataset: str) -> dict[str, Any]:
        """A data set's policy file, whether the node applies it, and who changed it when."""
        return json.loads(self.node.call("rules", dataset=dataset))

    def preview_rules(self, dataset: str, text: str) -> list[dict[str, Any]]:
        """What another policy file would say of every open plan, beside what rules say now."""
        return json.loads(self.node.call("preview_rules", dataset=dataset, policy=text))

    def sign_rules(
        self, dataset: str, text: str, reason: str = "", replaces: str | None = None
    ) -> str:
        """The owner's signature under a new policy file; nothing is sent.

        Args:
            replaces: SHA-256 of the file that she looked at; default: the one that lies there now.

        Raises:
            OwnerKeyError: this session has no key.
        """
        return sign_amendment(
            self._required_key(),
            self.node.name,
            dataset,
            text,
            replaces or str(self.rules(dataset)["digest"]),
            by=self.email,
            reason=reason,
        )

    def write_rules(self, dataset: str, text: str, signature: str) -> dict[str, Any]:
        """Let these rules apply from now on; gives what `rules` does then."""
        return json.loads(
            self.node.call("write_rules", dataset=dataset, policy=text, signature=signature)
        )

    def full_hash(self, start: str) -> str:
        """The one plan whose hash starts so.

        Raises:
            NodeRefused: fewer than 6 characters, or none or several do.
        """
        return str(self.show(start)["plan_hash"])

    def _required_key(self) -> Ed25519PrivateKey:
        if self.key is None:
            raise OwnerKeyError("This session has no key to sign with. Give the owner's key file")
        return self.key

    def members(self) -> list[dict[str, Any]]:
        """The node's accounts: email, role, until when, whether it's over."""
        return self.node.read("members")

    def renew(self, email: str, days: int) -> str:
        """Let an account last so many days from now; gives until when."""
        return str(self.node.call("renew", email=email, days=days))

    def expel(self, email: str, reason: str) -> list[str]:
        """End an account and its holder's open plans; gives their hashes."""
        return self.node.read("expel", email=email, reason=reason)

    def invite(self, email: str, name: str, role: str, *, again: bool = False) -> str:
        """Make an account with a generated password, which is returned once.

        Args:
            role: 'scientist' or 'auditor'.
            again: end and delete the account of that email first.
        """
        if again:
            self.expel(email, "invited again")
            (known,) = [u for u in self.node.call_syft("user.get_all") if str(u.email) == email]
            self.node.call_syft("user.delete", uid=known.id)
        password = secrets.token_urlsafe(24)
        self.node.call_syft(
            "user.create",
            id=UID(),
            email=email,
            name=name,
            role=ROLES[role],
            password=password,
            password_verify=password,
        )
        return password

    def _request_uid(self, plan_hash: str) -> Any:
        requests: Sequence[Any] = self.node.call_syft("request.get_all")
        for request in requests:
            for change in request.changes:
                if isinstance(change, PlanChange) and change.plan_hash == plan_hash:
                    return request.id
        raise NodeRefused(
            self.node.name, f"{self.node.name} has no request for plan {plan_hash[:12]}."
        )


def log_in_owner(login: Path, key: Path | None, passphrase: str | None = None) -> Owner:
    """Open an owner's session from her login file and, to approve, her key file.

    Raises:
        FileNotFoundError, NodeUnreachable, LoginFailed, OwnerKeyError.
    """
    account = json.loads(login.read_text())
    node = log_in(
        account["url"],
        account["email"],
        account["password"],
        account.get("node_key"),
        None if is_trusted(account["url"]) else account.get("certificate"),
    )
    signing = load_owner_key(key, passphrase) if key is not None else None
    return Owner(node, signing, account["email"])
