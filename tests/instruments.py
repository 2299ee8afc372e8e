"""Instruments that tell a broken engine from a sound one, on data and noise that are known.

Each statistical one raises a false alarm on a sound engine with probability at most `ALARM`, fixed
before anything was measured; the others never do.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, chi2, norm

ALARM = 1e-6


class Broken(AssertionError):
    """The instrument's finding: what can't happen in a sound engine."""


def check_one_user_s_influence(
    total: Callable[[Sequence[int]], NDArray[np.int64]], users: int, clip_norm: float, scale: int
) -> None:
    """Removing any one user moves the integer sum by at most the clip norm, in exact arithmetic.

    Args:
        total: the integer sum over these users, by position.
        users: how many there are.
    """
    everyone = total(range(users))
    limit = (Fraction(clip_norm) * scale) ** 2
    for removed in range(users):
        moved = everyone - total([user for user in range(users) if user != removed])
        squared = sum(int(number) ** 2 for number in moved)
        if squared > limit:
            raise Broken(f"one user moves the sum by {math.sqrt(squared / limit):.3g} clip norms")


def check_independence(
    total: Callable[[Sequence[int]], NDArray[np.int64]], users: int, seed: int
) -> None:
    """What a group adds is what its members add alone, to the last bit, whoever else is there."""
    random = np.random.default_rng(seed)
    alone = [total([user]) for user in range(users)]
    for _ in range(5):
        group = np.flatnonzero(random.random(users) < 0.6).tolist()
        if not np.array_equal(total(group), sum((alone[u] for u in group), 0 * alone[0])):
            raise Broken("what a user adds hangs on who else is there")


def check_width(noise: NDArray[np.int64], sigma: float) -> None:
    """Independent noise of standard deviation `sigma`: its squares add up to a chi square."""
    statistic = float(((noise / sigma) ** 2).sum())
    low, high = chi2.ppf(ALARM / 2, noise.size), chi2.isf(ALARM / 2, noise.size)
    if not low <= statistic <= high:
        found = math.sqrt(statistic / noise.size)
        raise Broken(f"the noise is {found:.3f} times as wide as accounted")


def check_fresh(noises: Sequence[NDArray[np.int64]]) -> None:
    """No two vectors of noise are correlated (Fisher's z of each pair)."""
    pairs = len(noises) * (len(noises) - 1) // 2
    limit = norm.isf(ALARM / 2 / pairs) / math.sqrt(noises[0].size - 3)
    for number, first in enumerate(noises):
        for second in noises[:number]:
            found = float(np.corrcoef(first, second)[0, 1])
            if math.atanh(min(abs(found), 1 - 1e-15)) > limit:
                raise Broken(f"two vectors of noise have correlation {found:.3f}")


def check_no_repeats(noise: NDArray[np.int64]) -> None:
    """A vector of noise isn't like itself at any shift that leaves 100 pairs, up to 10,000 numbers.

    The sum of k products of independent Gaussians exceeds 8 sqrt(k) variances with probability at
    most 1e-11 for k >= 100: exp(-8 x sqrt(k)) (1 - x^2)^(-k/2) at its least x, Chernoff's bound.
    """
    spectrum = np.abs(np.fft.rfft(noise - noise.mean(), 2 * noise.size)) ** 2
    correlations = np.fft.irfft(spectrum)[: noise.size]
    shifts = np.arange(1, noise.size - 100)
    found = correlations[shifts] / (noise.var() * np.sqrt(noise.size - shifts))
    if np.abs(found).max() > 8:
        raise Broken("the noise repeats itself")


def check_gaussian_dp(present: NDArray[np.float64], absent: NDArray[np.float64], mu: float) -> None:
    """Whoever guesses at statistic 1/2 errs as often as mu-Gaussian DP demands.

    For every test of present against absent, mu >= -z(alpha) - z(beta) with alpha and beta its
    errors (Dong, Roth and Su 2022, section 2.2). Both are bounded from above by Clopper and
    Pearson's interval, as in Nasr et al. 2023, section 4.

    Args:
        present, absent: statistics of independent trials that are near 1 and near 0.
    """
    found = -_most(np.count_nonzero(absent > 0.5), absent.size)
    found -= _most(np.count_nonzero(present <= 0.5), present.size)
    if found > mu:
        raise Broken(f"the noise gives mu of at least {found:.2f}; {mu:.2f} is accounted")


def _most(errors: int, trials: int) -> float:
    """z of the largest error rate that so many errors leave possible."""
    rate = beta.isf(ALARM / 2, errors + 1, trials - errors) if errors < trials else 1.0
    return float(norm.ppf(rate))
