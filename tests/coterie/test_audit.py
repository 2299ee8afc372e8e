"""`coterie audit`: a sound engine isn't contradicted, one without noise is.

Runs use fresh coins. At confidence 0.999 a sound engine is contradicted in at most one of a
thousand runs (far fewer, since the theorem isn't tight for Gaussian noise).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

import coterie as ct
from coterie import audit as audited
from coterie.audit import audit, canary_users, contributions_of_each
from coterie.cli import app
from domains.engine import private_sum

ITEMS, WIDTH, CONFIDENCE = 400, 4, 0.999
DATA = ct.DataSet("interactions", ITEMS, WIDTH, 1000, "0" * 64, False)

SCRIPT = """
import torch
import coterie as ct

def plan(data, epsilon):
    def count(state, user):
        return {"counts": torch.zeros(data.items).scatter_add(0, user.items, user.mask)}
    return ct.Plan("popularity", "counts", data, [ct.Sum("count", count, 2.0)], epsilon=epsilon)
"""


def plan(epsilon: float, rate: float = 1.0) -> ct.Plan:
    def loss(state: ct.State, user: object) -> torch.Tensor:
        hers = state["v"][user.items]  # type: ignore[attr-defined]
        return (user.mask * (hers.sum(1) - 3) ** 2).sum()  # type: ignore[attr-defined]

    def update(state: ct.State, total: ct.State, noise: float) -> ct.State:
        return {"v": state["v"] - 1e-3 * total["v"]}

    step = ct.Gradient("train", loss, ["v"], 1.0, releases=3, sampling_rate=rate, update=update)
    return ct.Plan(
        "audited",
        "a test",
        DATA,
        [step],
        {"v": torch.zeros(ITEMS, 3)},
        epsilon,
        1e-9,
        spare_attempts=0,
    )


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_sound_engine_is_not_contradicted_and_the_bound_says_something(rate: float) -> None:
    found = audit(plan(epsilon=12.0, rate=rate), canaries=400, confidence=CONFIDENCE)
    assert found.releases == 3
    assert found.epsilon == pytest.approx(12.0, rel=2e-3)
    assert not found.contradicts
    assert found.bound > 0
    assert "proves nothing" in found.verdict


def test_an_engine_without_noise_is_contradicted(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(total: NDArray[np.int64], *_: object) -> NDArray[np.int64]:
        return total

    monkeypatch.setattr(audited, "add_noise_share", forgets)
    found = audit(plan(epsilon=0.5), canaries=400, confidence=CONFIDENCE)
    assert found.contradicts
    assert "wrong" in found.verdict


def test_a_plan_without_noise_is_called_so() -> None:
    written = plan(12.0)
    public = ct.Plan("p", "t", DATA, written.steps, written.state, epsilon=None)
    found = audit(public, canaries=50, confidence=0.95)
    assert found.epsilon is None
    assert found.guesses.correct == found.guesses.made
    assert "NOT PRIVATE" in found.verdict


@pytest.mark.parametrize("dense_bytes", [0, 2**30])
def test_each_canary_s_own_contribution_is_what_the_engine_adds_for_her(
    dense_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audited, "DENSE_BYTES", dense_bytes)
    written = plan(8.0)
    approved = written.bind(audited._roster(3), "0" * 64)
    step, people = approved.steps[0], canary_users(DATA, 30, 5)
    state = {"v": torch.randn(ITEMS, 3)}
    found = contributions_of_each(step, state, people, 30).to_dense() * step.scale
    for user in (0, 7, 29):
        alone = private_sum(step, state, people, np.array([user]))
        assert torch.equal(found[user].to(torch.int64), torch.from_numpy(alone))


def test_the_command_prints_the_bound_beside_epsilon_and_draws_it(tmp_path: Path) -> None:
    script, picture = tmp_path / "plan.py", tmp_path / "audit.png"
    script.write_text(SCRIPT)
    options = ["audit", str(script), "--items", "300", "--interactions", "3", "--canaries", "100"]
    told = CliRunner().invoke(app, [*options, "--plot", str(picture), "--json"])
    assert told.exit_code == 0, told.output
    shown = json.loads(told.output)
    assert 0 <= shown["lower_bound"] <= shown["epsilon"] <= 8.0
    assert shown["confidence"] == 0.95
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (
        "empirical lower bound"
        in CliRunner().invoke(app, [*options, "--plot", str(picture)]).output
    )
