"""What each user of a batch contributes to a step, before clipping: the graph mapped over users.

The engine applies `vmap` and `grad` itself (`domains.flattening`), so a graph can't mix users. A
table of which a user only gathers rows stays sparse: her gradient is one merged row for each of her
ids, clipped and quantised like any other numbers, and added up where the ids say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from domains.flattening import mapped
from domains.lowering import Gathering, gather_rows, hoist
from domains.users import EMPTY, UserTensors
from policies.plan import Step


@dataclass(frozen=True)
class Part:
    """What a batch of users adds to one output.

    Attributes:
        values: [B, ...], everything; or [B, L, w], rows of a table with ids.
        ids: int64 [B, L], the rows' numbers, of which the non-zero rows' differ for each user; None
            for everything.
        real: int64, positions among the B * L rows outside which all rows are zero; None for all.
    """

    values: Tensor
    ids: Tensor | None = None
    real: Tensor | None = None


@dataclass(frozen=True)
class Contributions:
    """How a step's users contribute.

    Attributes:
        of: a batch of user tensors, places to keep (None: all) -> what each user at one of these
            places adds to every output, before clipping.
        width: how many numbers one user contributes, rows of zeros among them.
    """

    of: "OfBatch"
    width: int


def contributions(step: Step, state: Mapping[str, Tensor], people: UserTensors) -> Contributions:
    """Prepare a step for this state: what hangs on the state alone is computed here, once."""
    if step.kind == "sum":
        return Contributions(_sums(step, dict(state)), step.width)
    parameters = [spec.name for spec in step.outputs]
    nobody = people.batch(np.array([EMPTY]), step.graph.user)
    example = {**state, **{name: tensor[0] for name, tensor in nobody.items()}}
    gathering = gather_rows(step.graph, parameters, example)
    if gathering is None:
        return Contributions(dense_contributions(step, state), step.width)
    gathered = {spec.name: spec.count for spec in gathering.graph.inputs}
    dense = [spec.count for spec in step.outputs if spec.name not in gathering.tables]
    width = sum(dense) + sum(gathered.get(name, 0) for name in gathering.rows)
    return Contributions(_sparse_gradients(step, dict(state), gathering), width)


OfBatch = Callable[[dict[str, Tensor], Tensor | None], list[Part]]


def _sums(step: Step, state: dict[str, Tensor]) -> OfBatch:
    graph, computed = hoist(step.graph, state)
    public = {**state, **computed}
    of_users = mapped(graph, graph.user)

    def sums(users: dict[str, Tensor], places: Tensor | None) -> list[Part]:
        found = _kept(of_users({**public, **users}), places)
        return [Part(found[spec.name]) for spec in step.outputs]

    return sums


def dense_contributions(step: Step, state: Mapping[str, Tensor]) -> OfBatch:
    """Of a gradient step: each user's whole gradient, tables and all."""
    parameters = [spec.name for spec in step.outputs]
    fixed = {name: tensor for name, tensor in state.items() if name not in parameters}
    graph, computed = hoist(step.graph, fixed)
    public = {**state, **computed}
    gradient = mapped(graph, graph.user, parameters)

    def gradients(users: dict[str, Tensor], places: Tensor | None) -> list[Part]:
        found = _kept(gradient({**public, **users}), places)
        return [Part(found[spec.name]) for spec in step.outputs]

    return gradients


def _sparse_gradients(step: Step, state: dict[str, Tensor], gathering: Gathering) -> OfBatch:
    names = [spec.name for spec in step.outputs]
    dense = [name for name in names if name not in gathering.tables]
    fixed = {name: tensor for name, tensor in state.items() if name not in names}
    graph, computed = hoist(gathering.graph, fixed)
    public = {**fixed, **computed, **{name: state[name] for name in dense}}
    gradient = mapped(graph, [*graph.user, *gathering.rows], [*dense, *gathering.rows])
    indexed = mapped(gathering.ids, gathering.ids.user)

    def gradients(users: dict[str, Tensor], places: Tensor | None) -> list[Part]:
        ids = _row_numbers(indexed({**fixed, **users}), gathering, state)
        rows = {n: _taken(state[g.table], ids[n]) for n, g in gathering.rows.items()}
        found = _kept(gradient({**public, **rows, **users}), places)
        ids = _kept(ids, places)
        return [
            _merged(spec.name, state[spec.name], gathering, ids, found)
            if spec.name in gathering.tables
            else Part(found[spec.name])
            for spec in step.outputs
        ]

    return gradients


def _kept(found: dict[str, Tensor], places: Tensor | None) -> dict[str, Tensor]:
    """The rows of these places alone: what comes next is done for each user by herself."""
    if places is None:
        return found
    return {name: tensor.index_select(0, places) for name, tensor in found.items()}


def _row_numbers(
    ids: dict[str, Tensor], gathering: Gathering, state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The ids as numbers from 0; -1 is the last row, as everywhere in PyTorch."""
    lengths = {name: len(state[gather.table]) for name, gather in gathering.rows.items()}
    return {n: torch.where(i < 0, i + lengths[n], i) if i.numel() else i for n, i in ids.items()}


def _taken(table: Tensor, ids: Tensor) -> Tensor:
    """table[ids], by the operator that is quick at it."""
    flat = table.reshape(len(table), -1)
    return torch.embedding(flat, ids).reshape(*ids.shape, *table.shape[1:])


def _merged(
    table: str,
    like: Tensor,
    gathering: Gathering,
    ids: dict[str, Tensor],
    found: dict[str, Tensor],
) -> Part:
    """A table's gradient rows from all its gathers, with one row for each id of a user."""
    names = [name for name, gather in gathering.rows.items() if gather.table == table]
    users = len(found[names[0]])
    width = like[0].numel()
    rows = [_passed_on(found[n], ids[n], gathering.rows[n].padding) for n in names]
    values = _beside([row.reshape(users, -1, width) for row in rows])
    numbers = _beside([ids[name].reshape(users, -1) for name in names])
    return merge_rows(values, numbers)


def _beside(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)


def _passed_on(gradient: Tensor, ids: Tensor, padding: int | None) -> Tensor:
    if padding is None:
        return gradient
    return gradient * (ids != padding).reshape(*ids.shape, *[1] * (gradient.dim() - ids.dim()))


def merge_rows(values: Tensor, ids: Tensor) -> Part:
    """Add up each user's rows of the same id, so that the norm is that of the dense gradient.

    Args:
        values: float [B, L, w]; ids: int64 [B, L].
    """
    users, each, width = values.shape
    ordered, order = torch.sort(ids, dim=1, stable=True)
    begins = torch.ones(users, each, dtype=torch.bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    if begins.all():
        return Part(values, ids)
    first = begins.flatten()
    order = (order + torch.arange(0, users * each, each).unsqueeze(1)).flatten()
    kept = order[first]
    target = torch.empty_like(order)
    target[order] = kept[torch.cumsum(first, 0) - 1]
    # All rows always, whoever has duplicates: what is added in which order is then fixed.
    merged = torch.zeros(users * each, width, dtype=values.dtype)
    merged.index_add_(0, target, values.reshape(users * each, width))
    return Part(merged.reshape(values.shape), ids, kept)
