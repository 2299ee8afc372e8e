"""An owner's key for one approval: read from bytes, used once, kept nowhere."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from coterie.owner import Owner
from network.client import NodeClient, NodeRefused
from policies.approvals import OwnerKeyError, sign_approval


def read_key(pem: bytes, passphrase: str) -> Ed25519PrivateKey:
    """The owner's key from the bytes of her file.

    Raises:
        OwnerKeyError: a wrong or missing passphrase, or not an Ed25519 key in PEM.
    """
    try:
        key = load_pem_private_key(pem, passphrase.encode() or None)
    except (ValueError, TypeError):
        raise OwnerKeyError(
            "The key can't be opened: wrong or missing passphrase, or not a PEM key. "
            "Choose the owner.pem that was made with this domain."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise OwnerKeyError("The file holds another kind of key; expected Ed25519.")
    return key


def approve_with_key(
    owner: Owner, plan_hash: str, reason: str, key: Ed25519PrivateKey, explanation: str, days: float
) -> str:
    """Sign and approve in one go; gives the status. The key lives as long as this call.

    Args:
        explanation: SHA-256 of the text that the owner was shown, hex.
        days: how long the approval holds.
    """
    signature = sign_approval(
        key,
        plan_hash,
        owner.node.name,
        by=owner.email,
        reason=reason,
        explanation=explanation,
        days=days,
    )
    return approve_with_signature(owner, plan_hash, signature)


def approve_with_signature(owner: Owner, plan_hash: str, signature: str) -> str:
    """Approve with what `coterie requests sign` printed; gives the status.

    Raises:
        NodeRefused: no such request, or the signature isn't this owner's.
    """
    uid = _request_of(owner.node, plan_hash)
    owner.node.call_syft("request.apply", uid=uid, signature=signature)
    return str(owner.show(plan_hash)["status"])


def _request_of(node: NodeClient, plan_hash: str) -> Any:
    for request in node.call_syft("request.get_all"):
        if any(getattr(change, "plan_hash", None) == plan_hash for change in request.changes):
            return request.id
    raise NodeRefused(node.name, f"{node.name} has no request for plan {plan_hash[:12]}.")
