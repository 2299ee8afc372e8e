"""Matrix factorisation on ratings that never leave their owners, in plain PyTorch.

Each function is about ONE user; nodes map it over users, clip, add noise, open only the sum."""

from math import sqrt

import torch

import coterie as ct

SIZE, UNSEEN, RIDGE, RATE, ROUNDS = 16, 0.3, 0.1, 16.0, 12


def plan(data: ct.DataSet, epsilon: float | None, seed: int = 0) -> ct.Plan:
    def popularity(state, user):
        return {"counts": torch.zeros(data.items).scatter_add(0, user.items, user.mask)}

    def user_vector(state, user):  # the best vector for her items: a ridge regression
        all_items = state["vectors"]
        hers = all_items[user.items] * user.mask[:, None]
        gram = UNSEEN * all_items.T @ all_items + (1 - UNSEEN) * hers.T @ hers
        return torch.linalg.solve(gram + RIDGE * torch.eye(SIZE), hers.sum(0))

    def pull(state, user):  # minus the gradient of her squared errors, unseen items at 0.3
        seen = popularity(state, user)["counts"]
        mine = user_vector(state, user)
        predicted = scores(state, mine)
        error = seen * (1 - predicted) - (1 - seen) * UNSEEN * predicted
        return {"vectors": error[:, None] * mine[None, :]}

    def scores(state, memory):
        return state["vectors"] @ memory

    def evaluate(state, user):  # is her held-out item among the ten best of a hundred?
        found = scores(state, user_vector(state, user))
        ahead = (found[user.negatives] >= found[user.target]) & (user.negatives != user.target)
        rank = ahead.sum()
        hit = user.has_target * (rank < 10)
        return {"quality": torch.stack([hit, hit / torch.log2(rank + 2.0), user.has_target])}

    def start(state, total, noise):  # item vectors start from the noised log-popularity
        logs = total["counts"].clamp(min=1 + noise).log()
        first = 2 * (logs - logs.min()) / (logs.max() - logs.min())
        return {"vectors": torch.cat([first[:, None], state["vectors"][:, 1:]], dim=1)}

    def step(state, total, noise):
        return {"vectors": state["vectors"] + RATE * total["vectors"] / data.users}

    def report(total):
        hits, gain, users = total["quality"].clamp(min=1.0).tolist()
        return {"HR@10": hits / users, "NDCG@10": gain / users}

    random = 0.01 * torch.randn(data.items, SIZE, generator=torch.Generator().manual_seed(seed))
    steps = [
        ct.Sum("popularity", popularity, sqrt(50), weight=0.10, update=start),
        ct.Sum("train", pull, 1.0, releases=ROUNDS, weight=0.87, update=step),
        ct.Sum("evaluate", evaluate, sqrt(3), 3, 0.03, after="train", every=4, metrics=report),
    ]
    made = {"state": {"vectors": random}, "memory": user_vector, "scores": scores}
    return ct.Plan("movielens-mf", "item vectors for all", data, steps, epsilon=epsilon, **made)
