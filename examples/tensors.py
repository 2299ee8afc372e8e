"""Compare groups of items on counts that nobody sees: only the noised answer is revealed.

    python examples/tensors.py accounts.json scientist.pem DATA_SET

Run it twice: the first time it submits the plan; once every owner approved it, it runs.
"""

import sys

import numpy as np
import torch

import coterie as ct

accounts, key, data_set = sys.argv[1:]
fed = ct.connect(accounts, key)
data = fed.data(data_set)
GROUPS = 5


def count(state, user):  # type: ignore[no-untyped-def]
    """Which items a user has: 1 for each."""
    return {"counts": torch.zeros(data.items).scatter_add(0, user.items, user.mask)}


plan = ct.Plan(
    name="groups of items",
    purpose="How the popularity of five groups of items differs.",
    data=data,
    steps=[ct.Sum("count", count, clip_norm=4.0, kept=True)],
    epsilon=1.0,
)
standing = fed.submit(plan)
print({domain: answer["status"] for domain, answer in standing.items()})

try:
    kept = fed.tensors(plan)
except ct.NotApproved as error:
    sys.exit(f"{error} Run this again when all owners have approved.")

counts = kept.share("count")["counts"]
membership = np.eye(GROUPS)[np.arange(data.items) % GROUPS].T  # public: which item is where
groups = membership @ counts
change = groups[1:] - groups[:-1]
print(f"noise of {change.noise_std():.1f} on", change.reveal().round(1))
kept.finish()
