"""A run goes on without a domain that tau doesn't need, says whom it left out, and takes it back.

Four domains in this process: their services, state machines and ledgers, without HTTP.
"""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syft.service.context import AuthedServiceContext
from syft.types.errors import SyftException
from syft.types.uid import UID

from domains.rounds_service import CoterieRounds
from network.client import NodeRefused, NodeUnreachable, Traffic
from network.journal import load_run
from network.rounds import verify_rounds
from network.training import Progress, train
from tests.domains.participating_domains import Domains, domains_in

NAMES = ("east", "north", "south", "west")


@dataclass
class Near:
    """A node as a client of its sees it, without a line between them.

    Attributes:
        acts: what to do before it answers a method.
        down: it doesn't answer.
        opened: it opened the run.
    """

    domains: Domains
    name: str
    acts: dict[tuple[str, int], Callable[[], object]] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    down: bool = False
    opened: threading.Event = field(default_factory=threading.Event)

    def stream(self, method: str, timeout_s: float = 0, into: Any = None, **more: Any) -> Any:
        more.pop("most", None)
        self.acts.pop((method, more.get("release", -1)), lambda: None)()
        answer = self._answer(method, **more)
        if into is None:
            return answer
        for part in answer.parts:
            into.write(part.tobytes())
        return into.came

    def call(self, method: str, timeout_s: float = 0, **more: Any) -> Any:
        answer = self._answer(method, **more)
        if method == "open":
            self.opened.set()
        return answer

    def read(self, method: str, **more: Any) -> Any:
        if method == "plan":
            status = self.domains.ledgers[self.name].status(more["plan_hash"])
            return {"status": status, "signature": self.domains.approvals[self.name]}
        return json.loads(self._answer(method, **more))

    def _answer(self, method: str, **more: Any) -> Any:
        if self.down:
            raise NodeUnreachable(self.name, "http://here", "it is down")
        ledger = self.domains.ledgers[self.name]
        service = CoterieRounds(None)  # type: ignore[arg-type]
        service.participation = self.domains.parts[self.name]
        service.desk = SimpleNamespace(  # type: ignore[assignment]
            plan=lambda *_: self.domains.plan,
            dataset=lambda _: self.domains.dataset(self.name),
            ledger=ledger,
            progress=lambda plan: {
                "status": ledger.status(plan),
                "reason": "",
                "attempts": ledger.attempts(plan),
            },
        )
        context = AuthedServiceContext.model_construct(
            server=SimpleNamespace(id=UID()), credentials=None
        )
        try:
            return getattr(service, method)(context, **more)
        except SyftException as refused:
            raise NodeRefused(self.name, refused.public_message) from None


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
    nodes: Any = {name: Near(domains, name) for name in NAMES}
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
