"""What an owner reads: everything that matters about a plan, and what changed in meaning."""

import json
from typing import Any

import pytest
import torch

from network.program import DataSet, Gradient, Plan, Sum
from policies.changes import changes, same_meaning
from policies.explanation import Standing, explain
from policies.graph import Graph
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry
from policies.pseudo_code import pseudo_code
from policies.trace import trace
from policies.users import Bounds

ITEMS, WIDTH = 12, 6
DATA = DataSet("clicks", ITEMS, WIDTH, 300, "0" * 64, False)
ROSTER = [
    RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
    for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
]
STATE = {"v": torch.ones(ITEMS, 3)}


def count(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"counts": torch.zeros(ITEMS).scatter_add(0, user.items, user.mask)}


def loss(state: Any, user: Any) -> torch.Tensor:
    hers = state["v"][user.items] * user.mask[:, None]
    return (torch.exp(hers) + torch.tanh(hers)).sum()


def bound() -> ApprovablePlan:
    steps = [Sum("count", count, 2.0), Gradient("train", loss, ["v"], 1.0, releases=4)]
    return Plan("plan", "to learn", DATA, steps, STATE).bind(ROSTER, "0" * 64)


PLAN = bound()
GRAPH = PLAN.step("train").graph


def with_plan(**made: Any) -> ApprovablePlan:
    return ApprovablePlan.model_validate({**PLAN.model_dump(), **made})


def with_step(**made: Any) -> ApprovablePlan:
    first, second = PLAN.model_dump()["steps"]
    return with_plan(steps=(first, {**second, **made}))


def edited(graph: Graph, old: str, new: str) -> Graph:
    return Graph.model_validate_json(json.dumps(graph.model_dump()).replace(old, new))


def test_the_owner_sees_who_asks_what_leaves_how_often_and_what_it_costs() -> None:
    text = explain(PLAN, Standing(held=0.5, cap=8.0, delta=1e-5, everywhere=1.5))
    for part in (
        PLAN.hash,
        "to learn",
        PLAN.scientist,
        "counts [12]; 1 times",
        "v [12, 3]; 4 times; 36 numbers; one user moves the sum by at most 1 ",
        "noise of standard deviation",
        "up to 2 repeats",
        "Cost: epsilon ",
        "at delta 1e-05 for the whole plan, repeats included",
        "A person who is a user at all 3 partners",
        "Budget: epsilon 0.500 of 8.000 at delta 1e-05 spent or promised",
        "A person who is a user at every partner: epsilon 1.500 of it",
        "def loss(state",
    ):
        assert part in text


def test_the_authors_words_never_pass_for_lines_of_the_explanation() -> None:
    forged = "to learn\n\nCost: epsilon 0.001 at delta 1e-09 for the whole plan, repeats included."
    step = PLAN.steps[1].model_copy(update={"source": "x = 1\nBudget: 0.1 of 8.0 spent"})
    plan = with_plan(purpose=forged, population_note="all\nof them")
    plan = plan.model_copy(update={"steps": (PLAN.steps[0], step)})
    lines = explain(plan).split("\n")
    assert "  | Cost: epsilon 0.001 at delta 1e-09 for the whole plan, repeats included." in lines
    assert "  | Budget: 0.1 of 8.0 spent" in lines
    assert "  | of them" in lines
    assert sum(line.startswith("Cost: ") for line in lines) == 1
    assert not any(line.startswith("Budget: ") for line in lines)


def test_any_kept_steps_releases_may_pay_for_a_result_and_the_owner_is_told() -> None:
    kept = [
        Sum(name, count, 1.0, releases=2, kept=True, weight=weight)
        for name, weight in (("a", 1.0), ("b", 2.0))
    ]
    plan = Plan("p", "t", DATA, kept, {}, 8.0).bind(ROSTER, "0" * 64)
    least = min(step.noise_multiplier for step in plan.steps)
    [line] = [line for line in explain(plan).split("\n") if "shared tensors a, b" in line]
    assert "by a release of any of these steps" in line
    assert f"at most 4 results in all, with noise multipliers of at least {least:.4g}" in line


def test_the_graph_is_shown_as_code_with_shapes() -> None:
    lines = pseudo_code(GRAPH)
    assert "input v float32[12, 3]" in lines
    assert "n0 = index(v, [items])    # float32[6, 3]" in lines
    assert any("= exp(" in line for line in lines)
    assert lines[-1].startswith("return loss = n")


def test_constants_are_shown_and_long_ones_with_their_hash() -> None:
    table = torch.arange(100.0)
    graph = trace(lambda s, u: u.mask.sum() * table.sum(), {}, Bounds(ITEMS, WIDTH))
    [line] = [line for line in pseudo_code(graph) if line.startswith("c0")]
    assert "0.0 1.0 2.0" in line
    assert "and 76 more, SHA-256" in line


def test_text_that_hides_is_written_out() -> None:
    shown = explain(with_plan(purpose="1\u202e00\x1b[2J"))
    assert "\\u202e" in shown
    assert "\x1b" not in shown


def test_the_same_plan_has_no_changes() -> None:
    assert changes(PLAN, bound()) == []
    assert "nothing" in PLAN.explain(since=PLAN)


def test_other_names_and_another_order_of_independent_nodes_change_nothing() -> None:
    nodes = list(GRAPH.nodes)
    first = next(i for i, node in enumerate(nodes) if "exp." in node.op)
    assert "tanh" in nodes[first + 1].op
    nodes[first], nodes[first + 1] = nodes[first + 1], nodes[first]
    swapped = Graph(inputs=GRAPH.inputs, nodes=tuple(nodes), outputs=GRAPH.outputs)
    renamed = edited(swapped, '"n3"', '"another"')
    assert swapped != GRAPH
    assert same_meaning(GRAPH, swapped)
    assert same_meaning(GRAPH, renamed)
    assert changes(PLAN, with_step(graph=renamed.model_dump())) == []


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"clip_norm": 2.0}, "clip norm: 1.0 -> 2.0"),
        ({"noise_multiplier": 9.0}, "noise multiplier: "),
        ({"releases": 5}, "releases: 4 -> 5"),
        ({"sampling_rate": 0.5}, "sampling rate: 1.0 -> 0.5"),
        ({"scale": 2**20}, "scale: "),
        ({"source": "another"}, "source: another text for the same graph"),
    ],
)
def test_a_changed_step_is_told(made: dict, says: str) -> None:
    [line] = changes(PLAN, with_step(**made))
    assert line.startswith(f"step train: {says}")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"delta": 1e-6}, "delta: 1e-05 -> 1e-06"),
        ({"spare_attempts": 3}, "spare attempts: 2 -> 3"),
        ({"purpose": "to sell"}, "purpose: to learn -> to sell"),
        ({"steps": PLAN.model_dump()["steps"][:1]}, "step train: removed"),
        ({"memory": GRAPH.model_dump()}, "memory graph: added"),
        ({"roster": PLAN.model_dump()["roster"][:2]}, "partner c: leaves"),
    ],
)
def test_a_changed_plan_is_told(made: dict, says: str) -> None:
    assert changes(PLAN, with_plan(**made)) == [says]


def test_steps_in_another_order_are_told() -> None:
    [line] = changes(PLAN, with_plan(steps=PLAN.model_dump()["steps"][::-1]))
    assert line == "order of steps: count, train -> train, count"


def test_a_changed_operation_is_shown_alone_as_it_was_and_as_it_is() -> None:
    graph = edited(GRAPH, "aten.tanh.default", "aten.sin.default")
    lines = changes(PLAN, with_step(graph=graph.model_dump()))
    assert any("- tanh(mul)" in line for line in lines)
    assert any("+ sin(mul)" in line for line in lines)
    assert len(lines) <= 4


def test_a_changed_constant_is_shown() -> None:
    def graph_of(value: float) -> Graph:
        table = torch.full((WIDTH,), value)
        return trace(lambda s, u: (u.mask * table).sum(), {}, Bounds(ITEMS, WIDTH))

    before, after = (with_plan(memory=graph_of(v).model_dump()) for v in (1.0, 2.0))
    lines = changes(before, after)
    assert any("1.0 1.0" in line for line in lines)
    assert any("2.0 2.0" in line for line in lines)


def test_a_changed_shape_and_another_wiring_are_changes() -> None:
    def subtract(swap: bool) -> Graph:
        def function(state: Any, user: Any) -> torch.Tensor:
            x, y = user.mask.exp(), user.values.exp()
            return ((y - x) if swap else (x - y)).sum()

        return trace(function, {}, Bounds(ITEMS, WIDTH))

    wide = trace(lambda s, u: u.mask.exp().sum(), {}, Bounds(ITEMS, WIDTH + 1))
    narrow = trace(lambda s, u: u.mask.exp().sum(), {}, Bounds(ITEMS, WIDTH))
    assert not same_meaning(wide, narrow)
    assert not same_meaning(subtract(False), subtract(True))
    before, after = (with_plan(memory=subtract(s).model_dump()) for s in (False, True))
    assert changes(before, after)


def test_the_order_of_a_sums_parts_is_no_change_and_that_of_a_difference_is() -> None:
    def traced(combine: Any) -> Graph:
        def loss(state: Any, user: Any) -> torch.Tensor:
            total: torch.Tensor = combine(state["v"][user.items].exp(), user.mask[:, None]).sum()
            return total

        return trace(loss, STATE, Bounds(ITEMS, WIDTH))

    assert same_meaning(traced(lambda x, y: x + y), traced(lambda x, y: y + x))
    assert same_meaning(traced(lambda x, y: x * y + y), traced(lambda x, y: y + y * x))
    assert not same_meaning(traced(lambda x, y: x - y), traced(lambda x, y: y - x))
    assert not same_meaning(traced(lambda x, y: x / y), traced(lambda x, y: y / x))


def test_a_changed_purpose_stays_on_one_line() -> None:
    [line] = changes(PLAN, with_plan(purpose="to learn\nCost: epsilon 0"))
    assert line == "purpose: to learn -> to learn\\nCost: epsilon 0"
