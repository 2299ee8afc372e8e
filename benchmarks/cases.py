"""What is timed: one recommender, its users, and seven ways to sum its users' gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn.functional import softplus

from domains.contributions import contributions, dense_contributions
from domains.engine import batch_size
from domains.interactions import Interactions, user_keys
from domains.total import Total
from domains.users import UserTensors
from network.program import DataSet, Gradient, Plan
from policies.clipping import Flat, clipped_units
from policies.mechanism import clip
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry, Step

SIZE, EACH, BATCH, CLIP_NORM = 64, 100, 512, 1.0


class TooLarge(Exception):
    """This way can't run here; says why."""


class Model(nn.Module):
    """Items embedded, a user as the mean of hers, a logistic loss of each item against her."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(items, SIZE)

    def forward(self, items: Tensor) -> Tensor:
        """items int64 [B, M] -> the loss of each user, [B]."""
        hers = self.vectors(items)
        mine = hers.mean(1, keepdim=True)
        return softplus(-(hers * mine).sum(-1)).mean(1)


def random_users(users: int, items: int, seed: int = 0) -> Interactions:
    """Users with 100 different random items each."""
    random = np.random.default_rng(seed)
    found = np.stack([random.choice(items, EACH, replace=False) for _ in range(users)])
    names = tuple(f"u{number}" for number in range(users))
    return Interactions(
        names=names,
        indptr=np.arange(users + 1) * EACH,
        items=found.reshape(-1).astype(np.int64),
        values=np.ones(users * EACH, dtype=np.float32),
        targets=np.full(users, -1),
        keys=user_keys(names),
    )


@dataclass(frozen=True)
class Case:
    """One recommender over `items` items and its users."""

    items: int
    users: int = BATCH

    @cached_property
    def people(self) -> UserTensors:
        return UserTensors(random_users(self.users, self.items), self.items, EACH, seed=1)

    @cached_property
    def model(self) -> Model:
        torch.manual_seed(0)
        return Model(self.items)

    @cached_property
    def state(self) -> dict[str, Tensor]:
        return {"vectors": self.model.vectors.weight.detach()}

    @cached_property
    def plan(self) -> ApprovablePlan:
        def loss(state, user):  # type: ignore[no-untyped-def]
            hers = state["vectors"][user.items]
            return softplus(-(hers * hers.mean(0, keepdim=True)).sum(-1)).mean()

        data = DataSet("bench", self.items, EACH, self.users, "0" * 64, False)
        # Traced over a small table; the graph is the same for any number of rows.
        plan = Plan(
            "bench", "bench", data, [Gradient("s", loss, ["vectors"], CLIP_NORM)], self.state
        )
        return plan.bind(roster(), "0" * 64)

    @property
    def step(self) -> Step:
        return self.plan.steps[0]

    @cached_property
    def batch(self) -> NDArray[np.int64]:
        return np.arange(BATCH)


def roster() -> list[RosterEntry]:
    names = (("a", "1"), ("b", "2"), ("c", "3"))
    return [
        RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64) for n, k in names
    ]


Way = Callable[[Case], Callable[[], object]]


def plain(case: Case) -> Callable[[], object]:
    """(a) The gradient of the minibatch's mean loss, without any privacy."""

    def run() -> Tensor | None:
        items = case.people.batch(case.batch, ("items",))["items"]
        case.model.zero_grad()
        case.model(items).mean().backward()
        return case.model.vectors.weight.grad

    return run


def clipped(case: Case) -> Callable[[], object]:
    """(b) Ours: each user's clipped gradient added to the round's sum.

    In batches as large as the engine's; a round makes room for its sum once, at the first of them.
    """
    ours = contributions(case.step, case.state, case.people)
    size = batch_size(case.step, case.people.bounds, ours.width)
    total = cache(lambda: torch.zeros(case.items, SIZE))

    def run() -> None:
        for users in case.batch.reshape(-1, size):
            (part,) = ours.of(case.people.batch(users, case.step.graph.user), None)
            rows = clip([part.values], CLIP_NORM).reshape(-1, SIZE)
            assert part.ids is not None
            total().index_add_(0, part.ids.flatten(), rows)

    return run


def quantised(case: Case) -> Callable[[], object]:
    """(c) Ours: each user's clipped, truncated and checked gradient added to the round's integers.

    In batches and a sum as (b).
    """
    ours = contributions(case.step, case.state, case.people)
    size = batch_size(case.step, case.people.bounds, ours.width)
    total = cache(lambda: Total(case.step, 10**6))

    def run() -> None:
        for users in case.batch.reshape(-1, size):
            parts = ours.of(case.people.batch(users, case.step.graph.user), None)
            values = [part.values for part in parts]
            total().add(clipped_units(Flat(), values, CLIP_NORM, case.step.scale), parts)

    return run


def hooks(case: Case) -> Callable[[], object]:
    """(d) Opacus, a gradient of each sample; in physical batches that fit in memory."""
    size = _fitting(case.items * SIZE * 4 * 3)
    wrapped = GradSampleModule(Model(case.items))
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), 1.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP_NORM,
        expected_batch_size=BATCH,
    )

    def run() -> None:
        for users in case.batch.reshape(-1, size):
            wrapped(case.people.batch(users, ("items",))["items"]).mean().backward()
            optimizer.clip_and_accumulate()
            for parameter in wrapped.parameters():
                parameter.grad_sample = None
        for parameter in wrapped.parameters():
            parameter.summed_grad = None

    return run


class _PerSample(nn.Module):
    reduction = "mean"

    def forward(self, losses: Tensor, _: Tensor) -> Tensor:
        return losses if self.reduction == "none" else losses.mean()


def ghost(case: Case) -> Callable[[], object]:
    """(e) Opacus, ghost clipping: norms in a first pass, the clipped sum in a second."""
    wrapped = GradSampleModuleFastGradientClipping(
        Model(case.items), max_grad_norm=CLIP_NORM, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(wrapped.parameters(), 1.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP_NORM,
        expected_batch_size=BATCH,
    )
    criterion = DPLossFastGradientClipping(wrapped, optimizer, _PerSample())

    def run() -> None:
        optimizer.zero_grad()
        losses = wrapped(case.people.batch(case.batch, ("items",))["items"])
        criterion(losses, losses).backward()

    return run


def dense(case: Case) -> Callable[[], object]:
    """(f) vmap(grad): each user's whole table, clipped, in batches that fit in memory."""
    size = _fitting(case.items * SIZE * 4 * 4)
    gradients = dense_contributions(case.step, case.state)

    def run() -> Tensor:
        total = torch.zeros(case.items * SIZE)
        for users in case.batch.reshape(-1, size):
            (part,) = gradients(case.people.batch(users, case.step.graph.user), None)
            total += clip([part.values], CLIP_NORM).sum(0)
        return total

    return run


def _fitting(bytes_each: int) -> int:
    """The largest power of two of users that fits in half of the free memory, at most a batch."""
    with open("/proc/meminfo") as file:
        facts = dict(line.split(":") for line in file)
    free = int(facts["MemAvailable"].split()[0]) * 1024 // 2
    if bytes_each > free:
        raise TooLarge(f"one user's table takes {bytes_each / 2**30:.1f} GiB, of which no two fit")
    return min(BATCH, 2 ** int(math.log2(free // bytes_each)))
