"""The owner's standing rules."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policies.accounting import Event, RenyiFilter
from policies.ledger import Commitment
from policies.limits import limits_of
from policies.owner_policy import OfficeHours, OwnerPolicy, OwnerPolicyError, PlanFacts


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
    (refusal,) = strict.check(facts(epsilon=3.0))
    assert refusal.rule == "max_epsilon_per_plan"
    assert refusal.message.splitlines()[1:] == [
        "Requested  epsilon 3.000",
        "Remaining  epsilon 2.000",
        "Short by   epsilon 1.000",
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
    path.write_bytes(b"\xef\xbb\xbfepsilon = 8\r\nmin_users = 50\r\n")
    assert OwnerPolicy.read(path) == OwnerPolicy(epsilon=8.0, min_users=50), "as some editors write"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epsilon = -1", "epsilon"),
        ("epsilon = inf", "epsilon"),
        ("epsilon = '8'", "epsilon"),
        ("delta = 0.0", "delta"),
        (
            "epsillon = 8.0",
            "unknown setting 'epsillon'; the nearest is 'epsilon'",
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_relases = 3", "the nearest is 'max_releases'"),
        ("office_hours = { open = 09:00:00 }", "the nearest is 'opens'"),
        ("office_hours = { opens = 18:00:00 }", "must be later"),
        ("office_hours = { zone = 'Europa/Berlin' }", "not a time zone"),
        ("allowed_operations = ['aten.mull']", "the nearest is 'aten.mul'"),
        ("advisory = ['budget']", "advisory"),
        ("second_approvers = ['abc']", "second_approvers"),
        ("period_days = 10000000000", "period_days"),
        ("renewal_days = 90", "a budget is spent for good"),
        ("budget = { renews = 'quarterly' }", "unknown setting 'budget'"),
        ("epsilon = 1.0\nepsilon = 9.0", "isn't TOML"),
    ],
)
def test_a_bad_rule_is_named_with_the_nearest_valid_name(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(OwnerPolicyError, match=said):
        OwnerPolicy.read(path)


def test_only_listed_operations_and_models_pass() -> None:
    narrow = OwnerPolicy(
        allowed_operations=("aten.mul", "aten.sum.default"), allowed_models=("a" * 64,)
    )
    fine = facts(
        operations=frozenset({"aten.mul.Tensor", "aten.sum.default", "getitem"}), model="a" * 64
    )
    assert narrow.check(fine) == []
    other = facts(operations=frozenset({"aten.exp.default"}), model="b" * 64)
    broken = narrow.check(other)
    assert [refusal.rule for refusal in broken] == ["allowed_operations", "allowed_models"]
    assert "aten.exp.default" in broken[0].message


def test_an_advisory_rule_warns_instead_of_deciding() -> None:
    policy = OwnerPolicy(max_releases=5, advisory=("max_releases",))
    [broken] = policy.check(facts())
    assert not policy.decides(broken)


def test_the_office_s_day_and_hour_are_those_of_its_zone_in_summer_and_winter() -> None:
    auckland = OfficeHours(days=("mon",), zone="Pacific/Auckland")
    assert auckland.open_at(datetime(2026, 6, 28, 22, 0, tzinfo=UTC)), "Sunday in UTC"
    assert not auckland.open_at(datetime(2026, 6, 29, 22, 0, tzinfo=UTC)), "Tuesday there"
    berlin = OfficeHours(zone="Europe/Berlin")
    assert berlin.open_at(datetime(2026, 7, 1, 7, 30, tzinfo=UTC)), "half past nine in summer"
    assert not berlin.open_at(datetime(2026, 12, 1, 7, 30, tzinfo=UTC)), "half past eight in winter"


def test_the_office_is_open_on_its_days_in_its_zone() -> None:
    policy = OwnerPolicy(office_hours=OfficeHours(zone="Europe/Berlin"))
    assert policy.closed(datetime(2026, 11, 24, 8, 30, tzinfo=UTC)) is None
    for moment in (
        datetime(2026, 11, 24, 16, 0, tzinfo=UTC),
        datetime(2026, 11, 22, 12, tzinfo=UTC),
    ):
        closed = policy.closed(moment)
        assert closed is not None
        assert closed.rule == "office_hours"


DELTA = 1e-5
PAST = (
    Commitment(
        "1" * 64, "ada", "clicks", False, "2026-01-01T00:00:00+00:00", (Event(8.0, 1.0, 4),)
    ),
    Commitment("2" * 64, "bob", "clicks", True, "2026-01-01T00:00:00+00:00", (Event(8.0, 1.0, 4),)),
    Commitment("3" * 64, "ada", "views", False, "2026-11-20T00:00:00+00:00", (Event(8.0, 1.0, 4),)),
)


@pytest.mark.parametrize(
    ("rule", "counted"),
    [
        ("max_epsilon_per_scientist", (0, 2)),
        ("max_epsilon_per_dataset", (0, 1)),
        ("max_epsilon_per_period", (1, 2)),
    ],
)
def test_a_limit_counts_what_it_is_about(rule: str, counted: tuple[int, ...]) -> None:
    policy = OwnerPolicy(epsilon=50.0).model_copy(update={rule: 2.0})
    now = datetime(2026, 11, 24, tzinfo=UTC)
    accountant = RenyiFilter.of_cap(policy.epsilon, policy.delta)
    [whole, part] = limits_of(policy, PAST, "people", "ada", "clicks", accountant, now)
    assert (whole.rule, part.rule) == ("budget", rule)
    assert whole.accountant == accountant
    filter_ = RenyiFilter.of_cap(2.0, policy.delta)
    held = filter_.epsilon(event for i in counted for event in PAST[i].events)
    assert part.remaining == pytest.approx(2.0 - held, abs=1e-12)
    refusal = part.check([Event(4.0, 1.0, 4)])
    assert refusal is not None
    for line in ("Requested  epsilon", "Remaining  epsilon", "Short by   epsilon", "per domain"):
        assert line in refusal.message
    assert part.check([Event(500.0, 1.0, 1)]) is None


def test_only_a_dealer_that_the_owner_lists_deals_triples() -> None:
    plan, listed = facts(dealer="d" * 64), OwnerPolicy(dealers=("d" * 64,))
    assert [each.rule for each in OwnerPolicy().check(plan)] == ["dealers"]
    assert listed.check(plan) == []
    assert [each.rule for each in listed.check(facts(dealer="e" * 64))] == ["dealers"]
