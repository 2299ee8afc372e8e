"""Threshold sharing of a 32-byte secret: Shamir 1979, "How to Share a Secret".

The field is Z_p with p = 2^521 - 1, the field prime of NIST's curve P-521 (FIPS 186-5), the
smallest published prime in common use above 2^256. The secret is the value at 0 of a polynomial of
degree threshold - 1 whose other coefficients are uniform in the field: fewer than `threshold`
shares say nothing about it, whatever it is.
"""

import os
from collections.abc import Mapping

PRIME = 2**521 - 1
SHARE_BYTES = 66
SECRET_BYTES = 32
MAX_SHARES = 64


class NotShares(ValueError):
    """The given shares don't make up a secret; says why, never their values."""


def split(secret: bytes | bytearray, threshold: int, count: int) -> list[bytes]:
    """Shares of a secret for the holders 1 to `count`, in order.

    Args:
        secret: 32 bytes.
        threshold: how many shares open it, 1 to `count`.
        count: how many there are, at most `MAX_SHARES`.

    Returns:
        `count` shares of 66 bytes (big-endian field elements).
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count <= MAX_SHARES:
        raise ValueError(
            f"split takes {SECRET_BYTES} bytes and 1 <= threshold <= count <= {MAX_SHARES}; got "
            f"{len(secret)}, {threshold}, {count}"
        )
    coefficients = [int.from_bytes(secret, "big"), *(_uniform() for _ in range(threshold - 1))]
    return [_at(coefficients, x).to_bytes(SHARE_BYTES, "big") for x in range(1, count + 1)]


def join(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, from the shares of at least `threshold` holders (Lagrange's formula at 0).

    Args:
        shares: by holder's number; with more than `threshold`, the lowest numbers are used.

    Returns:
        32 bytes. Whether they are the secret that was split is for the caller to check.

    Raises:
        NotShares: too few, out of range, or they meet outside of the 32-byte numbers.
    """
    chosen = sorted(shares)[:threshold]
    if len(chosen) < threshold:
        raise NotShares(f"{len(chosen)} shares; {threshold} are needed")
    values = {x: int.from_bytes(shares[x], "big") for x in chosen}
    if any(not 1 <= x <= MAX_SHARES or values[x] >= PRIME for x in chosen):
        raise NotShares("a share is outside of the field")
    total = sum(values[x] * _weight(x, chosen) for x in chosen) % PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise NotShares("the shares don't belong together")
    return total.to_bytes(SECRET_BYTES, "big")


def _at(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


def _weight(x: int, chosen: list[int]) -> int:
    top, bottom = 1, 1
    for other in chosen:
        if other != x:
            top = top * other % PRIME
            bottom = bottom * (other - x) % PRIME
    return top * pow(bottom, -1, PRIME) % PRIME


def _uniform() -> int:
    while True:
        # 521 random bits; only the one value p itself is drawn again.
        drawn = int.from_bytes(os.urandom(SHARE_BYTES), "big") >> (8 * SHARE_BYTES - 521)
        if drawn < PRIME:
            return drawn
