"""What domains say to each other in one attempt of a sum under CKKS.

As in `network.smpc.messages`, everything is frozen, read strictly, and signed over the agreement.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer

from network.smpc import ring
from network.smpc.attempt import Agreement, framed
from network.smpc.ckks import seal, tags
from network.smpc.messages import (
    Digest,
    MalformedMessage,
    Name,
    Receipt,
    SharingRefused,
    Signature,
    _Message,
    _unhexed,
)
from policies.homomorphic import DEGREE, Layout, layout_of

_HEAD_BYTES = 2**16


def _public_key(value: object) -> object:
    if isinstance(value, str):
        # The length is compared first, so that a huge value costs nothing.
        if len(value) not in (0, 4 * -(-seal.PUBLIC_KEY_BYTES // 3)):
            raise ValueError(f"must be {seal.PUBLIC_KEY_BYTES} bytes in base64, or nothing")
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("must be base64") from None
    if not isinstance(value, bytes) or len(value) not in (0, seal.PUBLIC_KEY_BYTES):
        raise ValueError(f"must be {seal.PUBLIC_KEY_BYTES} bytes, or none")
    return value


PublicKey = Annotated[
    bytes, BeforeValidator(_public_key), PlainSerializer(lambda key: base64.b64encode(key).decode())
]
Tag = Annotated[bytes, _unhexed(tags.TAG_BYTES), PlainSerializer(bytes.hex)]


class KeyAdvert(_Message):
    """A domain takes part in an attempt; the key holder's advert has the attempt's public key."""

    domain: Name
    public_key: PublicKey
    signature: Signature


class Joining(_Message):
    """A domain takes part under these adverts; it has set the release aside in its ledger."""

    domain: Name
    signature: Signature

    @property
    def sender(self) -> str:
        """Who signed it."""
        return self.domain


class TaggedConfirmation(_Message):
    """A domain's signature over the one set of ciphertexts that may be opened, and their sum.

    Attributes:
        total: BLAKE3 of the sum's words.
        tag: of this domain's own ciphertexts (`network.smpc.ckks.tags`).
    """

    domain: Name
    total: Digest
    tag: Tag
    signature: Signature


class Opening(_Message):
    """The key holder's signature over the total that it decrypted.

    Attributes:
        digest: BLAKE3 of the total's int64 words.
    """

    domain: Name
    digest: Digest
    signature: Signature


def key_holder(agreement: Agreement) -> str:
    """Whose key an attempt is under: the domains take turns, over releases and over attempts.

    Where they begin follows from the plan's hash and the step.
    """
    context = agreement.context
    first = hashlib.sha256(
        framed(b"coterie-ckks-first-holder-v1", bytes.fromhex(context.plan_hash),
               context.step.encode())
    ).digest()  # fmt: skip
    turn = int.from_bytes(first, "big") + context.release + context.attempt
    return agreement.names[turn % len(agreement.names)]


def layout_for(agreement: Agreement) -> Layout:
    """How an attempt's integers are laid into ciphertexts.

    Raises:
        ValueError: no layout is exact; admission refuses such plans.
    """
    layout = layout_of(len(agreement.roster), agreement.bits)
    if layout is None:
        raise ValueError(f"no exact layout for {len(agreement.roster)} domains")
    return layout


def shape_of(agreement: Agreement) -> tuple[int, int, int]:
    """Of one domain's ciphertexts."""
    return layout_for(agreement).ciphertexts(agreement.length), 2, DEGREE


def ciphertexts_bytes(agreement: Agreement) -> int:
    """The size of one domain's ciphertexts as words."""
    return shape_of(agreement)[0] * seal.CIPHERTEXT_BYTES


def advert_message(agreement: Agreement, domain: str, public_key: bytes) -> bytes:
    """What a `KeyAdvert`'s signature covers."""
    return framed(b"coterie-ckks-advert-v1", agreement.bytes, domain.encode(), public_key)


def transcript_hash(agreement: Agreement, adverts: Mapping[str, KeyAdvert]) -> bytes:
    """SHA-256 over the agreement and all adverts: domains shown others can't complete."""
    parts = [advert_message(agreement, n, adverts[n].public_key) for n in sorted(adverts)]
    return hashlib.sha256(framed(b"coterie-ckks-transcript-v1", *parts)).digest()


def joining_message(transcript: bytes, domain: str) -> bytes:
    """What a `Joining`'s signature covers."""
    return framed(b"coterie-ckks-joining-v1", transcript, domain.encode())


def set_message(transcript: bytes, receipts: Mapping[str, Receipt], total: bytes) -> bytes:
    """The one set of ciphertexts to be opened, and the digest of their sum."""
    parts = [part for n in sorted(receipts) for part in (n.encode(), receipts[n].digest)]
    return framed(b"coterie-ckks-set-v1", transcript, total, *parts)


def challenge_of(chosen: bytes) -> bytes:
    """The tags' challenge, from `set_message`."""
    return hashlib.sha256(framed(b"coterie-ckks-challenge-v1", chosen)).digest()


def confirmation_message(chosen: bytes, domain: str, tag: bytes) -> bytes:
    """What a `TaggedConfirmation`'s signature covers."""
    return framed(b"coterie-ckks-confirmation-v1", chosen, domain.encode(), tag)


def opening_message(chosen: bytes, domain: str, digest: bytes) -> bytes:
    """What an `Opening`'s signature covers."""
    return framed(b"coterie-ckks-opening-v1", chosen, domain.encode(), digest)


def pack_ciphertexts(receipt: Receipt, ciphertexts: seal.Residues) -> NDArray[np.uint8]:
    """Ciphertexts and their receipt as one array of bytes: words, then JSON."""
    said = json.dumps(receipt.to_dict()).encode()
    return np.frombuffer(residues_bytes(ciphertexts) + said, dtype=np.uint8)


def pack_opening(opening: Opening, total: NDArray[np.int64]) -> NDArray[np.uint8]:
    """An opening and its total as one array of bytes: length (u32), JSON, ring elements."""
    return _packed(opening.to_dict(), ring.pack(ring.to_ring(total)))


def unpack_opening(agreement: Agreement, received: Any) -> tuple[Opening, NDArray[np.int64]]:
    """Read what `pack_opening` wrote.

    Raises:
        MalformedMessage: it isn't an opening and exactly the agreed number of integers.
    """
    said, content = _unpacked(received)
    try:
        total = ring.from_ring(ring.unpack(content, agreement.length))
    except ring.RingError as error:
        raise MalformedMessage(f"not a total: {error}") from None
    return Opening.from_dict(said), total


def residues_bytes(ciphertexts: seal.Residues) -> bytes:
    """Ciphertexts as little-endian words."""
    return ciphertexts.astype("<u8", copy=False).tobytes()


def read_residues(agreement: Agreement, content: bytes | memoryview) -> seal.Residues:
    """Read what `residues_bytes` wrote; a new array [K, 2, 4096].

    Raises:
        MalformedMessage: not exactly the agreed ciphertexts, or beyond their modulus.
    """
    expected = ciphertexts_bytes(agreement)
    if len(content) != expected:
        raise MalformedMessage(f"{len(content)} bytes of ciphertexts; {expected} expected")
    found = np.frombuffer(content, dtype="<u8").reshape(shape_of(agreement)).copy()
    try:
        seal.check(found)
    except seal.NotResidues as error:
        raise MalformedMessage(str(error)) from None
    return found


def require_all(domains: Sequence[str], expected: Sequence[str], what: str) -> None:
    """Each of the expected domains once, nobody else.

    Raises:
        SharingRefused: names whose message is surplus, double or missing.
    """
    for name in domains:
        if name not in expected or list(domains).count(name) > 1:
            raise SharingRefused(name, f"sent a surplus {what}")
    for name in expected:
        if name not in domains:
            raise SharingRefused(name, f"sent no {what}")


def _packed(said: Mapping[str, Any], content: bytes) -> NDArray[np.uint8]:
    head = json.dumps(said).encode()
    parts = (len(head).to_bytes(4, "little"), head, content)
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def _unpacked(received: Any) -> tuple[Any, memoryview]:
    if not isinstance(received, np.ndarray) or received.dtype != np.uint8 or received.ndim != 1:
        raise MalformedMessage("expected a one-dimensional uint8 array")
    content = np.ascontiguousarray(received).data
    size = int.from_bytes(content[:4], "little")
    if size > _HEAD_BYTES:
        raise MalformedMessage(f"its head has at most {_HEAD_BYTES} bytes")
    try:
        return json.loads(bytes(content[4 : 4 + size])), content[4 + size :]
    except (ValueError, RecursionError):
        raise MalformedMessage("its head isn't JSON") from None
