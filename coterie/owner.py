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
from policies.approvals import load_owner_key, sign_approval

ROLES = {"scientist": ServiceRole.DATA_SCIENTIST, "auditor": ServiceRole.GUEST}


@dataclass(frozen=True)
class Owner:
    """An owner's session on her node.

    Attributes:
        key: the owner's signing key; without it approvals stay 'awaiting signature'.
    """

    node: NodeClient
    key: Ed25519PrivateKey | None

    def plans(self) -> list[dict[str, Any]]:
        """All plans of this node, with status and cost."""
        return json.loads(self.node.call("plans"))

    def show(self, plan_hash: str) -> dict[str, Any]:
        """One plan with its explanation."""
        return json.loads(self.node.call("plan", plan_hash=self.full_hash(plan_hash)))

    def approve(self, plan_hash: str, reason: str = "") -> str:
        """Approve through the native Syft request, signing the plan's hash; gives the status."""
        full = self.full_hash(plan_hash)
        arguments: dict[str, Any] = {"uid": self._request_uid(full), "reason": reason}
        if self.key is not None:
            arguments["signature"] = sign_approval(self.key, full, self.node.name)
        self.node.call_syft("request.apply", **arguments)
        return str(self.show(full)["status"])

    def deny(self, plan_hash: str, reason: str) -> str:
        """Deny a pending plan or withdraw an approval; gives the status."""
        full = self.full_hash(plan_hash)
        self.node.call_syft("request.undo", uid=self._request_uid(full), reason=reason)
        return str(self.show(full)["status"])

    def full_hash(self, start: str) -> str:
        """The one plan whose hash starts so.

        Raises:
            NodeRefused: none or several do.
        """
        found = [p["plan_hash"] for p in self.plans() if p["plan_hash"].startswith(start)]
        if len(found) != 1:
            what = "no plan starts" if not found else f"{len(found)} plans start"
            raise NodeRefused(self.node.name, f"{self.node.name}: {what} with '{start[:64]}'.")
        return str(found[0])

    def invite(self, email: str, name: str, role: str) -> str:
        """Make an account with a generated password, which is returned once.

        Args:
            role: 'scientist' or 'auditor'.
        """
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
    node = log_in(account["url"], account["email"], account["password"], account.get("node_key"))
    return Owner(node, load_owner_key(key, passphrase) if key is not None else None)
