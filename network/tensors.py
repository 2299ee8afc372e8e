"""Tensors that partners hold in shares, and what their author can do with them: all but look.

    kept = fed.tensors(plan)                    # an approved plan with kept steps
    counts = kept.share("count")["counts"]      # every domain computes its part and keeps a share
    rate = (1000 * counts + kept.share("more")["counts"]).mean()
    print(rate.reveal())                        # noised, charged, and the only way out

An `SMPCTensor` is a name and what is proven of it. The shares never leave their nodes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from network.public_numbers import (
    bounds_of,
    exact,
    integers,
    is_whole,
    last_below,
    rounded,
    shape_of,
)
from network.smpc.tensors import MAX_PARTS, Operation, digest_of_matrix
from policies import sensitivity
from policies.sensitivity import Proven, TensorRefused

if TYPE_CHECKING:
    from network.tensor_runs import Tensors


@dataclass(frozen=True)
class TensorShape:
    """What can be known of a tensor without revealing it."""

    shape: tuple[int, ...]


class SMPCTensor:
    """A tensor of private numbers that no one holds.

    Arithmetic gives new tensors: `+`, `-`, a public number or matrix times it, `sum`, `mean`,
    slices, `reshape`, `concatenate`. All of it is exact on integers of the ring Z_2^64; what could
    overflow is refused before it is computed.

    Attributes:
        name: hash of the plan and of how the tensor was made.
        proven: its shape, unit, bounds and sources (`policies.sensitivity`).
    """

    __array_ufunc__ = None
    """numpy leaves `matrix @ tensor` to the tensor."""

    def __init__(self, home: "Tensors", name: str, proven: Proven) -> None:
        self._home = home
        self.name = name
        self.proven = proven

    @property
    def shape(self) -> tuple[int, ...]:
        return self.proven.shape

    @property
    def sensitivity(self) -> float:
        """How far one user can move it: the L2 norm, in its own numbers."""
        return float(self.proven.sensitivity)

    @property
    def precision(self) -> float:
        """The step between two numbers that it can hold."""
        return float(abs(self.proven.unit))

    def noise_std(self, paid_by: str | None = None) -> float:
        """Standard deviation of the noise that `reveal` would add to every number."""
        return self._home.noise_std(self.proven, paid_by)

    def reveal(self, paid_by: str | None = None) -> NDArray[np.float64]:
        """The tensor with noise, for everybody to see: one approved release, charged by each owner.

        Args:
            paid_by: the kept step whose releases this is one of; default the first of the plan.

        Raises:
            TensorRefused: its noise can't be added, or all releases are used up.
            RunInterrupted: a domain failed; says which. Call again: it costs a spare attempt only
                where it was charged.
        """
        return self._home.reveal(self, paid_by)

    def sum(self, axis: int | None = None) -> "SMPCTensor":
        """The sum over an axis, or of everything."""
        return self._home.apply(Operation(do="sum", of=(self.name,), axis=self._axis(axis)), self)

    def mean(self, axis: int | None = None) -> "SMPCTensor":
        """The mean over an axis, or of everything: exact, since only the unit is divided."""
        total = self.sum(axis)
        return total._scaled(Fraction(total.proven.length, self.proven.length))

    def reshape(self, *shape: int | tuple[int, ...]) -> "SMPCTensor":
        """The same numbers in another shape, row by row; one size may be -1, as numpy has it."""
        sizes = shape_of(shape, self.proven.length)
        return self._home.apply(Operation(do="reshape", of=(self.name,), shape=sizes), self)

    def truncate(self, bits: int) -> "SMPCTensor":
        """The same numbers with a coarser `precision`, 2^bits times as large: room for products.

        Each is rounded up or down by a public random number that doesn't depend on it, right on
        average and never off by a whole step; `network.smpc.truncation`. Needs the plan's dealer.

        Raises:
            TensorRefused: more bits than its bounds have, or no dealer.
        """
        if not is_whole(bits):
            raise TensorRefused(f"A whole number of bits is dropped, not {bits!r:.80}.")
        return self._home.truncate(self, int(bits))

    def above(self, threshold: float | Fraction = 0) -> "SMPCTensor":
        """1 where it is above a public number, else 0; also written x > 2.5. Needs SPU.

        x >= 2.5, x < 2.5 and x <= 2.5 are made of it, and comparisons of two tensors.

        One user can turn all answers around, so the sensitivity is sqrt(elements).
        """
        low = last_below(exact(threshold), self.proven.unit, reached=False)
        return self._home.compare(self, "above", low)

    def clip(self, low: float, high: float) -> "SMPCTensor":
        """Its numbers, kept between two public ones, to multiples of `precision`. Needs SPU.

        Its sensitivity is at most sqrt(elements) (high - low), whatever it was made of.
        """
        unit = abs(self.proven.unit)
        ends = math.floor(exact(low) / unit), math.ceil(exact(high) / unit)
        return self._home.compare(self, "clip", *ends)

    def argmax(self) -> "SMPCTensor":
        """1 at the first largest number of each row along the last axis, 0 elsewhere. Needs SPU.

        Of a revealed one, numpy's `argmax` gives the places.
        """
        return self._home.compare(self, "argmax")

    def sigmoid(self) -> "SMPCTensor":
        """1 / (1 + exp(-x)), off by at most 0.005. Needs SPU."""
        return self._home.compare(self, "sigmoid")

    @staticmethod
    def concatenate(tensors: Sequence["SMPCTensor"], axis: int = 0) -> "SMPCTensor":
        """Tensors one after another along an axis."""
        if not isinstance(tensors, list | tuple) or not 1 <= len(tensors) <= MAX_PARTS:
            raise TensorRefused(f"Concatenate takes a list of 1 to {MAX_PARTS} shared tensors.")
        for tensor in tensors:
            if not isinstance(tensor, SMPCTensor):
                raise TensorRefused(
                    f"Concatenate takes shared tensors alone, not {type(tensor).__name__}. What is "
                    "public is put beside it once it is revealed."
                )
        place = tensors[0]._axis(axis)
        if place is None:
            raise TensorRefused("Concatenate takes an axis; reshape(-1) makes one of all.")
        names = tuple(tensor.name for tensor in tensors)
        return tensors[0]._home.apply(Operation(do="concatenate", of=names, axis=place), *tensors)

    def __add__(self, other: Any) -> "SMPCTensor":
        if not isinstance(other, SMPCTensor):
            self._no_operation()
        return self._home.apply(Operation(do="add", of=(self.name, other.name)), self, other)

    def __sub__(self, other: Any) -> "SMPCTensor":
        return self + (-other if isinstance(other, SMPCTensor) else other)

    def __neg__(self) -> "SMPCTensor":
        return self._scaled(Fraction(-1))

    def __mul__(self, other: Any) -> "SMPCTensor":
        if isinstance(other, SMPCTensor):
            return self._home.multiply(self, other, matrices=False)
        return self._scaled(rounded(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "SMPCTensor":
        if isinstance(other, SMPCTensor):
            self._no_operation()
        return self._scaled(1 / rounded(other))

    def __matmul__(self, other: Any) -> "SMPCTensor":
        if isinstance(other, SMPCTensor):
            return self._home.multiply(self, other, matrices=True)
        return self._mapped(other, "right")

    def __rmatmul__(self, other: Any) -> "SMPCTensor":
        return self._mapped(other, "left")

    def __getitem__(self, index: Any) -> "SMPCTensor":
        """Slices with positive steps, integers and one Ellipsis."""
        bounds, shape = bounds_of(index, self.shape)
        part = self._home.apply(Operation(do="slice", of=(self.name,), bounds=bounds), self)
        return part if part.shape == shape else part.reshape(*shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def get(self) -> TensorShape:
        """Its shape. The numbers come by `reveal` alone."""
        return TensorShape(self.shape)

    def __repr__(self) -> str:
        return f"SMPCTensor(shape={self.shape}, held by {len(self._home.nodes)} domains)"

    def __reduce__(self) -> tuple[type[TensorShape], tuple[tuple[int, ...]]]:
        return TensorShape, (self.shape,)

    def _no_numbers(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            f"A shared tensor of shape {self.shape} has no numbers here. reveal() publishes it "
            "with noise."
        )

    __array__ = __float__ = __int__ = __index__ = __complex__ = __bytes__ = _no_numbers
    __array_function__ = __dlpack__ = __dlpack_device__ = __buffer__ = _no_numbers
    tolist = item = numpy = _no_numbers

    def _no_operation(self, *_: Any) -> NoReturn:
        raise TypeError(
            "Shared tensors are added to each other, multiplied, compared, summed, sliced and "
            "joined; docs/tensors.md. All else, adding a public number too, is free on what "
            "reveal() gives."
        )

    __radd__ = __rsub__ = __rtruediv__ = __pow__ = __rpow__ = __abs__ = __round__ = _no_operation
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _no_operation
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _no_operation
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _no_operation

    def _not_compared(self, _: object) -> NoReturn:
        raise TypeError("Shared tensors are compared by >, >=, < and <=, or once revealed.")

    def __gt__(self, other: Any) -> "SMPCTensor":
        return (self - other).above() if isinstance(other, SMPCTensor) else self.above(other)

    def __lt__(self, other: Any) -> "SMPCTensor":
        # Made exact first: numpy's unsigned numbers wrap around when they change their sign.
        if isinstance(other, SMPCTensor):
            return (other - self).above()
        return (-self).above(-exact(other))

    def __ge__(self, other: Any) -> "SMPCTensor":
        if isinstance(other, SMPCTensor):
            return (self - other)._at_least(Fraction(0))
        return self._at_least(exact(other))

    def __le__(self, other: Any) -> "SMPCTensor":
        if isinstance(other, SMPCTensor):
            return (other - self)._at_least(Fraction(0))
        return (-self)._at_least(-exact(other))

    __eq__ = __ne__ = _not_compared
    __hash__ = object.__hash__

    def __iter__(self) -> NoReturn:
        raise TypeError("a shared tensor isn't iterated; take slices of it")

    __reversed__ = __iter__

    def __contains__(self, _: object) -> NoReturn:
        raise TypeError("whether a shared tensor holds a number would tell of its numbers")

    def __bool__(self) -> NoReturn:
        raise TypeError("whether a shared tensor is true would tell of its numbers")

    def _at_least(self, threshold: Fraction) -> "SMPCTensor":
        low = last_below(threshold, self.proven.unit, reached=True)
        return self._home.compare(self, "above", low)

    def _scaled(self, factor: Fraction) -> "SMPCTensor":
        sensitivity.rescaled(self.proven, factor)
        return self._home.apply(Operation(do="scale", of=(self.name,), factor=str(factor)), self)

    def _mapped(self, matrix: ArrayLike, side: Any) -> "SMPCTensor":
        entries, unit = integers(matrix)
        sensitivity.rescaled(self.proven, unit)
        operation = Operation(
            do=side,
            of=(self.name,),
            factor=str(unit),
            shape=entries.shape,
            matrix=digest_of_matrix(entries),
        )
        return self._home.apply(operation, self, matrix=entries)

    def _axis(self, axis: int | None) -> int | None:
        if axis is None:
            return None
        if is_whole(axis) and -len(self.shape) <= axis < len(self.shape):
            return int(axis) % len(self.shape)
        hint = "axes are whole numbers, one at a time" if self.shape else "reshape(1) gives it one"
        raise TensorRefused(f"A tensor of shape {self.shape} has no axis {axis!r:.80}: {hint}.")
