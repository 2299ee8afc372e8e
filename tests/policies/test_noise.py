"""Noise exactly as accounted, from coins nobody else knows.

Statistical tests use a fresh key each time and fail by chance with probability below 1e-9 each.
"""

import copy
import math
import pickle
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from policies import noise
from policies.noise import SecureRandom, discrete_gaussian

ERROR_RATE = 1e-9


def chi_square_holds(counts: NDArray[Any], chances: NDArray[np.float64]) -> bool:
    """Whether counts fit the chances, at ERROR_RATE; cells expecting under 10 are pooled."""
    expected = counts.sum() * chances
    order = np.argsort(-expected)
    large = order[expected[order] >= 10]
    rest = np.setdiff1d(order, large)
    observed = np.append(counts[large], counts[rest].sum())
    wanted = np.append(expected[large], expected[rest].sum())
    if wanted[-1] < 1:
        observed, wanted = observed[:-1], wanted[:-1]
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    return bool(statistic < chi2.isf(ERROR_RATE, len(wanted) - 1))


def fits_the_discrete_gaussian(drawn: NDArray[np.int64], sigma: float) -> bool:
    reach = max(3, math.ceil(12 * sigma))
    values = np.arange(-reach, reach + 1)
    weights = np.exp(-(values**2) / (2 * sigma**2))
    counts = np.bincount(np.clip(drawn, -reach, reach) + reach, minlength=len(values))
    return chi_square_holds(counts, weights / weights.sum())


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 8.0, 40.3])
def test_noise_has_the_discrete_gaussian_distribution(sigma: float) -> None:
    assert fits_the_discrete_gaussian(discrete_gaussian(sigma, 200_000, SecureRandom()), sigma)


def test_every_coin_tossed_exactly_gives_the_same_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noise, "MARGIN", 2.0)  # no coin is left to the doubles
    assert fits_the_discrete_gaussian(discrete_gaussian(2.5, 4_000, SecureRandom()), 2.5)


def test_wide_noise_has_the_right_bins() -> None:
    sigma = 2.0**36
    drawn = discrete_gaussian(sigma, 200_000, SecureRandom())
    edges = np.array([-2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0]) * sigma
    below = [0.5 * math.erfc(-edge / sigma / math.sqrt(2)) for edge in edges]
    chances = np.diff([0.0, *below, 1.0])
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=len(chances))
    assert chi_square_holds(counts, chances)
    # Not a wider grid in disguise: the lowest digits are uniform.
    assert chi_square_holds(np.bincount(drawn & 15, minlength=16), np.full(16, 1 / 16))


def test_sums_of_shares_are_as_wide_as_accounted() -> None:
    shares = sum(discrete_gaussian(8.0 / math.sqrt(2), 100_000, SecureRandom()) for _ in range(2))
    # The variance of n normal draws deviates by 7 sqrt(2/n) with probability below 1e-11.
    assert np.var(shares) == pytest.approx(64.0, rel=7 * math.sqrt(2 / 100_000))


def test_a_rational_sigma_is_taken_as_it_is() -> None:
    drawn = discrete_gaussian(Fraction(7, 3), 100_000, SecureRandom())
    assert drawn.dtype == np.int64
    assert fits_the_discrete_gaussian(drawn, 7 / 3)


def test_no_noise_is_zeros_and_any_size_is_exact() -> None:
    random = SecureRandom()
    assert not discrete_gaussian(0, 5, random).any()
    assert [len(discrete_gaussian(3.0, size, random)) for size in (0, 1, 1000)] == [0, 1, 1000]


@pytest.mark.parametrize("sigma", [-1.0, math.nan, math.inf, 2.0**46, 1e-9])
def test_sigma_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma"):
        discrete_gaussian(sigma, 1, SecureRandom())


@pytest.mark.parametrize("exponent", [Fraction(0), Fraction(1, 3), Fraction(1), Fraction(977, 7)])
@pytest.mark.parametrize("bits", [64, 256])
def test_exact_bounds_enclose_the_exponential(exponent: Fraction, bits: int) -> None:
    low, high = noise._exp_bounds(exponent, bits)
    with localcontext() as context:
        context.prec = 400
        truth = Fraction((-Decimal(exponent.numerator) / exponent.denominator).exp())
    assert low <= truth <= high
    assert high - low <= truth * Fraction(1, 2**bits)


def test_an_exact_toss_reads_on_when_64_bits_leave_it_open() -> None:
    class Scripted(SecureRandom):
        def __init__(self, tail: bytes):
            self.tail = tail

        def bytes(self, size: int) -> bytes:
            return self.tail

    half = Fraction(693147180559945309417232121458176568, 10**36)  # ln 2 to 36 digits
    open_word = (1 << 63) - 1  # U and exp(-ln 2) = 1/2 agree in all 64 bits
    assert noise._toss_exactly(open_word, half, Scripted(b"\x00" * 8))
    assert not noise._toss_exactly(1 << 63, half, Scripted(b"\xff" * 8))


def test_a_coin_of_probability_one_or_nearly_zero_is_decided() -> None:
    assert noise._toss_exactly(2**64 - 1, Fraction(0), SecureRandom())
    assert not noise._toss_exactly(1, Fraction(2**40), SecureRandom())


def test_uniform_integers_below_any_bound() -> None:
    random = SecureRandom()
    for bound in (1, 2, 3, 1000):
        counts = np.bincount(random.below(bound, 100_000), minlength=bound)
        assert len(counts) == bound
        if bound > 1:
            assert chi_square_holds(counts, np.full(bound, 1 / bound))


@pytest.mark.parametrize("bound", [0, -1, 2**63])
def test_a_bound_out_of_range_is_refused(bound: int) -> None:
    with pytest.raises(ValueError, match="bound"):
        SecureRandom().below(bound, 1)


def test_two_streams_differ_and_one_never_repeats() -> None:
    first, second = SecureRandom(), SecureRandom()
    blocks = [first.bytes(16) for _ in range(1000)] + [second.bytes(16) for _ in range(1000)]
    assert len(set(blocks)) == 2000


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_cannot_be_copied(copier: Callable[[SecureRandom], object]) -> None:
    with pytest.raises(TypeError, match="repeat its noise"):
        copier(SecureRandom())
