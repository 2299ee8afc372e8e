"""A plan's computation on made-up users: repeatable, and true to what the node clips."""

from typing import Any

import torch

from network.program import Gradient, Plan, Sum
from policies.rehearsal import rehearse
from tests.policies.test_explanation import DATA, ITEMS, ROSTER, STATE, count, loss


def test_every_step_says_how_large_one_users_contribution_gets() -> None:
    steps = [Sum("count", count, 2.0), Gradient("train", loss, ["v"], 1e-3, releases=4)]
    plan = Plan("plan", "to learn", DATA, steps, STATE).bind(ROSTER, "0" * 64)
    counted, trained = rehearse(plan, ITEMS, users=8)
    assert counted.outputs == (f"counts float32[{ITEMS}]",)
    assert all(0 < norm**2 <= 36 for norm in counted.norms)
    assert (trained.clipped, trained.problem) == (1.0, "")
    assert rehearse(plan, ITEMS, users=8) == [counted, trained]


def test_what_is_not_finite_adds_nothing() -> None:
    def endless(state: object, user: Any) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(2) / (0 * user.mask.sum())}

    plan = Plan("plan", "", DATA, [Sum("endless", endless, 1.0)], {}).bind(ROSTER, "0" * 64)
    (rehearsed,) = rehearse(plan, ITEMS)
    assert set(rehearsed.norms) == {0.0}
