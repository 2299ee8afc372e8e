"""Many mechanisms composed at once cost what dp-accounting says, and never less."""

import math

import numpy as np
import pytest
from dp_accounting.dp_event import (
    GaussianDpEvent,
    MixtureOfGaussiansDpEvent,
    PoissonSampledDpEvent,
)
from dp_accounting.pld import PLDAccountant
from scipy.stats import binom

from policies import accounting
from policies.accounting import FEW, Event, epsilon_at_every_partner, plan_epsilon
from policies.losses import Mixture, composed_epsilon

PLANS = {
    "wide noise": [Event(20.0 + i, 0.3, 3) for i in range(FEW + 1)],
    "little noise": [Event(0.6 + 0.05 * i, 0.02, 2) for i in range(FEW + 1)],
    "every rate": [Event(2.0, 0.05 + 0.1 * i, 10) for i in range(FEW + 1)],
    "many releases": [Event(3.0 + i, 0.01, 2_000) for i in range(FEW + 1)],
    "some not sampled": [Event(30.0 + i, 0.1, 5) for i in range(FEW + 1)] + [Event(4.0, 1.0, 3)],
}


def composed_by_dp_accounting(events: list[Event], delta: float, partners: int) -> float:
    interval = accounting._interval(events, plan_epsilon(events, delta) * partners, partners)
    accountant = PLDAccountant(value_discretization_interval=interval)
    numbers = np.arange(partners + 1)
    for e in events:
        if e.sampling_rate == 1:
            accountant.compose(GaussianDpEvent(e.noise_multiplier / partners), e.count)
        elif partners == 1:
            accountant.compose(
                PoissonSampledDpEvent(e.sampling_rate, GaussianDpEvent(e.noise_multiplier)), e.count
            )
        else:
            chances = binom.pmf(numbers, partners, e.sampling_rate)
            accountant.compose(
                MixtureOfGaussiansDpEvent(e.noise_multiplier, numbers.astype(float), chances),
                e.count,
            )
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("delta", [1e-5, 1e-7])
@pytest.mark.parametrize("plan", PLANS)
def test_it_costs_what_dp_accounting_composes(plan: str, delta: float) -> None:
    expected = composed_by_dp_accounting(PLANS[plan], delta, 1)
    found = plan_epsilon(PLANS[plan], delta)
    assert expected * (1 - 1e-6) <= found <= expected * (1 + 2e-4)


def test_nor_is_a_person_at_every_partner_cheaper() -> None:
    events = [Event(6.0 + 0.3 * i, 0.1, 2) for i in range(FEW + 1)]
    mixtures = [
        Mixture(e.noise_multiplier, tuple(binom.pmf(np.arange(4), 3, e.sampling_rate)), e.count)
        for e in events
    ]
    expected = composed_by_dp_accounting(events, 1e-5, 3)
    interval = accounting._interval(events, plan_epsilon(events, 1e-5) * 3, 3)
    found = composed_epsilon(mixtures, 1e-5, interval)
    assert expected * (1 - 1e-6) <= found <= expected * (1 + 2e-4)
    assert epsilon_at_every_partner(events, 1e-5, 3) <= found * (1 + 1e-9)


@pytest.mark.parametrize("z", [0.02, 0.3, 5.0, 1e5])
def test_no_plan_is_too_extreme(z: float) -> None:
    events = [Event(z * (1 + i / 100), 0.2, 7) for i in range(FEW + 1)]
    assert 0 <= plan_epsilon(events, 1e-6) < math.inf


def test_more_of_anything_costs_more() -> None:
    def epsilon(scale: float, rate: float, count: int) -> float:
        return plan_epsilon(
            [Event(scale * (2 + i / 10), rate, count) for i in range(FEW + 1)], 1e-5
        )

    costs = [epsilon(1.0, 0.1, 5), epsilon(1.0, 0.1, 6), epsilon(1.0, 0.12, 6)]
    costs.append(epsilon(0.95, 0.12, 6))
    assert costs == sorted(set(costs))
