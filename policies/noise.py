"""Secret coins, and noise drawn from exactly the distribution that is accounted.

Floating-point noise leaks through its rounding (Mironov 2012), so shares carry integers from the
discrete Gaussian of Canonne, Kamath and Steinke 2020 (arXiv:2004.00010): rejection from a discrete
Laplace, with every coin of probability exp(-x), x rational, tossed exactly.

How a coin is exact and still fast: it is one comparison of a uniform real U in [0, 1) with
exp(-x). Doubles give the first 53 bits of U and exp(-x) to within 2^-48; where the two differ by
more than 2^-40 the answer can't depend on the error. Else, once in 2^39 tosses, exact arithmetic
decides on as many further bits of U as it takes.
"""

import math
import os
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

MARGIN = 2.0**-40
"""Doubles decide a coin only if U and exp(-x) are further apart than this."""

_BLOCK = 2**15
"""So many draws at a time stay in the cache."""

MIN_SIGMA, MAX_SIGMA = 2.0**-20, 2.0**45
"""Wider noise could leave int64; narrower is none, and only strains the doubles."""


class SecureRandom:
    """An endless secret keystream: AES-256 in counter mode under a fresh key of the system's.

    It can't be seeded, copied or restored: what it gave once never comes again. One instance
    serves one thread.
    """

    def __init__(self) -> None:
        # The key is used once, so a zero counter never repeats under it.
        self._stream = Cipher(AES(os.urandom(32)), CTR(bytes(16))).encryptor()

    def __reduce__(self) -> str:
        raise TypeError("A SecureRandom can't be copied: the copy would repeat its noise")

    def bytes(self, size: int) -> bytes:
        """`size` uniform bytes."""
        return self._stream.update(bytes(size))

    def words(self, size: int) -> NDArray[np.uint64]:
        """`size` uniform 64-bit words: uint64 [size]."""
        return np.frombuffer(self.bytes(8 * size), dtype=np.uint64)

    def below(self, bound: int, size: int) -> NDArray[np.int64]:
        """`size` integers, uniform in [0, bound), 1 <= bound <= 2^62: int64 [size]."""
        if not 1 <= bound <= 2**62:
            raise ValueError(f"bound is {bound}; expected 1 to 2^62")
        mask = np.uint64((1 << (bound - 1).bit_length()) - 1)
        kept = np.empty(0, dtype=np.int64)
        while len(kept) < size:
            # More than half of all masked words are below the bound.
            fresh = (self.words(2 * (size - len(kept)) + 8) & mask).astype(np.int64)
            kept = np.concatenate([kept, fresh[fresh < bound]])
        return kept[:size]


def discrete_gaussian(
    sigma: float | Fraction, size: int, random: SecureRandom
) -> NDArray[np.int64]:
    """`size` independent draws of P(y) ~ exp(-y^2 / 2 sigma^2) over the integers: int64 [size].

    CKS 2020, Algorithm 3: with t = floor(sigma) + 1, draw Y from the discrete Laplace of scale t
    and keep it with probability exp(-(|Y| - sigma^2/t)^2 / 2 sigma^2). `sigma`, in integer units,
    is taken as the rational it is; 0 gives zeros.

    Raises:
        ValueError: sigma is neither 0 nor within [`MIN_SIGMA`, `MAX_SIGMA`].
    """
    if sigma == 0:
        return np.zeros(size, dtype=np.int64)
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise ValueError(f"sigma is {sigma}; expected 0, or 2^-20 to 2^45 integer units")
    drawn, done = np.empty(size, dtype=np.int64), 0
    while done < size:
        # Keeps at least half of the proposals, for any sigma above 1.
        proposal = _discrete_laplace(
            math.floor(sigma) + 1, min(_BLOCK, 2 * (size - done) + 8), random
        )
        kept = proposal[_accepts(proposal, Fraction(sigma), random)][: size - done]
        drawn[done : done + len(kept)] = kept
        done += len(kept)
    return drawn


def _accepts(
    proposal: NDArray[np.int64], sigma: Fraction, random: SecureRandom
) -> NDArray[np.bool_]:
    t = math.floor(sigma) + 1
    shift, width = sigma**2 / t, 2 * sigma**2
    # With s = ||Y| - shift| / sigma and shift <= sigma, rounding changes the exponent by at most
    # 2^-50 (s^2 + s), hence exp of it by at most 2^-50 (s^2 + s) exp(-s^2 / 2) < 2^-49.
    distance = np.abs(proposal).astype(np.float64) - float(shift)
    exponent = distance * distance / float(width)
    return _tosses(exponent, lambda i: (abs(int(proposal[i])) - shift) ** 2 / width, random)


def _discrete_laplace(t: int, size: int, random: SecureRandom) -> NDArray[np.int64]:
    """At most `size` draws of P(y) ~ exp(-|y| / t): CKS 2020, Algorithm 2 with s = 1."""
    u = random.below(t, size)
    u = u[_tosses(u / t, lambda i: Fraction(int(u[i]), t), random)]
    magnitude = u + t * _failures(len(u), random)
    negative = (random.words(len(u)) & np.uint64(1)).astype(bool)
    drawn = np.where(negative, -magnitude, magnitude)
    # Zero has two signs; keeping one of them gives it the same weight as its neighbours' formula.
    return drawn[~(negative & (magnitude == 0))]


def _failures(size: int, random: SecureRandom) -> NDArray[np.int64]:
    """How many tosses of exp(-1) come up true before the first false one: int64 [size]."""
    counts = np.zeros(size, dtype=np.int64)
    running = np.arange(size)
    while len(running):
        running = running[_tosses(np.ones(len(running)), lambda _: Fraction(1), random)]
        counts[running] += 1
    return counts


def _tosses(
    exponents: NDArray[np.float64], exact: Callable[[int], Fraction], random: SecureRandom
) -> NDArray[np.bool_]:
    """Independent coins, true with probability exp(-exact(i)), of which `exponents` are doubles.

    The doubles must be close enough to give exp to within 2^-48 (see the module's first lines).
    """
    words = random.words(len(exponents))
    uniform = (words >> np.uint64(11)) * 2.0**-53
    gap = np.exp(-exponents) - uniform
    result = gap > 0
    for i in np.flatnonzero(np.abs(gap) <= MARGIN):
        result[i] = _toss_exactly(int(words[i]), exact(int(i)), random)
    return result


def _toss_exactly(word: int, exponent: Fraction, random: SecureRandom) -> bool:
    """Whether U < exp(-exponent), where U's binary digits are `word` (64 bits) and then fresh."""
    bits = 64
    while True:
        low, high = _exp_bounds(exponent, bits)
        if Fraction(word + 1, 2**bits) <= low:
            return True
        if Fraction(word, 2**bits) >= high:
            return False
        word, bits = (word << 64) | int.from_bytes(random.bytes(8), "big"), bits + 64


def _exp_bounds(exponent: Fraction, bits: int) -> tuple[Fraction, Fraction]:
    """Rationals around exp(-exponent), about 2^-bits apart relative to it."""
    digits = bits // 3 + 20
    # What underflows Emin becomes 0, and one step out from 0: still bounds.
    down = Context(prec=digits, rounding=ROUND_FLOOR, Emin=-(10**4), Emax=10**4)
    up = Context(prec=digits, rounding=ROUND_CEILING, Emin=-(10**4), Emax=10**4)
    top, bottom = Decimal(-exponent.numerator), Decimal(exponent.denominator)
    # Decimal.exp rounds to nearest whatever the context says, so step one further out.
    low = down.next_minus(down.exp(down.divide(top, bottom)))
    high = up.next_plus(up.exp(up.divide(top, bottom)))
    return max(Fraction(0), Fraction(low)), min(Fraction(1), Fraction(high))
