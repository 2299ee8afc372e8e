"""The engine: an admitted graph mapped over users, clipped, quantised and summed.

    sum over users u of  quantise(clip(zero_nonfinite(contribution(state, u))))

The engine applies `vmap` and `grad` itself, so a graph can't mix users. What it returns is exact
integers without noise; they go to the node's own process, which adds noise before anything leaves.

What one user adds must not depend on who else is there, to the last bit: else adding a user would
move the sum by more than her own clip norm. Floating-point results depend on a batch's shape and on
a row's place in it (libraries treat the rest of a loop differently), so both are fixed: every batch
of a step has the same shape, from declared bounds, and a user's place in it follows from her own
key. Places that nobody takes are computed for an empty user and thrown away; clipping and what
follows it are done row by row, with the same roundings wherever a row lies.

A table of which a user only gathers rows stays sparse: her gradient is one merged row for each of
her ids, clipped and quantised like any other numbers, and added up where the ids say.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.lowering import Gathering, gather_rows, hoist
from domains.users import EMPTY, UserTensors
from policies.admission import inspect
from policies.clipping import clipped_units
from policies.graph import Graph, GraphFailed
from policies.mechanism import sum_users
from policies.plan import Step
from policies.users import Bounds

CACHED_BYTES = 2**22
"""What the users of one batch contribute takes at most this many bytes: it stays in the cache."""
BATCH_BYTES = 2**30
"""A bound on all tensors of one batch."""
LARGEST_BATCH = 128

ONE_BY_ONE = frozenset(["aten.prod.default"])
"""Operations whose derivative looks at the whole batch: that of `prod` searches it for a zero and
computes everybody's otherwise if there is one. Mapped over users, it can't."""

_ROWS = 4096


def private_sum(
    step: Step,
    state: Mapping[str, Tensor],
    people: UserTensors,
    selected: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The clipped, quantised sum of a step over the selected users: int64 of shape [P].

    Raises:
        GraphFailed: an operation failed; says which node, never a value.
    """
    total = Total(step, len(selected))
    for _, integers, parts in user_integers(step, state, people, selected):
        total.add(integers, parts)
    return total.integers()


def user_integers(
    step: Step, state: Mapping[str, Tensor], people: UserTensors, selected: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Tensor, "list[Part]"]]:
    """Batch by batch: users int64 [B], their units int32 [B, ...], and where those go.

    A user's units depend on nobody else, to the last bit. Of private data only their sum goes on.
    """
    contribution = contributions(step, state, people)
    names = step.graph.user
    for users in people.batches(selected, batch_size(step, people.bounds, contribution.width)):
        for taken, parts in _of_those_who_can(contribution, people, users, names):
            values = [part.values for part in parts]
            found = clipped_units(step.clipping, values, step.clip_norm, step.scale)
            yield users[taken], found, _with_votes(parts, found)


def _of_those_who_can(
    contribution: "Contributions",
    people: UserTensors,
    users: NDArray[np.int64],
    names: tuple[str, ...],
) -> "Iterator[tuple[NDArray[np.int64], list[Part]]]":
    """Places of a batch and what the users there contribute.

    An operation or its derivative may fail at some numbers (that of a solution does at a singular
    matrix). A failure that others see would say something of whoever caused it, and taking her
    batch with her would make the others' contributions hang on her. So each user of a batch that
    fails is computed by herself, in her own place; for whom it fails again contributes nothing.
    """
    taken = np.flatnonzero(users != EMPTY)
    places = torch.from_numpy(taken) if len(taken) < len(users) else None
    try:
        yield taken, contribution.of(people.batch(users, names), places)
        return
    except Exception as error:
        _raise_if_memory_ran_out(error)
    for place in taken:
        # The other places hold her too, since a user with no data may be what fails.
        batch = people.batch(np.full(len(users), users[place]), names)
        try:
            yield np.array([place]), contribution.of(batch, torch.tensor([place]))
        except Exception as error:
            _raise_if_memory_ran_out(error)


def _raise_if_memory_ran_out(error: BaseException) -> None:
    """What hangs on the shapes alone says nothing of anybody, and the owner should know it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or "allocate memory" in str(seen):
            raise GraphFailed("There isn't enough memory for one batch of this step.") from None
        seen = seen.__context__


def _with_votes(parts: "list[Part]", found: Tensor) -> "list[Part]":
    """The parts, and one for the votes if there is a column that is no part's."""
    width = sum(part.values[0].numel() for part in parts)
    return parts if width == found.shape[1] else [*parts, Part(found[:, width:])]


def row_positions(step: Step, parts: "Sequence[Part]") -> Tensor:
    """Where each of a batch's units lies in the sum: int64 [B, ...], the parts side by side."""
    begin, found = 0, []
    for spec, part in zip(step.released, parts, strict=True):
        users, each = len(part.values), part.values[0].numel()
        if part.ids is None:
            found.append(torch.arange(begin, begin + each).expand(users, each))
        else:
            width = each // part.ids[0].numel()
            rows = begin + part.ids.reshape(users, -1, 1) * width
            found.append((rows + torch.arange(width)).reshape(users, each))
        begin += spec.count
    return torch.cat(found, dim=1)


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


class Total:
    """The integers of all users so far: int64 [P], in the order of the step's outputs.

    Rows are added in float64, which is faster and just as exact while no sum passes 2^53.

    Args:
        users: at most so many will be added.

    Raises:
        ValueError: the sum of so many users could pass 2^53.
    """

    def __init__(self, step: Step, users: int) -> None:
        if users * step.clip_norm * step.scale >= 2**53:
            raise ValueError("The sum of so many users could pass 2^53; lower the step's scale.")
        self._step = step
        self._sums = torch.zeros(step.width, dtype=torch.int64)
        ends = np.cumsum([spec.count for spec in step.released]).tolist()
        self._places = [
            slice(end - s.count, end) for end, s in zip(ends, step.released, strict=True)
        ]
        self._in_doubles: set[int] = set()

    def add(self, units: Tensor, parts: Sequence[Part]) -> None:
        """Add a batch: int32 [B, ...], the parts' units side by side."""
        widths = [part.values[0].numel() for part in parts]
        columns = units.split(widths, dim=1)
        for output, (part, mine) in enumerate(zip(parts, columns, strict=True)):
            if part.ids is None:
                total = self._sums[self._places[output]]
                total += sum_users(mine, self._step.clip_norm, self._step.scale)
            else:
                self._scatter(output, part, mine)

    def _scatter(self, output: int, part: Part, units: Tensor) -> None:
        assert part.ids is not None
        self._in_doubles.add(output)
        rows, ids = units.reshape(*part.ids.shape, -1).flatten(0, 1), part.ids.flatten()
        if part.real is not None:
            rows, ids = rows.index_select(0, part.real), ids.index_select(0, part.real)
        doubles = self._sums[self._places[output]].view(torch.float64)
        table = doubles.view(-1, rows.shape[1])
        for some, their_ids in zip(rows.split(_ROWS), ids.split(_ROWS), strict=True):
            table.index_add_(0, their_ids, some.to(torch.float64))

    def integers(self) -> NDArray[np.int64]:
        """The sums; nothing may be added afterwards."""
        for output in self._in_doubles:
            for block in self._sums[self._places[output]].split(2**20):
                block.copy_(block.view(torch.float64).to(torch.int64))
        summed: NDArray[np.int64] = self._sums.numpy()
        return summed


def user_memories(
    graph: Graph, state: Mapping[str, Tensor], people: UserTensors, users: NDArray[np.int64]
) -> NDArray[np.float32]:
    """These users' private memories, float32 [users, d]; they stay on the node.

    A user's memory hangs on nobody else, to the last bit, since contributions are made of it.
    A graph that reads the memory finds the last one. Whoever's can't be computed has zeros.
    """
    (spec,) = graph.output_specs()
    if "memory" in graph.user and people.memories is None:
        people.remember(np.array([], dtype=np.int64), np.zeros((0, spec.count), np.float32))
    mapped = torch.func.vmap(lambda user: graph.run({**state, **user})["memory"])

    def of(batch: dict[str, Tensor], places: Tensor | None) -> list[Part]:
        found = mapped(batch)
        return [Part(found if places is None else found.index_select(0, places))]

    contribution = Contributions(of, spec.count)
    each = inspect(graph, people.bounds, memory=_memory_length(graph)).bytes + 32 * spec.count
    size = _power_of_two_within(min(LARGEST_BATCH, BATCH_BYTES // each))
    memories = np.zeros((people.users, spec.count), np.float32)
    for batch in people.batches(users, size):
        for taken, (part,) in _of_those_who_can(contribution, people, batch, graph.user):
            memories[batch[taken]] = part.values.numpy()
    return memories[users]


def _memory_length(graph: Graph) -> int | None:
    return next((spec.count for spec in graph.inputs if spec.name == "memory"), None)


def _power_of_two_within(most: int) -> int:
    return 1 << max(0, most.bit_length() - 1)


def batch_size(step: Step, bounds: Bounds, width: int) -> int:
    """Users in every batch of a step, from declared bounds alone: a power of two.

    Args:
        width: how many numbers one user contributes.

    Raises:
        PlanRefused: the step wouldn't be admitted.
    """
    # Going backwards keeps every intermediate and makes about as many again.
    each = 3 * inspect(step.graph, bounds, memory=_memory_length(step.graph)).bytes + 32 * width
    return _power_of_two_within(
        min(LARGEST_BATCH, BATCH_BYTES // each, CACHED_BYTES // (4 * width))
    )


@dataclass(frozen=True)
class Contributions:
    """How a step's users contribute.

    Attributes:
        of: a batch of user tensors, places to keep (None: all) -> what each user at one of these
            places adds to every output, before clipping.
        width: how many numbers one user contributes, rows of zeros among them.
    """

    of: "_Mapped"
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


_Mapped = Callable[[dict[str, Tensor], Tensor | None], list[Part]]


def _sums(step: Step, state: dict[str, Tensor]) -> _Mapped:
    graph, computed = hoist(step.graph, state)
    public = {**state, **computed}
    mapped = torch.func.vmap(lambda user: graph.run({**public, **user}))

    def sums(users: dict[str, Tensor], places: Tensor | None) -> list[Part]:
        found = _kept(mapped(users), places)
        return [Part(found[spec.name]) for spec in step.outputs]

    return sums


def dense_contributions(step: Step, state: Mapping[str, Tensor]) -> _Mapped:
    """Of a gradient step: each user's whole gradient, tables and all."""
    parameters = {spec.name: state[spec.name] for spec in step.outputs}
    fixed = {name: tensor for name, tensor in state.items() if name not in parameters}
    mapped = _mapped_gradient(*hoist(step.graph, fixed), fixed)

    def gradients(users: dict[str, Tensor], places: Tensor | None) -> list[Part]:
        found = _kept(mapped(parameters, {}, users), places)
        return [Part(found[spec.name]) for spec in step.outputs]

    return gradients


def _sparse_gradients(step: Step, state: dict[str, Tensor], gathering: Gathering) -> _Mapped:
    names = {spec.name for spec in step.outputs}
    dense = {name: state[name] for name in names - gathering.tables}
    fixed = {name: tensor for name, tensor in state.items() if name not in names}
    graph, computed = hoist(gathering.graph, fixed)
    alone = dense or any(node.op in ONE_BY_ONE for node in graph.nodes)
    mapped = (_mapped_gradient if alone else _rows_gradient)(graph, computed, fixed)
    indexed = torch.func.vmap(lambda user: gathering.ids.run({**fixed, **user}))

    def gradients(users: dict[str, Tensor], places: Tensor | None) -> list[Part]:
        ids = _row_numbers(indexed(users), gathering, state)
        rows = {n: _taken(state[g.table], ids[n]) for n, g in gathering.rows.items()}
        found, ids = _kept(mapped(dense, rows, users), places), _kept(ids, places)
        return [
            _merged(spec.name, state[spec.name], gathering, ids, found)
            if spec.name in gathering.tables
            else Part(found[spec.name])
            for spec in step.outputs
        ]

    return gradients


def _mapped_gradient(
    graph: Graph, computed: dict[str, Tensor], fixed: dict[str, Tensor]
) -> Callable[..., dict[str, Tensor]]:
    """(parameters, rows of each user, users) -> the loss's gradient for each user alone."""
    public = {**fixed, **computed}

    def loss(variables: dict[str, Tensor], user: dict[str, Tensor]) -> Tensor:
        return graph.run({**public, **variables, **user})["loss"]

    def gradient(
        parameters: dict[str, Tensor], rows: dict[str, Tensor], user: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.func.grad(loss)({**parameters, **rows}, user)
        return found

    return torch.func.vmap(gradient, in_dims=(None, 0, 0))


def _rows_gradient(
    graph: Graph, computed: dict[str, Tensor], fixed: dict[str, Tensor]
) -> Callable[..., dict[str, Tensor]]:
    """The same where rows are all there is: one pass backwards, through the sum of all losses.

    A user's loss hangs on her own rows alone, so the sum's gradient for them is hers.
    """
    public = {**fixed, **computed}
    losses = torch.func.vmap(lambda rows, user: graph.run({**public, **rows, **user})["loss"])

    def gradient(
        _: dict[str, Tensor], rows: dict[str, Tensor], users: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        leaves = {name: row.detach().requires_grad_() for name, row in rows.items()}
        total = losses(leaves, users).sum()
        if not total.requires_grad:
            return {name: torch.zeros_like(row) for name, row in rows.items()}
        found = torch.autograd.grad(
            total, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        return dict(zip(leaves, found, strict=True))

    return gradient


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
