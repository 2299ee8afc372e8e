"""How well a ranking finds the item that was held out.

For public files and baselines. On private data the same measures are computed as a private sum, a
step of the plan, and only their noised totals are seen.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray


class RankingQuality(NamedTuple):
    """Means over users, each in [0, 1].

    Attributes:
        hit_ratio: fraction of users whose held-out item is among the first k.
        ndcg: normalised discounted cumulative gain at k, with one relevant item.
    """

    hit_ratio: float
    ndcg: float


def hit_ratio_and_ndcg(scores: NDArray | torch.Tensor, k: int = 10) -> RankingQuality:
    """HR@k and NDCG@k for one held-out item per user (He et al. 2017, section 4.1).

    With r the number of other items that aren't scored strictly below the held-out one, a user
    counts 1 towards the hit ratio and 1 / log2(r + 2) towards NDCG if r < k, else nothing. So a
    tie counts against the model, and so does NaN: constant scores find nobody.

    Args:
        scores: shape [users, 1 + negatives], any real dtype; column 0 is the held-out item.
        k: length of the list, at least 1.

    Raises:
        ValueError: no users, no negatives, or k below 1.
    """
    table = scores.detach().cpu().numpy() if isinstance(scores, torch.Tensor) else scores
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise ValueError(f"expected scores of shape [users, 1 + negatives], got {table.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    rank = np.sum(~(table[:, 1:] < table[:, :1]), axis=1)
    gain = np.where(rank < k, 1.0 / np.log2(rank + 2.0), 0.0)
    return RankingQuality(float(np.mean(rank < k)), float(np.mean(gain)))
