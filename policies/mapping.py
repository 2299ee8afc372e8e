"""A graph mapped over users as the engine maps it: what must hold of that for a plan's admission.

PyTorch's `vmap` has a rule of its own for each operation. Where a rule takes the users for an axis
of the graph's own, one user's numbers would reach another's; where it, or the operation itself,
fails whatever the numbers are, nothing would ever be released.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, vmap

from policies.graph import Graph, GraphFailed, TensorSpec
from policies.inspection import Usage, shapes_of
from policies.plan import Plan
from policies.refusals import PlanRefused
from policies.rehearsal import made_up_state
from policies.users import Bounds, mock_user, user_specs

Seen = Callable[[str, Any], None]
Tensors = dict[str, Tensor]


def check_mapped(
    where: str,
    graph: Graph,
    bounds: Bounds,
    trained: tuple[TensorSpec, ...] | None,
    memory: int | None,
    usage: Usage,
) -> None:
    """Map the graph (or, with `trained`, its gradient) over a few fake users, as the engine will.

    What fails then would fail for every user, whatever her data; what doesn't, never fails. Every
    node must have the same shape for each user as for one alone: where PyTorch's rule for mapping
    an operation takes the users for an axis of the graph's own, it shows in a shape, since no axis
    is as long as there are users.

    Raises:
        PlanRefused: rule "mapping".
    """

    def check_shape(node: str, result: Any) -> None:
        if shapes_of(result) != usage.shapes[node]:
            raise GraphFailed(f"{node} has another shape there than for one user, and may mix them")

    if not graph.user:
        raise PlanRefused("mapping", f"{where} reads nothing of a user.")
    specs = user_specs(bounds, memory)
    count = _users_unlike(graph, usage)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            state = {spec.name: spec.empty() for spec in graph.state}
            users = {name: specs[name].empty(users=count) for name in graph.user}
            _mapped(graph, trained, check_shape)(state, users)
    except Exception as error:
        raise PlanRefused(
            "mapping", f"{where} can't be mapped over users: {str(error)[:200]}"
        ) from None


def check_runs(plan: Plan, bounds: Bounds) -> None:
    """Run every graph of an admitted plan on a made-up user, or on one without interactions.

    Shapes and dtypes don't tell all: of some operations PyTorch has none for whole numbers, say.

    Raises:
        PlanRefused: rule "examination"; a graph fails for both.
    """
    for step in plan.steps:
        trained = step.outputs if step.kind == "gradient" else None
        _check_runs(f"Step {step.name!r}", step.graph, bounds, trained)
    for where, graph in (("The memory graph", plan.memory), ("The scores graph", plan.scores)):
        if graph is not None:
            _check_runs(where, graph, bounds, None)


def _check_runs(
    where: str, graph: Graph, bounds: Bounds, trained: tuple[TensorSpec, ...] | None
) -> None:
    random = torch.Generator().manual_seed(0)
    state = {spec.name: made_up_state(spec, random) for spec in graph.state}
    length = next((spec.count for spec in graph.inputs if spec.name == "memory"), None)
    mock = mock_user(bounds, length)
    someone = {name: getattr(mock, name)[None] for name in graph.user}
    nobody = {name: torch.zeros_like(tensor) for name, tensor in someone.items()}
    why = ""
    for users in (someone, nobody):
        try:
            _mapped(graph, trained)(state, users)
            return
        except Exception as error:
            why = str(error) if isinstance(error, GraphFailed) else type(error).__name__
    raise PlanRefused(
        "examination",
        f"{where} fails for a made-up user and for one without interactions: {why} Write that "
        "operation with other dtypes or shapes, or add a small diagonal to a singular system.",
    )


def _mapped(
    graph: Graph, trained: tuple[TensorSpec, ...] | None, seen: Seen | None = None
) -> Callable[[Mapping[str, Tensor], Tensors], Tensors]:
    """State and user tensors [B, ...] -> each user's outputs, or gradients with `trained`."""

    def contribution(state: Tensors, user: Tensors) -> Tensors:
        if trained is None:
            return graph.run(state | user, seen)
        chosen = {spec.name: state[spec.name] for spec in trained}
        return grad(lambda part: graph.run(state | part | user, seen)["loss"])(chosen)

    return vmap(contribution, in_dims=(None, 0))


def _users_unlike(graph: Graph, usage: Usage) -> int:
    """A number of users, a few, that no axis of the graph's tensors has."""
    shapes = [shape for results in usage.shapes.values() for shape in results]
    taken = {1, *(size for spec in graph.inputs for size in spec.shape)}
    taken |= {size for constant in graph.constants for size in constant.spec.shape}
    taken |= {size for shape in shapes for size in shape}
    return next(count for count in itertools.count(3) if count not in taken)
