"""An owner's signed change of her standing rules: what she put her key to, and what it changes.

A password opens an account; the rules decide what may leave. So a change of rules is signed as an
approval is, with the owner's own key, and the ledger records it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from policies.approvals import Hex64, Statement, sign_statement, validity
from policies.canonical import sha256_hex
from policies.owner_policy import OwnerPolicy

AMENDMENT_DAYS = 1.0
"""How long a signed change may wait to be handed to the node."""


class Amendment(Statement):
    """These rules instead of those, for one data set of one domain.

    Attributes:
        data_set: the data set's name.
        replaces: SHA-256 of the policy file that was looked at, hex.
        rules: SHA-256 of the file that takes its place, hex.
    """

    kind: Literal["rules"] = "rules"
    data_set: Annotated[str, Field(min_length=1, max_length=200)]
    replaces: Hex64
    rules: Hex64


def sign_amendment(
    key: Ed25519PrivateKey,
    domain: str,
    data_set: str,
    text: str,
    replaces: str,
    *,
    by: str = "",
    reason: str = "",
    days: float = AMENDMENT_DAYS,
) -> str:
    """The owner's signature under a whole new policy file, as one line of text.

    Args:
        text: of the new file.
        replaces: SHA-256 of the file that it replaces, hex.
        by: who decides, such as an account's email.
        days: how long it may be handed to the node.
    """
    signed, expires = validity(days)
    amendment = Amendment(
        domain=domain,
        by=by,
        signed=signed,
        expires=expires,
        reason=reason,
        data_set=data_set,
        replaces=replaces,
        rules=sha256_hex(text.encode()),
    )
    return sign_statement(key, amendment)


def changes_between(before: OwnerPolicy, after: OwnerPolicy) -> list[list[str]]:
    """[setting, before, after] of every setting that differs, as text; empty: only words do."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return [[n, _said(old[n]), _said(new[n])] for n in OwnerPolicy.model_fields if old[n] != new[n]]


_CAPS = (
    "epsilon", "delta", "max_epsilon_per_plan", "max_epsilon_per_scientist",
    "max_epsilon_per_dataset", "max_epsilon_per_period", "max_releases", "max_approval_days",
)  # fmt: skip
_FLOORS = ("period_days", "min_users", "min_noise_multiplier")
_ONLY = ("allowed_operations", "allowed_models")
_GRANTED = ("dealers", "comparisons", "advisory")


def loosened(before: OwnerPolicy, after: OwnerPolicy) -> list[str]:
    """The settings that allow something after that they didn't before.

    What isn't plainly stricter counts as looser: other office hours do, and so does anything that
    only the file itself may change.
    """
    old, new = before.model_dump(), after.model_dump()
    return [n for n in OwnerPolicy.model_fields if old[n] != new[n] and _looser(n, old[n], new[n])]


def _looser(name: str, old: Any, new: Any) -> bool:
    if name in _CAPS:
        return old is not None and (new is None or new > old)
    if name in _FLOORS:
        return bool(new < old)
    if name in _ONLY:
        return old is not None and (new is None or not set(new) <= set(old))
    if name in _GRANTED:
        return not set(new) <= set(old)
    return old is not None


def _said(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
