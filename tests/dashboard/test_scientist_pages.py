"""What a scientist's pages make of the nodes' answers and of what her run wrote down."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import coterie as ct
from dashboard.comparison import curves, outcomes
from dashboard.datasets import agreement, declared, holders, schema, sizes
from dashboard.journal import Record, metrics, phases, read_record, read_records, rounds, traffic
from dashboard.measured import measured
from dashboard.noise import Choice, curve, expected, picture, trial_plan
from dashboard.noise import snippet as quote_snippet
from dashboard.plans import decisions, known, next_step, standing
from dashboard.plans import picture as standing_picture
from dashboard.quote import private_names, verdict, verdicts
from dashboard.run import bars, charged, domains, lines, spending, state_of, stragglers
from network.training import Progress
from policies.accounting import epsilon_at_every_partner, plan_epsilon
from policies.plan import RosterEntry
from tests.policies.test_explanation import PLAN as APPROVED

PLAN = "a" * 64
DOMAINS = ("east", "north")


def card(items: int = 30, *, public: bool = False) -> dict[str, Any]:
    facts = {
        "name": "interactions", "description": "", "population": "shoppers", "users": 100,
        "items": items, "interactions_per_user": 16, "catalogue": "c" * 64, "epsilon": 8.0,
        "delta": 1e-5, "public": public, "columns": ["user", "item", "value"], "values": [1.0, 5.0],
    }  # fmt: skip
    return {"datasets": [facts]}


def plan(status: str, plan_hash: str = PLAN, **more: Any) -> dict[str, Any]:
    return {
        "plan_hash": plan_hash, "name": "counting", "status": status, "reason": "",
        "submitted": "2026-11-28T08:00:00+00:00", "decided": "", "decided_by": "",
        "summary": {"delta": 1e-5}, **more,
    }  # fmt: skip


def release(index: int, **more: Any) -> Progress:
    known: dict[str, Any] = {
        "index": index, "total": 3, "step": "train", "release": index - 1, "attempt": 0,
        "epsilon": 0.5 * index, "metrics": {"HR@10": 0.1 * index}, "seconds": {"share": 0.2},
        "sent": {"east": 1_000_000, "north": 500_000}, "received": {"east": 0, "north": 0},
        "left_out": {"north": "it is down"} if index == 2 else {},
    }  # fmt: skip
    return Progress(**known | more)


def journal(runs: Path, of: str = PLAN, releases: int = 2, **more: Any) -> Path:
    folder = runs / of[:16]
    folder.mkdir(parents=True)
    (folder / "state-00002.safetensors").write_bytes(b"model")
    kept = {
        "plan_hash": of, "state": "state-00002.safetensors", "finished": False,
        "history": [asdict(release(index)) for index in range(1, releases + 1)], **more,
    }  # fmt: skip
    (folder / "journal.json").write_text(json.dumps(kept))
    (folder / "plan.json").write_text(APPROVED.to_json())
    return folder


@pytest.fixture
def record(tmp_path: Path) -> Record:
    journal(tmp_path)
    found = read_record(tmp_path, plan("approved"), {"east", "north"})
    assert found is not None
    return found


def test_declared_sizes_are_upper_bounds_and_a_public_set_is_said_not_to_be_private() -> None:
    frame = declared({"north": card(), "east": card(public=True)})
    assert list(frame["domain"]) == ["east", "north"]
    assert list(frame["privacy"]) == ["declared public: NOT PRIVATE", "private"]
    assert frame["epsilon cap"].isna().tolist() == [True, False]
    assert "users (at most)" in frame
    assert "bar" in json.dumps(sizes(frame).to_dict())


def test_partners_that_declare_different_schemas_are_told_in_what() -> None:
    (agreed,) = agreement({"north": card(), "east": card()}).to_dict("records")
    assert (agreed["users (at most)"], agreed["one schema"]) == (200, "yes")
    (other,) = agreement({"north": card(), "east": card(31)}).to_dict("records")
    assert other["one schema"] == "no, these differ: items"
    assert holders({"north": card(), "east": {"datasets": []}}, "interactions") == ["north"]


def test_a_schema_is_what_the_owner_declared_of_each_column() -> None:
    (facts,) = card()["datasets"]
    assert schema(facts).to_dict("list") == {
        "column": ["user", "item", "value"],
        "what it holds, as declared": [
            "an id; at most 100 users", "an id of the catalogue's 30 items", "a number from 1 to 5",
        ],
    }  # fmt: skip


def choice(**more: Any) -> Choice:
    known: dict[str, Any] = {
        "epsilon": 4.0, "rounds": 12, "clip_norm": 1.0, "sampling_rate": 1.0, "users": 6000,
        "numbers": 480, "domains": 3,
    }  # fmt: skip
    return Choice(**known | more)


def test_expected_noise_is_what_the_plan_of_that_choice_would_add() -> None:
    chosen, data = choice(), ct.DataSet("interactions", 30, 16, 6000, "c" * 64, False)
    roster = [
        RosterEntry(name=n, server_uid=k * 32, node_key=k * 64, owner_key=k * 64)
        for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
    ]
    bound = trial_plan(data, chosen).bind(roster, "0" * 64)
    (step,) = bound.steps
    found = expected(chosen)
    assert found.noise_multiplier == pytest.approx(step.noise_multiplier, rel=1e-2)
    assert found.noise == pytest.approx(found.noise_multiplier * (3 / 2) ** 0.5 / 6000)
    assert found.shared == pytest.approx(480**-0.5)
    assert plan_epsilon(bound.events(), bound.delta) <= 4.0


def test_noise_falls_with_epsilon_and_the_signal_stays() -> None:
    frame = curve(choice())
    noise = frame[frame["what"] == "noise (standard deviation)"]
    size = "size (in units of the contribution)"
    assert noise["epsilon"].is_monotonic_increasing
    assert noise[size].is_monotonic_decreasing
    assert frame[frame["what"] != "noise (standard deviation)"][size].nunique() == 1
    assert "log" in json.dumps(picture(frame, choice()).to_dict())
    assert [verdict(ratio) for ratio in (5.0, 1.0, 0.1)] == ["clear", "faint", "drowned"]


def test_snippets_are_python_without_credentials() -> None:
    written = quote_snippet("interactions", choice())
    compile(written, "snippet", "exec")
    assert "password" not in written
    assert "epsilon=4, delta=1e-05" in written


def test_measured_figures_name_data_plan_seeds_and_command() -> None:
    for found in measured():
        assert found.name
        assert found.seeds >= 1
        assert found.command
        frame = found.frame()
        assert len(frame) == len(found.private) + len(found.baselines)
        assert "none: NOT PRIVATE" in set(frame["epsilon"])
        assert found.picture(4.0).to_dict()


def test_only_data_sets_that_all_declare_as_private_can_be_quoted() -> None:
    assert private_names([card(), card()]) == ["interactions"]
    assert private_names([card(), card(public=True)]) == []
    assert private_names([]) == []


def test_a_partners_answer_says_whether_its_rules_accept_and_what_would_fit() -> None:
    budget = {"remaining": 3.5, "delta": 1e-5}
    yes = {"refusals": [], "advice": [], "offers": [], "budget": budget}
    rule = {"rule": "budget", "message": "Requested 4, remaining 3.5"}
    no = {**yes, "refusals": [rule], "offers": [{"how": "epsilon", "text": "epsilon 3"}]}
    frame = verdicts({"north": yes, "east": no, "south": {**yes, "advice": [rule]}})
    assert frame["answer"].tolist() == ["refuses", "within its rules", "leaves it to the owner"]
    assert frame["what would fit"].tolist() == ["epsilon 3", "", ""]


def test_every_plan_shows_where_it_stands_and_what_comes_next() -> None:
    plans = {
        "north": [plan("approved"), plan("denied", "b" * 64, reason="too dear")],
        "east": [plan("pending")],
    }
    frame = standing(plans, {"south"})
    assert list(known(plans)) == ["b" * 64, PLAN]
    assert frame["east"].tolist() == ["not submitted", "waits for its owner"]
    assert frame["south"].tolist() == ["no answer", "no answer"]
    assert "change it" in frame["what next"][0]
    assert decisions(plans, "b" * 64)["reason"].tolist() == ["too dear"]
    assert standing_picture(frame, ["east", "north", "south"]).to_dict()
    assert standing({}, ()).empty
    for statuses, sentence in (
        (["approved", "approved"], "next_run"),
        (["pending", "approved"], "next_wait"),
        (["closed", "closed"], "next_done"),
        (["approved", "no answer"], "next_submit"),
    ):
        assert next_step(statuses) == sentence


def test_a_run_is_read_only_where_its_journal_names_the_plan(tmp_path: Path) -> None:
    journal(tmp_path, "b" * 64, plan_hash=PLAN)
    (tmp_path / PLAN[:16]).mkdir()
    for plan_hash in ("b" * 64, PLAN, "../../etc", "c" * 64):
        assert read_record(tmp_path, plan("approved", plan_hash), DOMAINS) is None
    assert read_records(None, {"north": [plan("approved")]}) == []


def test_a_run_is_hers_only_if_most_of_its_domains_say_so(tmp_path: Path) -> None:
    journal(tmp_path)
    mine = [plan("approved")]
    (found,) = read_records(tmp_path, {"east": mine, "north": mine})
    assert (found.plan_hash, found.delta) == (PLAN, 1e-5)
    assert read_records(tmp_path, {"east": mine, "north": []}) == []
    assert read_records(tmp_path, {"east": mine, "elsewhere": mine}) == []


def test_a_journal_of_which_nothing_can_be_read_is_no_run(tmp_path: Path) -> None:
    folder = journal(tmp_path)
    for broken in ("", "{", "[]", '{"plan_hash": "' + PLAN + '"}'):
        (folder / "journal.json").write_text(broken)
        assert read_record(tmp_path, plan("approved"), DOMAINS) is None


def test_a_journal_cant_name_a_model_outside_its_folder(tmp_path: Path) -> None:
    folder = journal(tmp_path, state="../../secret")
    found = read_record(tmp_path, plan("approved"), DOMAINS)
    assert found is not None
    assert found.model == folder / "secret"


def test_each_release_shows_epsilon_bytes_seconds_and_metrics(record: Record) -> None:
    first, second = rounds(record).to_dict("records")
    assert (first["epsilon so far"], second["epsilon so far"]) == (0.5, 1.0)
    assert (first["bytes sent"], first["HR@10"]) == (1_500_000, 0.1)
    assert (first["left out"], second["left out"]) == ("", "north")
    assert traffic(record)["MB"].tolist() == [1.0, 0.5, 1.0, 0.5]
    assert phases(record)["seconds"].tolist() == [0.2, 0.2]
    found = metrics([record])
    for drawn in (
        lines(found), spending(rounds(record)), curves(found, "epsilon so far", "HR@10"),
        bars(traffic(record), "domain", "megabytes"), bars(phases(record), "phase", "seconds"),
    ):  # fmt: skip
        assert drawn.to_dict()
    (row,) = outcomes([record]).to_dict("records")
    assert (row["epsilon so far"], row["releases"], row["HR@10"]) == ("1.000", "2 / 3", 0.2)
    twice = [APPROVED.step("train").event(2)]
    bound = epsilon_at_every_partner(twice, APPROVED.delta, len(APPROVED.roster))
    assert row["epsilon for a user of every partner"] == f"{bound:.3f}"


def progress(*attempts: tuple[str, int, int, str], status: str = "approved") -> dict[str, Any]:
    return {"status": status, "reason": "", "attempts": [list(each) for each in attempts]}


def test_a_domain_that_charged_less_than_the_others_is_a_straggler(record: Record) -> None:
    both = {
        "north": progress(("train", 0, 0, "charged"), ("train", 1, 0, "charged")),
        "east": progress(
            ("train", 0, 0, "void"), ("train", 0, 1, "charged"), ("train", 1, 0, "reserved")
        ),
    }
    east, north = domains(both).to_dict("records")
    assert (north["releases charged"], north["behind the others by"]) == (2, 0)
    assert (east["behind the others by"], east["attempts repeated"]) == (1, 1)
    assert (east["attempts open"], east["attempts void"]) == (1, 1)
    assert stragglers(both) == ["east"]
    assert charged(both["east"]) == {("train", 0)}
    assert state_of(both, record) == "running"
    assert state_of({"north": progress()}, None) == "waiting"
    assert state_of({"north": progress(status="closed")}, None) == "ended"
    assert domains({}).empty
    assert stragglers({}) == []
