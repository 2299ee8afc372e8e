"""CKKS parameters for sums of integers, and why decoding their sum can't go wrong.

CKKS (Cheon, Kim, Kim and Song 2017) computes approximately. Here it only adds, and every number is
an integer times 2^scale_bits, so that rounding what is decrypted gives the exact sum as long as its
error stays below 1/2. A `Layout` keeps it below 1/4 for every choice of the scheme's randomness,
not only for likely ones. Per ciphertext, with ring degree N, terms of the secret in {-1, 0, 1} and
noise terms of at most B = 21 (SEAL's centred binomial distribution):

    encoding    rounds N coefficients by 1/2 each: N / 2
    encrypting  leaves noise of at most B (2 N + 1) in a coefficient, divides it by the special
                prime P, and rounds (by 1/2, and 1/2 times s): N (1/2 + N / 2 + B (2 N + 1) / P)
    floats      FFTs in doubles (Higham 2002, theorem 24.2): 2^-45 of the vector's length, once per
                encoding and once when decoding

all but the last over the scale. A slot is a complex number that holds two integers; no slot's error
is larger than the sum of the polynomial's coefficients' errors, since |sigma(f)| <= sum |f_j|.

The parameters are those of 128-bit security for ternary secrets of the Homomorphic Encryption
Standard (Albrecht et al. 2018, table 1): degree 4096, at most 109 bits of modulus.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

DEGREE = 4096
"""N: coefficients in one polynomial."""

MODULUS_BITS = (60, 49)
"""Sizes of the two primes: ciphertexts live modulo the first, keys modulo both."""

NUMBERS = DEGREE
"""Integers in one ciphertext: two in each of the N / 2 slots."""

MAX_CIPHERTEXTS = 250
"""In one release, so that their sum fits a message of 16 MB."""

MAX_ERROR = Fraction(1, 4)
"""What no decrypted number is away from an integer: half of what would still round rightly."""

MAX_DOMAINS = 64

_NOISE_TERM = 21
_SPECIAL_PRIME = 2 ** (MODULUS_BITS[1] - 1)
_COEFFICIENT = 2 ** (MODULUS_BITS[0] - 1) - 2**20
"""Below half of the ciphertext modulus, where a coefficient would wrap."""

_FFT_ERROR = Fraction(1, 2**45)
_DIAGONAL = Fraction(1415, 1000)
"""Above sqrt(2): a slot's modulus over its larger part."""


@dataclass(frozen=True)
class Layout:
    """How one release's integers are laid into ciphertexts.

    Attributes:
        domains: how many domains' ciphertexts are added.
        ring: bits that every domain's integers, and their total, fit into, as signed numbers.
        scale_bits: an integer is encoded as itself times 2^scale_bits.
        limbs: how many numbers an integer is cut into.
        limb_bits: the width of a limb; limbs are signed, at most 2^(limb_bits - 1) either way.
    """

    domains: int
    ring: int
    scale_bits: int
    limbs: int
    limb_bits: int

    @property
    def largest(self) -> int:
        """No sum of limbs is larger, either way."""
        if self.limbs == 1:
            return 2 ** (self.ring - 1)
        return int(self.domains * 2 ** (self.limb_bits - 1))

    @property
    def error(self) -> Fraction:
        """What no number of the decrypted sum is away from its integer; see the module."""
        scheme = self.domains * _scheme_error() / 2**self.scale_bits
        one = 2 ** (self.ring - 1) if self.limbs == 1 else 2 ** (self.limb_bits - 1)
        length = math.isqrt(DEGREE) * _DIAGONAL  # of N slots and conjugates of modulus sqrt(2)
        return scheme + _FFT_ERROR * length * (self.domains * one + self.largest)

    @property
    def fits(self) -> bool:
        """Whether coefficients can't wrap and the error stays small."""
        coefficient = self.largest * _DIAGONAL * 2**self.scale_bits + DEGREE * DEGREE
        return coefficient <= _COEFFICIENT and self.error <= MAX_ERROR

    def ciphertexts(self, numbers: int) -> int:
        """How many ciphertexts hold `numbers` integers."""
        return -(-numbers * self.limbs // NUMBERS)


def layout_of(domains: int, ring: int) -> Layout | None:
    """The layout with the fewest limbs, or None if none is exact.

    Args:
        domains: on the roster, 2 to 64.
        ring: 32 or 64.
    """
    if not 1 <= domains <= MAX_DOMAINS:
        return None
    # One limb needs no cutting: the total itself is bounded by the ring.
    for limbs in range(1, 5):
        width = ring if limbs == 1 else -(-ring // limbs) + 1
        for scale_bits in range(MODULUS_BITS[0] - 4, 0, -1):
            found = Layout(domains, ring, scale_bits, limbs, width)
            if found.fits:
                return found
    return None


def _scheme_error() -> Fraction:
    """Of one ciphertext in one slot, before it is divided by the scale."""
    half = Fraction(1, 2)
    encoding = DEGREE * half
    noise = Fraction(_NOISE_TERM * (2 * DEGREE + 1), _SPECIAL_PRIME)
    return encoding + DEGREE * (half + DEGREE * half + noise)
