"""Reading the outer envelope of a signed Syft call by hand, before anything is trusted."""

from dataclasses import dataclass

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from network.capnproto import BytesRefused, Frame

__all__ = ["MAX_MESSAGE_BYTES", "BytesRefused", "Envelope", "open_envelope"]

MAX_MESSAGE_BYTES = 16 * 2**20 + 2**16
"""A message carries at most 16 MiB of payload; 64 KiB is left for its envelope."""

_FIELDS = ["credentials", "serialized_message", "signature"]


@dataclass(frozen=True)
class Envelope:
    """A signed message whose signature holds: who signed (32 bytes) and what (still opaque)."""

    key: bytes
    message: bytes
    signature: bytes


def open_envelope(blob: bytes) -> Envelope:
    """Parse Syft's `SignedSyftAPICall` and verify its Ed25519 signature (RFC 8032).

    Only the three declared fields are looked at, and none is deserialised.

    Raises:
        BytesRefused: too long, wrong type, fields or signature.
    """
    if len(blob) > MAX_MESSAGE_BYTES:
        raise BytesRefused(f"The message has {len(blob)} bytes; at most {MAX_MESSAGE_BYTES} pass.")
    outer = _fields(blob, "SignedSyftAPICall")
    if sorted(outer) != _FIELDS:
        raise BytesRefused("A signed call has exactly the fields " + ", ".join(_FIELDS) + ".")
    credentials = _fields(outer["credentials"], "SyftVerifyKey")
    if list(credentials) != ["verify_key"]:
        raise BytesRefused("Expected SyftVerifyKey with the one field verify_key.")
    key = _content(credentials["verify_key"], "nacl_verify_key")
    message = _content(outer["serialized_message"], "bytes")
    signature = _content(outer["signature"], "bytes")
    try:
        VerifyKey(key).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        raise BytesRefused("The signature does not hold for this message and key.") from None
    return Envelope(key, message, signature)


def _fields(blob: bytes | memoryview, name: str) -> dict[str, memoryview]:
    """The undecoded fields of the one object of this name."""
    frame = Frame(blob, data=1, pointers=4)
    if (frame.text(frame.pointer(3)), frame.int32()) != (name, 1):
        raise BytesRefused(f"Expected {name}, version 1.")
    names = [frame.text(place) for place in frame.items(frame.pointer(0), len(_FIELDS))]
    parts = frame.items(frame.pointer(1), len(_FIELDS))
    if len(names) != len(parts) or len(set(names)) != len(names):
        raise BytesRefused("Fields must have one name and one value each.")
    return {name: frame.content(part) for name, part in zip(names, parts, strict=True)}


def _content(blob: memoryview, name: str) -> bytes:
    frame = Frame(blob, data=1, pointers=4)
    if (frame.text(frame.pointer(3)), frame.int32()) != (name, 1):
        raise BytesRefused(f"Expected {name}.")
    return bytes(frame.content(frame.pointer(2)))
