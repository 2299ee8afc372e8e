"""Decisions on real nodes: revoked, withdrawn, expired, in advance, by two at once, by prefix."""

import json
import threading
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner

import coterie as ct
from coterie.cli import app
from coterie.owner import Owner
from coterie.partners import invite, open_owner, start_domain, stop_domain
from network.client import NodeRefused, log_in
from network.federation import read_accounts
from network.training import Progress
from policies.approvals import create_owner_key, owner_key_hex
from policies.owner_policy import DAYS
from policies.verify import verify
from tests.network_of_three import NAMES, Network, counting_plan

pytestmark = pytest.mark.nodes


def test_revoked_in_the_middle_of_a_run_the_next_round_does_not_happen(
    network: Network, tmp_path: Path
) -> None:
    plan = counting_plan(network.federation.data("interactions"), "revoked", 0.5)
    plan_hash = network.submit_and_approve(plan)
    south = open_owner(network.home, "south", with_key=False)

    def revoke(progress: Progress) -> None:
        if progress.index == 1:
            assert south.revoke(plan_hash[:8], "contract ended") == "closed"

    with pytest.raises(ct.RunInterrupted, match=r"revoked by owner@south.*contract ended"):
        network.federation.train(plan, tmp_path, revoke)
    for name in NAMES:
        assert network.charged(name, plan_hash) == [("count", 0, 0)]
        assert verify(network.home.domain(name).ledger_file).ok
    with pytest.raises(ct.RunInterrupted, match="contract ended"):
        network.federation.train(plan, tmp_path)


def test_an_approval_expires_everywhere(network: Network, tmp_path: Path) -> None:
    plan = counting_plan(network.federation.data("interactions"), "expires", 0.3)
    network.federation.submit(plan)
    plan_hash = network.federation.bind(plan).hash
    for name in NAMES:
        owner = open_owner(network.home, name)
        if name == "south":
            with pytest.raises(NodeRefused, match="must hold for at most 365 days, and still now"):
                owner.approve(plan_hash, "too late", days=-1)
            with pytest.raises(NodeRefused, match="at most 365 days"):
                owner.approve(plan_hash, "too long", days=400)
        else:
            owner.approve(plan_hash, "agreed")
    with pytest.raises(ct.NotApproved, match="south pending"):
        network.federation.train(plan, tmp_path)


def test_a_scientist_withdraws_her_plan_by_its_prefix(network: Network) -> None:
    plan = counting_plan(network.federation.data("interactions"), "withdrawn", 0.3)
    plan_hash = network.submit_and_approve(plan)
    assert set(network.federation.withdraw(plan_hash[:10], "a mistake").values()) == {"closed"}
    reasons = {s["reason"] for s in network.federation.status(plan_hash[:10]).values()}
    assert reasons == {"withdrawn by ada@university.example: a mistake"}
    with pytest.raises(NodeRefused, match="at least 6 characters"):
        network.federation.status(plan_hash[:5])
    with pytest.raises(NodeRefused, match="closed already"):
        open_owner(network.home, "east").approve(plan_hash)


def test_of_two_who_decide_at_once_one_wins(network: Network) -> None:
    plan = counting_plan(network.federation.data("interactions"), "a race", 0.2)
    network.federation.submit(plan)
    plan_hash = network.federation.bind(plan).hash
    tabs: list[Owner] = [open_owner(network.home, "north") for _ in range(4)]
    start, won, lost = threading.Barrier(4), list[str](), list[str]()

    def decide(number: int) -> None:
        start.wait()
        try:
            done = tabs[number].approve if number % 2 else tabs[number].deny
            won.append(done(plan_hash, f"tab {number}"))
        except NodeRefused as refused:
            lost.append(str(refused))

    threads = [threading.Thread(target=decide, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 3)
    assert all("already, decided by owner@north" in text for text in lost)


def test_a_repetition_within_an_envelope_needs_no_key_on_the_node(
    network: Network, tmp_path: Path
) -> None:
    plan = counting_plan(network.federation.data("interactions"), "seed 1", 0.2, releases=1)
    plan_hash = network.submit_and_approve(plan)
    for name in NAMES:
        owner = open_owner(network.home, name)
        owner.preapprove(owner.envelope(plan_hash[:12], plans=1, days=7, reason="seeds"))
    again = counting_plan(network.federation.data("interactions"), "seed 2", 0.2, releases=1)
    answers = network.federation.submit(again)
    assert {a["status"] for a in answers.values()} == {"approved"}, answers
    assert network.federation.train(again, tmp_path).finished
    third = counting_plan(network.federation.data("interactions"), "seed 3", 0.2, releases=1)
    assert {a["status"] for a in network.federation.submit(third).values()} == {"pending"}
    shown = open_owner(network.home, "east").show(network.federation.bind(third).hash)
    assert "What changed since counting" in shown["explanation"]
    assert verify(network.home.domain("east").ledger_file).ok


def test_an_auditor_reads_a_pending_plan(network: Network, tmp_path: Path) -> None:
    plan = counting_plan(network.federation.data("interactions"), "to audit", 0.2)
    network.federation.submit(plan)
    invite(network.home, "east", "olga@audit.example", "auditor", tmp_path / "olga.json")
    account = read_accounts(tmp_path / "olga.json")["east"]
    node = log_in(account.url, account.email, account.password)
    shown = node.call("plan", plan_hash=network.federation.bind(plan).hash[:6])
    assert "What leaves, noised" in shown


def test_a_refusal_offers_plans_that_fit(network: Network) -> None:
    plan = counting_plan(network.federation.data("interactions"), "too dear by far", 40.0)
    answer = network.federation.quote(plan)[
        "west" if "west" in network.federation.nodes else "east"
    ]
    message = answer["refusals"][-1]["message"]
    for line in (
        "Requested  epsilon",
        "Remaining  epsilon",
        "Short by   epsilon",
        "A plan that fits:",
    ):
        assert line in message
    assert {offer["how"] for offer in answer["offers"]} >= {"more noise"}


def test_rules_are_previewed_signed_and_applied_by_commands(
    network: Network, tmp_path: Path
) -> None:
    file = network.home.domain("north").datasets / "interactions" / "policy.toml"
    before, changed = tmp_path / "before.toml", tmp_path / "policy.toml"
    before.write_text(file.read_text())
    changed.write_text(f"# fewer from now on\n{before.read_text()}\nmax_releases = 1\n")
    where = ("--domain", "north", "--data", "interactions", "--home", str(network.home.path))
    plan = counting_plan(network.federation.data("interactions"), "previewed", 0.2)
    network.federation.submit(plan)

    def said(*words: str) -> str:
        return CliRunner().invoke(app, ["rules", *words, *where]).output

    plan_hash = network.federation.bind(plan).hash
    (found,) = [
        each
        for each in json.loads(said("preview", str(changed), "--json"))
        if each["plan_hash"] == plan_hash
    ]
    assert found["now"] == []
    assert [each["rule"] for each in found["then"]] == ["max_releases"]
    signature = said("sign", str(changed), "--reason", "fewer").strip()
    assert file.read_text() == before.read_text()
    north = open_owner(network.home, "north", with_key=False)
    assert north.write_rules("interactions", changed.read_text(), signature)["applied"]
    with pytest.raises(NodeRefused, match="max_releases"):
        open_owner(network.home, "north").approve(plan_hash, "agreed")
    assert "max_releases: 1 -> 1000" in said("write", str(before), "--reason", "as it was")
    rules = json.loads(said("show", "--json"))
    assert (rules["text"], rules["applied"]) == (before.read_text(), True)
    assert [each["reason"] for each in rules["history"][:2]] == ["as it was", "fewer"]
    assert verify(network.home.domain("north").ledger_file).ok


def test_an_approval_that_expires_in_the_middle_of_a_run_ends_it(
    network: Network, tmp_path: Path
) -> None:
    data = network.federation.data("interactions")
    plan = counting_plan(data, "runs out", 0.5, releases=3)
    network.federation.submit(plan)
    plan_hash = network.federation.bind(plan).hash
    for name in NAMES[:-1]:
        open_owner(network.home, name).approve(plan_hash, "agreed")
    last = open_owner(network.home, NAMES[-1])
    assert last.approve(plan_hash, "for a moment", days=6 / 86_400) == "approved"
    over = datetime.now(UTC) + timedelta(seconds=6)

    def until_it_is_over(_: object) -> None:
        while datetime.now(UTC) < over:
            threading.Event().wait((over - datetime.now(UTC)).total_seconds())

    with pytest.raises((ct.RunInterrupted, ct.NotApproved), match="expired"):
        network.federation.train(plan, tmp_path, until_it_is_over)
    for name in NAMES:
        assert len(network.charged(name, plan_hash)) <= 1
        assert verify(network.home.domain(name).ledger_file).ok


def test_two_persons_agree_within_office_hours_or_nothing_runs(
    network: Network, tmp_path: Path
) -> None:
    data = network.federation.data("interactions")
    plan = counting_plan(data, "by two", 0.2, releases=1)
    second = create_owner_key(tmp_path / "second.pem", None)
    closed = {"days": [DAYS[(datetime.now(UTC).weekday() + 3) % 7]]}
    file = network.home.domain("south").datasets / "interactions" / "policy.toml"
    lying = file.read_bytes()
    rules = tomllib.loads(lying.decode()) | {"second_approvers": [owner_key_hex(second)]}
    try:
        restart(network, "south", file, tomli_w.dumps(rules | {"office_hours": closed}).encode())
        network.federation.submit(plan)
        plan_hash = network.federation.bind(plan).hash
        for name in ("east", "north"):
            open_owner(network.home, name).approve(plan_hash, "agreed")
        with pytest.raises(NodeRefused, match="office_hours: Approvals are taken"):
            open_owner(network.home, "south").approve(plan_hash, "at night")
        restart(network, "south", file, tomli_w.dumps(rules).encode())
        one = open_owner(network.home, "south")
        assert one.approve(plan_hash, "agreed") == "awaiting signature"
        with pytest.raises(ct.NotApproved, match="south awaiting signature"):
            network.federation.train(plan, tmp_path)
        assert replace(one, key=second).approve(plan_hash, "agreed, too") == "approved"
        assert network.federation.train(plan, tmp_path).finished
    finally:
        restart(network, "south", file, lying)
    assert verify(network.home.domain("south").ledger_file).ok


def restart(network: Network, name: str, file: Path, rules: bytes) -> None:
    """Start a node again under other rules."""
    stop_domain(network.home, name)
    file.write_bytes(rules)
    start_domain(network.home, name, None)
    network.connect()
