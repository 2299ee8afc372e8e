"""What a node tells a partner that lost its machine: the heads it co-signed of that one's ledger.

Asked under the partner's pinned node key, answered for that key alone.
"""

import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.canonical import canonical

MAX_REQUEST_BYTES = 1024
MAX_AGE_S = 300
_TAG = b"coterie-heads-request-v1\x00"


class WitnessRefused(Exception):
    """The request isn't a partner's, or is old."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    node_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    witness_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    time: int
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    def message(self) -> bytes:
        return _TAG + canonical(self.model_dump(exclude={"signature"}))


def ask_for_heads(key: Ed25519PrivateKey, witness_key: str) -> bytes:
    """The request of the node with this key to a partner's node."""
    node_key = key.public_key().public_bytes_raw().hex()
    asked = _Request(
        node_key=node_key, witness_key=witness_key, time=int(time.time()), signature="0" * 128
    )
    signature = key.sign(asked.message()).hex()
    return asked.model_copy(update={"signature": signature}).model_dump_json().encode()


def answer_heads(
    request: bytes,
    my_key: str,
    pinned: Callable[[], Iterable[str]],
    held: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """The heads in `held` (`Heads.export`) that are of the asking partner's ledger.

    Anyone may send a request, so files and the ledger are looked at only once its signature holds.

    Args:
        pinned: gives the node keys of this domain's partners.

    Raises:
        WitnessRefused: the same sentence for whatever is wrong.
    """
    refused = WitnessRefused("This is no partner's request for the heads of its own ledger.")
    try:
        asked = _Request.model_validate_json(request)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(asked.node_key))
        key.verify(bytes.fromhex(asked.signature), asked.message())
    except (ValidationError, ValueError, InvalidSignature):
        raise refused from None
    if abs(int(time.time()) - asked.time) > MAX_AGE_S:
        raise refused
    if asked.witness_key != my_key or asked.node_key not in set(pinned()):
        raise refused
    found = held()
    return {**found, "heads": [h for h in found["heads"] if h["node_key"] == asked.node_key]}
