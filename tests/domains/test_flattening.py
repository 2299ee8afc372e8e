"""A graph is mapped over users once, without numbers; what runs then is the same for everybody."""

import math

import pytest
import torch

from domains import flattening
from domains.flattening import mapped
from policies.graph import GraphFailed
from policies.trace import trace
from policies.users import Bounds, User

BOUNDS = Bounds(items=7, interactions=5)


def loss(state: dict[str, torch.Tensor], user: User) -> torch.Tensor:
    hers = state["table"][user.items] * user.mask[:, None]
    return (torch.tanh(hers @ state["head"]) ** 2).sum() + hers.prod()


def state(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "table": torch.randn(7, 3, generator=random),
        "head": torch.randn(3, generator=random),
    }


def users(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "items": torch.randint(0, 7, (6, 5), generator=random),
        "mask": torch.rand(6, 5, generator=random).round(),
    }


@pytest.mark.parametrize("seed", range(5))
def test_each_gets_the_gradient_of_her_loss_alone(seed: int) -> None:
    graph, batch, weights = trace(loss, state(0), BOUNDS), users(seed), state(seed)
    found = mapped(graph, graph.user, ["table", "head"])({**weights, **batch})
    for place in range(6):
        her_own = {name: tensor[place] for name, tensor in batch.items()}
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
        graph.run({**leaves, **her_own})["loss"].backward()
        for name, leaf in leaves.items():
            assert torch.allclose(found[name][place], leaf.grad, rtol=1e-5, atol=1e-6)


def attention(state: dict[str, torch.Tensor], user: User) -> dict[str, torch.Tensor]:
    hidden = torch.where(user.mask > 0, 0.0, -math.inf).expand(5, 5)
    scores = state["table"][user.items] @ state["table"][user.items].T + hidden
    nobody = (scores == -math.inf).all(dim=1)
    return {"weights": torch.softmax(scores, 1), "nobody": nobody.float()}


def test_rows_of_scores_that_are_all_hidden_are_found_beside_others_and_nan() -> None:
    graph, batch, weights = trace(attention, state(0), BOUNDS), users(0), state(0)
    batch["mask"][0] = 0
    weights["table"][3] = math.nan
    batch["items"][:2] = torch.tensor([[0, 1, 2, 4, 5], [0, 1, 2, 3, 3]])
    found = mapped(graph, graph.user)({**weights, **batch})
    for place in range(6):
        hers = graph.run({**weights, **{name: tensor[place] for name, tensor in batch.items()}})
        assert torch.equal(found["nobody"][place], hers["nobody"])
        assert torch.allclose(found["weights"][place], hers["weights"], equal_nan=True)
    assert found["nobody"].sum() == 5


def test_another_state_and_other_users_need_no_other_operators() -> None:
    graph = trace(loss, state(0), BOUNDS)
    flattening._written_out.cache_clear()
    for seed in range(4):
        # A new round prepares its step anew.
        mapped(graph, graph.user, ["head"])({**state(seed), **users(seed)})
    assert flattening._written_out.cache_info().misses == 1


def test_a_failing_operator_is_named_by_its_kind_and_quotes_nothing() -> None:
    graph = trace(lambda s, u: s["table"][u.items].sum(), state(0), BOUNDS)
    batch = {"items": torch.full((6, 5), 123456)}
    with pytest.raises(GraphFailed, match="An operation failed") as caught:
        mapped(graph, graph.user)({"table": state(0)["table"], **batch})
    assert "123456" not in str(caught.value)
