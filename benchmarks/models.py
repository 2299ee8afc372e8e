"""Two larger models in `make bench`: SASRec-style, and adapters in a frozen encoder (LoRA).

Each is timed in the same run beside a plain batched minibatch gradient of the same model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softplus

from benchmarks.cases import random_users, roster
from domains.engine import private_sum
from domains.users import UserTensors
from network.program import DataSet, Gradient, Plan
from policies.plan import Step

ITEMS, EACH, USERS, SIZE = 3_706, 100, 512, 32


class SASRec(nn.Module):
    """Kang and McAuley 2018, two layers, a softmax over the next item and two negatives."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.positions = nn.Embedding(ITEMS, SIZE), nn.Embedding(EACH, SIZE)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(SIZE, 2, 2 * SIZE, 0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.register_buffer("order", torch.arange(EACH))

    def forward(self, items: Tensor, negatives: Tensor) -> Tensor:
        """items int64 [B, M], negatives int64 [B, 2] -> the loss of each user, [B]."""
        mask = torch.ones(EACH, EACH, dtype=torch.bool).triu(1)
        hidden = self.items(items) + self.positions(self.order)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask)
        shared = negatives[:, None].expand(-1, EACH - 1, -1)
        candidates = torch.cat([items[:, 1:, None], shared], dim=2)
        logits = (hidden[:, :-1, None] * self.items(candidates)).sum(-1)
        return -log_softmax(logits, dim=2)[:, :, 0].mean(1)


class LoRA(nn.Module):
    """A frozen two-layer encoder of item features with adapters of rank 8 (Hu et al. 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", torch.randn(ITEMS, 64))
        self.frozen = nn.ModuleList([nn.Linear(64, 256), nn.Linear(256, 64)]).requires_grad_(False)
        self.down = nn.ParameterList([torch.randn(64, 8) / 8, torch.randn(256, 8) / 16])
        self.up = nn.ParameterList([torch.zeros(8, 256), torch.zeros(8, 64)])

    def forward(self, items: Tensor, negatives: Tensor) -> Tensor:
        """items int64 [B, M], negatives int64 [B, 2] -> the loss of each user, [B]."""
        hidden = self.features[torch.cat([items, negatives], dim=1)]
        for layer, down, up in zip(self.frozen, self.down, self.up, strict=True):
            hidden = torch.tanh(layer(hidden) + hidden @ down @ up)
        mine = hidden[:, :EACH].mean(1, keepdim=True)
        scores = (hidden * mine).sum(-1)
        return softplus(-scores[:, :EACH]).mean(1) + softplus(scores[:, EACH:]).mean(1)


def of_one(model: Any, user: Any) -> Tensor:
    """The loss of one user."""
    loss: Tensor = model(user.items[None], user.negatives[None, :2])[0]
    return loss


@dataclass(frozen=True)
class ModelCase:
    """A model, its plan and its users."""

    make: Callable[[], nn.Module]

    @cached_property
    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    @cached_property
    def people(self) -> UserTensors:
        return UserTensors(random_users(USERS, ITEMS), ITEMS, EACH, seed=1, most=USERS)

    @cached_property
    def plan(self) -> Plan:
        data = DataSet("bench", ITEMS, EACH, USERS, "0" * 64, False)
        return Plan("bench", "bench", data, [Gradient("s", of_one)], model=self.model)

    @cached_property
    def step(self) -> Step:
        return self.plan.bind(roster(), "0" * 64).steps[0]

    def plain(self) -> None:
        """The gradient of the batch's mean loss, without any privacy."""
        batch = self.people.batch(np.arange(USERS), ("items", "negatives"))
        self.model.zero_grad()
        self.model(batch["items"], batch["negatives"][:, :2]).mean().backward()

    def ours(self) -> None:
        """The same users' clipped, quantised sum."""
        state = {spec.name: self.plan.state[spec.name] for spec in self.step.state}
        private_sum(self.step, state, self.people, np.arange(USERS))


MODELS: Sequence[tuple[str, ModelCase]] = (
    ("SASRec-style", ModelCase(SASRec)),
    ("LoRA", ModelCase(LoRA)),
)
