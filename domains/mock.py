"""Mock interactions: a table that looks like the data set and is made without it."""

import numpy as np
import pandas as pd

from domains.declaration import Declaration


def mock_interactions(declaration: Declaration, seed: int = 0, users: int = 20) -> pd.DataFrame:
    """Rows in the declared columns and ranges, drawn uniformly from the declaration alone.

    Args:
        seed: the same seed gives the same mock.
        users: how many users to invent.
    """
    random = np.random.default_rng(seed)
    each = min(5, declaration.interactions_per_user, declaration.items)
    items = np.concatenate(
        [random.choice(declaration.items, each, replace=False) for _ in range(users)]
    )
    table = pd.DataFrame(
        {
            "user": np.repeat([f"mock-{number}" for number in range(users)], each),
            "item": [declaration.item_ids[index] for index in items],
        }
    )
    if "value" in declaration.columns:
        table["value"] = random.uniform(declaration.value_min, declaration.value_max, len(table))
    if "time" in declaration.columns:
        table["time"] = random.integers(0, 2**31, len(table))
    return table
