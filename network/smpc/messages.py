"""What domains say to each other in one attempt of a sum.

Every message is a frozen value, read strictly and signed by its domain's node key. Signatures cover
the whole agreement (plan, release, attempt, roster, ring), so that nothing said in one attempt can
be used in another. Ed25519: RFC 8032.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Self

import numpy as np
from blake3 import blake3
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
)

from network.smpc import ring
from network.smpc.attempt import Agreement, check_name, framed
from network.smpc.shamir import SHARE_BYTES

KEY_BYTES = 32
DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
SEALED_BYTES = 24 + 16 + 2 * SHARE_BYTES
"""Nonce, authenticator, and two shares."""

PART_BYTES = 16 * 2**20
"""One message carries at most 16 MiB of numbers; what is longer goes in parts."""

RECEIPT_BYTES = 2**16
"""No receipt is longer as JSON."""


class SharingRefused(Exception):
    """The attempt ends here: what one domain sent can't be used.

    Attributes:
        culprit: name of the domain whose message was missing, surplus or wrong. Whoever carried
            the message may have caused it, unless the text says that the domain signed it.
    """

    def __init__(self, culprit: str, reason: str) -> None:
        super().__init__(f"{culprit}: {reason}")
        self.culprit = culprit


class MalformedMessage(ValueError):
    """A message isn't well-formed; the text says which field and why."""


def _unhexed(length: int) -> Any:
    def read(value: object) -> object:
        if isinstance(value, str):
            # The length is compared first, so that a huge value costs nothing.
            if len(value) != 2 * length or not re.fullmatch("[0-9a-f]+", value):
                raise ValueError(f"must be {2 * length} lower-case hex digits")
            return bytes.fromhex(value)
        if not isinstance(value, bytes) or len(value) != length:
            raise ValueError(f"must be {length} bytes")
        return value

    return BeforeValidator(read)


_HEX = PlainSerializer(bytes.hex)
Name = Annotated[str, AfterValidator(check_name)]
Key = Annotated[bytes, _unhexed(KEY_BYTES), _HEX]
Digest = Annotated[bytes, _unhexed(DIGEST_BYTES), _HEX]
Signature = Annotated[bytes, _unhexed(SIGNATURE_BYTES), _HEX]
Sealed = Annotated[bytes, _unhexed(SEALED_BYTES), _HEX]
Share = Annotated[bytes, _unhexed(SHARE_BYTES), _HEX]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; bytes as lower-case hex."""
        return self.model_dump()

    @classmethod
    def from_dict(cls, message: object) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            MalformedMessage: missing or surplus fields, wrong types or lengths.
        """
        try:
            return cls.model_validate(message)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part)[:64] for part in first["loc"])
            raise MalformedMessage(f"{cls.__name__} {where}: {first['msg']}") from None


class Advert(_Message):
    """A domain's two X25519 public keys for one attempt, and a commitment to its self-mask seed.

    `cipher_key` seals shares between domains; `mask_key` agrees on pairwise masks.
    """

    domain: Name
    cipher_key: Key
    mask_key: Key
    seed_digest: Digest
    signature: Signature


class SealedShares(_Message):
    """One holder's shares of a dealer's two secrets: encrypted to one, signed by the other.

    The digests commit the dealer to what is inside, so that a holder who later answers with
    something else, or a dealer whose shares don't belong together, can be named.
    """

    sender: Name
    receiver: Name
    ciphertext: Sealed
    seed_share_digest: Digest
    key_share_digest: Digest
    signature: Signature


class Receipt(_Message):
    """A domain's signature over its masked input.

    Attributes:
        members: the domain itself and those whose pairwise masks are in it, sorted.
        digest: BLAKE3 of the masked elements' little-endian words.
        dealt: `dealt_digest` of the shares that were carried to it. So nobody who deals it one
            thing and shows others another can make it look like the liar.
    """

    domain: Name
    members: tuple[Name, ...]
    digest: Digest
    dealt: Digest
    signature: Signature

    @classmethod
    def from_dict(cls, message: object) -> Self:
        """See `_Message.from_dict`; JSON has lists where this has tuples."""
        if isinstance(message, Mapping) and isinstance(message.get("members"), list):
            message = {**message, "members": tuple(message["members"])}
        return super().from_dict(message)


class Confirmation(_Message):
    """A domain's signature over the set of masked inputs that the total will consist of."""

    domain: Name
    signature: Signature


class Unmasking(_Message):
    """A domain's shares: of every survivor's self-mask seed, of every dropped one's mask key."""

    domain: Name
    seed_shares: dict[Name, Share]
    key_shares: dict[Name, Share]
    signature: Signature


def advert_message(agreement: Agreement, advert: Mapping[str, Any]) -> bytes:
    """What an advert's signature covers."""
    return framed(
        b"coterie-advert-v2",
        agreement.bytes,
        advert["domain"].encode(),
        advert["cipher_key"],
        advert["mask_key"],
        advert["seed_digest"],
    )


def transcript_hash(agreement: Agreement, adverts: Mapping[str, Advert]) -> bytes:
    """SHA-256 over the agreement and all adverts, sorted by domain.

    Shares and masks are bound to it: domains that were shown different adverts can't complete.
    """
    parts = [advert_message(agreement, dict(adverts[name])) for name in sorted(adverts)]
    return hashlib.sha256(framed(b"coterie-transcript-v2", agreement.bytes, *parts)).digest()


def sealed_message(transcript: bytes, sealed: Mapping[str, Any]) -> bytes:
    """What a sealed pair of shares' signature covers."""
    return framed(
        b"coterie-shares-v1",
        transcript,
        sealed["sender"].encode(),
        sealed["receiver"].encode(),
        sealed["ciphertext"],
        sealed["seed_share_digest"],
        sealed["key_share_digest"],
    )


def share_digest(transcript: bytes, kind: bytes, dealer: str, holder: str, share: bytes) -> bytes:
    """Commitment to one share. It hides it: any threshold - 1 shares are uniform in the field."""
    parts = (transcript, kind, dealer.encode(), holder.encode(), share)
    return hashlib.sha256(framed(b"coterie-share-digest-v1", *parts)).digest()


def seed_digest(agreement: Agreement, domain: str, seed: bytes | bytearray) -> bytes:
    """Commitment to a domain's uniform 32-byte self-mask seed."""
    parts = (agreement.bytes, domain.encode(), bytes(seed))
    return hashlib.sha256(framed(b"coterie-seed-digest-v1", *parts)).digest()


def dealt_digest(transcript: bytes, sealed: Iterable[SealedShares]) -> bytes:
    """SHA-256 over all that was dealt to one domain, sorted by dealer."""
    parts = [sealed_message(transcript, dict(s)) for s in sorted(sealed, key=lambda s: s.sender)]
    return hashlib.sha256(framed(b"coterie-dealt-v1", transcript, *parts)).digest()


def receipt_message(transcript: bytes, receipt: Mapping[str, Any]) -> bytes:
    """What a receipt's signature covers."""
    return framed(
        b"coterie-receipt-v2",
        transcript,
        receipt["domain"].encode(),
        receipt["digest"],
        receipt["dealt"],
        *(name.encode() for name in receipt["members"]),
    )


def members_of(receipts: Iterable[Receipt]) -> tuple[str, ...]:
    """All domains that some receipt is masked with, sorted: survivors and dropped ones."""
    return tuple(sorted({name for receipt in receipts for name in receipt.members}))


def confirmation_message(transcript: bytes, receipts: Mapping[str, Receipt]) -> bytes:
    """What every survivor signs: all members, all survivors and all masked inputs of the total."""
    members = members_of(receipts.values())
    parts = [len(members).to_bytes(4, "big"), *(name.encode() for name in members)]
    for name in sorted(receipts):
        parts += [name.encode(), receipts[name].digest]
    return framed(b"coterie-confirmation-v1", transcript, *parts)


def unmasking_message(
    confirmation: bytes,
    domain: str,
    seed_shares: Mapping[str, bytes],
    key_shares: Mapping[str, bytes],
) -> bytes:
    """What an unmasking's signature covers."""
    parts = [confirmation, domain.encode(), len(seed_shares).to_bytes(4, "big")]
    for shares in (seed_shares, key_shares):
        for name in sorted(shares):
            parts += [name.encode(), shares[name]]
    return framed(b"coterie-unmasking-v1", *parts)


def pair_info(transcript: bytes, one: str, other: str) -> bytes:
    """What the pairwise mask of two domains is good for; the same for both."""
    first, second = sorted((one, other))
    return framed(b"coterie-pair-mask-v1", transcript, first.encode(), second.encode())


def self_info(transcript: bytes, domain: str) -> bytes:
    """What a domain's self-mask is good for."""
    return framed(b"coterie-self-mask-v1", transcript, domain.encode())


@lru_cache(maxsize=1024)  # a message is checked when it comes and again with the whole attempt
def is_signed(message: bytes, signature: bytes, node_key: str) -> bool:
    """Whether the node of that key (hex) signed the message."""
    try:
        VerifyKey(bytes.fromhex(node_key)).verify(message, signature)
    except (BadSignatureError, TypeError, ValueError):
        return False
    return True


class Digested(np.ndarray):
    """Octets, uint8 [n], whose BLAKE3 was taken: `digest`. What is made of them has none."""

    digest: bytes | None

    def __array_finalize__(self, _: Any) -> None:
        self.digest = None

    @classmethod
    def of(cls, octets: bytes | memoryview, digest: bytes | None = None) -> Self:
        """Octets, not copied. digest: computed where it isn't given."""
        found = np.frombuffer(octets, np.uint8).view(cls)
        found.digest = blake3(octets).digest() if digest is None else digest
        return found


@dataclass(frozen=True)
class OctetParts:
    """Bytes for the wire that lie in several places, uint8 [n] each: none of them is copied.

    Attributes:
        digests: BLAKE3 of parts, by place, where it is known.
    """

    parts: tuple[NDArray[np.uint8], ...]
    digests: Mapping[int, bytes] = field(default_factory=dict)

    def whole(self) -> NDArray[np.uint8]:
        """A copy of all of them, side by side."""
        return np.concatenate(self.parts)


def pack_masked(
    receipt: Receipt, elements: ring.Elements, begin: int = 0, size: int | None = None
) -> OctetParts:
    """Masked elements and their receipt as bytes for the wire, or a part of these bytes.

    A frame of ring elements, then the receipt as JSON: without its end, what came is a file of the
    elements. `network.smpc.inputs` reads it.

    Args:
        begin, size: which bytes; all of them without.
    """
    head, tail = ring.header(elements), json.dumps(receipt.to_dict()).encode()
    end = begin + size if size is not None else len(head) + elements.nbytes + len(tail)
    parts, at = [], 0
    for each in (np.frombuffer(head, np.uint8), elements.view(np.uint8),
                 np.frombuffer(tail, np.uint8)):  # fmt: skip
        parts.append(each[max(0, begin - at) : max(0, end - at)])
        at += each.size
    whole = parts[1].size == elements.nbytes
    return OctetParts(tuple(parts), {1: receipt.digest} if whole else {})
