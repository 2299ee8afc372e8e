"""Clip, quantise, noise share, sampling: no user moves a sum further than accounted.

Statistical tests use fresh coins each time and fail by chance with probability below 1e-9 each.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from policies.mechanism import (
    clip,
    noise_share_sigma,
    quantise,
    sample_users,
    zero_nonfinite,
)
from policies.noise import SecureRandom, discrete_gaussian

torch.set_num_threads(1)

any_float32 = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 6)),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)
norms = st.floats(1e-3, 100)
scales = st.integers(0, 19).map(lambda bits: 2**bits)


def exact_norms_squared(units: torch.Tensor) -> list[int]:
    """Of whole numbers, in Python's integers; any other number fails."""
    return [sum(whole(value) ** 2 for value in user) for user in units.tolist()]


def whole(value: float) -> int:
    assert value == int(value)
    return int(value)


def test_nan_and_infinity_become_zero_and_the_rest_stays() -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf, -2.5, 3e38])
    assert zero_nonfinite(x).tolist() == [0.0, 0.0, 0.0, -2.5, pytest.approx(3e38)]


def test_one_norm_over_all_of_a_user_s_tensors() -> None:
    weights = torch.tensor([[[3.0, 0.0], [0.0, 0.0]], [[0.3, 0.0], [0.0, 0.0]]])
    bias = torch.tensor([4.0, 0.4])
    clipped = clip([weights, bias], 1.0)
    assert clipped.shape == (2, 5)
    assert clipped[0].tolist() == pytest.approx([0.6, 0, 0, 0, 0.8], rel=1e-5)
    assert torch.equal(clipped[1], torch.tensor([0.3, 0, 0, 0, 0.4])), "within the norm"


def test_a_user_with_nan_still_counts_with_the_rest_of_her_tensor() -> None:
    assert clip([torch.tensor([[math.nan, 0.5], [math.inf, 0.0]])], 1.0).tolist() == [
        [0.0, 0.5],
        [0.0, 0.0],
    ]


def test_one_user_never_changes_another_s_contribution() -> None:
    alone = clip([torch.tensor([[0.5, 2.0]])], 1.0)
    together = clip([torch.tensor([[1e30, math.nan], [0.5, 2.0]])], 1.0)
    assert torch.equal(together[1], alone[0])


@given(any_float32, norms, scales)
@settings(max_examples=300, deadline=None)
def test_no_user_exceeds_the_norm_in_exact_arithmetic(
    values: NDArray[np.float32], clip_norm: float, scale: int
) -> None:
    units = quantise(clip([torch.from_numpy(values)], clip_norm), clip_norm, scale)
    limit = (Fraction(clip_norm) * scale) ** 2
    assert all(square <= limit for square in exact_norms_squared(units))


@given(any_float32, norms, scales)
@settings(max_examples=300, deadline=None)
def test_nor_when_nobody_clipped_before(
    values: NDArray[np.float32], clip_norm: float, scale: int
) -> None:
    units = quantise(torch.from_numpy(values), clip_norm, scale)
    limit = (Fraction(clip_norm) * scale) ** 2
    assert all(square <= limit for square in exact_norms_squared(units))


def test_removing_one_user_moves_the_sum_by_at_most_the_norm() -> None:
    torch.manual_seed(0)
    users = clip([torch.randn(50, 40) * 10], 0.7)
    units = quantise(users, 0.7, 2**16)
    for left_out in range(50):
        rest = torch.cat([units[:left_out], units[left_out + 1 :]])
        moved = [(units.sum(0) - rest.sum(0)).tolist()]
        assert exact_norms_squared(torch.tensor(moved))[0] <= (Fraction(0.7) * 2**16) ** 2


def test_clipping_and_rounding_cost_almost_nothing() -> None:
    torch.manual_seed(0)
    users = torch.randn(20, 1000)
    expected = users / users.norm(dim=1, keepdim=True)
    units = quantise(clip([users], 1.0), 1.0, 2**20)
    assert (units / 2**20 - expected).abs().max() < 3e-6
    assert exact_norms_squared(units)[0] > 0.999 * 2**40, "nobody is zeroed for being at the norm"


def test_truncation_is_toward_zero() -> None:
    assert quantise(torch.tensor([[0.99, -0.99, 0.5]]), 2.0, 2).tolist() == [[1, -1, 1]]


def test_a_user_above_the_norm_is_zeroed_alone() -> None:
    units = quantise(torch.tensor([[3.0, 4.0], [0.6, 0.7]]), 1.0, 8)
    assert units.tolist() == [[0, 0], [4, 5]]


def test_a_huge_vector_cannot_hide_by_wrapping() -> None:
    # Squares of 2^32 units add up to 0 modulo 2^64; the bound must hold all the same.
    huge = torch.full((1, 1), 2.0**32, dtype=torch.float64)
    assert quantise(huge, 1.0, 1).tolist() == [[0]]
    assert quantise(torch.full((1, 4), 1e300, dtype=torch.float64), 1.0, 1).tolist() == [[0] * 4]


def test_what_is_no_number_counts_as_nothing_even_if_nobody_clipped() -> None:
    rows = torch.tensor([[math.nan, 0.5], [math.inf, 0.5], [-math.inf, math.nan], [0.5, 0.5]])
    assert quantise(rows, 1.0, 2).tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]


def test_empty_batches_pass_through() -> None:
    assert quantise(clip([torch.zeros(0, 3), torch.zeros(0)], 1.0), 1.0, 4).shape == (0, 4)


@pytest.mark.parametrize(
    "tensors",
    [[], [torch.zeros(2, 3), torch.zeros(3, 3)], [torch.zeros(2, 3, dtype=torch.int64)]],
)
def test_clip_refuses_what_has_no_joint_norm(tensors: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="clip needs"):
        clip(tensors, 1.0)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf])
def test_a_norm_is_positive_and_finite(clip_norm: float) -> None:
    with pytest.raises(ValueError, match="clip_norm"):
        clip([torch.zeros(1, 1)], clip_norm)


@pytest.mark.parametrize(("clip_norm", "scale"), [(1.0, 3), (1.0, 0), (1.0, 2**27), (3.0, 2**25)])
def test_quantise_refuses_scales_it_cannot_check(clip_norm: float, scale: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        quantise(torch.zeros(1, 1), clip_norm, scale)


@pytest.mark.parametrize(("threshold", "collusion"), [(3, 1), (5, 2), (2, 0), (3, 2)])
def test_honest_survivors_carry_the_accounted_noise(threshold: int, collusion: int) -> None:
    share = Fraction(noise_share_sigma(1.3, 0.7, 2**16, threshold, collusion))
    accounted = Fraction(1.3) * Fraction(0.7) * 2**16
    honest = (threshold - collusion) * share**2
    assert accounted**2 <= honest <= accounted**2 * (1 + Fraction(1, 10**14))


def test_no_noise_has_no_share_and_too_few_survivors_none_either() -> None:
    assert noise_share_sigma(0.0, 1.0, 2**16, 3, 1) == 0.0
    for threshold, collusion in ((2, 2), (1, 2), (3, -1)):
        with pytest.raises(ValueError, match="threshold"):
            noise_share_sigma(1.0, 1.0, 2**16, threshold, collusion)


def test_a_noised_sum_is_as_wide_as_its_noise_multiplier_says() -> None:
    sigma = noise_share_sigma(2.0, 1.0, 64, 3, 1)
    total = sum(discrete_gaussian(sigma, 50_000, SecureRandom()) for _ in range(2))
    # The standard deviation of n normal draws is off by 7 / sqrt(2n) with probability below 1e-11.
    assert np.std(total) == pytest.approx(2.0 * 1.0 * 64, rel=7 / math.sqrt(2 * 50_000))


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.999])
def test_each_user_takes_part_independently_at_the_rate(rate: float) -> None:
    count = 200_000
    chosen = sample_users(count, rate, SecureRandom())
    assert chosen.dtype == np.bool_
    spread = math.sqrt(rate * (1 - rate) / count)
    assert abs(chosen.mean() - rate) < 6.5 * spread  # 1e-10
    neighbours = (chosen[1:] & chosen[:-1]).mean()
    assert abs(neighbours - rate**2) < 13 * spread  # neighbours are nearly independent


def test_everyone_takes_part_at_rate_one_and_choices_are_fresh() -> None:
    assert sample_users(7, 1.0, SecureRandom()).all()
    first, second = (sample_users(1000, 0.5, SecureRandom()) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan])
def test_a_rate_is_a_probability_above_zero(rate: float) -> None:
    with pytest.raises(ValueError, match="sampling rate"):
        sample_users(1, rate, SecureRandom())
