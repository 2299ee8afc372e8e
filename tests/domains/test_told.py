"""What partners decided, as a scientist passes it on: she can keep it back, and change nothing."""

import json
from typing import Any

import pytest

from policies.plan import Plan
from tests.desks import ACCOUNT, Desks


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> Desks:
    return Desks.create(tmp_path_factory.mktemp("desks"))


def submitted(desks: Desks, purpose: str) -> Plan:
    plan = desks.plan(purpose, 0.5)
    desks.submit(plan)
    return plan


def denied(desks: Desks, plan: Plan, name: str = "east") -> dict[str, Any]:
    """The proof that a scientist gets of a denial, as JSON brings it."""
    desk = desks.by_name[name]
    desk.deny(plan.hash, f"owner@{name}.example", "too curious")
    return json.loads(json.dumps(desk.show(plan.hash, ACCOUNT)["decision"]))


def told(desks: Desks, plan: Plan) -> Any:
    return desks.north.weigh(plan.hash)["partners"]["east"]


def test_a_denial_is_told_with_who_and_why(desks: Desks) -> None:
    plan = submitted(desks, "denied")
    assert told(desks, plan) is None
    desks.north.tell(plan, {"east": denied(desks, plan)})
    found = told(desks, plan)
    assert (found["status"], found["by"], found["reason"]) == (
        "denied", "owner@east.example", "too curious"
    )  # fmt: skip


def test_an_approval_that_is_taken_back_is_told_so(desks: Desks) -> None:
    plan = submitted(desks, "taken back")
    signature = desks.approve(plan, "east")
    desks.north.tell(plan, {"east": signature})
    assert told(desks, plan)["status"] == "approved"
    desks.by_name["east"].revoke(plan.hash, "owner@east.example", "the contract ended")
    desks.north.tell(plan, {"east": desks.by_name["east"].show(plan.hash, None)["decision"]})
    assert told(desks, plan)["status"] == "closed"
    assert "the contract ended" in told(desks, plan)["reason"]


def test_nobody_makes_up_what_a_partner_decided(desks: Desks) -> None:
    plan, other = submitted(desks, "asked"), submitted(desks, "another")
    proof, strange = denied(desks, other), denied(desks, plan, "south")
    edited = json.loads(json.dumps(proof))
    edited["entry"]["body"] = edited["entry"]["body"].replace(other.hash, plan.hash)
    genuine = denied(desks, plan)
    shortened = {**genuine, "entry": {**genuine["entry"], "path": []}}
    for word in (
        proof, strange, edited, shortened, {}, [], 7, "x", {"format": "coterie-proof-v1"},
        {**genuine, "head": None}, {**genuine, "entry": {**genuine["entry"], "body": "[]"}},
    ):  # fmt: skip
        desks.north.tell(plan, {"east": word, "north": genuine, "stranger": genuine})
        assert told(desks, plan) is None, word
    desks.north.tell(plan, {"east": genuine})
    assert told(desks, plan)["status"] == "denied"


def test_a_scientist_is_given_no_proof_of_what_is_open(desks: Desks) -> None:
    plan = submitted(desks, "open")
    assert desks.north.show(plan.hash, ACCOUNT)["decision"] is None
