"""A step beside plain PyTorch: what the admitted graph computes for each user is what it computes.

The step is traced, admitted, and mapped over users as a node does it (`vmap` of `grad`); each
user's result is compared with plain autograd on her alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from network.program import DataSet, Gradient, Plan, Sum
from policies.admission import Bounds, admit
from policies.graph import NEGATIVES
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry
from policies.users import User, user_specs

ITEMS, WIDTH, SIZE, FEATURES, WORDS, TOKENS = 30, 8, 6, 5, 20, 4
DATA = DataSet("clicks", ITEMS, WIDTH, 300, "0" * 64, True)
ROSTER = [
    RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
    for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
]
PRECISION = 1e-5


@dataclass(frozen=True)
class Case:
    """A step in its plan, and its function for PyTorch alone."""

    plan: Plan
    function: Callable[[Any, Any], Any]


def users(memory: int | None = None) -> list[User]:
    """Six users: with one interaction, with all, with repeated items, without a target."""
    random = torch.Generator().manual_seed(3)
    found = []
    for length in (1, 2, 4, 5, WIDTH, WIDTH):
        mask = (torch.arange(WIDTH) < length).float()
        items = torch.randint(0, ITEMS, (WIDTH,), generator=random)
        values = torch.randint(1, 6, (WIDTH,), generator=random) / 5
        found.append(
            User(
                items=items * mask.long(),
                mask=mask,
                values=values * mask,
                target=torch.randint(0, ITEMS, (), generator=random),
                has_target=torch.tensor(float(length != 2)),
                negatives=torch.randint(0, ITEMS, (NEGATIVES,), generator=random),
                memory=None if memory is None else torch.randn(memory, generator=random),
            )
        )
    return found


def approved(plan: Plan) -> ApprovablePlan:
    bound = plan.bind(ROSTER, "0" * 64)
    admit(bound, Bounds(ITEMS, WIDTH, 100), public=True)
    return bound


def mapped(plan: Plan, people: list[User]) -> dict[str, Tensor]:
    """The contributions of all users at once, from the plan's text alone, as a node gets it."""
    [step] = ApprovablePlan.from_json(approved(plan).to_json()).steps
    names = [name for name in user_specs(Bounds(ITEMS, WIDTH), 1) if name in step.graph.user]
    batch = {name: torch.stack([getattr(user, name) for user in people]) for name in names}
    state = {spec.name: plan.state[spec.name] for spec in step.state}

    def contribution(user: dict[str, Tensor]) -> dict[str, Tensor]:
        if step.kind == "sum":
            return step.graph.run({**state, **user})
        chosen = {spec.name: state[spec.name] for spec in step.outputs}
        return torch.func.grad(lambda part: step.graph.run({**state, **part, **user})["loss"])(
            chosen
        )

    return torch.func.vmap(contribution)(batch)


def alone(case: Case, user: User) -> dict[str, Tensor]:
    """One user's contribution by plain PyTorch, without functorch or graphs."""
    [step] = case.plan.steps
    if isinstance(step, Sum):
        with torch.enable_grad():
            found = case.function(case.plan.model or case.plan.state, user)
        return {name: tensor.detach() for name, tensor in found.items()}
    if case.plan.model is not None:
        model = case.plan.model
        model.zero_grad()
        case.function(model, user).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    leaves = {name: t.clone() for name, t in case.plan.state.items()}
    for name in step.parameters or ():
        leaves[name].requires_grad_()
    case.function(leaves, user).backward()
    return {name: t.grad for name, t in leaves.items() if t.grad is not None}


def flat(tensors: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([tensors[name].double().flatten() for name in names])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(loss: Callable, state: dict[str, Tensor], *names: str, **more: Any) -> Case:
    return Case(Plan("m", "test", DATA, [Gradient("s", loss, names)], state, None, **more), loss)


def trained(loss: Callable, model: nn.Module, **more: Any) -> Case:
    plan = Plan("m", "test", DATA, [Gradient("s", loss)], epsilon=None, model=model, **more)
    return Case(plan, loss)


def summed(contribution: Callable, state: dict[str, Tensor], **more: Any) -> Case:
    step = Sum("s", contribution, 1.0)
    return Case(Plan("m", "test", DATA, [step], state, None, **more), contribution)


def check(case: Case, people: list[User]) -> None:
    """Every user's contribution is that of plain PyTorch, and finite."""
    found = mapped(case.plan, people)
    for index, user in enumerate(people):
        expected = alone(case, user)
        hers = {output: tensor[index] for output, tensor in found.items()}
        assert set(hers) == set(expected)
        names = sorted(hers)
        wanted = flat(expected, names)
        error = torch.linalg.vector_norm(flat(hers, names) - wanted)
        assert float(error) <= PRECISION * max(float(wanted.norm()), 1e-6)
        assert bool(torch.isfinite(wanted).all())


def pairs(features: Tensor, user: User) -> tuple[Tensor, Tensor, Tensor]:
    """(user, item) features, labels and weights of her items and as many negatives."""
    items = torch.cat([user.items, user.negatives[:WIDTH]])
    liking = (user.values[:, None] * features[user.items]).sum(0) / user.mask.sum()
    x = torch.cat([features[items], features[items] * liking, liking.expand(2 * WIDTH, -1)], 1)
    labels = torch.cat([torch.ones(WIDTH), torch.zeros(WIDTH)])
    return x, labels, torch.cat([user.mask, user.mask])
