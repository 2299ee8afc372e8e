"""Whether a graph computes what its author's function computes, before anybody is asked for a yes.

Tracing writes down the operations that PyTorch saw for one made-up user. A number that took another
way (numpy, a cache, a counter) became a constant of that user. So function and graph are run on
another one, and must give the same, and the same gradients.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from policies.graph import NEGATIVES, Graph
from policies.remedies import TraceError
from policies.untraceable import author_line
from policies.users import Bounds, User

Function = Callable[[dict[str, Tensor], User], Tensor | Mapping[str, Tensor]]
_RELATIVE, _OF_LARGEST, _OF_ALL = 1e-3, 1e-5, 1e-6
"""Of the same operations, some of which PyTorch fuses: beside each number; beside the largest of
its tensor, where numbers cancel out; and of all gradients, of which a tensor's may cancel out."""

_MOVED, _DRAWS, _TIMES = 1e-6, 2, 30
"""How far rounding can carry a result is seen by moving the state by a few of its last bits, a few
times: a gradient that is zero but for rounding, or a chaotic function, has no other scale."""


def check_same(
    graph: Graph,
    function: Function,
    state: Mapping[str, Tensor],
    bounds: Bounds,
    trained: Collection[str] = (),
) -> None:
    """Compare a graph with the function that it was traced from, on the author's own machine.

    Args:
        state: as for `trace`.
        trained: names of the state tensors by which the graph's loss is differentiated.

    Raises:
        TraceError: they differ, or the function fails for this user.
    """
    memory = state["memory"].numel() if "memory" in state else None
    user = _another_user(bounds, memory)
    known = {**state, **({} if user.memory is None else {"memory": user.memory})}
    hers = {name: getattr(user, name) for name in graph.user}
    try:
        expected = _run(lambda values: function(values, user), known, trained)
    except Exception as error:
        where = author_line(error)
        raise TraceError(f"{where}: for another user: {type(error).__name__}: {error}") from None
    found = _run(lambda values: graph.run({**values, **hers}), known, trained)
    rounding = dict.fromkeys(found, 0.0)
    for seed in range(_DRAWS):
        moved = _moved(known, seed)
        other = _run(lambda values: graph.run({**values, **hers}), moved, trained)
        rounding = {n: max(most, _distance(other[n], found[n])) for n, most in rounding.items()}
    gradients = [_largest(x) for name, x in expected.items() if name.startswith("gradient")]
    for name, mine in expected.items():
        steepest = max(gradients) if name.startswith("gradient") else 0.0
        if not _alike(mine, found[name], max(_TIMES * rounding[name], _OF_ALL * steepest)):
            raise TraceError(
                f"For another made-up user your function gives another {name} than the graph that "
                "was traced from it: something in it goes past PyTorch's operations (numpy, a "
                "counter, a cache, a custom autograd function). Use tensors for all that hangs on "
                "the user, and nothing that changes from call to call."
            )


def _run(
    function: Callable[[dict[str, Tensor]], Any],
    known: Mapping[str, Tensor],
    trained: Collection[str],
) -> dict[str, Tensor]:
    """What it gives, by name; of a loss the gradients too."""
    leaves = {name: known[name].detach().clone().requires_grad_() for name in trained}
    result = function({**known, **leaves})
    values = {"loss": result} if isinstance(result, Tensor) else dict(result)
    found = {f"output {name!r}": value.detach() for name, value in values.items()}
    loss = values["loss"].sum() if trained else None
    if loss is not None and loss.requires_grad:
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            zeros = torch.zeros_like(leaf)
            found[f"gradient of {name!r}"] = zeros if gradient is None else gradient.to_dense()
    return found


def _moved(known: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same state, but for its last bits."""
    random = torch.Generator().manual_seed(seed)

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return tensor * (1 + _MOVED * torch.randn(tensor.shape, generator=random)).to(tensor.dtype)

    return {name: moved(tensor) for name, tensor in known.items()}


def _largest(x: Tensor) -> float:
    return float(x[torch.isfinite(x)].abs().max()) if torch.isfinite(x).any() else 0.0


def _distance(one: Tensor, other: Tensor) -> float:
    return _largest(one.double() - other.double())


def _alike(mine: Tensor, graphs: Tensor, rounding: float) -> bool:
    if mine.shape != graphs.shape:
        return False
    apart = max(_OF_LARGEST * _largest(mine.double()), rounding)
    return torch.allclose(mine.double(), graphs.double(), _RELATIVE, apart, equal_nan=True)


def _another_user(bounds: Bounds, memory: int | None) -> User:
    """One made-up user, unlike `mock_user`'s; always the same."""
    random = torch.Generator().manual_seed(1)
    length = max(1, bounds.interactions // 3)
    mask = (torch.arange(bounds.interactions) < length).float()
    items = torch.randint(bounds.items, (bounds.interactions,), generator=random)
    return User(
        items=items * mask.long(),
        mask=mask,
        values=mask * torch.rand(bounds.interactions, generator=random),
        target=torch.randint(bounds.items, (), generator=random),
        has_target=torch.tensor(1.0),
        negatives=torch.randint(bounds.items, (NEGATIVES,), generator=random),
        memory=None if memory is None else torch.randn(memory, generator=random),
    )
