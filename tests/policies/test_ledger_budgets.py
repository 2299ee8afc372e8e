"""The ledger's budgets: what a plan holds of one, and that none of it is spent twice."""

import math
from pathlib import Path

import pytest

from policies.accounting import Event
from policies.ledger import (
    BudgetExceeded,
    Ledger,
    UnknownPopulation,
)
from tests.policies.one_ledger import (
    COUNT,
    DELTA,
    FILTER,
    ROUND,
    SHARE,
    approve,
    approved,
    open_ledger,
    plan,
    release,
    submit,
)

# Budgets


def test_an_approved_plan_holds_its_whole_cost_until_it_closes(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 5), COUNT, spare_attempts=1)
    whole = FILTER.epsilon([Event(4.0, 1.0, 5), COUNT])
    for index in range(3):
        budget = ledger.budget("shoppers")
        assert budget.held == pytest.approx(whole)
        assert budget.remaining == pytest.approx(8.0 - whole)
        assert budget.spent == pytest.approx(
            FILTER.epsilon([Event(4.0, 1.0, index)] if index else [])
        )
        release(ledger, mine, index)
    ledger.close(mine, "enough")
    budget = ledger.budget("shoppers")
    assert budget.spent == budget.held == FILTER.epsilon([Event(4.0, 1.0, 3)])


def test_the_spare_attempt_is_held_at_the_costliest_and_freed_by_a_cheaper_one(
    ledger: Ledger,
) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 2), COUNT, spare_attempts=1)
    before = ledger.budget("shoppers").held
    ledger.reserve(mine, "count", 0, 0, COUNT)
    ledger.charge(mine, "count", 0, 0, SHARE)
    ledger.reserve(mine, "count", 0, 1, COUNT)
    budget = ledger.budget("shoppers")
    assert budget.held == FILTER.epsilon([ROUND, Event(8.0, 1.0, 2)]) < before


def test_a_plan_that_does_not_fit_beside_the_others_is_not_approved(ledger: Ledger) -> None:
    approved(ledger, 1, Event(4.0, 1.0, 20))
    submit(ledger, plan(2), Event(4.0, 1.0, 20))
    with pytest.raises(BudgetExceeded) as refusal:
        approve(ledger, plan(2))
    assert ledger.status(plan(2)) == "pending"
    ledger.close(plan(1), "not needed")
    approve(ledger, plan(2))
    lines = str(refusal.value).splitlines()
    figures = {line.split()[0]: line.split()[-1] for line in lines[1:4]}
    assert list(figures) == ["Requested", "Remaining", "Short"]
    requested, remaining, short = (round(float(text), 3) for text in figures.values())
    assert short == round(requested - remaining, 3) > 0
    assert requested == pytest.approx(refusal.value.requested, abs=1e-3)
    assert "delta 1e-05" in lines[4]
    assert "add/remove one user with all her interactions, per domain" in lines[4]


def test_room_can_be_asked_for_beforehand(ledger: Ledger) -> None:
    head = ledger.head()
    ledger.require_room("shoppers", [Event(4.0, 1.0, 10)])
    with pytest.raises(BudgetExceeded):
        ledger.require_room("shoppers", [Event(0.5, 1.0, 10)])
    with pytest.raises(UnknownPopulation):
        ledger.require_room("strangers", [ROUND])
    assert ledger.head() == head


def test_no_noise_is_never_within_a_budget(ledger: Ledger) -> None:
    submit(ledger, plan(1), Event(0.0, 1.0, 1))
    with pytest.raises(BudgetExceeded, match="Requested  epsilon infinite"):
        approve(ledger, plan(1))


def test_a_public_population_is_recorded_but_not_limited(ledger: Ledger) -> None:
    ledger.open_budget("film club", 1.0, DELTA, public=True)
    ledger.submit(plan(1), "bare", "s", "film club", [Event(0.0, 1.0, 2)], {})
    approve(ledger, plan(1))
    ledger.reserve(plan(1), "train", 0, 0, Event(0.0, 1.0, 1))
    budget = ledger.budget("film club")
    assert (budget.public, budget.spent, budget.remaining) == (True, math.inf, math.inf)
    assert ledger.budget("shoppers").spent == 0.0


def test_opening_a_budget_again_never_gives_spent_epsilon_back(ledger: Ledger, path: Path) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 5))
    release(ledger, mine, 0)
    spent = ledger.budget("shoppers").spent
    ledger.dispose()
    again = open_ledger(path)  # as a node does that loads next month's data
    again.open_budget("shoppers", 8.0, DELTA)
    assert again.budget("shoppers").spent == spent > 0
    again.open_budget("shoppers", 9.0, DELTA)
    assert (again.budget("shoppers").spent, again.budget("shoppers").epsilon) == (spent, 9.0)
    again.dispose()


def test_a_lowered_cap_stops_running_plans_when_they_reach_it(ledger: Ledger) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 10))
    release(ledger, mine, 0)
    ledger.open_budget("shoppers", FILTER.epsilon([Event(4.0, 1.0, 2)]), DELTA)
    release(ledger, mine, 1)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(mine, "train", 2, 0, ROUND)
    assert ledger.attempts(mine)[-1] == ("train", 1, 0, "charged")
    assert ledger.budget("shoppers").remaining < 0, "the rest of the plan is over the new cap"


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, DELTA), (math.inf, DELTA), (math.nan, DELTA), (1.0, 0.0)]
)
def test_a_budget_is_a_number_and_a_probability(
    ledger: Ledger, epsilon: float, delta: float
) -> None:
    with pytest.raises(ValueError, match="finite epsilon"):
        ledger.open_budget("others", epsilon, delta)


def test_a_plan_needs_a_population_with_a_budget_and_something_to_release(ledger: Ledger) -> None:
    with pytest.raises(UnknownPopulation, match="strangers"):
        ledger.submit(plan(1), "a", "s", "strangers", [ROUND], {})
    with pytest.raises(UnknownPopulation):
        ledger.budget("strangers")
    with pytest.raises(ValueError, match="at least one release"):
        submit(ledger, plan(1), ROUND, spare_attempts=1)
    with pytest.raises(ValueError, match="64 lower-case hex"):
        submit(ledger, "plan", ROUND)
