"""The engine: an admitted graph mapped over users, clipped, quantised and summed.

    sum over users u of  quantise(clip(zero_nonfinite(contribution(state, u))))

The engine applies `vmap` and `grad` itself, so a graph can't mix users. What it returns is exact
integers without noise; they go to the node's own process, which adds noise before anything leaves.

What one user adds must not depend on who else is there, to the last bit: else adding a user would
move the sum by more than her own clip norm. Floating-point results depend on a batch's shape and on
a row's place in it (libraries treat the rest of a loop differently), so both are fixed: every batch
of a step has the same shape, from declared bounds, and a user's place in it follows from her own
key. Places that nobody takes are computed for an empty user and thrown away.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.interactions import Interactions
from policies.graph import NEGATIVES, Graph
from policies.mechanism import clip, quantise, sum_users
from policies.plan import Step

CHUNK_BYTES = 2**21
"""Per-user dense outputs of one batch take at most this many bytes: they stay in the cache."""
LARGEST_BATCH = 64

EMPTY = -1
"""Stands for no user: no interactions, no target."""

_CANDIDATES = 2 * NEGATIVES


class UserTensors:
    """The tensors graphs may read, batched over users.

    Args:
        interactions: the data set.
        items: size of the catalogue, N.
        width: declared maximum of interactions per user, M.
        seed: of the sampled negatives; public, fixed by the plan; below 2^64.
    """

    def __init__(self, interactions: Interactions, items: int, width: int, seed: int) -> None:
        self._data = interactions
        self._items = items
        self._width = width
        self._seed = np.uint64(seed)

    def batches(self, users: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
        """These users in batches of exactly `size` places, `EMPTY` where nobody is.

        A user's place is her key modulo `size`, whoever the others are.
        """
        places = (self._data.keys[users, 0] % np.uint64(size)).astype(np.int64)
        order = np.argsort(places, kind="stable")
        counts = np.bincount(places, minlength=size)
        turn = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        grid = np.full((counts.max(initial=0), size), EMPTY)
        grid[turn, places[order]] = users[order]
        yield from grid

    def batch(self, users: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, Tensor]:
        """The named tensors of these users or `EMPTY` places; the first dimension is the user."""
        found: dict[str, Tensor] = {}
        items, real = self._padded(users)
        found["items"] = torch.from_numpy(items)
        found["mask"] = torch.from_numpy(real.astype(np.float32))
        if "values" in names:
            found["values"] = torch.from_numpy(self._values(users, real))
        targets = np.where(users == EMPTY, -1, self._data.targets[users])
        found["target"] = torch.from_numpy(np.maximum(targets, 0))
        found["has_target"] = torch.from_numpy((targets >= 0).astype(np.float32))
        if "negatives" in names:
            known = np.column_stack([np.where(real, items, -1), targets])
            found["negatives"] = torch.from_numpy(self._negatives(users, known))
        return {name: found[name] for name in names}

    def _index(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._data.indptr[users][:, None] + np.arange(self._width)[None, :]

    def _padded(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        index = self._index(users)
        real = (index < self._data.indptr[users + 1][:, None]) & (users != EMPTY)[:, None]
        return np.where(real, self._data.items[np.where(real, index, 0)], 0), real

    def _values(self, users: NDArray[np.int64], real: NDArray[np.bool_]) -> NDArray[np.float32]:
        index = np.where(real, self._index(users), 0)
        return np.where(real, self._data.values[index], 0).astype(np.float32)

    def _negatives(self, users: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
        """99 items that each user never interacted with (fewer unseen ones: with repetition).

        They follow from the seed, her key and her own items (`known`, -1 for none) alone.
        """
        words = keyed_words(self._data.keys[users], self._seed, _CANDIDATES)
        drawn = (words % np.uint64(self._items)).astype(np.int64)
        fresh = _first_of_unknown(drawn, known)
        rank = np.cumsum(fresh, axis=1)
        enough = rank[:, -1] >= NEGATIVES
        chosen = np.zeros((len(users), NEGATIVES), dtype=np.int64)
        chosen[enough] = drawn[enough][(fresh & (rank <= NEGATIVES))[enough]].reshape(-1, NEGATIVES)
        for row in np.flatnonzero(~enough & (users != EMPTY)):
            chosen[row] = self._few_negatives(words[row], known[row])
        return chosen

    def _few_negatives(
        self, words: NDArray[np.uint64], known: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """For a small catalogue or a heavy user: from all that is left, else from everything."""
        left = np.setdiff1d(np.arange(self._items), known)
        pool = left if len(left) else np.arange(self._items)
        return np.resize(np.random.default_rng(words[:4]).permutation(pool), NEGATIVES)


def keyed_words(keys: NDArray[np.uint64], seed: np.uint64, count: int) -> NDArray[np.uint64]:
    """`count` pseudo-random words for each key: uint64 [users, count].

    SplitMix64 (Steele, Lea and Flood 2014) from a start that mixes both halves of the key and the
    seed. Not secret: they only have to differ between users and stay the same for a user.
    """
    start = _mixed(keys[:, 0] ^ _mixed(keys[:, 1] ^ _mixed(np.atleast_1d(seed))))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mixed(start[:, None] + steps[None, :])


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _first_of_unknown(drawn: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of each row's draws are neither among its known items nor drawn before: bool."""
    both = np.column_stack([known, drawn])
    order = np.argsort(both, axis=1, kind="stable")
    ordered = np.take_along_axis(both, order, axis=1)
    first = np.ones(both.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    result = np.empty(both.shape, dtype=bool)
    np.put_along_axis(result, order, first, axis=1)
    return result[:, known.shape[1] :]


def private_sum(
    step: Step, state: Mapping[str, Tensor], people: UserTensors, selected: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The clipped, quantised sum of a step over the selected users: int64 of shape [P].

    Raises:
        GraphFailed: an operation failed; says which node, never a value.
    """
    total = torch.zeros(step.width, dtype=torch.int64)
    contribution = torch.func.vmap(_contribution(step, dict(state)))
    for users in people.batches(selected, batch_size(step.width)):
        found = contribution(people.batch(users, step.graph.user))
        clipped = clip([found[spec.name] for spec in step.outputs], step.clip_norm)
        units = quantise(clipped, step.clip_norm, step.scale)
        units.index_fill_(0, torch.from_numpy(np.flatnonzero(users == EMPTY)), 0)
        total += sum_users(units, step.clip_norm, step.scale)
    summed: NDArray[np.int64] = total.numpy()
    return summed


def user_memories(
    graph: Graph, state: Mapping[str, Tensor], people: UserTensors, users: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Every user's private memory, float32 [users, d]; it stays on the node."""
    memory = torch.func.vmap(lambda user: graph.run({**state, **user})["memory"])
    chunks = [users[begin : begin + 1024] for begin in range(0, len(users), 1024)]
    found = [memory(people.batch(chunk, graph.user)) for chunk in chunks]
    memories: NDArray[np.float32] = torch.cat(found).numpy()
    return memories


def batch_size(width: int) -> int:
    """Users in every batch of a step that releases `width` numbers; a power of two."""
    fitting = max(1, CHUNK_BYTES // (4 * width))
    return min(LARGEST_BATCH, 1 << (fitting.bit_length() - 1))


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
