"""Tensors at their author: public numbers are rounded as said, indices are numpy's."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from network.public_numbers import bounds_of, integers, last_below, rounded, shape_of
from policies.sensitivity import TensorRefused

WHOLE = np.arange(5 * 6 * 7).reshape(5, 6, 7)


@pytest.mark.parametrize(
    "index",
    [
        0, -1, slice(None), slice(1, 4), slice(None, None, 2), slice(-3, -1), (2, 3, 4), (..., 1),
        (1, ...), (slice(1, 3), ..., slice(0, 7, 3)), (slice(None), -2), (...,), np.int64(2),
        slice(2, None, 2**70),
    ],
)  # fmt: skip
def test_indices_are_numpys(index: Any) -> None:
    bounds, shape = bounds_of(index, WHOLE.shape)
    part = WHOLE[tuple(slice(*each) for each in bounds)].reshape(shape)
    assert np.array_equal(part, WHOLE[index])


@pytest.mark.parametrize(
    "index",
    [
        5,
        -6,
        (0, 0, 0, 0),
        "a",
        None,
        slice(3, 3),
        slice(4, 2),
        slice(None, None, -1),
        [0, 1],
        1.0,
        True,
        np.True_,
        np.array([True]),
    ],
)
def test_other_indices_are_refused(index: Any) -> None:
    with pytest.raises((TensorRefused, ValueError)):
        bounds_of(index, WHOLE.shape)


@pytest.mark.parametrize(
    "shape", [(2, 105), (210,), (-1,), (5, -1), (np.int64(7), 30), ((6, 35),), ([10, -1],), (-1, 1)]
)
def test_shapes_are_numpys(shape: Any) -> None:
    assert shape_of(shape, WHOLE.size) == WHOLE.reshape(*shape).shape


@pytest.mark.parametrize(
    "shape", [(), (0,), (0, 210), (4,), (-1, -1), (-1, 0), (-2, -105), (-1, -2, -3), (4, -1),
              (2.0, 105), ("7", 30), (True, 210), (None,), ((2, 105), 1)]
)  # fmt: skip
def test_other_shapes_are_refused_in_words(shape: Any) -> None:
    with pytest.raises(TensorRefused, match=r"whole numbers|don't fill"):
        shape_of(shape, WHOLE.size)


@pytest.mark.parametrize("unit", [Fraction(1, 4), Fraction(-3, 7), Fraction(5)])
def test_thresholds_between_numbers_and_at_them_are_told_apart(unit: Fraction) -> None:
    for threshold in (
        0,
        1,
        -1,
        Fraction(3, 7),
        Fraction(1, 3),
        Fraction(-5, 4),
        10,
        Fraction(21, 2),
    ):
        above, reached = (last_below(Fraction(threshold), unit, r) for r in (False, True))
        for whole in range(-60, 60):
            number = whole * abs(unit)
            assert (number > threshold) == (whole > above)
            assert (number >= threshold) == (whole > reached)


@pytest.mark.parametrize("number", [0.1, -1 / 3, 1e-12, 123456.789, np.float32(0.7), 2.0**-40])
def test_public_numbers_keep_twenty_bits(number: float) -> None:
    found = rounded(number)
    assert abs(float(found) / float(number) - 1) <= 2.0**-20
    assert abs(rounded(7)) == 7
    assert rounded(Fraction(1, 3)) == Fraction(1, 3)
    assert rounded(np.int64(-(2**53) - 1)) == -(2**53) - 1


@pytest.mark.parametrize(
    "number", [0, 0.0, -0.0, np.nan, np.inf, True, np.True_, np.int64(0), "1", None, 1j, [1.0]]
)
def test_what_is_no_factor_is_refused(number: Any) -> None:
    with pytest.raises(TensorRefused):
        rounded(number)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 3e7])
def test_public_matrices_keep_twenty_bits_of_their_largest_entry(scale: float) -> None:
    matrix = np.random.default_rng(0).normal(size=(7, 9)) * scale
    entries, unit = integers(matrix)
    assert np.abs(entries).max() <= 2**20
    assert np.abs(entries * float(unit) - matrix).max() <= np.abs(matrix).max() * 2.0**-20
    whole, one = integers(np.array([[2**20, -3], [0, 1]]))
    assert np.array_equal(whole, [[2**20, -3], [0, 1]])
    assert one == 1


@pytest.mark.parametrize("matrix", [[[np.nan]], [[np.inf]], [[0.0]], [1.0], [[[1.0]]], [[]]])
def test_what_is_no_public_matrix_is_refused(matrix: Any) -> None:
    with pytest.raises(TensorRefused):
        integers(matrix)
