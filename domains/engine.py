"""The engine: an admitted graph mapped over users, clipped, quantised and summed.

    sum over users u of  quantise(clip(zero_nonfinite(contribution(state, u))))

The engine applies `vmap` and `grad` itself, so a graph can't mix users. What it returns is exact
integers without noise; they go to the node's own process, which adds noise before anything leaves.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.interactions import Interactions
from policies.graph import NEGATIVES, Graph
from policies.mechanism import clip, quantise, zero_nonfinite
from policies.plan import Step

CHUNK_BYTES = 2**26
"""Per-user dense outputs of one chunk of users take at most this many bytes."""


class UserTensors:
    """The tensors graphs may read, batched over users.

    Args:
        interactions: the data set.
        items: size of the catalogue, N.
        width: declared maximum of interactions per user, M.
        seed: of the sampled negatives; public, fixed by the plan.
    """

    def __init__(self, interactions: Interactions, items: int, width: int, seed: int) -> None:
        self._data = interactions
        self._items = items
        self._width = width
        self._seed = seed

    def batch(self, users: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Tensor]:
        """The named tensors of these users; the first dimension is the user."""
        found: dict[str, Tensor] = {}
        if {"items", "mask", "values"} & set(names):
            found |= self._padded(users)
        targets = self._data.targets[users]
        found["target"] = torch.from_numpy(np.maximum(targets, 0))
        found["has_target"] = torch.from_numpy((targets >= 0).astype(np.float32))
        if "negatives" in names:
            found["negatives"] = torch.from_numpy(np.stack([self._negatives(u) for u in users]))
        return {name: found[name] for name in names}

    def _padded(self, users: NDArray[np.int64]) -> dict[str, Tensor]:
        starts, ends = self._data.indptr[users], self._data.indptr[users + 1]
        offsets = np.arange(self._width)
        index = starts[:, None] + offsets[None, :]
        real = index < ends[:, None]
        index = np.where(real, index, 0)
        return {
            "items": torch.from_numpy(np.where(real, self._data.items[index], 0)),
            "mask": torch.from_numpy(real.astype(np.float32)),
            "values": torch.from_numpy(
                np.where(real, self._data.values[index], 0).astype(np.float32)
            ),
        }

    def _negatives(self, user: np.int64) -> NDArray[np.int64]:
        """99 items the user never interacted with (fewer unseen ones: with repetition)."""
        begin, end = self._data.indptr[user], self._data.indptr[user + 1]
        unseen = np.ones(self._items, dtype=bool)
        unseen[self._data.items[begin:end]] = False
        if self._data.targets[user] >= 0:
            unseen[self._data.targets[user]] = False
        pool = np.flatnonzero(unseen) if unseen.any() else np.arange(self._items)
        random = np.random.default_rng([self._seed, int(user)])
        chosen: NDArray[np.int64] = random.choice(pool, NEGATIVES, replace=len(pool) < NEGATIVES)
        return chosen


def private_sum(
    step: Step, state: Mapping[str, Tensor], people: UserTensors, selected: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The clipped, quantised sum of a step over the selected users: int64 of shape [P].

    Raises:
        GraphFailed: an operation failed; says which node, never a value.
    """
    total = torch.zeros(step.width, dtype=torch.int64)
    contribution = torch.func.vmap(_contribution(step, dict(state)))
    for users in _chunks(selected, step.width):
        found = contribution(people.batch(users, step.graph.user))
        parts = [zero_nonfinite(found[spec.name]) for spec in step.outputs]
        clipped = clip(parts, step.clip_norm)
        total += quantise(clipped, step.clip_norm, step.scale).sum(0)
    summed: NDArray[np.int64] = total.numpy()
    return summed


def user_memories(
    graph: Graph, state: Mapping[str, Tensor], people: UserTensors, users: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Every user's private memory, float32 [users, d]; it stays on the node."""
    memory = torch.func.vmap(lambda user: graph.run({**state, **user})["memory"])
    found = [memory(people.batch(index, graph.user)) for index in _chunks(users, 2**16)]
    memories: NDArray[np.float32] = torch.cat(found).numpy()
    return memories


def _contribution(
    step: Step, state: dict[str, Tensor]
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    if step.kind == "sum":
        return lambda user: step.graph.run({**state, **user})
    names = [spec.name for spec in step.outputs]
    fixed = {name: tensor for name, tensor in state.items() if name not in names}

    def gradient(user: dict[str, Tensor]) -> dict[str, Tensor]:
        def loss(parameters: dict[str, Tensor]) -> Tensor:
            return step.graph.run({**fixed, **parameters, **user})["loss"]

        found: dict[str, Tensor] = torch.func.grad(loss)({n: state[n] for n in names})
        return found

    return gradient


def _chunks(users: NDArray[np.int64], width: int) -> Iterator[NDArray[np.int64]]:
    size = max(1, CHUNK_BYTES // (4 * width))
    for begin in range(0, len(users), size):
        yield users[begin : begin + size]
