"""kill -9 of any process in the middle of a round: a clear message, then `coterie run resume`."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from coterie.exit_codes import ExitCode
from coterie.hub import start_hub
from coterie.partners import start_domain
from coterie.processes import free_ports, running
from network.client import NodeRefused
from network.rounds import run_attempt
from policies.verify import verify
from tests.coterie.test_main_job import open_everywhere, packed_state
from tests.coterie.test_transcript import value_of
from tests.network_of_three import NAMES, Network, counting_plan
from tests.nursery import Forked, Nursery
from tests.wire import Wire

pytestmark = pytest.mark.nodes

_SCRIPT = """
from tests.network_of_three import counting_plan

def plan(data, epsilon):
    return counting_plan(data, "killed by turns", epsilon, spare_attempts=3)
"""


class Scientist:
    """`coterie run` as a process of its own, which can be killed."""

    def __init__(self, network: Network, nursery: Nursery, accounts: Path, folder: Path) -> None:
        self.script, self.output = folder / "script.py", folder / "output"
        self.script.write_text(_SCRIPT)
        self.options = ["--accounts", str(accounts), "--home", str(network.home.path)]
        self.nursery = nursery
        self.process: Forked | None = None

    def run(self, *arguments: str) -> tuple[int, str]:
        command = ["coterie.cli", "run", *arguments, *self.options]
        with self.output.open("wb") as out:
            self.process = self.nursery.run(command, out.fileno(), environment=os.environ)
        code = self.process.wait()
        return code, self.output.read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()


def kill_node(network: Network, name: str) -> None:
    kill(network.home.domain(name).pid_file)


def kill_engine(network: Network, name: str) -> None:
    node = running(network.home.domain(name).pid_file)
    assert node is not None
    engines = psutil.Process(node).children()
    assert engines
    for engine in engines:
        engine.kill()


def kill(pid_file: Path) -> None:
    pid = running(pid_file)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_run_outlives_the_death_of_every_process(
    network: Network, nursery: Nursery, tmp_path: Path
) -> None:
    urls = {name: node.url for name, node in network.federation.nodes.items()}
    hub = start_hub(network.home, "127.0.0.1", free_ports(1)[0])
    assert hub
    # Three attempts may be charged in vain: when south dies, when east dies, and when the scientist
    # does before a reveal, as it is a race how many domains have charged by then. Before a reveal
    # nothing has left, so that what her other deaths leave open is refunded.
    data = network.federation.data("interactions")
    plan = counting_plan(data, "killed by turns", 1.0, spare_attempts=3)
    plan_hash = network.submit_and_approve(plan)
    run = network.home.runs / plan_hash[:16]
    with Wire(urls) as wire:
        accounts = wire.accounts(network.home.accounts, tmp_path / "accounts.json")
        scientist = Scientist(network, nursery, accounts, tmp_path)

        wire.acts["after", "south", "share"] = lambda: kill_node(network, "south")
        code, text = scientist.run("start", str(scientist.script), "--epsilon", "1")
        assert code == ExitCode.INTERRUPTED, text
        assert "south was lost in count 0" in text
        assert "coterie domain up south" in text
        assert f"coterie run resume {run}" in text.replace("\n", " ")
        assert "Traceback" not in text
        start_domain(network.home, "south", None)

        # East dies before it charges: the others have charged, so the repeat is a spare attempt.
        wire.acts["before", "east", "reveal"] = lambda: kill_node(network, "east")
        code, text = scientist.run("resume", str(run))
        assert code == ExitCode.INTERRUPTED, text
        assert "east was lost in count 0" in text
        start_domain(network.home, "east", None)

        # North dies after it charged, before its share arrives: it sends the same one again.
        wire.acts["after", "north", "reveal"] = lambda: kill_node(network, "north")
        code, text = scientist.run("resume", str(run))
        assert code == ExitCode.INTERRUPTED, text
        start_domain(network.home, "north", None)

        # The next release begins with the last one's confirm, and after a death with an advertise.
        for act in ("after confirm", "after share", "after advertise", "before reveal"):
            when, method = act.split()
            wire.acts[when, "south", method] = scientist.kill
            code, _ = scientist.run("resume", str(run))
            assert code == -signal.SIGKILL

        wire.acts["before", "south", "share"] = lambda: kill(network.home.hub / "node.pid")
        # The engine of a node is a process too; the next round starts another.
        wire.acts["after", "north", "share"] = lambda: kill_engine(network, "north")
        code, text = scientist.run("resume", str(run), "--json")
        assert code == ExitCode.OK, text
        assert json.loads(text[text.index("{") :])["finished"] is True

    network.connect()
    for name in NAMES:
        assert verify(network.home.domain(name).ledger_file).ok
        charged = network.charged(name, plan_hash)
        assert {(step, release) for step, release, _ in charged} == {("count", r) for r in range(3)}
        assert_one_share_per_attempt(wire, name, charged)


def test_an_engine_killed_while_it_computes_ends_the_attempt_which_stays_charged(
    network: Network, tmp_path: Path
) -> None:
    plan = counting_plan(network.federation.data("interactions"), "engine killed", 0.5, releases=2)
    plan_hash = network.submit_and_approve(plan)
    open_everywhere(network, plan_hash)
    bound, state = network.federation.bind(plan), packed_state(plan)
    nodes = network.federation.nodes
    run_attempt(nodes, bound, "count", 0, 0, state.tobytes(), tmp_path / "by hand")
    sent = {"plan_hash": plan_hash, "step": "count", "release": 1, "attempt": 0}
    adverts = [json.loads(n.call("advertise", **sent))["advert"] for n in nodes.values()]

    engine = newest_engine(network, "south")
    engine.suspend()
    with ThreadPoolExecutor(1) as pool:
        share = pool.submit(
            nodes["south"].call, "share", **sent,
            adverts=json.dumps(adverts), state=state, held="{}",
        )  # fmt: skip
        while ["count", 1, 0, "reserved"] not in attempts(network, "south", plan_hash):
            assert not share.done(), share.result()
        engine.kill()
        with pytest.raises(NodeRefused, match="engine's process ended in the middle of its work"):
            share.result()
    assert ["count", 1, 0, "charged"] in attempts(network, "south", plan_hash)
    run = network.federation.train(plan, tmp_path / "run")
    assert run.finished
    charged = network.charged("south", plan_hash)
    assert ("count", 1, 1) in charged, "the repeat is a new attempt with fresh noise"
    assert ("count", 1, 0) in charged, "that it ended may say something of the data"
    assert all(verify(network.home.domain(name).ledger_file).ok for name in NAMES)


def newest_engine(network: Network, name: str) -> psutil.Process:
    """The node's launcher is its only child, and the engines are the launcher's."""
    (launcher,) = psutil.Process(running(network.home.domain(name).pid_file)).children()
    return max(launcher.children(), key=lambda engine: engine.create_time())


def attempts(network: Network, name: str, plan_hash: str) -> list:
    found = json.loads(network.federation.nodes[name].call("progress", plan_hash=plan_hash))
    return list(found["attempts"])


def assert_one_share_per_attempt(wire: Wire, name: str, charged: list) -> None:
    """Every share that left was charged, and no attempt's share left in two versions."""
    left = {value_of(m).tobytes() for m in wire.messages if (m.node, m.method) == (name, "reveal")}
    assert len(left) <= len(charged)
