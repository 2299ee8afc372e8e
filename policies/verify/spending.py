"""What releases cost, computed again from their mechanisms."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp, roots_legendre

UNIT = "add/remove one user with all her interactions, per domain"
OLD_ORDERS = (3.0, 4.0, 5.0, 7.0, 10.0, 16.0, 28.0, 48.0)
"""Of budgets whose entry names none: each with an eighth of delta."""

MOST_ORDERS, HIGHEST_ORDER = 8, 1024
NO_NOISE = 1e-100
MOST_PARTNERS = 100
"""Beyond, a person's contributions are taken as never left out, which only costs more."""

Mechanism = tuple[float, float]  # (noise multiplier, sampling rate)
Groups = Counter[tuple[Mechanism, int]]  # (mechanism, partners): releases


@dataclass
class BudgetState:
    epsilon: float = 0.0
    delta: float = 0.0
    public: bool = False
    orders: tuple[float, ...] = OLD_ORDERS
    shares: tuple[float, ...] = (1 / len(OLD_ORDERS),) * len(OLD_ORDERS)
    used: bool = False
    spent: Groups = field(default_factory=Counter)
    # Renyi divergence of `spent` at each order, kept up with every entry.
    renyi: list[float] = field(default_factory=lambda: [0.0] * len(OLD_ORDERS))

    def fix(self, orders: Sequence[float], shares: Sequence[float]) -> None:
        """Set the filter's orders and shares of delta. Raises ValueError."""
        valid = (
            0 < len(orders) == len(shares) <= MOST_ORDERS
            and all(1 < order <= HIGHEST_ORDER for order in orders)
            and len(set(orders)) == len(orders)
            and all(share > 0 for share in shares)
            and math.fsum(shares) <= 1 + 1e-9
        )
        if not valid:
            raise ValueError(f"no such filter: orders {orders} with shares {shares} of delta")
        self.orders, self.shares = tuple(orders), tuple(shares)
        # Anew: what was public may have been added up with losses that swallow all others.
        self.renyi = self._totals(everywhere=False)

    def add(self, mechanism: Mechanism, partners: int, count: int) -> None:
        self.used = True
        self.spent[mechanism, partners] += count
        if mechanism[0] >= NO_NOISE:
            one = renyi(*mechanism, 1, self.orders)
            pairs = zip(self.renyi, one, strict=True)
            self.renyi = [total + count * each for total, each in pairs]

    def over(self) -> bool:
        if self.public:
            return False
        if any(count for ((noise, _), _), count in self.spent.items() if noise < NO_NOISE):
            return True
        cap = self.epsilon * (1 + 1e-9)
        # What one order shows is found sooner, and is never less.
        return self._by_one_order() > cap and self._epsilon(self.renyi) > cap

    def figure(self, everywhere: bool = False) -> float:
        """The filter's epsilon of all that was spent, added up anew; `everywhere`: for a person who
        is a user at every partner of each plan."""
        return self._epsilon(self._totals(everywhere))

    def _totals(self, everywhere: bool) -> list[float]:
        totals = [0.0] * len(self.orders)
        for (mechanism, partners), count in self.spent.items():
            if count:
                one = renyi(*mechanism, partners if everywhere else 1, self.orders)
                totals = [total + count * each for total, each in zip(totals, one, strict=True)]
        return totals

    def _by_one_order(self) -> float:
        """Canonne, Kamath and Steinke 2020, Prop. 12, by each order with its share of delta."""
        return min(
            total
            + math.log1p(-1 / order)
            - (math.log(self.delta) + math.log(share * order)) / (order - 1)
            for order, share, total in zip(self.orders, self.shares, self.renyi, strict=True)
        )

    def _epsilon(self, totals: Sequence[float]) -> float:
        """The maximum over z of z + log(1 - delta M(z)), M(z) the mixture over the orders of
        exp((a - 1)(z - D_a)): docs/ledger.md says why. It is concave, so a golden section finds it.
        """
        if not any(total > 0 for total in totals):
            return 0.0
        if math.inf in totals:
            return math.inf
        orders = np.array(self.orders)
        slopes = (orders - 1).tolist()
        logs = math.log(self.delta) + np.log(self.shares)
        starts = (logs - np.array(totals) * (orders - 1)).tolist()
        pairs = list(zip(starts, slopes, strict=True))
        # Above `high` one term alone is all of delta; below `low` epsilon rises as z does, since
        # even all terms together are less than 1 / (1 + the steepest slope).
        high = min(-start / slope for start, slope in pairs)
        margin = math.log(len(pairs) * (1 + max(slopes)))
        low = min((-start - margin) / slope for start, slope in pairs)
        return max(0.0, _highest(lambda z: _shown(z, pairs), low, high))


def _shown(z: float, pairs: Sequence[tuple[float, float]]) -> float:
    mixture = math.fsum(math.exp(min(start + slope * z, 1.0)) for start, slope in pairs)
    return z + math.log1p(-mixture) if mixture < 1 else -math.inf


def _highest(value: Callable[[float], float], low: float, high: float) -> float:
    """The maximum of a concave function between two points, by golden section."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = value(left), value(right)
    while high - low > 1e-8 * max(1.0, abs(high)):
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = value(right)
    return max(at_left, at_right)


def mechanism_of(event: dict[str, Any]) -> Mechanism:
    if set(event) != {"noise_multiplier", "sampling_rate", "count"}:
        raise ValueError(f"a mechanism says {sorted(event)}")
    noise, rate = float(event["noise_multiplier"]), float(event["sampling_rate"])
    if not (0 <= noise < math.inf and 0 < rate <= 1):
        raise ValueError(f"no such mechanism: noise multiplier {noise}, sampling rate {rate}")
    return noise, rate


@lru_cache(maxsize=2**16)
def renyi(noise: float, rate: float, partners: int, orders: tuple[float, ...]) -> tuple[float, ...]:
    """Renyi divergence of one release at every order, for a user at so many partners."""
    return tuple(_divergence(noise, rate, partners, order) for order in orders)


def _divergence(noise: float, rate: float, partners: int, order: float) -> float:
    if noise < NO_NOISE:
        return math.inf
    if rate == 1 or partners > MOST_PARTNERS:
        return order * partners**2 / (2 * noise**2)
    chances = [_chance(j, partners, rate) for j in range(partners + 1)]
    if noise < 0.05 or order * partners > 50_000 * noise:
        # Too long to integrate; joint convexity bounds it.
        squares = np.arange(partners + 1) ** 2 * (order * (order - 1) / (2 * noise**2))
        return float(logsumexp(np.array(chances) + squares)) / (order - 1)
    if partners == 1 and float(order).is_integer():
        return _log_moment(noise, rate, int(order)) / (order - 1)
    return _integrated(noise, chances, order) / (order - 1)


def _chance(taken: int, partners: int, rate: float) -> float:
    """log of the probability that she takes part at so many of the partners."""
    ways = gammaln(partners + 1) - gammaln(taken + 1) - gammaln(partners - taken + 1)
    return float(ways + taken * math.log(rate) + (partners - taken) * math.log1p(-rate))


def _log_moment(noise: float, rate: float, order: int) -> float:
    """Mironov, Talwar and Zhang 2019, section 3.3."""
    terms = [
        math.log(math.comb(order, i))
        + i * math.log(rate)
        + (order - i) * math.log1p(-rate)
        + i * (i - 1) / (2 * noise**2)
        for i in range(order + 1)
    ]
    top = max(terms)
    return top + math.log(math.fsum(math.exp(term - top) for term in terms))


_NODES, _WEIGHTS = roots_legendre(16)


def _integrated(noise: float, chances: Sequence[float], order: float) -> float:
    """The log moment of mixture over bare Gaussian, or of bare over mixture if that is larger: a
    Gauss-Legendre rule on every half standard deviation."""
    far = order * (len(chances) - 1) / noise
    ends = np.arange(-16.0, far + 16.0, 0.5)
    at = (ends[:, None] + 0.25 * (_NODES + 1)).ravel()
    weight = np.tile(np.log(_WEIGHTS / 4), len(ends)) - at**2 / 2 - math.log(2 * math.pi) / 2
    j = np.arange(len(chances))[:, None]
    ratio = logsumexp(np.array(chances)[:, None] + j * at / noise - j**2 / (2 * noise**2), axis=0)
    return max(
        float(logsumexp(weight + order * ratio)), float(logsumexp(weight + (1 - order) * ratio))
    )
