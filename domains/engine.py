"""The engine: an admitted graph mapped over users, clipped, quantised and summed.

    sum over users u of  quantise(clip(zero_nonfinite(contribution(state, u))))

What is returned is exact integers without noise; they go to the node's own process, which adds
noise before anything leaves.

What one user adds must not depend on who else is there, to the last bit: else adding a user would
move the sum by more than her own clip norm. Floating-point results depend on a batch's shape and on
a row's place in it (libraries treat the rest of a loop differently), so both are fixed: every batch
of a step has the same shape, from declared bounds, and a user's place in it follows from her own
key. Places that nobody takes are computed for a public user and thrown away; clipping and what
follows it are done row by row, with the same roundings wherever a row lies.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from mmap import mmap

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.contributions import Contributions, Part, contributions
from domains.flattening import mapped
from domains.total import Total
from domains.users import EMPTY, UserTensors
from policies.admission import inspect
from policies.clipping import clipped_units
from policies.graph import Graph, GraphFailed
from policies.plan import Step
from policies.users import Bounds, mock_user

CACHED_BYTES = 2**22
"""What the users of one batch contribute takes at most this many bytes: little enough for a
processor's cache, and enough for what is done once a batch to cost little."""

BATCH_BYTES = 2**30
"""A bound on all tensors of one batch."""

LARGEST_BATCH = 128

USERS_A_PLACE = 16
"""So many users at least are expected in each place of a batch, over a round: with fewer, places
fill too unequally, and most of the last batches' are empty."""


def private_sum(
    step: Step,
    state: Mapping[str, Tensor],
    people: UserTensors,
    selected: NDArray[np.int64],
    memory: mmap | None = None,
) -> NDArray[np.int64]:
    """The clipped, quantised sum of a step over the selected users: int64 of shape [P].

    Args:
        memory: where it is to lie, from the beginning on; without, in memory of its own.

    Raises:
        GraphFailed: an operation failed; says which node, never a value.
    """
    total = Total(step, len(selected), memory)
    for _, integers, parts in user_integers(step, state, people, selected):
        total.add(integers, parts)
    return total.integers()


def user_integers(
    step: Step, state: Mapping[str, Tensor], people: UserTensors, selected: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Tensor, "list[Part]"]]:
    """Batch by batch: users int64 [B], their units, whole float32 [B, ...], and where those go.

    A user's units depend on nobody else, to the last bit. Of private data only their sum goes on.
    """
    contribution = contributions(step, state, people)
    names = step.graph.user
    size = batch_size(step, people.bounds, contribution.width)
    filling = _filling(contribution, people, size, names)
    for users in people.batches(selected, size):
        for taken, parts in _of_those_who_can(contribution, people, users, filling):
            values = [part.values for part in parts]
            found = clipped_units(step.clipping, values, step.clip_norm, step.scale)
            yield users[taken], found, _with_votes(parts, found)


def _of_those_who_can(
    contribution: "Contributions",
    people: UserTensors,
    users: NDArray[np.int64],
    filling: dict[str, Tensor],
) -> "Iterator[tuple[NDArray[np.int64], list[Part]]]":
    """Places of a batch and what the users there contribute.

    No operation that is written out is known to fail at some numbers (see `domains.flattening`).
    If one does all the same: a failure that others see would say something of whoever caused it,
    and taking her batch with her would make the others' contributions hang on her. So a batch that
    fails is computed in halves, each user in her own place; who fails contributes nothing. As the
    `filling` of empty places never fails, a batch fails only if somebody in it does where she is,
    whoever the others are. A batch of B is computed less than 2 B times.
    """
    taken = np.flatnonzero(users != EMPTY)
    if not len(taken):
        return
    batch, places = people.batch(users, tuple(filling)), None
    if len(taken) < len(users):
        places = torch.from_numpy(taken)
        nobody = torch.from_numpy(users == EMPTY)
        for name, hers in filling.items():
            batch[name][nobody] = hers
    try:
        yield taken, contribution.of(batch, places)
        return
    except Exception as error:
        _raise_if_memory_ran_out(error)
    for half in np.array_split(taken, 2) if len(taken) > 1 else []:
        some = np.full_like(users, EMPTY)
        some[half] = users[half]
        yield from _of_those_who_can(contribution, people, some, filling)


def _filling(
    contribution: "Contributions", people: UserTensors, size: int, names: tuple[str, ...]
) -> dict[str, Tensor]:
    """One user's tensors, public ones, that fail in no place of a batch: nobody's or a mock's.

    Raises:
        GraphFailed: both fail, so one couldn't tell who else does.
    """
    nobody = {name: tensor[0] for name, tensor in people.batch(np.array([EMPTY]), names).items()}
    length = len(nobody["memory"]) if "memory" in nobody else None
    mock = mock_user(people.bounds, length)
    for hers in (nobody, {name: getattr(mock, name) for name in names}):
        try:
            contribution.of({n: t.expand(size, *t.shape).clone() for n, t in hers.items()}, None)
            return hers
        except Exception as error:
            _raise_if_memory_ran_out(error)
    raise GraphFailed(
        "The step fails for a user without interactions and for a made-up one: an operation, such "
        "as the solution of a singular system, must succeed for one of them. Add a small diagonal."
    )


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
    of_users = mapped(graph, graph.user)

    def of(batch: dict[str, Tensor], places: Tensor | None) -> list[Part]:
        found = of_users({**state, **batch})["memory"]
        return [Part(found if places is None else found.index_select(0, places))]

    contribution = Contributions(of, spec.count)
    each = inspect(graph, people.bounds, memory=_memory_length(graph)).bytes + 32 * spec.count
    size = _power_of_two_within(min(LARGEST_BATCH, BATCH_BYTES // each))
    filling = _filling(contribution, people, size, graph.user)
    memories = np.zeros((people.users, spec.count), np.float32)
    for batch in people.batches(users, size):
        for taken, (part,) in _of_those_who_can(contribution, people, batch, filling):
            memories[batch[taken]] = part.values.numpy()
    return memories[users]


def _memory_length(graph: Graph) -> int | None:
    return next((spec.count for spec in graph.inputs if spec.name == "memory"), None)


@dataclass(frozen=True)
class _Inspected:
    """A graph, known by its text, under a data set's bounds."""

    text: str
    bounds: Bounds
    graph: Graph = field(compare=False)


@lru_cache(maxsize=32)  # a release asks for what the one before did
def _bytes_of_one(of: _Inspected) -> int:
    return inspect(of.graph, of.bounds, memory=_memory_length(of.graph)).bytes


def _power_of_two_within(most: int) -> int:
    return 1 << max(0, most.bit_length() - 1)


def batch_size(step: Step, bounds: Bounds, width: int) -> int:
    """Users in every batch of a step, from plan and declared bounds alone: a power of two.

    Args:
        width: how many numbers one user contributes.

    Raises:
        PlanRefused: the step wouldn't be admitted.
    """
    # Going backwards keeps every intermediate and makes about as many again.
    each = (
        3 * _bytes_of_one(_Inspected(step.graph.model_dump_json(), bounds, step.graph)) + 32 * width
    )
    most = min(LARGEST_BATCH, BATCH_BYTES // each, CACHED_BYTES // (4 * width))
    if bounds.users is not None:
        most = min(most, int(bounds.users * step.sampling_rate) // USERS_A_PLACE)
    return _power_of_two_within(most)
