"""Dropping the lowest digits of tensors in shares, so that products fit the ring again.

The probabilistic truncation of Dalskov, Escudero and Keller 2020, "Secure Evaluation of Quantized
Neural Networks", section 3.2.2, which masks with the whole ring and is right for every x within its
bounds; it is off by less than one unit, never by a wrap-around. With |x| < 2^m proven,
x' = x + 2^m, k = m + 2 and shares of random bits r_0 ... r_(k-1) of r, domains open

    C = x' + r mod 2^k          as 2^(64-k) (x' + r) in the ring, so that no higher bit shows

which is uniform. x' < 2^(k-1), so x' + r wrapped around if and only if r's highest bit is 1 and C's
is 0. Without that bit's 2^k,

    (C >> f) - (r >> f) + r_(k-1) (1 - C_(k-1)) 2^(k-f) - 2^(m-f) = floor(x / 2^f) + u

with u = 1 if the lowest f bits of x' are more than those of C, else 0: so this is
floor((x + d) / 2^f) with d = 2^f - 1 - (C mod 2^f), which is public and uniform whatever x is. It
gives away nothing that a public d chosen before wouldn't; `policies.sensitivity.truncated` has what
one user can do to it for any d. Its mean over d is x / 2^f exactly.

A dealer deals the bits (`dealing`), each as b modulo 2^128, with a random a' and c' = a' b, and
domains check that they are bits: by sacrifice, as `triples` has it, of the second product, for the
product b b = b. With one challenge v in [0, 2^64) for each bit, tossed afterwards, they open

    rho = v b - a'      and the sum over all bits of      v b - c' - rho b

which is the sum of v (b - b^2) + a' b - c'. If b isn't 0 or 1 modulo 2^64, then b - b^2 isn't 0
modulo 2^64 (one of b and b - 1 is odd), so it is an odd number times 2^w with w < 64, and no two v
give the same v (b - b^2) modulo 2^128: a lie passes with probability at most 2^-64.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from network.smpc import wide
from network.smpc.attempt import framed
from network.smpc.dealing import narrow
from network.smpc.ring import Elements
from network.smpc.wide import Wide

MAX_BITS = 2**19
"""Dealt for one truncation, so that what is said of them fits a message."""


@dataclass(frozen=True)
class Truncation:
    """What is dropped of how much.

    Attributes:
        length: of the tensor.
        bound: m: every element lies strictly between -2^m and 2^m; at most 62.
        dropped: f: how many of the lowest bits go; 1 to m.
    """

    length: int
    bound: int
    dropped: int

    @property
    def width(self) -> int:
        """k: bits of the mask."""
        return self.bound + 2

    @property
    def bits(self) -> int:
        """How many bits are dealt."""
        return self.length * self.width

    def digest(self, x: str) -> str:
        """SHA-256 of the truncation of the tensor of this name, hex."""
        said = json.dumps([self.length, self.bound, self.dropped]).encode()
        return hashlib.sha256(framed(b"coterie-truncation-v1", x.encode(), said)).hexdigest()

    @property
    def drawn(self) -> tuple[int, ...]:
        """Of b, a' and c': element by element, the lowest bit first."""
        return self.bits, self.bits, self.bits

    @property
    def corrected(self) -> tuple[int, int]:
        """b and c'."""
        return 0, 2

    @property
    def coins(self) -> int:
        """v."""
        return self.bits

    @property
    def masked(self) -> int:
        """rho."""
        return self.bits

    @property
    def opened(self) -> int:
        """C."""
        return self.length

    @property
    def checked(self) -> int:
        """One sum over all bits."""
        return 1

    def corrections(self, parts: Sequence[Wide]) -> Wide:
        """What makes b the lowest bit of what was drawn for it, and c' = a' b."""
        drawn, again, c_again = parts
        bits = narrow(drawn[:, 0] & np.uint64(1))
        return np.stack([wide.sub(bits, drawn), wide.sub(wide.mul(again, bits), c_again)])

    def mask(self, parts: Sequence[Wide], coins: NDArray[np.uint64]) -> Wide:
        """Our part of rho."""
        return wide.sub(wide.mul(parts[0], narrow(coins)), parts[1])

    def differences(self, parts: Sequence[Wide], inputs: Sequence[Elements]) -> NDArray[np.uint64]:
        """Our part of 2^(64-k) (x + r); the first domain's 2^m is added once all is opened."""
        return (inputs[0] + self._number(parts, 0)) << np.uint64(64 - self.width)

    def check(self, parts: Sequence[Wide], coins: NDArray[np.uint64], masked: Wide) -> Wide:
        """Our part of the sum of v b - c' - rho b."""
        b, _, c_again = parts
        each = wide.sub(wide.mul(wide.sub(narrow(coins), masked), b), c_again)
        return wide.total(each, axis=0).reshape(1, 2)

    def result(self, parts: Sequence[Wide], opened: NDArray[np.uint64], first: bool) -> Elements:
        """Our share of floor((x + d) / 2^f)."""
        m, f, k = self.bound, self.dropped, self.width
        # x + r was opened without 2^m, which is public: it is added to all domains' sum.
        c = (opened >> np.uint64(64 - k)) + np.uint64(1 << m)
        c &= np.uint64(2**k - 1)
        highest = self._bits(parts)[:, -1]
        below = np.uint64(1) - (c >> np.uint64(k - 1))
        share = below * (highest << np.uint64(k - f)) - self._number(parts, f)
        return share + (c >> np.uint64(f)) - np.uint64(1 << (m - f)) if first else share

    def _bits(self, parts: Sequence[Wide]) -> NDArray[np.uint64]:
        """Our shares of the bits modulo 2^64: [length, k]."""
        return parts[0][:, 0].reshape(self.length, self.width)

    def _number(self, parts: Sequence[Wide], dropped: int) -> NDArray[np.uint64]:
        """Our shares of r >> dropped."""
        powers = np.uint64(1) << np.arange(self.width - dropped, dtype=np.uint64)
        number: NDArray[np.uint64] = (self._bits(parts)[:, dropped:] * powers).sum(
            axis=1, dtype=np.uint64
        )
        return number
