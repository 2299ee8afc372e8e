"""An auditor looks at all partners through the hub: everything they decided, none of their data."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

import coterie as ct
from coterie.cli import app
from coterie.exit_codes import ExitCode
from coterie.home import Home
from coterie.hub import start_hub, stop_hub
from coterie.partners import card_of, invite, open_owner, start_domain, stop_domain
from coterie.processes import free_ports
from domains.paths import _OWNER_PATHS, PATHS
from network.client import NodeClient, NodeRefused
from network.federation import read_accounts
from network.hub import admit_member, announce
from policies.accounting import ADJACENCY
from tests.network_of_three import NAMES, Network, counting_plan

pytestmark = pytest.mark.nodes


@pytest.fixture(scope="module")
def hub(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = Home(tmp_path_factory.mktemp("hub"))
    url = start_hub(home, "127.0.0.1", free_ports(1)[0])
    for name in NAMES:
        card = card_of(network.home.domain(name))
        admit_member(home.hub, name, card.node_key)
        announce(url, card)
    yield url
    stop_hub(home)


@pytest.fixture(scope="module")
def accounts(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("auditor") / "mallory-watches.json"
    for name in NAMES:
        invite(network.home, name, "watch@audit.example", "auditor", file)
    return file


@pytest.fixture(scope="module")
def ran(network: Network, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of a plan that ran, so that every ledger has charges and co-signed heads."""
    plan = counting_plan(network.federation.data("interactions"), "audited", 0.2, releases=2)
    plan_hash = network.submit_and_approve(plan)
    network.federation.train(plan, tmp_path_factory.mktemp("run"))
    return plan_hash


def copy_ledger(source: Path, target: Path) -> None:
    """Copy a ledger, with what lies in its write-ahead log, over another or to a new place."""
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()


def test_the_network_at_one_look(hub: str, accounts: Path, ran: str) -> None:
    auditor = ct.Auditor.connect(accounts, hub)
    found = auditor.overview()
    assert [domain.name for domain in found.domains] == sorted(NAMES)
    assert (found.absent, found.adjacency) == ({}, ADJACENCY)
    for domain in found.domains:
        assert (domain.verdict.problem, domain.verdict.complete) == ("", True)
        assert domain.kinds["charge"] >= 2
        [budget] = [b for b in domain.budgets if b["population"].endswith("interactions")]
        assert budget["everywhere"] > budget["spent"] > 0
    pairs = {(c.domain, c.peer): c for c in found.cosignatures}
    assert set(pairs) == {(a, b) for a in NAMES for b in NAMES if a != b}
    assert all(0 < pair.size <= pair.of and pair.time for pair in pairs.values())
    assert "head not co-signed" not in {each.alert.kind for each in found.alerts}
    assert {row["domain"] for row in auditor.runs() if row["plan"] == ran} == set(NAMES)
    assert {row["domain"] for row in auditor.approvals() if row["plan"] == ran} == set(NAMES)
    words = ("ledger", "overview", "--accounts", str(accounts), "--hub", hub, "--json")
    printed = json.loads(CliRunner().invoke(app, [*words]).output, parse_constant=pytest.fail)
    assert {domain["name"] for domain in printed["domains"]} == set(NAMES)


def test_questions_to_one_domain(network: Network, accounts: Path, ran: str) -> None:
    auditor = ct.Auditor.connect(accounts)
    wanted = json.dumps({"plan": ran, "kinds": ["release", "charge"]})
    page = auditor.read("east", "ledger_page", before=0, limit=3, wanted=wanted)
    assert (page["total"], len(page["entries"])) == (4, 3)
    newest = page["entries"][0]["index"]
    proven = auditor.read("east", "ledger_entry", index=newest - 1)
    assert proven["proof"]["entry"]["index"] == newest - 1
    first = auditor.read("east", "ledger_entry", index=2)
    assert {each["witness"] for each in first["witnesses"]} == {"north", "south"}
    for by in ("month", "scientist", "plan"):
        assert auditor.read("east", "ledger_spends", by=by)["rows"]
    assert auditor.read("east", "ledger_timeline", by="day")
    for method, bad in (
        ("ledger_spends", {"by": "user"}),
        ("ledger_page", {"before": 0, "limit": 1, "wanted": '{"plan": "x"}'}),
        ("ledger_page", {"before": 0, "limit": 1, "wanted": '{"where": "1=1"}'}),
        ("ledger_entry", {"index": 10**6}),
    ):
        with pytest.raises(NodeRefused, match=r"Expected|Not a filter|no entry"):
            auditor.read("east", method, **bad)
    scientist = network.federation.nodes["east"]
    for method in ("ledger_counts", "ledger_runs", "ledger_heads"):
        with pytest.raises(NodeRefused):
            scientist.call(method)


def test_an_auditor_reaches_no_data_no_mock_and_nothing_that_writes(accounts: Path) -> None:
    node: NodeClient = ct.Auditor.connect(accounts).nodes["east"]
    from syft.service.user.user_roles import ServiceRole

    allowed = PATHS[ServiceRole.GUEST]
    others = {
        "dataset.get_all", "dataset.search", "dataset.get_by_id", "dataset.get_assets_by_action_id",
        "dataset.add", "dataset.delete", "action.get", "action.get_mock", "action.get_pointer",
        "action.set", "action.execute", "action.np_array", "blob_storage.read",
        "blob_storage.get_all", "request.get_all", "request.apply", "request.submit", "code.submit",
        "code.call", "user.get_all", "user.create", "user.update", "project.create_project",
        "api.call", "notifications.send", "settings.update", "worker.get_all", "job.get_all",
    }  # fmt: skip
    for path in sorted((others | _OWNER_PATHS) - allowed):
        with pytest.raises(NodeRefused):
            node.call_syft(path)
    assert not {path for path in allowed if "dataset" in path or "mock" in path or "action" in path}


def test_a_domain_that_is_down_or_unknown_is_said_to_be_absent(
    hub: str, accounts: Path, ran: str
) -> None:
    known = read_accounts(accounts)
    some = {"east": known["east"], "north": known["north"]}
    assert ct.Auditor.connect(some, hub).absent == {
        "south": "its owner gave this auditor no account"
    }
    seen = ct.Auditor.connect(some).overview()
    assert "no account at it" in seen.absent["south"]
    assert not [each for each in seen.alerts if each.alert.kind == "head not co-signed"]
    gone = {**some, "west": ct.Account(f"http://127.0.0.1:{free_ports(1)[0]}", "a@b.example", "x")}
    assert "does not answer" in ct.Auditor.connect(gone).absent["west"]
    other = {"east": ct.Account(**{**asdict(known["east"]), "node_key": "ab" * 32})}
    assert "another node key" in ct.Auditor.connect(other, hub).absent["east"]


def test_a_rolled_back_node_is_found_by_the_auditor_and_refused_by_its_peers(
    network: Network, accounts: Path, hub: str, ran: str, tmp_path: Path
) -> None:
    folder = network.home.domain("south")
    plan = counting_plan(network.federation.data("interactions"), "rolled back", 0.3)
    plan_hash = network.submit_and_approve(plan)
    stop_domain(network.home, "south")
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    copy_ledger(folder.ledger_file, old)
    start_domain(network.home, "south", None)
    network.connect()
    network.federation.train(plan, tmp_path / "run")
    stop_domain(network.home, "south")
    copy_ledger(folder.ledger_file, new)
    try:
        copy_ledger(old, folder.ledger_file)
        start_domain(network.home, "south", None)
        network.connect()
        seen = ct.Auditor.connect(accounts, hub).overview()
        verdicts = {domain.name: domain.verdict for domain in seen.domains}
        assert "rolled back to an older copy" in verdicts["south"].problem
        assert verdicts["east"].ok
        words = ("ledger", "overview", "--accounts", str(accounts), "--hub", hub)
        told = CliRunner().invoke(app, [*words])
        assert told.exit_code == ExitCode.NOT_VERIFIED, told.output
        again = counting_plan(network.federation.data("interactions"), "after it", 0.2, releases=1)
        again_hash = network.submit_and_approve(again)
        with pytest.raises(ct.RunInterrupted, match="rolled back to an older copy"):
            network.federation.train(again, tmp_path / "again")
        for name in ("east", "north"):
            assert network.charged(name, again_hash) == []
        open_owner(network.home, "east").revoke(again_hash, "south was rolled back")
    finally:
        stop_domain(network.home, "south")
        copy_ledger(new, folder.ledger_file)
        start_domain(network.home, "south", None)
        network.connect()
    assert network.charged("south", plan_hash)
    assert all(d.verdict.ok for d in ct.Auditor.connect(accounts, hub).overview().domains)
