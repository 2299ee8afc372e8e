"""Per-layer and adaptive clipping on real nodes: quoted, approved, run, and summed as promised."""

from pathlib import Path

import numpy as np
import pytest
import torch

import coterie as ct
from tests.network_of_three import NAMES, Network, interactions

pytestmark = pytest.mark.nodes


def plan(data: ct.DataSet, epsilon: float | None) -> ct.Plan:
    def count(state, user):  # type: ignore[no-untyped-def]
        seen = torch.zeros(data.items).scatter_add(0, user.items, user.mask)
        return {"counts": seen + 0 * state["sum"], "users": torch.ones(1)}

    def update(state, total, noise):  # type: ignore[no-untyped-def]
        return {"sum": total["counts"], "users": total["users"]}

    adaptive = ct.AdaptiveClip(start=0.5, quantile=0.5, rate=1.0)
    steps = [
        ct.Sum("adaptive", count, adaptive, releases=2),
        ct.Sum("layers", count, {"counts": 2.0, "users": 0.5}, update=update),
    ]
    return ct.Plan(
        "clipped", "test", data, steps, {"sum": torch.zeros(data.items)}, epsilon,
        memory=lambda state, user: state["sum"][user.items[:1]],
        scores=lambda state, memory: state["sum"] * memory.sum(),
    )  # fmt: skip


def test_layers_and_adaptive_norms_run_on_nodes(network: Network, tmp_path: Path) -> None:
    written = plan(network.federation.data("open-data"), None)
    network.submit_and_approve(written)
    run = network.federation.train(written, tmp_path)
    users = np.concatenate([interactions(n).groupby("user").size().to_numpy() for n in NAMES])
    lengths = np.sqrt(users)
    expected = (users * np.minimum(1, 2.0 / lengths)).sum()
    assert float(run.state["sum"].sum()) == pytest.approx(expected, rel=1e-4)
    assert float(run.state["users"]) == pytest.approx(0.5 * len(users), rel=1e-4)
    # At 0.5 no user is within the norm; nor at either of the two units that follow.
    part = len(users) / written.data.users
    moved = float(run.state["unit_of.adaptive"] / written.state["unit_of.adaptive"])
    assert moved == pytest.approx(np.exp(2 * 0.5 * part), rel=1e-3)


def test_their_quote_is_within_what_was_asked(network: Network) -> None:
    written = plan(network.federation.data("interactions"), 8.0)
    for quote in network.federation.quote(written).values():
        assert quote["refusals"] == []
        assert 7.9 < quote["epsilon"] <= 8.0
