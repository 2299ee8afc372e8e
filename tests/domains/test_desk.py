"""What an owner is told before she decides, and how she changes her standing rules."""

from pathlib import Path

import pytest

from domains.desk import DeskRefused
from policies.canonical import sha256_hex
from policies.plan import Plan
from tests.desks import Desks


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> Desks:
    return Desks.create(tmp_path_factory.mktemp("desks"))


def rules_file(desks: Desks) -> Path:
    return desks.home.domain("north").datasets / "interactions" / "policy.toml"


def test_an_owner_weighs_a_plan_against_every_limit_before_and_after(desks: Desks) -> None:
    plan = desks.plan("weighed", epsilon=2.0)
    desks.submit(plan)
    weighed = desks.north.weigh(plan.hash[:8])
    (budget,) = weighed["limits"]
    assert (budget["rule"], budget["cap"]) == ("budget", 30.0)
    assert budget["before"] == weighed["budget"]["held"]
    assert budget["after"] > budget["before"]
    assert weighed["refusals"] == []
    desks.approve(plan)
    held = desks.north.budgets()[0]["held"]
    assert held == pytest.approx(budget["after"])


def test_the_last_approved_plan_is_named_to_compare_with(desks: Desks) -> None:
    first, second = desks.plan("first", 0.5), desks.plan("second", 0.6)
    desks.submit(first)
    desks.approve(first)
    desks.submit(second)
    assert Plan.from_json(desks.north.weigh(second.hash)["previous"]) == first


def test_partners_approvals_are_shown_once_told_and_only_if_their_owners_signed(
    desks: Desks,
) -> None:
    plan, other = desks.plan("told", 0.4), desks.plan("another", 0.3)
    desks.submit(plan)
    desks.submit(other)
    assert desks.north.weigh(plan.hash)["partners"] == {"east": None, "south": None}
    signed = {name: desks.approve(plan, name) for name in ("east", "south")}
    desks.north.tell(plan, {"east": signed["south"], "south": desks.approve(other, "south")})
    assert desks.north.weigh(plan.hash)["partners"] == {"east": None, "south": None}
    desks.north.tell(plan, signed)
    told = desks.north.weigh(plan.hash)["partners"]
    assert told["east"]["by"] == "owner@east.example"
    assert told["south"]["reason"] == "agreed"


def test_other_rules_are_previewed_on_open_plans_and_written_for_the_next_start(
    desks: Desks,
) -> None:
    plan = desks.plan("previewed", 1.0, releases=4)
    desks.submit(plan)
    shown = desks.north.rules("interactions")
    assert shown["applied"]
    strict = shown["text"] + "max_releases = 3\n"
    found = {each["plan_hash"]: each for each in desks.north.preview_rules("interactions", strict)}
    assert found[plan.hash]["now"] == []
    assert [each["rule"] for each in found[plan.hash]["then"]] == ["max_releases"]
    before = rules_file(desks).read_text()
    assert before == shown["text"]

    digest = desks.north.write_rules("interactions", strict, shown["digest"])
    again = desks.north.rules("interactions")
    assert (again["text"], again["digest"], again["applied"]) == (strict, digest, False)
    assert rules_file(desks).stat().st_mode & 0o777 == 0o600
    with pytest.raises(DeskRefused, match="changed meanwhile"):
        desks.north.write_rules("interactions", before, shown["digest"])
    desks.north.write_rules("interactions", before, digest)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epsilon = -1.0", "epsilon"),
        ("max_release = 3", "nearest is 'max_releases'"),
        ("epsilon = ", "isn't TOML"),
        ("#" * 100_001, "at most 100000 characters"),
    ],
)
def test_rules_that_make_no_sense_are_refused_and_change_nothing(
    desks: Desks, text: str, says: str
) -> None:
    before = rules_file(desks).read_bytes()
    for refused in (
        lambda: desks.north.preview_rules("interactions", text),
        lambda: desks.north.write_rules("interactions", text, sha256_hex(before)),
    ):
        with pytest.raises(DeskRefused, match=says):
            refused()
    assert rules_file(desks).read_bytes() == before
