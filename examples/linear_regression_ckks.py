"""Linear regression on interactions that never leave their owners, summed under encryption.

What is fitted: an interaction's value from public features of its item. One release of X'X and X'y
is all it takes; domains' noised sums are added as CKKS ciphertexts (docs/ckks.md).
"""

from math import sqrt

import torch

import coterie as ct

RIDGE = 1e-3


def features(items: int) -> torch.Tensor:
    """What the catalogue says of each item, [items, 3]; here a constant and its place in it."""
    place = torch.linspace(-1, 1, items)
    return torch.stack([torch.ones(items), place, 1.5 * place**2 - 0.5], dim=1)


def plan(data: ct.DataSet, epsilon: float | None) -> ct.Plan:
    table = features(data.items)
    size = table.shape[1]

    def moments(state, user):
        """One user's X'X and X'y, the mean over her interactions: no user weighs more than one."""
        x = state["features"][user.items] * user.mask[:, None]
        share = 1 / user.mask.sum().clamp(min=1.0)
        return {"gram": share * x.T @ x, "cross": share * x.T @ (user.values * user.mask)}

    def solve(state, total, noise):
        """theta = (X'X + ridge)^-1 X'y, with a ridge above what noise does to X'X."""
        gram = (total["gram"] + total["gram"].T) / 2
        ridge = max(RIDGE, 2 * noise * sqrt(size))
        theta = torch.linalg.solve(gram + ridge * torch.eye(size), total["cross"])
        return {**state, "theta": theta}

    # |x| is at most sqrt(3) and a value at most 5: |X'X| is at most 3 and |X'y| at most 5 sqrt(3).
    step = ct.Sum("moments", moments, clip_norm=sqrt(3**2 + 75), update=solve)
    return ct.Plan(
        name="linear-regression",
        purpose="how an item's value hangs on what the catalogue says of it",
        data=data,
        steps=[step],
        state={"features": table, "theta": torch.zeros(size)},
        epsilon=epsilon,
        aggregation="ckks",
    )
