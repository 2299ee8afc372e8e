"""A plan's computation on made-up users: what it gives, before anyone decides about real ones.

Users are drawn from the declared sizes alone and the state is noise, so the figures say whether the
graph runs and how large contributions get, not how good the model will be. Nothing is released and
nothing is charged.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.graph import DTYPES, Graph, GraphFailed, TensorSpec
from policies.plan import Plan, Step

_STATE_SCALE = 0.1


@dataclass(frozen=True)
class Rehearsed:
    """One step on made-up users.

    Attributes:
        step: its name.
        outputs: name, shape and dtype of what one user would add.
        norms: L2 norm of each made-up user's contribution before clipping.
        clip_norm: the plan's bound on it.
        problem: why it didn't run; empty if it did.
    """

    step: str
    outputs: tuple[str, ...]
    norms: tuple[float, ...]
    clip_norm: float
    problem: str = ""

    @property
    def clipped(self) -> float:
        """The part of these users whose contribution would be clipped, 0 to 1."""
        return sum(norm > self.clip_norm for norm in self.norms) / max(1, len(self.norms))


def rehearse(plan: Plan, items: int, users: int = 16, seed: int = 0) -> list[Rehearsed]:
    """Run every step of an admitted plan on made-up users.

    Args:
        plan: one that a node admitted, so that its graphs are bounded in time and memory.
        items: size of the declared catalogue.
        users: how many to make up.
        seed: the same seed gives the same figures.
    """
    random = torch.Generator().manual_seed(seed)
    return [_rehearsed(step, items, users, random) for step in plan.steps]


def made_up_state(spec: TensorSpec, random: torch.Generator) -> Tensor:
    """Small noise; zeros where there are no fractions."""
    if spec.dtype in ("float32", "float64"):
        return _STATE_SCALE * torch.randn(spec.shape, generator=random, dtype=DTYPES[spec.dtype])
    return torch.zeros(spec.shape, dtype=DTYPES[spec.dtype])


def _rehearsed(step: Step, items: int, users: int, random: torch.Generator) -> Rehearsed:
    state = {spec.name: made_up_state(spec, random) for spec in step.graph.state}
    shapes = tuple(f"{s.name} {s.dtype}{list(s.shape)}" for s in step.outputs)
    try:
        norms = tuple(
            _norm(step, {**state, **_user(step.graph, items, random)}) for _ in range(users)
        )
    except GraphFailed as error:
        return Rehearsed(step.name, shapes, (), step.clip_norm, str(error))
    return Rehearsed(step.name, shapes, norms, step.clip_norm)


def _norm(step: Step, values: dict[str, Tensor]) -> float:
    names = [spec.name for spec in step.outputs]
    if step.kind == "sum":
        found = step.graph.run(values)
        parts = [found[name] for name in names]
    else:
        leaves = [values[name].clone().requires_grad_() for name in names]
        loss = step.graph.run({**values, **dict(zip(names, leaves, strict=True))})["loss"]
        parts = [
            torch.zeros_like(leaf) if grad is None else grad
            for leaf, grad in zip(
                leaves, torch.autograd.grad(loss, leaves, allow_unused=True), strict=True
            )
        ]
    # As on the node, what isn't finite adds nothing.
    flat = torch.cat([torch.nan_to_num(p.detach().double(), 0.0, 0.0, 0.0).ravel() for p in parts])
    return float(flat.norm())


def _user(graph: Graph, items: int, random: torch.Generator) -> dict[str, Tensor]:
    specs = {spec.name: spec for spec in graph.inputs if spec.name in graph.user}
    found = {}
    for name, spec in specs.items():
        if name in ("items", "target", "negatives"):
            found[name] = torch.randint(items, spec.shape, generator=random)
        elif name == "memory":
            found[name] = torch.zeros(spec.shape)
        else:
            found[name] = torch.ones(spec.shape)
        found[name] = found[name].to(DTYPES[spec.dtype])
    return found
