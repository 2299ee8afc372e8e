"""Sparse tables: the same gradients as dense ones, for any way in which a graph gathers rows."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding, softplus

from domains.contributions import contributions, merge_rows
from domains.engine import private_sum
from domains.lowering import gather_rows, hoist
from domains.users import UserTensors
from network.program import DataSet, Gradient, Plan
from policies.graph import Graph
from policies.plan import RosterEntry, Step
from tests.domains.test_engine import ITEMS, WIDTH, people, without

torch.set_num_threads(1)
State = dict[str, Tensor]


def start() -> State:
    random = torch.Generator().manual_seed(0)
    sizes = {"v": (ITEMS, 3), "bias": (ITEMS,), "cube": (ITEMS, 2, 2), "w": (3, 2), "p": (WIDTH, 3)}
    return {name: torch.randn(size, generator=random) for name, size in sizes.items()}


def once(state: State, user: Any) -> Tensor:
    return ((state["v"][user.items] * user.mask[:, None]).sum(0) ** 2).sum()


def padded(state: State, user: Any) -> Tensor:
    return torch.tanh(embedding(user.items, state["v"], padding_idx=2)).sum()


def again_and_again(state: State, user: Any) -> Tensor:
    mine = state["v"][user.items].mean(0)
    others = embedding(user.negatives, state["v"]) @ mine
    target = state["v"].index_select(0, user.target.reshape(1))[0] @ mine
    return softplus(others - target).sum()


def several_tables(state: State, user: Any) -> Tensor:
    hidden = torch.relu(state["v"][user.items] @ state["w"])
    cube = state["cube"][user.items].sum((1, 2))
    return (hidden.sum(1) + state["bias"][user.items] * cube + state["bias"][user.target]).sum()


def counted_from_the_end(state: State, user: Any) -> Tensor:
    return (state["v"][user.items - ITEMS] * state["v"][user.items] * user.mask[:, None]).sum()


def tied(state: State, user: Any) -> Tensor:
    """A full softmax over the table that is gathered from too: dense by nature."""
    mine = state["v"][user.items].mean(0) + state["p"].sum(0)
    return cross_entropy((state["v"] @ mine)[None], user.target[None])


def chosen_by_itself(state: State, user: Any) -> Tensor:
    """The ids hang on the table: it can't be taken apart."""
    positive = (state["v"][user.items][:, 0] > 0).long()
    return (state["v"][positive] ** 2).sum()


SPARSE: dict[Callable, tuple[str, ...]] = {
    once: ("v",),
    padded: ("v",),
    again_and_again: ("v",),
    several_tables: ("v", "bias", "cube", "w"),
    counted_from_the_end: ("v",),
}
DENSE: dict[Callable, tuple[str, ...]] = {tied: ("v", "p"), chosen_by_itself: ("v",)}


@cache
def traced(loss: Callable, clip_norm: float) -> Step:
    parameters = (SPARSE | DENSE)[loss]
    data = DataSet("clicks", ITEMS, WIDTH, 100, "0" * 64, False)
    plan = Plan("t", "t", data, [Gradient("s", loss, parameters, clip_norm)], start())
    roster = [
        RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
        for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
    ]
    return plan.bind(roster, "0" * 64).steps[0]


class One:
    """One user's tensors, as a loss sees them."""

    def __init__(self, tensors: State, user: int) -> None:
        self.__dict__.update({name: tensor[user] for name, tensor in tensors.items()})


def by_brute_force(loss: Callable, clip_norm: float, users: State, count: int) -> Tensor:
    """Autograd on each user alone, clipped over all parameters in float64, and summed."""
    total = torch.zeros(1)
    for user in range(count):
        state = start()
        leaves = [state[name].requires_grad_() for name in (SPARSE | DENSE)[loss]]
        found = torch.autograd.grad(loss(state, One(users, user)), leaves)
        flat = torch.cat([gradient.flatten() for gradient in found]).double()
        total = total + flat * min(1.0, clip_norm / float(flat.norm()))
    return total


@pytest.mark.parametrize("loss", [*SPARSE, *DENSE])
@pytest.mark.parametrize("clip_norm", [0.5, 1e3])
def test_sums_equal_autograd_on_each_user_alone(loss: Callable, clip_norm: float) -> None:
    step, data = traced(loss, clip_norm), people(9)
    tensors = UserTensors(data, ITEMS, WIDTH, seed=1)
    state = {spec.name: start()[spec.name] for spec in step.state}
    found = torch.from_numpy(private_sum(step, state, tensors, np.arange(9))).double() / step.scale
    names = ("items", "mask", "values", "target", "has_target", "negatives")
    users = tensors.batch(np.arange(9), names)
    expected = by_brute_force(loss, clip_norm, users, 9)
    # Truncation takes up to one unit from each number of each of the nine users.
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max() + 9 / step.scale


@pytest.mark.parametrize("loss", [*SPARSE, *DENSE])
def test_only_tables_that_are_gathered_from_are_fed_by_rows(loss: Callable) -> None:
    step = traced(loss, 0.5)
    tensors = UserTensors(people(2), ITEMS, WIDTH, seed=1)
    state = {spec.name: start()[spec.name] for spec in step.state}
    parts = contributions(step, state, tensors).of(
        tensors.batch(np.arange(2), step.graph.user), None
    )
    sparse = {
        spec.name for spec, part in zip(step.outputs, parts, strict=True) if part.ids is not None
    }
    assert sparse == ({"v", "bias", "cube"} & set(SPARSE.get(loss, ())))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*SPARSE]), st.integers(0, 10_000), st.integers(1, 40), st.data())
def test_a_user_s_rows_are_hers_and_keep_the_clip_norm(
    loss: Callable, seed: int, users: int, drawn: st.DataObject
) -> None:
    step, data, removed = (
        traced(loss, 0.5),
        people(users + 1, seed),
        drawn.draw(st.integers(0, users)),
    )
    state = {spec.name: start()[spec.name] for spec in step.state}
    everyone = UserTensors(data, ITEMS, WIDTH, seed=1)
    hers = private_sum(step, state, everyone, np.array([removed]))
    rest = UserTensors(without(data, removed), ITEMS, WIDTH, seed=1)
    change = private_sum(step, state, everyone, np.arange(users + 1)) - private_sum(
        step, state, rest, np.arange(users)
    )
    assert np.array_equal(change, hers)
    assert sum(int(x) ** 2 for x in hers) <= (step.scale // 2) ** 2


def test_poisoned_tables_cannot_break_the_bound() -> None:
    for loss in SPARSE:
        step, tensors = traced(loss, 0.5), UserTensors(people(1), ITEMS, WIDTH, seed=1)
        for poison in (float("nan"), float("inf"), 1e38, 1e20):
            state = {s.name: torch.full(s.shape, poison) for s in step.state}
            found = private_sum(step, state, tensors, np.arange(1))
            assert sum(int(x) ** 2 for x in found) <= (step.scale // 2) ** 2


def test_rows_of_one_id_become_one_row() -> None:
    values = torch.tensor([[[1.0], [2.0], [4.0]], [[8.0], [16.0], [32.0]]])
    part = merge_rows(values, torch.tensor([[5, 3, 5], [5, 3, 4]]))
    assert part.values.squeeze(-1).tolist() == [[5.0, 2.0, 0.0], [8.0, 16.0, 32.0]]
    assert part.real is not None
    assert sorted(part.real.tolist()) == [0, 1, 3, 4, 5]


def test_what_hangs_on_public_state_alone_is_computed_once() -> None:
    graph = traced(tied, 0.5).graph
    state = {spec.name: start()[spec.name] for spec in graph.state}
    rest, computed = hoist(graph, {"p": state["p"]})
    assert len(rest.nodes) < len(graph.nodes)
    user = UserTensors(people(1), ITEMS, WIDTH, 1).batch(np.arange(1), graph.user)
    one = {name: tensor[0] for name, tensor in user.items()}
    assert torch.equal(
        rest.run({**state, **computed, **one})["loss"], graph.run({**state, **one})["loss"]
    )


def test_names_that_look_like_rows_are_no_obstacle() -> None:
    graph = traced(once, 0.5).graph
    text = graph.model_dump_json().replace('"v"', '"rows.0"')
    renamed = Graph.model_validate_json(text)
    user = UserTensors(people(1), ITEMS, WIDTH, 1).batch(np.arange(1), graph.user)
    example = {"rows.0": start()["v"], **{name: tensor[0] for name, tensor in user.items()}}
    found = gather_rows(renamed, ["rows.0"], example)
    assert found is not None
    assert found.tables == {"rows.0"}
    assert "rows.0" not in found.rows
