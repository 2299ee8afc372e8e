"""kill -9 of any process in the middle of a round: a clear message, then `coterie run resume`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from coterie.exit_codes import ExitCode
from coterie.hub import start_hub
from coterie.partners import start_domain
from coterie.processes import free_ports, running
from policies.verify import verify
from tests.coterie.test_transcript import value_of
from tests.network_of_three import NAMES, Network, counting_plan
from tests.wire import Wire

pytestmark = pytest.mark.nodes

_ROOT = Path(__file__).parents[2]
_SCRIPT = """
from tests.network_of_three import counting_plan

def plan(data, epsilon):
    return counting_plan(data, "killed by turns", epsilon)
"""


class Scientist:
    """`coterie run` as a process of its own, which can be killed."""

    def __init__(self, network: Network, accounts: Path, folder: Path) -> None:
        self.script = folder / "script.py"
        self.script.write_text(_SCRIPT)
        self.accounts, self.home = accounts, network.home.path
        self.process: subprocess.Popen | None = None

    def run(self, *arguments: str) -> tuple[int, str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coterie.cli", "run", *arguments,
             "--accounts", str(self.accounts), "--home", str(self.home)],
            cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        output, _ = self.process.communicate(timeout=240)
        return self.process.returncode, output

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


def test_a_run_outlives_the_death_of_every_process(network: Network, tmp_path: Path) -> None:
    urls = {name: node.url for name, node in network.federation.nodes.items()}
    hub = start_hub(network.home, "127.0.0.1", free_ports(1)[0])
    assert hub
    plan = counting_plan(network.federation.data("interactions"), "killed by turns", 1.0)
    plan_hash = network.submit_and_approve(plan)
    run = network.home.runs / plan_hash[:16]
    with Wire(urls) as wire:
        accounts = wire.accounts(network.home.accounts, tmp_path / "accounts.json")
        scientist = Scientist(network, accounts, tmp_path)

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

        for when, method in (("after", "advertise"), ("after", "share"), ("before", "reveal")):
            wire.acts[when, "south", method] = scientist.kill
            code, _ = scientist.run("resume", str(run))
            assert code == -signal.SIGKILL

        wire.acts["before", "south", "share"] = lambda: kill(network.home.hub / "node.pid")
        # The engine of a node is a process too; the next round starts another.
        wire.acts["after", "north", "share"] = lambda: kill_engine(network, "north")
        code, text = scientist.run("resume", str(run))
        assert code == ExitCode.OK, text
        assert "is finished" in text

    network.connect()
    for name in NAMES:
        assert verify(network.home.domain(name).ledger_file).ok
        charged = network.charged(name, plan_hash)
        assert {(step, release) for step, release, _ in charged} == {("count", r) for r in range(3)}
        assert_one_share_per_attempt(wire, name, charged)


def assert_one_share_per_attempt(wire: Wire, name: str, charged: list) -> None:
    """Every share that left was charged, and no attempt's share left in two versions."""
    left = {value_of(m).tobytes() for m in wire.messages if (m.node, m.method) == (name, "reveal")}
    assert len(left) <= len(charged)
