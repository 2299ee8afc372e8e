"""What the Renyi filter wastes against Renyi composition, when random plans have filled a budget.

A mixture is one to five mechanisms in random proportions: noise multipliers from 0.3 to 50, three
of ten without sampling, the others at rates from 0.001 to 0.95. It is released until it is refused;
waste is the cap over what full composition (its best order) shows for all that fitted, less 1.
To reach: at most 15 %, and never less than full composition.
"""

import math
import random
import statistics
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from policies.accounting import RenyiFilter
from policies.renyi import divergences, from_renyi

CAPS, DELTAS = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 20.0), (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
EVERY = tuple(
    float(a) for a in (*np.linspace(1.05, 12, 220), *np.arange(12.2, 64, 0.4), *range(64, 257, 2))
)
"""The orders of full composition."""

Mechanism = tuple[float, float]  # (noise multiplier, sampling rate)


def report(mixes: int, seed: int) -> None:
    """Print worst and median waste for every cap and delta."""
    print(f"{'delta':>6} {'cap':>5}  {'worst':>6} {'p99':>6} {'median':>6}  {'least':>6}  orders")
    everything: list[float] = []
    for delta in DELTAS:
        for cap in CAPS:
            dice = random.Random(seed)
            found = [w for w in (waste(_mix(dice), cap, delta) for _ in range(mixes)) if w]
            everything += found
            ranked = sorted(found)
            print(
                f"{delta:6g} {cap:5g}  {ranked[-1]:6.1%} {ranked[int(0.99 * len(ranked))]:6.1%}"
                f" {statistics.median(ranked):6.1%}  {ranked[0]:6.1%} "
                f" {RenyiFilter.of_cap(cap, delta).orders}",
                flush=True,
            )
    over = sum(each > 0.15 for each in everything)
    print(
        f"{len(everything)} mixtures: worst {max(everything):.1%}, median"
        f" {statistics.median(everything):.1%}, above 15 %: {over}, below 0: "
        f"{sum(each < 0 for each in everything)}"
    )


def waste(mix: list[tuple[Mechanism, float]], cap: float, delta: float) -> float | None:
    """Cap over full composition, less 1; None if not one release of its costliest part fits."""
    prices = np.array([from_renyi(a, 0.0, delta) for a in EVERY])
    parts = list(_scaled(mix, cap, prices))
    if not parts:
        return None
    filter_ = RenyiFilter.of_cap(cap, delta)
    every = np.asarray(sum(n * _all(mechanism) for mechanism, n in parts))
    mine = np.asarray(sum(n * divergences(*mechanism, 1, filter_.orders) for mechanism, n in parts))
    # So often full composition lets it through; the filter at most as often.
    most = float(np.max(np.maximum(cap - prices, 0) / every))
    low, high = 0.0, most * 1.01
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if filter_.epsilon_of(middle * mine) <= cap else (low, middle)
    return cap / float(np.min(low * every + prices)) - 1


def _scaled(
    mix: list[tuple[Mechanism, float]], cap: float, prices: NDArray[np.float64]
) -> Iterator[tuple[Mechanism, float]]:
    """Each mechanism in its part of how often it alone would fit the cap, at least once."""
    for mechanism, weight in mix:
        alone = float(np.max(np.maximum(cap - prices, 0) / _all(mechanism)))
        if alone >= 1:
            yield mechanism, max(1.0, alone * weight)


def _all(mechanism: Mechanism) -> NDArray[np.float64]:
    return divergences(*mechanism, 1, EVERY)


def _mix(dice: random.Random) -> list[tuple[Mechanism, float]]:
    def one() -> Mechanism:
        noise = round(math.exp(dice.uniform(math.log(0.3), math.log(50))), 2)
        rate = (
            1.0 if dice.random() < 0.3 else math.exp(dice.uniform(math.log(1e-3), math.log(0.95)))
        )
        return noise, round(rate, 4)

    count = dice.randint(1, 5)
    return [(one(), dice.uniform(0.05, 1) / count) for _ in range(count)]
