"""Narrower limits stand beside the budget's guarantee and never touch it."""

from policies.accounting import Event, RenyiFilter
from policies.ledger import Commitment
from policies.limits import limits_of
from policies.owner_policy import OwnerPolicy

BUDGET = RenyiFilter.of_cap(8.0, 1e-5)
PAST = (Commitment("a" * 64, "ada", "sales", False, "2026-01-01", (Event(9.0, 0.1, 30),), 3),)


def limits(own: float) -> dict[str, RenyiFilter]:
    policy = OwnerPolicy(epsilon=8.0, delta=1e-5, max_epsilon_per_scientist=own)
    found = limits_of(policy, PAST, "people", "ada", "sales", BUDGET)
    return {limit.rule: limit.accountant for limit in found}


def test_the_budgets_filter_is_the_recorded_one_whatever_the_narrower_caps() -> None:
    before, after = limits(1.0), limits(2.0)
    assert before["budget"] == after["budget"] == BUDGET


def test_a_narrower_limit_has_the_filter_of_its_cap() -> None:
    for own in (1.0, 2.0):
        assert limits(own)["max_epsilon_per_scientist"] == RenyiFilter.of_cap(own, 1e-5)


def test_what_a_narrower_limit_lets_through_must_fit_the_budget_too() -> None:
    policy = OwnerPolicy(epsilon=1.0, delta=1e-5, max_epsilon_per_scientist=1.0)
    found = limits_of(policy, PAST, "people", "ada", "sales", RenyiFilter.of_cap(1.0, 1e-5))
    dear = [Event(1.0, 1.0, 5)]
    assert {limit.rule for limit in found if limit.check(dear) is not None} == {
        "budget",
        "max_epsilon_per_scientist",
    }
