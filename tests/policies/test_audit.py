"""The audit's arithmetic: Theorem 5.2 of Steinke, Nasr and Jagielski 2023, and guesses.

Statistical tests state how often they fail by chance.
"""

import math
from itertools import product

import numpy as np
import pytest

from policies.audit import Guesses, guess, guess_count, lower_bound, p_value


def by_definition(guesses: Guesses, epsilon: float, delta: float) -> float:
    """The theorem, written out with exact binomial sums."""
    r, v, m = guesses.made, guesses.correct, guesses.canaries
    q = math.exp(epsilon) / (1 + math.exp(epsilon))

    def chance(low: int, high: int) -> float:
        """P[low <= B < high]."""
        counts = range(max(low, 0), min(high, r + 1))
        return sum(math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in counts)

    steepest = max(2 / i * chance(v - i, v) for i in range(1, m + 1))
    return min(1.0, chance(v, r + 1) + steepest * m * delta)


@pytest.mark.parametrize(
    ("made", "correct", "epsilon", "delta"),
    product((0, 1, 7, 20), (0, 1, 7, 18), (0.0, 0.5, 3.0), (0.0, 1e-3)),
)
def test_the_p_value_is_the_theorem_s(
    made: int, correct: int, epsilon: float, delta: float
) -> None:
    if correct > made:
        return
    guesses = Guesses(30, made, correct)
    expected = by_definition(guesses, epsilon, delta)
    assert p_value(guesses, epsilon, delta) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_hundred_right_guesses_without_delta_have_the_textbook_bound() -> None:
    # All of r right: P = q^r, so the bound is log(q / (1 - q)) with q = 0.05^(1/r).
    q = 0.05 ** (1 / 100)
    bound = lower_bound(Guesses(100, 100, 100), 0.0, 0.95)
    assert bound == pytest.approx(math.log(q / (1 - q)), rel=1e-6)


def test_delta_and_confidence_lower_the_bound_and_right_guesses_raise_it() -> None:
    assert lower_bound(Guesses(1000, 100, 50), 1e-5, 0.95) == 0.0
    ninety = lower_bound(Guesses(1000, 100, 90), 1e-5, 0.95)
    assert 0 < lower_bound(Guesses(1000, 100, 90), 1e-5, 0.999) < ninety
    assert lower_bound(Guesses(1000, 100, 90), 1e-3, 0.95) < ninety
    assert ninety < lower_bound(Guesses(1000, 100, 95), 1e-5, 0.95)


def test_randomised_response_is_ruled_out_no_more_often_than_stated() -> None:
    # Its exact epsilon is known; with 4,000 runs at confidence 0.9, more than 500 false alarms
    # happen by chance with probability below 1e-6.
    random, epsilon, m = np.random.default_rng(0), 1.0, 200
    right = random.binomial(m, 1 / (1 + math.exp(-epsilon)), 4000)
    bounds = {v: lower_bound(Guesses(m, m, int(v)), 0.0, 0.9) for v in np.unique(right)}
    assert sum(bounds[v] > epsilon for v in right) <= 500
    assert max(bounds.values()) > 0.5, "and it isn't empty either"


def test_the_outermost_scores_are_guessed() -> None:
    took_part = np.array([True, True, False, True, False, False])
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    assert guess(scores, took_part, 4) == Guesses(6, 4, 4)
    assert guess(scores, took_part, 6) == Guesses(6, 6, 4), "one too high, one too low"
    assert guess(scores, took_part, 0) == Guesses(6, 0, 0)


def test_more_is_guessed_where_scores_say_more() -> None:
    counts = [guess_count(1000, separation, 1e-5, 0.95) for separation in (0.5, 2.0, 6.0)]
    assert counts[0] < counts[1] < counts[2] <= 1000


@pytest.mark.parametrize("numbers", [(10, 11, 5), (10, 5, 6), (0, 0, 0), (10, 5, -1)])
def test_impossible_counts_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="guesses"):
        Guesses(*numbers)
