"""One attempt of one private sum: additive sharing among all domains of a roster.

Every domain i holds a vector x_i. For every peer j it draws a seed s_ij, sends it end-to-end
encrypted to j, and keeps the remainder. After the exchange its share of the sum is

    share_i = x_i - sum_j G(s_ij) + sum_j G(s_ji)    (mod 2^64)

Each G(s_ij) is subtracted once, by i, and added once, by j, so the shares add up to sum_i x_i.
Any set of shares short of all of them is uniform, given the total, to whoever misses a single
seed: a coalition learns only the sum of the vectors of the domains outside it.

Sources: n-out-of-n additive secret sharing (Ito, Saito and Nishizeki 1987; Cramer, Damgård and
Nielsen 2015, section 3.2); shares as PRG-expanded seeds sent over keys agreed for one round:
Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
sections 3 and 4 (without its recovery of dropped parties: here, whoever is missing ends the
attempt). X25519: RFC 7748, in NaCl's crypto_box. Ed25519: RFC 8032. HKDF-SHA256: RFC 5869.
AES-256 in counter mode: NIST SP 800-38A, section 6.5.

Pure functions: nothing here opens a connection, a file or a ledger. The caller charges the ledger
before a share leaves the node, makes a new `EphemeralKey` for every attempt and erases it after.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Self

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl import bindings
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

from network.smpc import ring

SEED_BYTES = 32
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_NONCE_BYTES = bindings.crypto_box_NONCEBYTES
_CIPHERTEXT_BYTES = _NONCE_BYTES + 16 + SEED_BYTES
_NAME_BYTES = 64
_COUNTER_LIMIT = 2**32


class SharingRefused(Exception):
    """The attempt ends here: what one domain sent can't be used.

    Attributes:
        culprit: name of the domain whose message was missing, surplus or wrong. Whoever carried
            the message may have caused it; this says where to look, not who is guilty.
    """

    def __init__(self, culprit: str, reason: str) -> None:
        super().__init__(f"{culprit}: {reason}")
        self.culprit = culprit


class MalformedMessage(ValueError):
    """A message isn't a well-formed advert or sealed seed; the text says which field and why."""


@dataclass(frozen=True)
class Context:
    """The one attempt that keys, seeds and signatures are good for.

    Attributes:
        plan_hash: SHA-256 of the plan, 64 lower-case hex characters. It binds the roster.
        step: name of the plan's step, 1 to 64 bytes of UTF-8.
        release: index of the release within the step, from 0.
        attempt: index of the attempt at that release, from 0.

    Raises:
        ValueError: a field is out of these bounds.
    """

    plan_hash: str
    step: str
    release: int
    attempt: int

    def __post_init__(self) -> None:
        _require_hex("plan_hash", self.plan_hash, 32)
        _require_name("step", self.step)
        for name, value in (("release", self.release), ("attempt", self.attempt)):
            if type(value) is not int or not 0 <= value < _COUNTER_LIMIT:
                raise ValueError(f"{name} must be an integer from 0 to {_COUNTER_LIMIT - 1}")

    @property
    def bytes(self) -> bytes:
        """Canonical bytes: two contexts have the same ones only if they are equal."""
        return _framed(
            b"coterie-context-v1",
            bytes.fromhex(self.plan_hash),
            self.step.encode(),
            self.release.to_bytes(4, "big"),
            self.attempt.to_bytes(4, "big"),
        )


class EphemeralKey:
    """A domain's X25519 key pair for one attempt (RFC 7748). Erase it when the attempt ends.

    Erasing overwrites our copy; copies that libraries made live until their memory is reused.
    """

    def __init__(self, secret: bytearray) -> None:
        """Take over `secret` (32 random bytes); it is zeroed by `erase`."""
        if len(secret) != _KEY_BYTES:
            raise ValueError(f"an X25519 secret key has {_KEY_BYTES} bytes, got {len(secret)}")
        self._secret = secret
        self._erased = False
        self.public_key: bytes = bindings.crypto_scalarmult_base(bytes(secret))

    @classmethod
    def generate(cls) -> Self:
        """A fresh key from the operating system's random source."""
        return cls(bytearray(os.urandom(_KEY_BYTES)))

    def advert(self, domain: str, context: Context, signing_key: Ed25519PrivateKey) -> "Advert":
        """Announce this key's public half for one attempt, signed with the node's key."""
        self._require_alive()
        message = _advert_message(context, domain, self.public_key)
        return Advert(domain, self.public_key, signing_key.sign(message))

    def seal(self, seed: bytearray, receiver_key: bytes) -> bytes:
        """Encrypt a seed to a peer's ephemeral key: nonce, then NaCl crypto_box."""
        self._require_alive()
        nonce = os.urandom(_NONCE_BYTES)
        box: bytes = bindings.crypto_box(bytes(seed), nonce, receiver_key, bytes(self._secret))
        return nonce + box

    def open(self, ciphertext: bytes, sender_key: bytes) -> bytearray:
        """Decrypt what `seal` made.

        Raises:
            nacl.exceptions.CryptoError: it wasn't made by the holder of `sender_key` for us.
        """
        self._require_alive()
        nonce, box = ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:]
        return bytearray(bindings.crypto_box_open(box, nonce, sender_key, bytes(self._secret)))

    def erase(self) -> None:
        """Overwrite the secret with zeros. The key can't be used any more."""
        _zero(self._secret)
        self._erased = True

    def _require_alive(self) -> None:
        if self._erased:
            raise ValueError("this ephemeral key was erased; start a new attempt with a fresh key")

    def __repr__(self) -> str:
        return f"EphemeralKey(public_key={self.public_key.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an ephemeral key must not leave its process")


@dataclass(frozen=True)
class Advert:
    """A domain's ephemeral public key for one attempt, signed with its node's Ed25519 key."""

    domain: str
    public_key: bytes
    signature: bytes

    def to_dict(self) -> dict[str, str]:
        """As JSON-able values; bytes as lower-case hex."""
        return {
            "domain": self.domain,
            "public_key": self.public_key.hex(),
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_dict(cls, message: object) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            MalformedMessage: missing or surplus fields, wrong types or lengths.
        """
        fields = _fields(message, ("domain", "public_key", "signature"))
        return cls(
            domain=_name(fields, "domain"),
            public_key=_hex(fields, "public_key", _KEY_BYTES),
            signature=_hex(fields, "signature", _SIGNATURE_BYTES),
        )


@dataclass(frozen=True)
class SealedSeed:
    """A seed on its way from `sender` to `receiver`: encrypted to one, signed by the other."""

    sender: str
    receiver: str
    ciphertext: bytes
    signature: bytes

    def to_dict(self) -> dict[str, str]:
        """As JSON-able values; bytes as lower-case hex."""
        return {
            "sender": self.sender,
            "receiver": self.receiver,
            "ciphertext": self.ciphertext.hex(),
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_dict(cls, message: object) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            MalformedMessage: missing or surplus fields, wrong types or lengths.
        """
        fields = _fields(message, ("sender", "receiver", "ciphertext", "signature"))
        return cls(
            sender=_name(fields, "sender"),
            receiver=_name(fields, "receiver"),
            ciphertext=_hex(fields, "ciphertext", _CIPHERTEXT_BYTES),
            signature=_hex(fields, "signature", _SIGNATURE_BYTES),
        )


def verify_adverts(
    adverts: Sequence[Advert], roster: Mapping[str, str], context: Context
) -> dict[str, Advert]:
    """Check that the adverts are exactly the roster's, made for this attempt.

    Args:
        adverts: in any order.
        roster: every domain's name and its node's Ed25519 key (64 hex characters).
        context: the attempt the adverts must be signed for.

    Returns:
        The adverts by domain, sorted by name.

    Raises:
        SharingRefused: a domain is missing, unknown or there twice, its signature is wrong, its
            public key is another's or of low order (RFC 7748, section 6.1).
    """
    if len(roster) < 2:
        raise ValueError("sharing needs a roster of at least two domains")
    known: dict[str, Advert] = {}
    owners: dict[bytes, str] = {}
    for advert in adverts:
        if advert.domain not in roster:
            raise SharingRefused(advert.domain, "sent an advert but isn't on the roster")
        if advert.domain in known:
            raise SharingRefused(advert.domain, "sent more than one advert for this attempt")
        _verify_advert(advert, roster[advert.domain], context)
        if advert.public_key in owners:
            raise SharingRefused(
                advert.domain, f"uses the same public key as {owners[advert.public_key]}"
            )
        known[advert.domain] = advert
        owners[advert.public_key] = advert.domain
    for domain in sorted(roster):
        if domain not in known:
            raise SharingRefused(domain, "sent no advert for this attempt")
    return {domain: known[domain] for domain in sorted(known)}


def split(
    value: NDArray[np.int64],
    *,
    me: str,
    roster: Mapping[str, str],
    adverts: Sequence[Advert],
    ephemeral: EphemeralKey,
    context: Context,
    signing_key: Ed25519PrivateKey,
) -> tuple[NDArray[np.uint64], dict[str, SealedSeed]]:
    """Split this domain's vector: a remainder to keep, one sealed seed for every peer.

    own = value - sum_j G(s_ij), with a fresh seed s_ij for every peer j.

    Args:
        value: int64 array of shape [P]; clipped, quantised and noised already.
        me: this domain's name on the roster.
        roster: every domain's name and its node's Ed25519 key (64 hex characters).
        adverts: one of every domain on the roster; they are verified here.
        ephemeral: this attempt's key, the one in this domain's own advert.
        context: the attempt.
        signing_key: this node's Ed25519 key.

    Returns:
        The remainder (uint64, shape [P]; it stays here) and the sealed seeds by receiver.

    Raises:
        SharingRefused: the adverts aren't the roster's (see `verify_adverts`), or the one under
            this domain's name isn't of `ephemeral`.
        ring.RingError: `value` isn't a one-dimensional int64 array.
    """
    known = _verified(adverts, roster, context, me, ephemeral)
    transcript = transcript_hash(known, context)
    own = ring.to_ring(value)
    sealed: dict[str, SealedSeed] = {}
    for peer in _peers(known, me):
        seed = bytearray(os.urandom(SEED_BYTES))
        own -= expand(seed, own.size, context, me, peer, transcript)
        ciphertext = ephemeral.seal(seed, known[peer].public_key)
        _zero(seed)
        message = _seed_message(context, me, peer, transcript, ciphertext)
        sealed[peer] = SealedSeed(me, peer, ciphertext, signing_key.sign(message))
    return own, sealed


def combine(
    own: NDArray[np.uint64],
    sealed_from_peers: Iterable[SealedSeed],
    *,
    me: str,
    roster: Mapping[str, str],
    adverts: Sequence[Advert],
    ephemeral: EphemeralKey,
    context: Context,
) -> NDArray[np.uint64]:
    """This domain's share of the sum: own + sum_j G(s_ji).

    Args:
        own: the remainder from `split`, uint64 of shape [P]; left as it is.
        sealed_from_peers: exactly one of every other domain, in any order.
        me, roster, adverts, ephemeral, context: as given to `split`.

    Returns:
        A new uint64 array of shape [P]. Charge the ledger durably before it leaves the node.

    Raises:
        SharingRefused: a seed is missing, there twice, from a stranger, for another domain,
            wrongly signed (also: for another attempt or other adverts) or can't be opened.
    """
    known = _verified(adverts, roster, context, me, ephemeral)
    transcript = transcript_hash(known, context)
    seeds = _one_from_each(sealed_from_peers, _peers(known, me))
    for peer, sealed in seeds.items():
        _verify_seed(sealed, roster[peer], context, me, transcript)
    share = ring.add(own, np.zeros_like(own))
    for peer, sealed in seeds.items():
        seed = _opened(sealed, ephemeral, known[peer])
        share += expand(seed, share.size, context, peer, me, transcript)
        _zero(seed)
    return share


def reveal(shares: Mapping[str, NDArray[np.uint64]], roster: Iterable[str]) -> NDArray[np.int64]:
    """The total, from exactly the roster's shares.

    Args:
        shares: every domain's share, uint64 of shape [P] each.
        roster: the domains' names (a mapping by name will do).

    Returns:
        int64 array of shape [P]: the sum of all domains' vectors, if that fits 64 bits.

    Raises:
        SharingRefused: a share is missing, from a stranger, or of another shape or dtype.
    """
    names = sorted(set(roster))
    if not names:
        raise ValueError("the roster is empty")
    for domain in sorted(set(shares) - set(names)):
        raise SharingRefused(domain, "sent a share but isn't on the roster")
    total: NDArray[np.uint64] | None = None
    for domain in names:
        if domain not in shares:
            raise SharingRefused(domain, "sent no share")
        try:
            zero = np.zeros_like(shares[domain]) if total is None else total
            total = ring.add(zero, shares[domain])
        except ring.RingError as error:
            raise SharingRefused(domain, f"sent a share that doesn't fit: {error}") from None
    assert total is not None  # names isn't empty
    return ring.from_ring(total)


def transcript_hash(adverts: Mapping[str, Advert], context: Context) -> bytes:
    """SHA-256 over the attempt's context and all its adverts, sorted by domain.

    Seeds are bound to it, so domains that were shown different adverts can't complete.
    """
    parts: list[bytes] = []
    for domain in sorted(adverts):
        advert = adverts[domain]
        parts += [domain.encode(), advert.public_key, advert.signature]
    return hashlib.sha256(_framed(b"coterie-transcript-v1", context.bytes, *parts)).digest()


def expand(
    seed: bytes | bytearray,
    length: int,
    context: Context,
    sender: str,
    receiver: str,
    transcript: bytes,
) -> NDArray[np.uint64]:
    """The generator G: a seed as `length` uniform ring elements.

    The AES-256-CTR keystream (NIST SP 800-38A) under a key that HKDF-SHA256 (RFC 5869) derives
    from the seed, with the attempt, the direction and the adverts as info: a seed that turned up
    twice would still give two unrelated keystreams. One key encrypts one stream, so the counter
    block starts at zero.

    Returns:
        uint64 array of shape [length].
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, got {len(seed)}")
    info = _framed(
        b"coterie-mask-v1", context.bytes, sender.encode(), receiver.encode(), transcript
    )
    key = HKDF(hashes.SHA256(), length=32, salt=None, info=info).derive(bytes(seed))
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    keystream = stream.update(bytes(length * ring.WORD.itemsize))
    return np.frombuffer(keystream, dtype=ring.WORD).astype(np.uint64, copy=False)


def _verified(
    adverts: Sequence[Advert],
    roster: Mapping[str, str],
    context: Context,
    me: str,
    ephemeral: EphemeralKey,
) -> dict[str, Advert]:
    if me not in roster:
        raise ValueError(f"{me} isn't on the roster")
    known = verify_adverts(adverts, roster, context)
    # Our own, older advert may have been replayed after a restart within the same attempt.
    if known[me].public_key != ephemeral.public_key:
        raise SharingRefused(me, "the advert under our own name isn't of this attempt's key")
    return known


def _verify_advert(advert: Advert, node_key: str, context: Context) -> None:
    message = _advert_message(context, advert.domain, advert.public_key)
    if not _is_signed(message, advert.signature, node_key):
        raise SharingRefused(
            advert.domain, "its advert isn't signed for this attempt by its node's key"
        )
    try:
        # libsodium fails on points that would make the shared secret zero for any key.
        bindings.crypto_scalarmult(bytes(range(1, 33)), advert.public_key)
    except (CryptoError, TypeError, ValueError):
        raise SharingRefused(advert.domain, "its public key isn't a usable X25519 key") from None


def _verify_seed(
    sealed: SealedSeed, node_key: str, context: Context, me: str, transcript: bytes
) -> None:
    if sealed.receiver != me:
        raise SharingRefused(sealed.sender, f"sent {me} a seed that is meant for another domain")
    message = _seed_message(context, sealed.sender, me, transcript, sealed.ciphertext)
    if not _is_signed(message, sealed.signature, node_key):
        raise SharingRefused(
            sealed.sender, "its seed isn't signed by its node's key for this attempt and adverts"
        )


def _opened(sealed: SealedSeed, ephemeral: EphemeralKey, sender: Advert) -> bytearray:
    try:
        seed = ephemeral.open(sealed.ciphertext, sender.public_key)
    except (CryptoError, TypeError, ValueError):
        raise SharingRefused(sealed.sender, "its seed can't be opened with our key") from None
    if len(seed) != SEED_BYTES:
        raise SharingRefused(sealed.sender, f"its seed hasn't {SEED_BYTES} bytes")
    return seed


def _one_from_each(
    sealed_from_peers: Iterable[SealedSeed], peers: Sequence[str]
) -> dict[str, SealedSeed]:
    seeds: dict[str, SealedSeed] = {}
    for sealed in sealed_from_peers:
        if sealed.sender not in peers:
            raise SharingRefused(sealed.sender, "sent a seed but isn't a peer on the roster")
        if sealed.sender in seeds:
            raise SharingRefused(sealed.sender, "sent more than one seed for this attempt")
        seeds[sealed.sender] = sealed
    for peer in peers:
        if peer not in seeds:
            raise SharingRefused(peer, "sent no seed for this attempt")
    return seeds


def _peers(known: Mapping[str, Advert], me: str) -> list[str]:
    return [domain for domain in sorted(known) if domain != me]


def _advert_message(context: Context, domain: str, public_key: bytes) -> bytes:
    return _framed(b"coterie-advert-v1", context.bytes, domain.encode(), public_key)


def _seed_message(
    context: Context, sender: str, receiver: str, transcript: bytes, ciphertext: bytes
) -> bytes:
    return _framed(
        b"coterie-seed-v1",
        context.bytes,
        sender.encode(),
        receiver.encode(),
        transcript,
        ciphertext,
    )


def _framed(label: bytes, *parts: bytes) -> bytes:
    """Label and parts, each after its length: no two lists of parts give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (label, *parts))


def _is_signed(message: bytes, signature: bytes, node_key: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(node_key)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _zero(secret: bytearray) -> None:
    secret[:] = bytes(len(secret))


def _fields(message: object, names: tuple[str, ...]) -> dict[str, str]:
    if not isinstance(message, dict):
        raise MalformedMessage(f"expected an object with {', '.join(names)}")
    if set(message) != set(names):
        raise MalformedMessage(f"expected exactly the fields {', '.join(names)}")
    for name in names:
        if not isinstance(message[name], str):
            raise MalformedMessage(f"{name} must be a string")
    return message


def _name(fields: Mapping[str, str], field: str) -> str:
    try:
        _require_name(field, fields[field])
    except ValueError as error:
        raise MalformedMessage(str(error)) from None
    return fields[field]


def _hex(fields: Mapping[str, str], field: str, length: int) -> bytes:
    try:
        _require_hex(field, fields[field], length)
    except ValueError as error:
        raise MalformedMessage(str(error)) from None
    return bytes.fromhex(fields[field])


def _require_name(field: str, value: str) -> None:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ValueError(f"{field} must be printable text")
    if len(value) > _NAME_BYTES or len(value.encode()) > _NAME_BYTES:
        raise ValueError(f"{field} may have at most {_NAME_BYTES} bytes")


def _require_hex(field: str, value: str, length: int) -> None:
    # The length is compared first, so that a huge value costs nothing.
    digits = 2 * length
    if not isinstance(value, str) or len(value) != digits or not re.fullmatch("[0-9a-f]+", value):
        raise ValueError(f"{field} must be {digits} lower-case hex digits")
