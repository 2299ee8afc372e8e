"""What is proven of tensors whose numbers are forced into declared bounds.

Comparing is not linear: one user can turn any number of answers around. But an answer lies within
bounds, so n of them move by no more than sqrt(n) times the distance of the bounds (L2). And a clip
moves no number further than it was moved (it is 1-Lipschitz), so what was proven before holds too.
"""

import math
from dataclasses import replace
from fractions import Fraction

from policies.sensitivity import Proven, TensorRefused, checked

ONE = 2**16
"""The integer that stands for 1 in answers between 0 and 1."""
_MOST = 2**61


def clipped(x: Proven, low: int, high: int) -> Proven:
    """x with every number between two bounds, in integers of its unit without its sign.

    Raises:
        TensorRefused: the bounds are the wrong way round, or too far away for so many numbers.
    """
    if not -_MOST <= low < high <= _MOST:
        raise TensorRefused("A clip goes from a lower to a higher number, both within the ring.")
    moved2 = min(x.sensitivity2, x.length * (high - low) ** 2)
    norm2 = x.length * max(low**2, high**2)
    if low <= 0 <= high:
        norm2 = min(norm2, x.norm2)
    return checked(replace(x, unit=abs(x.unit), norm2=norm2, sensitivity2=moved2))


def answered(x: Proven) -> Proven:
    """A number between 0 and 1 for each of x's."""
    most = x.length * ONE**2
    return replace(x, unit=Fraction(1, ONE), norm2=most, sensitivity2=most)


def largest(x: Proven) -> Proven:
    """1 at the largest number of each row along the last axis, 0 elsewhere.

    A row changes by sqrt(2): a 1 goes and another comes.
    """
    if not x.shape:
        raise TensorRefused("A tensor without axes has no largest place.")
    rows = math.prod(x.shape[:-1])
    return replace(x, unit=Fraction(1, ONE), norm2=rows * ONE**2, sensitivity2=2 * rows * ONE**2)
