"""The Renyi filter's mathematics: divergences of releases, orders for a budget, epsilon of a sum.

Orders and the shares of delta that go with them are fixed when a budget opens; `epsilon_of` turns
what was added up at each order into the one epsilon that decides.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import comb

NO_NOISE = 1e-100
"""Noise multipliers below this count as none: their squares leave floating point."""

LEAST_NOISE = 0.05
"""Below this, divergences of sampled releases are bounded instead of integrated."""

MOST_PARTNERS = 100
"""Beyond, a person's contributions are taken as never left out, which only costs more."""

LONGEST = 50_000
"""So many standard deviations an integral may reach; beyond, the bound."""

CHOICES = tuple(round(1 + 0.02 * 1.02**i, 4) for i in range(547))
"""Orders, 2 % apart in a - 1 and up to 1000, among which a filter's range is looked for."""

PLACES = (0.187, 0.304, 0.437, 0.584, 0.704, 0.885, 1.7, 3.8)
SHARES = (0.428, 0.176, 0.172, 0.082, 0.078, 0.049, 0.01, 0.005)
"""Where a filter's orders lie, in log(a - 1), between the lowest that can matter (0) and the best
without sampling (1), with each one's share of delta: the minimax over thousands of mixtures of
plans, chosen to be hard, with caps from 0.5 to 20 and deltas from 1e-5 to 1e-9. Low orders serve
small noise with sampling, and pay most for a small share; the two above the best were kept out of
the search: they let a budget that is far from spent read so."""


@lru_cache(maxsize=2**16)
def divergences(
    noise_multiplier: float, sampling_rate: float, partners: int, orders: tuple[float, ...]
) -> NDArray[np.float64]:
    """Renyi divergence of one release at each order, in the worse direction: float64 [orders].

    `partners` is the number of domains at which one person is a user; she takes part at each
    independently, so the total holds Binomial(partners, q) contributions of hers: a mixture of
    Gaussians (Choquette-Choo et al. 2024).
    """
    z, q = noise_multiplier, sampling_rate
    a = np.array(orders, dtype=np.float64)
    if z < NO_NOISE:
        return np.full(len(orders), math.inf)
    if q == 1 or partners > MOST_PARTNERS:
        return a * partners**2 / (2 * z**2)
    if partners == 1 and all(float(order).is_integer() for order in orders):
        return np.array([_log_moment(z, q, int(order)) for order in orders]) / (a - 1)
    if z < LEAST_NOISE or max(orders) * partners > LONGEST * z:
        return _bounds(z, q, partners, a)
    return _integrals(z, q, partners, a)


def _log_moment(z: float, q: float, order: int) -> float:
    """log of the a-th moment of the likelihood ratio (Mironov, Talwar and Zhang 2019, 3.3):
    A_a = sum_i binomial(a, i) (1 - q)^(a - i) q^i exp((i^2 - i) / 2z^2)."""
    i = np.arange(order + 1)
    chances = math.log1p(-q) * (order - i) + math.log(q) * i + np.log(comb(order, i))
    return float(np.logaddexp.reduce(chances + (i * i - i) / (2 * z**2)))


def _bounds(z: float, q: float, partners: int, a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joint convexity: at most E[exp(a (a - 1) j^2 / 2z^2)] over how often she takes part."""
    j, chances = _taking_part(partners, q)
    moments = chances + np.outer(a * (a - 1), j * j / (2 * z**2))
    return np.asarray(np.logaddexp.reduce(moments, axis=1) / (a - 1))


def _taking_part(partners: int, q: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """0 to `partners`, and the logarithm of the chance that a person takes part so often."""
    j = np.arange(partners + 1)
    return j, np.log(comb(partners, j)) + j * math.log(q) + (partners - j) * math.log1p(-q)


def _integrals(z: float, q: float, partners: int, a: NDArray[np.float64]) -> NDArray[np.float64]:
    """By the trapezoid rule, which for integrands this smooth is exact to double precision."""
    t = np.arange(-20, max(a) * partners / z + 20, 1 / 32)
    j, chances = _taking_part(partners, q)
    tilts = chances[:, None] + np.outer(j, t / z) - (j * j / (2 * z**2))[:, None]
    ratio = np.logaddexp.reduce(tilts, axis=0)
    bare = -(t**2) / 2 - math.log(32 * math.sqrt(2 * math.pi))
    # With her data or without: E[(P/Q)^a] and E[(Q/P)^(a - 1)], both under Q, the one without.
    worse = [
        max(np.logaddexp.reduce(bare + order * ratio),
            np.logaddexp.reduce(bare + (1 - order) * ratio))
        for order in a
    ]  # fmt: skip
    return np.array(worse) / (a - 1)


def from_renyi(order: float, divergence: float, delta: float) -> float:
    """Epsilon by one order: Canonne, Kamath and Steinke 2020, Prop. 12."""
    return divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def epsilon_of(
    total: Sequence[float], orders: Sequence[float], shares: Sequence[float], delta: float
) -> float:
    """The least epsilon that holds, except with probability delta, after adaptive releases.

    Let Z be the privacy loss and D_a the divergences added up at order a. For each order
    exp((a - 1)(Z - D_a)) is a supermartingale that starts at 1, whatever is released next (Feldman
    and Zrnic 2021), hence so is M = sum_a share_a exp((a - 1)(Z - D_a)), and E[M] <= 1 wherever one
    stops. If (1 - e^(epsilon - z))+ <= delta M(z) for all z, then the expectation of
    (1 - e^(epsilon - Z))+ is at most delta, which is (epsilon, delta)-DP. With f = log(delta M),
    which is convex, the least such epsilon is the maximum of z + log(1 - e^f(z)), found where
    f + log(1 + f') = 0. One order with all of delta gives Prop. 12 of Canonne, Kamath and Steinke.

    Args:
        total: divergence added up at each order; infinite where something had no noise.
        orders: all above 1.
        shares: of delta, one per order, positive, together at most 1.
    """
    if not any(each > 0 for each in total):
        return 0.0
    if math.isinf(max(total)):
        return math.inf
    slopes = [order - 1 for order in orders]
    starts = [
        math.log(delta) + math.log(share) - slope * each
        for share, slope, each in zip(shares, slopes, total, strict=True)
    ]

    def terms(z: float) -> tuple[float, float]:
        """f and f' at z."""
        logs = [start + slope * z for start, slope in zip(starts, slopes, strict=True)]
        top = max(logs)
        parts = [math.exp(each - top) for each in logs]
        whole = math.fsum(parts)
        return top + math.log(whole), sum(p * s for p, s in zip(parts, slopes, strict=True)) / whole

    def excess(z: float) -> float:
        value, slope = terms(z)
        return value + math.log1p(slope)

    least = math.log(len(slopes)) + math.log1p(max(slopes)) + 1e-6  # a hair below any root
    low = min((-start - least) / slope for start, slope in zip(starts, slopes, strict=True))
    high = min(-start / slope for start, slope in zip(starts, slopes, strict=True))
    z = float(brentq(excess, low, high, xtol=1e-12, rtol=1e-12)) if high > low else high
    _, slope = terms(z)
    return max(0.0, z + math.log(slope / (1 + slope)))


@lru_cache(maxsize=1024)
def orders_for(epsilon: float, delta: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(orders, shares of delta) of the filter of a budget with this cap.

    What spends a whole budget has its best order between the one whose price for delta alone is
    the cap (noise so small that few releases fit) and the best one without sampling. The orders
    lie in between; whatever they are, the guarantee is the same, they only decide what is wasted.
    """
    prices = [from_renyi(order, 0.0, delta) for order in CHOICES]
    affordable = [(a, price) for a, price in zip(CHOICES, prices, strict=True) if price < epsilon]
    if not affordable:
        return (CHOICES[-1],), (1.0,)
    # Without sampling the divergence is proportional to the order.
    most = max((epsilon - price) / a for a, price in affordable)
    best = min(affordable, key=lambda pair: most * pair[0] + pair[1])[0] - 1
    low = affordable[0][0] - 1
    found: dict[float, float] = {}
    for place, share in zip(PLACES, SHARES, strict=True):
        order = min(round(1 + low * (best / low) ** place, 4), CHOICES[-1])
        found[order] = round(found.get(order, 0.0) + share, 6)
    return tuple(sorted(found)), tuple(found[order] for order in sorted(found))
