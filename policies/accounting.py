"""What a sequence of releases costs: epsilon from mechanism events.

Two figures. `plan_epsilon` is the tight one (privacy loss distributions) for releases fixed in
advance: the cost of one plan. `RenyiFilter` is the one that decides: it stays valid when plans are
chosen after looking at earlier results, which is how people work.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from dp_accounting.dp_event import (
    GaussianDpEvent,
    MixtureOfGaussiansDpEvent,
    PoissonSampledDpEvent,
)
from dp_accounting.pld import PLDAccountant
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr
from scipy.stats import binom

from policies.losses import SMALLEST_DELTA, Mixture, composed_epsilon
from policies.renyi import NO_NOISE, divergences, epsilon_of, from_renyi, orders_for

ADJACENCY = "add/remove one user with all her interactions, per domain"
"""The unit every epsilon of Coterie speaks about."""

PLD_INTERVAL = 1e-3
"""Discretisation of the privacy loss; rounding goes up, so epsilon is never understated."""

GROUP_INTERVAL = 5e-3
"""The same for groups, whose losses are larger: 0.01 % coarser, four times faster."""

WIDEST_NOISE = 1e4
"""Noise wider than this is accounted as this wide in a loss distribution, which only costs more."""

PLD_CELLS, GROUP_CELLS, COMPOSED_CELLS = 250_000, 6_000, 2_000_000
"""How many intervals the losses of all mechanisms may take (a group's are the dearest to make), and
how many all compositions together. Nodes account for whatever plan they are sent: huge losses get
coarser intervals, not more time."""

WHOLE_LOSSES, WIDEST_LOSS = 20_000.0, 1_000.0
"""Losses without sampling, all together and of one release, that are composed at the finest
interval; beyond, the closed form."""

FEW = 8
"""More different sampled mechanisms than these are composed by `policies.losses`: dp-accounting
takes some 15 ms for each, and a plan may have hundreds."""

COARSEST_INTERVAL = 1.0
"""Beyond this a loss distribution says no more than the closed bounds do."""

ORDERS = (3.0, 4.0, 5.0, 7.0, 10.0, 16.0, 28.0, 48.0)
"""Renyi orders, each with an eighth of delta, of a filter that belongs to no budget, and of budgets
that were opened before they chose their own."""

MOST_ORDERS = 8
"""How many orders a filter may have."""

FINE_ORDERS = (*map(float, range(2, 65)), 80.0, 96.0, 128.0, 192.0, 256.0)
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


def merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """The same releases with equal mechanisms counted together, in a fixed order."""
    counts: dict[tuple[float, float], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sampling_rate)
        counts[key] = counts.get(key, 0) + event.count
    return tuple(Event(z, q, count) for (z, q), count in sorted(counts.items()))


def spares(events: Iterable[Event], attempts: int) -> tuple[Event, ...]:
    """Releases that cost no less than any `attempts` repeats of these, whichever are repeated.

    So many of each mechanism than which no other one is surely dearer, by no more noise at no lower
    rate. Between two with more noise at a higher rate it hangs on all others which is dearer.
    """
    mechanisms = {(event.noise_multiplier, event.sampling_rate) for event in events}
    dearest = [
        (noise, rate)
        for noise, rate in mechanisms
        if not any(z <= noise and q >= rate for z, q in mechanisms - {(noise, rate)})
    ]
    return tuple(Event(z, q, attempts) for z, q in sorted(dearest)) if attempts else ()


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


def running_epsilon(events: Iterable[Event], delta: float) -> float:
    """`plan_epsilon` for a figure that each release changes: without sampling in a fiftieth of the
    time, as dp-accounting's `get_epsilon_gaussian` has it; its distributions say up to 1e-5 of it
    more.
    """
    check_delta(delta)
    merged = merge(events)
    if merged and all(e.sampling_rate == 1 and e.noise_multiplier >= NO_NOISE for e in merged):
        return _gaussian_epsilon(_mu(merged, 1), delta)
    return plan_epsilon(merged, delta)


def epsilon_at_every_partner(events: Iterable[Event], delta: float, partners: int) -> float:
    """Epsilon for one person who is a user at all `partners` domains of a plan.

    The total then holds up to k = `partners` contributions of hers, so its L2 sensitivity is k
    clip norms. Sampled independently at each domain, the number that take part is Binomial(k, q):
    a mixture of Gaussians (Choquette-Choo et al. 2024), which for q = 1 is noise multiplier z/k.
    """
    check_delta(delta)
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
        return _composed(events, delta) if _few(events) and partners == 1 else closed
    closed = min(closed, _best_order(events, delta, partners))
    interval = _interval(events, closed, partners)
    if interval > COARSEST_INTERVAL:
        return closed
    many = sum(event.sampling_rate < 1 for event in events) > FEW and delta >= SMALLEST_DELTA
    way = _of_many if many else _by_loss_distribution
    return min(closed, way(events, delta, partners, interval))


def _few(events: Sequence[Event]) -> bool:
    spans = [_span(event, 1) for event in events]
    total = sum(span * event.count for span, event in zip(spans, events, strict=True))
    return total <= WHOLE_LOSSES and max(spans) <= WIDEST_LOSS


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
        total += event.count * divergences(z, anyone, 1, FINE_ORDERS)
    share = [delta] * len(FINE_ORDERS)
    return max(0.0, min(map(from_renyi, FINE_ORDERS, total.tolist(), share)))


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

    For every order the filter adds up the Renyi divergences of what was released;
    `renyi.epsilon_of` turns the sums into epsilon, and says why it holds.

    Attributes:
        delta: of the statement.
        orders: at most 8, fixed before the first release.
        shares: of delta, one per order, fixed with them, together 1.
    """

    delta: float
    orders: tuple[float, ...] = ORDERS
    shares: tuple[float, ...] = (1 / len(ORDERS),) * len(ORDERS)

    def __post_init__(self) -> None:
        check_delta(self.delta)
        if len(self.orders) != len(self.shares) or not 0 < len(self.orders) <= MOST_ORDERS:
            raise ValueError(f"a filter has 1 to {MOST_ORDERS} orders, each with a share of delta")
        if min(self.orders) <= 1 or min(self.shares) <= 0 or math.fsum(self.shares) > 1 + 1e-9:
            raise ValueError(f"no such filter: orders {self.orders}, shares {self.shares}")

    @classmethod
    def of_cap(cls, epsilon: float, delta: float) -> Self:
        """The filter that wastes least where `epsilon` is spent whole."""
        return cls(delta, *orders_for(epsilon, delta))

    @classmethod
    def recorded(cls, budget: Mapping[str, Any]) -> Self:
        """The filter that a ledger's `budget` entry fixes."""
        if "orders" not in budget:
            return cls(budget["delta"])
        orders, shares = (tuple(map(float, budget[name])) for name in ("orders", "shares"))
        return cls(budget["delta"], orders, shares)

    def epsilon(self, events: Iterable[Event]) -> float:
        """Epsilon of `events` at `delta`: 0.0 for none, infinity if any has no noise."""
        return self.epsilon_of(self.total(events))

    def epsilon_of(self, total: NDArray[np.float64]) -> float:
        """Epsilon of what sums up to this Renyi divergence: float64 [orders]."""
        return epsilon_of(total.tolist(), self.orders, self.shares, self.delta)

    def total(self, events: Iterable[Event], partners: int = 1) -> NDArray[np.float64]:
        """Renyi divergence of all `events` together at each order: float64 [orders].

        For a person who is a user at all `partners` domains of their plan. Infinite if any has no
        noise. Sums of it are what the filter adds up.
        """
        if partners < 1:
            raise ValueError(f"partners is {partners}; expected at least 1")
        merged = merge(events)
        if not merged:
            return np.zeros(len(self.orders))
        counts = np.array([event.count for event in merged], dtype=np.float64)
        each = [
            divergences(event.noise_multiplier, event.sampling_rate, partners, self.orders)
            for event in merged
        ]
        return np.asarray(counts @ np.array(each))

    def everywhere(self, plans: Iterable[tuple[Sequence[Event], int]]) -> float:
        """Epsilon of (events, partners) for a person who is a user at all partners of each."""
        total = np.zeros(len(self.orders))
        for events, partners in plans:
            total = total + self.total(events, partners)
        return self.epsilon_of(total)


@lru_cache(maxsize=64)
def _gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of the Gaussian with sensitivity / sigma = mu: Balle and Wang 2018, Thm 8.

    delta = Phi(a) - e^epsilon Phi(a - mu) at a = mu/2 - epsilon/mu, found by bisection in a, which
    loses no digits where epsilon is huge.
    """

    def excess(a: float) -> float:
        second = 0.5 * erfcx((mu - a) / math.sqrt(2)) * math.exp(-(a**2) / 2)
        return float(ndtr(a) - second) - delta

    low, high = -math.sqrt(-2 * math.log(delta)), min(mu / 2, 30.0)
    if excess(high) <= 0:
        return 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return mu * (mu / 2 - low)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """mu of the Gaussian that is (epsilon, delta)-DP, by bisection."""
    low, high = 0.0, 1.0
    while _gaussian_epsilon(high, delta) < epsilon:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _gaussian_epsilon(middle, delta) < epsilon else (low, middle)
    return low


def _sampled_event(
    event: Event, partners: int
) -> PoissonSampledDpEvent | MixtureOfGaussiansDpEvent:
    z = min(event.noise_multiplier, WIDEST_NOISE)
    if partners == 1:
        return PoissonSampledDpEvent(event.sampling_rate, GaussianDpEvent(z))
    numbers = np.arange(partners + 1)
    chances = binom.pmf(numbers, partners, event.sampling_rate)
    return MixtureOfGaussiansDpEvent(z, numbers.astype(float), chances)


def check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; expected a probability between 0 and 1, such as 1e-5")
