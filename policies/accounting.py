"""What a sequence of releases costs: epsilon from mechanism events.

Two figures. `plan_epsilon` is the tight one (privacy loss distributions) for releases fixed in
advance: the cost of one plan. `RenyiFilter` is the one that decides: it stays valid when plans are
chosen after looking at earlier results, which is how people work.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from dp_accounting.dp_event import (
    GaussianDpEvent,
    MixtureOfGaussiansDpEvent,
    PoissonSampledDpEvent,
)
from dp_accounting.pld import PLDAccountant
from numpy.typing import NDArray
from scipy.special import comb, erfcx, ndtr
from scipy.stats import binom

from policies.losses import SMALLEST_DELTA, Mixture, composed_epsilon

ADJACENCY = "add/remove one user with all her interactions, per domain"
"""The unit every epsilon of Coterie speaks about."""

PLD_INTERVAL = 1e-3
"""Discretisation of the privacy loss; rounding goes up, so epsilon is never understated."""

GROUP_INTERVAL = 5e-3
"""The same for groups, whose losses are larger: 0.01 % coarser, four times faster."""

NO_NOISE = 1e-100
"""Noise multipliers below this count as none: their squares leave floating point."""

WIDEST_NOISE = 1e4
"""Noise wider than this is accounted as this wide in a loss distribution, which only costs more."""

PLD_CELLS, GROUP_CELLS, COMPOSED_CELLS = 250_000, 6_000, 2_000_000
"""How many intervals the losses of all mechanisms may take (a group's are the dearest to make), and
how many all compositions together. Nodes account for whatever plan they are sent: huge losses get
coarser intervals, not more time."""

WHOLE_LOSSES = 20_000.0
"""Losses without sampling that are composed at the finest interval; beyond, the closed form."""

FEW = 8
"""More different sampled mechanisms than these are composed by `policies.losses`: dp-accounting
takes some 15 ms for each, and a plan may have hundreds."""

COARSEST_INTERVAL = 1.0
"""Beyond this a loss distribution says no more than the closed bounds do."""

ORDERS = (3, 4, 5, 7, 10, 16, 28, 48)
"""Renyi orders of every filter, fixed for good: the low ones serve epsilon 20, the high ones 0.3.
Against the best order in hindsight they cost 8 % at epsilon 8 without sampling, at most 17 % from
0.3 to 20; sampled releases with little noise, whose best order is below 3, cost more."""

FINE_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256)
"""Renyi orders of a plan's own figure, which needn't be fixed: the best of them counts."""


@dataclass(frozen=True)
class Event:
    """`count` releases of one Poisson-sampled Gaussian mechanism.

    Attributes:
        noise_multiplier: standard deviation of the accounted noise over the L2 sensitivity;
            0 means no noise (public data only).
        sampling_rate: probability with which each user takes part in a release, in (0, 1].
        count: number of releases, at least 1.
    """

    noise_multiplier: float
    sampling_rate: float
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.noise_multiplier < math.inf:
            raise ValueError(f"noise_multiplier is {self.noise_multiplier}; expected 0 or more")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate is {self.sampling_rate}; expected (0, 1]")
        if self.count < 1:
            raise ValueError(f"count is {self.count}; expected at least 1")


@dataclass(frozen=True)
class Part:
    """A step whose noise `calibrate` is to choose.

    Attributes:
        weight: its share of the whole budget, relative to the other parts' weights.
        sampling_rate: probability with which each user takes part, in (0, 1].
        count: number of releases.
    """

    weight: float
    sampling_rate: float
    count: int

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight is {self.weight}; expected a positive number")
        Event(1.0, self.sampling_rate, self.count)


def merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """The same releases with equal mechanisms counted together, in a fixed order."""
    counts: dict[tuple[float, float], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sampling_rate)
        counts[key] = counts.get(key, 0) + event.count
    return tuple(Event(z, q, count) for (z, q), count in sorted(counts.items()))


def plan_epsilon(events: Iterable[Event], delta: float) -> float:
    """Epsilon of all `events` together, had they been fixed in advance (`ADJACENCY`).

    Without sampling, privacy loss distributions as dp-accounting composes them; where losses are
    huge, the exact form instead: releases of Gaussians are one Gaussian (Dong, Roth and Su 2022),
    whose epsilon Balle and Wang 2018 give. With sampling, the smallest of three valid bounds:
    privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022) as dp-accounting
    composes them (more than `FEW` mechanisms: `policies.losses`, the same to 1e-5), Renyi
    divergences, and the plan without sampling. 0.0 for no events; infinity only if an event has no
    noise.
    """
    return epsilon_at_every_partner(events, delta, 1)


def epsilon_at_every_partner(events: Iterable[Event], delta: float, partners: int) -> float:
    """Epsilon for one person who is a user at all `partners` domains of a plan.

    The total then holds up to k = `partners` contributions of hers, so its L2 sensitivity is k
    clip norms. Sampled independently at each domain, the number that take part is Binomial(k, q):
    a mixture of Gaussians (Choquette-Choo et al. 2024), which for q = 1 is noise multiplier z/k.
    """
    _check_delta(delta)
    if partners < 1:
        raise ValueError(f"partners is {partners}; expected at least 1")
    return _smallest_bound(merge(events), delta, partners)


@lru_cache(maxsize=4096)
def _smallest_bound(events: tuple[Event, ...], delta: float, partners: int) -> float:
    if not events:
        return 0.0
    if any(event.noise_multiplier < NO_NOISE for event in events):
        return math.inf
    closed = _gaussian_epsilon(_mu(events, partners), delta)
    if all(event.sampling_rate == 1 for event in events):
        # dp-accounting's own figure, a hair above the closed one, so that anyone can repeat it.
        few = sum(_span(event, partners) * event.count for event in events) <= WHOLE_LOSSES
        return _composed(events, delta) if few and partners == 1 else closed
    closed = min(closed, _best_order(events, delta, partners))
    interval = _interval(events, closed, partners)
    if interval > COARSEST_INTERVAL:
        return closed
    many = sum(event.sampling_rate < 1 for event in events) > FEW and delta >= SMALLEST_DELTA
    way = _of_many if many else _by_loss_distribution
    return min(closed, way(events, delta, partners, interval))


def _composed(events: Sequence[Event], delta: float) -> float:
    """Releases without sampling as dp-accounting composes them."""
    accountant = PLDAccountant(value_discretization_interval=PLD_INTERVAL)
    for event in events:
        accountant.compose(GaussianDpEvent(event.noise_multiplier), event.count)
    return float(accountant.get_epsilon(delta))


def _mu(events: Iterable[Event], partners: int) -> float:
    """mu of all releases together as one Gaussian, as if nobody were left out of any."""
    return partners * math.hypot(*(math.sqrt(e.count) / e.noise_multiplier for e in events))


def _best_order(events: Sequence[Event], delta: float, partners: int) -> float:
    """Epsilon by the best Renyi order. A group takes part as a whole if any one of it does."""
    total = np.zeros(len(FINE_ORDERS))
    for event in events:
        z, q = event.noise_multiplier / partners, event.sampling_rate
        anyone = 1.0 if q == 1 else -math.expm1(partners * math.log1p(-q))
        total += event.count * _divergences(z, anyone, FINE_ORDERS)
    share = [delta] * len(FINE_ORDERS)
    return max(0.0, min(map(_from_renyi, FINE_ORDERS, total.tolist(), share)))


def _interval(events: Sequence[Event], closed: float, partners: int) -> float:
    """The finest interval at which all losses fit the cells."""
    alone = partners == 1
    finest, cells = (PLD_INTERVAL, PLD_CELLS) if alone else (GROUP_INTERVAL, GROUP_CELLS)
    made = sum(_span(event, partners) for event in events if event.sampling_rate < 1)
    return max(finest, made / cells, len(events) * closed / COMPOSED_CELLS)


def _span(event: Event, partners: int) -> float:
    """How far the losses of one release reach, but for a negligible part: mu^2 + 16 mu."""
    mu = partners / event.noise_multiplier
    return mu**2 + 16 * mu


def _by_loss_distribution(
    events: Sequence[Event], delta: float, partners: int, interval: float
) -> float:
    """The tightest bound; infinity where dp-accounting's numbers end (huge losses, or none)."""
    accountant = PLDAccountant(value_discretization_interval=interval)
    whole = [event for event in events if event.sampling_rate == 1]
    if whole:
        accountant.compose(GaussianDpEvent(1 / _mu(whole, partners)))
    try:
        for event in events:
            if event.sampling_rate < 1:
                accountant.compose(_sampled_event(event, partners), event.count)
        return float(accountant.get_epsilon(delta))
    except (ArithmeticError, RecursionError, ValueError):
        return math.inf


def _of_many(events: Sequence[Event], delta: float, partners: int, interval: float) -> float:
    """The same figure, to 1e-5 of it, by one transform for all mechanisms."""
    whole = [event for event in events if event.sampling_rate == 1]
    mixtures = [Mixture(1 / _mu(whole, partners), (0.0, 1.0), 1)] if whole else []
    for event in events:
        if event.sampling_rate < 1:
            chances = binom.pmf(np.arange(partners + 1), partners, event.sampling_rate)
            noise = min(event.noise_multiplier, WIDEST_NOISE)
            mixtures.append(Mixture(noise, tuple(chances.tolist()), event.count))
    return composed_epsilon(mixtures, delta, interval)


@dataclass(frozen=True)
class RenyiFilter:
    """Decides admission: an epsilon that holds under full adaptivity (`ADJACENCY`).

    For every order a the filter adds up the Renyi divergences of what was released. If at the end
    any one order's sum is within its share of the budget, the privacy loss is too, except with
    probability delta / len(ORDERS); the union over the orders costs delta. Each order is one
    Renyi filter (Feldman and Zrnic 2021, Thm 4.3; several orders: Lecuyer 2021), converted to
    epsilon by Canonne, Kamath and Steinke 2020, Prop. 12, whose bound holds pointwise in the
    privacy loss and so survives the union.
    """

    delta: float

    def __post_init__(self) -> None:
        _check_delta(self.delta)

    def epsilon(self, events: Iterable[Event]) -> float:
        """Epsilon of `events` at `delta`: 0.0 for none, infinity if any has no noise."""
        return self.epsilon_of(renyi_total(events))

    def epsilon_of(self, total: NDArray[np.float64]) -> float:
        """Epsilon of what sums up to this Renyi divergence: float64 [len(ORDERS)]."""
        if not total.any():
            return 0.0
        share = self.delta / len(ORDERS)
        return max(0.0, min(map(_from_renyi, ORDERS, total.tolist(), [share] * len(ORDERS))))


def renyi_total(events: Iterable[Event]) -> NDArray[np.float64]:
    """Renyi divergence of all `events` together at each order: float64 [len(ORDERS)].

    Infinite if any has no noise. Sums of it are what a filter adds up.
    """
    merged = merge(events)
    if not merged:
        return np.zeros(len(ORDERS))
    counts = np.array([event.count for event in merged], dtype=np.float64)
    each = [_renyi(event.noise_multiplier, event.sampling_rate) for event in merged]
    return counts @ np.array(each)


def renyi_at_every_partner(events: Iterable[Event], partners: int) -> NDArray[np.float64]:
    """As `renyi_total`, for one person who is a user at all `partners` domains of a plan.

    The mixture of Gaussians of `epsilon_at_every_partner`, in the worse of both directions.
    """
    if partners < 1:
        raise ValueError(f"partners is {partners}; expected at least 1")
    total = np.zeros(len(ORDERS))
    for event in merge(events):
        each = _group_renyi(event.noise_multiplier, event.sampling_rate, partners)
        total = total + event.count * each
    return total


def calibrate(
    parts: Sequence[Part], epsilon: float, delta: float, spare_attempts: int = 0
) -> tuple[float, ...]:
    """Noise multipliers, one per part, that spend `epsilon` and no more.

    Without sampling, part i gets weight_i / sum(weights) of the total mu^2 = sum count/z^2 (Dong,
    Roth and Su 2022). With sampling it gets that share of q^2 count (e^(1/z^2) - 1), the same
    quantity by the central limit theorem (Bu et al. 2020). The total mu is then found by search, so
    `plan_epsilon` of the result is at most `epsilon` and within 0.1 % of it. `spare_attempts`
    more releases of the costliest part (smallest noise per sampling rate) are paid for as well.

    Raises:
        ValueError: no parts, or epsilon, delta or a part out of range.
    """
    if not parts or not 0 < epsilon < math.inf or spare_attempts < 0:
        raise ValueError("calibrate needs parts, a positive epsilon and spare_attempts >= 0")
    _check_delta(delta)
    total = sum(part.weight for part in parts)

    def multipliers(mu: float) -> tuple[float, ...]:
        return tuple(_multiplier(part, part.weight / total * mu**2) for part in parts)

    def cost(mu: float) -> float:
        return plan_epsilon(_events(parts, multipliers(mu), spare_attempts), delta)

    return multipliers(_largest_within(cost, epsilon, _gaussian_mu(epsilon, delta)))


def _events(
    parts: Sequence[Part], multipliers: Sequence[float], spare_attempts: int
) -> list[Event]:
    events = [
        Event(z, part.sampling_rate, part.count) for part, z in zip(parts, multipliers, strict=True)
    ]
    if spare_attempts:
        costliest = min(events, key=lambda event: event.noise_multiplier / event.sampling_rate)
        events.append(Event(costliest.noise_multiplier, costliest.sampling_rate, spare_attempts))
    return events


def _multiplier(part: Part, mu_squared: float) -> float:
    q, count = part.sampling_rate, part.count
    if q == 1:
        return math.sqrt(count / mu_squared)
    return 1 / math.sqrt(math.log1p(mu_squared / (q**2 * count)))


def _largest_within(cost: Callable[[float], float], target: float, guess: float) -> float:
    """An x whose cost is in [99.9 %, 100 %] of `target`; cost grows with x from 0."""
    low, high, x, step = 0.0, math.inf, guess, 0
    while not 0.999 * target <= (found := cost(x)) <= target:
        low, high = (x, high) if found < target else (low, x)
        step += 1
        # Epsilon is nearly a power of mu, so a Newton step in the exponents, aimed a little low,
        # mostly lands; every third step bisects, so that the search always ends.
        x *= (0.9996 * target / found) ** 0.9 if found else 2.0
        if not low < x < high or step % 3 == 0:
            x = (low + high) / 2 if high < math.inf else 2 * low
    return x


def _gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of the Gaussian with sensitivity / sigma = mu: Balle and Wang 2018, Thm 8.

    delta = Phi(a) - e^epsilon Phi(a - mu) at a = mu/2 - epsilon/mu, found by bisection in a, which
    loses no digits where epsilon is huge.
    """

    def excess(a: float) -> float:
        second = 0.5 * erfcx((mu - a) / math.sqrt(2)) * math.exp(-(a**2) / 2)
        return float(ndtr(a) - second) - delta

    low, high = -math.sqrt(2 * math.log(1 / delta)), min(mu / 2, 30.0)
    if excess(high) <= 0:
        return 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return mu * (mu / 2 - low)


def _gaussian_mu(epsilon: float, delta: float) -> float:
    """mu of the Gaussian that is (epsilon, delta)-DP, by bisection."""
    low, high = 0.0, 1.0
    while _gaussian_epsilon(high, delta) < epsilon:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _gaussian_epsilon(middle, delta) < epsilon else (low, middle)
    return low


@lru_cache(maxsize=2**16)
def _renyi(noise_multiplier: float, sampling_rate: float) -> NDArray[np.float64]:
    """Renyi divergence of one release at every order of ORDERS: float64 [len(ORDERS)]."""
    return _divergences(noise_multiplier, sampling_rate, ORDERS)


def _divergences(
    noise_multiplier: float, sampling_rate: float, orders: Sequence[int]
) -> NDArray[np.float64]:
    """Renyi divergence of one release at these orders: float64 [len(orders)].

    Gaussian: a / (2 z^2). Sampled with probability q: log(A_a) / (a - 1), with A_a the a-th moment
    of the likelihood ratio (Mironov, Talwar and Zhang 2019, section 3.3, integer a):
    A_a = sum_i binomial(a, i) (1 - q)^(a - i) q^i exp((i^2 - i) / 2z^2).
    """
    if noise_multiplier < NO_NOISE:
        return np.full(len(orders), math.inf)
    if sampling_rate == 1:
        return np.array(orders) / (2 * noise_multiplier**2)
    return np.array([_log_moment(noise_multiplier, sampling_rate, a) / (a - 1) for a in orders])


def _log_moment(z: float, q: float, order: int) -> float:
    i = np.arange(order + 1)
    chances = math.log1p(-q) * (order - i) + math.log(q) * i + np.log(comb(order, i))
    return float(np.logaddexp.reduce(chances + (i * i - i) / (2 * z**2)))


@lru_cache(maxsize=2**12)
def _group_renyi(z: float, q: float, partners: int) -> NDArray[np.float64]:
    """Renyi divergence of one release for a group: float64 [len(ORDERS)].

    Sampled, by the trapezoid rule, which for integrands this smooth is exact to double precision.
    """
    if partners == 1 or z == 0 or q == 1:
        return _renyi(z / partners, q)
    step = z / 32
    x = np.arange(-20 * z, max(ORDERS) * partners + 20 * z, step)
    j = np.arange(partners + 1)[:, None]
    ratio = np.logaddexp.reduce(
        binom.logpmf(j, partners, q) + (2 * j * x - j * j) / (2 * z**2), axis=0
    )
    bare = -(x**2) / (2 * z**2) + math.log(step / (z * math.sqrt(2 * math.pi)))
    # With her data or without: E[(P/Q)^a] and E[(Q/P)^(a - 1)], both under Q, the one without.
    worse = [
        max(np.logaddexp.reduce(bare + a * ratio),
            np.logaddexp.reduce(bare + (1 - a) * ratio))
        for a in ORDERS
    ]  # fmt: skip
    return np.array(worse) / (np.array(ORDERS) - 1)


def _from_renyi(order: int, divergence: float, delta: float) -> float:
    return divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def _sampled_event(
    event: Event, partners: int
) -> PoissonSampledDpEvent | MixtureOfGaussiansDpEvent:
    z = min(event.noise_multiplier, WIDEST_NOISE)
    if partners == 1:
        return PoissonSampledDpEvent(event.sampling_rate, GaussianDpEvent(z))
    numbers = np.arange(partners + 1)
    chances = binom.pmf(numbers, partners, event.sampling_rate)
    return MixtureOfGaussiansDpEvent(z, numbers.astype(float), chances)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; expected a probability between 0 and 1, such as 1e-5")
