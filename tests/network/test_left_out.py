"""A run goes on without a domain that tau doesn't need, says whom it left out, and takes it back.

Four domains in this process: their services, state machines and ledgers, without HTTP.
"""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from network.client import NodeRefused, NodeUnreachable, Traffic
from network.journal import load_run
from network.rounds import verify_rounds
from network.training import Progress, train
from tests.domains.nodes_at_hand import NodeAtHand
from tests.domains.participating_domains import Domains, domains_in

NAMES = ("east", "north", "south", "west")


class Mortal(NodeAtHand):
    """A node that may die and come back.

    Attributes:
        acts: what to do before it answers a step of a release.
        down: it doesn't answer.
        opened: it opened the run.
    """

    def __init__(self, name: str, domains: Domains) -> None:
        super().__init__(name, domains)
        self.acts: dict[tuple[str, int], Callable[[], object]] = {}
        self.down, self.opened, self.traffic = False, threading.Event(), Traffic()

    def stream(
        self, method: str, timeout_s: float = 0, into: Any = None, most: int = 0, **arguments: Any
    ) -> Any:
        self.acts.pop((method, arguments.get("release", -1)), lambda: None)()
        if self.down:
            raise NodeUnreachable(self.name, "http://here", "it is down")
        return super().stream(method, timeout_s, into, most, **arguments)

    def call(self, method: str, timeout_s: float = 0, **arguments: Any) -> Any:
        answer = self.stream(method, **arguments)
        if method == "open":
            self.opened.set()
        return answer

    def read(self, method: str, **arguments: Any) -> Any:
        if method == "plan":
            status = self._domains.ledgers[self.name].status(arguments["plan_hash"])
            return {"status": status, "signature": self._domains.approvals[self.name]}
        return json.loads(self.stream(method, **arguments))


@pytest.fixture
def domains(tmp_path: Path) -> Iterator[Domains]:
    found = domains_in(tmp_path, releases=4, names=NAMES, threshold=3)
    yield found
    for ledger in found.ledgers.values():
        ledger.dispose()


@pytest.mark.parametrize("step", ["share", "reveal", "confirm", "unmask"])
def test_who_fails_is_named_and_takes_part_again_once_it_is_back(
    domains: Domains, tmp_path: Path, step: str
) -> None:
    """West dies in release 1 and is back before release 2, its run forgotten."""
    nodes: Any = {name: Mortal(name, domains) for name in NAMES}
    west = nodes["west"]

    def dies() -> None:
        west.down = True
        west.opened.clear()

    def comes_back(release: Progress) -> None:
        if release.release == 1:
            domains.restart("west")
            west.down = False
        if release.release == 2:
            assert west.opened.wait(120)

    west.acts[step, 1] = dies
    run = train(nodes, domains.written, domains.plan, tmp_path / "run", comes_back)
    left_out = [dict(release.left_out) for release in run.history]
    assert (left_out[0], left_out[3]) == ({}, {})
    assert list(left_out[1]) == ["west"]
    assert "it is down" in left_out[1]["west"]
    # It is asked to open the run again after release 1 and, if it was still down then, after 2.
    assert set(left_out[2]) <= {"west"}
    assert run.finished
    assert load_run(run.folder, domains.plan, domains.written).history == run.history
    assert len(verify_rounds(domains.plan, run.folder)) == 4


def test_a_run_keeps_only_the_beginning_of_what_a_node_refuses_with(
    domains: Domains, tmp_path: Path
) -> None:
    """A node may say up to 16 MiB, and the journal has it for good."""
    nodes: Any = {name: Mortal(name, domains) for name in NAMES}

    def refuses() -> None:
        raise NodeRefused("west", "west: not today. " + "x" * 2**20)

    nodes["west"].acts["share", 0] = refuses
    run = train(nodes, domains.written, domains.plan, tmp_path / "run", lambda _: None)
    assert run.history[0].left_out["west"].startswith("west: not today.")
    assert (run.folder / "journal.json").stat().st_size < 10_000
