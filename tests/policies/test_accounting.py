"""Epsilon: equal to dp-accounting, never too small, and calibrated to the target."""

import math

import numpy as np
import pytest
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from policies import accounting
from policies.accounting import (
    ADJACENCY,
    ORDERS,
    Event,
    Part,
    RenyiFilter,
    calibrate,
    epsilon_at_every_partner,
    merge,
    plan_epsilon,
)

DELTA = 1e-5
PLAN = (Event(2.0, 1.0, 1), Event(5.0, 0.1, 30), Event(8.0, 1.0, 5))

events = st.lists(
    st.builds(
        Event,
        st.floats(0.3, 50),
        st.one_of(st.just(1.0), st.floats(1e-4, 0.999)),
        st.integers(1, 200),
    ),
    max_size=5,
)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Balle and Wang 2018, Thm 8: delta of the Gaussian mechanism with sensitivity/sigma = mu."""
    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return float(norm.cdf(a) - math.exp(epsilon) * norm.cdf(b))


def test_the_unit_is_one_user_of_one_domain() -> None:
    assert ADJACENCY == "add/remove one user with all her interactions, per domain"


def test_plan_epsilon_is_dp_accounting_s() -> None:
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    for event in PLAN:
        gaussian = GaussianDpEvent(event.noise_multiplier)
        accountant.compose(PoissonSampledDpEvent(event.sampling_rate, gaussian), event.count)
    assert plan_epsilon(PLAN, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-5)


@pytest.mark.parametrize("mu", [0.2, 0.8, 1.6])
def test_plan_epsilon_without_sampling_is_the_closed_form(mu: float) -> None:
    epsilon = plan_epsilon([Event(math.sqrt(20) / mu, 1.0, 20)], DELTA)
    assert gaussian_delta(mu, epsilon) <= DELTA * (1 + 1e-9)
    assert gaussian_delta(mu, epsilon * 0.999) > DELTA


def test_no_events_cost_nothing_and_no_noise_costs_everything() -> None:
    bare = [Event(1.0, 1.0, 1), Event(0.0, 0.5, 1)]
    for cost in (plan_epsilon, lambda e, d: RenyiFilter(d).epsilon(e)):
        assert cost([], DELTA) == 0.0
        assert cost(bare, DELTA) == math.inf
    assert epsilon_at_every_partner(bare, DELTA, 3) == math.inf


def test_order_and_grouping_of_events_make_no_difference() -> None:
    split = [Event(2.0, 1.0, 3), Event(5.0, 0.1, 1), Event(2.0, 1.0, 4)]
    assert merge(split) == (Event(2.0, 1.0, 7), Event(5.0, 0.1, 1))
    assert plan_epsilon(split, DELTA) == plan_epsilon(merge(split), DELTA)


@given(events)
@settings(max_examples=60, deadline=None)
def test_the_filter_is_renyi_composition_at_fixed_orders_and_a_share_of_delta(
    found: list[Event],
) -> None:
    accountant = RdpAccountant(list(ORDERS))
    for event in found:
        gaussian = GaussianDpEvent(event.noise_multiplier)
        accountant.compose(PoissonSampledDpEvent(event.sampling_rate, gaussian), event.count)
    expected = accountant.get_epsilon(DELTA / len(ORDERS))
    # dp-accounting calls losses that are tiny beside delta 0; the filter needn't.
    assert RenyiFilter(DELTA).epsilon(found) == pytest.approx(expected, rel=1e-9, abs=1e-4)


@given(events.filter(bool), events)
@settings(max_examples=60, deadline=None)
def test_more_releases_never_cost_less(first: list[Event], more: list[Event]) -> None:
    cost = RenyiFilter(DELTA).epsilon
    assert cost([*first, *more]) >= cost(first)


@given(events.filter(bool))
@settings(max_examples=15, deadline=None)
def test_the_filter_never_shows_less_than_the_tight_figure(found: list[Event]) -> None:
    assert RenyiFilter(DELTA).epsilon(found) >= plan_epsilon(found, DELTA) * (1 - 1e-6)


huge = st.lists(
    st.builds(
        Event,
        st.sampled_from([1e-300, 1e-6, 0.02, 0.05, 0.3, 1.0, 1e6]),
        st.sampled_from([1e-300, 1e-9, 0.01, 0.5, 0.84, 0.96, 1.0]),
        st.sampled_from([1, 100, 10**6]),
    ),
    min_size=1,
    max_size=3,
)


@given(huge, st.sampled_from([1e-300, 1e-5, 0.999]), st.sampled_from([1, 3, 1000]))
@settings(max_examples=12, deadline=None)
def test_whatever_is_asked_is_accounted_by_a_bound_that_is_finite_with_any_noise(
    found: list[Event], delta: float, partners: int
) -> None:
    epsilon = epsilon_at_every_partner(found, delta, partners)
    assert epsilon >= 0.0
    assert math.isinf(epsilon) == any(event.noise_multiplier < 1e-100 for event in found)
    whole = [Event(e.noise_multiplier / partners, 1.0, e.count) for e in found]
    assert epsilon <= plan_epsilon(whole, delta) * (1 + 1e-9), "sampling never costs more than none"


@pytest.mark.parametrize("partners", [1, 3])
def test_coarser_intervals_for_dear_plans_never_understate(
    monkeypatch: pytest.MonkeyPatch, partners: int
) -> None:
    plan = [Event(2.0, 0.2, 20), Event(3.0, 0.5, 2), Event(8.0, 1.0, 1)]
    fine = epsilon_at_every_partner(plan, DELTA, partners)
    for cells in (1_000, 300):
        monkeypatch.setattr(accounting, "PLD_CELLS", cells)
        monkeypatch.setattr(accounting, "GROUP_CELLS", cells)
        accounting._smallest_bound.cache_clear()
        coarse = epsilon_at_every_partner(plan, DELTA, partners)
        assert fine <= coarse < 1.05 * fine
    accounting._smallest_bound.cache_clear()


def test_without_sampling_every_plan_is_one_gaussian_however_dear() -> None:
    mixed = [Event(2.0, 1.0, 4), Event(1.0, 1.0, 3)]
    assert plan_epsilon(mixed, DELTA) == pytest.approx(plan_epsilon([Event(0.5, 1.0, 1)], DELTA))
    assert plan_epsilon([Event(1e-6, 1.0, 1)], DELTA) == pytest.approx(0.5e12, rel=1e-5)


@pytest.mark.parametrize("target", [0.5, 1.0, 2.0, 5.0, 8.0, 10.0, 20.0])
def test_fixed_orders_waste_little_against_the_best_order(target: float) -> None:
    (z,) = calibrate([Part(1.0, 1.0, 20)], target, DELTA)
    every = RdpAccountant([*np.linspace(1.05, 3, 80), *np.linspace(3, 80, 400)])
    every.compose(GaussianDpEvent(z), 20)
    waste = RenyiFilter(DELTA).epsilon([Event(z, 1.0, 20)]) / every.get_epsilon(DELTA)
    assert 1.0 <= waste < (1.10 if target == 8.0 else 1.16)


def test_at_most_eight_orders() -> None:
    assert len(ORDERS) <= 8


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 8.0, 20.0])
def test_calibration_spends_the_target_and_no_more(epsilon: float) -> None:
    parts = [Part(0.1, 1.0, 1), Part(0.8, 1.0, 20), Part(0.1, 1.0, 4)]
    multipliers = calibrate(parts, epsilon, DELTA)
    planned = [Event(z, 1.0, part.count) for z, part in zip(multipliers, parts, strict=True)]
    assert 0.999 * epsilon <= plan_epsilon(planned, DELTA) <= epsilon


def test_weights_are_shares_of_mu_squared() -> None:
    multipliers = calibrate([Part(1, 1.0, 1), Part(9, 1.0, 20)], 2.0, DELTA)
    first, second = 1 / multipliers[0] ** 2, 20 / multipliers[1] ** 2
    assert second / first == pytest.approx(9)


def test_calibration_with_sampling_and_spare_attempts() -> None:
    parts = [Part(0.2, 1.0, 1), Part(0.8, 0.05, 200)]
    z = calibrate(parts, 3.0, DELTA, spare_attempts=2)
    assert z[0] < z[1] / 0.05, "the first part is the costliest: its repetitions are the spare ones"
    planned = [Event(z[0], 1.0, 3), Event(z[1], 0.05, 200)]
    assert 0.999 * 3.0 <= plan_epsilon(planned, DELTA) <= 3.0


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_calibration_needs_a_target_it_can_reach(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        calibrate([Part(1.0, 1.0, 1)], epsilon, DELTA)


def test_a_user_of_every_partner_is_a_group_of_contributions_in_one_total() -> None:
    release = [Event(6.0, 1.0, 10)]
    assert epsilon_at_every_partner(release, DELTA, 3) == pytest.approx(
        plan_epsilon([Event(2.0, 1.0, 10)], DELTA), rel=1e-3
    )
    assert epsilon_at_every_partner(PLAN, DELTA, 1) == plan_epsilon(PLAN, DELTA)


def test_sampling_helps_a_user_of_every_partner_too() -> None:
    sampled = [Event(4.0, 0.05, 50)]
    together = epsilon_at_every_partner(sampled, DELTA, 3)
    assert plan_epsilon(sampled, DELTA) < together
    # Were she always sampled at all or at none, her noise would be a third at the same rate.
    assert together < plan_epsilon([Event(4.0 / 3, 1 - 0.95**3, 50)], DELTA)


@pytest.mark.parametrize("bad", [(-1.0, 1.0, 1), (math.nan, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.0, 0)])
def test_impossible_events_are_refused(bad: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Event(*bad)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        plan_epsilon(PLAN, delta)
    with pytest.raises(ValueError, match="delta"):
        RenyiFilter(delta)
