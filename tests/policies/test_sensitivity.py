"""What is proven of tensors, against neighbouring inputs put through the same operations."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from network.smpc.ring import from_ring, matmul
from network.smpc.tensors import Operation, digest_of_matrix, planned
from policies import bounded, sensitivity
from policies.sensitivity import Proven, TensorRefused

CLIP, USERS = 300, 40
"""Integer units: a user's norm, and how many there may be."""

_LINEAR = "add", "twice", "beside", "scale", "sum", "slice", "reshape", "map"
Draw = Callable[[Any], Any]
Integers = NDArray[np.int64]


class Worlds:
    """A tensor with and without one user, what is proven of it, and its exact numbers with her."""

    def __init__(self, proven: Proven, without: Integers, added: Integers, exact: NDArray) -> None:
        self.proven = proven
        self.integers = without, added
        self.exact = exact

    def check(self) -> None:
        without, added = ([int(i) for i in each.ravel()] for each in self.integers)
        moved2 = sum((a - b) ** 2 for a, b in zip(added, without, strict=True))
        assert moved2 <= self.proven.sensitivity2
        for whole in (without, added):
            assert sum(i * i for i in whole) <= self.proven.norm2
        assert self.integers[1].shape == self.proven.shape == self.exact.shape
        assert [i * self.proven.unit for i in added] == list(self.exact.ravel())


def first(draw: Draw, name: str) -> Worlds:
    """A private sum of 6 numbers; what she adds is as long as clipping allows, or shorter."""
    unit = Fraction(1, draw(st.sampled_from([1, 4, 2**20])))
    each = CLIP**2
    proven = Proven((6,), unit, USERS**2 * each, each, (name,))
    hers = np.zeros(6, np.int64)
    match draw(st.sampled_from(["one", "all", "any"])):
        case "one":
            hers[draw(st.integers(0, 5))] = draw(st.sampled_from([-CLIP, CLIP]))
        case "all":
            hers += draw(st.sampled_from([-1, 1])) * math.isqrt(each // 6)
        case _:
            hers += [draw(st.integers(-math.isqrt(each // 6), 100)) for _ in range(6)]
    # As if all others were as she is: nothing is longer, and products move furthest.
    others = draw(st.sampled_from([0, USERS - 1, -USERS]) | st.integers(-USERS, USERS - 1))
    without, added = hers * others, hers * (others + 1)
    return Worlds(proven, without, added, np.array([int(i) * unit for i in added], object))


def through(
    local: Callable[[Any], Any], of: list[Worlds], shape: tuple[int, ...]
) -> list[Integers]:
    """A map of shares as nodes do it, here of the whole tensor, in both worlds."""
    found = []
    for world in (0, 1):
        parts = [each.integers[world].astype(np.int64).view(np.uint64).ravel() for each in of]
        found.append(from_ring(local(parts)).reshape(shape))
    return found


def applied(of: list[Worlds], exact: Any, **said: Any) -> Worlds:
    """One public-linear operation without a matrix."""
    operation = Operation(of=("a" * 64,) * len(of), **said)
    proven, local = planned(operation, [each.proven for each in of])
    without, added = through(local, of, proven.shape)
    return Worlds(proven, without, added, np.array(exact, object).reshape(proven.shape))


def linear(draw: Draw, x: Worlds, y: Worlds) -> Worlds:
    """A public-linear map drawn at random, of one or two tensors."""
    shape = x.proven.shape
    do = draw(st.sampled_from(_LINEAR))
    axis = draw(st.integers(0, max(len(shape) - 1, 0)))
    if do == "add":
        return applied([x, y], x.exact + y.exact, do="add")
    if do == "twice":
        return applied([x, x], x.exact + x.exact, do="add")
    if do == "beside":
        parts = draw(st.sampled_from([[x, y], [x, x], [x, x, x]]))
        exact = np.concatenate([each.exact for each in parts], axis=axis)
        return applied(parts, exact, do="concatenate", axis=axis)
    if do == "scale":
        factor = Fraction(draw(st.integers(-9, 9).filter(bool)), draw(st.integers(1, 9)))
        factor *= draw(st.sampled_from([1, 2**40, Fraction(1, 2**40)]))
        return applied([x], factor * x.exact, do="scale", factor=str(factor))
    if do == "sum":
        along = draw(st.sampled_from([None, axis]))
        return applied([x], np.sum(x.exact, axis=along), do="sum", axis=along)
    if do == "slice":
        bounds = []
        for size in shape:
            begin = draw(st.integers(0, size - 1))
            bounds.append((begin, draw(st.integers(begin + 1, size)), draw(st.integers(1, size))))
        where = tuple(slice(*each) for each in bounds)
        return applied([x], x.exact[where], do="slice", bounds=tuple(bounds))
    if do == "reshape":
        wide = x.proven.length
        other = draw(st.sampled_from([(wide,), (1, wide), (wide, 1), (wide // 2 or 1, 2)]))
        return applied([x], x.exact.reshape(other), do="reshape", shape=other)
    return mapped(draw, x)


def mapped(draw: Draw, x: Worlds) -> Worlds:
    """A public matrix times a tensor: equal rows, or any, small and large entries."""
    left = draw(st.booleans())
    inner = x.proven.shape[0 if left else -1] if x.proven.shape else 1
    outer = draw(st.integers(1, 4))
    size = draw(st.sampled_from([1, 3, 2**20]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    matrix = random.integers(-size, size, (outer, inner), endpoint=True)
    if draw(st.booleans()):
        matrix = np.full_like(matrix, size)
    matrix = np.ascontiguousarray(matrix if left else matrix.T)
    factor = Fraction(1, draw(st.integers(1, 8)))
    do = "left" if left else "right"
    operation = Operation(do=do, of=("a" * 64,), factor=str(factor), shape=matrix.shape,
                          matrix=digest_of_matrix(matrix))  # fmt: skip
    proven, local = planned(operation, [x.proven], matrix)
    without, added = through(local, [x], proven.shape)
    whole = np.vectorize(lambda cell: int(cell) * factor, otypes=[object])(matrix)
    exact = whole @ x.exact if left else x.exact @ whole
    return Worlds(proven, without, added, exact)


def multiplied(draw: Draw, x: Worlds, y: Worlds) -> Worlds:
    """A secret product, elementwise or of matrices."""
    matrices = draw(st.booleans())
    proven = sensitivity.multiplied(x.proven, y.proven, matrices)
    shapes = x.proven.shape, y.proven.shape

    def local(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
        a, b = (part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
        return (matmul(a, b) if matrices else a * b).reshape(-1)

    without, added = through(local, [x, y], proven.shape)
    exact = x.exact @ y.exact if matrices else x.exact * y.exact
    return Worlds(proven, without, added, np.array(exact, object).reshape(proven.shape))


def truncated(draw: Draw, x: Worlds) -> Worlds:
    """Rounded by public random numbers, which are the same in both worlds."""
    bits = draw(st.integers(1, max(1, sensitivity.bits_of(x.proven))))
    proven = sensitivity.truncated(x.proven, bits)
    ends = st.sampled_from([0, 1, 2**bits - 1]) | st.integers(0, 2**bits - 1)
    random = np.resize([draw(ends) for _ in range(3)], x.proven.length)
    without, added = ((each + random.reshape(each.shape)) >> bits for each in x.integers)
    exact = np.array([int(i) * proven.unit for i in added.ravel()], object)
    return Worlds(proven, without, added, exact.reshape(proven.shape))


def compared(draw: Draw, x: Worlds) -> Worlds:
    """A clip or an argmax, of which nothing but bounds is known."""
    sign = -1 if x.proven.unit < 0 else 1
    numbers = [sign * each for each in x.integers]
    if draw(st.booleans()) and x.proven.shape:
        proven = bounded.largest(x.proven)
        rows = proven.shape[-1]
        made = [bounded.ONE * np.eye(rows, dtype=np.int64)[each.argmax(-1)] for each in numbers]
    else:
        low = draw(st.integers(-(2**40), 2**40) | st.integers(-5, 5))
        high = low + draw(st.integers(1, 2**40) | st.integers(1, 5))
        proven = bounded.clipped(x.proven, low, high)
        made = [np.clip(each, low, high) for each in numbers]
    exact = np.array([int(i) * proven.unit for i in made[1].ravel()], object)
    return Worlds(proven, made[0], made[1], exact.reshape(proven.shape))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_program_moves_or_grows_further_than_proven(data: st.DataObject) -> None:
    """Random programs: sums, slices, repetitions, matrices, products, truncations, comparisons."""
    known = [first(data.draw, "x"), first(data.draw, "y")]
    steps: list[Callable[[Worlds, Worlds], Worlds]] = [
        lambda x, y: linear(data.draw, x, y),
        lambda x, y: multiplied(data.draw, x, y),
        lambda x, _: truncated(data.draw, x),
        lambda x, _: compared(data.draw, x),
    ]
    for _ in range(data.draw(st.integers(1, 7))):
        x, y = (data.draw(st.sampled_from(known)) for _ in range(2))
        weighted = steps[data.draw(st.sampled_from([0, 0, 0, 1, 2, 3]))]
        try:
            made = weighted(x, y)
        except (TensorRefused, ValueError):
            continue
        made.check()
        known.append(made)


def worst(name: str = "x") -> Worlds:
    """All numbers are moved alike, by who is added to others like her."""
    each = 4 * 10**4
    hers = np.full(4, 100, np.int64)
    proven = Proven((4,), Fraction(1), USERS**2 * each, each, (name,))
    return Worlds(proven, (USERS - 1) * hers, USERS * hers, USERS * hers.astype(object))


def test_the_bounds_are_reached() -> None:
    """Were one of them smaller, who knows the right direction could move a tensor further."""
    x = worst()
    ones = np.ones((3, 4), np.int64)
    matrix = Operation(do="left", of=("a" * 64,), shape=(3, 4), matrix=digest_of_matrix(ones))
    proven, local = planned(matrix, [x.proven], ones)
    tall = Worlds(proven, *through(local, [x], (3,)), ones.astype(object) @ x.exact)
    alone = Proven((1,), Fraction(1), USERS**2 * 10**4, 10**4, ("x",))
    one = Worlds(alone, *(each[:1] for each in x.integers), x.exact[:1])
    squared = Worlds(sensitivity.multiplied(alone, alone, False),
                     *(each**2 for each in one.integers), one.exact**2)  # fmt: skip
    for made, least in (
        (x, 1),
        (applied([x, x], 2 * x.exact, do="add"), 1),
        (applied([x, worst("y")], np.tile(x.exact, 2), do="concatenate", axis=0), 1),
        (applied([x], x.exact.sum(), do="sum", axis=None), 1),
        (applied([one], one.exact, do="slice", bounds=((0, 1, 1),)), 1),
        (tall, 1),
        (squared, (1 - 1 / (2 * USERS)) ** 2),
    ):
        made.check()
        moved2 = sum(int(i) ** 2 for i in np.ravel(made.integers[1] - made.integers[0]))
        assert moved2 >= least * made.proven.sensitivity2 * (1 - 1e-12)
