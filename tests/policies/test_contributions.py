"""Losses and statistics of a state as plans: factors, regressions, local steps, counts."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from network.program import Plan, Sum
from policies.users import User
from tests.policies.one_user_alone import (
    DATA,
    FEATURES,
    ITEMS,
    SIZE,
    Case,
    check,
    gradient,
    normal,
    pairs,
    summed,
    users,
)
from tests.policies.test_modules import Perceptron


def logistic_regression() -> Case:
    def loss(state, user):
        x, labels, weights = pairs(state["features"], user)
        logits = x @ state["weights"] + state["bias"]
        each = fn.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (each * weights).sum()

    state = {
        "features": normal(ITEMS, FEATURES),
        "weights": normal(3 * FEATURES, seed=1),
        "bias": normal(1, seed=2),
    }
    return gradient(loss, state, "weights", "bias")


def linear_regression() -> Case:
    def statistics(state, user):
        x = state["features"][user.items] * user.mask[:, None]
        return {"xx": x.T @ x, "xy": x.T @ user.values, "yy": user.values @ user.values}

    return summed(statistics, {"features": normal(ITEMS, FEATURES)})


def squared_error(vectors: Tensor, mine: Tensor, user: User) -> Tensor:
    predicted = vectors[user.items] @ mine
    return (user.mask * (user.values - predicted) ** 2).sum() + 0.1 * (vectors**2).sum()


def factorisation_with_stored_memory() -> Case:
    def loss(state, user):
        return squared_error(state["vectors"], user.memory, user)

    def descend(state, user):
        mine = torch.where((user.memory == 0).all(), 0.1, user.memory)
        hers = state["vectors"][user.items] * user.mask[:, None]
        return mine - 0.1 * hers.T @ (hers @ mine - user.values)

    return gradient(
        loss, {"vectors": normal(ITEMS, SIZE)}, "vectors", memory=descend, memory_size=SIZE
    )


def factorisation_with_solved_memory() -> Case:
    def solved(state, user):
        hers = state["vectors"][user.items] * user.mask[:, None]
        gram = hers.T @ hers + 0.5 * torch.eye(SIZE)
        return torch.linalg.solve(gram, hers.T @ user.values)

    def loss(state, user):
        return squared_error(state["vectors"], solved(state, user), user)

    return gradient(loss, {"vectors": normal(ITEMS, SIZE)}, "vectors", memory=solved)


def local_steps() -> Case:
    """User-level FedAvg (McMahan et al. 2018): the change after three local steps."""

    def loss(model, weights, user):
        tensors = {f"layers.{name}": value for name, value in weights.items()}
        x, labels, mask = pairs(model.features, user)
        hidden = torch.relu(fn.linear(x, tensors["layers.0.weight"], tensors["layers.0.bias"]))
        logits = fn.linear(hidden, tensors["layers.2.weight"], tensors["layers.2.bias"]).squeeze(1)
        each = fn.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (each * mask).sum()

    def change(model, user):
        first = {"0.weight": model.hidden.weight, "0.bias": model.hidden.bias}
        first |= {"2.weight": model.out.weight, "2.bias": model.out.bias}
        weights = first
        for _ in range(3):
            found = torch.func.grad(lambda w: loss(model, w, user))(weights)
            weights = {name: value - 0.1 * found[name] for name, value in weights.items()}
        return {name.replace(".", "_"): weights[name] - first[name] for name in first}

    def by_autograd(model, user):
        names = ("0.weight", "0.bias", "2.weight", "2.bias")
        first = [model.hidden.weight, model.hidden.bias, model.out.weight, model.out.bias]
        weights = [tensor.detach().clone().requires_grad_() for tensor in first]
        for _ in range(3):
            named = dict(zip(names, weights, strict=True))
            found = torch.autograd.grad(loss(model, named, user), weights)
            weights = [
                (w - 0.1 * g).detach().requires_grad_() for w, g in zip(weights, found, strict=True)
            ]
        ends = zip(names, weights, first, strict=True)
        return {"layers." + n: w - f for n, w, f in ends}

    def renamed(model, user):
        return {"w_" + name: value for name, value in change(model, user).items()}

    def expected(model, user):
        found = by_autograd(model, user)
        return {"w_" + n[len("layers.") :].replace(".", "_"): t for n, t in found.items()}

    plan = Plan("m", "t", DATA, [Sum("s", renamed, 1.0)], epsilon=None, model=Perceptron())
    return Case(plan, expected)


def local_steps_on_embeddings() -> Case:
    """As above, where gradients reach tables by look-up, indexing and softmax."""

    def change(state, user):
        def loss(weights):
            mine = fn.embedding(user.items, weights["table"], padding_idx=0).sum(0)
            logits = weights["table"] @ torch.tanh(fn.layer_norm(mine, (SIZE,)))
            good = weights["table"][user.items] @ mine
            return -fn.log_softmax(logits, 0)[user.target] - fn.logsigmoid(good).mean()

        found = torch.func.grad(loss)({"table": state["table"]})
        return {"change": -0.1 * found["table"]}

    def by_autograd(state, user):
        leaf = state["table"].clone().requires_grad_()
        mine = fn.embedding(user.items, leaf, padding_idx=0).sum(0)
        logits = leaf @ torch.tanh(fn.layer_norm(mine, (SIZE,)))
        good = leaf[user.items] @ mine
        (-fn.log_softmax(logits, 0)[user.target] - fn.logsigmoid(good).mean()).backward()
        return {"change": -0.1 * leaf.grad}

    return replace(summed(change, {"table": normal(ITEMS, SIZE)}), function=by_autograd)


def als_statistics() -> Case:
    """Hu, Koren and Volinsky 2008: every item's normal equations, with the user solved inside."""

    def contribution(state, user):
        hers = state["vectors"][user.items]
        weights = user.mask * (1 + 10 * user.values)
        gram = state["vectors"].T @ state["vectors"] + 0.1 * torch.eye(SIZE)
        gram = gram + hers.T @ ((weights - user.mask)[:, None] * hers)
        mine = torch.linalg.solve(gram, hers.T @ weights)
        seen = torch.zeros(ITEMS).index_add(0, user.items, weights)
        return {
            "left": seen[:, None, None] * torch.outer(mine, mine),
            "right": seen[:, None] * mine,
        }

    return summed(contribution, {"vectors": normal(ITEMS, SIZE)})


def popularity() -> Case:
    def count(state, user):
        return {"counts": torch.zeros(ITEMS).scatter_add(0, user.items, user.mask)}

    return summed(count, {})


def metrics() -> Case:
    """HR@10, NDCG@10 and AUC against the sampled negatives, and over the whole catalogue."""

    def evaluate(state, user):
        scores = state["vectors"] @ (state["vectors"][user.items] * user.mask[:, None]).sum(0)
        rivals = scores[user.negatives]
        rank = ((rivals >= scores[user.target]) & (user.negatives != user.target)).sum()
        hit = user.has_target * (rank < 10)
        auc = (rivals < scores[user.target]).float().mean()
        full = (scores > scores[user.target]).sum()
        figures = [hit, hit / torch.log2(rank + 2.0), user.has_target * auc, user.has_target]
        return {"quality": torch.stack(figures), "full_hit": user.has_target * (full < 10)}

    return summed(evaluate, {"vectors": normal(ITEMS, SIZE)})


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        logistic_regression,
        linear_regression,
        factorisation_with_stored_memory,
        factorisation_with_solved_memory,
        local_steps,
        local_steps_on_embeddings,
        als_statistics,
        popularity,
        metrics,
    )
}


@pytest.mark.parametrize("name", CASES)
def test_each_user_contributes_what_plain_pytorch_computes(name: str) -> None:
    torch.manual_seed(0)
    memory = SIZE if name == "factorisation_with_stored_memory" else None
    check(CASES[name](), users(memory))
