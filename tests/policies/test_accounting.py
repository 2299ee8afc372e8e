"""Epsilon: equal to dp-accounting, never too small, and calibrated to the target."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, norm

from benchmarks.filter_waste import waste
from policies import accounting
from policies.accounting import (
    ADJACENCY,
    Event,
    RenyiFilter,
    epsilon_at_every_partner,
    merge,
    plan_epsilon,
    running_epsilon,
    spares,
)
from policies.division import Part, calibrate
from policies.renyi import divergences, from_renyi

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


def composed(found: list[Event], orders: Sequence[float]) -> RdpAccountant:
    accountant = RdpAccountant(list(orders))
    for event in found:
        gaussian = GaussianDpEvent(event.noise_multiplier)
        accountant.compose(PoissonSampledDpEvent(event.sampling_rate, gaussian), event.count)
    return accountant


def renyi_epsilon(found: list[Event], orders: Sequence[float], deltas: Sequence[float]) -> float:
    """The least that any one order shows, each at its own delta: our divergences, all orders."""
    at = dict(zip(map(float, orders), deltas, strict=True))
    whole = sorted(order for order in at if order.is_integer())
    # Those of whole orders have a closed form, which is used where no others are asked for.
    shown = [
        from_renyi(order, divergence, at[order])
        for together in filter(None, (whole, sorted(at.keys() - whole)))
        for order, divergence in zip(together, divergence_of(found, together), strict=True)
    ]
    return max(0.0, min(shown))


def divergence_of(found: list[Event], orders: list[float]) -> list[float]:
    total = np.zeros(len(orders))
    for event in found:
        z, q = event.noise_multiplier, event.sampling_rate
        total += event.count * divergences(z, q, 1, tuple(orders))
    return list(total.tolist())


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
        sampled = PoissonSampledDpEvent(event.sampling_rate, gaussian)
        accountant.compose(gaussian if event.sampling_rate == 1 else sampled, event.count)
    assert plan_epsilon(PLAN, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), abs=1e-6)


@pytest.mark.parametrize("mu", [0.2, 0.8, 1.6])
def test_plan_epsilon_without_sampling_is_the_closed_form(mu: float) -> None:
    epsilon = plan_epsilon([Event(math.sqrt(20) / mu, 1.0, 20)], DELTA)
    assert gaussian_delta(mu, epsilon) <= DELTA * (1 + 1e-9)
    assert gaussian_delta(mu, epsilon * 0.999) > DELTA


@pytest.mark.parametrize("events", [PLAN, [Event(3.0, 1.0, 7), Event(9.0, 1.0, 40)]])
def test_an_epsilon_while_a_run_goes_on_is_the_plan_s(events: list[Event]) -> None:
    assert running_epsilon(events, DELTA) == pytest.approx(plan_epsilon(events, DELTA), rel=1e-5)


def test_no_events_cost_nothing_and_no_noise_costs_everything() -> None:
    bare = [Event(1.0, 1.0, 1), Event(0.0, 0.5, 1)]
    for cost in (plan_epsilon, running_epsilon, lambda e, d: RenyiFilter(d).epsilon(e)):
        assert cost([], DELTA) == 0.0
        assert cost(bare, DELTA) == math.inf
    assert epsilon_at_every_partner(bare, DELTA, 3) == math.inf


def test_order_and_grouping_of_events_make_no_difference() -> None:
    split = [Event(2.0, 1.0, 3), Event(5.0, 0.1, 1), Event(2.0, 1.0, 4)]
    assert merge(split) == (Event(2.0, 1.0, 7), Event(5.0, 0.1, 1))
    assert plan_epsilon(split, DELTA) == plan_epsilon(merge(split), DELTA)


@given(events, st.sampled_from([2, 3, 9, 24, 60]))
@settings(max_examples=60, deadline=None)
def test_a_filter_of_one_order_is_renyi_composition_at_that_order(
    found: list[Event], order: int
) -> None:
    filter_ = RenyiFilter(DELTA, (float(order),), (1.0,))
    expected = composed(found, [order]).get_epsilon(DELTA)
    # dp-accounting calls epsilon 0 where the whole divergence is less than delta squared.
    assert filter_.epsilon(found) == pytest.approx(expected, rel=1e-9) or (
        expected == 0 and filter_.total(found).max() <= DELTA**2 * (1 + 1e-9)
    )


@pytest.mark.parametrize("partners", [1, 3])
@pytest.mark.parametrize(
    ("z", "q"), [(0.06, 0.3), (0.5, 0.3), (1.0, 0.01), (4.0, 0.1), (90.0, 0.5)]
)
def test_divergences_between_whole_orders_are_the_moments_by_adaptive_quadrature(
    z: float, q: float, partners: int
) -> None:
    """dp-accounting's series for these orders is too coarse to compare with."""
    orders = (1.1, 1.7, 2.5, 9.1)
    j = np.arange(partners + 1)
    chances = binom.logpmf(j, partners, q)

    def log_ratio(t: float) -> float:
        return float(np.logaddexp.reduce(chances + j * t / z - j**2 / (2 * z**2)))

    for order, found in zip(orders, divergences(z, q, partners, orders), strict=True):
        peaks = sorted({*(order * j / z), 0.0})
        top = max(-(t**2) / 2 + order * log_ratio(t) for t in peaks)
        moment, _ = quad(
            lambda t, a=order, top=top: math.exp(-(t**2) / 2 + a * log_ratio(t) - top),
            -12,
            peaks[-1] + 12,
            points=peaks,
            epsabs=0,
            epsrel=1e-12,
            limit=2000,
        )
        expected = (math.log(moment / math.sqrt(2 * math.pi)) + top) / (order - 1)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-11)


caps = st.floats(0.1, 30)
deltas = st.sampled_from([1e-5, 1e-6, 1e-8])


@given(events.filter(bool), caps, deltas)
@settings(max_examples=60, deadline=None)
def test_a_filter_lies_between_full_composition_and_a_union_over_its_orders(
    found: list[Event], cap: float, delta: float
) -> None:
    filter_ = RenyiFilter.of_cap(cap, delta)
    every = (*np.linspace(1.05, 12, 150), *range(12, 64), *range(64, 1024, 16))
    best = renyi_epsilon(found, every, [delta] * len(every))
    union = renyi_epsilon(found, filter_.orders, [delta * share for share in filter_.shares])
    # The orders of full composition are a grid, on which the best is at most 0.1 % too large.
    assert best * (1 - 1e-3) <= filter_.epsilon(found) <= union * (1 + 1e-9)


@given(caps, deltas)
@settings(max_examples=60, deadline=None)
def test_a_budget_s_orders_are_at_most_eight_and_share_delta(cap: float, delta: float) -> None:
    filter_ = RenyiFilter.of_cap(cap, delta)
    assert 1 <= len(filter_.orders) <= 8
    assert math.fsum(filter_.shares) == pytest.approx(1.0, abs=1e-9)
    assert min(filter_.orders) > 1


@given(events.filter(bool), events)
@settings(max_examples=60, deadline=None)
def test_more_releases_never_cost_less(first: list[Event], more: list[Event]) -> None:
    cost = RenyiFilter(DELTA).epsilon
    assert cost([*first, *more]) >= cost(first) * (1 - 1e-12)


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


GAUSSIAN = [Event(30.0, 1.0, 1)]
SAMPLED = [Event(2.0, 0.1, 1)]
LOW_NOISE = [Event(0.8, 0.01, 1)]
MIXED = [Event(20.0, 1.0, 1), Event(1.1, 0.01, 10), Event(6.0, 0.3, 2)]


@pytest.mark.parametrize(
    ("mix", "cap"),
    [
        *((GAUSSIAN, cap) for cap in (0.5, 1.0, 2.0, 5.0, 8.0, 12.0, 20.0)),
        *((SAMPLED, cap) for cap in (0.5, 1.0, 2.0, 5.0, 8.0, 12.0, 20.0)),
        *((LOW_NOISE, cap) for cap in (4.0, 8.0, 12.0, 20.0)),
        *((MIXED, cap) for cap in (2.0, 5.0, 8.0, 12.0, 20.0)),
    ],
)
def test_a_full_budget_wastes_little_against_renyi_composition(
    mix: list[Event], cap: float
) -> None:
    filter_ = RenyiFilter.of_cap(cap, DELTA)
    one = filter_.total(mix)
    low, high = 0, 10**7
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if filter_.epsilon_of(middle * one) <= cap else (low, middle)
    refused = [Event(e.noise_multiplier, e.sampling_rate, e.count * high) for e in mix]
    every = (*np.linspace(1.05, 12, 150), *range(12, 129))
    found = filter_.epsilon(refused) / renyi_epsilon(refused, every, [DELTA] * len(every))
    assert 1.0 <= found < 1.15


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
    planned = [Event(z[0], 1.0, 1), Event(z[1], 0.05, 200)]
    planned += spares(planned, 2)
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


@pytest.mark.parametrize(("cap", "delta"), [(0.5, 1e-5), (20.0, 1e-5), (1.0, 1e-7), (0.5, 1e-8)])
def test_a_full_budget_wastes_at_most_15_percent_against_renyi_composition(
    cap: float, delta: float
) -> None:
    # Mechanisms without sampling, and some whose divergence explodes just above their best order.
    mechanisms = [(2.0, 1.0), (1.4, 0.0026), (1.3, 0.001), (0.8, 0.02), (0.5, 0.01), (6.0, 0.3)]
    mechanisms += [(1.63, 0.002), (1.1, 0.0019), (1.81, 0.0064)]
    mixes = [[(each, 1.0)] for each in mechanisms]
    mixes += [[(mechanisms[0], 0.3), (each, 0.7)] for each in mechanisms[1:]]
    found = [each for mix in mixes if (each := waste(mix, cap, delta)) is not None]
    assert len(found) >= 6, found
    assert all(0 <= each <= 0.15 for each in found), found


def test_whichever_releases_are_repeated_costs_no_more_than_the_spares_that_were_listed() -> None:
    """The least noise per rate isn't always the dearest: here the rarely sampled step is."""
    rare, whole = Event(0.5, 0.1, 3), Event(4.0, 1.0, 3)
    assert rare.noise_multiplier / rare.sampling_rate > whole.noise_multiplier / whole.sampling_rate
    listed = [rare, whole, *spares([rare, whole], 4)]
    for repeated in range(1, 4):
        mixed = [rare, whole, Event(0.5, 0.1, repeated), Event(4.0, 1.0, 4 - repeated)]
        assert plan_epsilon(mixed, 1e-5) <= plan_epsilon(listed, 1e-5)
    only_whole = [rare, whole, Event(4.0, 1.0, 4)]
    only_rare = [rare, whole, Event(0.5, 0.1, 4)]
    assert plan_epsilon(only_rare, 1e-5) > plan_epsilon(only_whole, 1e-5)


def test_spares_are_listed_once_where_one_mechanism_is_surely_the_dearest() -> None:
    events = [Event(1.0, 0.5, 9), Event(2.0, 0.5, 1), Event(1.0, 0.25, 3), Event(1.0, 0.5, 1)]
    assert spares(events, 2) == (Event(1.0, 0.5, 2),)
    assert spares(events, 0) == ()


def test_the_smallest_delta_that_a_computer_writes_is_accounted() -> None:
    smallest = 5e-324
    filter_ = RenyiFilter.of_cap(1.0, smallest)
    assert 0 < plan_epsilon(PLAN, smallest) <= filter_.epsilon(PLAN) < math.inf
    assert RenyiFilter(smallest).epsilon(PLAN) < math.inf
