"""The tensors of users that graphs may read, in batches of one fixed shape.

A user's place in a batch follows from her own key, her negatives from her key, the plan's seed and
her own items: nothing of hers hangs on who else is there (`domains.engine` says why that matters).
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.interactions import Interactions
from policies.graph import NEGATIVES
from policies.users import Bounds

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
        most: declared maximum of users; None for many.

    Attributes:
        memories: every user's private memory, float32 [users, d], or None before there is one.
    """

    def __init__(
        self,
        interactions: Interactions,
        items: int,
        width: int,
        seed: int,
        most: int | None = None,
    ) -> None:
        self._data = interactions
        self._items = items
        self._width = width
        self.bounds = Bounds(items, width, most)
        self._seed = np.uint64(seed)
        self.memories: NDArray[np.float32] | None = None

    @property
    def users(self) -> int:
        """How many there are."""
        return self._data.users

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
        items, real = self._padded(users)
        found = {"items": torch.from_numpy(items)}
        if "mask" in names:
            found["mask"] = torch.from_numpy(real.astype(np.float32))
        if "values" in names:
            found["values"] = torch.from_numpy(self._values(users, real))
        if "memory" in names:
            found["memory"] = self._memories(users)
        if {"target", "has_target", "negatives"} & set(names):
            targets = np.where(users == EMPTY, -1, self._data.targets[users])
            found["target"] = torch.from_numpy(np.maximum(targets, 0))
            found["has_target"] = torch.from_numpy((targets >= 0).astype(np.float32))
        if "negatives" in names:
            known = np.column_stack([np.where(real, items, -1), targets])
            found["negatives"] = torch.from_numpy(self._negatives(users, known))
        return {name: found[name] for name in names}

    def remember(self, users: NDArray[np.int64], memories: NDArray[np.float32]) -> None:
        """Keep these users' memories, float32 [users, d]; others keep theirs, zeros at first."""
        if self.memories is None or not self.memories.flags.writeable:
            before, shape = self.memories, (self._data.users, memories.shape[1])
            self.memories = np.zeros(shape, np.float32) if before is None else np.array(before)
        self.memories[users] = memories

    def _memories(self, users: NDArray[np.int64]) -> Tensor:
        if self.memories is None:
            raise ValueError("these users have no memory yet")
        return torch.from_numpy(np.where((users == EMPTY)[:, None], 0, self.memories[users]))

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
