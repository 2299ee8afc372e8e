"""What is proven about a tensor that domains hold in shares: its bounds, and whom it can betray.

A tensor is integers times a public unit. Two facts travel with it, both about the integers and both
integers themselves, so that nothing is rounded and no NaN, infinity or huge factor can shrink them:

    norm^2          no total of honest domains has a larger squared L2 norm
    sensitivity^2   no user, added or removed with all her interactions, moves it further (L2)

They start as what the engine enforces (each user's integers have an L2 norm of at most
clip_norm * scale; a domain has at most the declared users) and go through each map by a bound:

    x + y           S = S_x + S_y: one user may be in both
    x beside y      S^2 = S_x^2 + S_y^2
    sum of k        S = sqrt(k) S: Cauchy and Schwarz
    M x             S = |M| S with |M|^2 <= min(|M|_F^2, |M|_1 |M|_inf), both above the spectral
                    norm (Horn and Johnson 2013, section 5.6)
    x y             S = N_x S_y + N_y S_x: x'y' - xy = x'(y' - y) + (x' - x)y, and the L2 norm
                    (Frobenius) of a product, elementwise or of matrices, is at most that of theirs
    (x + d) >> f    S / 2^f + sqrt(min(P, S^2)) for any public d in [0, 2^f): an element that moves
                    by i != 0 moves by less than |i| / 2^f + 1, the others don't; i is an integer,
                    so at most S^2 of the P elements move. Likewise N.

A public factor changes the unit alone, and so scales the noise with the numbers. The Gaussian
mechanism is then applied to the integers as in `policies.mechanism`: noise of z * S units.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.mechanism import noise_share_sigma, unit_limit
from policies.noise import MAX_SIGMA
from policies.plan import Plan, Step

MAX_ELEMENTS = 2**24
MAX_DIMENSIONS = 4
MAX_PARTS = 64
"""Tensors beside each other."""
LARGEST_ENTRY = 2**20
"""Of a public matrix, in integers; no matrix has more than as many entries."""

_LARGEST = 2**62
"""No element of a tensor may be beyond, so that it can't wrap around in the ring."""
_FACTOR_BITS, _UNIT_BITS = 64, 512
_NARROWEST = 8.0
"""Narrower sums of discrete Gaussians don't count as Gaussian (Kairouz, Liu and Steinke 2021)."""


class TensorRefused(ValueError):
    """An operation or a reveal that can't be; says which bound forbids it."""


@dataclass(frozen=True)
class Proven:
    """What holds of a tensor, whoever asks for it.

    Attributes:
        shape: of the tensor.
        unit: the tensor is its integers times this; not 0, negative after a change of sign.
        norm2, sensitivity2: see the module.
        sources: the steps whose private sums it was made of, sorted.
    """

    shape: tuple[int, ...]
    unit: Fraction
    norm2: int
    sensitivity2: int
    sources: tuple[str, ...]

    @property
    def length(self) -> int:
        return math.prod(self.shape)

    @property
    def sensitivity(self) -> Fraction:
        """The L2 sensitivity in the tensor's own numbers, rounded up to the next integer unit."""
        return root(self.sensitivity2) * abs(self.unit)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; the integers as text, since they are longer than JSON's."""
        return {
            "shape": list(self.shape),
            "unit": str(self.unit),
            "norm2": str(self.norm2),
            "sensitivity2": str(self.sensitivity2),
            "sources": list(self.sources),
        }


def root(square: int) -> int:
    """The smallest integer whose square is at least `square`."""
    found = math.isqrt(square)
    return found if found * found == square else found + 1


def of_step(plan: Plan, step: Step) -> Proven:
    """Of a kept step's private sum over all domains, flat.

    Raises:
        TensorRefused: the plan keeps no such sum.
    """
    if step.kept is None:
        raise TensorRefused(f"Step '{step.name}' is released, not kept; write kept=True in it.")
    each = unit_limit(step.clip_norm, step.scale)
    people = len(plan.roster) * step.kept.users
    unit = Fraction(1, step.scale)
    return checked(Proven((step.width,), unit, people**2 * each, each, (step.name,)))


def outputs_of(whole: Proven, step: Step) -> list[tuple[int, int, Proven]]:
    """Where each output of a kept step begins and ends in its flat sum, and what is proven of it.

    Raises:
        TensorRefused: an output has a shape that tensors can't have.
    """
    found, begin = [], 0
    for spec in step.outputs:
        end = begin + spec.count
        found.append((begin, end, reshaped(sliced(whole, [(begin, end, 1)]), spec.shape)))
        begin = end
    return found


def aligned(parts: Sequence[Proven]) -> tuple[Fraction, list[int]]:
    """A common unit, and by what each part's integers must be multiplied to be in it."""
    numerator, denominator = 0, math.lcm(*(part.unit.denominator for part in parts))
    for part in parts:
        numerator = math.gcd(numerator, int(part.unit * denominator))
    unit = Fraction(numerator, denominator)
    return unit, [int(part.unit / unit) for part in parts]


def added(x: Proven, y: Proven) -> tuple[list[int], Proven]:
    """x + y, and what each one's integers are multiplied by before."""
    if x.shape != y.shape:
        raise TensorRefused(
            f"Tensors of shape {x.shape} and {y.shape} can't be added; they must have one shape, "
            "nothing is repeated to fit."
        )
    unit, (a, b) = aligned((x, y))
    norm = abs(a) * root(x.norm2) + abs(b) * root(y.norm2)
    moved = abs(a) * root(x.sensitivity2) + abs(b) * root(y.sensitivity2)
    return [a, b], checked(Proven(x.shape, unit, norm**2, moved**2, _sources(x, y)))


def concatenated(parts: Sequence[Proven], axis: int) -> tuple[list[int], Proven]:
    """The parts one after another along an axis, and the multipliers of each one's integers."""
    shapes = [part.shape for part in parts]
    if not 1 <= len(parts) <= MAX_PARTS or not 0 <= axis < len(shapes[0]):
        raise TensorRefused(
            f"Concatenate 1 to {MAX_PARTS} tensors along one of their axes, counted from 0."
        )
    others = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(others) > 1 or len({len(shape) for shape in shapes}) > 1:
        raise TensorRefused(f"Tensors of shapes {shapes} don't fit beside each other.")
    unit, factors = aligned(parts)
    shape = list(shapes[0])
    shape[axis] = sum(s[axis] for s in shapes)
    pairs = list(zip(factors, parts, strict=True))
    norm2 = sum(f**2 * part.norm2 for f, part in pairs)
    moved2 = sum(f**2 * part.sensitivity2 for f, part in pairs)
    return factors, checked(Proven(tuple(shape), unit, norm2, moved2, _sources(*parts)))


def rescaled(x: Proven, factor: Fraction) -> Proven:
    """x times a public number: the unit alone changes."""
    if not 0 < abs(factor.numerator) < 2**_FACTOR_BITS > factor.denominator:
        raise TensorRefused("A public factor lies between 2^-64 and 2^64, and isn't 0.")
    return checked(replace(x, unit=x.unit * factor))


def summed(x: Proven, axis: int | None) -> Proven:
    """The sum over an axis, or of everything."""
    if axis is not None and not 0 <= axis < len(x.shape):
        raise TensorRefused(f"A tensor of shape {x.shape} has no axis {axis}.")
    count = x.length if axis is None else x.shape[axis]
    shape = () if axis is None else x.shape[:axis] + x.shape[axis + 1 :]
    wider = replace(x, shape=shape, norm2=x.norm2 * count, sensitivity2=x.sensitivity2 * count)
    return checked(wider)


def sliced(x: Proven, bounds: Sequence[tuple[int, int, int]]) -> Proven:
    """A part of x. No less sensitive: all that a user moves may lie there."""
    good = len(bounds) == len(x.shape) and all(
        0 <= begin < end <= size and step >= 1
        for (begin, end, step), size in zip(bounds, x.shape, strict=True)
    )
    if not good:
        raise TensorRefused(f"These bounds don't lie in a tensor of shape {x.shape}.")
    return replace(x, shape=tuple(len(range(*bound)) for bound in bounds))


def reshaped(x: Proven, shape: Sequence[int]) -> Proven:
    """The same elements in another shape."""
    if math.prod(shape) != x.length or any(size < 1 for size in shape):
        raise TensorRefused(f"{x.length} elements don't fill the shape {tuple(shape)}.")
    return checked(replace(x, shape=tuple(shape)))


def mapped(x: Proven, matrix: NDArray[np.int64], unit: Fraction, left: bool) -> Proven:
    """matrix @ x if `left`, else x @ matrix, for a public matrix of integers times `unit`."""
    wide = matrix.ndim == 2 and 0 < matrix.size <= LARGEST_ENTRY
    # Not by abs, which leaves -2^63 as it is.
    if (
        not wide
        or not matrix.any()
        or int(matrix.max()) > LARGEST_ENTRY
        or int(matrix.min()) < -LARGEST_ENTRY
    ):
        raise TensorRefused(
            f"A public matrix has two axes, at most {LARGEST_ENTRY} entries, not all of them 0, "
            f"and as integers none beyond {LARGEST_ENTRY}."
        )
    shape = _product_shape(matrix.shape, x.shape) if left else _product_shape(x.shape, matrix.shape)
    size = np.abs(matrix)
    rows, columns = int(size.sum(axis=1).max()), int(size.sum(axis=0).max())
    spectral2 = min(int((size * size).sum()), rows * columns)
    wider = replace(
        x, shape=shape, norm2=x.norm2 * spectral2, sensitivity2=x.sensitivity2 * spectral2
    )
    return rescaled(checked(wider), unit)


def multiplied(x: Proven, y: Proven, matrices: bool) -> Proven:
    """x y of two secret tensors: elementwise, or of matrices."""
    if not matrices and x.shape != y.shape:
        raise TensorRefused(
            f"Tensors of shape {x.shape} and {y.shape} have no elementwise product; they must have "
            "one shape, nothing is repeated to fit."
        )
    shape = _product_shape(x.shape, y.shape) if matrices else x.shape
    moved = root(x.norm2 * y.sensitivity2) + root(y.norm2 * x.sensitivity2)
    unit = x.unit * y.unit
    return checked(Proven(shape, unit, x.norm2 * y.norm2, moved**2, _sources(x, y)))


def truncated(x: Proven, dropped: int) -> Proven:
    """x without its lowest bits, rounded up or down: its integers are 2^dropped times larger."""
    if not 1 <= dropped <= bits_of(x):
        raise TensorRefused(
            f"From its bounds this tensor has {bits_of(x)} bits; truncate drops 1 to all of them."
        )
    norm, moved = (
        -(-root(square) // 2**dropped) + root(min(x.length, square))
        for square in (x.norm2, x.sensitivity2)
    )
    fewer = replace(x, unit=x.unit * 2**dropped, norm2=norm**2, sensitivity2=moved**2)
    return checked(fewer)


def bits_of(x: Proven) -> int:
    """How many bits, without the sign, x's integers can have: from its bounds, not its numbers."""
    return math.isqrt(x.norm2).bit_length()


def units(x: Proven) -> float:
    """The L2 sensitivity in integer units, never rounded down."""
    exact = root(x.sensitivity2)
    found = float(exact)
    return found if int(found) >= exact else math.nextafter(found, math.inf)


def noise_share(x: Proven, plan: Plan, step: Step) -> float:
    """Standard deviation, in integer units, of one domain's noise if a release of `step` pays.

    Raises:
        TensorRefused: the noise would be too narrow to count as Gaussian or too wide to be drawn,
            or the noised tensor could wrap around in the ring with probability above 2^-64.
    """
    sigma = noise_share_sigma(step.noise_multiplier, units(x), 1, plan.noise_shares, 0)
    if not plan.public and not _NARROWEST <= sigma <= MAX_SIGMA:
        raise TensorRefused(
            f"The noise that this tensor's sensitivity asks for is {sigma:.3g} integer units wide "
            f"at each domain; it can be {_NARROWEST:g} to {MAX_SIGMA:.3g}: use "
            + ("a larger scale" if sigma < _NARROWEST else "truncate, or a smaller scale")
            + "."
        )
    k = math.sqrt(2 * (64 * math.log(2) + math.log(2 * x.length)))
    if root(x.norm2) + k * math.sqrt(len(plan.roster)) * sigma >= 2.0**63:
        raise TensorRefused("With its noise this tensor could leave the ring: use a smaller scale.")
    return sigma


def _product_shape(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
    if not (1 <= len(x) <= 2 and 1 <= len(y) <= 2) or x[-1] != y[0]:
        raise TensorRefused(
            f"Shapes {x} and {y} have no matrix product: both must have one or two axes, and the "
            "last of the first must be as long as the first of the second."
        )
    return x[:-1] + y[1:]


def checked(x: Proven) -> Proven:
    """x, if a tensor can be so.

    Raises:
        TensorRefused: its shape, its bounds or its unit are beyond what the ring and messages take.
    """
    if len(x.shape) > MAX_DIMENSIONS or not 0 < x.length <= MAX_ELEMENTS:
        raise TensorRefused(
            f"A tensor has at most {MAX_DIMENSIONS} axes and {MAX_ELEMENTS} elements; this one "
            f"would have the shape {x.shape}."
        )
    if x.norm2 >= _LARGEST**2:
        raise TensorRefused(
            f"From its bounds this tensor's integers may reach 2^{x.norm2.bit_length() // 2}; at "
            "most 2^62 fit the ring: truncate first, or use a smaller scale or smaller factors."
        )
    if max(x.unit.numerator.bit_length(), x.unit.denominator.bit_length()) > _UNIT_BITS:
        raise TensorRefused(f"The tensor's unit takes more than {_UNIT_BITS} bits to write.")
    return x


def _sources(*parts: Proven) -> tuple[str, ...]:
    return tuple(sorted({source for part in parts for source in part.sources}))
