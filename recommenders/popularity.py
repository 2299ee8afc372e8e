"""The popularity baseline: every user is shown what most users liked.

Whatever a model learns about tastes has to be worth more than this.
"""

import numpy as np
from numpy.typing import NDArray


def popularity(items: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """How many interactions each item has.

    Args:
        items: catalogue position of every interaction, int64 of shape [L], each in [0, size).
        size: number of items in the catalogue, N.

    Returns:
        float64 of shape [N].

    Raises:
        ValueError: a position lies outside the catalogue.
    """
    if items.size and not 0 <= items.min() <= items.max() < size:
        raise ValueError(f"item positions must lie in [0, {size})")
    return np.bincount(items, minlength=size).astype(np.float64)


def score_candidates(
    scores: NDArray[np.float64], candidates: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The same item scores for every user, picked for the items to rank.

    Args:
        scores: one per item, float64 of shape [N].
        candidates: catalogue positions to rank per user, int64 of shape [users, 1 + negatives].

    Returns:
        float64 of the shape of `candidates`.
    """
    picked: NDArray[np.float64] = scores[candidates]
    return picked
