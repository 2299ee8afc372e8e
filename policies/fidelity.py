"""Whether a graph computes what its author's function computes, before anybody is asked for a yes.

Tracing writes down the operations that PyTorch saw for one made-up user. A number that took another
way (numpy, a cache, a counter) became a constant of that user. So function and graph are run on
another one, and must give the same, and the same gradients.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from policies.graph import NEGATIVES, Graph
from policies.untraceable import TraceError, author_line
from policies.users import Bounds, User

Function = Callable[[dict[str, Tensor], User], Tensor | Mapping[str, Tensor]]
_CLOSE = 1e-3
_ROUNDING = 1e-4
"""Of the same operations, some of which PyTorch fuses; absolute where numbers cancel out."""


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
    for kind in ("output", "gradient"):
        names = [name for name in expected if name.startswith(kind)]
        if not _alike([expected[name] for name in names], [found[name] for name in names]):
            raise TraceError(
                f"For another made-up user your function gives another {kind} than the graph that "
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


def _alike(mine: Sequence[Tensor], graphs: Sequence[Tensor]) -> bool:
    """All together, since of a gradient that is zero there is rounding alone."""
    if [each.shape for each in mine] != [each.shape for each in graphs]:
        return False
    one, other = (
        torch.cat([torch.zeros(1), *(each.flatten() for each in x)]) for x in (mine, graphs)
    )
    finite = torch.isfinite(one)
    largest = float(one[finite].abs().max())
    return torch.allclose(
        one, other, rtol=_CLOSE, atol=max(_ROUNDING, _CLOSE * largest), equal_nan=True
    )


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
