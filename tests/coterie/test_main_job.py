"""The main job on real nodes: approve, train under SMPC and noise, deny, crash, resume."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import syft as sy
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from typer.testing import CliRunner

import coterie as ct
from coterie.cli import app
from coterie.exit_codes import ExitCode
from coterie.owner import Owner
from coterie.partners import add_data, create_domain, open_owner, start_domain
from coterie.processes import AlreadyRunning, ProcessError, running
from domains.folder import FolderError
from domains.interactions import InteractionsError
from network.client import LoginFailed, NodeClient, NodeRefused, NodeUnreachable, log_in
from network.rounds import RoundAborted, attempt_folder, run_attempt, verify_rounds
from network.smpc import ring
from network.smpc.messages import SharingRefused
from network.updates import noise_std
from policies.verify import verify
from tests.network_of_three import NAMES, Network, counting_plan, interactions

pytestmark = pytest.mark.nodes


def test_a_public_run_opens_exactly_the_clipped_sum(network: Network, tmp_path: Path) -> None:
    plan = counting_plan(network.federation.data("open-data"), "exact", None, releases=1)
    network.submit_and_approve(plan)
    run = network.federation.train(plan, tmp_path)
    assert np.allclose(run.state["sum"].numpy(), clipped_counts(), atol=1e-3)
    assert run.epsilon is None


@pytest.mark.parametrize("aggregation", ["smpc", "ckks"])
def test_a_private_run_is_noised_charged_and_verified(
    network: Network, tmp_path: Path, aggregation: Any
) -> None:
    data = network.federation.data("interactions")
    plan = counting_plan(data, "private", 1.0, aggregation=aggregation)
    plan_hash = network.submit_and_approve(plan)
    run = network.federation.train(plan, tmp_path)
    assert run.finished
    for name in NAMES:
        assert network.charged(name, plan_hash) == [("count", r, 0) for r in range(3)]
        folder = network.home.domain(name)
        verdict = verify(folder.ledger_file, network.federation.domains[name]["node_key"])
        assert verdict.ok, verdict.text
    bound = network.federation.bind(plan)
    noise = run.state["sum"].numpy() - 3 * clipped_counts()
    expected = noise_std(bound, bound.steps[0]) * np.sqrt(3)
    # 30 samples: their deviation falls outside these bounds with probability below 1e-6.
    assert 0.4 * expected < np.sqrt(np.mean(noise**2)) < 1.8 * expected
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(bound.steps[0].noise_multiplier), 3))
    assert run.epsilon == pytest.approx(accountant.get_epsilon(bound.delta), abs=1e-6)


def test_no_shares_are_asked_for_before_the_last_release_is_kept(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt begins earlier, but gives the last one up with its shares."""
    plan = counting_plan(network.federation.data("open-data"), "in turn", None, releases=3)
    network.submit_and_approve(plan)
    asked: dict[tuple[str, int], int] = {}
    stream, kept = NodeClient.stream, tmp_path / "journal.json"

    def watched(node: NodeClient, method: str, *rest: Any, **more: Any) -> Any:
        journalled = len(json.loads(kept.read_text())["history"]) if kept.exists() else 0
        where = method, more.get("release", -1)
        asked[where] = min(journalled, asked.get(where, journalled))
        return stream(node, method, *rest, **more)

    monkeypatch.setattr(NodeClient, "stream", watched)
    assert network.federation.train(plan, tmp_path).finished
    assert [asked["share", release] for release in range(3)] == [0, 1, 2]
    begun = [release for method, release in asked if method == "advertise"]
    assert begun == [0], "each other one was begun by the calls of the release before"


def test_only_masked_inputs_leave_a_node(network: Network, tmp_path: Path) -> None:
    """Neither a domain's answer alone nor any two together show its contribution."""
    plan = counting_plan(network.federation.data("open-data"), "transcript", None, releases=1)
    network.submit_and_approve(plan)
    run = network.federation.train(plan, tmp_path)
    bound = network.federation.bind(plan)
    bits, scale = bound.steps[0].ring, bound.steps[0].scale
    kept = attempt_folder(tmp_path, "count", 0, 0)
    shares = [ring.unpack(f.read_bytes(), 30, bits) for f in sorted(kept.glob("masked-*"))]
    assert len(shares) == 3
    # Counts are below 120 * scale; uniform elements of 30 stay there with chance below 1e-30.
    for masked in (*shares, shares[0] + shares[1], shares[0] + shares[1] + shares[2]):
        alone = ring.from_ring(masked).astype(float) / scale
        assert np.abs(alone).max() > 120, "a masked input must look uniform over the ring"
    assert np.allclose(run.state["sum"].numpy(), clipped_counts(), atol=1e-3)
    assert verify_rounds(bound, tmp_path) == [("count", 0, 0)]
    verified = CliRunner().invoke(app, ["run", "verify", str(tmp_path), "--json"])
    assert verified.exit_code == ExitCode.OK
    assert json.loads(verified.output) == {"plan_hash": bound.hash, "totals": 1}


def test_a_total_that_was_changed_afterwards_is_noticed(network: Network, tmp_path: Path) -> None:
    plan = counting_plan(network.federation.data("open-data"), "a lying hub", None, releases=1)
    network.submit_and_approve(plan)
    network.federation.train(plan, tmp_path)
    total = attempt_folder(tmp_path, "count", 0, 0) / "total.ring"
    total.write_bytes(total.read_bytes()[:-1] + b"\x01")
    with pytest.raises(SharingRefused, match="the coordinator: the total it published"):
        verify_rounds(network.federation.bind(plan), tmp_path)
    verified = CliRunner().invoke(app, ["run", "verify", str(tmp_path)])
    assert verified.exit_code == ExitCode.NOT_VERIFIED


def test_a_denied_plan_never_runs_and_costs_nothing(network: Network, tmp_path: Path) -> None:
    plan = counting_plan(network.federation.data("interactions"), "denied", 1.0)
    network.federation.submit(plan)
    plan_hash = network.federation.bind(plan).hash
    for name in ("east", "north"):
        open_owner(network.home, name).approve(plan_hash)
    open_owner(network.home, "south").deny(plan_hash, "too many rounds")
    with pytest.raises(ct.NotApproved, match=r"south denied: too many rounds"):
        network.federation.train(plan, tmp_path)
    assert all(network.charged(name, plan_hash) == [] for name in NAMES)


def test_an_approval_without_the_owners_key_waits_for_it(network: Network, tmp_path: Path) -> None:
    plan = counting_plan(network.federation.data("interactions"), "unsigned", 1.0)
    network.federation.submit(plan)
    plan_hash = network.federation.bind(plan).hash
    for name in NAMES:
        keyless = Owner(open_owner(network.home, name, with_key=False).node, None)
        assert keyless.approve(plan_hash) == "awaiting signature"
    with pytest.raises(ct.NotApproved, match="awaiting signature"):
        network.federation.train(plan, tmp_path)
    network.approve(plan_hash)


def test_syfts_own_requests_show_plans_and_sign_approvals(network: Network) -> None:
    plan = counting_plan(network.federation.data("interactions"), "native", 0.5)
    network.federation.submit(plan)
    plan_hash = network.federation.bind(plan).hash
    login = json.loads(network.home.owner_login("north").read_text())
    client = sy.login(url=login["url"], email=login["email"], password=login["password"])
    ct.use_owner_key("north", network.home.owner_key("north"))
    request = next(r for r in client.requests.get_all() if r.changes[0].plan_hash == plan_hash)
    request.approve()
    assert network.federation.status(plan_hash)["north"]["status"] == "approved"


def test_a_syft_client_reads_the_mock_and_never_rows(network: Network) -> None:
    account = json.loads(network.home.accounts.read_text())["north"]
    client = sy.login(url=account["url"], email=account["email"], password=account["password"])
    dataset = next(d for d in client.datasets.get_all() if d.name == "interactions")
    assert set(dataset.assets[0].mock["user"].str.startswith("mock-")) == {True}
    assert dataset.assets[0].data is None
    owner = json.loads(network.home.owner_login("north").read_text())
    owners = sy.login(url=owner["url"], email=owner["email"], password=owner["password"])
    for path in ("code.submit", "action.execute", "api.add", "worker_pool.launch", "user.register"):
        with pytest.raises(NodeRefused):
            network.federation.nodes["north"].call_syft(path)
    assert owners.datasets.get_all()


def test_a_killed_node_aborts_the_attempt_and_the_run_resumes(
    network: Network, tmp_path: Path
) -> None:
    plan = counting_plan(network.federation.data("interactions"), "killed", 1.0)
    plan_hash = network.submit_and_approve(plan)
    open_everywhere(network, plan_hash)
    nodes = network.federation.nodes
    adverts = advertise_by_hand(network, plan_hash, attempt=0)
    state = packed_state(plan)
    for node in nodes.values():
        sent = {"adverts": adverts, "state": state, "held": "{}"}
        node.call("share", **round_arguments(plan_hash, 0), **sent)
    kill(network, "south")
    with pytest.raises(NodeUnreachable, match="coterie domain status south"):
        network.federation.quote(plan)
    with pytest.raises(NodeUnreachable):
        network.federation.submit(counting_plan(plan.data, "one is down", 1.0))
    start_domain(network.home, "south", None)
    network.connect()
    run = network.federation.train(plan, tmp_path)
    assert run.finished
    assert run.history[0].attempt == 1, "the repeat is a new attempt with fresh noise"
    for name in NAMES:
        charged = network.charged(name, plan_hash)
        assert charged == [("count", 0, 1), ("count", 1, 0), ("count", 2, 0)]
        assert verify(network.home.domain(name).ledger_file).ok


def test_a_lost_scientist_opens_what_was_revealed_again(network: Network, tmp_path: Path) -> None:
    plan = counting_plan(network.federation.data("interactions"), "scientist lost", 1.0)
    plan_hash = network.submit_and_approve(plan)
    open_everywhere(network, plan_hash)
    bound, state = network.federation.bind(plan), packed_state(plan).tobytes()
    nodes = network.federation.nodes
    lost = run_attempt(nodes, bound, "count", 0, 0, state, tmp_path)
    again = run_attempt(nodes, bound, "count", 0, 0, state, tmp_path)
    assert np.array_equal(again.total, lost.total)
    run = network.federation.train(plan, tmp_path)
    assert run.history[0].attempt == 0
    assert all(len(network.charged(n, plan_hash)) == 3 for n in NAMES)


def test_a_node_killed_after_it_revealed_helps_to_open_all_the_same(
    network: Network, tmp_path: Path
) -> None:
    plan = counting_plan(network.federation.data("interactions"), "killed late", 1.0)
    plan_hash = network.submit_and_approve(plan)
    open_everywhere(network, plan_hash)
    bound, state = network.federation.bind(plan), packed_state(plan).tobytes()
    nodes = dict(network.federation.nodes)
    nodes["south"] = _DiesBefore(network, "south", "confirm")  # type: ignore[assignment]
    with pytest.raises(RoundAborted) as aborted:
        run_attempt(nodes, bound, "count", 0, 0, state, tmp_path)
    assert (aborted.value.domain, aborted.value.phase) == ("south", "confirm")
    assert aborted.value.lost
    start_domain(network.home, "south", None)
    network.connect()
    run = network.federation.train(plan, tmp_path)
    assert run.history[0].attempt == 0, "what was charged everywhere is opened, not repeated"
    assert all(len(network.charged(n, plan_hash)) == 3 for n in NAMES)


def test_recommendations_are_made_for_a_partners_own_users_only(
    network: Network, tmp_path: Path
) -> None:
    plan = counting_plan(network.federation.data("open-data"), "recommend", None)
    network.submit_and_approve(plan)
    network.federation.train(plan, tmp_path)
    owner = open_owner(network.home, "east", with_key=False)
    items = json.loads(owner.node.call("recommend", user="east-3", count=5))
    hers = set(interactions("east").query("user == 'east-3'")["item"])
    assert len(items) == 5
    assert not hers & {item for item, _ in items}
    with pytest.raises(NodeRefused, match="no user"):
        owner.node.call("recommend", user="north-1", count=5)
    with pytest.raises(NodeRefused):
        network.federation.nodes["east"].call("recommend", user="east-3", count=5)


def test_a_plan_over_budget_is_refused_with_what_is_missing(network: Network) -> None:
    plan = counting_plan(network.federation.data("interactions"), "too dear", 40.0)
    answers = network.federation.quote(plan)
    messages = " ".join(r["message"] for r in answers["east"]["refusals"])
    assert "Requested" in messages
    assert "Short by" in messages


def test_a_private_data_set_refuses_plans_without_noise(network: Network) -> None:
    plan = counting_plan(network.federation.data("interactions"), "no noise", None)
    answers = network.federation.submit(plan)
    assert {answer["status"] for answer in answers.values()} == {"refused"}


def test_a_plain_syft_client_lists_data_sets_and_reads_mocks(network: Network) -> None:
    """Syft as shipped, in a process that never imports Coterie."""
    script = (
        "import json, sys, syft\n"
        "a = json.loads(open(sys.argv[1]).read())['north']\n"
        "c = syft.login(url=a['url'], email=a['email'], password=a['password'])\n"
        "found = {d.name: list(d.assets[0].mock.columns) for d in c.datasets.get_all()}\n"
        "print(json.dumps([found, 'coterie' in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(network.home.accounts)],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found, imported = json.loads(done.stdout.splitlines()[-1])
    assert not imported
    assert {"user", "item"} <= set(found["interactions"])


def test_a_taken_port_is_named(network: Network) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        create_domain(network.home, "west", "127.0.0.1", port)
        with pytest.raises(ProcessError, match=rf"west can't listen on 127.0.0.1:{port}.*in use"):
            start_domain(network.home, "west", None)
    assert running(network.home.domain("west").pid_file) is None


def test_a_second_data_set_of_another_schema_is_named(network: Network, tmp_path: Path) -> None:
    """A file without the columns leaves nothing; another catalogue is caught before a plan is."""
    catalogue, rows = tmp_path / "catalogue.txt", tmp_path / "rows.csv"
    catalogue.write_text("item-1\nitem-2\n")
    folder = network.home.domain("east")
    declared = {"population": "more", "users": 100, "interactions_per_user": 16, "holdout": None,
                "epsilon": 1.0, "public": False, "file": rows, "catalogue": catalogue}  # fmt: skip
    rows.write_text("customer,product\n1,item-1\n")
    with pytest.raises(InteractionsError, match="user"):
        add_data(folder, dataset="more", **declared)
    assert not (folder.datasets / "more").exists()
    rows.write_text("user,item\n1,item-1\n")
    with pytest.raises(FolderError, match="has a data set 'interactions' already"):
        add_data(folder, dataset="interactions", **declared)
    federation = network.federation
    cards = copy.deepcopy(federation.domains)
    cards["east"]["datasets"][0]["catalogue"] = "0" * 64
    federation.domains, kept = cards, federation.domains
    try:
        with pytest.raises(ct.FederationError, match=r"catalogue is .* at east"):
            federation.data(cards["east"]["datasets"][0]["name"])
    finally:
        federation.domains = kept


def test_errors_say_what_to_do(network: Network) -> None:
    with pytest.raises(AlreadyRunning, match="runs already"):
        start_domain(network.home, "east", None)
    url = network.federation.nodes["east"].url
    with pytest.raises(LoginFailed, match="wrong email or password"):
        log_in(url, "ada@university.example", "not the password")


def clipped_counts() -> np.ndarray:
    """What one release without noise opens, each user scaled to clip norm 4."""
    counts = np.zeros(30)
    for name in NAMES:
        for _, hers in interactions(name).groupby("user"):
            items = hers["item"].str.removeprefix("item-").astype(int).to_numpy()
            counts[items] += min(1.0, 4.0 / np.sqrt(len(items)))
    return counts


def kill(network: Network, name: str) -> None:
    pid_file = network.home.domain(name).pid_file
    pid = running(pid_file)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def open_everywhere(network: Network, plan_hash: str) -> None:
    standing = network.federation.status(plan_hash)
    approvals = json.dumps({name: s["signature"] for name, s in standing.items()})
    for node in network.federation.nodes.values():
        node.call("open", plan_hash=plan_hash, approvals=approvals)


def round_arguments(plan_hash: str, attempt: int) -> dict:
    return {"plan_hash": plan_hash, "step": "count", "release": 0, "attempt": attempt}


def advertise_by_hand(network: Network, plan_hash: str, attempt: int) -> str:
    nodes = network.federation.nodes.values()
    found = [json.loads(n.call("advertise", **round_arguments(plan_hash, attempt))) for n in nodes]
    return json.dumps([each["advert"] for each in found])


def packed_state(plan: ct.Plan) -> np.ndarray:
    import safetensors.torch

    return np.frombuffer(safetensors.torch.save(dict(plan.state)), dtype=np.uint8)


class _DiesBefore:
    """A line to a node that is killed when a method is called."""

    def __init__(self, network: Network, name: str, method: str) -> None:
        self._network, self._name, self._method = network, name, method
        self._line = network.federation.nodes[name]

    def stream(self, method: str, **arguments: object) -> object:
        if method == self._method:
            kill(self._network, self._name)
        return self._line.stream(method, **arguments)
