"""How a plan's epsilon is divided among its steps: the noise that each of them gets."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policies.accounting import Event, check_delta, gaussian_mu, plan_epsilon, spares


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


def calibrate(
    parts: Sequence[Part], epsilon: float, delta: float, spare_attempts: int = 0
) -> tuple[float, ...]:
    """Noise multipliers, one per part, that spend `epsilon` and no more.

    Without sampling, part i gets weight_i / sum(weights) of the total mu^2 = sum count/z^2 (Dong,
    Roth and Su 2022). With sampling it gets that share of q^2 count (e^(1/z^2) - 1), the same
    quantity by the central limit theorem (Bu et al. 2020). The total mu is then found by search, so
    `plan_epsilon` of the result is at most `epsilon` and within 0.1 % of it. `spare_attempts`
    repeats, of whichever parts, are paid for as well (`accounting.spares`).

    Raises:
        ValueError: no parts, or epsilon, delta or a part out of range.
    """
    if not parts or not 0 < epsilon < math.inf or spare_attempts < 0:
        raise ValueError("calibrate needs parts, a positive epsilon and spare_attempts >= 0")
    check_delta(delta)
    total = sum(part.weight for part in parts)

    def multipliers(mu: float) -> tuple[float, ...]:
        return tuple(_multiplier(part, part.weight / total * mu**2) for part in parts)

    def cost(mu: float) -> float:
        return plan_epsilon(_events(parts, multipliers(mu), spare_attempts), delta)

    return multipliers(_largest_within(cost, epsilon, gaussian_mu(epsilon, delta)))


def _events(
    parts: Sequence[Part], multipliers: Sequence[float], spare_attempts: int
) -> list[Event]:
    events = [
        Event(z, part.sampling_rate, part.count) for part, z in zip(parts, multipliers, strict=True)
    ]
    return [*events, *spares(events, spare_attempts)]


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
