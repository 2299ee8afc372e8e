"""A plan is one canonical text with one hash, and reading it is parsing."""

import json

import pytest

from policies.admission import Bounds, PlanRefused, admit
from policies.graph import Graph
from policies.mechanism import noise_share_sigma
from policies.plan import Plan, PlanUnreadable
from policies.trace import TraceError, trace
from tests.domains.test_engine import ITEMS, WIDTH, bound, plan

BOUNDS = Bounds(ITEMS, WIDTH, 100)


def changed(**changes: object) -> Plan:
    return Plan.model_validate({**bound(plan()).model_dump(), **changes})


def test_the_same_plan_has_the_same_hash_and_survives_its_text() -> None:
    first, second = bound(plan()), bound(plan())
    assert first.hash == second.hash
    assert Plan.from_json(first.to_json()) == first


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: " " + text,
        lambda text: text.replace('"version":1', '"version":1,"version":1'),
        lambda text: text.replace('"version":1', '"version":1,"zz":1'),
        lambda text: text.replace('"delta":0.00001', '"delta":NaN'),
        lambda text: text[:-1],
        lambda text: "[" * 100_000,
    ],
)
def test_any_other_text_is_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PlanUnreadable):
        Plan.from_json(spoil(bound(plan()).to_json()))


def test_an_honest_plan_is_admitted() -> None:
    admit(bound(plan()), BOUNDS, public=False)
    admit(bound(plan("gradient")), BOUNDS, public=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"collusion": 0},
        {"collusion": 3},
        {"threshold": 2},
        {"public": True},
        {"two_domains": True},
    ],
)
def test_weak_rosters_and_false_claims_are_refused(changes: dict) -> None:
    with pytest.raises(PlanRefused):
        admit(changed(**changes), BOUNDS, public=False)


def test_two_domains_need_both_owners_to_read_what_that_means() -> None:
    pair = {"roster": bound(plan()).model_dump()["roster"][:2], "collusion": 1, "threshold": 2}
    with pytest.raises(PlanRefused, match="two_domains"):
        admit(changed(**pair), BOUNDS, public=False)
    accepted = changed(**pair, two_domains=True)
    admit(accepted, BOUNDS, public=False)
    assert "subtract its own part" in accepted.explain()
    step = accepted.steps[0]
    # tau - t = 1: each of the two adds all of the accounted noise.
    assert noise_share_sigma(step.noise_multiplier, step.clip_norm, step.scale, 2, 1) >= (
        step.noise_multiplier * step.clip_norm * step.scale
    )


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 0.0},
        {"scale": 1},
        {"scale": 2**40, "clip_norm": 1e9},
        {"outputs": ({"name": "counts", "shape": (5,), "dtype": "float32"},)},
    ],
)
def test_weak_steps_are_refused(change: dict) -> None:
    step = {**bound(plan()).steps[0].model_dump(), **change}
    with pytest.raises(PlanRefused):
        admit(changed(steps=(step,)), BOUNDS, public=False)


@pytest.mark.parametrize(
    "op",
    ["aten.rand.default", "aten.nonzero.default", "aten.add_.Tensor", "os.system", "aten.item"],
)
def test_operations_off_the_list_are_refused(op: str) -> None:
    step = json.loads(bound(plan()).to_json())["steps"][0]
    step["graph"]["nodes"][0]["op"] = op
    text = json.dumps({**json.loads(bound(plan()).to_json()), "steps": [step]})
    with pytest.raises((PlanRefused, PlanUnreadable, ValueError)):
        admit(Plan.model_validate_json(text), BOUNDS, public=False)


def test_an_index_that_might_leave_the_table_is_refused() -> None:
    def outside(state, user):  # type: ignore[no-untyped-def]
        return {"counts": state["v"][user.items + 1].sum(0)}

    graph = trace(outside, dict(plan().state), Bounds(ITEMS, WIDTH))
    step = (
        bound(plan())
        .steps[0]
        .model_copy(update={"graph": graph, "state": graph.state, "outputs": graph.output_specs()})
    )
    with pytest.raises(PlanRefused):
        admit(changed(steps=(step.model_dump(),)), BOUNDS, public=False)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda s, u: s["v"].sum() if u.mask.sum() > 0 else s["v"].max(), "where"),
        (lambda s, u: s["v"].sum() * u.mask.sum().item(), "line"),
        (lambda s, u: s["v"].sum() + torch_rand(), "random"),
        (lambda s, u: s["v"].add_(1).sum(), "clone"),
    ],
)
def test_what_cannot_be_traced_says_what_to_write(function, says) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TraceError, match=says):
        trace(function, dict(plan().state), Bounds(ITEMS, WIDTH))


def test_graphs_reject_names_defined_twice() -> None:
    step = json.loads(bound(plan()).to_json())["steps"][0]["graph"]
    step["nodes"].append(step["nodes"][0])
    with pytest.raises(ValueError, match="twice"):
        Graph.model_validate_json(json.dumps(step))


def torch_rand():  # type: ignore[no-untyped-def]
    import torch

    return torch.rand(())
