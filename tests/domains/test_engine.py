"""The engine: brute-force equality and a bound on every user's influence."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.contributions import Part, dense_contributions
from domains.engine import batch_size, private_sum, user_memories
from domains.interactions import Interactions, user_keys
from domains.total import Total
from domains.users import UserTensors
from network.program import DataSet, Gradient, Plan, Sum
from policies.admission import PlanRefused, admit
from policies.plan import RosterEntry, Step
from policies.users import Bounds

ITEMS, WIDTH, SIZE = 12, 6, 3


def people(users: int, seed: int = 0) -> Interactions:
    random = np.random.default_rng(seed)
    lists = [random.choice(ITEMS, random.integers(1, WIDTH + 1), False) for _ in range(users)]
    return Interactions(
        names=tuple(f"u{i}" for i in range(users)),
        indptr=np.concatenate([[0], np.cumsum([len(items) for items in lists])]),
        items=np.concatenate(lists).astype(np.int64),
        values=np.ones(sum(map(len, lists)), dtype=np.float32),
        targets=random.integers(0, ITEMS, users),
        keys=user_keys(f"u{i}" for i in range(users)),
    )


def without(data: Interactions, removed: int) -> Interactions:
    """The neighbouring data set: everybody but one user."""
    lists = np.split(data.items, data.indptr[1:-1])
    del lists[removed]
    return Interactions(
        names=data.names[:removed] + data.names[removed + 1 :],
        indptr=np.concatenate([[0], np.cumsum([len(items) for items in lists])]),
        items=np.concatenate(lists),
        values=np.ones(sum(map(len, lists)), dtype=np.float32),
        targets=np.delete(data.targets, removed),
        keys=np.delete(data.keys, removed, axis=0),
    )


def plan(kind: str = "sum", clip_norm: float = 1.0) -> Plan:
    data = DataSet("clicks", ITEMS, WIDTH, 100, "0" * 64, False)

    def loss(state, user):  # type: ignore[no-untyped-def]
        hers = state["v"][user.items] * user.mask[:, None]
        return ((state["v"] @ hers.sum(0)) ** 2).sum()

    def count(state, user):  # type: ignore[no-untyped-def]
        return {"counts": torch.zeros(ITEMS).scatter_add(0, user.items, user.mask * 100)}

    def compare(state, user):  # type: ignore[no-untyped-def]
        mine = torch.tanh(state["v"][user.items]).sum(0)
        unseen = torch.sigmoid(state["v"][user.negatives] @ mine)
        # A last bit that hangs on the row's place in the batch (it does, here) becomes all of it.
        hers = (user.mask * mine.sum()).double()
        product = torch.cat([state["v"]] * 2, dim=1).double() @ hers
        last_bits = torch.sin(1e15 * product).float()
        return {"all": last_bits, "one": unseen.sum() + mine @ state["v"][user.target]}

    steps: dict[str, Sum | Gradient] = {
        "sum": Sum("s", count, clip_norm),
        "gradient": Gradient("s", loss, ["v"], clip_norm),
        "compare": Sum("s", compare, clip_norm),
    }
    step = steps[kind]
    state = {"v": torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))}
    return Plan(
        "test", "test", data, [step], state,
        memory=lambda state, user: state["v"][user.items].sum(0),
        scores=lambda state, memory: state["v"] @ memory,
    )  # fmt: skip


def bound(written: Plan):  # type: ignore[no-untyped-def]
    roster = [
        RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
        for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
    ]
    return written.bind(roster, "0" * 64)


@cache
def traced(kind: str, clip_norm: float) -> tuple[Step, dict[str, torch.Tensor]]:
    """A step and its state; traced once, since tracing takes most of a test's time."""
    written = plan(kind, clip_norm)
    step = bound(written).steps[0]
    return step, {spec.name: written.state[spec.name] for spec in step.state}


def total(step: Step, data: Interactions, state: dict[str, torch.Tensor]) -> np.ndarray:
    tensors = UserTensors(data, ITEMS, WIDTH, seed=1)
    needed = {spec.name: state[spec.name] for spec in step.state}
    return private_sum(step, needed, tensors, np.arange(data.users))


def test_gradients_equal_autograd_on_each_user_alone() -> None:
    written = plan("gradient", clip_norm=1e4)
    step, data, v = bound(written).steps[0], people(7), written.state["v"]
    expected = torch.zeros_like(v)
    for user in range(7):
        leaf = v.clone().requires_grad_()
        items = torch.from_numpy(data.items[data.indptr[user] : data.indptr[user + 1]])
        ((leaf @ leaf[items].sum(0)) ** 2).sum().backward()
        assert leaf.grad is not None
        expected += leaf.grad
    found = torch.from_numpy(total(step, data, dict(written.state)) / step.scale).reshape(v.shape)
    assert torch.allclose(found.float(), expected, rtol=1e-4, atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4), st.sampled_from([0.1, 0.37, 1.0, 5.0]))
def test_removing_one_user_changes_the_sum_by_at_most_the_clip_norm(
    seed: int, removed: int, clip_norm: float
) -> None:
    for kind in ("sum", "gradient"):
        (step, state), data = traced(kind, clip_norm), people(5, seed)
        moved = total(step, data, state) - total(step, without(data, removed), state)
        change = sum(int(x) ** 2 for x in moved)
        assert change <= int(clip_norm * step.scale) ** 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 90), st.data())
def test_removing_a_user_takes_away_her_own_integers_and_nothing_else(
    seed: int, users: int, drawn: st.DataObject
) -> None:
    data, removed = people(users + 1, seed), drawn.draw(st.integers(0, users))
    for kind in ("sum", "gradient", "compare"):
        step, state = traced(kind, 1.0)
        tensors = UserTensors(data, ITEMS, WIDTH, seed=1)
        hers = private_sum(step, state, tensors, np.array([removed]))
        change = total(step, data, state) - total(step, without(data, removed), state)
        assert np.array_equal(change, hers)
        assert sum(int(x) ** 2 for x in hers) <= step.scale**2


def test_a_round_of_few_expected_users_has_small_batches() -> None:
    """From what is declared and approved alone: the more places, the less equally they fill."""
    step, _ = traced("gradient", 1.0)
    many = batch_size(step, Bounds(ITEMS, WIDTH), 10)
    assert many == batch_size(step, Bounds(ITEMS, WIDTH, 10**6), 10) == 128
    assert batch_size(step, Bounds(ITEMS, WIDTH, 640), 10) == 32
    sampled = step.model_copy(update={"sampling_rate": 0.1})
    assert batch_size(sampled, Bounds(ITEMS, WIDTH, 640), 10) == 4
    assert batch_size(sampled, Bounds(ITEMS, WIDTH, 1), 10) == 1


def test_what_could_add_up_to_more_than_doubles_hold_exactly_is_refused() -> None:
    approved = bound(plan())
    fine = approved.steps[0].model_copy(update={"scale": 2**26, "ring": 64})
    approved = approved.model_copy(update={"steps": (fine,), "memory": None, "scores": None})
    admit(approved, Bounds(ITEMS, WIDTH, 2**27 - 1), public=False)
    with pytest.raises(PlanRefused, match="isn't exact"):
        admit(approved, Bounds(ITEMS, WIDTH, 2**27), public=False)
    with pytest.raises(ValueError, match="2\\^53"):
        Total(fine, 2**27)


def test_sums_are_exact_up_to_that() -> None:
    step, _ = traced("sum", 1.0)
    most = float(step.scale)
    total, part = Total(step, 2**20), Part(torch.zeros(3, ITEMS))
    expected = 0
    for sign in (1, 1, -1):
        units = torch.tensor([[most], [most - 1], [1.0]]).expand(3, ITEMS) * sign
        for _ in range(1000):
            total.add(units, [part])
            expected += sign * 2 * int(most)
    assert total.integers().tolist() == [expected] * ITEMS


def test_a_user_s_negatives_are_hers_whoever_else_is_there() -> None:
    for items in (ITEMS, 150, 100_000):  # all of a small catalogue; most of one; few of a large
        data = people(9)
        before = UserTensors(data, items, WIDTH, seed=1).batch(np.arange(9), ("negatives",))
        after = UserTensors(without(data, 3), items, WIDTH, seed=1)
        kept = after.batch(np.arange(8), ("negatives",))
        rest = np.delete(before["negatives"].numpy(), 3, axis=0)
        assert np.array_equal(kept["negatives"].numpy(), rest)
        assert len({tuple(row) for row in rest.tolist()}) == 8, "no two users share theirs"
        for user, row in enumerate(before["negatives"].tolist()):
            known = set(data.items[data.indptr[user] : data.indptr[user + 1]].tolist())
            assert not set(row) & (known | {int(data.targets[user])})
            assert len(set(row)) == min(99, items - len(known | {int(data.targets[user])}))


def test_another_plan_draws_other_negatives() -> None:
    data = people(3)
    one, two = (
        UserTensors(data, 100_000, WIDTH, seed).batch(np.arange(3), ("negatives",))["negatives"]
        for seed in (1, 2)
    )
    assert not torch.equal(one, two)


def test_a_user_who_knows_the_whole_catalogue_has_negatives_all_the_same() -> None:
    data = people(1)
    everything = Interactions(
        data.names, np.array([0, ITEMS]), np.arange(ITEMS), np.ones(ITEMS, np.float32),
        np.array([-1]), data.keys,
    )  # fmt: skip
    found = UserTensors(everything, ITEMS, ITEMS, 1).batch(np.arange(1), ("negatives",))
    assert found["negatives"].shape == (1, 99)
    assert set(found["negatives"][0].tolist()) == set(range(ITEMS))


def test_poisoned_state_cannot_break_the_bound() -> None:
    written = plan("gradient")
    step = bound(written).steps[0]
    for poison in (float("nan"), float("inf"), 1e38):
        state = {"v": torch.full((ITEMS, SIZE), poison)}
        found = total(step, people(1), state)
        assert sum(int(x) ** 2 for x in found) <= step.scale**2


def solving(state: dict[str, torch.Tensor], user: Any) -> torch.Tensor:
    """Singular for whoever has item 7, and for nobody's empty data too."""
    weight = user.mask.sum() * (user.items != 7).all().float()
    matrix = torch.eye(SIZE) * weight
    rows = state["v"][user.items] * user.mask[:, None]
    return torch.linalg.solve(matrix + 0 * rows.T @ rows, rows.sum(0)).sum()


def dense_solving(state: dict[str, torch.Tensor], user: Any) -> torch.Tensor:
    return solving(state, user) + (state["v"] ** 2).sum() * user.mask.sum() * 0


@pytest.mark.parametrize("loss", [solving, dense_solving])
def test_a_singular_matrix_of_one_user_stops_no_batch(loss) -> None:  # type: ignore[no-untyped-def]
    """Else the release would take longer because of her."""
    data = DataSet("clicks", ITEMS, WIDTH, 100, "0" * 64, False)
    state = {"v": torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))}
    step = bound(Plan("test", "test", data, [Gradient("s", loss, ["v"], 1e3)], state)).steps[0]
    tensors = UserTensors(people(40), ITEMS, WIDTH, seed=1)
    batch = tensors.batch(np.arange(8), step.graph.user)
    dense_contributions(step, state)(batch, None)


@pytest.mark.parametrize("loss", [solving, dense_solving])
def test_a_user_whose_numbers_fail_is_left_out_and_nobody_can_tell(loss) -> None:  # type: ignore[no-untyped-def]
    """A round that failed because of her would be a release, and one nobody pays for."""
    data = DataSet("clicks", ITEMS, WIDTH, 100, "0" * 64, False)
    state = {"v": torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))}
    written = Plan("test", "test", data, [Gradient("s", loss, ["v"], 1e3)], state)
    step, everyone = bound(written).steps[0], people(40)
    sound = [u for u in range(40) if 7 not in everyone.items[everyone.indptr[u] :][: WIDTH]
             [: everyone.indptr[u + 1] - everyone.indptr[u]]]  # fmt: skip
    assert 5 < len(sound) < 35
    tensors = UserTensors(everyone, ITEMS, WIDTH, seed=1)
    alone = [private_sum(step, state, tensors, np.array([user])) for user in sound]
    assert np.array_equal(private_sum(step, state, tensors, np.arange(40)), sum(alone))
    assert all(hers.any() for hers in alone)
    for singular in set(range(40)) - set(sound):
        assert not private_sum(step, state, tensors, np.array([singular])).any()


def test_a_failing_user_takes_nobody_with_her_whatever_place_she_is_in() -> None:
    """Nor does she where the user without interactions fails as well: a mock fills the batch."""

    def loss(state, user):  # type: ignore[no-untyped-def]
        enough = (user.mask.sum() >= 2).float()
        rows = state["v"][user.items] * user.mask[:, None]
        return torch.linalg.solve(torch.eye(SIZE) * enough, rows.sum(0)).sum()

    data = DataSet("clicks", ITEMS, WIDTH, 100, "0" * 64, False)
    written = Plan("t", "t", data, [Gradient("s", loss, ["v"], 1e3)], {"v": torch.randn(ITEMS, 3)})
    step, everyone = bound(written).steps[0], people(60)
    counts = np.diff(everyone.indptr)
    assert 3 < (counts == 1).sum() < 30
    tensors = UserTensors(everyone, ITEMS, WIDTH, seed=1)
    alone = [private_sum(step, written.state, tensors, np.array([user])) for user in range(60)]
    assert [hers.any() for hers in alone] == [count > 1 for count in counts]
    found = private_sum(step, written.state, tensors, np.arange(60))
    assert np.array_equal(found, sum(alone))


def test_a_matrix_that_is_singular_for_everybody_gives_nothing_whoever_the_users_are() -> None:
    def loss(state, user):  # type: ignore[no-untyped-def]
        rows = state["v"][user.items] * user.mask[:, None]
        return torch.linalg.solve(torch.eye(SIZE) * state["w"], rows.sum(0)).sum()

    data = DataSet("clicks", ITEMS, WIDTH, 100, "0" * 64, False)
    state = {"v": torch.randn(ITEMS, 3), "w": torch.ones(())}
    step = bound(Plan("t", "t", data, [Gradient("s", loss, ["v"], 1e3)], state)).steps[0]
    tensors = UserTensors(people(5), ITEMS, WIDTH, seed=1)
    assert private_sum(step, state, tensors, np.arange(5)).any()
    assert not private_sum(step, {**state, "w": torch.zeros(())}, tensors, np.arange(5)).any()


def test_a_product_of_nothing_changes_no_bit_of_the_others() -> None:
    def loss(state, user):  # type: ignore[no-untyped-def]
        return torch.prod(state["v"][user.items] + user.mask[:, None])

    data = DataSet("clicks", ITEMS, WIDTH, 100, "0" * 64, False)
    state = {"v": torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))}
    state["v"][3] = -1.0
    step = bound(Plan("t", "t", data, [Gradient("s", loss, ["v"], 1e3)], state)).steps[0]
    tensors = UserTensors(people(20), ITEMS, WIDTH, seed=1)
    alone = sum(private_sum(step, state, tensors, np.array([user])) for user in range(20))
    assert np.array_equal(private_sum(step, state, tensors, np.arange(20)), alone)


def remembering() -> Plan:
    """Her memory counts her releases and follows her items; it is a factor of what she adds."""

    def remember(state, user):  # type: ignore[no-untyped-def]
        news = torch.stack([torch.ones(()), (state["v"][user.items, 0]).sum()])
        return user.memory + torch.tensor([1.0, 0.5]) * news

    def add(state, user):  # type: ignore[no-untyped-def]
        return {"seen": user.memory[0] * user.mask.sum() + 0 * state["v"].sum()}

    data = DataSet("clicks", ITEMS, WIDTH, 100, "0" * 64, True)
    state = {"v": torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))}
    return Plan("t", "t", data, [Sum("s", add, 1e3, releases=3)], state, epsilon=None,
                memory=remember, memory_size=2)  # fmt: skip


def test_a_users_memory_hangs_on_nobody_else() -> None:
    memory, everyone = bound(remembering()).memory, people(30)
    state = {"v": torch.randn(ITEMS, SIZE, generator=torch.Generator().manual_seed(0))}
    assert memory is not None
    tensors = UserTensors(everyone, ITEMS, WIDTH, seed=1)
    together = user_memories(memory, state, tensors, np.arange(30))
    for user in range(30):
        hers = user_memories(memory, state, tensors, np.array([user]))[0]
        assert np.array_equal(hers, together[user])
