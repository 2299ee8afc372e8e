"""Privacy losses of many different sampled Gaussians, composed at once.

The method is that of dp-accounting: a mechanism's loss on a grid that dominates it ("connect the
dots", Doroshenko et al. 2022), added up by FFT (Koskela et al. 2020). dp-accounting makes and cuts
each mechanism's distribution by itself, some 15 ms each; here all share one grid and one inverse
transform. Every approximation goes up: tails that are cut off, and 1e-10 for rounding, count into
delta.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import logsumexp, ndtr

Floats = NDArray[np.float64]

SMALLEST_DELTA = 1e-8
"""Below it the rounding of doubles would matter."""

_ROUNDING = 1e-10
_REACH = 8.5
"""So many standard deviations of a mechanism's noise are on the grid; what is beyond, less than
1e-17 each time, counts as a loss without bound (above) or as the lowest one (below)."""
_LARGEST = 600.0
"""Losses whose exponentials stay in doubles."""
_TILTS = 2.0 ** np.arange(-4, 8)


@dataclass(frozen=True)
class Mixture:
    """`count` releases; with her data the mean is `j` with probability `chances[j]`, without it 0.

    Attributes:
        noise: standard deviation of the Gaussian noise.
    """

    noise: float
    chances: tuple[float, ...]
    count: int


def composed_epsilon(mechanisms: Sequence[Mixture], delta: float, interval: float) -> float:
    """An upper bound on epsilon of all together, in the worse of both directions.

    Infinity where losses are beyond what doubles hold.

    Raises:
        ValueError: delta is below `SMALLEST_DELTA`.
    """
    if delta < SMALLEST_DELTA:
        raise ValueError(f"delta is {delta}; expected at least {SMALLEST_DELTA:g}")
    return max(_one_way(mechanisms, delta, interval, added) for added in (False, True))


@dataclass(frozen=True)
class _Losses:
    """A loss of (first + i) * interval has probability masses[i]; an infinite one the rest."""

    first: int
    masses: Floats
    infinite: float
    count: int


def _one_way(mechanisms: Sequence[Mixture], delta: float, interval: float, added: bool) -> float:
    losses = [_discretised(each, interval, added) for each in mechanisms]
    if any(each is None for each in losses):
        return math.inf
    found = [each for each in losses if each is not None]
    tail = 1e-6 * delta
    low, high = _reach(found, interval, tail)
    size = next_fast_len(high - low + 1, real=True)
    spectrum = np.ones(size // 2 + 1, dtype=np.complex128)
    for each in found:
        places = (each.first + np.arange(len(each.masses))) % size
        spectrum *= rfft(np.bincount(places, each.masses, minlength=size)) ** each.count
    # What lies outside of low..high, less than `tail` each way, comes up at a wrong place.
    total = np.maximum(np.roll(irfft(spectrum, size), -low), 0.0)
    infinite = -math.expm1(sum(each.count * math.log1p(-each.infinite) for each in found))
    return _epsilon(total, low, interval, delta - infinite - 2 * tail - _ROUNDING)


def _discretised(each: Mixture, interval: float, added: bool) -> _Losses | None:
    """Her data taken away, or added, as two-point splits of what lies between two grid points.

    With P the releases' distribution that the loss is about and Q the other, the part between
    losses a and b = a + interval has masses p and q, with p / q between e^a and e^b. Mass
    (q e^b - p) / (e^interval - 1) at a and the rest at b has the same p and q: a spread, so it
    dominates.
    """
    z, means = each.noise, np.arange(len(each.chances))
    ends = _loss(np.array([-_REACH * z, means[-1] + _REACH * z]), each)
    low, high = (-ends[1], -ends[0]) if added else (ends[0], ends[1])
    if max(abs(low), abs(high)) > _LARGEST:
        return None
    first, last = math.floor(low / interval), math.ceil(high / interval)
    grid = interval * np.arange(first, last + 1)
    at = _where(-grid[::-1] if added else grid, each)
    without = _between(at / z)
    shifted = [_between((at - j) / z) for j in means]
    mixed = sum((c * part for c, part in zip(each.chances, shifted, strict=True)), 0 * without)
    p, q = (without[::-1], mixed[::-1]) if added else (mixed, without)
    # One more part below the grid, whose loss counts as the lowest, and one above it.
    below, p, q, above = p[0], p[1:-1], q[1:-1], p[-1]
    lower = np.clip((q * np.exp(grid[1:]) - p) / math.expm1(interval), 0.0, p)
    masses = np.zeros(len(grid))
    masses[:-1] += lower
    masses[1:] += p - lower
    masses[0] += below
    return _Losses(first, masses, float(above), each.count)


def _loss(x: Floats, each: Mixture) -> Floats:
    """log P(x) / Q(x), increasing in x."""
    means = np.arange(len(each.chances))[:, None]
    chances = np.array(each.chances)[:, None]
    found: Floats = logsumexp((2 * means * x - means**2) / (2 * each.noise**2), b=chances, axis=0)
    return found


def _where(losses: Floats, each: Mixture) -> Floats:
    """At which x the loss has these values; minus infinity if it is larger everywhere."""
    means, chances = np.arange(len(each.chances)), np.array(each.chances)
    if len(each.chances) == 2:
        nobody, one = each.chances
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.maximum(np.exp(losses) - nobody, 0.0) / one
            return each.noise**2 * np.log(ratio) + 0.5
    # Newton's steps from a table, each kept inside of the table's part where the value must lie.
    table = np.linspace(-(_REACH + 2) * each.noise, means[-1] + (_REACH + 2) * each.noise, 2048)
    part = np.clip(np.searchsorted(_loss(table, each), losses), 1, len(table) - 1)
    low, high = table[part - 1], table[part]
    x = high
    for _ in range(6):
        value = _loss(x, each)
        exponents = (2 * means[:, None] * x - means[:, None] ** 2) / (2 * each.noise**2)
        slope = (chances * means) @ np.exp(exponents - value) / each.noise**2
        x = np.clip(x - (value - losses) / np.maximum(slope, 1e-300), low, high)
    return x


def _between(x: Floats) -> Floats:
    """The standard normal's masses below, between and above these points."""
    x = np.concatenate([[-np.inf], x, [np.inf]])
    # By the nearer tail, which loses no digits.
    upper = x[:-1] > 0
    a, b = np.where(upper, -x[1:], x[:-1]), np.where(upper, -x[:-1], x[1:])
    return np.asarray(ndtr(b) - ndtr(a))


def _reach(losses: Sequence[_Losses], interval: float, tail: float) -> tuple[int, int]:
    """Between which grid points the total lies, but for `tail` each way (Chernoff's bound)."""
    low = sum(each.count * each.first for each in losses)
    high = sum(each.count * (each.first + len(each.masses) - 1) for each in losses)
    for tilt in _TILTS:
        up, down = (_log_moment(losses, sign * tilt, interval) for sign in (1, -1))
        high = min(high, math.ceil((up - math.log(tail)) / (tilt * interval)))
        low = max(low, math.floor((math.log(tail) - down) / (tilt * interval)))
    return low, max(low, high)


def _log_moment(losses: Sequence[_Losses], tilt: float, interval: float) -> float:
    total = 0.0
    for each in losses:
        exponents = tilt * interval * (each.first + np.arange(len(each.masses)))
        largest = exponents.max()
        total += each.count * (largest + math.log(float(each.masses @ np.exp(exponents - largest))))
    return total


def _epsilon(masses: Floats, first: int, interval: float, delta: float) -> float:
    """The smallest epsilon at which larger losses' masses * (1 - e^(epsilon - loss)) fit delta."""
    if delta <= 0:
        return math.inf
    begin = max(0, -first)
    above = masses[begin:]
    losses = interval * (first + begin + np.arange(len(above)))
    if not len(above) or above.sum() <= delta:
        return 0.0
    # From the top: what lies at or above each grid point, and the same times e^-loss.
    kept = losses <= losses[0] + _LARGEST
    if not kept.all() and above[~kept].any():
        return math.inf
    mine = np.cumsum(above[::-1])[::-1]
    others = np.cumsum((above * np.exp(losses[0] - losses))[::-1])[::-1]
    excess = mine - np.exp(losses - losses[0]) * others
    spent = np.flatnonzero(excess > delta)
    k = int(spent[-1]) + 1 if len(spent) else 0
    if k == len(above):
        return math.inf
    return max(0.0, float(losses[0] + math.log((mine[k] - delta) / others[k])))
