"""Plans are checked apart from the node: whatever PyTorch does there, the node goes on."""

import os
import signal
from pathlib import Path

import pytest

from domains import examination
from domains.examination import ExaminationFailed, admit
from domains.launcher import EngineProcess, LauncherFailed, launch
from policies.plan import Plan
from policies.refusals import PlanRefused
from policies.users import Bounds
from tests.desks import ACCOUNT, Desks
from tests.policies.plans_of_attackers import (
    BOUNDS,
    HONEST,
    ITEMS_INPUT,
    I,
    M,
    graph,
    one,
    text_of,
    with_graph,
)


def written(plan: dict) -> Plan:
    return Plan.from_json(text_of(plan))


def killed(store: Path | None, log: int) -> EngineProcess:
    """A process that ends as one does in which PyTorch crashes."""
    process = launch(store, log)
    os.kill(process.pid, signal.SIGSEGV)
    return process


def stopped(store: Path | None, log: int) -> EngineProcess:
    process = launch(store, log)
    os.kill(process.pid, signal.SIGSTOP)
    return process


def refused(plan: Plan, bounds: Bounds = BOUNDS) -> PlanRefused:
    with pytest.raises(PlanRefused) as caught:
        admit(plan, bounds, public=False)
    return caught.value


def test_an_honest_plan_passes_and_a_refusal_keeps_its_rule_and_words() -> None:
    admit(written(HONEST), BOUNDS, public=False)
    found = refused(written(with_graph(one("aten.rand_like.default", M))))
    assert found.rule == "operation"
    assert "allow-list" in str(found)


def test_what_has_shapes_but_no_numbers_is_refused() -> None:
    """PyTorch has no softmax of whole numbers, which their shapes don't tell."""
    made = graph(
        [ITEMS_INPUT],
        ("aten._softmax.default", I, 0, False),
        ("aten.sum.default", {"ref": "n0"}, {"dtype": {"dtype": "float32"}}),
    )
    found = refused(written(with_graph(made)))
    assert found.rule == "examination"
    assert "n0 = aten._softmax.default" in str(found)


def test_a_crash_refuses_the_plan_and_leaves_the_node_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desks = Desks.create(tmp_path)
    plan, other = desks.plan("crashes"), desks.plan("doesn't")
    monkeypatch.setattr(examination, "launch", killed)
    assert desks.submit(plan)
    assert desks.north.progress(plan.hash)["status"] == "refused"
    shown = desks.north.show(plan.hash, ACCOUNT)
    assert "ended by itself" in shown["explanation"]
    monkeypatch.undo()
    desks.submit(other)
    assert desks.north.progress(other.hash)["status"] == "pending"


def test_a_check_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "launch", stopped)
    monkeypatch.setattr(examination, "LONGEST_S", 0.1)
    assert "longer than 0.1 s" in str(refused(written(HONEST)))


def test_a_process_that_never_started_says_nothing_of_the_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(store: Path | None, log: int) -> EngineProcess:
        raise LauncherFailed("out of memory")

    monkeypatch.setattr(examination, "launch", none)
    with pytest.raises(ExaminationFailed, match="out of memory"):
        admit(written(HONEST), BOUNDS, public=False)
