"""What would fit under a cap: the same releases with more noise, or fewer of them."""

import math
from collections.abc import Callable, Sequence

from policies.accounting import Event

MOST_NOISE = 1000.0
"""Beyond this factor on the noise nothing is worth releasing, and nothing is offered."""


def least_factor(fits: Callable[[float], bool]) -> float | None:
    """The least factor on the noise that fits, within 0.01 %; None if none up to MOST_NOISE does.

    Args:
        fits: more noise never hurts.
    """
    if not fits(MOST_NOISE):
        return None
    low, high = 0.0, math.log(MOST_NOISE)
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(math.exp(middle)) else (middle, high)
    return math.exp(high)


def most_of(count: int, fits: Callable[[int], bool]) -> int:
    """The most of `count` that fit, fewer than all; 0 if none do."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def offers_of(events: Sequence[Event], fits: Callable[[Sequence[Event]], bool]) -> list[str]:
    """Phrases for what would fit instead of `events`: the nearest of each kind, if there is one."""
    if not events or min(event.noise_multiplier for event in events) == 0:
        return []
    found = []
    factor = least_factor(lambda by: fits(_noisier(events, by)))
    if factor is not None:
        least = min(event.noise_multiplier for event in events)
        by = math.ceil(factor * 1000) / 1000
        found.append(f"noise multipliers {by:g} times as large (the least {least * by:.4g})")
    most = sum(event.count for event in events)
    number = most_of(most, lambda n: fits(_fewer(events, n / most)))
    kept = sum(event.count for event in _fewer(events, number / most))
    if 0 < kept < most:
        found.append(f"{kept} of the {most} releases")
    return found


def _noisier(events: Sequence[Event], factor: float) -> list[Event]:
    return [Event(e.noise_multiplier * factor, e.sampling_rate, e.count) for e in events]


def _fewer(events: Sequence[Event], part: float) -> list[Event]:
    kept = ((e, math.floor(e.count * part)) for e in events)
    return [Event(e.noise_multiplier, e.sampling_rate, count) for e, count in kept if count]
