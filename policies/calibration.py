"""How much noise an epsilon takes: for an author who plans, before there is a plan.

calibrate(epsilon=2.0, rounds=30, users=5000)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.optimize import brentq

from policies.accounting import Event, plan_epsilon

_TOLERANCE = 1e-7
_LEAST, _MOST = 0.05, 1e5


@dataclass(frozen=True)
class Calibration:
    """The mechanism of `rounds` equal releases, and what it costs.

    Attributes:
        noise_multiplier: standard deviation of the accounted noise over the clip norm.
        sampling_rate: probability with which each user takes part in a round.
        rounds: releases, spare attempts included.
        epsilon: of all of them at `delta`, for `accounting.ADJACENCY`; at most what was asked for
            and within 1e-6 of it, unless a noise multiplier below 0.05 would do.
        delta: of the differential privacy statement.
        noise_per_user: standard deviation of the noise in a mean over the users who take part in a
            round, in clip norms; what to compare with the size of a signal.
    """

    noise_multiplier: float
    sampling_rate: float
    rounds: int
    epsilon: float
    delta: float
    noise_per_user: float


def calibrate(
    *,
    epsilon: float,
    rounds: int,
    users: int,
    delta: float | None = None,
    users_per_round: int | None = None,
    spare_attempts: int = 2,
) -> Calibration:
    """The least noise with which `rounds` releases cost at most `epsilon`.

    By root finding on the tight figure of one plan (`accounting.plan_epsilon`).

    Args:
        users: how many there are at the smallest partner, as declared.
        delta: default 1e-5, or 1 / (10 users) where that is less.
        users_per_round: expected number that take part in a round; default all of them, which
            gives the best signal for the noise. Fewer cost less computation.
        spare_attempts: failed attempts that may be repeated, paid for as well.

    Raises:
        ValueError: an argument is out of range, or no noise up to 1e5 clip norms is enough.
    """
    for name, number in (("rounds", rounds), ("users", users), ("spare_attempts", spare_attempts)):
        if type(number) is not int:
            raise ValueError(f"{name} is {number!r}; expected a whole number")
    if not 0 < epsilon < math.inf or rounds < 1 or users < 1 or spare_attempts < 0:
        raise ValueError("epsilon, rounds and users must be positive, spare_attempts at least 0")
    if users_per_round is not None and not 1 <= users_per_round <= users:
        raise ValueError(f"users_per_round is {users_per_round}; expected 1 to {users}")
    delta = min(1e-5, 0.1 / users) if delta is None else delta
    rate = 1.0 if users_per_round is None else users_per_round / users
    count = rounds + spare_attempts

    def cost(log_noise: float) -> float:
        return plan_epsilon([Event(math.exp(log_noise), rate, count)], delta)

    noise = _least_noise(cost, epsilon)
    return Calibration(
        noise_multiplier=noise,
        sampling_rate=rate,
        rounds=count,
        epsilon=cost(math.log(noise)),
        delta=delta,
        noise_per_user=noise / (rate * users),
    )


def _least_noise(cost: Callable[[float], float], epsilon: float) -> float:
    low, high = 0.0, 0.0
    while cost(low) <= epsilon and low > math.log(_LEAST):
        low -= 1.0
    while cost(high) > epsilon:
        high += 1.0
        if high > math.log(_MOST):
            raise ValueError(f"No noise multiplier up to {_MOST:g} gives epsilon {epsilon:g}.")
    if cost(low) <= epsilon:
        return math.exp(low)
    aim = epsilon - _TOLERANCE / 2
    found = float(brentq(lambda x: cost(x) - aim, low, high, xtol=1e-11, rtol=1e-11))
    # The grid of the privacy loss makes tiny steps; stay on the side that costs no more.
    step = 1e-10
    while cost(found) > epsilon:
        found, step = found + step, 2 * step
    return math.exp(found)
