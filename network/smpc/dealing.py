"""What a dealer deals for one computation of the domains, and what they say to use and check it.

A dealer, who takes no part otherwise, sends each domain a seed, sealed to it, from which all its
shares of some random numbers come; what is missing to the relation that the numbers must have
(c = a b; or that a number is a bit) is a public correction, which the first domain adds. Domains
check the relation before they use any of it: they toss coins, open parts masked by numbers that are
used for nothing else, and find 0 unless the dealer lied. What is dealt and how it is checked is the
`Work`: products in `triples`, dropping digits in `truncation`.

Every message is signed by its domain, over all that was said before, so that whoever carries them
can't change one, and a domain that tells the others different things is noticed. What this doesn't
do: a dealer who colludes with whoever sees the openings reads what was opened under its numbers.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

from network.smpc import wide
from network.smpc.attempt import Agreement, framed
from network.smpc.keys import EphemeralKey
from network.smpc.masks import keystream, mask_key
from network.smpc.messages import (
    _HEX,
    Digest,
    Key,
    MalformedMessage,
    Name,
    SharingRefused,
    Signature,
    _Message,
    _unhexed,
    is_signed,
)
from network.smpc.ring import Elements
from network.smpc.sharing import TensorKey, keys_transcript, sign_key, verify_keys
from network.smpc.wide import Wide

DEALER = "the dealer"
_SEED_BYTES = 32
_SEALED_SEED = 24 + 16 + _SEED_BYTES
_HEAD_BYTES = 2**16

SealedSeed = Annotated[bytes, _unhexed(_SEALED_SEED), _HEX]
Words = NDArray[np.uint64]


class DealerLied(SharingRefused):
    """What was dealt isn't what it must be: the dealer signed it, so it lied (or a domain about
    its part of the check)."""


class Work(Protocol):
    """One kind of computation: pure functions of one domain's shares, flat.

    `parts` are the domain's shares modulo 2^128 of the dealt numbers, of the sizes in `drawn`.
    """

    @property
    def drawn(self) -> Sequence[int]:
        """How many numbers modulo 2^128 each part has."""

    @property
    def corrected(self) -> tuple[int, int]:
        """The two parts that corrections are added to, of the same size."""

    @property
    def coins(self) -> int:
        """How many words of coins the check takes."""

    @property
    def masked(self) -> int:
        """How many numbers modulo 2^128 are opened for the check."""

    @property
    def opened(self) -> int:
        """How many words are opened for the result."""

    @property
    def checked(self) -> int:
        """How many numbers modulo 2^128 must be 0."""

    def corrections(self, parts: Sequence[Wide]) -> Wide:
        """What corrects the sums of everybody's parts: [2, m, 2]."""

    def mask(self, parts: Sequence[Wide], coins: Words) -> Wide:
        """Our part of what is opened for the check."""

    def differences(self, parts: Sequence[Wide], inputs: Sequence[Elements]) -> Words:
        """Our part of what is opened for the result: uniform, whatever the inputs."""

    def check(self, parts: Sequence[Wide], coins: Words, masked: Wide) -> Wide:
        """Our part of what must be 0."""

    def result(self, parts: Sequence[Wide], opened: Words, first: bool) -> Elements:
        """Our share of the result; public parts are added by the first domain."""


class Dealt(_Message):
    """What a dealer deals for one computation.

    Attributes:
        key: the dealer's fresh X25519 key.
        seeds: each domain's seed, sealed to it.
        digest: BLAKE3 of the corrections.
    """

    key: Key
    seeds: dict[Name, SealedSeed]
    digest: Digest
    signature: Signature


class Said(_Message):
    """A domain's signature over what it says in one phase of a computation.

    Attributes:
        digest: BLAKE3 of the words; of "coin", the coin itself.
    """

    domain: Name
    digest: Digest
    signature: Signature


def deal(
    agreement: Agreement,
    work: Work,
    keys: Sequence[TensorKey],
    dealer_key: Ed25519PrivateKey,
) -> tuple[Dealt, Words]:
    """What one computation takes, for domains whose keys these are.

    Returns:
        What all domains get, and the corrections for the first of them: uint64 [2, m, 2].

    Raises:
        SharingRefused: a key is missing or not signed for this computation.
    """
    known = verify_keys(agreement, keys)
    transcript = keys_transcript(agreement, known)
    own, sealed, sums = EphemeralKey.generate(), {}, None
    for name, key in known.items():
        seed = os.urandom(_SEED_BYTES)
        sealed[name] = own.seal(seed, key.key)
        part = _expanded(seed, transcript, name, work)
        sums = part if sums is None else [wide.add(*pair) for pair in zip(sums, part, strict=True)]
    assert sums is not None
    corrections = work.corrections(sums)
    digest = digest_of_words(corrections)
    signature = dealer_key.sign(_dealt_message(transcript, own.public_key, sealed, digest))
    own.erase()
    return Dealt(key=own.public_key, seeds=sealed, digest=digest, signature=signature), corrections


class Computation:
    """One domain's part in one computation. Its steps come in order, each once:

        key -> take -> opening -> hear (the others') -> check -> hear (the others') -> result

    Args:
        agreement: on this one computation.
        dealer: the Ed25519 key, hex, of the plan's dealer.
        inputs: this domain's shares of what is computed with, flat.
    """

    def __init__(
        self,
        me: str,
        agreement: Agreement,
        signing_key: Ed25519PrivateKey,
        dealer: str,
        work: Work,
        inputs: Sequence[Elements],
    ) -> None:
        self.me = me
        self.agreement = agreement
        self.work = work
        self._signing_key = signing_key
        self._dealer = dealer
        self._inputs = inputs
        self._key = EphemeralKey.generate()
        self.signed_key = sign_key(me, agreement, self._key, signing_key)
        self._phase = "key"
        self._first = me == agreement.names[0]
        self._heard: dict[str, bytes] = {}
        self._total = np.zeros(0, np.uint64)
        self.transcript = b""

    def take(self, keys: Sequence[TensorKey], dealt: Dealt, corrections: Words) -> Said:
        """Take our shares of what was dealt; gives a coin, signed over it.

        Args:
            corrections: uint64 [2, m, 2]; the first domain needs them, others may get none.

        Raises:
            SharingRefused: the keys or what was dealt aren't of this computation, or not for us.
        """
        self._turn("key", "take")
        known = verify_keys(self.agreement, keys)
        if known[self.me] != self.signed_key:
            raise SharingRefused(self.me, "the key under our own name isn't of this computation")
        heard = keys_transcript(self.agreement, known)
        message = _dealt_message(heard, dealt.key, dealt.seeds, dealt.digest)
        if not is_signed(message, dealt.signature, self._dealer):
            why = "isn't signed for this computation by the plan's dealer: is it at this address?"
            raise SharingRefused(DEALER, f"what it dealt {why}")
        if set(dealt.seeds) != set(known):
            raise SharingRefused(DEALER, "it dealt to others than the roster")
        try:
            seed = self._key.open(dealt.seeds[self.me], dealt.key)
        except (CryptoError, TypeError, ValueError):
            raise SharingRefused(
                DEALER, "the seed it signed can't be opened with our key"
            ) from None
        self._key.erase()
        self._parts = _expanded(seed, heard, self.me, self.work)
        if self._first:
            one, other = self.work.corrected
            if digest_of_words(corrections) != dealt.digest or corrections.shape != (
                2,
                self.work.drawn[one],
                2,
            ):
                raise SharingRefused(DEALER, "these aren't the corrections that it signed")
            self._parts[one] = wide.add(self._parts[one], corrections[0])
            self._parts[other] = wide.add(self._parts[other], corrections[1])
        self.transcript = hashlib.sha256(framed(b"coterie-triple-v1", heard, message)).digest()
        return self._say("coin", os.urandom(_SEED_BYTES))

    def opening(self, coins: Sequence[Said]) -> tuple[Said, Words]:
        """Our part of what is opened: a signature and the words.

        Raises:
            SharingRefused: a domain's coin is missing or not signed for what was dealt.
        """
        self._turn("take", "opening")
        known = {coin.domain: coin for coin in coins}
        if len(known) != len(coins) or tuple(sorted(known)) != self.agreement.names:
            raise SharingRefused(self.me, "every domain's coin is needed, once")
        for name, coin in known.items():
            self._verify("coin", name, coin)
        tossed = [known[name].digest for name in self.agreement.names]
        seed = hashlib.sha256(framed(b"coterie-challenge-v1", self.transcript, *tossed)).digest()
        self._coins = keystream(seed, self.work.coins)
        masked = self.work.mask(self._parts, self._coins)
        return self._told("opening", np.concatenate([masked.reshape(-1), self.differences()]))

    def differences(self) -> Words:
        """Our part of what is opened for the result, which is uniform."""
        return self.work.differences(self._parts, self._inputs)

    def hear(self, said: Said, words: Words) -> None:
        """Take what one other domain says in this phase.

        Raises:
            SharingRefused: it isn't signed for this phase of this computation, or there twice.
        """
        name = said.domain
        if self._phase not in ("opening", "check"):
            raise SharingRefused(self.me, "nothing is to be heard in this phase")
        self._verify(self._phase, name, said)
        if name in self._heard or digest_of_words(words) != said.digest:
            raise SharingRefused(name, f"its {self._phase} is there twice, or not what it signed")
        if words.shape != self._total.shape:
            raise SharingRefused(name, f"it signed an {self._phase} of another length")
        self._add(name, said.digest, words)

    def check(self) -> tuple[Said, Words]:
        """Our part of what must be 0, once everybody's opening was heard.

        Raises:
            SharingRefused: a domain's opening is missing.
        """
        opened = self._everybodys("opening", "check")
        digests = [self._heard[name] for name in sorted(self._heard)]
        # Whoever told two domains different openings has their checks refused by each other.
        bound = framed(b"coterie-opened-v1", self.transcript, *digests)
        self.transcript = hashlib.sha256(bound).digest()
        at = 2 * self.work.masked
        self._opened = opened[at:].copy()
        zeros = self.work.check(self._parts, self._coins, opened[:at].reshape(-1, 2))
        return self._told("check", zeros.reshape(-1))

    def result(self) -> Elements:
        """Our share of the result, flat, once everybody's check was heard.

        Raises:
            DealerLied: something isn't 0; nothing was made with what was dealt.
            SharingRefused: a domain's check is missing.
        """
        if self._everybodys("check", "result").any():
            raise DealerLied(DEALER, "what it signed isn't what it must be")
        return self.combined()

    def combined(self) -> Elements:
        """Our share of the result: what is left once what was dealt is checked."""
        return self.work.result(self._parts, self._opened, self._first)

    def _everybodys(self, phase: str, following: str) -> Words:
        """The sum of what everybody said; of numbers modulo 2^128 in the check's words."""
        missing = [name for name in self.agreement.names if name not in self._heard]
        if missing and self._phase == phase:
            raise SharingRefused(missing[0], f"its {phase} is missing")
        self._turn(phase, following)
        return self._total

    def _add(self, name: str, digest: bytes, words: Words) -> None:
        """Into the sum, so that no domain's words are kept."""
        self._heard[name] = digest
        at = 2 * (self.work.masked if self._phase == "opening" else self.work.checked)
        numbers = self._total[:at].reshape(-1, 2)
        wide.add_to(numbers, words[:at].reshape(-1, 2))
        self._total[at:] += words[at:]

    def _turn(self, expected: str, following: str) -> None:
        if self._phase != expected:
            raise SharingRefused(self.me, f"'{following}' comes after '{expected}', once")
        self._phase = following

    def _told(self, phase: str, words: Words) -> tuple[Said, Words]:
        said = self._say(phase, digest_of_words(words))
        self._heard = {self.me: said.digest}
        self._total = words.copy()
        return said, words

    def _say(self, phase: str, digest: bytes) -> Said:
        message = _said_message(self.transcript, phase, self.me, digest)
        return Said(domain=self.me, digest=digest, signature=self._signing_key.sign(message))

    def _verify(self, phase: str, name: str, said: Said) -> None:
        message = _said_message(self.transcript, phase, name, said.digest)
        if not is_signed(message, said.signature, self.agreement.roster.get(name, "")):
            raise SharingRefused(name, f"its {phase} isn't signed for this computation")


def narrow(words: Words) -> Wide:
    """Words as numbers modulo 2^128."""
    return np.stack([words, np.zeros_like(words)], axis=-1)


def digest_of_words(words: NDArray[np.uint64]) -> bytes:
    """BLAKE3 of little-endian words, 32 bytes."""
    return blake3(np.ascontiguousarray(words, "<u8").reshape(-1).view(np.uint8).data).digest()


def pack(said: Mapping[str, object], words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """A message and words as octets: the message's length (u32), the message as JSON, the words."""
    head = json.dumps(said).encode()
    body = np.ascontiguousarray(words, "<u8").view(np.uint8).reshape(-1)
    first = np.frombuffer(len(head).to_bytes(4, "little") + head, np.uint8)
    return np.concatenate([first, body])


def unpack(octets: object) -> tuple[object, Words]:
    """Read what `pack` wrote.

    Raises:
        MalformedMessage: it isn't a message and whole words.
    """
    if not isinstance(octets, np.ndarray) or octets.dtype != np.uint8 or octets.ndim != 1:
        raise MalformedMessage("expected octets")
    content = octets.tobytes()
    size = int.from_bytes(content[:4], "little")
    if len(content) < 4 or size > _HEAD_BYTES or (len(content) - 4 - size) % 8:
        raise MalformedMessage("expected a message and 64-bit words")
    try:
        said = json.loads(content[4 : 4 + size])
    except (ValueError, RecursionError):
        raise MalformedMessage("the message before the words isn't JSON") from None
    return said, np.frombuffer(content, "<u8", offset=4 + size)


def _expanded(seed: bytes, transcript: bytes, name: str, work: Work) -> list[Wide]:
    """One domain's shares of all that is dealt, from its seed."""
    key = mask_key(seed, framed(b"coterie-triple-seed-v1", transcript, name.encode()))
    words = keystream(key, 2 * sum(work.drawn)).reshape(-1, 2)
    return np.split(words, np.cumsum(work.drawn)[:-1])


def _dealt_message(
    transcript: bytes, key: bytes, seeds: Mapping[str, bytes], digest: bytes
) -> bytes:
    parts = [part for name in sorted(seeds) for part in (name.encode(), seeds[name])]
    return framed(b"coterie-dealt-v1", transcript, key, digest, *parts)


def _said_message(transcript: bytes, phase: str, domain: str, digest: bytes) -> bytes:
    return framed(b"coterie-product-v1", transcript, phase.encode(), domain.encode(), digest)
