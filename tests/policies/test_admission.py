"""Admission derives index ranges, memory and compute itself, and lets honest graphs pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from policies.admission import Bounds, Limits, PlanRefused, inspect
from policies.trace import trace

ITEMS, WIDTH = 12, 6
BOUNDS = Bounds(ITEMS, WIDTH, 100)
TABLE = torch.ones(ITEMS, 3)
STATE = {"table": TABLE, "places": torch.arange(WIDTH)}

PROVEN: dict[str, Callable[[Any, Any], Any]] = {
    "her items": lambda s, u: u.items,
    "her items, moved and clamped": lambda s, u: (u.items + 5).clamp(0, ITEMS - 1),
    "state, clamped": lambda s, u: s["places"].clamp(0, ITEMS - 1) * (u.items > 3),
    "a remainder": lambda s, u: (u.items * 7 + 3) % ITEMS,
    "half of it": lambda s, u: u.items // 2,
    "a choice": lambda s, u: torch.where(u.items > 3, u.items, 0),
    "a constant": lambda s, u: torch.arange(WIDTH) * (u.items > 3),
    "a count over one axis": lambda s, u: (u.values[:, None] > torch.ones(ITEMS - 1)).sum(1),
    "counted from the end": lambda s, u: u.items - ITEMS,
    "the smaller of two": lambda s, u: torch.minimum(u.items + 1, torch.tensor(ITEMS - 1)),
}
UNPROVEN: dict[str, Callable[[Any, Any], Any]] = {
    "one further": lambda s, u: u.items + 1,
    "state": lambda s, u: s["places"] * (u.items > 3),
    "a float made whole": lambda s, u: u.values.long(),
    "clamped too far": lambda s, u: u.values.long().clamp(0, ITEMS),
    "clamped on one side": lambda s, u: u.values.long().clamp(max=ITEMS - 1),
    "a product": lambda s, u: u.items * u.items,
    "a running sum": lambda s, u: u.items.cumsum(0),
    "a remainder one too large": lambda s, u: u.items * 7 % (ITEMS + 1),
    "a choice with one bad branch": lambda s, u: torch.where(u.items > 100, ITEMS, u.items),
}


def looked_up(index: Callable[[Any, Any], Any]) -> Any:
    def function(state: Any, user: Any) -> Any:
        return {"rows": state["table"][index(state, user)].sum(0)}

    return trace(function, STATE, BOUNDS)


@pytest.mark.parametrize("name", PROVEN)
def test_an_index_that_is_provably_inside_is_admitted(name: str) -> None:
    [spec] = inspect(looked_up(PROVEN[name]), BOUNDS).outputs
    assert spec.shape == (3,)


@pytest.mark.parametrize("name", UNPROVEN)
def test_any_other_index_is_refused_and_told_how_to_bound_it(name: str) -> None:
    with pytest.raises(PlanRefused, match=r"clamp\(0, 11\)") as caught:
        inspect(looked_up(UNPROVEN[name]), BOUNDS)
    assert caught.value.rule == "index"


def test_memory_and_compute_are_derived_before_anything_runs() -> None:
    graph = trace(lambda s, u: (s["table"] @ s["table"].T * u.mask.sum()).sum(), STATE, BOUNDS)
    usage = inspect(graph, BOUNDS)
    product = 4 * ITEMS * ITEMS
    assert product <= usage.bytes <= 4 * product
    assert ITEMS * ITEMS * 3 <= usage.work <= 10 * ITEMS * ITEMS * 3


def test_a_nodes_own_limits_decide() -> None:
    graph = trace(lambda s, u: (s["table"].exp() * u.mask.sum()).sum(), STATE, BOUNDS)
    for limits, rule in ((Limits(nodes=2), "size"), (Limits(user_bytes=100), "memory")):
        with pytest.raises(PlanRefused) as caught:
            inspect(graph, BOUNDS, limits)
        assert caught.value.rule == rule
