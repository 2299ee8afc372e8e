"""An owner's new key: the old one names it, and the new one agrees, so that others can follow.

Both sign the same words. The old key's signature shows partners and auditors that the new one is
hers; the new key's, that she takes what the old one approved as her own: with one of the two alone,
somebody who has a key of his own could put it before or behind hers.
"""

from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.approvals import (
    APPROVAL_DAYS,
    Hex64,
    Statement,
    owner_key_hex,
    read_statement,
    sign_statement,
    validity,
)


class Succession(Statement):
    """One key takes another's place at a domain.

    Attributes:
        replaces: the key until now.
        owner_key: the key from now on.
    """

    kind: Literal["succession"] = "succession"
    replaces: Hex64
    owner_key: Hex64


def sign_succession(
    old: Ed25519PrivateKey, new: Ed25519PrivateKey, domain: str, *, by: str = "", reason: str = ""
) -> tuple[str, str]:
    """The same statement under the old key and under the new one, as one line of text each."""
    signed, expires = validity(APPROVAL_DAYS)
    said = Succession(
        domain=domain,
        by=by,
        signed=signed,
        expires=expires,
        reason=reason,
        replaces=owner_key_hex(old),
        owner_key=owner_key_hex(new),
    )
    return sign_statement(old, said), sign_statement(new, said)


def successor(owner_key: str, domain: str, signature: str, consent: str) -> str | None:
    """The key that takes `owner_key`'s place at this domain, or None if that isn't shown.

    Args:
        signature, consent: what `sign_succession` gave.
    """
    said = read_statement(Succession, owner_key, domain, signature)
    if said is None or said.replaces != owner_key or said.owner_key == owner_key:
        return None
    agreed = read_statement(Succession, said.owner_key, domain, consent)
    return said.owner_key if agreed == said else None
