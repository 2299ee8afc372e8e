"""Public numbers, matrices and indices as tensors in shares take them.

They are integers times a public unit; what is proven of a tensor is proven of these.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policies.sensitivity import LARGEST_ENTRY, MAX_DIMENSIONS, TensorRefused

_DIGITS = 20
"""Public numbers are rounded to so many bits: relative to themselves, or to the largest entry of
their matrix."""


def exact(number: Any) -> Fraction:
    """A public number as it is.

    Raises:
        TensorRefused: it isn't a finite number.
    """
    if isinstance(number, Fraction | int | np.integer) and not isinstance(number, bool):
        return Fraction(int(number)) if isinstance(number, np.integer) else Fraction(number)
    if isinstance(number, float | np.floating) and np.isfinite(number):
        return Fraction(float(number))
    raise TensorRefused(f"Tensors are compared with finite numbers, not with {_shown(number)}.")


def last_below(threshold: Fraction, unit: Fraction, reached: bool) -> int:
    """The last whole multiple of |unit| that isn't above a threshold; or, `reached`, is below it.

    Numbers of a tensor are such multiples, so they are above this one where they are above the
    threshold; or, `reached`, at it or above.
    """
    multiples = threshold / abs(unit)
    return math.ceil(multiples) - 1 if reached else math.floor(multiples)


def rounded(number: Any) -> Fraction:
    """A public number at `_DIGITS` significant bits.

    Raises:
        TensorRefused: it isn't a finite number, or 0.
    """
    if isinstance(number, Fraction | int | np.integer) and not isinstance(number, bool) and number:
        return exact(number)
    if not isinstance(number, float | np.floating) or not (np.isfinite(number) and number):
        hint = " One for each element is a matrix: np.diag(factors) @ x." if np.ndim(number) else ""
        raise TensorRefused(
            f"A public factor is one finite number other than 0, not {_shown(number)}.{hint}"
        )
    mantissa, exponent = math.frexp(float(number))
    return Fraction(round(mantissa * 2**_DIGITS), 2**_DIGITS) * Fraction(2) ** exponent


def integers(matrix: ArrayLike) -> tuple[NDArray[np.int64], Fraction]:
    """A public matrix as integers of at most `_DIGITS` bits, times a power of two.

    Raises:
        TensorRefused: it isn't a matrix of finite numbers, or all are 0.
    """
    try:
        given = np.asarray(matrix)
    except ValueError:
        raise TensorRefused("A public matrix has rows of one length.") from None
    if given.dtype.kind not in "biuf":
        raise TensorRefused(f"A public matrix has real numbers, not {given.dtype}.")
    if given.ndim != 2 or not 0 < given.size <= LARGEST_ENTRY:
        raise TensorRefused(
            f"A public matrix has two axes and 1 to {LARGEST_ENTRY} entries, not the shape "
            f"{given.shape}; v[None] makes a row of a vector v, a larger one is applied in parts."
        )
    values = given.astype(np.float64)
    if not np.isfinite(values).all() or not values.any():
        raise TensorRefused("A public matrix has finite numbers, not all of them 0.")
    largest = float(np.abs(values).max())
    exact = largest <= 2**_DIGITS and bool((values == np.rint(values)).all())
    bits = 0 if exact else _DIGITS - math.frexp(largest)[1]
    return np.rint(np.ldexp(values, bits)).astype(np.int64), Fraction(2) ** -bits


def shape_of(asked: Sequence[Any], length: int) -> tuple[int, ...]:
    """A shape for `length` elements, as numpy's `reshape` takes it: sizes or a tuple of them.

    Raises:
        TensorRefused: something else than whole numbers, or more than one -1, or they don't fit.
    """
    sizes = asked[0] if len(asked) == 1 and isinstance(asked[0], tuple | list) else asked
    if not all(is_whole(size) for size in sizes):
        raise TensorRefused(f"A shape is whole numbers, not {_shown(sizes)}.")
    if len(sizes) > MAX_DIMENSIONS:
        raise TensorRefused(f"A tensor has at most {MAX_DIMENSIONS} axes, not {len(sizes)}.")
    found = [int(size) for size in sizes]
    if -1 in found:
        others = -math.prod(found)
        if others > 0 and length % others == 0:
            found[found.index(-1)] = length // others
    if any(size < 1 for size in found) or math.prod(found) != length:
        raise TensorRefused(f"{length} elements don't fill the shape {tuple(sizes)}.")
    return tuple(found)


def is_whole(number: Any) -> bool:
    """Whether it is an integer; a truth value is none."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def bounds_of(
    index: Any, shape: tuple[int, ...]
) -> tuple[tuple[tuple[int, int, int], ...], tuple[int, ...]]:
    """(begin, end, step) of each axis, and the shape without the axes that integers took away.

    Raises:
        TensorRefused: something else than slices with positive steps, integers and one Ellipsis,
            or nothing is left.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    # By identity: an array among them would compare itself element by element.
    at = next((place for place, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + (at < len(parts)))
    if len(parts) != len(shape):
        raise TensorRefused(f"Too many indices for a tensor of shape {shape}.")
    bounds, left = [], []
    for part, size in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            bounds.append(_slice_of(part, size))
            left.append(len(range(*bounds[-1])))
        elif is_whole(part) and -size <= part < size:
            bounds.append((int(part) % size, int(part) % size + 1, 1))
        elif is_whole(part):
            raise TensorRefused(f"{_shown(part)} lies outside an axis of {size} elements.")
        else:
            raise TensorRefused(
                f"{_shown(part)} is no index: slices with positive steps, integers and one "
                "Ellipsis are. A public matrix takes any elements: np.eye(n)[places] @ x."
            )
    return tuple(bounds), tuple(left)


def _slice_of(part: slice, size: int) -> tuple[int, int, int]:
    try:
        begin, end, step = part.indices(size)
    except (TypeError, ValueError):
        raise TensorRefused(f"{_shown(part)} is no slice: its parts are whole numbers.") from None
    if step < 1 or begin >= end:
        raise TensorRefused(f"{_shown(part)} takes nothing, or backwards, of {size} elements.")
    return begin, end, min(step, size)


def _shown(value: Any) -> str:
    """The beginning of what a caller gave, for a message."""
    return f"{value!r:.80}"
