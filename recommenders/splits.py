"""Dividing one public data set among partners who differ, as real partners do.

Partners of equal size and equal taste would flatter federation: each could do nearly as well
alone. Here they differ in size by the shares asked for and in taste by construction.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame

_TASTES = 8
_POWER_STEPS = 6
_BLUR = 0.5
"""Noise on the leaning of users, in standard deviations of it; infinity would be a random split."""


def split_by_taste(
    train: DataFrame,
    partners: Sequence[str] = ("north", "east", "south"),
    shares: Sequence[float] = (0.5, 0.3, 0.2),
    seed: int = 0,
) -> dict[str, DataFrame]:
    """Divide interactions by user into partners of different size and taste.

    Users are placed by their tastes (leading singular vectors of the user-item matrix, without
    the first, which is popularity). Every partner gets a random direction of taste, orthogonal to
    the others', and the users who lean its way until it is full. The leaning is
    blurred by seeded noise, so that partners overlap. Deterministic for a given seed.

    Args:
        train: columns user, item (any others are kept).
        partners: names, at least two.
        shares: each partner's fraction of the users, positive, adding up to 1.
        seed: of the directions and the blur.

    Returns:
        For each partner its users' rows, in their order. Every user is with exactly one partner,
        and every partner has at least one.

    Raises:
        ValueError: names repeat, shares don't match them, or there are fewer users than partners.
    """
    _check(partners, shares)
    ids, users = np.unique(train["user"].to_numpy(), return_inverse=True)
    catalogue, items = np.unique(train["item"].to_numpy(), return_inverse=True)
    sizes = _sizes(len(ids), shares)
    random = np.random.default_rng(seed)
    tastes = _tastes(users, items, (len(ids), len(catalogue)), random)
    home = _fill(_leanings(tastes, len(partners), random), sizes)
    return {
        partner: train[home[users] == index].reset_index(drop=True)
        for index, partner in enumerate(partners)
    }


def popularity_distance(left: DataFrame, right: DataFrame) -> float:
    """How differently two groups' interactions are distributed over the items.

    Returns:
        The Jensen-Shannon distance with logarithms to base 2: 0 for equal item popularity, 1 for
        groups that share no item (Endres and Schindelin 2003).
    """
    items = np.concatenate((left["item"].to_numpy(), right["item"].to_numpy()))
    catalogue, position = np.unique(items, return_inverse=True)
    p = np.bincount(position[: len(left)], minlength=len(catalogue)) / len(left)
    q = np.bincount(position[len(left) :], minlength=len(catalogue)) / len(right)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    here = p > 0
    return float(np.sum(p[here] * np.log2(p[here] / q[here])))


def _check(partners: Sequence[str], shares: Sequence[float]) -> None:
    if len(partners) < 2 or len(set(partners)) != len(partners):
        raise ValueError("expected at least two partners, each name once")
    if len(shares) != len(partners) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError("expected one positive share for each partner, adding up to 1")


def _sizes(users: int, shares: Sequence[float]) -> NDArray[np.int64]:
    """Whole users by largest remainder, at least one each."""
    if users < len(shares):
        raise ValueError(f"{users} users can't be divided among {len(shares)} partners")
    exact = np.array(shares) * users
    sizes: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    for index in np.argsort(sizes - exact, kind="stable")[: users - sizes.sum()]:
        sizes[index] += 1
    while sizes.min() < 1:
        sizes[sizes.argmax()] -= 1
        sizes[sizes.argmin()] += 1
    return sizes


def _tastes(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    shape: tuple[int, int],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Users on the leading singular vectors but the first: float64 [users, tastes].

    Randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) on the sparse
    matrix whose rows are scaled to unit length.
    """
    degree = np.bincount(users, minlength=shape[0])
    weights = torch.from_numpy(1.0 / np.sqrt(degree[users]))
    indices = torch.from_numpy(np.stack((users, items)))
    matrix = torch.sparse_coo_tensor(indices, weights, shape, check_invariants=True).coalesce()
    width = min(_TASTES + 1, *shape)
    basis = torch.from_numpy(random.standard_normal((shape[1], width)))
    transposed = matrix.t().coalesce()
    for _ in range(_POWER_STEPS):
        orthogonal, _ = torch.linalg.qr(torch.sparse.mm(matrix, basis))
        basis = torch.sparse.mm(transposed, orthogonal)
    left, scale, _ = torch.linalg.svd(basis.t(), full_matrices=False)
    vectors: NDArray[np.float64] = (orthogonal @ left * scale).numpy()
    # Singular vectors are defined up to their sign, which differs between linear algebra builds.
    largest = np.abs(vectors).argmax(axis=0)
    vectors *= np.sign(vectors[largest, np.arange(width)])
    return vectors[:, 1:] if width > 1 else vectors


def _leanings(
    tastes: NDArray[np.float64], partners: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """How far each user leans towards each partner: float64 [users, partners]."""
    centred = tastes - tastes.mean(axis=0)
    directions = random.standard_normal((tastes.shape[1], partners))
    directions, _ = np.linalg.qr(directions)
    # More partners than tastes: some share a direction.
    leaning = centred @ directions[:, np.arange(partners) % directions.shape[1]]
    spread = leaning.std(axis=0)
    leaning = leaning / np.where(spread > 0, spread, 1.0)
    blur: NDArray[np.float64] = random.standard_normal(leaning.shape)
    return leaning + _BLUR * blur


def _fill(leanings: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give every user a partner: those who care most choose first, while there is room."""
    order = np.argsort(-np.ptp(leanings, axis=1), kind="stable")
    room = sizes.copy()
    home = np.empty(len(leanings), dtype=np.int64)
    for user in order:
        wishes = np.where(room > 0, leanings[user], -np.inf)
        home[user] = wishes.argmax()
        room[home[user]] -= 1
    return home
