"""Secret products by Beaver's triples, with a dealer who is caught if it lies.

Beaver 1991, "Efficient Multiparty Protocols Using Circuit Randomization": with shares of random a
and b and of c = a b, domains open d = x - a and e = y - b, which are uniform, and

    x y = c + d b + a e + d e

is linear in what stays shared. The product is elementwise or of matrices, modulo 2^64, exact: there
is no truncation, so the unit of a product is the product of the units.

A dealer, who takes no part otherwise, chooses the triples: from a seed for each domain, sealed to
it, come all its shares, and what is missing to c = a b is a public correction. Domains check them
before they use any: by sacrifice (SPDZ: Damgard, Pastro, Smart, Zakarias 2012) of a second triple
with the same b (MASCOT: Keller, Orsini, Scholl 2016), modulo 2^(k+s) so that it holds in a ring
(SPDZ2k: Cramer, Damgard, Escudero, Scholl, Xing 2018). (a, b, c) and (a', b, c') are modulo 2^128.
Then everybody tosses coins, which give r and v in [0, 2^64), and domains open

    rho = r a - a'        tau = (r c - c' - rho b) v        which is 0 if c = a b and c' = a' b

for two columns v (of elementwise products, the sum over all elements). If c is wrong modulo 2^64,
some entry of r (c - a b) - (c' - a' b) is divisible by 2^(64+u) with probability at most 2^-u over
r, since that fixes u bits of it; if it isn't, each column hides it with probability at most
2^(u-64). With u = 42 a lie passes with probability below 2^-41.

Every message is signed by its domain, so that whoever carries d and e can't shift them: a shifted d
would give (x + shift) y. What this doesn't do: a dealer who colludes with whoever sees d and e
reads x and y; a domain that lies about its own x shifts it as well.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

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
from network.smpc.ring import Elements, matmul
from network.smpc.sharing import TensorKey, keys_transcript, sign_key, verify_keys
from network.smpc.wide import Wide

DEALER = "the dealer"
_SEED_BYTES = 32
_SEALED_SEED = 24 + 16 + _SEED_BYTES
_HEAD_BYTES = 2**16
_COLUMNS = 2

SealedSeed = Annotated[bytes, _unhexed(_SEALED_SEED), _HEX]


class DealerLied(SharingRefused):
    """The triples aren't products: the dealer signed them, so it lied (or a domain about tau)."""


@dataclass(frozen=True)
class Factors:
    """What is multiplied: shapes, and whether as matrices."""

    x: tuple[int, ...]
    y: tuple[int, ...]
    matrices: bool

    @property
    def z(self) -> tuple[int, ...]:
        return self.x[:-1] + self.y[1:] if self.matrices else self.x

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Elements of x, y and their product."""
        x, y, z = (math.prod(shape) for shape in (self.x, self.y, self.z))
        return x, y, z

    def digest(self, x: str, y: str) -> str:
        """SHA-256 of the operands of these names, hex."""
        shapes = json.dumps([self.x, self.y, self.matrices]).encode()
        parts = (x.encode(), y.encode(), shapes)
        return hashlib.sha256(framed(b"coterie-operands-v1", *parts)).hexdigest()

    def times(self, x: Elements, y: Elements) -> Elements:
        """x y of flat elements modulo 2^64, flat."""
        if not self.matrices:
            return x * y
        return matmul(x.reshape(self.x), y.reshape(self.y)).reshape(-1)

    def times_wide(self, x: Wide, y: Wide) -> Wide:
        """x y of flat elements modulo 2^128, flat."""
        if not self.matrices:
            return wide.mul(x, y)
        (m, k, n) = self.as_matrices
        found = wide.matmul(x.reshape(m, k, 2), y.reshape(k, n, 2))
        return found.reshape(-1, 2)

    def projected(self, z: Wide, column: Wide) -> Wide:
        """z times a column: [m, 2], m the rows of a matrix, 1 of elementwise products."""
        m, _, n = self.as_matrices
        return wide.total(wide.mul(z.reshape(m, n, 2), column), axis=1)

    def times_projected(self, x: Wide, y: Wide, column: Wide) -> Wide:
        """(x y) times a column, by way of y times the column: [m, 2]."""
        m, k, n = self.as_matrices
        if not self.matrices:
            return wide.total(wide.mul(wide.mul(x, column), y), axis=0).reshape(1, 2)
        right = wide.total(wide.mul(y.reshape(k, n, 2), column), axis=1)
        return wide.total(wide.mul(x.reshape(m, k, 2), right), axis=1)

    @property
    def as_matrices(self) -> tuple[int, int, int]:
        """m, k, n of an [m, k] times a [k, n] matrix; elementwise products are one row."""
        if not self.matrices:
            return 1, 1, self.sizes[0]
        return (self.x[0] if len(self.x) == 2 else 1), self.y[0], self.sizes[1] // self.y[0]


class Dealt(_Message):
    """A dealer's triples for one product.

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
    """A domain's signature over what it says in one phase of a product.

    Attributes:
        digest: BLAKE3 of the words; of "coin", the coin itself.
    """

    domain: Name
    digest: Digest
    signature: Signature


def deal(
    agreement: Agreement,
    factors: Factors,
    keys: Sequence[TensorKey],
    dealer_key: Ed25519PrivateKey,
) -> tuple[Dealt, NDArray[np.uint64]]:
    """Triples for one product, for domains whose keys these are.

    Returns:
        What all domains get, and the corrections for the first of them: uint64 [2, z, 2].

    Raises:
        SharingRefused: a key is missing or not signed for this product.
    """
    known = verify_keys(agreement, keys)
    transcript = keys_transcript(agreement, known)
    own, sealed, sums = EphemeralKey.generate(), {}, None
    for name, key in known.items():
        seed = os.urandom(_SEED_BYTES)
        sealed[name] = own.seal(seed, key.key)
        part = _expanded(seed, transcript, name, factors)
        sums = part if sums is None else [_added(pair) for pair in zip(sums, part, strict=True)]
    assert sums is not None
    a, b, again, c, c_again = sums
    corrections = np.stack(
        [
            wide.sub(factors.times_wide(a, b), c),
            wide.sub(factors.times_wide(again, b), c_again),
        ]
    )
    digest = digest_of_words(corrections)
    signature = dealer_key.sign(_dealt_message(transcript, own.public_key, sealed, digest))
    own.erase()
    return Dealt(key=own.public_key, seeds=sealed, digest=digest, signature=signature), corrections


class Multiplication:
    """One domain's part in one product. Its steps come in order, each once:

        key -> triple -> opening -> hear (the others') -> check -> hear (the others') -> product

    Args:
        agreement: on this one product.
        dealer: the Ed25519 key, hex, of the plan's dealer.
        x, y: this domain's shares of the factors, flat.
    """

    def __init__(
        self,
        me: str,
        agreement: Agreement,
        signing_key: Ed25519PrivateKey,
        dealer: str,
        factors: Factors,
        x: Elements,
        y: Elements,
    ) -> None:
        self.me = me
        self.agreement = agreement
        self.factors = factors
        self._signing_key = signing_key
        self._dealer = dealer
        self._x, self._y = x, y
        self._key = EphemeralKey.generate()
        self.signed_key = sign_key(me, agreement, self._key, signing_key)
        self._phase = "key"
        self._heard: dict[str, NDArray[np.uint64]] = {}
        self.transcript = b""

    def triple(
        self, keys: Sequence[TensorKey], dealt: Dealt, corrections: NDArray[np.uint64]
    ) -> Said:
        """Take our shares of a triple; gives a coin, signed over what was dealt.

        Args:
            corrections: uint64 [2, z, 2]; the first domain needs them, others may get none.

        Raises:
            SharingRefused: the keys or the triples aren't of this product, or not for us.
        """
        self._turn("key", "triple")
        known = verify_keys(self.agreement, keys)
        if known[self.me] != self.signed_key:
            raise SharingRefused(self.me, "the key under our own name isn't of this product")
        heard = keys_transcript(self.agreement, known)
        message = _dealt_message(heard, dealt.key, dealt.seeds, dealt.digest)
        if not is_signed(message, dealt.signature, self._dealer):
            raise SharingRefused(DEALER, "its triples aren't signed for this product")
        if set(dealt.seeds) != set(known):
            raise SharingRefused(DEALER, "it dealt to others than the roster")
        try:
            seed = self._key.open(dealt.seeds[self.me], dealt.key)
        except (CryptoError, TypeError, ValueError):
            raise SharingRefused(
                DEALER, "the seed it signed can't be opened with our key"
            ) from None
        self._key.erase()
        self._a, self._b, self._again, self._c, self._c_again = _expanded(
            seed, heard, self.me, self.factors
        )
        self._first = self.me == self.agreement.names[0]
        if self._first:
            if digest_of_words(corrections) != dealt.digest or corrections.shape != (
                2,
                self.factors.sizes[2],
                2,
            ):
                raise SharingRefused(DEALER, "these aren't the corrections that it signed")
            self._c = wide.add(self._c, corrections[0])
            self._c_again = wide.add(self._c_again, corrections[1])
        self.transcript = hashlib.sha256(framed(b"coterie-triple-v1", heard, message)).digest()
        return self._say("coin", os.urandom(_SEED_BYTES))

    def opening(self, coins: Sequence[Said]) -> tuple[Said, NDArray[np.uint64]]:
        """Our part of rho, d and e: a signature and the words.

        Raises:
            SharingRefused: a domain's coin is missing or not signed for these triples.
        """
        self._turn("triple", "opening")
        known = {coin.domain: coin for coin in coins}
        if len(known) != len(coins) or tuple(sorted(known)) != self.agreement.names:
            raise SharingRefused(self.me, "every domain's coin is needed, once")
        for name, coin in known.items():
            self._verify("coin", name, coin)
        tossed = [known[name].digest for name in self.agreement.names]
        seed = hashlib.sha256(framed(b"coterie-challenge-v1", self.transcript, *tossed)).digest()
        challenge = keystream(seed, 1 + _COLUMNS * self.factors.as_matrices[2])
        self._r = _narrow(challenge[:1])
        self._v = [_narrow(each) for each in challenge[1:].reshape(_COLUMNS, -1)]
        rho = wide.sub(wide.mul(self._a, self._r), self._again)
        return self._told("opening", np.concatenate([rho.reshape(-1), self.differences()]))

    def differences(self) -> NDArray[np.uint64]:
        """Our part of d and e, which are uniform: x - a and y - b, one after the other."""
        return np.concatenate([self._x - self._a[:, 0], self._y - self._b[:, 0]])

    def hear(self, said: Said, words: NDArray[np.uint64]) -> None:
        """Take what one other domain says in this phase.

        Raises:
            SharingRefused: it isn't signed for this phase of this product, or there twice.
        """
        name = said.domain
        if self._phase not in ("opening", "check"):
            raise SharingRefused(self.me, "nothing is to be heard in this phase")
        self._verify(self._phase, name, said)
        if name in self._heard or digest_of_words(words) != said.digest:
            raise SharingRefused(name, f"its {self._phase} is there twice, or not what it signed")
        x, y, _ = self.factors.sizes
        expected = (
            3 * x + y if self._phase == "opening" else _COLUMNS * self.factors.as_matrices[0] * 2
        )
        if words.shape != (expected,):
            raise SharingRefused(name, f"it signed an {self._phase} of another length")
        self._heard[name] = words

    def check(self) -> tuple[Said, NDArray[np.uint64]]:
        """Our part of tau, once everybody's opening was heard.

        Raises:
            SharingRefused: a domain's opening is missing.
        """
        openings = self._everybodys("opening", "check")
        digests = [digest_of_words(openings[name]) for name in sorted(openings)]
        # Whoever told two domains different openings has their checks refused by each other.
        bound = framed(b"coterie-opened-v1", self.transcript, *digests)
        self.transcript = hashlib.sha256(bound).digest()
        heard = list(openings.values())
        x = self.factors.sizes[0]
        opened = np.sum([each[2 * x :] for each in heard], axis=0, dtype=np.uint64)
        self._d, self._e = opened[:x], opened[x:]
        rho = _added([each[: 2 * x].reshape(-1, 2) for each in heard])
        tau = []
        for column in self._v:
            right = self.factors.projected(self._c, column)
            wrong = self.factors.projected(self._c_again, column)
            again = self.factors.times_projected(rho, self._b, column)
            tau.append(wide.sub(wide.sub(wide.mul(right, self._r), wrong), again))
        return self._told("check", np.concatenate(tau).reshape(-1))

    def product(self) -> Elements:
        """Our share of x y, flat, once everybody's check was heard.

        Raises:
            DealerLied: tau isn't 0; nothing was made with these triples.
            SharingRefused: a domain's check is missing.
        """
        heard = self._everybodys("check", "product").values()
        if _added([each.reshape(-1, 2) for each in heard]).any():
            raise DealerLied(DEALER, "the triples that it signed aren't products")
        return self.multiplied()

    def multiplied(self) -> Elements:
        """c + d b + a e, and d e at the first domain: what is left once the triple is checked."""
        a, b, c = self._a[:, 0], self._b[:, 0], self._c[:, 0]
        d, e = self._d, self._e
        if self._first:
            b = b + e
        if not self.factors.matrices:
            return c + d * b + a * e
        return c + self.factors.times(d, b) + self.factors.times(a, e)

    def _everybodys(self, phase: str, following: str) -> dict[str, NDArray[np.uint64]]:
        missing = [name for name in self.agreement.names if name not in self._heard]
        if missing:
            raise SharingRefused(missing[0], f"its {phase} is missing")
        self._turn(phase, following)
        heard, self._heard = self._heard, {}
        return heard

    def _turn(self, expected: str, following: str) -> None:
        if self._phase != expected:
            raise SharingRefused(self.me, f"'{following}' comes after '{expected}', once")
        self._phase = following

    def _told(self, phase: str, words: NDArray[np.uint64]) -> tuple[Said, NDArray[np.uint64]]:
        self._heard[self.me] = words
        return self._say(phase, digest_of_words(words)), words

    def _say(self, phase: str, digest: bytes) -> Said:
        message = _said_message(self.transcript, phase, self.me, digest)
        return Said(domain=self.me, digest=digest, signature=self._signing_key.sign(message))

    def _verify(self, phase: str, name: str, said: Said) -> None:
        message = _said_message(self.transcript, phase, name, said.digest)
        if not is_signed(message, said.signature, self.agreement.roster.get(name, "")):
            raise SharingRefused(name, f"its {phase} isn't signed for this product")


def digest_of_words(words: NDArray[np.uint64]) -> bytes:
    """BLAKE3 of little-endian words, 32 bytes."""
    return blake3(np.ascontiguousarray(words, "<u8").data.cast("B")).digest()


def pack(said: Mapping[str, object], words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """A message and words as octets: the message's length (u32), the message as JSON, the words."""
    head = json.dumps(said).encode()
    body = np.ascontiguousarray(words, "<u8").view(np.uint8).reshape(-1)
    first = np.frombuffer(len(head).to_bytes(4, "little") + head, np.uint8)
    return np.concatenate([first, body])


def unpack(octets: NDArray[np.uint8]) -> tuple[object, NDArray[np.uint64]]:
    """Read what `pack` wrote.

    Raises:
        MalformedMessage: it isn't a message and whole words.
    """
    content = octets.tobytes()
    size = int.from_bytes(content[:4], "little")
    if len(content) < 4 or size > _HEAD_BYTES or (len(content) - 4 - size) % 8:
        raise MalformedMessage("expected a message and 64-bit words")
    try:
        said = json.loads(content[4 : 4 + size])
    except (ValueError, RecursionError):
        raise MalformedMessage("the message before the words isn't JSON") from None
    return said, np.frombuffer(content, "<u8", offset=4 + size)


def _expanded(seed: bytes, transcript: bytes, name: str, factors: Factors) -> list[Wide]:
    """One domain's shares of a, b, a', c and c', all from its seed."""
    x, y, z = factors.sizes
    key = mask_key(seed, framed(b"coterie-triple-seed-v1", transcript, name.encode()))
    words = keystream(key, 2 * (2 * x + y + 2 * z)).reshape(-1, 2)
    return np.split(words, np.cumsum([x, y, x, z]))


def _added(parts: Sequence[Wide]) -> Wide:
    found = parts[0]
    for part in parts[1:]:
        found = wide.add(found, part)
    return found


def _narrow(words: NDArray[np.uint64]) -> Wide:
    return np.stack([words, np.zeros_like(words)], axis=-1)


def _dealt_message(
    transcript: bytes, key: bytes, seeds: Mapping[str, bytes], digest: bytes
) -> bytes:
    parts = [part for name in sorted(seeds) for part in (name.encode(), seeds[name])]
    return framed(b"coterie-dealt-v1", transcript, key, digest, *parts)


def _said_message(transcript: bytes, phase: str, domain: str, digest: bytes) -> bytes:
    return framed(b"coterie-product-v1", transcript, phase.encode(), domain.encode(), digest)
