"""What is said when three domains compare tensors through SPU: offers, and the one operation.

Araki et al. 2016 and ABY3 (Mohassel and Rindal 2018), as SPU has it (Ma et al. 2023): exactly three
parties of which one may be curious, none may deviate. Each domain runs SPU in a process of its own;
the three speak TLS with certificates that are made for one comparison and signed, with a fresh
X25519 key, by the nodes' keys of the roster. What goes in and comes out is masked again by numbers
that cancel, from those keys (`sharing.pair_masks`), so no share is used twice.
"""

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field

from network.smpc.attempt import Agreement, framed
from network.smpc.keys import UnusableKey, check_public_key
from network.smpc.messages import Key, Name, SharingRefused, Signature, _Message, is_signed
from network.smpc.tensors import Hex
from policies import bounded
from policies.sensitivity import Proven, TensorRefused

PARTIES = 3
MAX_COMPARED = 2**16
"""Elements at a time."""

_INTEGER = "^-?[0-9]{1,19}$"
_SATURATED = 16
"""A sigmoid further out is 0 or 1 within 2e-7."""
_FRACTION_BITS = 18
Whole = Annotated[str, Field(pattern=_INTEGER)]


class Comparison(_Message):
    """One operation that SPU does.

    Attributes:
        do: "above" (1 where x > low, else 0), "clip" (between low and high), "argmax" (1 at each
            row's first largest number, else 0) or "sigmoid".
        of: the tensor's name.
        low, high: as integers of its unit without its sign.
        number: tells comparisons of a plan apart; the same at every domain.
    """

    do: Literal["above", "clip", "argmax", "sigmoid"]
    of: Hex
    low: Whole = "0"
    high: Whole = "0"
    number: Annotated[int, Field(ge=0, lt=2**32)]

    def planned(self, x: Proven) -> Proven:
        """What is proven of the result.

        Raises:
            TensorRefused: too many numbers, or bounds that can't be.
        """
        if x.length > MAX_COMPARED:
            raise TensorRefused(f"At most {MAX_COMPARED} numbers are compared at a time.")
        if self.do == "clip":
            return bounded.clipped(x, int(self.low), int(self.high))
        if abs(int(self.low)) >= 2**61:
            raise TensorRefused("The number to compare with lies beyond all that a tensor holds.")
        return bounded.largest(x) if self.do == "argmax" else bounded.answered(x)

    def job(self, x: Proven) -> dict[str, Any]:
        """What an SPU party is told: `domains/spu_party.py`."""
        said: dict[str, Any] = {
            "do": self.do,
            "shape": list(x.shape),
            "sign": -1 if x.unit < 0 else 1,
            "low": int(self.low),
            "high": int(self.high),
            "one": bounded.ONE,
            "fraction_bits": _FRACTION_BITS,
            "beyond": _FRACTION_BITS - (bounded.ONE.bit_length() - 1),
        }
        return said | (_scaled(abs(x.unit)) if self.do == "sigmoid" else {})

    def digest(self) -> str:
        """SHA-256 of it, hex."""
        parts = (self.do.encode(), self.of.encode(), self.low.encode(), self.high.encode())
        return hashlib.sha256(framed(b"coterie-compared-v1", *parts)).hexdigest()


class Offer(_Message):
    """A domain's part before a comparison: where it listens, and its fresh keys.

    Attributes:
        key: X25519.
        certificate: of the TLS key, PEM.
        address: HOST:PORT.
    """

    domain: Name
    key: Key
    certificate: Annotated[str, Field(max_length=4096)]
    address: Annotated[str, Field(pattern="^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$")]
    signature: Signature


def offer_message(
    agreement: Agreement, domain: str, key: bytes, certificate: str, address: str
) -> bytes:
    """What a domain signs."""
    parts = (domain.encode(), key, certificate.encode(), address.encode())
    return framed(b"coterie-offer-v1", agreement.bytes, *parts)


def verify_offers(agreement: Agreement, offers: Sequence[Offer]) -> dict[str, Offer]:
    """Check that these are the whole roster's, each signed for this comparison; sorted by name.

    Raises:
        SharingRefused: one is missing, there twice, wrongly signed or unusable.
    """
    known = {each.domain: each for each in offers}
    if len(known) != len(offers) or set(known) != set(agreement.names):
        raise SharingRefused(agreement.names[0], "every domain's offer is needed, once")
    for field in ("key", "certificate", "address"):
        if len({getattr(each, field) for each in offers}) != len(offers):
            raise SharingRefused(offers[0].domain, f"two domains have the same {field}")
    for name, each in known.items():
        message = offer_message(agreement, name, each.key, each.certificate, each.address)
        if not is_signed(message, each.signature, agreement.roster[name]):
            raise SharingRefused(name, "its offer isn't signed for this by its node's key")
        try:
            check_public_key(each.key)
        except UnusableKey as error:
            raise SharingRefused(name, f"it signed a bad key: {error}") from None
    return {name: known[name] for name in sorted(known)}


def offers_transcript(agreement: Agreement, offers: Mapping[str, Offer]) -> bytes:
    """SHA-256 over the agreement and all offers, sorted by domain."""
    parts = [
        offer_message(agreement, name, each.key, each.certificate, each.address)
        for name, each in sorted(offers.items())
    ]
    return hashlib.sha256(framed(b"coterie-offers-v1", agreement.bytes, *parts)).digest()


def _scaled(unit: Fraction) -> dict[str, int]:
    """How integers of this unit become fixed-point numbers of `_FRACTION_BITS`.

    (((x clipped to +-limit) >> before) * factor) >> after, of at most 61 bits on the way.
    """
    limit = min(-(-_SATURATED * unit.denominator // unit.numerator), 2**61)
    before = max(0, limit.bit_length() - 40)
    wanted = unit * 2 ** (_FRACTION_BITS + before)
    after = max(0, 20 - (wanted.numerator.bit_length() - wanted.denominator.bit_length()))
    factor = min(round(wanted * 2**after), 2**21)
    if factor == 0:
        raise TensorRefused("The tensor's unit is too small for a sigmoid.")
    saturated = _SATURATED << _FRACTION_BITS
    return {
        "limit": limit, "before": before, "factor": factor, "after": after, "saturated": saturated,
    }  # fmt: skip
