"""A plan as its author writes it: bound to a roster it is one hash, the same everywhere."""

import math

import pytest
import torch

import coterie as ct
from network.updates import noise_std
from policies.accounting import plan_epsilon
from policies.plan import RosterEntry
from policies.trace import TraceError

DATA = ct.DataSet("interactions", 12, 4, 300, "0" * 64, False)
AUTHOR = "ab" * 32


def roster(size: int = 3) -> list[RosterEntry]:
    return [
        RosterEntry(name=n, server_uid=f"{i}" * 32, node_key=f"{i}" * 64, owner_key=f"{i}" * 64)
        for i, n in enumerate("abcdefgh"[:size])
    ]


def count(state, user):  # type: ignore[no-untyped-def]
    return {"counts": torch.zeros(DATA.items).scatter_add(0, user.items, user.mask)}


def loss(state, user):  # type: ignore[no-untyped-def]
    return (state["table"][user.items].sum(1) * user.mask).sum()


def plan(**changes: object) -> ct.Plan:
    facts = {
        "name": "two steps",
        "purpose": "a test",
        "data": DATA,
        "steps": [
            ct.Sum("count", count, clip_norm=2.0, weight=0.1),
            ct.Gradient("train", loss, parameters=["table"], releases=10, weight=0.9),
        ],
        "state": {"table": torch.ones(DATA.items, 3)},
        **changes,
    }
    return ct.Plan(**facts)  # type: ignore[arg-type]


def test_the_same_plan_has_the_same_hash_in_any_order_of_the_roster() -> None:
    once = plan().bind(roster(), AUTHOR)
    assert plan().bind(roster()[::-1], AUTHOR).hash == once.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "another"},
        {"epsilon": 7.0},
        {"spare_attempts": 3},
        {"steps": [ct.Sum("count", count, clip_norm=2.5)]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_an_owner_approves_is_in_the_hash(changes: dict) -> None:
    assert plan(**changes).bind(roster(), AUTHOR).hash != plan().bind(roster(), AUTHOR).hash


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_noise_gives_the_epsilon_that_was_asked_for(epsilon: float) -> None:
    bound = plan(epsilon=epsilon).bind(roster(), AUTHOR)
    found = plan_epsilon(bound.events(), bound.delta)
    assert 0.98 * epsilon <= found <= epsilon


def test_fewer_survivors_cost_more_noise() -> None:
    whole = plan().bind(roster(5), AUTHOR)
    fewer = plan(threshold=4, collusion=1).bind(roster(5), AUTHOR)
    step = whole.steps[0]
    assert whole.collusion == 2
    assert noise_std(whole, step) == pytest.approx(
        step.noise_multiplier * step.clip_norm * math.sqrt(5 / 3)
    )
    assert noise_std(fewer, fewer.steps[0]) == pytest.approx(noise_std(whole, step))


def test_without_epsilon_a_plan_says_that_it_is_public() -> None:
    bound = plan(epsilon=None).bind(roster(), AUTHOR)
    assert bound.public
    assert {step.noise_multiplier for step in bound.steps} == {0.0}


def test_only_trained_tensors_are_released() -> None:
    train = plan().bind(roster(), AUTHOR).steps[1]
    assert [(spec.name, tuple(spec.shape)) for spec in train.outputs] == [("table", (12, 3))]
    steps = [ct.Gradient("train", loss, parameters=["tabel"])]
    with pytest.raises(TraceError, match="uses no float tensor of that name"):
        plan(steps=steps).bind(roster(), AUTHOR)


def test_a_plan_has_a_state_or_a_model() -> None:
    with pytest.raises(ValueError, match="a state or a model"):
        plan(model=torch.nn.Linear(1, 1))
