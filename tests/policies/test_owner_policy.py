"""The owner's standing rules."""

from pathlib import Path
from typing import Any

import pytest

from policies.accounting import Event
from policies.owner_policy import OwnerPolicy, OwnerPolicyError, PlanFacts


def facts(**changes: Any) -> PlanFacts:
    known: dict[str, Any] = {
        "epsilon": 0.9,
        "delta": 1e-5,
        "releases": 30,
        "noise_multiplier": 4.0,
        "users": 500,
        "public": False,
    }
    return PlanFacts(**(known | changes))


def test_a_plan_within_every_rule_passes() -> None:
    assert OwnerPolicy().check(facts()) == []


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("max_epsilon_per_plan", {"epsilon": 1.1}),
        ("delta", {"delta": 1e-4}),
        ("max_releases", {"releases": 1001}),
        ("min_noise_multiplier", {"noise_multiplier": 0.4}),
        ("min_users", {"users": 99}),
        ("public", {"public": True, "noise_multiplier": 0.0}),
    ],
)
def test_a_plan_beyond_one_rule_is_refused_by_that_rule(rule: str, change: dict[str, Any]) -> None:
    assert [refusal.rule for refusal in OwnerPolicy().check(facts(**change))] == [rule]


def test_every_broken_rule_is_named_and_says_what_was_asked_and_allowed() -> None:
    refusals = OwnerPolicy().check(facts(epsilon=2.5, releases=2000))
    assert [refusal.rule for refusal in refusals] == ["max_releases", "max_epsilon_per_plan"]
    assert "2000" in refusals[0].message
    assert "1000" in refusals[0].message
    assert "2.500" in refusals[1].message
    assert "per domain" in refusals[1].message


def test_one_plan_may_be_limited_below_the_budget() -> None:
    strict = OwnerPolicy(epsilon=8.0, max_epsilon_per_plan=2.0)
    assert [refusal.rule for refusal in strict.check(facts(epsilon=3.0))] == [
        "max_epsilon_per_plan"
    ]


def test_public_data_may_be_asked_without_noise() -> None:
    bare = facts(epsilon=float("inf"), noise_multiplier=0.0, public=True)
    assert OwnerPolicy(public=True).check(bare) == []


def test_facts_follow_from_the_events() -> None:
    found = PlanFacts.of([Event(4.0, 1.0, 10), Event(2.0, 1.0, 3)], 1e-5, 500)
    assert (found.releases, found.noise_multiplier) == (13, 2.0)
    assert found.epsilon == pytest.approx(5.5, rel=0.05)


def test_what_the_file_leaves_out_is_cautious(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("")
    read = OwnerPolicy.read(path)
    assert (read.epsilon, read.delta, read.public) == (1.0, 1e-5, False)


def test_a_policy_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("epsilon = 8\nmin_users = 50\n")
    assert OwnerPolicy.read(path) == OwnerPolicy(epsilon=8.0, min_users=50)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epsilon = -1", "epsilon"),
        ("epsilon = inf", "epsilon"),
        ("epsilon = '8'", "epsilon"),
        ("delta = 0.0", "delta"),
        (
            "epsillon = 8.0",
            "unknown setting 'epsillon'; the nearest is 'epsilon'. Known are epsilon",
        ),
        ("epsilon = ", "isn't TOML"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(OwnerPolicyError, match=said):
        OwnerPolicy.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OwnerPolicyError, match=r"policy\.toml"):
        OwnerPolicy.read(tmp_path / "policy.toml")
