"""What can be done to tensors in shares without their holders talking: all public-linear maps.

A tensor is the sum, modulo 2^64, of one flat array of ring elements for each domain. A map that is
linear over the integers is applied by each domain to its own array alone. What is proven of the
result (`policies.sensitivity`) comes first, so whatever could overflow is refused before any work.

A tensor's name is a hash of the plan and of how it was made, down to the shares it began with, so
domains that agree on a name agree on what would be revealed under it.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from pydantic import Field

from network.smpc.attempt import framed
from network.smpc.messages import MalformedMessage, _Message
from network.smpc.ring import Elements, matmul
from network.smpc.triples import MAX_FACTOR, MAX_MULTIPLY_ADDS, Factors
from network.smpc.truncation import MAX_BITS, Truncation
from policies import sensitivity
from policies.canonical import canonical, sha256_hex
from policies.sensitivity import MAX_DIMENSIONS, Proven, TensorRefused

Local = Callable[[Sequence[Elements]], Elements]
"""Every domain's own part of a map: its arrays, flat, to its array of the result, flat."""

MAX_PARTS = sensitivity.MAX_PARTS
_NUMBER = re.compile("-?[0-9]{1,20}(/[0-9]{1,20})?")
Hex = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=sensitivity.MAX_ELEMENTS)]


class Operation(_Message):
    """One public-linear map of tensors.

    Attributes:
        do: "add", "concatenate", "scale", "sum", "slice", "reshape", "left" (matrix @ tensor) or
            "right" (tensor @ matrix); or "join" (the pieces of one truncated tensor, in order).
        of: names of the tensors.
        axis: of "concatenate" and "sum", counted from 0; None: the sum of everything.
        factor: of "scale" and of a matrix' integers: an integer or a fraction, as text.
        bounds: of "slice": begin, end and step for every axis.
        shape: of "reshape", or of the matrix.
        matrix: BLAKE3 of the public matrix, little-endian int64, row by row.
    """

    do: Literal["add", "concatenate", "scale", "sum", "slice", "reshape", "left", "right", "join"]
    of: Annotated[tuple[Hex, ...], Field(min_length=1, max_length=MAX_PARTS)]
    axis: Annotated[int, Field(ge=0, lt=MAX_DIMENSIONS)] | None = None
    factor: Annotated[str, Field(max_length=42)] = "1"
    bounds: tuple[tuple[Size, Size, Size], ...] = ()
    shape: Annotated[tuple[Size, ...], Field(max_length=MAX_DIMENSIONS)] = ()
    matrix: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""

    @classmethod
    def read(cls, text: str) -> "Operation":
        """Read what `text` wrote.

        Raises:
            MalformedMessage: it isn't an operation.
        """
        try:
            said = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            raise MalformedMessage("an operation on tensors travels as JSON") from None
        return cls.from_dict(tuples(said))

    @property
    def text(self) -> str:
        """Canonical: equal operations have equal text."""
        return canonical(self.to_dict()).decode()

    def name(self, plan_hash: str) -> str:
        """The name of the tensor that this makes."""
        return sha256_hex(framed(b"coterie-tensor-v1", plan_hash.encode(), self.text.encode()))


class Secret(_Message):
    """One computation that takes what a dealer deals.

    Attributes:
        do: "elements" or "matrices" (products), or "truncate".
        of: names of the tensors: two factors, or what is truncated.
        dropped, begin, end: of "truncate": how many of the lowest bits, of which flat elements.
        number: tells computations of a plan apart; the same at every domain.
    """

    do: Literal["elements", "matrices", "truncate"]
    of: Annotated[tuple[Hex, ...], Field(min_length=1, max_length=2)]
    dropped: Annotated[int, Field(ge=0, le=62)] = 0
    begin: Size = 0
    end: Size = 0
    number: Annotated[int, Field(ge=0, lt=2**32)]

    @property
    def operands(self) -> tuple[str, ...]:
        """What it is done with, as the digest of the work has it."""
        return (f"{self.of[0]}[{self.begin}:{self.end}]",) if self.do == "truncate" else self.of

    def planned(self, of: Sequence[Proven]) -> tuple[Proven, Factors | Truncation]:
        """What is proven of the result, and the work.

        Args:
            of: what is proven of the tensors that it names.

        Raises:
            TensorRefused: shapes that don't fit, bounds that forbid it, or too much at once.
        """
        if len(of) != (1 if self.do == "truncate" else 2):
            raise TensorRefused(f"'{self.do}' takes another number of tensors than {len(of)}.")
        if self.do == "truncate":
            return self._truncated(of[0])
        matrices = self.do == "matrices"
        factors = Factors(of[0].shape, of[1].shape, matrices)
        proven = sensitivity.multiplied(of[0], of[1], matrices)
        if max(factors.sizes) > MAX_FACTOR or factors.work > MAX_MULTIPLY_ADDS:
            raise TensorRefused(
                f"Factors and products have at most {MAX_FACTOR} elements: multiply parts of them."
            )
        return proven, factors

    def _truncated(self, x: Proven) -> tuple[Proven, Truncation]:
        if not 0 <= self.begin < self.end <= x.length:
            raise TensorRefused(f"There is no piece {self.begin} to {self.end} of {x.shape}.")
        length = self.end - self.begin
        piece = x if length == x.length else replace(x, shape=(length,))
        proven = sensitivity.truncated(piece, self.dropped)
        work = Truncation(length, sensitivity.bits_of(x), self.dropped)
        if work.bits > MAX_BITS:
            raise TensorRefused(f"{MAX_BITS // work.width} elements are truncated at a time.")
        return proven, work


class Made(_Message):
    """What a domain says it made: a tensor's name and what is proven of it, as JSON-able values."""

    name: Hex
    proven: dict[str, Any]


def shared_name(plan_hash: str, transcript: bytes, begin: int, end: int) -> str:
    """The name of a tensor that is part of a kept sum, which was shared among these keys."""
    where = (begin.to_bytes(8, "big"), end.to_bytes(8, "big"))
    return sha256_hex(framed(b"coterie-shared-tensor-v1", plan_hash.encode(), transcript, *where))


def computed_name(plan_hash: str, transcript: bytes) -> str:
    """The name of a tensor that was made with what was dealt, tossed and said in `transcript`."""
    return sha256_hex(framed(b"coterie-product-tensor-v1", plan_hash.encode(), transcript))


def digest_of_matrix(matrix: NDArray[np.int64]) -> str:
    """BLAKE3 of a public matrix, as `Operation.matrix` has it."""
    return blake3(np.ascontiguousarray(matrix, "<i8").data.cast("B")).hexdigest()


def planned(
    operation: Operation, of: Sequence[Proven], matrix: NDArray[np.int64] | None = None
) -> tuple[Proven, Local]:
    """What is proven of an operation's result, and how each domain computes its share of it.

    Args:
        of: what is proven of the tensors that it names.
        matrix: int64, the public matrix, if it takes one.

    Raises:
        TensorRefused: shapes that don't fit, or a result whose bounds forbid it.
    """
    if len(of) != {"add": 2, "concatenate": len(of)}.get(operation.do, 1):
        raise TensorRefused(f"'{operation.do}' takes another number of tensors than {len(of)}.")
    if operation.do == "join":
        raise TensorRefused("Only pieces of one truncated tensor are joined.")
    if operation.do in ("left", "right"):
        return _mapped(operation, of[0], matrix)
    return _MAPS[operation.do](operation, of)


def _added(operation: Operation, of: Sequence[Proven]) -> tuple[Proven, Local]:
    (a, b), proven = sensitivity.added(*of)
    return proven, lambda parts: _times(parts[0], a) + _times(parts[1], b)


def _concatenated(operation: Operation, of: Sequence[Proven]) -> tuple[Proven, Local]:
    axis = operation.axis or 0
    factors, proven = sensitivity.concatenated(of, axis)

    def local(parts: Sequence[Elements]) -> Elements:
        found = [
            _times(part, factor).reshape(each.shape)
            for part, factor, each in zip(parts, factors, of, strict=True)
        ]
        return np.concatenate(found, axis=axis).reshape(-1)

    return proven, local


def _scaled(operation: Operation, of: Sequence[Proven]) -> tuple[Proven, Local]:
    return sensitivity.rescaled(of[0], fraction(operation.factor)), lambda parts: parts[0]


def _summed(operation: Operation, of: Sequence[Proven]) -> tuple[Proven, Local]:
    proven, shape, axis = sensitivity.summed(of[0], operation.axis), of[0].shape, operation.axis

    def local(parts: Sequence[Elements]) -> Elements:
        return np.sum(parts[0].reshape(shape), axis=axis, dtype=np.uint64).reshape(-1)

    return proven, local


def _sliced(operation: Operation, of: Sequence[Proven]) -> tuple[Proven, Local]:
    proven, shape = sensitivity.sliced(of[0], operation.bounds), of[0].shape
    where = tuple(slice(*each) for each in operation.bounds)
    return proven, lambda parts: parts[0].reshape(shape)[where].reshape(-1).copy()


def _reshaped(operation: Operation, of: Sequence[Proven]) -> tuple[Proven, Local]:
    return sensitivity.reshaped(of[0], operation.shape), lambda parts: parts[0]


def _mapped(
    operation: Operation, x: Proven, matrix: NDArray[np.int64] | None
) -> tuple[Proven, Local]:
    if matrix is None or digest_of_matrix(matrix) != operation.matrix:
        raise TensorRefused("The public matrix isn't the one that the operation names.")
    left = operation.do == "left"
    proven = sensitivity.mapped(x, matrix, fraction(operation.factor), left)
    if proven.length * (matrix.shape[1] if left else matrix.shape[0]) > MAX_MULTIPLY_ADDS:
        raise TensorRefused("The product of these matrices takes too many operations.")
    public = matrix.view(np.uint64)

    def local(parts: Sequence[Elements]) -> Elements:
        secret = parts[0].reshape(x.shape)
        return (matmul(public, secret) if left else matmul(secret, public)).reshape(-1)

    return proven, local


def joined(whole: Proven) -> tuple[Proven, Local]:
    """As `planned`, of "join", once its pieces are known to make this whole."""
    return whole, np.concatenate


_MAPS: dict[str, Callable[[Operation, Sequence[Proven]], tuple[Proven, Local]]] = {
    "add": _added,
    "concatenate": _concatenated,
    "scale": _scaled,
    "sum": _summed,
    "slice": _sliced,
    "reshape": _reshaped,
}


def fraction(text: str) -> Fraction:
    """A public factor.

    Raises:
        TensorRefused: it isn't an integer or fraction of at most 20 digits each.
    """
    if not _NUMBER.fullmatch(text) or text.endswith("/0"):
        raise TensorRefused("A public factor is an integer or a fraction, such as -3/4.")
    top, _, bottom = text.partition("/")
    if bottom and not int(bottom):
        raise TensorRefused("A public factor has no denominator 0.")
    return Fraction(int(top), int(bottom or 1))


def read_matrix(octets: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    """The public matrix that travels as octets; None of none.

    Raises:
        TensorRefused: the octets don't fill the shape.
    """
    if octets.size == 0:
        return None
    if len(shape) != 2 or octets.size != 8 * math.prod(shape):
        raise TensorRefused(f"{octets.size} octets aren't a public matrix of shape {shape}.")
    return np.frombuffer(octets.tobytes(), "<i8").reshape(shape)


def _times(elements: Elements, factor: int) -> Elements:
    return elements if factor == 1 else elements * np.uint64(factor % 2**64)


def tuples(value: Any) -> Any:
    """JSON has lists where messages have tuples."""
    if isinstance(value, list):
        return tuple(tuples(each) for each in value[: sensitivity.MAX_ELEMENTS])
    return {k: tuples(v) for k, v in value.items()} if isinstance(value, dict) else value
