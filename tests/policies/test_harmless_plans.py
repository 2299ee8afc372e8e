"""Hostile plans that are admitted, and random ones: harmless, since one user moves the sum by at
most the clip norm, to the last integer unit.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from domains.engine import private_sum
from domains.interactions import Interactions
from domains.users import UserTensors
from network.program import Gradient, Plan, Sum
from policies.admission import admit
from policies.plan import Plan as ApprovablePlan
from policies.plan import Step
from tests.domains.test_engine import people as drawn_people
from tests.policies.plans_of_attackers import (
    BOUNDS,
    DATA,
    ITEMS,
    ROSTER,
    SIZE,
    VECTORS,
    WIDTH,
    verdict,
)


def people(users: int, seed: int = 0) -> Interactions:
    found = drawn_people(users, seed)
    values = np.random.default_rng(seed).normal(size=len(found.items))
    return replace(found, values=values.astype(np.float32))


def largest_change(step: Step, state: dict[str, torch.Tensor], data: Interactions) -> int:
    """The largest squared integer distance between the sums with and without one user."""
    tensors = UserTensors(data, ITEMS, WIDTH, seed=1)
    everyone = np.arange(data.users)
    total = private_sum(step, state, tensors, everyone)
    changes = (total - private_sum(step, state, tensors, np.delete(everyone, u)) for u in everyone)
    return max(sum(int(x) ** 2 for x in change) for change in changes)


def bound_of(step: Step) -> int:
    return int(step.clip_norm * step.scale) ** 2


def tell_who(state: Any, user: Any) -> dict[str, torch.Tensor]:
    """Her items as digits of one number: a message to the scientist."""
    return {"x": (user.items * 100.0 ** torch.arange(WIDTH)).sum()}


def not_a_number(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"x": (user.mask - user.mask) / (user.mask - user.mask), "y": user.values}


def infinite(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"x": torch.exp(user.items * 1e9), "y": torch.log(user.mask)}


def almost_infinite(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"x": user.mask * 3e38, "y": -user.mask * 3e38}


def denormal(state: Any, user: Any) -> dict[str, torch.Tensor]:
    return {"x": user.mask * 1e-45}


def one_user_only(state: Any, user: Any) -> dict[str, torch.Tensor]:
    """Huge if she has a certain item, nothing for anybody else."""
    return {"x": 1e30 * ((user.items == 7) * user.mask).sum()}


def chaotic(state: Any, user: Any) -> dict[str, torch.Tensor]:
    """Turns a difference in the last bit into another result altogether."""
    x = state["v"].T @ (state["v"] @ (state["v"][user.items] * user.mask[:, None]).sum(0))
    for _ in range(12):
        x = torch.sin(50 * x)
    return {"x": 100 * x}


def logistic_map(state: Any, user: Any) -> dict[str, torch.Tensor]:
    x = torch.softmax((state["v"][user.items] * user.mask[:, None]).sum(0), 0)
    for _ in range(30):
        x = 3.99 * x * (1 - x)
    return {"x": 100 * x}


HARMLESS = {
    f.__name__: f
    for f in (
        tell_who,
        not_a_number,
        infinite,
        almost_infinite,
        denormal,
        one_user_only,
        chaotic,
        logistic_map,
    )
}


@pytest.mark.parametrize("trick", HARMLESS)
@pytest.mark.parametrize("poison", [None, float("nan"), float("inf"), 1e38, -1e-45])
def test_no_contribution_moves_the_sum_by_more_than_the_clip_norm(
    trick: str, poison: float | None
) -> None:
    vectors = 3 * VECTORS if poison is None else torch.full((ITEMS, SIZE), poison)
    plan = Plan("m", "t", DATA, [Sum("s", HARMLESS[trick], 0.7)], {"v": vectors})
    approved = plan.bind(ROSTER, "0" * 64)
    assert verdict(approved.to_json()) == ""
    [step] = approved.steps
    state = {spec.name: plan.state[spec.name] for spec in step.state}
    assert largest_change(step, state, people(7)) <= bound_of(step)


# --- Random admitted graphs ---

UNARY: dict[str, Callable[[Any], Any]] = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sin": lambda x: torch.sin(1e3 * x),
    "tanh": torch.tanh,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "huge": lambda x: 1e30 * x,
    "sign": torch.sign,
    "whole": lambda x: x.long().float(),
    "softmax": lambda x: torch.softmax(x, 0),
    "cumsum": lambda x: torch.cumsum(x, 0),
    "norm": lambda x: x / x.norm(),
    "flip": lambda x: x.flip(0),
    "ranks": lambda x: (x[:, None] > x[None, :]).float().sum(1),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add,
    "multiply": torch.mul,
    "divide": torch.div,
    "power": torch.pow,
    "maximum": torch.maximum,
    "choose": lambda x, y: torch.where(x > y, x, -y),
}
STEPS = st.lists(
    st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 30), st.integers(0, 30)),
    min_size=1,
    max_size=8,
)


def written(steps: list[tuple[str, int, int]]) -> Callable[[Any, Any], dict[str, Any]]:
    """A contribution made of random operations on vectors over a user's interactions."""

    def contribution(state: Any, user: Any) -> dict[str, torch.Tensor]:
        hers = state["v"][user.items] * user.mask[:, None]
        pool = [hers.sum(1), hers @ hers.sum(0), user.values, user.items.float(), user.mask]
        for name, left, right in steps:
            x, y = pool[-1 - left % len(pool)], pool[right % len(pool)]
            pool.append(UNARY[name](x) if name in UNARY else BINARY[name](x, y))
        by_item = torch.zeros(ITEMS).scatter_add(0, user.items, pool[-1])
        return {"by_item": by_item, "last": pool[-1], "before": pool[-2].sum() + hers.sum()}

    return contribution


@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
@given(STEPS, st.booleans(), st.floats(1e-3, 1e3), st.integers(0, 1_000))
def test_no_random_admitted_graph_lets_one_user_move_the_sum_further(
    steps: list[tuple[str, int, int]], as_gradient: bool, clip_norm: float, seed: int
) -> None:
    contribution = written(steps)
    step: Sum | Gradient = Sum("s", contribution, clip_norm)
    if as_gradient:
        step = Gradient(
            "s", lambda s, u: sum(t.sum() for t in contribution(s, u).values()), ["v"], clip_norm
        )
    approved = Plan("m", "t", DATA, [step], {"v": VECTORS}, None).bind(ROSTER, "0" * 64)
    admit(approved, BOUNDS, public=True)
    [admitted] = ApprovablePlan.from_json(approved.to_json()).steps
    state = {spec.name: VECTORS for spec in admitted.state}
    data = people(5, seed)
    assert largest_change(admitted, state, data) <= bound_of(admitted)
    exchanged = with_another_user(data, people(5, seed + 1), seed % 5)
    everyone, sums = np.arange(5), []
    for version in (data, exchanged):
        tensors = UserTensors(version, ITEMS, WIDTH, seed=1)
        sums.append(private_sum(admitted, state, tensors, everyone))
    # Exchanging her data is removing one user and adding another: twice the bound.
    assert sum(int(x) ** 2 for x in sums[0] - sums[1]) <= 4 * bound_of(admitted)


def with_another_user(data: Interactions, other: Interactions, index: int) -> Interactions:
    """The same users, one of them with the interactions of the other data set's."""
    sources = [other if user == index else data for user in range(data.users)]
    parts = [slice(s.indptr[u], s.indptr[u + 1]) for u, s in enumerate(sources)]
    pairs = list(zip(sources, parts, strict=True))
    return replace(
        data,
        indptr=np.concatenate([[0], np.cumsum([len(s.items[part]) for s, part in pairs])]),
        items=np.concatenate([s.items[part] for s, part in pairs]),
        values=np.concatenate([s.values[part] for s, part in pairs]),
        targets=np.array([s.targets[u] for u, s in enumerate(sources)]),
    )
