"""What the owner's pages make of the node's answers: rows, charts, graphs and rules."""

import json
import re
import shlex
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dashboard.budgets import budget_rows, burn_down, daily_rate, spend_rows
from dashboard.changed import marked, source_diff
from dashboard.computation import MOST_DRAWN, dot_of, graphs_of, norms_of, reasons
from dashboard.costs import bar
from dashboard.deciding import Case, signing_command
from dashboard.policy import affected, difference, explained, history, with_figures
from dashboard.request import at_a_glance, cost_rows, leaving, partner_rows
from dashboard.requests import decided, queue, waited
from dashboard.rules import PLATFORM, why
from dashboard.signing import shell
from dashboard.texts import catalogue
from dashboard.told import in_language
from policies.accounting import ADJACENCY, plan_epsilon
from policies.changes import changes
from policies.nearest import nearest_plans
from policies.owner_policy import OwnerPolicy, OwnerPolicyError
from policies.plan import Plan
from policies.pseudo_code import pseudo_code
from policies.rehearsal import rehearse
from tests.dashboard.visiting import said_in_chinese
from tests.desks import ACCOUNT, Desks
from tests.network_of_three import ITEMS

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> Desks:
    """One approved plan, and two that wait."""
    found = Desks.create(tmp_path_factory.mktemp("desks"))
    first = found.plan("first", 0.5)
    found.submit(first)
    found.approve(first)
    for purpose, epsilon in (("second", 0.7), ("third", 0.9)):
        found.submit(found.plan(purpose, epsilon))
    return found


def answered(value: Any) -> Any:
    """As it comes back from a node: JSON values only."""
    return json.loads(json.dumps(value))


def case(desks: Desks, plan: Plan) -> Case:
    weighed = answered(desks.north.weigh(plan.hash))
    shown = answered(desks.north.show(plan.hash, None))
    previous = Plan.from_json(weighed["previous"]) if weighed["previous"] else None
    return Case(plan, shown, weighed, previous)


def test_the_queue_shows_what_waits_longest_first(desks: Desks) -> None:
    plans = answered(desks.north.plans(None))
    waiting = [plan for plan in plans if plan["status"] == "pending"]
    waiting[0]["submitted"] = (NOW - timedelta(days=3, hours=1)).isoformat()
    waiting[1]["submitted"] = (NOW - timedelta(hours=2)).isoformat()
    rows = queue(plans, {ACCOUNT: "ada@university.example"}, NOW)
    assert list(rows["plan"]) == [waiting[0]["plan_hash"], waiting[1]["plan_hash"]]
    assert list(rows["waits"]) == ["waits 3 d", "waits 2 h"]
    assert set(rows["who"]) == {"ada@university.example"}
    by_hash = {p["plan_hash"]: desks.north.plan(p["plan_hash"], None) for p in waiting}
    for row in rows.to_dict("records"):
        plan = by_hash[row["plan"]]
        assert plan is not None
        assert row["epsilon"] == pytest.approx(plan_epsilon(plan.events(), plan.delta))
    assert [row["status"] for row in decided(plans, {}).to_dict("records")] == ["approved"]
    assert waited(NOW.isoformat(), NOW) == "came just now"


def test_the_cost_bar_adds_up_to_the_cap_and_the_confirmation_repeats_it(desks: Desks) -> None:
    found = case(desks, desks.plan("second", 0.7))
    rows = cost_rows(found)
    assert list(rows["part"]) == ["spent", "promised", "this plan", "left"]
    assert rows["epsilon"].sum() == pytest.approx(30.0)
    assert bar(rows).to_dict()["mark"]["type"] == "bar"
    asked = rows.loc[rows["part"] == "this plan", "epsilon"].item()
    assert f"takes epsilon {asked:.3f} of the budget" in found.cost()
    assert ADJACENCY in found.cost()
    (limit,) = found.weighed["limits"]
    assert limit["everywhere_after"] > limit["everywhere_before"] > 0
    assert f"at every partner, {limit['everywhere_after']:.3f} after" in found.cost()


def test_changes_are_marked_as_what_was_and_what_is(desks: Desks) -> None:
    before, after = desks.plan("first", 0.5), desks.plan("second", 0.7)
    lines = marked(before, after)
    assert lines[:2] == ["- purpose: first", "+ purpose: second"]
    assert lines[2].startswith("- step count: noise multiplier: ")
    assert lines[3].startswith("+ step count: noise multiplier: ")
    posing = after.model_copy(update={"purpose": "second -> third"})
    assert marked(posing, after)[:2] == ["- purpose: second -> third", "+ purpose: second"]
    assert {line[0] for line in lines} <= {"+", "-"}
    assert source_diff(before, after) == ""
    (step,) = after.steps
    other = step.model_copy(update={"source": step.source + "\nx = '\u202etxt'"})
    changed = source_diff(before, after.model_copy(update={"steps": (other,)}))
    assert "+x = '\\u202etxt'" in changed.splitlines()


def test_the_graph_is_drawn_and_every_operation_has_its_reason(desks: Desks) -> None:
    plan = desks.plan("second", 0.7)
    graphs = graphs_of(plan)
    assert set(graphs) == {"count", "memory", "scores"}
    drawn = dot_of(graphs["count"])
    for node in graphs["count"].nodes:
        assert f'"{node.name}"' in drawn
    assert "leaves, clipped and noised" in drawn
    rows = reasons(graphs["count"], pseudo_code(graphs["count"]))
    assert len(rows) == len(graphs["count"].nodes) < MOST_DRAWN
    assert rows["why it is safe"].str.len().min() > 10


def test_what_leaves_is_a_row_for_each_step_with_its_noise(desks: Desks) -> None:
    plan = desks.plan("second", 0.7)
    (row,) = leaving(plan.steps).to_dict("records")
    assert (row["tensors"], row["numbers"], row["releases"]) == (f"counts [{ITEMS}]", ITEMS, 3)
    assert row["noise (standard deviation)"] == pytest.approx(4.0 * row["noise multiplier"])
    (rehearsed,) = rehearse(plan, ITEMS)
    assert list(norms_of(rehearsed)["clip norm"].unique()) == [4.0]


def test_partners_that_nothing_is_known_of_are_said_so(desks: Desks) -> None:
    rows = partner_rows(desks.north.weigh(desks.plan("second", 0.7).hash)["partners"])
    assert list(rows["decision"]) == ["not told yet", "not told yet"]


def test_a_request_says_at_a_glance_what_is_new_broken_and_decided(desks: Desks) -> None:
    found = case(desks, desks.plan("second", 0.7))
    assert at_a_glance(found) == [
        "Changes in meaning since the last approved version: 2; same source.",
        "No rule of yours is broken.",
        "Partners: 0 of 2 approved, as far as told.",
    ]
    told = {"status": "denied", "by": "", "reason": "", "signed": "", "expires": ""}
    weighed = found.weighed | {
        "refusals": [{"rule": "min_users", "message": "too few"}],
        "partners": {"east": told, "south": told | {"status": "approved"}},
    }
    lines = at_a_glance(replace(found, weighed=weighed, previous=None))
    assert lines[0].startswith("New: nothing was approved before")
    assert lines[1:] == [
        "Breaks rules of yours: min_users.",
        "Partners: 1 of 2 approved, as far as told.",
        "Not approved by: east.",
    ]
    rows = partner_rows(weighed["partners"])
    assert list(rows["decision"]) == ["denied", "approved"]


def test_the_command_for_a_detached_signature_is_safe_to_paste() -> None:
    reason = "it's $(rm -rf ~)"
    command = shell(*signing_command("ab" * 32, "north", reason, 30))
    assert command.endswith("""--reason 'it'"'"'s $(rm -rf ~)'""")
    assert shlex.split(command) == [
        "coterie", "requests", "sign", "ab" * 8, "--domain", "north", "--days", "30",
        "--reason", reason,
    ]  # fmt: skip


def test_a_burn_down_ends_today_and_its_forecast_goes_on_at_the_rate_of_30_days() -> None:
    today = date(2026, 11, 28)
    days = [
        {"key": "2026-09-01", "cumulative": 1.0},
        {"key": "2026-11-18", "cumulative": 4.0},
    ]
    assert daily_rate(days, today) == pytest.approx(0.1)
    rows = burn_down(days, {"epsilon": 10.0}, today)
    measured = rows[rows["what"] == "measured"]
    assert list(measured["left"]) == [10.0, 9.0, 6.0, 6.0]
    last = rows.iloc[-1]
    assert (last["what"], last["left"], last["day"].date()) == ("forecast", 0.0, date(2027, 1, 27))
    assert burn_down([], {"epsilon": 10.0}, today).empty
    assert daily_rate([], today) == 0.0


def test_budgets_and_spends_keep_their_delta(desks: Desks) -> None:
    (row,) = budget_rows(answered(desks.north.budgets()), {"north-interactions": "interactions"})\
        .to_dict("records")  # fmt: skip
    assert (row["data sets"], row["epsilon cap"], row["delta"]) == ("interactions", 30.0, "1e-05")
    spends = [
        {"key": ACCOUNT, "epsilon": 1.0, "delta": 1e-5, "releases": 3, "held": 2.0,
         "everywhere": 3.0, "facts": None, "population": "p"}
    ]  # fmt: skip
    (row,) = spend_rows(spends, "scientist", {ACCOUNT: "ada"}).to_dict("records")
    assert (row["scientist"], row["delta"]) == ("ada", "1e-05")


def test_every_rule_and_every_check_is_explained() -> None:
    for name in OwnerPolicy.model_fields:
        assert why(name) == catalogue("en")[f"rules.{name}"]
    for name in PLATFORM:
        assert "no owner can switch off" in why(name)


def test_every_rule_of_a_file_is_shown_with_its_value_and_what_it_does() -> None:
    rows = explained('epsilon = 8.0\nadvisory = ["max_releases"]\n').set_index("rule")
    assert set(rows.index) == set(OwnerPolicy.model_fields)
    assert list(rows.loc["epsilon", ["value", "said by"]]) == ["8", "your file"]
    assert list(rows.loc["max_releases", ["said by", "advises only"]]) == ["default", "yes"]
    assert rows.loc["max_epsilon_per_plan", "value"] == "no limit"


def test_the_form_writes_what_was_changed_and_keeps_lists() -> None:
    before = 'epsilon = 8.0\nadvisory = ["max_releases"]\nmax_epsilon_per_plan = 2.0\n'
    after = with_figures(
        before, {"epsilon": 4.0, "max_epsilon_per_plan": None, "min_users": 100, "max_releases": 5}
    )
    policy = OwnerPolicy.parse(after)
    assert (policy.epsilon, policy.max_epsilon_per_plan, policy.max_releases) == (4.0, None, 5)
    assert policy.advisory == ("max_releases",)
    assert "min_users" not in after


def test_the_form_keeps_every_other_letter_of_the_file() -> None:
    before = (
        "# Agreed with the board in June.\n"
        'epsilon   = 8.0  # never above 10; see "minutes"\n'
        "\n"
        "  max_releases=60# and not more\n"
        "# max_epsilon_per_plan = 0.5\n"
        "[office_hours]\n"
        'zone = "Europe/Berlin"  # ours\n'
    )
    after = with_figures(
        before, {"epsilon": 9.5, "max_releases": 30, "max_epsilon_per_plan": 2.0, "min_users": 7}
    )
    assert after == (
        "# Agreed with the board in June.\n"
        'epsilon   = 9.5  # never above 10; see "minutes"\n'
        "\n"
        "  max_releases=30# and not more\n"
        "# max_epsilon_per_plan = 0.5\n"
        "max_epsilon_per_plan = 2.0\n"
        "min_users = 7\n"
        "[office_hours]\n"
        'zone = "Europe/Berlin"  # ours\n'
    )
    assert with_figures(before, {"epsilon": 8.0, "max_releases": 60}) == before
    without = with_figures(before, {"max_releases": None})
    assert without == before.replace("  max_releases=60# and not more\n", "")
    assert with_figures("epsilon = 1.0", {"min_users": 3}) == "epsilon = 1.0\nmin_users = 3\n"


def test_a_file_that_the_form_cannot_change_is_left_to_its_owner() -> None:
    odd = 'advisory = [\n"""\nmax_releases = 3\n""",\n]\nmax_releases = 5\n'
    with pytest.raises(OwnerPolicyError, match="as text"):
        with_figures(odd, {"max_releases": 4})


def test_a_change_of_rules_is_shown_as_lines_and_told_with_who_and_why() -> None:
    assert difference("a = 1\nb = 2\n", "a = 1\nb = 3\n").splitlines()[1:] == [
        " a = 1", "-b = 2", "+b = 3"
    ]  # fmt: skip
    (row,) = history(
        [{"time": "2026-11-28T11:00:00+00:00", "by": "", "reason": "changed on the machine",
          "changes": [["epsilon", "8", "9"], ["public", "false", "true"]], "owner_key": ""}]
    ).to_dict("records")  # fmt: skip
    assert row["what changed"] == "epsilon from 8 to 9; public from false to true"
    assert row["by"] == "somebody on the node's machine"


def test_only_plans_that_other_rules_judge_otherwise_are_listed(desks: Desks) -> None:
    text = Path(desks.north.dataset("interactions").policy_file).read_text()
    found = answered(desks.north.preview_rules("interactions", text + "max_releases = 1\n"))
    rows = affected(found)
    assert set(rows["rules broken then"]) == {"max_releases"}
    assert set(rows["rules broken now"]) == {"–"}
    assert affected(answered(desks.north.preview_rules("interactions", text))).empty


def test_what_would_fit_is_offered_in_the_readers_language(desks: Desks) -> None:
    plan = desks.plan("offered", 5.0)
    offers = nearest_plans(plan, lambda other: other.steps[0].noise_multiplier > 50)
    offers += nearest_plans(plan, lambda other: other.steps[0].releases < 2)
    assert {offer.how for offer in offers} == {"more noise", "fewer releases"}
    joined = "A plan that fits: " + "; or ".join(offer.text for offer in offers)
    said_in_chinese([joined], lambda line: in_language(line, "zh"))
    assert not re.search("[a-z]{4}", in_language(joined, "zh").replace("count", ""))


def test_changes_between_plans_are_named_in_the_readers_language(
    desks: Desks, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = desks.plan("first", 0.5), desks.plan("step a: removed", 0.7)
    (step,) = after.steps
    other = step.model_copy(update={"name": "more", "clip_norm": 9.0, "releases": 2})
    after = after.model_copy(
        update={"steps": (step.model_copy(update={"clip_norm": 9.0}), other), "spare_attempts": 7,
                "roster": after.roster[:2], "memory": None}
    )  # fmt: skip
    monkeypatch.setattr("dashboard.told.language", lambda: "zh")
    lines = marked(before, after)
    assert len(lines) >= len(changes(before, after)) > 5
    assert "+ 目的：step a: removed" in lines
    assert "- 步骤 count：裁剪范数：4.0" in lines
    assert "! 步骤 more：新增" in lines
    for line in lines:
        assert re.search("[\u4e00-\u9fff]", line), line
