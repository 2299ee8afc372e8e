"""Arithmetic modulo 2^128, in which multiplication triples are checked.

Elements are arrays of uint64 whose last axis holds the low and the high word.
"""

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.uint64]
"""uint64 [..., 2]: low word, high word."""

_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)
_DIGIT_BITS, _DIGITS = 22, 6
_EXACT_TERMS = 512
"""As in `ring.matmul`."""


def add(x: Wide, y: Wide) -> Wide:
    """x + y."""
    low = x[..., 0] + y[..., 0]
    return _wide(low, x[..., 1] + y[..., 1] + (low < y[..., 0]))


def add_to(x: Wide, y: Wide) -> None:
    """x += y."""
    x[..., 0] += y[..., 0]
    x[..., 1] += y[..., 1]
    x[..., 1] += x[..., 0] < y[..., 0]


def sub(x: Wide, y: Wide) -> Wide:
    """x - y."""
    borrow = x[..., 0] < y[..., 0]
    return _wide(x[..., 0] - y[..., 0], x[..., 1] - y[..., 1] - borrow)


def mul(x: Wide, y: Wide) -> Wide:
    """x y, elementwise, broadcast as numpy does."""
    a, b = x[..., 0], y[..., 0]
    a0, a1, b0, b1 = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    one, other = a0 * b1, a1 * b0
    middle = ((a0 * b0) >> _HALF) + (one & _LOW) + (other & _LOW)
    high = a1 * b1 + (one >> _HALF) + (other >> _HALF) + (middle >> _HALF)
    return _wide(a * b, high + a * y[..., 1] + x[..., 1] * b)


def total(x: Wide, axis: int) -> Wide:
    """The sum over one of the leading axes, of fewer than 2^32 elements."""
    low, high = x[..., 0], x[..., 1].sum(axis=axis, dtype=np.uint64)
    first = (low & _LOW).sum(axis=axis, dtype=np.uint64)
    second = (low >> _HALF).sum(axis=axis, dtype=np.uint64) + (first >> _HALF)
    return _wide((first & _LOW) | (second << _HALF), high + (second >> _HALF))


def matmul(x: Wide, y: Wide) -> Wide:
    """The product of matrices [m, k, 2] and [k, n, 2], by digits of 22 bits as `ring.matmul`'s."""
    found = np.zeros((len(x), y.shape[1], 2), np.uint64)
    for begin in range(0, x.shape[1], _EXACT_TERMS):
        left = _digits(x[:, begin : begin + _EXACT_TERMS])
        right = _digits(y[begin : begin + _EXACT_TERMS])
        for place in range(_DIGITS):
            for i in range(place + 1):
                product = (left[i] @ right[place - i]).astype(np.uint64)
                found = add(found, _shifted(product, _DIGIT_BITS * place))
    return found


def _digits(x: Wide) -> list[NDArray[np.float64]]:
    mask, digits = np.uint64(2**_DIGIT_BITS - 1), []
    for place in range(_DIGITS):
        shift = _DIGIT_BITS * place
        if shift >= 64:
            part = x[..., 1] >> np.uint64(shift - 64)
        else:
            part = x[..., 0] >> np.uint64(shift)
            if shift + _DIGIT_BITS > 64:
                part = part | (x[..., 1] << np.uint64(64 - shift))
        digits.append((part & mask).astype(np.float64))
    return digits


def _shifted(x: NDArray[np.uint64], bits: int) -> Wide:
    if bits >= 64:
        return _wide(np.zeros_like(x), x << np.uint64(bits - 64))
    return _wide(x << np.uint64(bits), x >> np.uint64(64 - bits) if bits else np.zeros_like(x))


def _wide(low: NDArray, high: NDArray) -> Wide:
    return np.stack(np.broadcast_arrays(low, high), axis=-1)
