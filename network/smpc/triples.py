"""Secret products by Beaver's triples, which `dealing` deals and checks.

Beaver 1991, "Efficient Multiparty Protocols Using Circuit Randomization": with shares of random a
and b and of c = a b, domains open d = x - a and e = y - b, which are uniform, and

    x y = c + d b + a e + d e

is linear in what stays shared. The product is elementwise or of matrices, modulo 2^64, exact: the
unit of a product is the product of the units; `truncation` makes room again.

Domains check triples before they use any: by sacrifice (SPDZ: Damgard, Pastro, Smart, Zakarias
2012) of a second triple with the same b (MASCOT: Keller, Orsini, Scholl 2016), modulo 2^(k+s) so
that it holds in a ring (SPDZ2k: Cramer, Damgard, Escudero, Scholl, Xing 2018). (a, b, c) and
(a', b, c') are modulo 2^128. Then everybody tosses coins, which give r and v in [0, 2^64), and
domains open

    rho = r a - a'        tau = (r c - c' - rho b) v        which is 0 if c = a b and c' = a' b

for two columns v (of elementwise products, the sum over all elements). If c is wrong modulo 2^64,
some entry of r (c - a b) - (c' - a' b) is divisible by 2^(64+u) with probability at most 2^-u over
r, since that fixes u bits of it; if it isn't, each column hides it with probability at most
2^(u-64). With u = 42 a lie passes with probability below 2^-41.

A shifted d would give (x + shift) y; every message is signed, so only a domain that lies about its
own x can do that.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from network.smpc import wide
from network.smpc.attempt import framed
from network.smpc.dealing import narrow
from network.smpc.ring import Elements, matmul
from network.smpc.wide import Wide

MAX_FACTOR = 2**18
"""Elements of a secret factor or product, so that what is said of them fits a message."""
MAX_MULTIPLY_ADDS = 2**35
"""In one product of matrices, secret or public."""

_COLUMNS = 2


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

    @property
    def work(self) -> int:
        """Multiplications of a product of matrices."""
        return self.sizes[0] * self.as_matrices[2] if self.matrices else 0

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

    @property
    def drawn(self) -> tuple[int, ...]:
        """Of a, b, a', c and c'."""
        x, y, z = self.sizes
        return x, y, x, z, z

    @property
    def corrected(self) -> tuple[int, int]:
        """c and c'."""
        return 3, 4

    @property
    def coins(self) -> int:
        """r, and the columns v."""
        return 1 + _COLUMNS * self.as_matrices[2]

    @property
    def masked(self) -> int:
        """rho."""
        return self.sizes[0]

    @property
    def opened(self) -> int:
        """d and e."""
        return self.sizes[0] + self.sizes[1]

    @property
    def checked(self) -> int:
        """tau."""
        return _COLUMNS * self.as_matrices[0]

    def corrections(self, parts: Sequence[Wide]) -> Wide:
        """What makes c = a b and c' = a' b."""
        a, b, again, c, c_again = parts
        return np.stack(
            [
                wide.sub(self.times_wide(a, b), c),
                wide.sub(self.times_wide(again, b), c_again),
            ]
        )

    def mask(self, parts: Sequence[Wide], coins: NDArray[np.uint64]) -> Wide:
        """Our part of rho."""
        return wide.sub(wide.mul(parts[0], narrow(coins[:1])), parts[2])

    def differences(self, parts: Sequence[Wide], inputs: Sequence[Elements]) -> NDArray[np.uint64]:
        """Our part of d and e: x - a and y - b, one after the other."""
        x, y = inputs
        return np.concatenate([x - parts[0][:, 0], y - parts[1][:, 0]])

    def check(self, parts: Sequence[Wide], coins: NDArray[np.uint64], masked: Wide) -> Wide:
        """Our part of tau."""
        _, b, _, c, c_again = parts
        tau, r = [], narrow(coins[:1])
        for column in coins[1:].reshape(_COLUMNS, -1):
            v = narrow(column)
            right, wrong = self.projected(c, v), self.projected(c_again, v)
            again = self.times_projected(masked, b, v)
            tau.append(wide.sub(wide.sub(wide.mul(right, r), wrong), again))
        return np.concatenate(tau)

    def result(self, parts: Sequence[Wide], opened: NDArray[np.uint64], first: bool) -> Elements:
        """c + d b + a e, and d e at the first domain."""
        a, b, c = (parts[place][:, 0] for place in (0, 1, 3))
        d, e = np.split(opened, [self.sizes[0]])
        if first:
            b = b + e
        if not self.matrices:
            return c + d * b + a * e
        return c + self.times(d, b) + self.times(a, e)
