"""Random losses over several tables, with padding and read more than once, under every clipping.

One user moves the integer sum by at most the clip norm, and what she adds row by row is what she
adds to whole tables.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from domains.contributions import contributions, dense_contributions
from domains.total import row_positions
from domains.users import UserTensors
from network.clip_norms import AdaptiveClip, ClipNorm
from network.program import Gradient, Plan
from policies.admission import admit
from policies.clipping import Flat
from policies.plan import Plan as ApprovablePlan
from policies.plan import Step
from tests.policies.plans_of_attackers import BOUNDS, DATA, ITEMS, ROSTER, WIDTH
from tests.policies.test_harmless_plans import bound_of, largest_change, people

SHAPES = {"a": (ITEMS, 3), "b": (ITEMS, 1), "c": (ITEMS + 1, 3), "d": (ITEMS, 2, 2)}
IDS: list[Callable[[Any], Tensor]] = [
    lambda user: user.items,
    lambda user: user.negatives[:5],
    lambda user: user.target,
    lambda user: user.items.reshape(2, 3),
    lambda user: (user.items * 7 + 3) % ITEMS,
    lambda user: torch.where(user.mask > 0, user.items, user.target),
]
SHAPED: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.sum(),
    lambda x: x.tanh().square().sum(),
    lambda x: (20 * x).exp().sum(),
    lambda x: (x / (x * x - 1)).sum(),
    lambda x: x.norm(),
    lambda x: torch.cat([x, x]).softmax(0)[0],
]


@dataclass(frozen=True)
class Read:
    """One place where a loss reads a table.

    Attributes:
        padding: an id whose row isn't trained, or None.
    """

    table: str
    ids: Callable[[Any], Tensor]
    padding: int | None
    shaped: Callable[[Tensor], Tensor]

    def of(self, state: Any, user: Any) -> Tensor:
        table, ids = state[self.table], self.ids(user)
        rows = table[ids] if table.dim() > 2 else fn.embedding(ids, table, self.padding)
        return self.shaped(rows.reshape(-1))


def reads(draw: random.Random) -> list[Read]:
    names = draw.sample(list(SHAPES), 2)
    return [
        Read(
            draw.choice(names),
            draw.choice(IDS),
            draw.choice([None, draw.randrange(ITEMS)]),
            draw.choice(SHAPED),
        )
        for _ in range(draw.randint(2, 5))
    ]


def clip_norm(seed: int, outputs: list[str], draw: random.Random) -> ClipNorm:
    norm = draw.choice([0.01, 1.0, 50.0])
    if seed % 3 == 0:
        return norm
    if seed % 3 == 1:
        return {name: norm * draw.choice([0.1, 0.5, 1.0]) for name in outputs}
    return AdaptiveClip(start=norm, quantile=draw.choice([0.1, 0.5, 0.9]))


def drawn(seed: int) -> tuple[Step, dict[str, Tensor]]:
    draw, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    places, size = reads(draw), draw.choice([0.1, 1.0, 1e4])

    def loss(state: Any, user: Any) -> Tensor:
        total = (state["w"] * user.values.sum()).sum()
        for place in places:
            total = place.of(state, user) + total.tanh()
        return total

    state = {n: size * torch.randn(s, generator=noise) for n, s in SHAPES.items()}
    state["w"] = torch.randn(3, generator=noise)
    outputs = ["w", *sorted({place.table for place in places})]
    norm = clip_norm(seed, outputs, draw)
    plan = Plan("m", "t", DATA, [Gradient("s", loss, outputs, norm)], state, None)
    approved = plan.bind(ROSTER, "0" * 64)
    admit(approved, BOUNDS, public=True)
    [step] = ApprovablePlan.from_json(approved.to_json()).steps
    return step, {spec.name: plan.state[spec.name] for spec in step.state}


@pytest.mark.parametrize("seed", range(6))
def test_tables_read_in_any_way_are_harmless_and_exact(seed: int) -> None:
    step, state = drawn(seed)
    data = people(5, seed)
    assert largest_change(step, state, data) <= bound_of(step)
    tensors, everyone = UserTensors(data, ITEMS, WIDTH, seed=1), np.arange(5)
    batch = tensors.batch(everyone, step.graph.user)
    parts = contributions(step, state, tensors).of(batch, None)
    assert any(part.ids is not None for part in parts)
    places = row_positions(step.model_copy(update={"clipping": Flat()}), parts)
    rows = torch.cat([part.values.reshape(5, -1) for part in parts], dim=1)
    sparse = torch.zeros(5, sum(spec.count for spec in step.outputs)).scatter_add(1, places, rows)
    whole = dense_contributions(step, state)(batch, None)
    dense = torch.cat([part.values.reshape(5, -1) for part in whole], dim=1)
    for hers, expected in zip(sparse, dense, strict=True):
        largest = float(expected.nan_to_num(0, 0, 0).norm())
        assert torch.allclose(hers, expected, 1e-3, 1e-4 * largest, equal_nan=True)
