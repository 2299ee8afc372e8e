"""What releases cost, computed again from their mechanisms, also by dp-accounting."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

UNIT = "add/remove one user with all her interactions, per domain"
FILTER_ORDERS = (3, 4, 5, 7, 10, 16, 28, 48)

Mechanism = tuple[float, float]  # (noise multiplier, sampling rate)


@dataclass
class BudgetState:
    epsilon: float = 0.0
    delta: float = 0.0
    public: bool = False
    spent: Counter[Mechanism] = field(default_factory=Counter)
    # Renyi divergence of `spent` at each order, kept up with every entry.
    renyi: list[float] = field(default_factory=lambda: [0.0] * len(FILTER_ORDERS))

    def add(self, mechanism: Mechanism, count: int) -> None:
        self.spent[mechanism] += count
        if mechanism[0] > 0:
            one = renyi(*mechanism)
            self.renyi = [total + count * each for total, each in zip(self.renyi, one, strict=True)]

    def over(self) -> bool:
        if self.public:
            return False
        if any(count for (noise, _), count in self.spent.items() if noise == 0):
            return True
        return from_renyi(self.renyi, self.delta) > self.epsilon * (1 + 1e-9)


def mechanism_of(event: dict[str, Any]) -> Mechanism:
    if set(event) != {"noise_multiplier", "sampling_rate", "count"}:
        raise ValueError(f"a mechanism says {sorted(event)}")
    noise, rate = float(event["noise_multiplier"]), float(event["sampling_rate"])
    if not (0 <= noise < math.inf and 0 < rate <= 1):
        raise ValueError(f"no such mechanism: noise multiplier {noise}, sampling rate {rate}")
    return noise, rate


@lru_cache(maxsize=4096)
def renyi(noise: float, rate: float) -> tuple[float, ...]:
    """Renyi divergence of one release at every order (Mironov, Talwar and Zhang 2019, 3.3)."""
    if rate == 1:
        return tuple(order / (2 * noise**2) for order in FILTER_ORDERS)
    return tuple(_log_moment(noise, rate, order) / (order - 1) for order in FILTER_ORDERS)


def _log_moment(noise: float, rate: float, order: int) -> float:
    terms = [
        math.log(math.comb(order, i))
        + i * math.log(rate)
        + (order - i) * math.log1p(-rate)
        + i * (i - 1) / (2 * noise**2)
        for i in range(order + 1)
    ]
    top = max(terms)
    return top + math.log(math.fsum(math.exp(term - top) for term in terms))


def from_renyi(renyi: Sequence[float], delta: float) -> float:
    """Each order with its share of delta (Canonne, Kamath and Steinke 2020, Prop. 12)."""
    if not any(total > 0 for total in renyi):
        return 0.0
    share = delta / len(FILTER_ORDERS)
    return max(
        0.0,
        min(
            total + math.log1p(-1 / order) - math.log(share * order) / (order - 1)
            for order, total in zip(FILTER_ORDERS, renyi, strict=True)
        ),
    )


def filter_epsilon(spent: Counter[Mechanism], delta: float) -> float:
    """A union over the orders, each with its share of delta: Renyi filters side by side."""
    accountant = RdpAccountant(list(FILTER_ORDERS))
    for (noise_multiplier, sampling_rate), count in spent.items():
        if count == 0:
            continue
        if noise_multiplier == 0:
            return math.inf
        event = PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(noise_multiplier))
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta / len(FILTER_ORDERS)))
